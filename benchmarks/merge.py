"""Our merge beside mergekit's command: seconds, memory, and whether the weights agree.

    python benchmarks/merge.py --size all --synthetic 0.1,0.3,1,3 --json merge.json

Both commands get one recipe (the paper's profile, bfloat16) and the same two models, each merge
in a fresh process, in turns, with a cold and a warm file cache. A plain copy of the same bytes,
read and written by as many threads as there are cores and flushed to the disk, says what the
machine could do at best. Our command flushes what it writes before it ends, mergekit's does not;
so the time until the result is on the disk is measured for both as well.

Needs room for five copies of the largest model: 17 GB for 1.7b, and 19 GB for 3 synthetic
billions. `--results /dev/shm` writes the merged models into memory, which takes a slow disk out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from merge_agreement import compare  # beside this script
from merge_models import LARGE, TINY, llama_of, perturbed_pair, synthetic_pair
from safetensors.torch import load_file

from merging.build import resolve_model
from merging.parent import Parent, open_parent
from merging.plan import plan
from merging.recipe import PROFILES, Input, Recipe
from merging.stream import Grams, merge_into_memory
from merging.tensors import LoadedWeights
from orbweave.files import write_text
from orbweave.paths import CACHE_VARIABLE
from orbweave.weights import count_parameters, weight_files

ROOT = Path(__file__).parents[1]
OURS = (sys.executable, "-m", "ui.cli", "merge")
COMMANDS = {
    "orbweave": OURS,
    "orbweave_again": OURS,
    "mergekit": (str(Path(sys.executable).with_name("mergekit-yaml")),),
}
"""`orbweave` hashes both parents for the model card; `orbweave_again` remembers the hashes from an
earlier merge of the same files, as users find it from the second merge on. mergekit has none."""
BLOCK = 1 << 22
"""Bytes handled at a time here."""


# ---------------------------------------------------------------- one recipe for both


def recipe_for(pair: Sequence[Path], t: Any) -> Recipe:
    """Return the SLERP of two models."""
    return Recipe(
        merge_method="slerp",
        base_model=str(pair[0]),
        models=tuple(Input(model=str(folder)) for folder in pair),
        parameters={"t": t},
        dtype="bfloat16",
    )


def parents_of(pair: Sequence[Path]) -> dict[str, Parent]:
    """Read the headers of both models."""
    return {str(folder): open_parent(str(folder), folder) for folder in pair}


def write_recipe(pair: Sequence[Path], folder: Path) -> Path:
    """Write the recipe that both commands read."""
    path = folder / "recipe.yaml"
    path.write_text(recipe_for(pair, PROFILES["paper"]).to_yaml())
    return path


# ---------------------------------------------------------------- one merge, measured


class Run(NamedTuple):
    """One command, from its start to its end."""

    seconds: float
    flushed_s: float
    """Until the result is on the disk."""
    peak_mb: float
    """Largest resident memory, child processes included, in 10^6 bytes."""
    anonymous_mb: float
    """Of that without files that are mapped into memory; sampled every 10 ms."""


def run(who: str, recipe: Path, out: Path) -> Run:
    """Run a merge in a fresh process; only `orbweave_again` keeps its cache for the next run.

    Raises:
        SystemExit: it failed; shows what it said.
    """
    log, cache = out.with_suffix(".log"), out.with_suffix(".cache")
    peak = anonymous = 0
    begin = time.perf_counter()
    with log.open("w") as sink:
        child = subprocess.Popen(
            [*COMMANDS[who], str(recipe), str(out), "--quiet"],
            cwd=ROOT,
            env=os.environ | {"HF_HUB_OFFLINE": "1", CACHE_VARIABLE: str(cache)},
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
        while child.poll() is None:
            resident = _resident_kib(child.pid)
            peak, anonymous = max(peak, resident[0]), max(anonymous, resident[1])
            time.sleep(0.01)
    seconds = time.perf_counter() - begin
    if child.returncode != 0:
        raise SystemExit(f"{who} failed:\n{log.read_text()[-2000:]}")
    log.unlink()
    if who != "orbweave_again":
        shutil.rmtree(cache, ignore_errors=True)
    for path in out.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    flushed_s = time.perf_counter() - begin
    return Run(seconds, flushed_s, peak * 1024 / 1e6, anonymous * 1024 / 1e6)


def _resident_kib(pid: int) -> tuple[int, int]:
    """Return the peak of all and the present anonymous memory of a process and its children."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it is gone
        return 0, 0
    told = dict(re.findall(r"^(VmHWM|RssAnon):\s+(\d+)", status, re.MULTILINE))
    own = int(told.get("VmHWM", 0)), int(told.get("RssAnon", 0))
    all_ = [own, *(_resident_kib(int(child)) for child in children)]
    return sum(peak for peak, _ in all_), sum(anonymous for _, anonymous in all_)


