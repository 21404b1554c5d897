"""`orbweave batch` beside the workflow people write first; and what a row costs as a batch grows.

    python benchmarks/batch.py --json batch.json
    python benchmarks/batch.py --parts growth,planning --growth 1,10,100,1000

Workflow: the same designs five times, each in a fresh process, models loaded and one design made
before the clock starts. First ours, which writes down what was asked of the models; then
`reference_workflow.py`, which repeats it: same weights, same chats, same number of tokens, same
steps and sizes. Between the two, one thing is changed at a time:

    reference, float32    generate and diffusers, one call after another, as they come
    reference, bfloat16   the same in the number type the processor multiplies natively
    one row at a time     our engine and renderer, one row after another
    several at once       conversations answered together; who draws holds everybody up
    orbweave batch        drawing goes on beside the talking

The ways that go one by one make the first `--alone` of the designs: how many follow changes
nothing for them. Texts and pictures of the last three are the same, which is checked. Pictures
start from words alone, since a stock text-to-image call knows no geometry.

Growth and planning are in `growth.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

from growth import WARM, grow, growth_table, plan, planning_line, rows  # beside this script

ROOT = Path(__file__).parents[1]
PARTS = ("workflow", "growth", "planning")
OURS = ("one row at a time", "several at once", "orbweave batch")
REFERENCES = {"reference, float32": "float32", "reference, bfloat16": "bfloat16"}
SUBJECTS = (
    "a filter membrane that combines spider silk and leaf veins",
    "a helmet liner built like the layers of nacre",
    "a roof that spreads load like an orb web",
    "a bandage with the crimp of collagen fibres",
    "a facade that opens like stomata",
    "a rope with the hierarchy of a tendon",
    "a shock absorber after the mantis shrimp's club",
    "a water collector like a lotus leaf",
    "a shell for a drone after a beetle's wing case",
    "a spring like a fern that unrolls",
    "a bridge deck with the struts of a bone",
    "a fishing line that hardens as it is pulled",
    "a shoe sole after a gecko's toe",
    "a greenhouse wall like a giant water lily",
    "a suture that lets go like a barbed quill",
    "a wind screen woven like a bird's nest",
)


def main() -> None:
    """Run the parts and print their tables, or one run if this is a child."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--concepts", type=int, default=16, help="designs of the workflow")
    parser.add_argument("--alone", type=int, default=4, help="of these, for the ways one by one")
    parser.add_argument("--model", help="of every speaker; default: the team's own")
    parser.add_argument("--images", type=int, default=2, help="pictures of a design")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--size", type=int, default=256, help="pixels")
    parser.add_argument("--at-once", type=int, help="default: that of orbweave batch")
    parser.add_argument("--growth", default="1,10,100,1000", help="numbers of rows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--child", choices=(*OURS, *PARTS[1:]), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if args.child:
        told = of_child(args)
        (args.folder / "told.json").write_text(json.dumps(told), "utf-8")
        return
    parts = args.parts.split(",")
    if not set(parts) <= set(PARTS):
        parser.error(f"--parts takes {', '.join(PARTS)}, got {args.parts}")
    document: dict[str, Any] = {"machine": machine()}
    keep(document, args.json)  # a place that cannot be written is told before the long work
    with tempfile.TemporaryDirectory() as folder:
        for part in (each for each in PARTS if each in parts):
            began = time.perf_counter()
            document[part], told = measured(part, args, Path(folder))
            print(f"{told}\n({part}: {(time.perf_counter() - began) / 60:.1f} min)\n", flush=True)
            keep(document, args.json)
    if args.json:
        print(f"figures written to {args.json}")


def measured(part: str, args: argparse.Namespace, folder: Path) -> tuple[Any, str]:
    """Return the figures of one part, and the same for people."""
    if part == "workflow":
        figures = workflow(args, folder)
        return figures, workflow_table(figures)
    if part == "growth":
        figures = growth(args, folder)
        return figures, growth_table(figures)
    figures = in_child(part, args, folder / part)
    return figures, planning_line(figures)


def keep(document: dict[str, Any], file: Path | None) -> None:
    """Write the figures so far, if they are wanted: a later part may be broken off."""
    from orbweave.files import write_text

    if file is not None:
        write_text(file, json.dumps(document, indent=2) + "\n")


def of_child(args: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of the one run that this process is for."""
    if args.child == "growth":
        return grow(args.folder, args.concepts, args.at_once)
    return plan(args.folder) if args.child == "planning" else ours(args)


def machine() -> dict[str, str]:
    """Return what the figures depend on."""
    from ui.environment import environment

    return environment() | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "")}


# --------------------------------------------------------------------------- the workflow


def workflow(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the five kinds one after another and return their figures."""
    runs: dict[str, Any] = {}
    for kind in OURS:
        runs[kind] = in_child(kind, args, folder / kind.replace(" ", "-"))
    said = {kind: runs[kind].pop("said") for kind in OURS}
    work = folder / "work.json"
    work.write_text(json.dumps(runs[OURS[0]].pop("work")), "utf-8")
    for kind in OURS[1:]:
        del runs[kind]["work"]
    for kind, dtype in REFERENCES.items():
        runs[kind] = reference(work, dtype, folder) | {
            count: runs[OURS[0]][count] for count in ("tokens", "prompt_tokens")
        }
    for kind, run in runs.items():
        run["designs_per_hour"] = 3600 * run["designs"] / run["seconds"]
        print(f"{kind}: {run['designs_per_hour']:.1f} designs an hour", file=sys.stderr)
    return {
        "runs": {kind: runs[kind] for kind in (*REFERENCES, *OURS)},
        "same_designs": said[OURS[1]] == said[OURS[2]]
        and said[OURS[0]].items() <= said[OURS[1]].items(),
        "images": args.images,
        "steps": args.steps,
        "size": args.size,
    }


def growth(args: argparse.Namespace, folder: Path) -> list[Any]:
    """Run batches of more and more rows, each in a fresh process."""
    told = []
    for n in map(int, args.growth.split(",")):
        told.append(in_child("growth", args, folder / f"growth-{n}", n))
        print(f"{n} rows: {told[-1]['seconds'] / n:.3f} s each", file=sys.stderr)
    return told


def in_child(kind: str, args: argparse.Namespace, folder: Path, n_rows: int = 0) -> Any:
    """Return what a fresh process tells of one run."""
    folder.mkdir(parents=True)
    command = [sys.executable, __file__, "--child", kind, "--folder", str(folder)]
    command += ["--concepts", str(n_rows or args.concepts), "--images", str(args.images)]
    command += ["--steps", str(args.steps), "--size", str(args.size)]
    command += ["--alone", str(args.alone)]
    command += ["--at-once", str(args.at_once)] if args.at_once else []
    command += ["--model", args.model] if args.model else []
    env = {"PYTHONPATH": str(ROOT), "ORBWEAVE_STORE": str(folder / "orbweave.db")}
    subprocess.run(command, check=True, env=os.environ | env)
    return json.loads((folder / "told.json").read_text("utf-8"))


def reference(work: Path, dtype: str, folder: Path) -> Any:
    """Return what the reference workflow tells of itself."""
    script = Path(__file__).with_name("reference_workflow.py")
    command = [sys.executable, str(script), "--work", str(work), "--dtype", dtype]
    command += ["--pictures", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def ours(args: argparse.Namespace) -> dict[str, Any]:
    """Make the designs as one of our kinds does; return seconds, texts and what was asked."""
    from agents.embedding import MiniLM
    from orbweave.jobs import open_jobs
    from ui.batch import plan_batch, work_on
    from ui.batch_report import write_report
    from ui.crew import usual_at_once
    from ui.design import workshop
    from ui.environment import peak_memory_mb
    from ui.maker import Maker

    at_once = 1 if args.child == OURS[0] else args.at_once or usual_at_once()
    n = min(args.alone, args.concepts) if args.child == OURS[0] else args.concepts
    turn = threading.Lock() if args.child == OURS[1] else None
    began = time.perf_counter()
    embed, clock, log = MiniLM(), Clock(), Log()
    clock.watch_the_engine()
    shop = workshop(lambda text: None, embed)
    renderer = Watched(shop.renderer, clock, turn)
    shop = replace(shop, open_engine=log.opener(shop.open_engine, turn), renderer=renderer)
    maker, jobs = Maker(shop), open_jobs()
    options = {"size": args.size, "steps": args.steps, "images": args.images}
    options |= {"model": args.model} if args.model else {}
    warm = plan_batch(jobs, args.folder / "warm", rows([WARM], **options), {})
    work_on(jobs, warm, maker)
    write_report(jobs, warm, args.folder / "warm", zipped=False)
    busy = time.process_time()
    starting_s = time.perf_counter() - began
    clock.seconds.clear()
    clock.rows.clear()
    concepts = [SUBJECTS[i % len(SUBJECTS)] for i in range(n)]
    began = time.perf_counter()
    asked = rows(concepts, **options)
    batch = plan_batch(jobs, args.folder / "out", asked, {}, at_once=at_once)
    tally = work_on(jobs, batch, maker, at_once=at_once)
    write_report(jobs, batch, args.folder / "out", zipped=False)
    seconds = time.perf_counter() - began
    failed = [job.error for job in jobs.find(batch=batch, states=["failed"])]
    assert tally == {"done": n}, (tally, failed)
    made = {job.key: log.turns[f"row {job.id}"] for job in jobs.each(batch)}
    records = {folder: read_design(folder) for folder in made}
    (first,) = jobs.each(warm)
    return {
        "seconds": seconds,
        "starting_s": starting_s,
        "processor_s": time.process_time() - busy,
        "designs": n,
        "at_once": at_once,
        "peak_mb": peak_memory_mb(),
        "spent_s": dict(clock.seconds),
        "steps_of_rows": dict(sorted(clock.rows.items())),
        "tokens": sum(turn["n_tokens"] for turns in made.values() for turn in turns),
        "prompt_tokens": sum(turn["n_prompt"] for turns in made.values() for turn in turns),
        "said": {Path(folder).name: digest(record) for folder, record in records.items()},
        "work": {
            "models": log.folders,
            "image_model": image_folder(),
            "warm": {
                "turns": log.turns[f"row {first.id}"],
                "pictures": pictures_of(read_design(first.key)),
            },
            "designs": [
                {"turns": made[folder], "pictures": pictures_of(record)}
                for folder, record in records.items()
            ],
        },
    }


def read_design(folder: str) -> dict[str, Any]:
    """Return the record of a design."""
    record: dict[str, Any] = json.loads((Path(folder) / "design.json").read_text("utf-8"))
    return record


def pictures_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a stock pipeline needs to draw the pictures of a design."""
    wanted = ("prompt", "negative_prompt", "steps", "guidance", "width", "height")
    return [
        {name: picture["request"][name] for name in wanted} | {"seed": picture["seed"]}
        for picture in record["pictures"]
    ]


def digest(record: dict[str, Any]) -> str:
    """Return a hash of what a design says and shows."""
    texts = [turn["text"] for turn in record["turns"]]
    pictures = [picture["sha256"] for picture in record["pictures"]]
    return hashlib.sha256(json.dumps([texts, pictures]).encode()).hexdigest()


def image_folder() -> str:
    """Return the folder of the embedded image model."""
    from imagegen.assembly import assembled

    return str(assembled()[0])


class Clock:
    """Seconds spent in each part of the work."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.rows: Counter[int] = Counter()
        """Steps of the engine by the number of replies it answered together."""
        self._inside = threading.local()
        """`s`: seconds of this thread that an inner call has taken."""

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return `work`, timed without what is timed inside it."""

        @wraps(work)
        def call(*args: Any, **named: Any) -> Any:
            around, self._inside.s = getattr(self._inside, "s", 0.0), 0.0
            began = time.perf_counter()
            try:
                return work(*args, **named)
            finally:
                whole = time.perf_counter() - began
                self.seconds[name] += whole - self._inside.s
                self._inside.s = around + whole

        return call

    def watch_the_engine(self) -> None:
        """Time what the engine's thread does; costs microseconds a token."""
        from agents.decoder import Decoder
        from agents.sampler import Sampler

        step = Decoder.step

        def counted(decoder: Decoder, sequences: Sequence[Any], tokens: Sequence[int]) -> Any:
            self.rows[len(sequences)] += 1
            return step(decoder, sequences, tokens)

        watched: Any = Decoder
        watched.step = self.timed("making tokens", counted)
        watched.read = self.timed("reading prompts", Decoder.read)
        watched.score = self.timed("weighing scores", Decoder.score)
        drawer: Any = Sampler
        drawer.draw = self.timed("drawing the next token", Sampler.draw)


class Watched:
    """A renderer that is timed and, with a lock, holds everybody else up."""

    def __init__(self, renderer: Any, clock: Clock, turn: threading.Lock | None) -> None:
        self._render = clock.timed("drawing pictures", renderer.render)
        self._turn = turn

    def render(self, *args: Any, **named: Any) -> Any:
        """Render, in turn with the engine if it was so said."""
        if self._turn is None:
            return self._render(*args, **named)
        with self._turn:
            return self._render(*args, **named)


class Log:
    """What was asked of the language models."""

    def __init__(self) -> None:
        self.turns: dict[str, list[dict[str, Any]]] = defaultdict(list)
        """By the name of the thread that makes the row, `row 7` for job 7."""
        self.folders: dict[str, str] = {}

    def opener(self, opened: Callable[[str], Any], turn: threading.Lock | None) -> Any:
        """Return what opens engines that write down what they are asked."""
        from agents.engine import TransformersEngine
        from merging.build import resolve_model

        def open_engine(model: str) -> Any:
            folder = resolve_model(model, lambda text: None)
            self.folders[model] = str(folder)
            engine = opened(model) if turn is None else TransformersEngine(folder, model, turn=turn)
            return Scribe(engine, self)

        return open_engine

    def add(self, engine: Any, messages: Any, n_prompt: int, **asked: Any) -> None:
        """Write one request down."""
        chat = [list(message) for message in messages]
        row = threading.current_thread().name
        self.turns[row].append(
            {"model": engine.model, "messages": chat, "n_prompt": n_prompt, "seed": 0} | asked
        )


class Scribe:
    """An engine that passes on and writes down."""

    def __init__(self, engine: Any, log: Log) -> None:
        self._engine, self._log = engine, log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def stream(self, request: Any) -> AsyncGenerator[Any, None]:
        """Yield what the engine says."""
        async with aclosing(self._engine.stream(request)) as pieces:
            async for piece in pieces:
                if not isinstance(piece, str):
                    self._log.add(
                        self._engine, request.messages, piece.n_prompt_tokens,
                        prefix=request.prefix, n_tokens=piece.n_tokens, seed=request.seed,
                        temperature=request.sampling.temperature,
                    )  # fmt: skip
                yield piece

    async def logprobs(self, messages: Any, options: Any) -> Any:
        """Return what the engine weighs."""
        n_prompt = self._engine.count_tokens(messages)
        self._log.add(self._engine, messages, n_prompt, prefix="", n_tokens=0, temperature=1.0)
        return await self._engine.logprobs(messages, options)


def workflow_table(told: dict[str, Any]) -> str:
    """Return the figures of the workflow as Markdown."""
    runs = told["runs"]
    first, second = (runs[kind]["designs_per_hour"] for kind in REFERENCES)
    lines = [
        "| way | designs | an hour | x float32 | x bfloat16 | x the row above | tokens a s "
        "| peak MB | start |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    before = None
    for kind, run in runs.items():
        rate = run["designs_per_hour"]
        gave = "" if before is None else f"{rate / before:.2f}"
        lines.append(
            f"| {kind} | {run['designs']} | {rate:.1f} | {rate / first:.2f} | {rate / second:.2f} "
            f"| {gave} | {run['tokens'] / run['seconds']:.1f} | {run['peak_mb']:.0f} "
            f"| {run['starting_s']:.1f} s |"
        )
        before = rate
    same = "the same" if told["same_designs"] else "NOT the same"
    lines.append(f"\nTexts and pictures of our three ways are {same}. Seconds of each part:\n")
    for kind, run in runs.items():
        spent = ", ".join(f"{name} {s:.1f}" for name, s in run["spent_s"].items())
        busy = run["processor_s"]
        lines.append(f"- {kind}: {run['seconds']:.1f} s, the processor's {busy:.1f} s; {spent}")
    run = runs[OURS[-1]]
    stock = runs["reference, bfloat16"]
    bare = stock["seconds"] - stock["spent_s"].get("weighing", 0.0)
    lines.append(
        "\nWithout what it reads to weigh words the reference in bfloat16 would make "
        f"{3600 * stock['designs'] / bare:.1f} designs an hour; {OURS[-1]} makes "
        f"{run['designs_per_hour'] * bare / 3600 / stock['designs']:.2f} times as many."
    )
    for kind in (OURS[0], OURS[-1]):
        run = runs[kind]
        lines.append(
            f"\n{run['designs']} designs, {kind}: each {run['tokens'] / run['designs']:.0f} tokens "
            f"made and {run['prompt_tokens'] / run['designs']:.0f} read; {run['at_once']} rows at "
            f"once; steps by replies answered together: {run['steps_of_rows']}."
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
