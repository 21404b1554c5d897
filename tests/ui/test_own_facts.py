"""`orbweave design --facts`: a user's own corpus, from the option to the record and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ui.design
from agents.corpora import read_corpora
from agents.fake import FakeEngine, hashed_words
from agents.generation import Generation
from agents.knowledge import Fact, Knowledge
from agents.roles import load_team
from agents.state import read_state
from agents.team import converse
from imagegen.measure import measure
from orbweave.errors import EngineError
from orbweave.records import Design
from ui.cli import run

ARGUMENTS = (
    "design", "a net of hyphae that bind straw", "--domains", "biocomposite",
    "--structure", "none", "--size", "64", "--images", "1", "--quiet", "--out", "d",
)  # fmt: skip


def _fact(number: str, statement: str) -> Fact:
    return Fact(
        id=number, domain="biocomposite", topic="structure", statement=statement, quantity=None,
        visual=None, source_title="A page", source_url="https://example.org",
    )  # fmt: skip


def _answer(request: Generation) -> str:
    question = request.messages[-1].content
    return request.prefix + (
        question.split("- ", 1)[1].splitlines()[0] if "- " in question else "a net of hyphae"
    )


@pytest.fixture
def engine(monkeypatch, tmp_path, renderer) -> FakeEngine:
    """The model of a workshop that looks up facts in the corpora it was told of."""
    monkeypatch.chdir(tmp_path)
    engine = FakeEngine(_answer)

    def workshop(note, embed, team=None, corpora=()):
        def open_knowledge():
            shipped = [_fact("bio-0001", "Combs have walls of wax.")]
            return Knowledge(shipped, hashed_words, own=read_corpora(corpora))

        return ui.design.Workshop(
            converse, lambda model: engine, open_knowledge, load_team(), renderer, measure
        )

    monkeypatch.setattr(ui.design, "workshop", workshop)
    return engine


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.jsonl"
    facts = [_fact("my-0001", "Hyphae of a fungus bind straw."), _fact("my-0002", "Nets hang.")]
    path.write_text("".join(fact.model_dump_json() + "\n" for fact in facts), "utf-8")
    return path


def _record(tmp_path: Path) -> Design:
    return Design.model_validate_json((tmp_path / "d" / "design.json").read_text("utf-8"))


def test_facts_of_ones_own_are_spoken_from_and_the_record_names_them(engine, tmp_path, mine):
    assert run([*ARGUMENTS, "--facts", "mine.jsonl"]) == 0
    record = _record(tmp_path)
    (corpus,) = record.corpora
    assert (corpus.path, corpus.n_facts) == (str(mine), 2)
    assert "my-0001" in record.turns[0].cited
    assert f"2 facts of {mine}" in (tmp_path / "d" / "conversation.md").read_text("utf-8")


def test_the_option_may_be_given_more_than_once(engine, tmp_path, mine):
    other = tmp_path / "other.jsonl"
    other.write_text(_fact("other-0001", "Straw is light.").model_dump_json() + "\n", "utf-8")
    assert run([*ARGUMENTS, "--facts", "mine.jsonl", "--facts", "other.jsonl"]) == 0
    assert [Path(c.path).name for c in _record(tmp_path).corpora] == ["mine.jsonl", "other.jsonl"]


def test_a_broken_corpus_is_told_before_anything_is_loaded(engine, tmp_path, mine, capsys):
    mine.write_text("{}\n", "utf-8")
    assert run([*ARGUMENTS, "--facts", "mine.jsonl"]) == 2
    err = capsys.readouterr().err
    assert f"wanted a fact or a chunk in every line of {mine}, 1 are broken (line 1: " in err
    assert not (tmp_path / "d.unfinished").exists()


def test_a_dry_run_names_the_corpora(engine, mine, capsys):
    assert run([*ARGUMENTS, "--facts", "mine.jsonl", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["facts"] == [str(mine)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: None, None),
        (lambda path: path.unlink(), "wanted facts in"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\n"), "it has changed; put it back"),
    ],
)
def test_a_design_goes_on_only_with_the_same_corpus(engine, tmp_path, mine, capsys, change, said):
    def failing(request: Generation) -> str:
        if request.prefix.endswith("Advice:"):
            raise EngineError("wanted a token, the model is gone; load it again")
        return _answer(request)

    engine._answer = failing
    assert run([*ARGUMENTS, "--facts", "mine.jsonl"]) == 1
    state = read_state(tmp_path / "d.unfinished" / "state.json")
    assert state.steps[0].corpora[0].path == str(mine)
    engine._answer, engine.closed = _answer, False
    change(mine)
    capsys.readouterr()
    code = run(["design", "--resume", "d", "--quiet"])
    err = capsys.readouterr().err
    if said is None:
        assert code == 0, err
        assert len(_record(tmp_path).corpora) == 1
    else:
        assert code != 0
        assert said in err
        assert (tmp_path / "d.unfinished" / "state.json").is_file()
