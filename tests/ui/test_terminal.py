from __future__ import annotations

import io

from agents.events import (
    Critiqued,
    FactsFound,
    Prompted,
    Rendered,
    RenderStep,
    Spoke,
    Stopped,
    TurnEnded,
    TurnStarted,
)
from orbweave.records import Design
from ui.terminal import TerminalView, plain


def _drawn(design: Design, width: int = 80) -> str:
    """Everything a whole design prints where stdout is no terminal."""
    stream = io.StringIO()
    with TerminalView(stream, clock=lambda: 0.0, width=width) as view:
        view.begin(design.brief)
        view.on_event(FactsFound(("spider-silk", "leaf"), design.facts))
        for turn in design.turns:
            view.on_event(TurnStarted(turn.index, turn.speaker, turn.role, turn.model))
            view.on_event(Spoke(turn.index, turn.text[:10]))
            view.on_event(TurnEnded(turn))
        view.on_event(Prompted(0, design.prompts[0]))
        view.on_event(RenderStep(1, 2))
        view.on_event(Rendered(0, design.pictures, design.measurements))
        view.on_event(Critiqued(design.critiques[0]))
        view.on_event(Stopped(design.stop_reason))
    return stream.getvalue()


def test_each_turn_shows_speaker_model_pace_and_sources(finished):
    text = _drawn(finished[0])
    assert "spider silk expert  base · 40 tokens · 20 tok/s" in text
    assert "silk-0001  Radial threads carry most of the load. (A paper <b>)" in text
    assert "not in the given facts: 30 %" in text


def test_what_the_facts_hold_of_a_turn_is_told_and_what_they_do_not_is_named(finished):
    lines = [line.strip() for line in _drawn(finished[0], width=100).splitlines()]
    assert "2 sentences checked: 1 supported, 1 unsupported" in lines
    assert "unsupported: They stretch 30 % more <b>. (in no fact: 30 %)" in lines


def test_of_a_prompt_only_the_count_is_told(finished):
    design = finished[0]
    engineer = design.turns[1].model_copy(update={"checks": design.turns[0].checks[1:]})
    text = _drawn(design.model_copy(update={"turns": (engineer,)}))
    assert "1 sentence checked: 1 unsupported" in text
    assert "They stretch" not in text


def test_prompt_measurements_scores_and_end_are_shown(finished):
    text = _drawn(finished[0])
    assert "golden orb web with Radial threads on black" in text
    assert "geometry seeded from: orb web, golden on black" in text
    assert "images/v0-seed-7.png" in text
    assert "image statistics, not material properties" in text
    assert "spacing_px: wanted 20.00, measured nothing measurable" in text
    assert "Stopped: all rounds done" in text


def test_without_a_terminal_nothing_but_plain_lines_is_written(finished):
    text = _drawn(finished[0])
    assert "\x1b" not in text
    assert "\r" not in text
    assert " \n" not in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_model_text_can_neither_steer_the_terminal_nor_be_markup(finished):
    design = finished[0]
    evil = "\x1b[2J\x07[red]bold[/red] \x9b31m \u202eback\x00 [/] end"
    turn = design.turns[0].model_copy(update={"text": evil, "speaker": "x[/]\x1b]0;t\x07"})
    text = _drawn(design.model_copy(update={"turns": (turn,)}))
    assert not {"\x1b", "\x07", "\x9b", "\x00", "\u202e"} & set(text)
    assert "[red]bold[/red]" in text


def test_a_hostile_prompt_title_is_shown_as_it_is(finished):
    design = finished[0]
    prompt = design.prompts[0].model_copy(update={"title": "[bold]x[/bold] [/nonsense]"})
    assert "[bold]x[/bold] [/nonsense]" in _drawn(design.model_copy(update={"prompts": (prompt,)}))


def test_plain_keeps_emoji_sequences_and_right_to_left_marks():
    kept = "שלום \u200f 👩\u200d🔬\nnext"
    assert plain(kept) == kept


def test_the_live_region_shows_parallel_speakers(finished):
    view = TerminalView(io.StringIO(), clock=iter([0.0, 0.0, 2.0, 2.0]).__next__, width=80)
    view.on_event(TurnStarted(0, "spider_silk_expert", "expert", "base"))
    view.on_event(TurnStarted(1, "leaf_expert", "expert", "base"))
    for _ in range(4):
        view.on_event(Spoke(0, "one "))
    with view.console.capture() as capture:
        view.console.print(view._bottom())
    assert "spider silk expert  base · 2.0 tok/s" in capture.get()
    assert "leaf expert  base · …" in capture.get()


def test_facts_of_the_users_own_are_counted_too(finished):
    silk = finished[0].facts[0]
    own = silk.model_copy(update={"id": "own-000001", "domain": "own"})
    stream = io.StringIO()
    with TerminalView(stream, width=80) as view:
        view.on_event(FactsFound(("spider-silk",), (silk, own)))
    assert "experts for this concept: spider-silk (1 facts), 1 of your own" in stream.getvalue()
