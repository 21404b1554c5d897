"""The team's forms and the experts' facts, handed to the training that must match them."""

from __future__ import annotations

from training.items import Material

__all__ = ["team_material"]


def team_material(team: str = "default") -> Material:
    """Return what the shipped items are laid out with: a team's own words.

    The worked examples of a form are left out; a model trained on the form needs none.

    Raises:
        UsageError: there is no such team.
    """
    from agents.knowledge import read_facts
    from agents.roles import FORMS, load_team

    known = load_team(team).without_examples()
    facts = {fact.id: fact for fact in read_facts()}
    fields = {expert.domain: expert.field for expert in known.experts}
    forms = {name: getattr(known, name) for name in FORMS}
    domains = {fact.domain: fields[fact.expert] for fact in facts.values()}
    return Material(forms=forms, facts=facts, fields=domains)
