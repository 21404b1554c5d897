"""The prompt engineer's turn: from what the experts said to one paragraph an image model can draw.

The form of the answer is forced line by line (title, prompt, what to avoid), so that even a
small model stays in it. A paragraph that loops, strays, talks about itself or copies an
example is written again with another seed. After that the prompt is composed from what the
facts say one would see, in a view and colours chosen by the model's probabilities, and the
turn says so. So it does where it mends a usable paragraph: sentences said twice, with a number
that nothing holds or no picture shows, or that compare a thing with itself, are left out; what an
expert sees is added if nothing of it is there, and so are colours and the motif that is drawn.
A prompt that does not say the thing begins with it.
"""

from __future__ import annotations

import math
import random
import re
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from typing import NamedTuple, cast

from agents.advice import MAX_WORDS, MIN_WORDS, Advice, completed, in_turns
from agents.claims import (
    capitalised,
    is_visible,
    sentences,
    share_held,
    shared_words,
    unsupported,
)
from agents.expert import seed_for
from agents.faults import faults_of
from agents.roles import Form, Team
from agents.seeing import (
    colours_of,
    is_hollow,
    is_too_small,
    name_of,
    names_colour,
    says_thing,
    thing_of,
)
from agents.voice import Voice
from orbweave.records import Scale

__all__ = [
    "AVOID",
    "Draft",
    "choose_family",
    "framed",
    "revise",
    "with_motif",
    "write",
]

AVOID = "text, labels, watermark, blur, people"
"""Negative prompt where the model gives none that is usable."""

_LEAST_WORDS = 24
"""A shorter paragraph is written again; one shorter than `MIN_WORDS` is filled up."""
_WINDOW_WORDS = 54
"""Up to here a prompt is composed of more than one look an expert."""
_UNCHANGED = 0.9
"""Share of a revision's words, in order, above which it is the old prompt again."""
_MIN_SHARED = 2
"""Words of content a prompt must share with its concept and notes, whoever wrote it, and with
what is drawn."""


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


async def write(
    voice: Voice,
    team: Team,
    fields: Mapping[str, str],
    advice: Sequence[Advice],
    held: Sequence[str],
    seed: int,
) -> Draft:
    """Return title, prompt and negative prompt for a concept.

    Args:
        voice: The engineer's model.
        team: Supplies the form `prompt`.
        fields: concept, scale and notes.
        advice: What the experts brought; each has its part in the prompt.
        held: What may hold the numbers of the prompt.
        seed: Of this turn.

    Raises:
        EngineError: the model failed.
    """
    form = team.prompt
    title = await _line(voice, form, fields, "Title:", 16, seed_for(seed, 0))
    thing = name_of(fields["concept"])
    title = _clean_title(title) or thing_of(fields["concept"])
    lead = f"Title: {title}\nPrompt:"
    prompt, faults = await _paragraph(voice, form, fields, lead, held, seed_for(seed, 1))
    notes: list[str] = []
    if not prompt:
        prompt = await _composed(voice, team, fields, advice, seed_for(seed, 3))
        notes.append(
            f"Composed from what the cited facts look like: {_unusable(form)} "
            f"({'; '.join(faults)})."
        )
    else:
        prompt, opened = _opened(prompt, thing)
        notes += [*faults, *opened]
        colours: list[str] = []
        _, added = completed(prompt, advice, (), thing)
        said = f"{prompt} {' '.join(added)}"
        is_short = len(said.split()) < MIN_WORDS
        if is_short or not names_colour(said):
            palette = await _palette(voice, team, fields, said, seed_for(seed, 3))
            colours = palette if is_short else palette[1:]
        prompt, added = completed(prompt, advice, colours, thing)
        added += colours
        prompt = " ".join([prompt, *added])
        notes += [f"Added what was missing: {' '.join(added)}"] if added else []
    if note := " ".join(notes):
        voice.remark(f"\n{prompt}\n({note})\n")
    lead = f"Title: {title}\nPrompt: {prompt}\nAvoid:"
    avoid = await _line(voice, form, fields, lead, 20, seed_for(seed, 2))
    shown = [prompt, *(example.reply for example in form.examples)]
    return Draft(title, prompt, _clean_list(avoid, shown) or AVOID, note)


