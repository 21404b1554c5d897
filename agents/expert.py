"""An expert's turn: one sentence on each fact it was given, then what it would look like.

Small jobs, checked one by one, make citations true by construction: a sentence is written
from one fact and carries the id of that fact. If the model strays from the fact twice, denies
it or states numbers of its own, the fact itself is quoted, in quotation marks, in place of a
sentence nobody could vouch for. An expert for whom no fact was found says so and asks no model.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

from agents.claims import claims, denies, is_visible, share_held, shared_words, unsupported
from agents.faults import faults_of
from agents.knowledge import Fact
from agents.roles import Expert, Form, Team
from agents.voice import Job, Voice

__all__ = ["NO_FACTS", "advise", "seed_for"]

NO_FACTS = "No fact was found that I could speak from, so I say nothing."
"""The turn of an expert that was given no facts."""
_MIN_SHARED = 2
"""Words of content a sentence must share with its fact, if they share no number."""
_SENTENCE_STOPS = (". ", ".\n", "\n")


async def advise(
    voice: Voice, team: Team, expert: Expert, concept: str, facts: Sequence[Fact], seed: int
) -> str:
    """Return the expert's text: a cited sentence per fact, then a cited look; or `NO_FACTS`.

    Args:
        voice: The model this expert speaks with.
        team: Supplies the forms `principle` and `look`.
        expert: Who speaks.
        concept: What is to be designed.
        facts: The only ones put before the model; none if none was found.
        seed: Of this turn; each sentence derives its own.

    Raises:
        EngineError: the model failed.
    """
    if not facts:
        voice.remark(NO_FACTS)
        return NO_FACTS
    fields = {"concept": concept, "field": expert.field}
    parts = []
    for number, fact in enumerate(facts):
        asked = {**fields, "facts": f"- {fact.shown}"}
        job_seed = seed_for(seed, number)
        sentence = await _sentence(voice, team.principle, asked, (fact,), team.grounding, job_seed)
        parts.append(_cite(voice, sentence or f'"{fact.statement}"', (fact,), sentence is None))
    shown = [fact for fact in facts if is_visible(fact.statement)] or facts
    seen = tuple(fact for fact in facts if fact.visual)[:2] or tuple(shown[:1])
    asked = {**fields, "visuals": "\n".join(f"- {fact.visual or fact.statement}" for fact in seen)}
    look = await _sentence(
        voice, team.look, asked, seen, team.grounding, seed_for(seed, len(facts))
    )
    plain = f'In nature one sees: "{seen[0].visual or seen[0].statement}"'
    held = tuple(f for f in seen if _rests_on(look, f)) if look else seen[:1]
    parts.append(_cite(voice, look or plain, held, look is None))
    return " ".join(parts)


def seed_for(*numbers: int) -> int:
    """Return a seed in [0, 2**32) that depends on every number and their order."""
    return zlib.crc32(",".join(map(str, numbers)).encode())


async def _sentence(
    voice: Voice,
    form: Form,
    fields: dict[str, str],
    facts: Sequence[Fact],
    grounding: float,
    seed: int,
) -> str | None:
    """Return one usable sentence, or None if no attempt gave one."""
    for attempt in range(form.tries):
        job = replace(form.job(fields, seed=seed_for(seed, attempt)), stop=_SENTENCE_STOPS)
        sentence = await _said(voice, job)
        echoes = [*(example.reply for example in form.examples), fields["concept"]]
        told = [*(fact.held for fact in facts), fields["concept"]]
        faults = list(faults_of(sentence, min_words=6, max_words=60, echo_of=echoes))
        strays = share_held(sentence, told) < grounding
        if strays or not any(_rests_on(sentence, fact) for fact in facts):
            faults.append("strays from the fact")
        if any(denies(sentence, fact.held) for fact in facts):
            faults.append("denies the fact")
        faults += [f"{number} is in no fact" for number in unsupported(sentence, told)]
        if not faults:
            return sentence
        voice.remark(f" (tried again: {'; '.join(faults)}) ")
    return None


async def _said(voice: Voice, job: Job) -> str:
    """Return the reply as one sentence; one cut off by the token bound is unusable, so empty."""
    reply = await voice.say(job)
    text = " ".join(reply.text.split()).rstrip(".!? ")
    return f"{text}." if text and reply.finish == "stop" else ""


def _rests_on(sentence: str, fact: Fact) -> bool:
    """Whether a sentence takes up its fact: by a number of it, or by words of content."""
    numbers = claims(sentence)
    shares_number = bool(numbers) and len(unsupported(sentence, [fact.held])) < len(numbers)
    return shares_number or shared_words(sentence, fact.held) >= _MIN_SHARED


def _cite(voice: Voice, text: str, facts: Sequence[Fact], ours: bool) -> str:
    """Return the text with its ids behind it, and let listeners hear what the model did not say."""
    ids = f"[{', '.join(fact.id for fact in facts)}]"
    voice.remark(f" {text} {ids} " if ours else f" {ids} ")
    return f"{text} {ids}"
