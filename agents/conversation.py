"""A conversation as it grows: who says what next, and what is kept of it.

    facts -> experts (at once) -> engineer -> pictures and measurements -> critic
                                     ^                                       |
                                     +------------- revision ----------------+

Who speaks when is decided outside (`agents.team`); here is what each speaker does with what
lies on the table.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from agents import critic, engineer, expert
from agents.claims import cited_ids, unsupported
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
from agents.roles import Expert, Team
from agents.voice import Voice
from orbweave.records import (
    Brief,
    Citation,
    Critique,
    ImagePrompt,
    Measurement,
    Picture,
    Structure,
    Turn,
)

__all__ = ["Conversation", "Render", "Session", "StructureFor"]

Drawn = tuple[tuple[Picture, ...], tuple[Measurement, ...]]
Render = Callable[[ImagePrompt, int], Awaitable[Drawn]]
"""Draws version n of a prompt and measures the pictures."""
StructureFor = Callable[[str, int], Structure | None]
"""The geometry a prompt's picture starts from, by the prompt's text and a seed."""


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


@dataclass
class Session:
    """A conversation under way; each method is one speaker's turn and returns its text."""

    brief: Brief
    team: Team
    structure_for: StructureFor
    render: Render
    rounds: int
    on_event: Callable[[Event], None]
    voice_for: Callable[[str, Callable[[str], None]], Voice]
    """A voice of a model reference whose pieces go to a listener."""
    experts: tuple[Expert, ...] = ()
    facts: tuple[tuple[Fact, ...], ...] = ()
    """What each expert is given."""
    citations: tuple[Citation, ...] = ()
    stop_reason: str = ""
    _turns: dict[int, Turn] = field(default_factory=dict)
    _drafts: list[engineer.Draft] = field(default_factory=list)
    _prompts: list[ImagePrompt] = field(default_factory=list)
    _pictures: list[Picture] = field(default_factory=list)
    _measured: list[tuple[Measurement, ...]] = field(default_factory=list)
    _judged: list[critic.Judgement] = field(default_factory=list)
    _critiques: list[Critique] = field(default_factory=list)

    def find_facts(self, knowledge: Knowledge) -> None:
        """Choose the experts and what each is given; blocks for as long as embedding takes."""
        domains = self.brief.domains or knowledge.experts_for(self.brief.concept)
        found = [
            knowledge.search(self.brief.concept, domain=domain, k=self.team.facts_each)
            for domain in domains
        ]
        self.experts = tuple(self.team.expert(domain) for domain in domains)
        self.facts = tuple(tuple(knowledge[c.id] for c in each) for each in found)
        self.citations = tuple(citation for each in found for citation in each)

    def announce_facts(self) -> None:
        """Tell listeners who was chosen and what each is given."""
        domains = tuple(asked.domain for asked in self.experts)
        self.on_event(FactsFound(domains, self.citations))

    async def advise(self, index: int) -> str:
        """Let expert `index` speak; experts may speak at once."""
        speaker, facts = self.experts[index], self.facts[index]
        turn = self._begin(index, speaker.name, "expert", speaker.model)
        text = await expert.advise(
            turn.voice, self.team, speaker, self.brief.concept, facts, self._seed(index)
        )
        return self._end(turn, text, facts)

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
                turn.voice, self.team, self._notes(), self._visuals(), seed
            )
        self._drafts.append(draft)
        text = self._end(turn, draft.text, self._given(), claiming=draft.prompt)
        structure = await asyncio.to_thread(self.structure_for, draft.prompt, self.brief.seed)
        prompt = ImagePrompt(
            title=draft.title,
            prompt=draft.prompt,
            negative_prompt=draft.avoid,
            structure=structure,
            targets=self.brief.targets,
            origins=engineer.origins_of(draft.prompt, self._said()),
            turn=turn.index,
        )
        self._prompts.append(prompt)
        self.on_event(Prompted(len(self._prompts) - 1, prompt))
        return text

    async def draw(self) -> str:
        """Have the latest prompt rendered and measured."""
        version = len(self._prompts) - 1
        pictures, measurements = await self.render(self._prompts[version], version)
        self._pictures += pictures
        self._measured.append(measurements)
        self.on_event(Rendered(version, pictures, measurements))
        return f"Version {version}: {len(pictures)} picture(s) measured."

    async def judge(self) -> str:
        """Judge the latest version and decide whether to go on."""
        version = len(self._prompts) - 1
        turn = self._begin(len(self._turns), "critic", "critic", self.team.critic_model)
        measured = critic.measured_means(self._measured[version])
        judged = await critic.judge(
            turn.voice,
            self.team,
            {"concept": self.brief.concept, "prompt": self._prompts[version].prompt},
            self.brief.targets,
            measured,
            self._seed(turn.index),
        )
        text = self._end(turn, judged.text, (), claiming="")
        critique = Critique(
            scores=judged.scores,
            advice=judged.advice,
            wanted=self.brief.targets,
            measured=measured,
            prompt_version=version,
            turn=turn.index,
        )
        self._judged.append(judged)
        self._critiques.append(critique)
        self.on_event(Critiqued(critique))
        self._decide()
        return text

    def finish(self) -> Conversation:
        """Return what was said and made, and tell listeners that it is over."""
        self.on_event(Stopped(self.stop_reason))
        return Conversation(
            turns=tuple(self._turns[i] for i in sorted(self._turns)),
            facts=self.citations,
            prompts=tuple(self._prompts),
            pictures=tuple(self._pictures),
            measurements=tuple(m for each in self._measured for m in each),
            critiques=tuple(self._critiques),
            stop_reason=self.stop_reason,
        )

    def _decide(self) -> None:
        history = [(sum(c.scores.values()) / len(c.scores), c.measured) for c in self._critiques]
        self.stop_reason = critic.stop_reason(
            history, self.brief.targets, self.team.stop, self.rounds
        )

    async def _revised(self, voice: Voice, seed: int) -> engineer.Draft:
        last, judged = self._drafts[-1], self._judged[-1]
        fields = {
            "concept": self.brief.concept,
            "prompt": last.prompt,
            "feedback": judged.advice,
        }
        return await engineer.revise(voice, self.team, fields, last, judged.changes, seed)

    def _notes(self) -> dict[str, str]:
        notes = [
            f"- {asked.domain}: {engineer.note_of(self._turns[i].text)}"
            for i, asked in enumerate(self.experts)
        ]
        return {
            "concept": self.brief.concept,
            "scale": self.brief.scale,
            "notes": "\n".join(notes),
        }

    def _visuals(self) -> list[str]:
        """What cited facts look like, one of each expert first, the shortest of each first."""
        cited = {i for turn in self._turns.values() for i in turn.cited}
        seen = [
            sorted((f.visual for f in each if f.id in cited and f.visual), key=len)
            for each in self.facts
        ]
        longest = max((len(each) for each in seen), default=0)
        return [each[n] for n in range(longest) for each in seen if n < len(each)]

    def _given(self) -> list[Fact]:
        return [fact for each in self.facts for fact in each]

    def _said(self) -> dict[int, str]:
        """What each expert said and what its cited facts look like, by the turn's index."""
        visuals = {fact.id: fact.visual or "" for fact in self._given()}
        return {
            turn.index: " ".join([turn.text, *(visuals[i] for i in turn.cited)])
            for turn in self._turns.values()
            if turn.role == "expert"
        }

    def _seed(self, index: int) -> int:
        return expert.seed_for(self.brief.seed, index)

    def _begin(
        self, index: int, speaker: str, role: Literal["expert", "engineer", "critic"], model: str
    ) -> _Open:
        self.on_event(TurnStarted(index, speaker, role, model))
        voice = self.voice_for(model, lambda text: self.on_event(SpokeEvent(index, text)))
        return _Open(index, speaker, role, model, voice, time.perf_counter())

    def _end(
        self, turn: _Open, text: str, given: Sequence[Fact], claiming: str | None = None
    ) -> str:
        """Keep a finished turn, with its citations and the numbers its facts do not hold.

        Args:
            turn: Who spoke.
            text: What was said.
            given: Facts put before the speaker. An expert's numbers must be held by those it
                cites, the engineer's by any.
            claiming: The part of the text whose numbers are checked; None is all of it.
        """
        cited = [fact for fact in given if fact.id in cited_ids(text)]
        held = [fact.held for fact in (cited if turn.role == "expert" else given)]
        loose = unsupported(text if claiming is None else claiming, [*held, self.brief.concept])
        kept = Turn(
            index=turn.index,
            speaker=turn.speaker,
            role=turn.role,
            model=turn.model,
            text=text,
            cited=tuple(fact.id for fact in cited),
            unsupported=loose,
            n_tokens=turn.voice.n_tokens,
            seconds=round(time.perf_counter() - turn.started_s, 3),
        )
        self._turns[turn.index] = kept
        self.on_event(TurnEnded(kept))
        return text


@dataclass(frozen=True)
class _Open:
    """A turn that has begun."""

    index: int
    speaker: str
    role: Literal["expert", "engineer", "critic"]
    model: str
    voice: Voice
    started_s: float
