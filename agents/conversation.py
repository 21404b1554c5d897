"""A conversation as it grows: who says what next, and what is kept of it.

    facts -> experts (at once) -> engineer -> pictures and measurements -> critic
                                     ^                                       |
                                     +------------- revision ----------------+

Who speaks when is decided outside (`agents.team`); here is what each speaker does with what
lies on the table. What lies there is a `State`: every step ends by adding to it, and a session
on a saved one goes on where that stopped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from agents import critic, engineer, expert
from agents.advice import Advice, note_of, origins_of
from agents.claims import check, cited_ids, sentences, unsupported
from agents.events import (
    Critiqued,
    Event,
    FactsFound,
    Prompted,
    Rendered,
    Stopped,
    TurnEnded,
    TurnStarted,
)
from agents.events import Spoke as SpokeEvent
from agents.knowledge import Fact, Knowledge
from agents.remark import quoted
from agents.roles import Expert, Team
from agents.seeing import is_too_small, name_of
from agents.state import (
    AdviceStep,
    CritiqueStep,
    FactsStep,
    Outcome,
    PicturesStep,
    PromptStep,
    RemarkStep,
    State,
    Step,
    turn_of,
)
from agents.targets import (
    Geometry,
    Seed,
    StructureFor,
    Trial,
    distance,
    first_seed,
    geometry_of,
    next_seed,
)
from agents.voice import Voice
from orbweave.records import (
    Brief,
    Check,
    Citation,
    Corpus,
    Critique,
    ImagePrompt,
    Measurement,
    Picture,
    Scale,
    Turn,
)

__all__ = [
    "Checked",
    "Conversation",
    "Render",
    "Session",
    "StructureFor",
    "checked",
    "conversation_of",
]

Drawn = tuple[tuple[Picture, ...], tuple[Measurement, ...]]
Render = Callable[[ImagePrompt, int], Awaitable[Drawn]]
"""Draws version n of a prompt and measures the pictures."""


@dataclass(frozen=True)
class Conversation:
    """A finished conversation."""

    turns: tuple[Turn, ...]
    facts: tuple[Citation, ...]
    prompts: tuple[ImagePrompt, ...]
    """Versions, oldest first."""
    pictures: tuple[Picture, ...]
    measurements: tuple[Measurement, ...]
    critiques: tuple[Critique, ...]
    stop_reason: str
    best_version: int | None = None
    """The version that is the result; None before any critique."""
    corpora: tuple[Corpus, ...] = ()
    """Corpora of the user's own that facts were looked up in."""
    facts_note: str = ""
    """What to know of how the concept was understood when they were; empty if well."""


