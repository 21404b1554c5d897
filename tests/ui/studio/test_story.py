"""Search, and how a story is told in parts."""

from __future__ import annotations

import re
from datetime import datetime

import pytest

from agents.events import FactsFound, Prompted, Spoke, TurnEnded, TurnStarted
from agents.roles import StopRule
from orbweave.errors import UsageError
from orbweave.records import Check, Citation, ImagePrompt, Measurement, PhraseOrigin, Targets, Turn
from ui.studio.bars import Bar, bars_of, plots
from ui.studio.journal import Entry, Journal, Moved, Noted, Steered
from ui.studio.library import Card, Search, search
from ui.studio.pages.models import FIGURES, benchmark_tables
from ui.studio.sitting import Asked, Sitting
from ui.studio.story import Item
from ui.studio.table import Seat, against, shown_table, welcome

from .conftest import EVIL, wish

FACT = Citation(
    id="silk-0001", domain="spider-silk", statement=EVIL, source_title="A page",
    source_url="javascript:alert(1)", score=0.5,
)  # fmt: skip


@pytest.fixture
def sitting(tmp_path):
    return Sitting.begin(tmp_path / "ann" / "one", Asked(row=wish().row(), at=1.0))


def _html(sitting, key):
    return {part.key: part.html for part in shown_table(sitting, Seat())}[key]


def _turn(index, text, role="expert", **fields):
    name = f"{role}_{index}"
    return TurnEnded(Turn(index=index, speaker=name, role=role, model="base", text=text, **fields))


def test_a_journal_gives_back_what_was_written(tmp_path):
    journal = Journal(tmp_path / "j.jsonl")
    entries = [
        Entry(1.0, Moved("running", "why")),
        Entry(2.0, Noted("wait")),
        Entry(2.5, Steered("You spoke.")),
        Entry(3.0, FactsFound(("leaf",), (FACT,))),
        Entry(4.0, Spoke(0, "line\nend \u2028 é")),
        Entry(5.0, _turn(0, EVIL)),
    ]
    for entry in entries:
        journal.add(entry)
    assert list(journal.read()) == entries


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "7",
        '{"at": "x"}',
        '{"at": 1, "kind": "Flew"}',
        '{"at": 1, "kind": "Moved", "status": "gone"}',
    ],
)
def test_a_line_of_a_journal_that_means_nothing_is_passed_over(tmp_path, line):
    path = tmp_path / "j.jsonl"
    Journal(path).add(Entry(1.0, Noted("a")))
    path.write_text(path.read_text() + line + "\n")
    Journal(path).add(Entry(2.0, Noted("b")))
    assert [entry.what.text for entry in Journal(path).read()] == ["a", "b"]


def test_turns_spoken_at_once_lie_in_the_order_of_their_numbers(sitting):
    for index in (1, 0, 2):
        sitting.add(TurnStarted(index, f"e{index}", "expert", "base"))
    sitting.add(Prompted(0, ImagePrompt(title="t", prompt="p")))
    sitting.add(TurnStarted(3, "critic", "critic", "base"))
    places = [(item.kind, item.number) for item in sitting.story.items]
    assert places == [("turn", 0), ("turn", 1), ("turn", 2), ("prompt", 0), ("turn", 3)]
    assert sitting.story.items[3] == Item("prompt", 0)


def test_a_turn_shows_what_was_heard_and_then_its_facts_as_chips(sitting):
    sitting.add(FactsFound(("spider-silk",), (FACT,)))
    sitting.add(TurnStarted(0, "spider_silk_expert", "expert", "base"))
    sitting.add(Spoke(0, "Threads <b>"))
    assert "Threads &lt;b&gt;" in _html(sitting, "turn-0")
    text = f"Threads hold 7 % more [silk-0001]. {EVIL}"
    sitting.add(_turn(0, text, cited=("silk-0001",), unsupported=("7 %",)))
    html = _html(sitting, "turn-0")
    assert 'popovertarget="fact-silk-0001"' in html
    assert "<mark" in html and "7 %</mark>" in html
    assert "<script>" not in html and "&lt;script&gt;" in html
    facts = _html(sitting, "facts")
    assert "javascript:" not in facts and "<script>" not in facts


def test_a_turn_shows_what_the_facts_say_to_each_sentence(sitting):
    sitting.add(FactsFound(("spider-silk",), (FACT,)))
    checks = (
        Check(sentence="Threads carry load.", verdict="supported", facts=("silk-0001", "gone")),
        Check(sentence=EVIL, verdict="unsupported", why="in no fact: 30 %"),
        Check(sentence="So wide.", verdict="unsupported", why="in no fact"),
    )
    sitting.add(_turn(0, "Threads carry load. So wide.", checks=checks, unsupported=("30 %",)))
    html = _html(sitting, "turn-0")
    assert "1 supported</span>" in html and "2 unsupported</span>" in html
    assert "plausible" not in html
    assert "in no fact: 30 %" in html
    held = html.partition("Threads carry load.</p>")[2].partition("</li>")[0]
    assert 'popovertarget="fact-silk-0001"' in held and "&lt;img src=x" in held
    assert "<script>" not in html
    sitting.add(_turn(1, "Not checked.", role="critic"))
    assert "ow-checks" not in _html(sitting, "turn-1")


