"""An expert's turn: what is kept of a model's sentences, and what is quoted instead."""

from __future__ import annotations

import pytest

from agents.conversation import conversation_of
from agents.expert import NO_FACTS
from agents.generation import Generation
from agents.state import AdviceStep

QUOTED = '"Spiral threads of a web cross radial threads." [silk-0001]'


def _saying(sentence, otherwise):
    """Return answers in which every principle is the same sentence."""

    def answer(request: Generation) -> str:
        principle = "What should the design take" in request.messages[-1].content
        return sentence if principle else otherwise(request)

    return answer


@pytest.mark.parametrize(
    ("sentence", "why"),
    [
        ("Let spiral threads of the web cross radial threads every 9 mm.", "9 mm is in no fact"),
        ("Let spiral threads of the web never cross the radial threads.", "denies the fact"),
        ("My favourite football club plays tonight at home.", "strays from the fact"),
    ],
)
async def test_what_its_fact_does_not_hold_is_asked_again_and_then_quoted(
    table, table_with, sentence, why
):
    spoken = []
    bad = table_with(_saying(sentence, table.engine._answer))
    state = await bad.resume(bad.begin(rounds=1), on_event=spoken.append)
    turn = conversation_of(state).turns[0]
    assert QUOTED in turn.text
    assert sentence not in turn.text
    assert turn.unsupported == ()
    asked = [r for r in bad.engine.requests if "What should the design" in r.messages[-1].content]
    assert len(asked) == 2 * 3  # three facts, two tries each
    assert any(f"(tried again: {why}" in getattr(event, "text", "") for event in spoken)


async def test_every_sentence_of_a_turn_is_checked_and_the_facts_are_named(table):
    talk = conversation_of(await table.resume(table.begin(rounds=1)))
    checks = talk.turns[0].checks
    assert [check.verdict for check in checks] == ["supported"] * 3
    assert [check.facts for check in checks[:2]] == [("silk-0001",), ("silk-0002",)]
    assert all(check.verdict in ("supported", "plausible") for check in talk.turns[1].checks)
    assert talk.turns[-1].role == "critic"
    assert len(talk.turns[-1].checks) == 1  # the advice of its model, not the arithmetic


async def test_advice_with_a_number_the_critic_was_not_given_is_left_out_and_said(
    table, table_with
):
    def boasting(request: Generation) -> str:
        text = table.engine._answer(request)
        is_advice = request.prefix.endswith("Advice:")
        return f"{text} In the peel it is 60 dB/cm against 25 dB/cm." if is_advice else text

    boast = table_with(boasting)
    talk = conversation_of(await boast.resume(boast.begin(rounds=1)))
    critic = talk.turns[-1]
    assert "60 dB/cm" not in talk.critiques[0].advice
    assert "(Left out of the advice what states" in critic.text
    assert critic.unsupported == ()
    assert len(critic.checks) == 1


async def test_an_expert_without_facts_says_so_and_asks_no_model(table):
    state = table.begin(rounds=1)
    brief = state.brief.model_copy(update={"domains": ("spider-silk", "collagen")})
    whole = await table.resume(state.model_copy(update={"brief": brief}))
    silent = next(s for s in whole.steps if isinstance(s, AdviceStep) and s.expert == 1).turn
    assert (silent.text, silent.cited, silent.n_tokens) == (NO_FACTS, (), 0)
    assert whole.outcome == "finished"
    notes = next(r for r in table.engine.requests if r.prefix == "Title:").messages[-1].content
    assert "collagen" not in notes


async def test_a_conversation_in_which_nobody_has_facts_still_ends_in_a_prompt(table):
    state = table.begin(rounds=1)
    brief = state.brief.model_copy(update={"domains": ("collagen",)})
    whole = await table.resume(state.model_copy(update={"brief": brief}))
    assert whole.outcome == "finished"
    assert state.brief.concept in conversation_of(whole).prompts[0].prompt
