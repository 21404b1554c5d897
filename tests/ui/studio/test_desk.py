"""Designs belong to the server: they queue, stop, outlive it, and stay with their owner."""

from __future__ import annotations

import json
import shutil
import threading

import pytest

from agents.steering import edit, inject
from orbweave.errors import EngineError, OutputError, UsageError
from orbweave.files import sha256_file
from ui.studio.desk import MAX_EACH, Desk
from ui.studio.journal import Journal
from ui.studio.sitting import Sitting, kept_name

from .conftest import obedient, wait_until, wish


def _ended(sitting):
    wait_until(lambda: not sitting.is_open, "the design ended")
    return sitting


def _spoken(sitting):
    return sum(len(s.heard) for s in sitting.story.speeches.values())


def test_a_design_runs_to_its_end_and_its_folder_is_whole(desk):
    sitting = _ended(desk.start("ann", wish(rounds=2).row()))
    assert (sitting.status, sitting.story.why) == ("done", "")
    assert sitting.record.brief.concept == wish().concept
    assert (sitting.target / "report.html").is_file()
    assert sorted(sitting.story.prompts) == [0, 1]
    assert len(sitting.story.pictures[1]) == 2


def test_the_story_read_from_the_disk_is_the_one_that_was_heard(desk):
    sitting = _ended(desk.start("ann", wish().row()))
    heard = sitting.story
    sitting.rest()
    read = sitting.story
    assert read is not heard
    for story in (heard, read):
        story.n_heard = 0  # previews are not kept
        for speech in story.speeches.values():
            speech.heard = ""
    assert read == heard


def test_designs_wait_in_the_order_they_came_and_know_their_place(desk, parts):
    parts.word_s = 0.02
    first, second, third = (desk.start("ann", wish(seed=n).row()) for n in range(3))
    wait_until(lambda: first.status == "running", "the first began")
    assert [desk.position(s) for s in (first, second, third)] == [0, 1, 2]
    parts.word_s = 0.0
    desk.stop("ann", first.id)
    wait_until(lambda: desk.position(third) == 1, "the second began")
    assert _ended(third).status == "done"


def test_stop_frees_the_slot_within_two_seconds(desk, parts):
    parts.word_s = 0.2
    sitting = desk.start("ann", wish().row())
    waiting = desk.start("ben", wish().row())
    wait_until(lambda: _spoken(sitting), "somebody spoke")
    desk.stop("ann", sitting.id)
    wait_until(lambda: waiting.status == "running", "the next began", timeout_s=2.0)
    assert (sitting.status, sitting.story.why) == ("stopped", "by you")


def test_stop_while_drawing_keeps_what_was_said(desk, parts):
    parts.painter.step_s = 0.05
    sitting = desk.start("ann", wish(steps=100).row())
    wait_until(lambda: sitting.story.step, "drawing began")
    desk.stop("ann", sitting.id)
    wait_until(lambda: sitting.status == "stopped", "it stopped", timeout_s=2.0)
    assert {0, 1, 2} <= {i for i, s in sitting.story.speeches.items() if s.turn}
    assert not list(sitting.folder.glob(".design.*"))


def test_a_waiting_design_is_stopped_at_once(desk, parts):
    parts.word_s = 0.2
    desk.start("ann", wish().row())
    waiting = desk.start("ann", wish(seed=1).row())
    desk.stop("ann", waiting.id)
    assert waiting.status == "stopped"
    assert desk.position(waiting) == 0


def test_a_stopped_design_goes_on_to_its_end(desk, parts):
    parts.word_s = 0.2
    sitting = desk.start("ann", wish().row())
    wait_until(lambda: _spoken(sitting), "somebody spoke")
    desk.stop("ann", sitting.id)
    _ended(sitting)
    parts.word_s = 0.0
    assert desk.again("ann", sitting.id) is sitting
    assert _ended(sitting).status == "done"
    with pytest.raises(UsageError, match="did not end, this one is done"):
        desk.again("ann", sitting.id)


