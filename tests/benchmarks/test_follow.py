"""The 48 prompts and how pictures of them are counted, against cases worked by hand."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from agents.embedding import MiniLM
from imagegen.captions import random_caption
from imagegen.classifier import Verdict
from imagegen.follow import Asked
from imagegen.looks import GROUNDS, MATERIALS, parse_look
from imagegen.motifs import FAMILIES
from imagegen.scene import random_structure

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
NEAREST = 0.9
"""Cosine that no caption may reach."""


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("follow")


def test_the_prompts_ask_for_every_motif_and_colour(bench: ModuleType) -> None:
    cases = bench.cases()
    assert len(cases) == len({case.prompt for case in cases}) == 48
    assert sum(case.id.startswith("own-") for case in cases) == 12
    assert sum(len(case.families) == 2 for case in cases) == 12
    assert {name for case in cases for name in case.families} == set(FAMILIES)
    looks = [parse_look(case.look).name.partition(" on ") for case in cases]
    assert {ground for _, _, ground in looks} == set(GROUNDS)
    assert {name for look in looks for name in look[0].split(" and ")} == set(MATERIALS)


def _nearest(bench: ModuleType, n: int) -> float:
    rng = np.random.default_rng(0)
    captions = [random_caption(random_structure(rng), rng) for _ in range(n)]
    embed = MiniLM()
    prompts = embed([case.prompt for case in bench.cases()])
    parts = [captions[i : i + 1_000] for i in range(0, n, 1_000)]
    return max(float((prompts @ embed(part).T).max()) for part in parts)


@pytest.mark.slow
def test_no_prompt_is_near_one_of_three_hundred_captions(bench: ModuleType) -> None:
    assert 0.4 < _nearest(bench, 300) < NEAREST


@pytest.mark.long
def test_no_prompt_is_near_one_of_twenty_thousand_captions(bench: ModuleType) -> None:
    assert _nearest(bench, 20_000) < NEAREST


def _verdict(*families: float) -> Verdict:
    names = ("orb_web", "cobweb", "honeycomb", "gyroid")
    return Verdict(
        dict(zip(names, families, strict=True)),
        {"golden": 0.5, "blue": 0.4, "red": 0.1},
        {"black": 0.7, "white": 0.3},
    )


def test_a_single_motif_must_come_first(bench: ModuleType) -> None:
    asked = Asked(families=("orb_web",), materials=("golden",), ground="black")
    assert bench.named(asked, _verdict(0.3, 0.2, 0.1, 0.0)) == (True, True, True)
    assert not bench.named(asked, _verdict(0.8, 0.9, 0.1, 0.0)).motif


def test_two_motifs_must_be_among_three_or_both_likely(bench: ModuleType) -> None:
    asked = Asked(families=("orb_web", "gyroid"), materials=("blue", "golden"), ground="white")
    assert bench.named(asked, _verdict(0.3, 0.2, 0.1, 0.25)).motif
    assert not bench.named(asked, _verdict(0.4, 0.3, 0.2, 0.1)).motif
    assert bench.named(asked, _verdict(0.9, 0.8, 0.7, 0.6)).motif
    names = bench.named(asked, _verdict(0.9, 0.8, 0.7, 0.6))
    assert names.material and not names.ground and not names.look


def test_shares_are_counted_apart_for_one_and_two_motifs(bench: ModuleType) -> None:
    def row(families: list[str], **held: bool) -> dict[str, object]:
        usual = dict.fromkeys(("motif", "look", "material", "ground"), True)
        return {"families": families, "chosen": None} | usual | held

    rows = [row(["a"]), row(["a"], motif=False), row(["a", "b"], look=False, ground=False)]
    shares = bench.summary(rows)
    counts = {name: (share["right"], share["of"]) for name, share in shares.items()}
    assert counts == {
        "motif of one": (1, 2), "both of two": (1, 1), "look": (2, 3), "look of one": (2, 2),
        "material": (3, 3), "ground": (2, 3),
    }  # fmt: skip
    assert shares["motif of one"]["interval"] == pytest.approx([0.095, 0.905], abs=1e-3)


def test_what_the_words_chooser_made_of_a_prompt_is_counted_apart(bench: ModuleType) -> None:
    usual = dict.fromkeys(("motif", "look", "material", "ground"), True)
    asked = {"families": ["a", "b"], "asked_look": "red and blue on black"} | usual
    rows = [
        asked | {"chosen": ["b", "a"], "chosen_look": "blue and red on black"},
        asked | {"chosen": ["a"], "chosen_look": "red on black"},
    ]
    shares = bench.summary(rows)
    assert shares["motifs read from the words"]["right"] == 1
    assert shares["look read from the words"]["right"] == 1


def test_a_part_of_the_prompts_is_of_every_kind(bench: ModuleType) -> None:
    part = bench.spread(bench.cases(), 8)
    assert [case.id.partition("-")[0] for case in part] == ["own"] * 2 + ["one"] * 4 + ["two"] * 2


def test_the_area_under_the_curve_is_worked_by_hand(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    area = importlib.import_module("classifier").area
    assert area([3, 2], [1, 2]) == pytest.approx(3.5 / 4)
    assert area([1], [2]) == 0
