"""The blind comparison: nothing gives a side away, and the count is as worked by hand."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from agents.fake import FakeEngine
from agents.generation import Generation
from agents.knowledge import Fact, read_facts
from agents.script import PAPER_SAMPLING
from orbweave.records import Brief, Citation, Design, ImagePrompt

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
CASES = [{"id": name, "concept": f"a net of {name}"} for name in ("own-00", "x-1", "x-2", "x-3")]


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("blind")


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("loop")


@pytest.fixture(scope="module")
def facts() -> list[Fact]:
    """One fact of silk and one of leaves, in words."""
    shipped = read_facts()
    return [
        next(f for f in shipped if f.domain == domain and f.visual)
        for domain in ("spider-silk", "leaf")
    ]


@pytest.fixture
def designed(facts: list[Fact]) -> Callable[[str, str], Design]:
    def made(concept: str, prompt: str) -> Design:
        cited = tuple(
            Citation(
                id=fact.id, domain=fact.domain, statement=fact.statement, source_title="",
                source_url="", score=0.5,
            )
            for fact in facts
        )  # fmt: skip
        return Design(
            brief=Brief(concept=concept), turns=(), facts=cited,
            prompts=(ImagePrompt(title="", prompt=prompt),), pictures=(), measurements=(),
            critiques=(), stop_reason="", timings_s={}, environment={},
        )  # fmt: skip

    return made


def _written(
    blind: ModuleType, designed: Callable[[str, str], Design], out: Path, seed: int
) -> list[dict[str, str]]:
    designs = {
        c["id"]: designed(c["concept"], f"Woven lines of {c['id']}. " * (n % 2 + 1))
        for n, c in enumerate(CASES)
    }
    bare = {case["id"]: f"Plain words on {case['id']}." for case in CASES}
    blind.write_pairs(CASES, designs, bare, seed, out)
    return [json.loads(line) for line in (out / "pairs.jsonl").read_text().splitlines()]


def test_pairs_hold_no_names_and_the_key_tells_whose_is_whose(
    blind: ModuleType, designed: Callable[[str, str], Design], tmp_path: Path
) -> None:
    pairs = _written(blind, designed, tmp_path, seed=1)
    assert {tuple(pair) for pair in pairs} == {("pair", "concept", "A", "B")}
    shown = (tmp_path / "pairs.jsonl").read_text() + (tmp_path / "pairs.md").read_text()
    assert "team" not in shown and "bare" not in shown
    key = json.loads((tmp_path / "key.json").read_text())["pairs"]
    for pair, sides in zip(pairs, key, strict=True):
        texts = {sides["A"]: pair["A"], sides["B"]: pair["B"]}
        assert texts["team"].startswith("Woven") and texts["bare"].startswith("Plain")
        assert sides["id"] in pair["concept"]
    assert {sides["A"] for sides in key} == {"team", "bare"}


def test_the_sides_follow_from_the_seed(
    blind: ModuleType, designed: Callable[[str, str], Design], tmp_path: Path
) -> None:
    first, same, other = (
        _written(blind, designed, tmp_path / str(n), seed) for n, seed in enumerate((1, 1, 2))
    )
    assert first == same != other


def test_properties_are_held_against_the_same_facts_on_both_sides(
    blind: ModuleType, designed: Callable[[str, str], Design], facts: list[Fact]
) -> None:
    design = designed("a net", "")
    seen = " ".join(f"{fact.visual}." for fact in facts)
    assert blind.properties(seen, design)["every expert heard"]
    assert blind.properties(seen, design)["no unsupported number"]
    assert not blind.properties(f"{facts[0].visual}.", design)["every expert heard"]
    assert blind.properties("A cat. A cat. It weighs 712 kg.", design) == {
        "30 to 110 words": False,
        "no sentence twice": False,
        "no unsupported number": False,
        "every expert heard": False,
    }
    assert blind.properties("It weighs 712 kg.", designed("712 kg of net", ""))[
        "no unsupported number"
    ]


def test_an_expert_is_heard_by_one_fact_of_any_domain_it_speaks_for(loop: ModuleType) -> None:
    shipped = read_facts()
    leaf, plant = (
        next(f for f in shipped if f.domain == domain and f.visual) for domain in ("leaf", "plant")
    )
    silk = next(f for f in shipped if f.domain == "spider-silk" and f.visual)
    assert loop.every_expert_heard(f"{plant.visual}.", [leaf, plant])
    assert not loop.every_expert_heard(f"{plant.visual}.", [leaf, plant, silk])
    assert loop.every_expert_heard("A cat.", [])


def test_a_share_of_all_counts_prompts_with_every_property(blind: ModuleType) -> None:
    rows = [{"a": True, "b": True}, {"a": True, "b": False}, {"a": False, "b": True}]
    assert blind.share(rows) == {"a": 0.667, "b": 0.667, "all": 0.333}


def test_a_count_is_as_worked_by_hand(blind: ModuleType) -> None:
    key = [{"pair": n, "id": f"x-{n}", "A": "team", "B": "bare"} for n in range(1, 8)]
    key[0] |= {"id": "own-00", "A": "bare", "B": "team"}
    picks = {1: "b", 2: "a", 3: "a", 4: "a", 5: "a", 6: "b", 7: "tie"}
    found = blind.score(key, picks)
    # Five of six decided: Wilson 0.436 to 0.970; 7 of 64 ways are as far on either side.
    assert found["all"] == {
        "wins": 5, "losses": 1, "ties": 1, "win_share": 0.833,
        "interval": pytest.approx([0.436, 0.970], abs=1e-3), "p": pytest.approx(14 / 64, abs=1e-4),
    }  # fmt: skip
    assert (found["own"]["wins"], found["held_out"]["wins"]) == (1, 4)
    assert found["side_picked"] == {"a": 4, "b": 2, "tie": 1}
    assert blind.score(key, {})["all"] == {"wins": 0, "losses": 0, "ties": 0}


def test_picks_are_read_and_every_fault_is_told(blind: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "picks.txt"
    path.write_text("1 A\n2: tie  # hard\n\n3\n4,b\n")
    assert blind.read_picks(path, 4) == {1: "a", 2: "tie", 4: "b"}
    path.write_text("1 A\n1 B\n5 A\n2 both\n")
    with pytest.raises(SystemExit, match=r"line 2: pair 1 .*; line 3: wanted 1 to 4.*; line 4"):
        blind.read_picks(path, 4)


def test_the_base_model_is_asked_as_in_the_paper_and_only_once(
    blind: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def said(request: Generation) -> str:
        return '**Prompt:** "A net of lines."' if len(request.messages) > 2 else "Principles."

    engine = FakeEngine(said, model="base")
    opened: list[str] = []

    def open_engine(_: object, model: str) -> FakeEngine:
        opened.append(model)
        return engine

    monkeypatch.setattr(blind.Engines, "open", open_engine)
    kept = tmp_path / "bare.jsonl"
    for cases in (CASES[:2], CASES[:2]):
        found = blind.asyncio.run(blind.said_bare(cases, 3, kept))
        assert found == {"own-00": "A net of lines.", "x-1": "A net of lines."}
    assert opened == ["base"]
    assert len(engine.requests) == 4
    assert {request.sampling for request in engine.requests} == {PAPER_SAMPLING}
    assert {request.max_new_tokens for request in engine.requests} == {1_024}
    assert all("a net of" in request.messages[1].content for request in engine.requests)
    assert len({request.seed for request in engine.requests}) == 2  # one each turn, of the seed


def test_without_designs_it_says_which_are_missing_and_how_to_make_them(
    blind: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(blind, "concepts", lambda seed: CASES)
    monkeypatch.setattr(
        "sys.argv", ["blind.py", "--designs", str(tmp_path), "--out", str(tmp_path / "out")]
    )
    with pytest.raises(SystemExit):
        blind.main()
    assert "lacks 4 of 4 designs, own-00 for one; make them with" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_chat_that_ended_early_is_neither_kept_nor_compared(
    blind: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    replies = ["Principles.", "Principles.", "A net of lines."]  # none left for the fourth
    monkeypatch.setattr(blind.Engines, "open", lambda _, model: FakeEngine(replies, model=model))
    kept = tmp_path / "bare.jsonl"
    with pytest.raises(SystemExit, match="wanted 2 whole chats, 1 ended early; run it again"):
        blind.asyncio.run(blind.said_bare(CASES[:2], 3, kept))
    assert len(blind.read_lines(kept)) == 1