@dataclass
class Session:
    """A conversation under way; each method is one speaker's turn and returns its text."""

    state: State
    """As far as the conversation has come; replaced after every step, never changed."""
    structure_for: StructureFor
    render: Render
    on_event: Callable[[Event], None]
    voice_for: Callable[[str, Callable[[str], None]], Voice]
    """A voice of a model reference whose pieces go to a listener."""
    keep: Callable[[State], None] = lambda state: None
    """Is given the state after every step."""
    experts: tuple[Expert, ...] = ()
    facts: tuple[tuple[Fact, ...], ...] = ()
    """What each expert is given."""
    citations: tuple[Citation, ...] = ()
    corpora: tuple[Corpus, ...] = ()
    facts_note: str = ""
    stop_reason: str = ""
    _turns: dict[int, Turn] = field(default_factory=dict)
    _drafts: list[engineer.Draft] = field(default_factory=list)
    _prompts: list[ImagePrompt] = field(default_factory=list)
    _pictures: list[Picture] = field(default_factory=list)
    _measured: list[tuple[Measurement, ...]] = field(default_factory=list)
    _judged: list[critic.Judgement] = field(default_factory=list)
    _critiques: list[Critique] = field(default_factory=list)
    _is_over: bool = False

    def __post_init__(self) -> None:
        """Lay on the table what the state holds."""
        for step in self.state.steps:
            self._lay(step)

    @property
    def brief(self) -> Brief:
        """What was asked for."""
        return self.state.brief

    @property
    def team(self) -> Team:
        """Roles and words."""
        return self.state.team

    @property
    def rounds(self) -> int:
        """Prompt versions at most."""
        return self.state.rounds

    @property
    def silent_experts(self) -> tuple[int, ...]:
        """The experts who have not spoken."""
        spoken = {step.expert for step in self.state.steps if isinstance(step, AdviceStep)}
        return tuple(i for i in range(len(self.experts)) if i not in spoken)

    @property
    def next_seat(self) -> Literal["engineer", "studio", "critic", "end"]:
        """Whose turn it is once every expert has spoken."""
        if self.stop_reason:
            return "end"
        if len(self._prompts) == len(self._critiques):
            return "engineer"
        return "critic" if len(self._measured) == len(self._prompts) else "studio"

    def find_facts(self, knowledge: Knowledge) -> None:
        """Choose the experts and what each is given; blocks for as long as embedding takes."""
        domains, note = self.brief.domains if self.team.experts else (), ""
        if self.team.experts and not domains:
            domains = knowledge.experts_for(self.brief.concept)
            note = knowledge.note_on(self.brief.concept)
        found = [
            knowledge.search(self.brief.concept, domain=domain, k=self.team.facts_each)
            for domain in domains
        ]
        self._take(
            FactsStep(
                domains=domains,
                facts=tuple(tuple(knowledge[c.id] for c in each) for each in found),
                citations=tuple(citation for each in found for citation in each),
                corpora=knowledge.corpora,
                note=note,
            )
        )

    def announce_facts(self) -> None:
        """Tell listeners who was chosen and what each is given."""
        domains = tuple(asked.domain for asked in self.experts)
        self.on_event(FactsFound(domains, self.citations, self.facts_note))

    async def advise(self, index: int) -> str:
        """Let expert `index` speak; experts may speak at once."""
        speaker, facts = self.experts[index], self.facts[index]
        turn = self._begin(self._first + index, speaker.name, "expert", speaker.model)
        text = await expert.advise(
            turn.voice, self.team, speaker, self.state.asked, facts, self._seed(turn.index)
        )
        kept = self._end(turn, text, facts)
        self._take(AdviceStep(expert=index, turn=kept))
        return text

    async def write(self) -> str:
        """Write the prompt, or change it as the critic advised."""
        turn = self._begin(
            len(self._turns), "prompt_engineer", "engineer", self.team.engineer_model
        )
        seed = self._seed(turn.index)
        if self._drafts:
            draft = await self._revised(turn.voice, seed)
        else:
            draft = await engineer.write(
                turn.voice, self.team, self._notes(), self._advice(), self._held(), seed
            )
        seeded = await self._seeded(draft.prompt, turn.voice)
        drawn = (self._seen(seeded), self._advice(), name_of(self.brief.concept))
        if (named := engineer.with_motif(draft, *drawn)) != draft:
            draft = named
            turn.voice.remark(f"\n{draft.prompt}\n({draft.note})\n")
        if seeded.text:
            turn.voice.remark(f"\n{seeded.text}\n")
        text = f"{draft.text}\n{seeded.text}".strip()
        kept = self._end(turn, text, self._given(), claiming=draft.prompt)
        prompt = self._image_prompt(draft, turn.index, seeded)
        self._take(PromptStep(turn=kept, draft=draft, prompt=prompt))
        self.on_event(Prompted(len(self._prompts) - 1, prompt))
        return text

    async def draw(self) -> str:
        """Have the latest prompt rendered and measured."""
        version = len(self._prompts) - 1
        pictures, measurements = await self.render(self._prompts[version], version)
        self._take(PicturesStep(version=version, pictures=pictures, measurements=measurements))
        self.on_event(Rendered(version, pictures, measurements))
        return f"Version {version}: {len(pictures)} picture(s) measured."

    async def judge(self) -> str:
        """Judge the latest version and decide whether to go on."""
        version = len(self._prompts) - 1
        turn = self._begin(len(self._turns), "critic", "critic", self.team.critic_model)
        targets = self._prompts[version].targets
        measured = critic.measured_means(self._measured[version], targets)
        fields = {"concept": self.state.asked, "prompt": self._prompts[version].prompt}
        judged = await critic.judge(
            turn.voice,
            self.team,
            fields,
            targets,
            measured,
            self._seed(turn.index),
        )
        told = " ".join(critic.given(fields, targets, measured).values())
        kept = self._end(turn, judged.text, self._given(), claiming=judged.own, told=told)
        critique = Critique(
            scores=judged.scores,
            advice=judged.advice,
            wanted=targets,
            measured=measured,
            distance=distance(targets, measured, self.team.stop),
            prompt_version=version,
            turn=turn.index,
        )
        step = CritiqueStep(
            turn=kept, judgement=judged, critique=critique, stop_reason=self._decide(critique)
        )
        self._take(step)
        self.on_event(Critiqued(critique))
        return judged.text

    def finish(self) -> None:
        """Keep the end, and tell listeners that it is over."""
        self.end("finished", self.stop_reason)
        self.on_event(Stopped(self.stop_reason))

    def end(self, outcome: Outcome, why: str) -> None:
        """Keep how this run ended; a speaker who could not be stopped is not heard any more."""
        self._is_over = True
        self.state = self.state.model_copy(update={"outcome": outcome, "why": why})
        self.keep(self.state)

    def record(self) -> Conversation:
        """Return what was said and made so far."""
        return Conversation(
            turns=tuple(self._turns[i] for i in sorted(self._turns)),
            facts=self.citations,
            prompts=tuple(self._prompts),
            pictures=tuple(self._pictures),
            measurements=tuple(m for each in self._measured for m in each),
            critiques=tuple(self._critiques),
            stop_reason=self.stop_reason,
            best_version=self._best if self._critiques else None,
            corpora=self.corpora,
            facts_note=self.facts_note,
        )

    async def choose_geometry_again(self) -> None:
        """Choose the geometry of the latest prompt for its words, which a person changed."""
        steps = self.state.steps
        place = max((n for n, s in enumerate(steps) if isinstance(s, PromptStep)), default=-1)
        last = steps[place] if place >= 0 else None
        if isinstance(last, PromptStep) and last.is_stale and self.next_seat == "studio":
            self._prompts.pop()
            self._drafts.pop()
            seeded = await self._seeded(last.draft.prompt)
            prompt = self._image_prompt(last.draft, last.turn.index, seeded)
            fresh = last.model_copy(update={"prompt": prompt, "is_stale": False})
            self._lay(fresh)
            steps = (*steps[:place], fresh, *steps[place + 1 :])  # remarks may follow it
            self.state = self.state.model_copy(update={"steps": steps})
            self.keep(self.state)
            self.on_event(Prompted(len(self._prompts) - 1, prompt))

    def _image_prompt(self, draft: engineer.Draft, turn: int, seeded: Seed) -> ImagePrompt:
        """Return what is rendered: the draft's words, a geometry for them, and the targets."""
        return ImagePrompt(
            title=draft.title,
            prompt=draft.prompt,
            negative_prompt=draft.avoid,
            structure=seeded.structure,
            strength=seeded.strength,
            targets=seeded.targets,
            revises=self._base if self._critiques else None,
            changes=seeded.changes,
            origins=origins_of(
                draft.prompt, {advice.turn: advice.words for advice in self._advice()}
            ),
            turn=turn,
        )

    async def _seeded(self, words: str, voice: Voice | None = None) -> Seed:
        """Return the structure seed and the targets of a prompt; they grow out of the best ones.

        Args:
            words: The prompt.
            voice: Whose model chooses among the nearest motifs; None takes the nearest.
        """
        geometry = geometry_of(self.structure_for)
        if not self._critiques:
            family = await self._family(geometry, words, voice) if voice else None
            asked = (self.brief.seed, self.brief.targets, family)
            return await asyncio.to_thread(first_seed, geometry, words, *asked)
        trials = [
            Trial(self._prompts[n].structure, self._prompts[n].strength, critique.measured)
            for n, critique in enumerate(self._critiques)
        ]
        base, measured = self._prompts[self._base], trials.pop(self._base).measured
        last = Seed(base.structure, base.targets, base.strength)
        return await asyncio.to_thread(
            next_seed, geometry, words, last, measured, self.team.stop, trials
        )

    def _seen(self, seeded: Seed) -> dict[str, str]:
        """Return what each motif of a seed looks like, by family; empty if nobody can say."""
        geometry = geometry_of(self.structure_for)
        motifs = seeded.structure.motifs if seeded.structure else ()
        return {m.family: look for m in motifs if (look := geometry.look(m.family))}

    async def _family(self, geometry: Geometry, words: str, voice: Voice) -> str | None:
        near = await asyncio.to_thread(geometry.nearest, words, self.brief.targets)
        return await engineer.choose_family(voice, self.team, self._notes(), near)

    @property
    def _best(self) -> int:
        """The best judged version, of those that know a person's latest remark if there are."""
        history = [self._standing(critique) for critique in self._critiques]
        return critic.best_of(history, self.team.stop, self._answering)

    @property
    def _base(self) -> int:
        """The version the next one is made from: the best, or the one a person speaks to."""
        latest = len(self._critiques) - 1
        is_edited = self._turns[self._critiques[latest].turn].model == "human"
        return latest if is_edited or self._feedback() else self._best

    @property
    def _answering(self) -> int:
        """The first version that was written after a person's latest remark."""
        kinds = [type(step) for step in self.state.steps]
        last = max((n for n, kind in enumerate(kinds) if kind is RemarkStep), default=0)
        return kinds[:last].count(PromptStep)

    def _standing(self, critique: Critique) -> critic.Standing:
        mean = sum(critique.scores.values()) / len(critique.scores)
        missed = critic.misses(critique.wanted, critique.measured, self.team.stop)
        return critic.Standing(mean, critique.distance, tuple(missed))

    def _decide(self, latest: Critique) -> str:
        history = [self._standing(critique) for critique in [*self._critiques, latest]]
        if self._answering >= len(history):
            return ""  # a person spoke since the latest version: that is answered first
        rounds = min(self.rounds, self.team.most_rounds or self.rounds)
        return critic.stop_reason(history, self.team.stop, rounds, self._answering)

    async def _revised(self, voice: Voice, seed: int) -> engineer.Draft:
        last, judged = self._drafts[self._base], self._judged[self._base]
        # What an earlier miss asked for is not asked for any more, and may be the very opposite.
        asked = {said for each in self._judged for said in sentences(each.changes)}
        kept = [said for said in sentences(last.prompt) if said not in asked]
        last = last._replace(prompt=" ".join(kept) or last.prompt)
        fields = {
            "concept": self.brief.concept,
            "scale": self._scale,
            "prompt": last.prompt,
            "feedback": self._feedback() or judged.advice,
        }
        given = (judged.changes, self._advice(), self._held(), seed, self._suits)
        return await engineer.revise(voice, self.team, fields, last, *given)

    def _suits(self, words: str) -> bool:
        """Whether words ask for colours and light in which a missed target may be met.

        A correction is measured against the last picture, so it is drawn in the same ones; for in
        others, other shades count as solid. Faint pictures need others. Where nothing was missed
        or a person speaks, any will do.
        """
        structure = self._prompts[self._base].structure
        missed = self._standing(self._critiques[self._base]).missed
        if structure is None or self._feedback() or not missed:
            return True
        dressed = geometry_of(self.structure_for).dress(structure, words)
        if "solid_fraction" in missed and critic.is_faint(self._measured[self._base]):
            return dressed.look != structure.look
        return dressed == structure

    @property
    def _scale(self) -> Scale:
        return self.team.scale or self.brief.scale

    def _notes(self) -> dict[str, str]:
        notes = [
            f"- {asked.domain}: {note_of(self._turns[i].text)}"
            for i, asked in enumerate(self.experts, start=self._first)
            if self._turns[i].text != expert.NO_FACTS
        ]
        notes += [f"- person: {quoted(text)}" for text in self.state.remarks()]
        return {
            "concept": self.brief.concept,
            "scale": self._scale,
            "notes": "\n".join(notes),
        }

    def _advice(self) -> tuple[Advice, ...]:
        """What each expert that has spoken brought, with all that its cited facts say."""
        found = []
        for index, given in enumerate(self.facts, start=self._first):
            turn = self._turns.get(index)
            if turn is not None and turn.text != expert.NO_FACTS:
                cited = [fact for fact in given if fact.id in turn.cited]
                looks = self._shown(fact.visual for fact in cited if fact.visual)
                stated = self._shown(fact.statement for fact in cited)
                held = tuple(fact.held for fact in cited)
                found.append(Advice(index, turn.text, looks, stated, held))
        return tuple(found)

    def _shown(self, said: Iterable[str]) -> tuple[str, ...]:
        """Return what is not too small for a picture of this scale, the shortest first."""
        return tuple(sorted((s for s in said if not is_too_small(s, self._scale)), key=len))

    def _given(self) -> list[Fact]:
        return [fact for each in self.facts for fact in each]

    def _held(self) -> list[str]:
        """What holds the numbers of a prompt: facts, what was asked, what a critic measured."""
        measured = (judged.changes for judged in self._judged)
        return [*(fact.held for fact in self._given()), self.state.asked, *measured]

    def _seed(self, index: int) -> int:
        """Return the seed of a turn; remarks do not count, so that they change no other seed."""
        seeds = (r.seed for r in self.state.recasts if r.turn == index and r.seed is not None)
        remarks = sum(turn.role == "human" and i < index for i, turn in self._turns.items())
        return expert.seed_for(next(seeds, self.brief.seed), index - remarks)

    @property
    def _first(self) -> int:
        """Index of the first expert's turn: only remarks come before."""
        advised = (step for step in self.state.steps if isinstance(step, AdviceStep))
        free = next(i for i in range(len(self._turns) + 1) if i not in self._turns)
        return next((step.turn.index - step.expert for step in advised), free)

    def _feedback(self) -> str:
        """Return what people said since the latest judged prompt; empty if nothing."""
        written = [n for n, step in enumerate(self.state.steps) if isinstance(step, PromptStep)]
        n_judged = len(self._critiques)
        said = self.state.remarks(since=written[n_judged - 1] + 1) if n_judged else ()
        return " ".join(["A person asks:", *map(quoted, said)]) if said else ""

    def _take(self, step: Step) -> None:
        """Add a finished step to the state and lay it on the table."""
        if self._is_over:
            return
        self.state = self.state.model_copy(
            update={"steps": (*self.state.steps, step), "outcome": "under way", "why": ""}
        )
        self._lay(step)
        self.keep(self.state)

    def _lay(self, step: Step) -> None:
        """Lay on the table what a step brought."""
        turn = turn_of(step)
        if turn is not None:
            self._turns[turn.index] = turn
        self.stop_reason = step.stop_reason if isinstance(step, CritiqueStep) else ""
        if isinstance(step, FactsStep):
            self.experts = tuple(self.team.expert(domain) for domain in step.domains)
            self.facts, self.citations, self.corpora = step.facts, step.citations, step.corpora
            self.facts_note = step.note
        elif isinstance(step, PromptStep):
            self._drafts.append(step.draft)
            self._prompts.append(step.prompt)
        elif isinstance(step, PicturesStep):
            self._pictures += step.pictures
            self._measured.append(step.measurements)
        elif isinstance(step, CritiqueStep):
            self._judged.append(step.judgement)
            self._critiques.append(step.critique)

    def _begin(
        self, index: int, speaker: str, role: Literal["expert", "engineer", "critic"], model: str
    ) -> _Open:
        models = (r.model for r in self.state.recasts if r.turn == index and r.model is not None)
        model = next(models, model)
        self.on_event(TurnStarted(index, speaker, role, model))
        voice = self.voice_for(model, lambda text: self.on_event(SpokeEvent(index, text)))
        return _Open(index, speaker, role, model, voice, time.perf_counter())

    def _end(
        self,
        turn: _Open,
        text: str,
        given: Sequence[Fact],
        claiming: str | None = None,
        told: str = "",
    ) -> Turn:
        """Return a finished turn, with its citations and what the facts say to its sentences.

        Args:
            turn: Who spoke.
            text: What was said.
            given: Facts put before the speaker. An expert's numbers must be held by those it
                cites, the others' by any.
            claiming: The part of the text that is checked; None is all of it.
            told: What else holds its numbers.
        """
        asked = " ".join([self.state.asked, *(judged.changes for judged in self._judged), told])
        frame = engineer.framed(self.team, self.brief.concept)
        cited, loose, checks = checked(text, turn.role, given, asked, claiming, frame)
        kept = Turn(
            index=turn.index,
            speaker=turn.speaker,
            role=turn.role,
            model=turn.model,
            text=text,
            cited=cited,
            unsupported=loose,
            checks=checks,
            n_tokens=turn.voice.n_tokens,
            seconds=round(time.perf_counter() - turn.started_s, 3),
        )
        self.on_event(TurnEnded(kept))
        return kept


