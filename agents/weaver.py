"""Which model writes about a concept: its experts' models, merged by how much it asks of each.

A team names it `weaver` as its engineer's model. A concept that is two parts silk and one part
leaf is then written about by a model that is.
"""

from __future__ import annotations

from collections import defaultdict

from agents.knowledge import Knowledge
from agents.roles import Team
from merging.steered import weights_of
from orbweave.records import Brief

__all__ = ["WEAVER", "woven"]

WEAVER = "weaver"
_TEMPERATURE = 0.1
"""Difference of cosines that weighs e times as much. Chosen by us."""


def woven(team: Team, brief: Brief, knowledge: Knowledge) -> Team:
    """Return the team with a model in the weaver's place, e.g. `steered(leaf=0.35, silk=0.65)`.

    A field asks as much as its best fact fits the concept. Experts of one model count
    together; if all have the same, it is the weaver.

    Args:
        team: Returned as it is if its engineer's model is another.
        brief: Names the experts, or lets the concept choose them.
        knowledge: What the concept is compared with.

    Raises:
        UsageError: the team has no expert for a domain, or none at all.
    """
    if team.engineer_model != WEAVER:
        return team
    domains = brief.domains or knowledge.experts_for(brief.concept)
    best = {domain: knowledge.search(brief.concept, domain=domain, k=1) for domain in domains}
    scores = {str(domain): found[0].score if found else 0.0 for domain, found in best.items()}
    weights = weights_of(scores, temperature=_TEMPERATURE, floor=-1.0)
    shares: defaultdict[str, float] = defaultdict(float)
    for domain in domains:
        if domain in weights:
            shares[team.expert(domain).model] += weights[domain]
    if len(shares) == 1:
        return team.model_copy(update={"engineer_model": next(iter(shares))})
    parts = ", ".join(f"{model}={share:.2g}" for model, share in sorted(shares.items()))
    return team.model_copy(update={"engineer_model": f"steered({parts})"})
