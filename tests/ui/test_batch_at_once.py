from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from agents.conversation import Conversation
from agents.fake import FakeEngine
from agents.roles import load_team
from imagegen.measure import measure
from orbweave.errors import Cancelled, EngineError, OutputError
from orbweave.jobs import Jobs, open_jobs
from orbweave.records import Critique, Design, ImagePrompt, Targets
from orbweave.store import STORE_VARIABLE
from orbweave.tables import jobs as jobs_table
from ui.batch import plan_batch, work_on
from ui.crew import Crew, usual_at_once
from ui.design import Workshop
from ui.maker import Maker, Studio
from ui.matrix import BatchRow, expand
from ui.table import Row


@pytest.fixture
def jobs(tmp_path, monkeypatch) -> Jobs:
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "orbweave.db"))
    return open_jobs()


class Gauge:
    """Counts how many are inside at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = 0
        self.most = 0

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


class Slow:
    """A renderer that takes a moment and counts who is in it."""

    def __init__(self, renderer) -> None:
        self.inside = Gauge()
        self.threads: set[str] = set()
        self.requests = renderer.requests
        self._renderer = renderer

    def render(self, *args, **named):
        self.threads.add(threading.current_thread().name)
        with self.inside:
            time.sleep(0.01)
            return self._renderer.render(*args, **named)


@pytest.fixture
def opened() -> list[FakeEngine]:
    return []


@pytest.fixture
def talking() -> Gauge:
    return Gauge()


@pytest.fixture
def drawing(renderer) -> Slow:
    return Slow(renderer)


@pytest.fixture
def shop(drawing, opened, talking) -> Workshop:
    async def converse(brief, *, engine_for, render, team, **_):
        with talking:
            await asyncio.sleep(0.02)
        assert not engine_for(team.engineer_model).closed
        if "bomb" in brief.concept:
            raise EngineError("the model exploded")
        prompt = ImagePrompt(title=brief.concept, prompt=f"a picture of {brief.concept}")
        pictures, measurements = await render(prompt, 0)
        assert not engine_for(team.engineer_model).closed
        critique = Critique(
            scores={"depth": 3.0}, advice="", wanted=Targets(), measured={}, prompt_version=0,
            turn=0,
        )  # fmt: skip
        return Conversation((), (), (prompt,), pictures, measurements, (critique,), "done")

    def open_engine(model: str) -> FakeEngine:
        time.sleep(0.01)  # so that others ask meanwhile
        opened.append(FakeEngine(model=model))
        return opened[-1]

    return Workshop(converse, open_engine, lambda: None, load_team(), drawing, measure)


@pytest.fixture
def maker(shop) -> Maker:
    return Maker(shop)


def _rows(*concepts: str, **options: list[str]) -> list[BatchRow]:
    given = {"size": ["64"], "images": ["1"], "structure": ["none"], **options}
    table = [Row(n, {"concept": concept}) for n, concept in enumerate(concepts, start=2)]
    rows, faults = expand(table, given, "product")
    assert faults == []
    return rows


def _said(out: Path) -> dict[str, dict]:
    """Return what each design says, without what takes its own time in every run."""
    found = {}
    for path in (out / "designs").iterdir():
        record = Design.model_validate_json((path / "design.json").read_text())
        pictures = [p.model_copy(update={"seconds": 0.0}) for p in record.pictures]
        turns = [t.model_copy(update={"seconds": 0.0}) for t in record.turns]
        record = record.model_copy(update={"pictures": tuple(pictures), "turns": tuple(turns)})
        found[path.name] = record.model_dump(exclude={"timings_s", "environment"})
    return found


def test_rows_made_together_are_those_made_alone(tmp_path, jobs, shop):
    rows = _rows(*(f"web {n}" for n in range(6)), seed=["1", "2"])
    said = []
    for at_once in (1, 5):
        out = tmp_path / f"at-once-{at_once}"
        batch = plan_batch(jobs, out, rows, {})
        maker = Maker(shop)
        assert work_on(jobs, batch, maker, at_once=at_once) == {"done": 12}
        said.append(_said(out))
    assert said[0] == said[1]


def test_as_many_rows_are_under_way_as_was_said(tmp_path, jobs, maker, talking, drawing):
    rows = _rows(*(f"web {n}" for n in range(12)))
    batch = plan_batch(jobs, tmp_path / "b", rows, {})
    assert work_on(jobs, batch, maker, at_once=4) == {"done": 12}
    assert 2 <= talking.most <= 4


def test_pictures_are_drawn_one_by_one_and_by_no_row(tmp_path, jobs, maker, drawing):
    rows = _rows(*(f"web {n}" for n in range(8)))
    work_on(jobs, plan_batch(jobs, tmp_path / "b", rows, {}), maker, at_once=8)
    assert drawing.inside.most == 1
    assert not any(name.startswith("row") for name in drawing.threads)
    assert set(Counter(r.prompt for r in drawing.requests).values()) == {1}


def test_models_are_loaded_once_and_only_those_at_hand_are_kept(tmp_path, jobs, maker, opened):
    rows = _rows("silk", "leaf", "bone", "horn", model=["base", "generalist"])
    batch = plan_batch(jobs, tmp_path / "b", rows, {})
    assert work_on(jobs, batch, maker, at_once=6) == {"done": 8}
    assert [engine.model for engine in opened] == ["base", "generalist"]
    assert [engine.closed for engine in opened] == [True, False]
    maker.close()
    assert opened[1].closed


def test_an_engine_that_failed_is_left_to_those_who_still_use_it(tmp_path, jobs, maker, opened):
    rows = _rows("silk", "a bomb", "leaf", "bone", "horn")
    batch = plan_batch(jobs, tmp_path / "b", rows, {})
    assert work_on(jobs, batch, maker, at_once=3) == {"done": 4, "failed": 1}
    assert [engine.closed for engine in opened] == [True, False]


def test_a_row_that_waits_for_other_models_can_be_cancelled(tmp_path, maker):
    row = _rows("silk", model=["base"])[0]
    with maker._using(("loom", "generalist"), lambda: False), pytest.raises(Cancelled):
        maker(row, tmp_path / "d", on_event=lambda event: None, cancelled=lambda: True)


def test_a_full_disk_puts_all_rows_at_hand_back(tmp_path, jobs, shop, maker):
    class Full:
        def render(self, *_, **__):
            raise OSError(errno.ENOSPC, "No space left on device")

    rows = _rows("silk", "leaf", "bone", "horn")
    batch = plan_batch(jobs, tmp_path / "b", rows, {})
    with pytest.raises(OutputError, match="No space left"):
        work_on(jobs, batch, Maker(replace(shop, renderer=Full())), at_once=3)
    assert jobs.tally(batch) == {"queued": 4}
    assert list((tmp_path / "b" / "designs").iterdir()) == []
    assert work_on(jobs, batch, maker, at_once=3) == {"done": 4}


def test_ctrl_c_stops_the_rows_at_hand_and_leaves_nothing_half_made(tmp_path, jobs, shop, maker):
    begun = threading.Event()

    async def forever(*_, **__):
        begun.set()
        await asyncio.sleep(60)

    def interrupt(*_: object) -> None:
        if begun.wait(10):
            raise KeyboardInterrupt

    rows = _rows("silk", "leaf", "bone")
    batch = plan_batch(jobs, tmp_path / "b", rows, {})
    stuck = Maker(replace(shop, converse=forever))
    with pytest.raises(KeyboardInterrupt):
        work_on(jobs, batch, stuck, at_once=2, on_progress=interrupt)
    assert jobs.tally(batch) == {"queued": 3}
    assert [job.attempts for job in jobs.each(batch)] == [0, 0, 0]
    assert list((tmp_path / "b" / "designs").iterdir()) == []
    assert work_on(jobs, batch, maker, at_once=2) == {"done": 3}


def test_a_row_that_took_workers_with_it_is_made_alone(tmp_path, jobs, maker):
    rows = _rows(*(f"web {n}" for n in range(6)))
    batch = plan_batch(jobs, tmp_path / "b", rows, {})
    suspect = list(jobs.each(batch))[2]
    with jobs.store.write() as connection:
        where = jobs_table.c.id == suspect.id
        connection.execute(sa.update(jobs_table).where(where).values(attempts=3))
    inside, company = Gauge(), []

    def make(row, target, **how):
        with inside:
            time.sleep(0.02)
            if row.number == suspect.parameters["number"]:
                company.append(inside.now)
                time.sleep(0.05)
                company.append(inside.now)
            return maker(row, target, **how)

    assert work_on(jobs, batch, make, at_once=3) == {"done": 6}
    assert company == [1, 1]
    assert inside.most > 1


def test_a_picture_that_waits_its_turn_can_be_given_up(tmp_path):
    begun, go_on = threading.Event(), threading.Event()

    class Stuck:
        def render(self, request, folder, *, cancelled=None):
            begun.set()
            go_on.wait(20)
            return []

    studio = Studio(Stuck())
    first = threading.Thread(target=studio.render, args=(None, tmp_path))
    first.start()
    assert begun.wait(10)
    with pytest.raises(Cancelled, match="before its turn"):
        studio.render(None, tmp_path, cancelled=lambda: True)
    go_on.set()
    first.join()
    studio.close()


def test_an_error_of_the_renderer_is_raised_to_whoever_asked(tmp_path):
    class Late:
        def render(self, *_, **__):
            raise TimeoutError("the renderer's own")

    studio = Studio(Late())
    with pytest.raises(TimeoutError, match="the renderer's own"):
        studio.render(None, tmp_path)
    studio.close()


def test_the_number_of_rows_follows_cores_and_memory():
    assert usual_at_once(1, 64.0) == 8
    assert usual_at_once(2, 24.0) == 16
    assert usual_at_once(64, 256.0) == 16
    assert usual_at_once(2, 3.5) == 3
    assert usual_at_once(1, 0.5) == 1
    assert Crew(1).has_room


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_real_team_says_and_draws_the_same_in_company(tmp_path, jobs):
    from ui.commands.batch import maker

    concepts = ("a web of spider silk", "a leaf that drains rain")
    rows = _rows(*concepts, steps=["2"], structure=["auto"], domains=["leaf"])
    making = maker()
    said = []
    for at_once in (1, 2):
        out = tmp_path / f"at-once-{at_once}"
        batch = plan_batch(jobs, out, rows, {})
        assert work_on(jobs, batch, making, at_once=at_once) == {"done": 2}
        said.append(_said(out))
    making.close()
    assert said[0] == said[1]
    assert [picture["sha256"] for d in said[0].values() for picture in d["pictures"]]
