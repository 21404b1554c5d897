"""A batch that is killed again and again ends as one that was left alone."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Imports everything once; then runs the real command in children of its own around parts that
# draw noise, and kills them as it was told. Arguments: folder of the batch, number of kills,
# processes at a time. Prints how many kills hit a living process.
NURSERY = """
import asyncio, hashlib, os, random, signal, sys, time
from pathlib import Path

import numpy as np
import pyarrow.parquet

import orbweave.leases, ui.batch, ui.batch_report, ui.design, ui.maker, ui.report
import alembic.command, agents.embedding
from agents.conversation import Conversation
from agents.fake import FakeEngine
from agents.roles import load_team
from imagegen.measure import measure
from imagegen.png import PngNote, encode_png
from orbweave.errors import EngineError
from orbweave.files import sha256_file
from orbweave.records import Critique, ImagePrompt, Picture, Targets
from ui.cli import run

out, kills, n_processes = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])


class Noise:
    def render(self, request, folder, *, name, on_step, cancelled, save_seed_picture):
        folder.mkdir(parents=True, exist_ok=True)
        pictures = []
        for seed in request.seeds:
            alone = request.model_copy(update={"seeds": (seed,)})
            path = folder / f"{name.format(seed=seed)}.png"
            pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
            time.sleep(0.02)
            path.write_bytes(encode_png(pixels, PngNote(request=alone, geometry="")))
            with open(out / "drawn.log", "a") as log:
                log.write(f"{request.prompt} {seed}\\n")
            pictures.append(
                Picture(path=str(path), sha256=sha256_file(path), seed=seed, request=alone)
            )
        return pictures


async def converse(brief, *, engine_for, render, **_):
    await asyncio.sleep(0.02)
    if "bomb" in brief.concept:
        raise EngineError("the model exploded")
    prompt = ImagePrompt(title="t", prompt=f"a picture of {brief.concept}")
    pictures, measurements = await render(prompt, 0)
    score = int(hashlib.sha256(brief.concept.encode()).hexdigest()[:4], 16) / 65535 * 4 + 1
    critique = Critique(
        scores={"depth": round(score, 3)}, advice="", wanted=Targets(), measured={},
        prompt_version=0, turn=0,
    )
    return Conversation((), (), (prompt,), pictures, measurements, (critique,), "done")


def workshop(note, embed, *_):
    return ui.design.Workshop(converse, FakeEngine, lambda: None, load_team(), Noise(), measure)


ui.design.workshop = workshop
ui.batch.WAIT_S = 0.05
# On a slow machine every kill may hit the same row: here it is the machine, not the row.
orbweave.leases.MAX_DEATHS = kills + 1
arguments = ["batch", "concepts.csv", "--seed", "0-1", "--out", str(out), "--quiet"]


def start():
    pid = os.fork()
    if pid == 0:
        sys.stdout = open(os.devnull, "w")
        code = 1
        try:
            code = run(arguments)
        finally:
            os._exit(code)
    return pid


random.seed(5)
living = 0
for n in range(kills):
    pids = [start() for _ in range(n_processes)]
    time.sleep(random.uniform(0.0, float(sys.argv[4])))
    for pid in pids:
        living += os.waitpid(pid, os.WNOHANG)[0] == 0
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
codes = []
for pid in [start() for _ in range(n_processes)]:
    codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(living, *codes)
"""
CONCEPTS = [f"web number {n}" for n in range(19)] + ["a bomb"]


def _raise(folder: Path, kills: int, n_processes: int = 1, within_s: float = 1.0) -> list[int]:
    """Run the batch in `folder / out` with so many kills; return [kills that hit, exit codes]."""
    folder.mkdir()
    lines = "".join(f"{concept},64,1,none\n" for concept in CONCEPTS)
    (folder / "concepts.csv").write_text(f"concept,size,images,structure\n{lines}")
    command = [sys.executable, "-c", NURSERY, "out", str(kills), str(n_processes), str(within_s)]
    env = {"PYTHONPATH": str(ROOT), "ORBWEAVE_STORE": str(folder / "orbweave.db")}
    done = subprocess.run(
        command, cwd=folder, env=os.environ | env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


def _table(folder: Path) -> list[dict[str, str]]:
    """Return the results without what takes its own time in every run."""
    with (folder / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["seconds"], row["picture_seconds"]
    return rows


def _assert_same(killed: Path, undisturbed: Path) -> None:
    assert _table(killed) == _table(undisturbed)
    assert len(_table(killed)) == 40
    names = [
        sorted(p.name for p in (d / "out" / "designs").iterdir()) for d in (killed, undisturbed)
    ]
    assert names[0] == names[1]
    assert len(names[0]) == 38  # two rows hold a bomb; nothing half made is left
    for design in (killed / "out" / "designs").iterdir():
        assert json.loads((design / "design.json").read_text())["stop_reason"] == "done"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "batch"
    assert _raise(folder, 0) == [0, 1]  # one row fails, and so does the run
    return folder


def test_an_undisturbed_batch_draws_every_row_once(undisturbed):
    drawn = Counter((undisturbed / "out" / "drawn.log").read_text().splitlines())
    assert set(drawn.values()) == {1}
    assert len(drawn) == 38


def test_a_batch_killed_at_random_moments_ends_the_same(tmp_path, undisturbed):
    living, code = _raise(tmp_path / "killed", 8)
    assert living >= 3
    assert code == 1
    _assert_same(tmp_path / "killed", undisturbed)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_batch_killed_fifty_times_ends_the_same(tmp_path, undisturbed):
    living, code = _raise(tmp_path / "killed", 50, within_s=0.5)
    assert living >= 15
    assert code == 1
    _assert_same(tmp_path / "killed", undisturbed)


def test_two_processes_on_one_batch_never_make_the_same_row(tmp_path, undisturbed):
    assert _raise(tmp_path / "shared", 0, n_processes=2) == [0, 1, 1]
    drawn = Counter((tmp_path / "shared" / "out" / "drawn.log").read_text().splitlines())
    assert set(drawn.values()) == {1}
    _assert_same(tmp_path / "shared", undisturbed)


def test_two_processes_killed_together_leave_the_same_table(tmp_path, undisturbed):
    living, *codes = _raise(tmp_path / "both", 3, n_processes=2)
    assert living >= 2
    assert codes == [1, 1]
    _assert_same(tmp_path / "both", undisturbed)
