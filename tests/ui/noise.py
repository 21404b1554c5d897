"""The real `orbweave batch` in children that may be killed, around real parts or makers of noise.

    python -m tests.ui.noise PARTS KILLS PROCESSES WITHIN_S BETWEEN

Imports everything once; each child then begins within milliseconds. It works on `concepts.csv` in
the current folder, with two seeds, into `out`. PARTS is `noise`, where every picture drawn is a
line of `drawn.log`, or `real`. BETWEEN is empty, or a shell command after a first run; the batch
is then run again. Prints how many kills hit a living process, and the exit codes of the others.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CONCEPTS = [f"web number {n}" for n in range(19)] + ["a bomb"]
LATE = ("alembic.command", "pyarrow.parquet", "ui.batch_report", "ui.maker", "ui.report")
REAL = ("agents.engine", "agents.team", "diffusers", "imagegen.pipeline", "sentence_transformers")
"""What the command imports late: then children need not."""
COMMAND = ["batch", "concepts.csv", "--seed", "0-1", "--out", "out", "--quiet"]


def run_in(
    folder: Path,
    kills: int,
    n_processes: int = 1,
    within_s: float = 1.0,
    *,
    parts: str = "noise",
    between: str = "",
    wrapped: Sequence[str] = (),
    store: str = "orbweave.db",
) -> subprocess.CompletedProcess[str]:
    """Run this file in a folder with a `concepts.csv`; return what it said.

    Args:
        folder: Where the table, `out` and `drawn.log` are.
        kills: As above; likewise the next ones.
        n_processes: At a time.
        within_s: Longest time to a kill.
        parts: `noise` or `real`.
        between: A shell command.
        wrapped: A command that runs the one behind it.
        store: The database, from the folder.
    """
    command = [sys.executable, "-m", "tests.ui.noise", parts, kills, n_processes, within_s, between]
    env = {"PYTHONPATH": str(ROOT), "ORBWEAVE_STORE": str(folder / store)}
    return subprocess.run(
        [*wrapped, *map(str, command)],
        cwd=folder, env=os.environ | env, capture_output=True, text=True, timeout=800,
    )  # fmt: skip


def write_table(folder: Path) -> None:
    """Write the table of 20 concepts, 40 rows."""
    lines = "".join(f"{concept},64,1,none\n" for concept in CONCEPTS)
    (folder / "concepts.csv").write_text(f"concept,size,images,structure\n{lines}")


def table_of(out: Path) -> list[dict[str, str]]:
    """Return the results of a batch without what takes its own time in every run."""
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["seconds"], row["picture_seconds"]
    return rows


def drawn_in(folder: Path) -> Counter[str]:
    """Return how often each picture was drawn."""
    return Counter((folder / "drawn.log").read_text().splitlines())


def assert_same(folder: Path, undisturbed: Path) -> None:
    """Check that a batch of the 40 rows ended as the one that was left alone."""
    assert table_of(folder / "out") == table_of(undisturbed / "out")
    assert len(table_of(folder / "out")) == 40
    names = [sorted(p.name for p in (d / "out/designs").iterdir()) for d in (folder, undisturbed)]
    assert names[0] == names[1]
    assert len(names[0]) == 38  # two rows hold a bomb; nothing half made is left
    for design in (folder / "out" / "designs").iterdir():
        assert json.loads((design / "design.json").read_text())["stop_reason"] == "done"


def main(parts: str, kills: int, n_processes: int, within_s: float, between: str) -> None:
    """Kill the batch so many times, then let it end; print what came of it."""
    import orbweave.leases
    import ui.batch
    from ui.cli import run

    for name in LATE + (REAL if parts == "real" else ()):
        import_module(name)
    if parts == "noise":
        put_in_noise()
    ui.batch.WAIT_S = 0.05
    # On a slow machine every kill may hit the same row: here it is the machine, not the row.
    orbweave.leases.MAX_DEATHS = max(orbweave.leases.MAX_DEATHS, kills + 1)

    def start() -> int:
        pid = os.fork()
        if pid == 0:
            sys.stdout = Path(os.devnull).open("w")
            code = 1
            try:
                code = run([*COMMAND, *(["--at-once", "1"] if parts == "real" else [])])
            finally:
                os._exit(code)
        return pid

    random.seed(5)
    living, codes, made = 0, [], {}
    for _ in range(kills):
        pids = [start() for _ in range(n_processes)]
        time.sleep(random.uniform(0.0, within_s))
        for pid in pids:
            if os.waitpid(pid, os.WNOHANG)[0] == 0:
                living += 1
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        made = _still_there(made)
    if between:
        codes.append(_code(start()))
        subprocess.run(["bash", "-ec", between], check=True)
    made = _still_there(made)
    codes += [_code(pid) for pid in [start() for _ in range(n_processes)]]
    _still_there(made)
    print(living, *codes)


def _still_there(made: dict[str, int]) -> dict[str, int]:
    """Return when each finished design was made; those of earlier must be the same ones."""
    now = {str(d): d.stat().st_mtime_ns for d in Path("out").glob("designs/[!.]*/design.json")}
    assert made.items() <= now.items(), "a finished design was made again"
    return now


def _code(pid: int) -> int:
    """Return a child's exit code, once it has ended."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def put_in_noise() -> None:
    """Replace what talks and draws by what costs nothing; everything else is the real thing."""
    import numpy as np

    import ui.design
    from agents.conversation import Conversation
    from agents.fake import FakeEngine
    from agents.roles import load_team
    from imagegen.measure import measure
    from imagegen.png import PngNote, encode_png
    from orbweave.errors import EngineError
    from orbweave.files import sha256_file
    from orbweave.records import Critique, ImagePrompt, Picture, Targets

    class Noise:
        def render(self, request: Any, folder: Path, *, name: str, **_: Any) -> list[Picture]:
            folder.mkdir(parents=True, exist_ok=True)
            pictures = []
            for seed in request.seeds:
                alone = request.model_copy(update={"seeds": (seed,)})
                path = folder / f"{name.format(seed=seed)}.png"
                pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
                time.sleep(0.02)
                path.write_bytes(encode_png(pixels, PngNote(request=alone, geometry="")))
                with Path("drawn.log").open("a") as log:
                    log.write(f"{request.prompt} {seed}\n")
                pictures.append(
                    Picture(path=str(path), sha256=sha256_file(path), seed=seed, request=alone)
                )
            return pictures

    async def converse(brief: Any, *, render: Any, **_: Any) -> Conversation:
        await asyncio.sleep(0.02)
        if "bomb" in brief.concept:
            raise EngineError("the model exploded")
        prompt = ImagePrompt(title="t", prompt=f"a picture of {brief.concept}")
        pictures, measurements = await render(prompt, 0)
        score = int(hashlib.sha256(brief.concept.encode()).hexdigest()[:4], 16) / 65535 * 4 + 1
        critique = Critique(
            scores={"depth": round(score, 3)}, advice="", wanted=Targets(), measured={},
            prompt_version=0, turn=0,
        )  # fmt: skip
        return Conversation((), (), (prompt,), pictures, measurements, (critique,), "done")

    shop = ui.design.Workshop(converse, FakeEngine, lambda: None, load_team(), Noise(), measure)
    ui.design.workshop = lambda note, embed, *_: shop


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5])