async def revise(
    voice: Voice,
    team: Team,
    fields: Mapping[str, str],
    last: Draft,
    changes: str,
    advice: Sequence[Advice],
    held: Sequence[str],
    seed: int,
    suits: Callable[[str], bool] = lambda words: True,
) -> Draft:
    """Return the prompt as changed by the critic's feedback; title and the rest stay.

    What must change to meet the targets is said at the end if the model did not take it up; the
    thing is said at the beginning.

    Args:
        voice: The engineer's model.
        team: Supplies the form `revision`.
        fields: concept, scale, prompt and feedback.
        last: The draft to change.
        changes: What must change, as sentences of a prompt; empty if nothing.
        advice: See `write`.
        held: See `write`.
        seed: Of this turn.
        suits: Whether words ask for colours that may be drawn, see `Session`. If the last
            prompt's do not and the model finds none, others of the palette take their place.

    Raises:
        EngineError: the model failed.
    """
    prompt, faults = await _paragraph(
        voice, team.revision, fields, "Prompt:", held, seed, last.prompt, suits
    )
    notes: list[str] = []
    if prompt:
        notes += faults
    else:
        notes.append(f"Kept the last prompt: {_unusable(team.revision)} ({'; '.join(faults)}).")
    if not prompt and not suits(last.prompt):
        others = team.palette.colours[cast(Scale, fields["scale"])]
        recoloured = {_recoloured(last.prompt, others, to): to for to in others}
        if options := [words for words in recoloured if suits(words)]:
            colours = [recoloured[words] for words in options]
            chosen = await _chosen(voice, team.revision, fields, colours, seed_for(seed, 3))
            prompt = options[colours.index(chosen)]
            notes.append("Recoloured it: solid and void were too near in brightness.")
    thing = name_of(fields["concept"])
    prompt, opened = _opened(prompt or last.prompt, thing)
    notes += opened
    wanted = [sentence for sentence in sentences(changes) if sentence not in prompt]
    if not names_colour(prompt):
        wanted += [s for s in sentences(last.prompt) if names_colour(s)][-1:]
    prompt, missing = completed(prompt, advice, wanted, thing)
    if missing:
        notes.append(f"Added what was missing: {' '.join(missing)}")
    if wanted:
        notes.append(f"Added what the measurement asks for: {' '.join(wanted)}")
    note = " ".join(notes)
    if note:
        voice.remark(f"\n({note})\n")
    return last._replace(prompt=" ".join([prompt, *missing, *wanted]), note=note)


def _recoloured(prompt: str, palette: Collection[str], colours: str) -> str:
    """Return a prompt whose sentences on colours of the palette say others."""
    return " ".join(dict.fromkeys(colours if s in palette else s for s in sentences(prompt)))


def framed(team: Team, concept: str) -> frozenset[str]:
    """Return the sentences of a prompt that claim nothing: the palette's and the concept's own."""
    names = {_sentence(own(concept)) for own in (name_of, thing_of, colours_of)}
    return team.palette.sentences | names


def with_motif(
    draft: Draft, seen: Mapping[str, str], advice: Sequence[Advice], thing: str = ""
) -> Draft:
    """Return the draft with what one sees of the first motif, if it says nothing of any.

    Args:
        draft: What was written.
        seen: Families of motifs that are drawn and what each looks like.
        advice: See `write`.
        thing: What is designed, see `completed`.
    """
    said = [f"{family.replace('_', ' ')} {look}" for family, look in seen.items()]
    if not said or any(shared_words(draft.prompt, words) >= _MIN_SHARED for words in said):
        return draft
    look = f"{capitalised(next(iter(seen.values())))}."
    kept, missing = completed(draft.prompt, advice, [look], thing)
    note = f"{draft.note} Added what is drawn: {look}".strip()
    return draft._replace(prompt=" ".join([kept, *missing, look]), note=note)


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


async def _paragraph(
    voice: Voice,
    form: Form,
    fields: Mapping[str, str],
    lead: str,
    held: Sequence[str],
    seed: int,
    but_not: str = "",
    suits: Callable[[str], bool] = lambda words: True,
) -> tuple[str, tuple[str, ...]]:
    """Return a usable paragraph and what was mended in it, or none and all faults found."""
    found: list[str] = []
    faults: list[str] = []
    for attempt in range(form.tries):
        if attempt:
            voice.remark(f"\n(written again: {'; '.join(faults)})\n")
        job = form.job(fields, seed=seed_for(seed, attempt), stop=("\n",))
        reply = await voice.say(replace(job, prefix=lead, heard=lead.rpartition("\n")[0]))
        raw = reply.text[len(lead) :]
        text = _whole_sentences(capitalised(raw.strip()))
        faults = [] if text else ["no whole sentence"]
        loose = unsupported(text, held)
        scale = cast(Scale, fields["scale"])
        hollow = [s for s in sentences(text) if is_hollow(s)]
        unseen = [s for s in sentences(text) if not is_visible(s) or is_too_small(s, scale)]
        bad = {*hollow, *unseen}
        text = " ".join(s for s in sentences(text) if s not in bad and not unsupported(s, held))
        redyed = "" if suits(text) else _in_colours_of(but_not, text)
        if redyed and suits(redyed):
            text = redyed
        faults += list(
            faults_of(text or raw, min_words=_LEAST_WORDS, echo_of=[e.reply for e in form.examples])
        )
        if but_not and _alike(text, but_not) > _UNCHANGED:
            faults.append("hardly changed")
        if not suits(text):
            faults.append("colours that do not suit the measurement")
        told = [*fields.values(), *(e.reply for e in form.examples)]
        strays = share_held(text, told) < form.grounding
        if strays or shared_words(text, " ".join(fields.values())) < _MIN_SHARED:
            faults.append("strays from the notes")
        if not faults:
            left_out = [f"Left out what states {', '.join(loose)}, which is in no fact."]
            blind = [f"Left out what no picture shows: {' '.join(unseen)}"]
            empty = [f"Left out what compares a thing with itself: {' '.join(hollow)}"]
            dyed = ["Kept the colours that were measured."]
            notes = (
                left_out * bool(loose),
                blind * bool(unseen),
                empty * bool(hollow),
                dyed * bool(redyed),
            )
            return text, tuple(note for each in notes for note in each)
        found += [*faults, *(f"{number} is in no fact" for number in loose)]
    return "", tuple(dict.fromkeys(found))


