"""The figures of the loop and of the critic, against cases worked by hand."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from agents.knowledge import read_facts
from orbweave.records import Brief, Citation, Design, ImagePrompt, Turn

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("loop")


@pytest.fixture
def critic(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("critic")


def test_half_the_distance_everywhere_is_a_ratio_of_a_half_for_sure(loop: ModuleType) -> None:
    interval = loop.ratio_interval([(2.0, 1.0), (4.0, 2.0), (1.0, 0.5)], seed=0)
    assert interval == pytest.approx((0.5, 0.5))


def test_concepts_that_differ_make_the_ratio_unsure(loop: ModuleType) -> None:
    low, high = loop.ratio_interval([(1.0, 0.0), (1.0, 1.0)] * 15, seed=0)
    # A mean of 30 coins: 0.5 with a standard error of 0.09.
    assert (low, high) == pytest.approx((0.32, 0.68), abs=0.04)


def test_the_concepts_are_thirty_and_stay_in_their_order(loop: ModuleType) -> None:
    cases = loop.concepts(0)
    assert len(cases) == 30
    assert cases == loop.concepts(0)
    assert len({case["id"] for case in cases}) == 30
    assert sum(case["id"].startswith("own-") for case in cases) == 10


def _design(prompt: str, facts: tuple[str, ...] = ()) -> Design:
    given = tuple(
        Citation(
            id=fact.id, domain=fact.domain, statement=fact.statement, source_title="",
            source_url="", score=0.5,
        )
        for fact in read_facts() if fact.id in facts
    )  # fmt: skip
    silk, leaf, engineer = (
        Turn(index=n, speaker=f"s{n}", role=role, model="base", text="Text.")
        for n, role in enumerate(("expert", "expert", "engineer"))
    )
    return Design.model_validate(
        {
            "brief": Brief(concept="A net"), "turns": (silk, leaf, engineer), "facts": given,
            "prompts": (ImagePrompt(title="", prompt=prompt, turn=2),),
            "pictures": (), "measurements": (), "critiques": (), "stop_reason": "",
            "timings_s": {}, "environment": {},
        }
    )  # fmt: skip


def test_a_prompts_properties_are_told_apart(loop: ModuleType) -> None:
    webs, kinks = "silk-0272", "leaf-0110"  # a net pulled to a point; kinks along a midrib
    sentence = "Ten straight golden lines cross a dark round sheet at even gaps."
    good = _design(
        f"{sentence} Between them thin rings stand close together. Every ring is broken once, "
        "and the breaks form a spiral from the kinked central line to the point of a net.",
        (webs, kinks),
    )
    assert all(loop.properties(good).values())
    bad = loop.properties(_design(f"{sentence} {sentence}", (webs, kinks)))
    assert bad == {
        "30 to 110 words": False,
        "no sentence twice": False,
        "no unsupported number": True,
        "names what one would see": True,
        "every expert heard": False,
    }


@pytest.mark.parametrize(
    ("words", "is_seen"),
    [
        ("A golden orb web of radial and spiral threads on a dark ground.", True),
        ("An orb web of radial and spiral threads.", False),  # no colour
        ("Something golden, strong and generous.", False),  # no shape
        ("A golden orb web of spiral threads that absorbs 85 percent of incident light.", False),
    ],
)
def test_a_prompt_names_a_motif_and_a_colour_and_nothing_that_cannot_be_seen(
    loop: ModuleType, words: str, is_seen: bool
) -> None:
    assert loop.properties(_design(words))["names what one would see"] is is_seen


def _scores(*means: float) -> list[dict[str, float]]:
    names = ("depth", "creativity", "clarity", "quantitative")
    return [dict.fromkeys(names, mean) for mean in means]


def test_ranks_with_ties_correlate_as_worked_by_hand(critic: ModuleType) -> None:
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 over the root of 4.5 times 5.
    found = critic.calibration(_scores(1, 2, 2, 3), _scores(1, 2, 3, 4), _scores(3)[0])
    assert found["scores"]["clarity"]["spearman"] == pytest.approx((4.5 / 5) ** 0.5, abs=1e-3)


def test_scores_in_the_written_order_correlate_fully_however_they_are_spread(
    critic: ModuleType,
) -> None:
    read, written = _scores(2.9, 3.0, 3.1, 3.2), _scores(1, 2, 4, 5)
    found = critic.calibration(read, written, _scores(3)[0])["scores"]["mean"]
    assert found["spearman"] == 1.0
    assert found["mae"] == pytest.approx((1.9 + 1.0 + 0.9 + 1.8) / 4)
    assert found["mae_constant"] == pytest.approx((2 + 1 + 1 + 2) / 4)


def test_a_critic_that_says_the_same_of_all_hardly_discriminates(critic: ModuleType) -> None:
    found = critic.calibration(_scores(*[3.0] * 40), _scores(*[1, 5] * 20), _scores(3)[0])
    assert found["scores"]["depth"]["spearman"] is None
    assert found["verdict"] == "hardly discriminates: its scores spread 0% of the written ones"


def test_a_few_critiques_are_called_no_firm_ground(critic: ModuleType) -> None:
    found = critic.calibration(_scores(1, 2, 3), _scores(1, 2, 3), _scores(3)[0])
    assert "only 3 critiques: no firm ground" in found["verdict"]