def conversation_of(state: State) -> Conversation:
    """Return what was said and made in a state."""

    def nobody(*_: object) -> Any:
        raise AssertionError("a record asks nobody")

    return Session(state, nobody, nobody, nobody, nobody).record()


class Checked(NamedTuple):
    """What the given facts say to a turn."""

    cited: tuple[str, ...]
    """Ids of given facts that it cites."""
    unsupported: tuple[str, ...]
    """Its numbers that nothing given holds."""
    checks: tuple[Check, ...]
    """Its sentences in order, without those of the frame."""


def checked(
    text: str,
    role: str,
    given: Sequence[Fact],
    asked: str,
    claiming: str | None = None,
    frame: Collection[str] = (),
) -> Checked:
    """Hold a turn against the facts its speaker was given.

    Args:
        text: What was said.
        role: An expert's words must be held by the facts it cites, each sentence's by those
            it cites itself; others' by any.
        given: Facts put before the speaker.
        asked: The concept and what people and measurements added; its numbers are given too.
        claiming: The part of the text that is checked; None is all of it.
        frame: Sentences that claim nothing, see `engineer.framed`.
    """
    cited = [fact for fact in given if fact.id in cited_ids(text)]
    claimed = text if claiming is None else claiming
    rests_on = cited if role == "expert" else given
    held = {fact.id: fact.held for fact in rests_on}
    return Checked(
        cited=tuple(fact.id for fact in cited),
        unsupported=unsupported(claimed, [*held.values(), asked]),
        checks=tuple(_check(s, held, asked) for s in sentences(claimed) if s not in frame),
    )


def _check(sentence: str, held: Mapping[str, str], asked: str) -> Check:
    named = {i: held[i] for i in cited_ids(sentence) if i in held}
    return check(sentence, named or held, asked)


@dataclass(frozen=True)
class _Open:
    """A turn that has begun."""

    index: int
    speaker: str
    role: Literal["expert", "engineer", "critic"]
    model: str
    voice: Voice
    started_s: float