def _unusable(form: Form) -> str:
    return "1 attempt was unusable" if form.tries == 1 else f"{form.tries} attempts were unusable"


def _in_colours_of(old: str, new: str) -> str:
    """Return a prompt with the sentences on colours of an older one in place of its own.

    If the older one begins with such a sentence, so does what is returned.
    """
    plain = [s for s in sentences(new) if not names_colour(s)]
    dyed = [s for s in sentences(old) if names_colour(s)]
    n_first = int(bool(dyed) and sentences(old)[0] == dyed[0])
    return " ".join([*dyed[:n_first], *plain, *dyed[n_first:]])


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
    """Return the leading whole sentences up to `MAX_WORDS` words, each once."""
    kept: dict[str, str] = {}
    for sentence in sentences(" ".join(text.split())):
        whole = [*kept.values(), sentence]
        if sentence[-1] not in ".!?" or len(" ".join(whole).split()) > MAX_WORDS:
            break
        kept.setdefault(sentence.lower(), sentence)
    return " ".join(kept.values())


def _opened(prompt: str, thing: str) -> tuple[str, tuple[str, ...]]:
    """Return a prompt that says the thing, by itself or by its first sentence, and what was done.

    The sentence stays in front: where a revision has moved it, it is moved back. One with a
    number that no picture shows is not said.
    """
    opening = _sentence(thing)
    rest = [sentence for sentence in sentences(prompt) if sentence != opening]
    has_opening = len(rest) < len(sentences(prompt))
    if not has_opening and (says_thing(prompt, thing) or not is_visible(opening)):
        return prompt, ()
    note = f"Began with the thing itself: {opening}"
    return " ".join([opening, *rest]), (note,) * (not has_opening)


def _sentence(words: str) -> str:
    return f"{capitalised(words).rstrip('.!? ')}."


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
    voice: Voice, team: Team, fields: Mapping[str, str], advice: Sequence[Advice], seed: int
) -> str:
    """Return a prompt of what the facts look like: of each expert, more if there is room.

    It begins with the thing itself: the concept, or its head if that is long.
    """
    thing = name_of(fields["concept"])
    view, *colours = await _palette(voice, team, fields, thing, seed)
    looks = dict.fromkeys(in_turns(advice))
    lead = team.palette.leads.get(cast(Scale, fields["scale"]))
    kept = [_sentence(thing), view, *filter(None, [lead])]
    for look in looks:
        n_words = len(" ".join([*kept, look, *colours, team.palette.close]).split())
        is_first = look in [each.looks[0] for each in advice if each.looks]
        if n_words <= (MAX_WORDS if is_first else _WINDOW_WORDS):
            kept.append(look)
    composed = " ".join([*kept, *colours, team.palette.close])
    composed, missing = completed(composed, advice, (), thing)
    return " ".join([composed, *missing])


async def _palette(
    voice: Voice, team: Team, fields: Mapping[str, str], said: str, seed: int
) -> list[str]:
    """Return a view and colours that suit the notes.

    Where the concept names colours they are its own, or none if they are said already.
    """
    scale = cast(Scale, fields["scale"])
    views, colours = team.palette.views[scale], team.palette.colours[scale]
    view = await _chosen(voice, team.prompt, fields, views, seed_for(seed, 0))
    if own := colours_of(fields["concept"]):
        return [view] if own.lower() in said.lower() else [view, _sentence(own)]
    return [view, await _chosen(voice, team.prompt, fields, colours, seed_for(seed, 1))]


async def _chosen(
    voice: Voice, form: Form, fields: Mapping[str, str], options: Sequence[str], seed: int
) -> str:
    """Draw an option by how much likelier the notes make it than an empty question does.

    Gains are taken by their spread: small models differ by many nats over sentences that suit
    alike, and would say the same of nearly every concept.
    """
    gains = await _gains(voice, form, fields, options)
    spread = statistics.pstdev(gains) or 1.0
    weights = [math.exp((gain - max(gains)) / spread) for gain in gains]
    return random.Random(seed).choices(options, weights)[0]


async def _gains(
    voice: Voice, form: Form, fields: Mapping[str, str], options: Sequence[str]
) -> list[float]:
    """Return by how much likelier the notes make each option than an empty question does."""
    nothing = {**fields, "concept": "a design", "notes": "- none"}
    asked = await voice.weigh(form.messages(fields), options)
    prior = await voice.weigh(form.messages(nothing), options)
    return [a - p for a, p in zip(asked, prior, strict=True)]
