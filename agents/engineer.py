"""The prompt engineer's turn: from what the experts said to one paragraph an image model can draw.

The form of the answer is forced line by line (title, prompt, what to avoid), so that even a
small model stays in it. A paragraph that loops, strays, talks about itself or copies an
example is written again with another seed. After that the prompt is composed from what the
facts say one would see, in a view and colours chosen by the model's probabilities, and the
turn says so.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from typing import NamedTuple, cast

from agents.claims import sentences, share_held, shared_words, without_citations
from agents.expert import seed_for
from agents.faults import faults_of
from agents.roles import Form, Team
from agents.voice import Voice
from orbweave.records import PhraseOrigin, Scale

__all__ = ["AVOID", "Draft", "choose_family", "note_of", "origins_of", "revise", "write"]

AVOID = "text, labels, watermark, blur, people"
"""Negative prompt where the model gives none that is usable."""

_MIN_WORDS, _MAX_WORDS = 24, 54
"""Length of a prompt: a text encoder with the usual window of 77 tokens reads some 54 words."""
_UNCHANGED = 0.9
"""Share of a revision's words, in order, above which it is the old prompt again."""
_MIN_SHARED = 2
"""Words of content a prompt must share with its concept and notes, whoever wrote it."""


class Draft(NamedTuple):
    """What the engineer wrote."""

    title: str
    prompt: str
    avoid: str
    note: str
    """Why the frame stepped in; empty if every word is the model's."""

    @property
    def text(self) -> str:
        """The turn as read by people and models."""
        lines = [f"Title: {self.title}", f"Prompt: {self.prompt}", f"Avoid: {self.avoid}"]
        return "\n".join([*lines, f"({self.note})"] if self.note else lines)


def note_of(text: str) -> str:
    """Return what the engineer is told of an expert's turn: its first sentence and its look."""
    said = [without_citations(sentence).replace('"', "") for sentence in sentences(text)]
    return " ".join(dict.fromkeys([said[0], said[-1]])) if said else ""


async def write(
    voice: Voice,
    team: Team,
    fields: Mapping[str, str],
    visuals: Sequence[str],
    seed: int,
) -> Draft:
    """Return title, prompt and negative prompt for a concept.

    Args:
        voice: The engineer's model.
        team: Supplies the form `prompt`.
        fields: concept, scale and notes.
        visuals: What the cited facts look like, for the open fall-back.
        seed: Of this turn.

    Raises:
        EngineError: the model failed.
    """
    form = team.prompt
    title = await _line(voice, form, fields, "Title:", 16, seed_for(seed, 0))
    title = _clean_title(title) or _short(fields["concept"])
    lead = f"Title: {title}\nPrompt:"
    prompt, faults = await _paragraph(voice, form, fields, lead, seed_for(seed, 1))
    note = ""
    if not prompt:
        prompt = await _composed(voice, team, fields, visuals, seed_for(seed, 3))
        note = (
            f"Composed from what the cited facts look like: {form.tries} attempts of the model "
            f"were unusable ({'; '.join(faults)})."
        )
        voice.remark(f"\n{prompt}\n({note})\n")
    lead = f"Title: {title}\nPrompt: {prompt}\nAvoid:"
    avoid = await _line(voice, form, fields, lead, 20, seed_for(seed, 2))
    shown = [prompt, *(example.reply for example in form.examples)]
    return Draft(title, prompt, _clean_list(avoid, shown) or AVOID, note)


async def revise(
    voice: Voice, team: Team, fields: Mapping[str, str], last: Draft, changes: str, seed: int
) -> Draft:
    """Return the prompt as changed by the critic's feedback; title and the rest stay.

    What must change to meet the targets is said at the end if the model did not take it up.

    Args:
        voice: The engineer's model.
        team: Supplies the form `revision`.
        fields: concept, prompt and feedback.
        last: The draft to change.
        changes: What must change, as sentences of a prompt; empty if nothing.
        seed: Of this turn.

    Raises:
        EngineError: the model failed.
    """
    prompt, faults = await _paragraph(
        voice, team.revision, fields, "Prompt:", seed, but_not=last.prompt
    )
    added = " ".join(s for s in sentences(changes) if s not in (prompt or last.prompt))
    notes = []
    if not prompt:
        tries = team.revision.tries
        notes.append(f"Kept the last prompt: {tries} attempts were unusable ({'; '.join(faults)}).")
    if added:
        notes.append(f"Added what the measurement asks for: {added}")
    note = " ".join(notes)
    if note:
        voice.remark(f"\n({note})\n")
    return last._replace(prompt=f"{prompt or last.prompt} {added}".strip(), note=note)


async def choose_family(
    voice: Voice, team: Team, fields: Mapping[str, str], near: Mapping[str, str]
) -> str | None:
    """Return the family of motifs that the notes make most likely; None if there is no choice.

    A model that only weighs given options cannot name a motif that does not exist.

    Args:
        voice: The engineer's model.
        team: Supplies the form `prompt`.
        fields: concept, scale and notes.
        near: Families and what one sees of each, as a prompt might begin.
    """
    if len(near) < 2:
        return next(iter(near), None)
    gains = await _gains(voice, team.prompt, fields, list(near.values()))
    # Per word, for longer descriptions gain and lose more.
    per_word = [g / len(seen.split()) for g, seen in zip(gains, near.values(), strict=True)]
    return list(near)[per_word.index(max(per_word))]