def test_a_restart_finds_what_was_done_cut_off_and_waiting(open_desk, parts):
    desk = open_desk()
    done = _ended(desk.start("ann", wish().row()))
    parts.word_s = 0.2
    running = desk.start("ann", wish(seed=1).row())
    waiting = desk.start("ann", wish(seed=2).row())
    wait_until(lambda: _spoken(running), "somebody spoke")
    later = open_desk()
    found = {s.id: s for s in later.sittings("ann")}
    assert list(found) == [waiting.id, running.id, done.id]
    assert found[done.id].record == done.record
    assert found[running.id].is_open
    parts.word_s = 0.0
    assert _ended(found[running.id]).status == "done"
    assert _ended(found[waiting.id]).status == "done"


def test_a_design_that_is_under_way_at_two_kills_waits_for_a_person_with_every_word(
    open_desk, tmp_path, parts
):
    desk = open_desk()
    parts.word_s = 0.2
    sitting = desk.start("ann", wish().row())
    wait_until(lambda: _spoken(sitting) > 10, "somebody spoke")
    for kill in (1, 2):
        journal = (sitting.folder / "journal.jsonl").read_bytes()
        desk.close()
        # As after kill -9: no last word, half a line, the hidden folder of the run.
        (sitting.folder / "journal.jsonl").write_bytes(journal + b'{"at": 1, "kind": "Spo')
        (sitting.folder / ".design.0123abcd.partial").mkdir()
        desk = open_desk()
        found = desk.sitting("ann", sitting.id)
        assert not list(found.folder.glob(".design.0123abcd*"))
        if kill == 1:  # it goes on by itself
            sitting = found
            wait_until(lambda s=sitting: s.status == "running" and _spoken(s) > 10, "again")
    assert (found.status, found.story.why) == (
        "interrupted",
        "the studio was restarted twice at this step",
    )
    assert _spoken(found) > 10
    last = (found.folder / "journal.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["status"] == "interrupted"


def test_whatever_a_server_was_killed_at_the_design_goes_on_to_the_same_end(
    desk, tmp_path, parts, monkeypatch
):
    """The folder as it stood when an event came is what kill -9 at that moment would leave."""
    usual, left = Sitting.add, {}

    def add(sitting, what):
        kind = type(what).__name__
        if kind not in {"Moved", *left}:
            left[kind] = tmp_path / f"killed-at-{kind}"
            shutil.copytree(desk.data, left[kind])
        usual(sitting, what)

    monkeypatch.setattr(Sitting, "add", add)
    whole = _ended(desk.start("ann", wish().row())).record
    monkeypatch.setattr(Sitting, "add", usual)
    assert left.keys() >= {
        "FactsFound", "TurnStarted", "Spoke", "TurnEnded", "Prompted", "RenderStep", "Rendered",
        "Critiqued", "Stopped",
    }  # fmt: skip
    for kind, data in left.items():
        later = Desk(data, parts.open)
        later.open()
        later.work()
        (found,) = later.sittings("ann")
        assert _ended(found).status == "done", kind
        again = found.record
        assert [turn.text for turn in again.turns] == [turn.text for turn in whole.turns], kind
        assert [p.sha256 for p in again.pictures] == [p.sha256 for p in whole.pictures], kind
        later.close()


def test_owners_do_not_see_each_other(desk):
    sitting = _ended(desk.start("ann", wish().row()))
    assert desk.sittings("ben") == []
    for call in (desk.sitting, desk.stop, desk.again):
        with pytest.raises(UsageError, match="found none of that name"):
            call("ben", sitting.id)
    with pytest.raises(UsageError, match="wanted an owner"):
        desk.start("../ann", wish().row())


def test_a_double_click_is_one_design(desk, parts):
    parts.word_s = 0.05
    row = wish().row()
    assert desk.start("ann", row) is desk.start("ann", row)
    assert desk.start("ben", row) is not desk.start("ann", row)


def test_nobody_fills_the_queue_alone(desk, parts):
    parts.word_s = 0.2
    for seed in range(MAX_EACH):
        desk.start("ann", wish(seed=seed).row())
    with pytest.raises(UsageError, match="8 of yours are under way; stop one"):
        desk.start("ann", wish(seed=99).row())
    desk.start("ben", wish().row())


def test_a_failure_is_told_and_the_next_design_is_made(desk, parts):
    def break_down(request):
        raise EngineError("wanted memory, got none; <b>use a smaller model</b>")

    parts.answer = break_down
    broken = _ended(desk.start("ann", wish().row()))
    assert (broken.status, broken.story.why[:20]) == ("failed", "wanted memory, got n")
    parts.answer = obedient
    assert _ended(desk.start("ann", wish().row())).status == "done"


def test_models_that_cannot_be_opened_are_told_and_tried_again(open_desk, parts):
    parts.fault = OutputError("wanted weights, found none; fetch them")
    desk = open_desk()
    sitting = _ended(desk.start("ann", wish().row()))
    assert (sitting.status, sitting.story.why) == (
        "failed",
        "wanted weights, found none; fetch them",
    )
    parts.fault = None
    assert _ended(desk.start("ann", wish().row())).status == "done"
    assert desk.note == ""


def test_a_second_studio_on_the_same_folder_is_refused(desk, parts):
    with pytest.raises(OutputError, match="another one is working there"):
        Desk(desk.data, parts.open).open()


def test_several_workers_make_several_designs_at_once(open_desk, parts):
    parts.word_s = 0.05
    desk = open_desk(n_workers=3)
    made = [desk.start("ann", wish(seed=n).row()) for n in range(3)]
    wait_until(lambda: all(s.status == "running" for s in made), "all run")
    parts.word_s = 0.0
    assert [_ended(s).status for s in made] == ["done"] * 3


def test_twenty_people_at_once_each_get_their_own(open_desk):
    desk = open_desk(n_workers=2)
    made = {}

    def ask(n):
        made[n] = desk.start(f"p{n}", wish(concept=f"concept number {n}", images=1).row())

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, sitting in made.items():
        assert _ended(sitting).status == "done"
        assert [s.asked.row.brief.concept for s in desk.sittings(f"p{n}")] == [
            f"concept number {n}"
        ]


def test_stars_lie_beside_the_design_and_outlive_the_server(open_desk):
    sitting = _ended(open_desk().start("ann", wish().row()))
    before = (sitting.target / "design.json").read_bytes()
    sitting.rate(4)
    found = open_desk().sitting("ann", sitting.id)
    assert found.stars == 4
    assert (found.target / "design.json").read_bytes() == before
    with pytest.raises(UsageError, match="0 to 5 stars, got 6"):
        found.rate(6)


def test_a_folder_that_is_no_sitting_is_left_alone(open_desk, tmp_path):
    desk = open_desk()
    other = desk.data / "ann" / "notes"
    other.mkdir(parents=True)
    (other / "order.json").write_text("{}")
    assert open_desk().sittings("ann") == []
    assert (other / "order.json").read_text() == "{}"


def test_previews_are_dropped_once_a_turn_is_over(desk):
    sitting = _ended(desk.start("ann", wish().row()))
    kinds = {type(e.what).__name__ for e in Journal(sitting.folder / "journal.jsonl").read()}
    assert {"TurnEnded", "Prompted", "Rendered", "Moved"} <= kinds
    assert not kinds & {"Spoke", "RenderStep"}


def _turns(sitting):
    return {i: s.turn.text for i, s in sitting.story.speeches.items() if s.turn}


def test_going_on_repeats_no_finished_turn(desk, parts):
    parts.painter.step_s = 0.05
    sitting = desk.start("ann", wish(steps=100).row())
    wait_until(lambda: sitting.story.step, "drawing began")
    desk.stop("ann", sitting.id)
    _ended(sitting)
    said = _turns(sitting)
    parts.answer = lambda request: "Something else entirely."
    parts.painter.step_s = 0.0
    _ended(desk.again("ann", sitting.id))
    assert sitting.status == "done"
    assert {i: _turns(sitting)[i] for i in (0, 1, 2)} == {i: said[i] for i in (0, 1, 2)}


def test_an_edited_turn_stays_and_what_rested_on_it_is_made_anew(desk):
    sitting = _ended(desk.start("ann", wish(rounds=2).row()))
    words = "Prompt: Close view of one thick vein on black."
    desk.steer("ann", sitting.id, lambda s: edit(s, 2, words), "turn 2 was changed")
    _ended(sitting)
    assert sitting.status == "done", sitting.story.why
    assert sitting.record.prompts[0].prompt == "Close view of one thick vein on black."
    assert sitting.record.turns[2].model == "human"
    assert sitting.story.steered == ["turn 2 was changed"]
    assert (sitting.folder / "earlier-1" / "design.json").is_file()
    assert all((sitting.target / p.path).is_file() for p in sitting.record.pictures)


def test_a_remark_while_the_team_speaks_is_heard_by_those_who_come_after(desk, parts):
    parts.word_s = 0.05
    sitting = desk.start("ann", wish().row())
    wait_until(lambda: _turns(sitting), "somebody has spoken")
    desk.steer("ann", sitting.id, lambda s: inject(s, "wider gaps, please"), "a remark")
    parts.word_s = 0.0
    wait_until(lambda: sitting.status == "done", "the design ended")
    assert "wider gaps, please" in [turn.text for turn in sitting.record.turns]


def test_a_branch_keeps_its_origin_and_draws_with_the_same_seeds(desk):
    first = _ended(desk.start("ann", wish().row()))
    before = first.record
    words = "Prompt: Close view of one thick vein on black."
    other = desk.branch("ann", first.id, 2, lambda s: edit(s, 2, words), "turn 2 was changed")
    _ended(other)
    assert other.status == "done", other.story.why
    assert first.record == before
    assert other.asked.branched_from == first.id
    assert other.record.turns[:2] == before.turns[:2]
    assert other.record.prompts[0].prompt != before.prompts[0].prompt
    assert [p.seed for p in other.record.pictures] == [p.seed for p in before.pictures]


def test_a_branch_cut_off_while_it_was_made_does_not_begin_anew_after_a_restart(open_desk):
    desk = open_desk()
    first = _ended(desk.start("ann", wish().row()))
    (first.folder / "pictures" / "lost.png").symlink_to("nowhere")  # cannot be copied
    with pytest.raises(OSError, match=r"lost\.png"):
        desk.branch("ann", first.id, 2, lambda s: edit(s, 2, "Other words."), "turn 2 was changed")
    assert [s.id for s in open_desk().sittings("ann")] == [first.id]


def test_a_server_killed_before_a_run_heeds_a_change_does_not_lose_it(desk, parts, tmp_path):
    parts.word_s = 0.2
    sitting = desk.start("ann", wish().row())
    wait_until(lambda: _turns(sitting), "somebody has spoken")
    with sitting.lock:  # until it is let go the run cannot heed it
        desk.steer("ann", sitting.id, lambda s: inject(s, "wider gaps, please"), "a remark")
        assert sitting.status == "running"
        shutil.copytree(desk.data, tmp_path / "killed")
    parts.word_s = 0.0
    later = Desk(tmp_path / "killed", parts.open)
    later.open()
    later.work()
    (found,) = later.sittings("ann")
    assert _ended(found).status == "done"
    assert found.story.steered == ["a remark"]
    assert "wider gaps, please" in _turns(found).values()
    assert not list(found.folder.glob("changed*"))
    later.close()
    desk.stop("ann", sitting.id)


def test_a_change_that_makes_no_sense_changes_nothing(desk):
    sitting = _ended(desk.start("ann", wish().row()))
    before = (sitting.folder / "state.json").read_bytes()
    with pytest.raises(UsageError, match="wanted turn 99"):
        desk.steer("ann", sitting.id, lambda s: edit(s, 99, "words"), "")
    assert (sitting.status, (sitting.folder / "state.json").read_bytes()) == ("done", before)


def test_two_versions_of_one_number_keep_their_own_pictures(desk):
    sitting = _ended(desk.start("ann", wish().row()))
    old = {kept_name(p): p.sha256 for p in sitting.record.pictures}
    words = "Prompt: Close view of one thick vein on black."
    desk.steer("ann", sitting.id, lambda s: edit(s, 2, words), "")
    _ended(sitting)
    new = {kept_name(p): p.sha256 for p in sitting.record.pictures}
    assert not old.keys() & new.keys()
    for name, sha256 in (old | new).items():
        assert sha256_file(sitting.picture(name)) == sha256