def test_a_revision_is_compared_with_the_version_it_was_made_from(sitting):
    for number, (words, revises) in enumerate(
        [("thin lines", None), ("no", 0), ("thick lines", 0)]
    ):
        changes = ("Spacing 20 to 24 px.",) if number == 2 else ()
        prompt = ImagePrompt(title="t", prompt=words, revises=revises, changes=changes)
        sitting.add(Prompted(number, prompt))
    html = _html(sitting, "prompt-2")
    assert "What changed since version 0" in html
    assert "<del>thin</del><ins>thick</ins>" in html
    assert "Spacing 20 to 24 px." in html


def test_a_phrase_of_a_prompt_leads_to_its_turn_and_a_revision_to_its_words(sitting):
    sitting.add(_turn(0, "radial threads"))
    origins = (PhraseOrigin(phrase="radial threads", turn=0),)
    sitting.add(Prompted(0, ImagePrompt(title="t", prompt="radial threads", origins=origins)))
    sitting.add(Prompted(1, ImagePrompt(title="t", prompt="radial veins")))
    assert '<a href="#turn-0" title="from turn 0, expert 0">radial threads</a>' in _html(
        sitting, "prompt-0"
    )
    assert "<del>threads</del><ins>veins</ins>" in _html(sitting, "prompt-1")


def test_only_the_part_that_changed_has_another_digest(sitting):
    sitting.add(_turn(0, "one"))
    before = {part.key: part.digest for part in shown_table(sitting, Seat())}
    sitting.add(TurnStarted(1, "critic", "critic", "base"))
    after = {part.key: part.digest for part in shown_table(sitting, Seat())}
    assert {key for key in after if after[key] != before.get(key)} == {"turn-1"}


def test_measured_stands_beside_wanted_and_directions_wrap_around():
    measured = Measurement(
        picture="p", solid_fraction=0.41, direction_deg=179.0, anisotropy=0.5, spacing_px=30.0,
        contrast=0.2,
    )  # fmt: skip
    rows = against(
        measured, Targets(solid_fraction=0.4, direction_deg=1.0, spacing_px=20.0), StopRule()
    )
    assert [(row.label, row.fits) for row in rows[:3]] == [
        ("solid fraction", True),
        ("direction", True),
        ("spacing", False),
    ]
    assert all(row.fits is None for row in against(measured, Targets(), StopRule()))


def test_an_empty_table_offers_concepts_and_says_what_is_loading():
    assert [part.key for part in welcome("")] == ["welcome"]
    assert "loading &lt;x&gt;" in welcome("loading <x>")[0].html


def _card(name, **fields):
    usual = {
        "id": name, "concept": name, "title": "", "status": "done", "at": datetime(2026, 11, 22, 9),
        "domains": ("leaf",), "models": ("base", "loom"), "stars": 0, "score": None,
        "shots": (), "words": name.casefold(),
    }  # fmt: skip
    return Card(**(usual | fields))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Search(), ["web", "bone"]),
        (Search(words="WEB"), ["web"]),
        (Search(words="web bone"), []),
        (Search(domain="leaf"), ["web"]),
        (Search(model="loom", stars=3), ["bone"]),
        (Search(since="2026-11-22"), ["web", "bone"]),
        (Search(since="2026-11-23"), ["bone"]),
        (Search(until="2026-11-22"), ["web"]),
    ],
)
def test_the_library_is_searched_by_words_domain_model_date_and_stars(wanted, found):
    cards = [
        _card("web"),
        _card("bone", domains=("collagen",), stars=4, at=datetime(2026, 11, 24)),
    ]
    assert [card.id for card in search(cards, wanted)] == found


def test_a_date_that_is_none_is_told():
    with pytest.raises(UsageError, match="wanted a date such as 2026-11-22, got 'soon'"):
        search([], Search(since="soon"))


def test_figures_become_bars_and_other_cells_do_not():
    head = ["accuracy, %", "base", "silk"]
    bars = bars_of(head, ["all", "32.9 (27 to 39)", "**60.0**"])
    assert bars == [Bar("base", 32.9, (27.0, 39.0)), Bar("silk", 60.0)]
    for row in (["perplexity", "41.2", "+14 %"], ["tokens", "120", "80"], ["alone", "50"]):
        assert bars_of(head, row) == []
    html = plots(head, [["<b>all", "25", "50"], ["perplexity", "41.2", "+14 %"]])
    assert html.count("<svg") == 1
    assert 'aria-label="&lt;b&gt;all: base 25 %, silk 50 %"' in html
    short, long = (float(w) for w in re.findall(r'"ow-bar-got"[^>]* width="([\d.]+)"', html))
    assert long == 2 * short
    assert plots(head, []) == ""


def test_the_models_page_takes_its_figures_from_the_documents(tmp_path):
    file = tmp_path / "benchmarks.md"
    file.write_text(
        "# B\n\n## Speed\n\n| what | s |\n|---|---|\n| a | 1 |\n\n"
        "## Quiz\n\n| accuracy, % | base |\n|---|---|\n| silk (60) | 25.0 |\n\nThe end.\n"
    )
    (table,) = benchmark_tables(file)
    assert table == ("Quiz", ["accuracy, %", "base"], [["silk (60)", "25.0"]])
    assert benchmark_tables(tmp_path / "missing.md") == []
    assert benchmark_tables(FIGURES)