def origins_of(prompt: str, said: Mapping[int, str]) -> tuple[PhraseOrigin, ...]:
    """Return which turn each clause of a prompt shares most words with.

    A clause is what stands between commas, semicolons and full stops. One that shares fewer
    than two words of content with every turn has no origin and is left out.

    Args:
        prompt: The paragraph.
        said: By index, what a turn said and what its cited facts look like.
    """
    origins = []
    for clause in re.split(r"[,;:.]\s+", prompt.strip(" .")):
        shared = [(shared_words(clause, text), -index) for index, text in said.items()]
        best = max(shared, default=(0, 0))
        if best[0] >= 2:
            origins.append(PhraseOrigin(phrase=clause.strip(), turn=-best[1]))
    return tuple(origins)


async def _paragraph(
    voice: Voice,
    form: Form,
    fields: Mapping[str, str],
    lead: str,
    seed: int,
    but_not: str = "",
) -> tuple[str, tuple[str, ...]]:
    """Return a usable paragraph and no faults, or an empty one and all faults found."""
    found: list[str] = []
    faults: list[str] = []
    for attempt in range(form.tries):
        if attempt:
            voice.remark(f"\n(written again: {'; '.join(faults)})\n")
        job = form.job(fields, seed=seed_for(seed, attempt), stop=("\n",))
        reply = await voice.say(replace(job, prefix=lead, heard=lead.rpartition("\n")[0]))
        raw = reply.text[len(lead) :]
        text = _whole_sentences(raw)
        faults = [] if text else ["no whole sentence"]
        faults += list(
            faults_of(text or raw, min_words=_MIN_WORDS, echo_of=[e.reply for e in form.examples])
        )
        if but_not and _alike(text, but_not) > _UNCHANGED:
            faults.append("hardly changed")
        told = [*fields.values(), *(e.reply for e in form.examples)]
        strays = share_held(text, told) < form.grounding
        if strays or shared_words(text, " ".join(fields.values())) < _MIN_SHARED:
            faults.append("strays from the notes")
        if not faults:
            return text, ()
        found += faults
    return "", tuple(dict.fromkeys(found))


def _alike(new: str, old: str) -> float:
    """Return the likeness of two texts in words and their order, in [0, 1]."""
    return SequenceMatcher(None, new.split(), old.split(), autojunk=False).ratio()


async def _line(
    voice: Voice, form: Form, fields: Mapping[str, str], lead: str, n_tokens: int, seed: int
) -> str:
    job = form.job(fields, seed=seed, stop=("\n",))
    heard = lead.rpartition("\n")[0]
    reply = await voice.say(replace(job, prefix=lead, heard=heard, max_new_tokens=n_tokens))
    return reply.text[len(lead) :].strip()


def _whole_sentences(text: str) -> str:
    """Return the leading whole sentences up to `_MAX_WORDS` words."""
    kept: list[str] = []
    for sentence in sentences(" ".join(text.split())):
        if sentence[-1] not in ".!?" or len(" ".join([*kept, sentence]).split()) > _MAX_WORDS:
            break
        kept.append(sentence)
    return " ".join(kept)


def _short(concept: str) -> str:
    """Return the head of a concept: what stands before its first "that", "with" or comma."""
    head = re.split(r"[,;:.]|\s(?:that|which|with|after|like|for|from|in|of)\s", concept)[0]
    return " ".join(head.split()[:8])


def _clean_title(text: str) -> str:
    title = re.split(r"[,;:.]\s", text)[0].strip(" .\"'*#")
    return title if 1 <= len(title.split()) <= 10 and not faults_of(title) else ""


def _clean_list(text: str, shown: Sequence[str]) -> str:
    """Return a list of at most eight short things that nothing shown holds; empty if it is none.

    What the prompt shows must not be avoided, and an example's list is no answer.
    """
    things = [thing.strip(" .\"'") for thing in text.split(",")]
    short = dict.fromkeys(
        thing
        for thing in things
        if 1 <= len(thing.split()) <= 3 and not any(shared_words(thing, s) for s in shown)
    )
    return ", ".join(list(short)[:8]) if len(short) >= 2 else ""


async def _composed(
    voice: Voice, team: Team, fields: Mapping[str, str], visuals: Sequence[str], seed: int
) -> str:
    """Return a prompt made of what the facts look like, within `_MAX_WORDS` words."""
    scale = cast(Scale, fields["scale"])
    view = await _chosen(voice, team.prompt, fields, team.palette.views[scale], seed_for(seed, 0))
    colours = await _chosen(voice, team.prompt, fields, team.palette.colours, seed_for(seed, 1))
    seen = [f"{visual[0].upper()}{visual[1:].rstrip('.')}." for visual in visuals]
    kept = [view]
    for sentence in seen or [f"{fields['concept'].rstrip('.')}."]:
        whole = [*kept, sentence, colours, team.palette.close]
        if len(" ".join(whole).split()) <= _MAX_WORDS:
            kept.append(sentence)
    return " ".join([*kept, colours, team.palette.close])


async def _chosen(
    voice: Voice, form: Form, fields: Mapping[str, str], options: Sequence[str], seed: int
) -> str:
    """Draw an option by how much likelier the notes make it than an empty question does."""
    gains = await _gains(voice, form, fields, options)
    weights = [math.exp(gain - max(gains)) for gain in gains]
    return random.Random(seed).choices(options, weights)[0]


async def _gains(
    voice: Voice, form: Form, fields: Mapping[str, str], options: Sequence[str]
) -> list[float]:
    """Return by how much likelier the notes make each option than an empty question does."""
    nothing = {**fields, "concept": "a design", "notes": "- none"}
    asked = await voice.weigh(form.messages(fields), options)
    prior = await voice.weigh(form.messages(nothing), options)
    return [a - p for a, p in zip(asked, prior, strict=True)]
