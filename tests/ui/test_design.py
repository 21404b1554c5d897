from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agents.conversation import Conversation
from agents.events import RenderStep
from agents.fake import FakeEngine
from agents.roles import load_team
from imagegen.measure import measure
from orbweave.errors import EngineError, OutputError, UsageError
from orbweave.records import Brief, Design
from ui.design import Order, Workshop, design, models_of, team_with
from ui.rendering import RenderSettings


@pytest.fixture
def order() -> Order:
    settings = RenderSettings(size_px=(64, 64))
    return Order(Brief(concept="silk", seed=7), 1, 2, settings, None, lambda prompt, seed: None)


@pytest.fixture
def shop(finished, renderer) -> Workshop:
    """Parts whose team says what the finished design says, and draws checkerboards."""
    model = finished[0]

    async def converse(brief, *, engine_for, knowledge, structure_for, render, on_event, **_):
        assert structure_for.choose("p", 1, None) is None
        pictures, measurements = await render(model.prompts[0], 0)
        return Conversation(
            turns=model.turns,
            facts=model.facts,
            prompts=model.prompts,
            pictures=pictures,
            measurements=measurements,
            critiques=model.critiques,
            stop_reason=model.stop_reason,
        )

    return Workshop(converse, FakeEngine, lambda: None, load_team(), renderer, measure)


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_holds_everything(tmp_path, order, shop):
    target = tmp_path / "new" / "design"
    record = design(order, target, shop, on_event=lambda event: None)
    assert _files(target) == {
        "conversation.jsonl",
        "conversation.md",
        "design.json",
        "images/seed-structure-0.png",
        "images/v0-seed-7.png",
        "images/v0-seed-8.png",
        "measurements.json",
        "report.html",
    }
    assert Design.model_validate_json((target / "design.json").read_text()) == record
    assert [m["picture"] for m in json.loads((target / "measurements.json").read_text())] == [
        "images/v0-seed-7.png",
        "images/v0-seed-8.png",
    ]
    assert len((target / "conversation.jsonl").read_text().splitlines()) == 2


def test_seeds_count_upwards_and_render_steps_reach_the_view(tmp_path, order, shop, renderer):
    events: list[object] = []
    design(order, tmp_path / "d", shop, on_event=events.append)
    assert renderer.requests[0].seeds == (7, 8)
    assert events == [RenderStep(1, 2), RenderStep(2, 2)]


def test_the_same_order_gives_the_same_design_but_for_times(tmp_path, order, shop):
    made = [design(order, tmp_path / name, shop, on_event=lambda event: None) for name in "ab"]
    bare = [d.model_copy(update={"timings_s": {}, "environment": {}}) for d in made]
    assert bare[0] == bare[1]


@pytest.mark.parametrize("error", [EngineError("gone"), KeyboardInterrupt()])
def test_a_failure_leaves_no_folder(tmp_path, order, shop, error):
    async def converse(*_, **__):
        raise error

    with pytest.raises(type(error)):
        design(order, tmp_path / "out" / "d", replace(shop, converse=converse), on_event=print)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_existing_folder_is_refused_before_any_work(tmp_path, order, shop):
    def open_knowledge():
        raise AssertionError("work has begun")

    (tmp_path / "d").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        design(order, tmp_path / "d", replace(shop, open_knowledge=open_knowledge), on_event=print)


def test_force_replaces_an_earlier_design_and_nothing_else(tmp_path, order, shop):
    target = tmp_path / "d"
    design(order, target, shop, on_event=lambda event: None)
    (target / "note.txt").write_text("old")
    design(order, target, shop, on_event=lambda event: None, force=True)
    assert not (target / "note.txt").exists()
    with pytest.raises(OutputError, match="found something else"):
        design(order, tmp_path, shop, on_event=print, force=True)


def test_one_model_for_all_replaces_every_speakers_own():
    team = load_team()
    assert models_of(team, "other") == ["other"]
    assert models_of(team, None) == ["generalist"]


@pytest.mark.parametrize(
    ("model", "knows"),
    [
        ("generalist", True), ("http://localhost:8000/v1#generalist", True), ("base", False),
        ("http://localhost:8000/v1#llama", False), ("https://example.org/generalist#base", False),
    ],
)  # fmt: skip
def test_a_trained_model_is_shown_no_examples_wherever_it_runs(model, knows):
    team = team_with(load_team(), model)
    assert team.models == (model,)
    assert (team == team.without_examples()) is knows


def test_engines_are_closed_after_a_failure(tmp_path, order, shop):
    engines = []

    def open_engine(model):
        engines.append(FakeEngine(model=model))
        return engines[-1]

    async def converse(*_, **__):
        raise EngineError("gone")

    with pytest.raises(EngineError):
        parts = replace(shop, converse=converse, open_engine=open_engine)
        design(order, tmp_path / "d", parts, on_event=print)
    assert [engine.closed for engine in engines] == [True]


@pytest.mark.parametrize("values", [{"rounds": 0}, {"n_images": 0}])
def test_an_order_for_nothing_is_refused(order, values):
    with pytest.raises(UsageError, match="wanted 1 or more"):
        replace(order, **values)


def test_seeds_beyond_32_bits_are_refused(order):
    with pytest.raises(UsageError, match="choose a smaller --seed"):
        replace(order, brief=Brief(concept="silk", seed=2**32 - 1))
