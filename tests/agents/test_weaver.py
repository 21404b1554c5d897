"""The model in the weaver's place follows from what a concept asks of its experts."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from agents.fake import hashed_words
from agents.knowledge import Fact, Knowledge
from agents.roles import Team, load_team
from agents.weaver import WEAVER, woven
from orbweave.models import ModelRef
from orbweave.records import Brief, Domain

SAYINGS: Mapping[str, str] = {
    "spider-silk": "spider threads spread a load over many radii",
    "leaf": "leaf veins carry water along branching loops",
    "collagen": "collagen fibrils are banded ropes",
}


def _knowledge() -> Knowledge:
    facts = [
        Fact(
            id=f"{domain}-1", domain=domain, topic="structure", statement=statement,
            quantity=None, visual=None, source_title="A page", source_url="https://example.org",
        )
        for domain, statement in SAYINGS.items()
    ]  # fmt: skip
    return Knowledge(facts, hashed_words)


def _team(models: Mapping[Domain, str]) -> Team:
    team = load_team()
    experts = tuple(
        expert.model_copy(update={"model": models.get(expert.domain, "base")})
        for expert in team.experts
    )
    return team.model_copy(update={"experts": experts, "engineer_model": WEAVER})


def _brief(concept: str, *domains: Domain) -> Brief:
    return Brief(concept=concept, domains=domains)


def _shares(model: str) -> dict[str, float]:
    ref = ModelRef.parse(model)
    assert ref.name == "steered"
    weights = [float(weight) for _, weight in ref.options]
    return dict(zip(map(str, ref.parents), weights, strict=True))


def test_the_field_a_concept_asks_more_of_has_the_greater_share():
    team = _team({"spider-silk": "base", "leaf": "generalist"})
    silken = _brief("spider threads load with leaf veins", "spider-silk", "leaf")
    leafy = _brief("spider threads with leaf veins water", "spider-silk", "leaf")
    first = _shares(woven(team, silken, _knowledge()).engineer_model)
    second = _shares(woven(team, leafy, _knowledge()).engineer_model)
    assert first["base"] > 0.5 > first["generalist"]
    assert second["generalist"] > 0.5 > second["base"]
    assert sum(first.values()) == pytest.approx(1)


def test_experts_of_one_model_are_that_model():
    team = _team({"spider-silk": "generalist", "leaf": "generalist"})
    brief = _brief("threads with veins", "spider-silk", "leaf")
    assert woven(team, brief, _knowledge()).engineer_model == "generalist"


def test_experts_of_one_model_count_together():
    team = _team({"spider-silk": "generalist", "leaf": "generalist", "collagen": "base"})
    brief = _brief("threads, veins and banded ropes", "spider-silk", "leaf", "collagen")
    shares = _shares(woven(team, brief, _knowledge()).engineer_model)
    assert set(shares) == {"base", "generalist"}


def test_the_concept_chooses_the_experts_where_the_brief_names_none():
    team = _team({"spider-silk": "generalist"})
    woven_team = woven(team, _brief("spider threads spread a load over radii"), _knowledge())
    assert "generalist" in woven_team.engineer_model


def test_a_team_without_a_weaver_stays_as_it_is():
    team = load_team().model_copy(update={"engineer_model": "base"})
    assert woven(team, _brief("a web", "leaf"), _knowledge()) is team
