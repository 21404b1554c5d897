"""A batch on a real Ray of this machine, one of whose processes is killed in the middle."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from orbweave.errors import OrbweaveError, UsageError
from orbweave.job import NewJob
from orbweave.jobs import open_jobs
from orbweave.leases import Leases
from ui.batch import Progress
from ui.cluster import _check_reachable, _check_store, _seat, _watch

ROOT = Path(__file__).parents[2]
CONCEPTS = [f"web number {n}" for n in range(14)] + ["a bomb"]

# Runs the real command around parts that draw noise. They are defined in __main__, so that Ray
# carries them to its processes by value. Arguments: folder of the batch, how many processes to
# kill. Prints how many were killed, and the exit code.
STAGE = """
import os, signal, sys, threading, time
from pathlib import Path

out, kills = Path(sys.argv[1]).absolute(), int(sys.argv[2])


def open_maker():
    import asyncio

    import numpy as np

    import ui.batch
    from agents.conversation import Conversation
    from agents.fake import FakeEngine, hashed_words
    from agents.roles import load_team
    from imagegen.measure import measure
    from imagegen.png import PngNote, encode_png
    from orbweave.errors import EngineError
    from orbweave.files import sha256_file
    from orbweave.records import Critique, ImagePrompt, Picture, Targets
    from ui.design import Workshop
    from ui.maker import Maker

    ui.batch.WAIT_S = 0.1
    (out / f"process-{os.getpid()}").write_text("")

    class Noise:
        def render(self, request, folder, *, name, on_step, cancelled, save_seed_picture):
            folder.mkdir(parents=True, exist_ok=True)
            pictures = []
            for seed in request.seeds:
                alone = request.model_copy(update={"seeds": (seed,)})
                path = folder / f"{name.format(seed=seed)}.png"
                pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
                path.write_bytes(encode_png(pixels, PngNote(request=alone, geometry="")))
                pictures.append(
                    Picture(path=str(path), sha256=sha256_file(path), seed=seed, request=alone)
                )
            with open(out / "drawn.log", "a") as log:
                log.write(f"{os.getpid()} {request.prompt} {request.seeds[0]}\\n")
            return pictures

    async def converse(brief, *, engine_for, render, **_):
        await asyncio.sleep(0.2)
        if "bomb" in brief.concept:
            raise EngineError("the model exploded")
        prompt = ImagePrompt(title="t", prompt=f"a picture of {brief.concept}")
        pictures, measurements = await render(prompt, 0)
        critique = Critique(
            scores={"depth": 3.0}, advice="", wanted=Targets(), measured={}, prompt_version=0,
            turn=0,
        )
        return Conversation((), (), (prompt,), pictures, measurements, (critique,), "done")

    shop = Workshop(converse, FakeEngine, lambda: None, load_team(), Noise(), measure)
    return Maker(shop)


def kill():
    global killed
    while killed < kills:
        log = out / "drawn.log"
        lines = log.read_text().splitlines() if log.exists() else []
        pids = {int(line.split()[0]) for line in lines}
        if len(pids) == 2 and len(lines) >= 8:
            os.kill(min(pids), signal.SIGKILL)
            killed += 1
        time.sleep(0.02)


import ui.commands.batch
from ui.cli import run

ui.commands.batch.maker = open_maker
killed = 0
threading.Thread(target=kill, daemon=True).start()
arguments = ["batch", "concepts.csv", "--seed", "0-1", "--out", str(out), "--quiet"]
code = run([*arguments, "--ray", "local", "--engines-per-node", "2", "--at-once", "2"])
print("told:", killed, code)
"""


def _raise(folder: Path, kills: int) -> tuple[int, int]:
    folder.mkdir()
    lines = "".join(f"{concept},64,1,none\n" for concept in CONCEPTS)
    (folder / "concepts.csv").write_text(f"concept,size,images,structure\n{lines}")
    env = {"PYTHONPATH": str(ROOT), "ORBWEAVE_STORE": str(folder / "orbweave.db")}
    done = subprocess.run(
        [sys.executable, "-c", STAGE, "out", str(kills)],
        cwd=folder, env=os.environ | env, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("told: "), done.stdout + done.stderr
    killed, code = map(int, last.split()[1:])
    return killed, code


def _table(folder: Path) -> list[dict[str, str]]:
    """Return the results without what takes its own time in every run."""
    with (folder / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["seconds"], row["picture_seconds"]
    return rows


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_process_killed_in_the_middle_changes_nothing(tmp_path):
    pytest.importorskip("ray")
    assert _raise(tmp_path / "left-alone", 0) == (0, 1)  # the bomb fails, and so does the run
    assert _raise(tmp_path / "killed", 1) == (1, 1)
    assert _table(tmp_path / "killed") == _table(tmp_path / "left-alone")
    designs = sorted((tmp_path / "killed" / "out" / "designs").iterdir())
    assert len(designs) == 28
    for design in designs:
        assert json.loads((design / "design.json").read_text())["stop_reason"] == "done"
    drawn = (tmp_path / "left-alone" / "out" / "drawn.log").read_text().splitlines()
    assert set(Counter(line.split(" ", 1)[1] for line in drawn).values()) == {1}
    assert len({line.split()[0] for line in drawn}) == 2
    drawn = (tmp_path / "killed" / "out" / "drawn.log").read_text().splitlines()
    assert len({line.split()[0] for line in drawn}) == 3  # the lost one was replaced


def test_a_process_holds_its_share_of_a_machine():
    assert _seat([{"CPU": 8.0}, {"CPU": 4.0}], 1) == (4, 0, 2)
    assert _seat([{"CPU": 8.0}], 3) == (2, 0, 3)
    assert _seat([{"CPU": 16.0, "GPU": 4.0}, {"CPU": 64.0}], 1) == (16, 4, 1)
    assert _seat([{"CPU": 16.0, "GPU": 4.0}] * 2, 4) == (4, 1, 8)
    assert _seat([{"CPU": 16.0, "GPU": 1.0}], 2) == (8, 0.5, 2)
    with pytest.raises(UsageError, match="--engines-per-node"):
        _seat([{"CPU": 2.0}], 3)


def test_a_lost_process_that_finds_no_room_is_not_waited_for(tmp_path):
    jobs = open_jobs(str(tmp_path / "orbweave.db"))
    batch = jobs.add(NewJob("batch", "a batch", key="/out")).id
    jobs.plan(batch, [NewJob("batch-row", f"row {n}", key=f"/out/{n}") for n in range(3)])
    leases = Leases(jobs.store)

    class OneAtWork:
        """A cluster where one process makes a row a second and the other waits for a machine."""

        def wait(self, running, timeout):
            leases.finish(leases.claim("w", batch=batch).id, "w", {}, 1.0)
            return [], running

    _watch(OneAtWork(), ["one", "other"], jobs, batch, Progress(jobs, batch, lambda *_: None))
    assert jobs.tally(batch) == {"done": 3}


def test_several_machines_need_a_server_for_the_store(tmp_path):
    jobs = open_jobs(str(tmp_path / "orbweave.db"))
    here, there = {"NodeManagerAddress": "10.0.0.1"}, {"NodeManagerAddress": "10.0.0.2"}
    _check_store(jobs, [here, here])
    with pytest.raises(UsageError, match="2 machines can reach, got the file"):
        _check_store(jobs, [here, there])


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "no address"])
def test_a_cluster_that_is_not_there_is_told(address):
    with pytest.raises(OrbweaveError, match="wanted a Ray cluster at .*; start one with"):
        _check_reachable(address)
