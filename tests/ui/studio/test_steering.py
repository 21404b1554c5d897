"""What a person can do with a finished talk: other models, earlier texts, branches, both drawn."""

from __future__ import annotations

import pytest

from agents.state import PromptStep
from ui.studio.asking import act, look
from ui.studio.library import card
from ui.studio.sitting import kept_name
from ui.studio.table import cards

from .conftest import wait_until, wish

WORDS = "Prompt: Close view of one thick vein on black."


@pytest.fixture
def done(desk):
    return _ended(desk.start("ann", wish(rounds=2).row()))


def _ended(sitting):
    wait_until(lambda: not sitting.is_open, "the design ended")
    assert sitting.status == "done", sitting.story.why
    return sitting


def _act(desk, design, do, **fields):
    answer = act(desk, "ann", {"design": design, "do": do} | fields)
    assert answer["fault"] == ""
    return _ended(desk.sitting("ann", answer["design"])), answer


def _html(desk, design, key, **asked):
    found = look(desk, "ann", {"design": design} | asked)
    assert found["fault"] == ""
    return found["parts"][key]["html"]


def test_the_version_that_is_the_result_says_so_and_stands_first_in_the_library(desk, done):
    best = done.record.best_version
    assert best == done.best is not None
    shown = [_html(desk, done.id, f"prompt-{number}") for number in (0, 1)]
    assert ["ow-best" in html for html in shown] == [best == 0, best == 1]
    drawn = done.story.pictures[best]
    assert card(done).shots[0].name == kept_name(drawn[0])
    assert card(done).title == done.story.prompts[best].title


def test_another_model_says_a_turn_anew_though_the_team_does_not_speak_with_it(desk, done):
    before = done.story.speeches[0].turn
    _act(desk, done.id, "reroll", turn=0, model="silk", seed=5)
    after = done.story.speeches[0].turn
    assert (before.model, after.model) == (done.record.turns[1].model, "silk")
    assert done.record.turns[0].model == "silk"
    assert done.story.steered == ["You had turn 0 said anew by silk."]
    refused = act(desk, "ann", {"design": done.id, "do": "reroll", "turn": 0, "model": "/etc"})
    assert "wanted a model of the catalogue" in refused["fault"]


def test_an_earlier_text_of_a_turn_is_shown_and_comes_back(desk, done):
    first = done.story.prompts[0].prompt
    assert "earlier-2" not in _html(desk, done.id, "turn-2")
    _act(desk, done.id, "edit", turn=2, text=WORDS)
    assert done.story.prompts[0].prompt == "Close view of one thick vein on black."
    html = _html(desk, done.id, "turn-2")
    assert 'data-do="choose"' in html and "1 earlier" in html
    _act(desk, done.id, "choose", turn=2, value=0)
    assert done.story.prompts[0].prompt == first
    (edited,) = done.earlier[2]
    assert WORDS in edited.text


@pytest.mark.parametrize("branches", [True, False])
def test_what_was_drawn_for_a_turn_that_changed_is_drawn_anew(desk, branches):
    before = _ended(desk.start("ann", wish(structure="auto").row()))
    after, _ = _act(desk, before.id, "edit", turn=0, text=WORDS, branches=branches)
    (geometry,) = after.target.glob("images/seed-structure-*.png")
    assert geometry.name == "seed-structure-0.png"
    assert all((after.target / picture.path).is_file() for picture in after.record.pictures)


def test_an_earlier_version_is_revised_in_a_branch(desk, done):
    assert 'data-do="revise"' in _html(desk, done.id, "prompt-0")
    branch, _ = _act(desk, done.id, "revise", value=0, text="wider gaps, please")
    assert branch.id != done.id
    assert branch.asked.branched_from == done.id
    assert branch.record.prompts[0] == done.record.prompts[0]
    assert "wider gaps, please" in [turn.text for turn in branch.record.turns]
    assert len(branch.record.prompts) == 2
    refused = act(desk, "ann", {"design": done.id, "do": "revise", "value": 7, "text": "x"})
    assert "wanted version 7 of the prompt, it was not judged yet" in refused["fault"]


def test_branches_know_each_other_and_stand_side_by_side(desk, done):
    assert "family" not in look(desk, "ann", {"design": done.id})["parts"]
    branch, _ = _act(desk, done.id, "edit", turn=2, text=WORDS, branches=True)
    for one, other in ((done.id, branch.id), (branch.id, done.id)):
        assert f"?design={one}&amp;beside={other}" in _html(desk, one, "family")
    words = _html(desk, done.id, "wordings", beside=branch.id)
    assert "<ins>one</ins> thick " in words and "<del>" in words
    drawn = _html(desk, done.id, "drawn-0", beside=branch.id)
    assert f"/sitting/{done.id}/picture/v0-seed-0" in drawn
    assert f"/sitting/{branch.id}/picture/v0-seed-0" in drawn
    assert "The same seeds." in drawn and "solid fraction" in drawn
    assert "The first 3 steps are shared." in _html(desk, done.id, "steps", beside=branch.id)
    stranger = look(desk, "eve", {"design": done.id, "beside": branch.id})
    assert "found none of that name" in stranger["fault"]
    missing = look(desk, "ann", {"design": done.id, "beside": "none"})
    assert "found none of that name" in missing["fault"]


def test_both_are_drawn_again_from_the_same_seeds_and_nothing_is_revised(desk, done):
    branch, _ = _act(desk, done.id, "edit", turn=2, text=WORDS, branches=True)
    a, answer = _act(desk, done.id, "draw-both", beside=branch.id, seed=40, images=3)
    b = _ended(desk.sitting("ann", answer["beside"]))
    last = max(done.story.prompts)
    for drawn, origin in ((a, done), (b, branch)):
        assert drawn.asked.branched_from == origin.id
        assert len(drawn.record.prompts) == len(origin.record.prompts)
        seeds = [p.seed for p in drawn.record.pictures if p.prompt_version == last]
        assert seeds == [40, 41, 42]
        prompts = [s.prompt.prompt for s in drawn.state.steps if isinstance(s, PromptStep)]
        assert prompts == [p.prompt for p in origin.record.prompts]
    refused = act(desk, "ann", {"design": a.id, "do": "draw-both", "beside": b.id,
                                "seed": 2**32 - 1, "images": 8})  # fmt: skip
    assert "choose a smaller --seed" in refused["fault"]


def test_who_comes_to_a_busy_table_is_told_how_many_wait(desk, parts):
    parts.word_s = 0.2
    for seed in range(3):
        desk.start("ben", wish(seed=seed).row())
    wait_until(lambda: desk.n_waiting == 2, "the first began")
    assert "2 designs wait for the team already" in _html(desk, "", "welcome")


def test_the_library_tells_a_branch_from_its_origin(desk, done):
    made, _ = _act(desk, done.id, "edit", turn=2, text=WORDS, branches=True)
    assert (card(made).changed, card(done).changed) == ("You changed turn 2.", "")
    assert "You changed turn 2." in cards([card(made)])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"do": "reroll", "seed": -5}, "wanted a seed that can be used, got '-5'"),
        ({"do": "reroll", "seed": 1.5}, "wanted a seed that can be used, got '1.5'"),
        ({"do": "draw-both", "images": 100}, "wanted a number of pictures that can be used"),
        ({"do": "say", "text": "x" * 20_001}, "wanted a text that can be used"),
        ({"do": "fly", "seed": -5}, "wanted something the studio can do"),
    ],
)
def test_what_is_filled_in_wrongly_is_told_by_its_name(desk, fields, said):
    assert act(desk, "ann", {"design": "any"} | fields)["fault"].startswith(said)