def chill(files: Iterable[Path]) -> str:
    """Empty the file cache and say how far that went."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return "the models' files dropped by posix_fadvise; the programs' own files stay"
    return "everything dropped through /proc/sys/vm/drop_caches, the programs' own files too"


def warm(files: Iterable[Path]) -> str:
    """Read the models once, so that the cache holds them."""
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.read(BLOCK):
                pass
    return "the models read once before"


CACHES = {"cold": chill, "warm": warm}


def copy_plainly(pair: Sequence[Path], target: Path) -> float:
    """Return the seconds it takes to read both models, write the first and flush it."""
    files = [(path, n == 0) for n, folder in enumerate(pair) for path in weight_files(folder)]
    begin = time.perf_counter()
    with target.open("xb", buffering=0) as out, ThreadPoolExecutor(os.cpu_count()) as pool:
        place, work = 0, []
        for path, is_kept in files:
            size = path.stat().st_size
            for start in range(0, size, 16 * BLOCK):
                piece = (start, min(16 * BLOCK, size - start), place + start if is_kept else None)
                work.append(pool.submit(_copy_piece, path, out.fileno(), *piece))
            place += size if is_kept else 0
        for each in work:
            each.result()
        os.fsync(out.fileno())
    seconds = time.perf_counter() - begin
    target.unlink()
    return seconds


def _copy_piece(path: Path, out: int, start: int, n_bytes: int, place: int | None) -> None:
    """Read a piece of a file in small blocks and write them to `place` of `out`, if anywhere."""
    block = memoryview(bytearray(BLOCK // 4))  # stays in the processor's cache
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        done = 0
        while done < n_bytes:
            n = file.readinto(block[: n_bytes - done])
            if not n:
                raise SystemExit(f"{path} ends early")
            if place is not None:
                os.pwrite(out, block[:n], place + done)
            done += n


# ---------------------------------------------------------------- comparisons


def in_memory(pair: Sequence[Path], rounds: int) -> dict[str, object]:
    """Merge loaded models without the disk: once, and for 11 values of t."""
    recipe, parents = recipe_for(pair, PROFILES["paper"]), parents_of(pair)
    loaded = {
        name: LoadedWeights({k: t for file in weight_files(p.folder) for k, t in load(file)})
        for name, p in parents.items()
    }
    once, sweep = [], []
    for _ in range(rounds):
        begin = time.perf_counter()
        merge_into_memory(plan(recipe, parents), loaded)
        once.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        grams: Grams = {}
        for tenth in range(11):
            steps = plan(recipe_for(pair, tenth / 10), parents)
            merge_into_memory(steps, loaded, grams=grams)
        sweep.append(time.perf_counter() - begin)
    return {"one_merge_s": spread(once), "sweep_of_11_s": spread(sweep)}


def load(file: Path) -> Iterable[tuple[str, torch.Tensor]]:
    """Return a shard's tensors, read and not only mapped."""
    return [(name, tensor.clone()) for name, tensor in load_file(file).items()]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median and the range."""
    found = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {key: round(value, 3) for key, value in found.items()}


# ---------------------------------------------------------------- the whole


@dataclass(frozen=True)
class Bench:
    """Where and how often to measure."""

    work: Path
    results: Path
    rounds: int
    tokenizer: Path

    @contextmanager
    def room(self, n_bytes: int) -> Iterator[tuple[Path, Path]]:
        """Yield a folder for the models and one for the merges; both are removed at the end."""
        for place in (self.work, self.results):
            free = shutil.disk_usage(place).free
            if n_bytes > free:
                raise SystemExit(
                    f"wanted {n_bytes / 1e9:.0f} GB in {place}, it has {free / 1e9:.0f} left; "
                    "name another with --work or --results"
                )
        with (
            tempfile.TemporaryDirectory(prefix="merge-", dir=self.work) as work,
            tempfile.TemporaryDirectory(prefix="merge-", dir=self.results) as results,
        ):
            yield Path(work), Path(results)

    def warm_up(self) -> None:
        """Run both commands once without measuring, which compiles their Python files."""
        with self.room(5 * TINY.stored_bytes) as (work, results):
            recipe = write_recipe(synthetic_pair(TINY, work, self.tokenizer), work)
            for who in COMMANDS:
                run(who, recipe, results / who)

    def measure(self, size: str) -> dict[str, object]:
        """Compare both commands on one pair of models."""
        shape = {"tiny": TINY, "1.7b": LARGE}.get(size)
        n_bytes = shape.stored_bytes if shape else 300_000_000
        with self.room(5 * n_bytes) as (work, results):
            note(f"{size}: writing the models")
            if shape is None:
                pair = perturbed_pair(self.tokenizer, work)
            else:
                pair = synthetic_pair(shape, work, self.tokenizer)
            recipe = write_recipe(pair, work)
            n_parameters = count_parameters(weight_files(pair[0]))
            document: dict[str, object] = {"parameters": n_parameters}
            for cache in CACHES:
                document[cache] = self._in_turns(size, cache, pair, recipe, results)
            steps = plan(recipe_for(pair, PROFILES["paper"]), parents_of(pair))
            t = {step.name: step.shares[1] for step in steps}
            agreement = compare(results / "orbweave", results / "mergekit", pair, t)
            document["agreement"] = agreement._asdict()
            if size != "1.7b":
                document["in_memory"] = in_memory(pair, self.rounds)
        return document

    def _in_turns(
        self, size: str, cache: str, pair: Sequence[Path], recipe: Path, results: Path
    ) -> dict[str, object]:
        """Run both commands and the plain copy in turns; keep the last merge of each."""
        files = [path for folder in pair for path in weight_files(folder)]
        runs: dict[str, list[Run]] = {who: [] for who in COMMANDS}
        copies, how = [], ""
        again = results / "orbweave_again"
        run("orbweave_again", recipe, again)  # learns the hashes
        for i in range(self.rounds):
            for who in COMMANDS:
                out = results / who
                shutil.rmtree(out, ignore_errors=True)
                how = CACHES[cache](files)
                runs[who].append(run(who, recipe, out))
                note(f"{size} {cache} {i + 1}/{self.rounds} {who}: {runs[who][-1].seconds:.2f} s")
                shutil.rmtree(again, ignore_errors=True)  # nobody compares it; room is short
            CACHES[cache](files)
            copies.append(copy_plainly(pair, results / "copy"))
        copy_s = statistics.median(copies)
        document: dict[str, object] = {"cache": how, "plain_copy_s": spread(copies)}
        n_bytes = 1.5 * sum(path.stat().st_size for path in files)  # two are read, one is written
        document |= {"gb": round(n_bytes / 1e9, 3), "gb_per_s": round(n_bytes / copy_s / 1e9, 2)}
        for who, of in runs.items():
            columns = zip(Run._fields, zip(*of, strict=True), strict=True)
            figures: dict[str, object] = {field: spread(values) for field, values in columns}
            figures["share_of_limit"] = round(copy_s / median(of, "flushed_s"), 3)
            document[who] = figures
        for who in ("orbweave", "orbweave_again"):
            for field in ("seconds", "flushed_s", "peak_mb"):
                ratio = median(runs["mergekit"], field) / median(runs[who], field)
                document[f"mergekit_over_{who}_{field}"] = round(ratio, 2)
        return document

    def peaks(self, billions: float) -> dict[str, float]:
        """Return both commands' memory for a synthetic model; mergekit only where it fits."""
        shape = llama_of(billions)
        n_bytes = shape.stored_bytes
        found = {"parameters": float(n_bytes // 2)}
        with self.room(int(3.1 * n_bytes)) as (work, results):
            note(f"{billions} billion: writing the models")
            pair = synthetic_pair(shape, work, self.tokenizer)
            recipe = write_recipe(pair, work)
            for who in ("orbweave", "mergekit"):
                # At 1.7 billion it took 1.4 times the size of the model.
                if who == "mergekit" and 2 * n_bytes + 1e9 > available_bytes():
                    note(f"{billions} billion: not enough memory for mergekit")
                    continue
                measured = run(who, recipe, results / who)
                shutil.rmtree(results / who)
                note(f"{billions} billion {who}: {measured.peak_mb:.0f} MB")
                found |= {f"{who}_{key}": round(v, 3) for key, v in measured._asdict().items()}
        return found


def median(runs: Sequence[Run], field: str) -> float:
    """Return the median of one figure."""
    return float(statistics.median(getattr(each, field) for each in runs))


def available_bytes() -> int:
    """Return the memory that can be had without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def draw_peaks(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw peak memory against the number of parameters."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    for who, colour in (("orbweave", "#2a7f62"), ("mergekit", "#4c566a")):
        points = [(r["parameters"] / 1e9, r[k] / 1e3) for r in rows if (k := f"{who}_peak_mb") in r]
        if not points:
            continue
        axes.plot(*zip(*points, strict=True), "o-", color=colour, label=who)
        axes.annotate(f"{points[-1][1]:.2f} GB", points[-1], (0, 6), textcoords="offset points")
    axes.set(xscale="log", xlabel="parameters of each parent, 10⁹", ylabel="peak memory, GB")
    axes.set_ylim(bottom=0)
    axes.set_xticks([r["parameters"] / 1e9 for r in rows], labels=[_billions(r) for r in rows])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)


def machine() -> dict[str, object]:
    """Return what the figures depend on."""
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mergekit": version("mergekit"),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
    }


def note(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)


def _billions(row: Mapping[str, float]) -> str:
    return f"{row['parameters'] / 1e9:.2g}"


def main() -> None:
    """Measure what was asked for and print one JSON document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("tiny", "135m", "1.7b", "all", "none"), default="135m")
    parser.add_argument("--synthetic", default="", help="billions of parameters, e.g. 0.1,0.3,1,3")
    parser.add_argument("--rounds", type=int, default=3, help="times each merge is run (default 3)")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--results", type=Path, help="where merges are written (default: --work)")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs/pictures/merge-memory.png")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    args = parser.parse_args()
    bench = Bench(args.work, args.results or args.work, args.rounds, resolve_model("base"))
    sizes = {"all": ["tiny", "135m", "1.7b"], "none": []}.get(args.size, [args.size])
    document: dict[str, object] = {
        "machine": machine(),
        "settings": {key: str(value) for key, value in asdict(bench).items() if key != "tokenizer"},
    }
    bench.warm_up()
    document |= {size: bench.measure(size) for size in sizes}
    if args.synthetic:
        rows = [bench.peaks(float(text)) for text in args.synthetic.split(",")]
        document["synthetic"] = rows
        draw_peaks(rows, args.picture)
        note(f"figure written to {args.picture}")
    text = json.dumps(document, indent=2)
    print(text)
    if args.json:
        write_text(args.json, text + "\n")


if __name__ == "__main__":
    main()
