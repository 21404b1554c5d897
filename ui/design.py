"""One design from concept to folder: the team talks, pictures are drawn, all is kept.

The folder appears whole or not at all:

    design.json           the whole record
    conversation.jsonl    one turn a line
    conversation.md       the same for reading
    images/               the pictures, and seed-structure-N.png: the bare geometry of version N
    measurements.json     image statistics
    report.html           all of it on one page
    state.json            the conversation step by step, to branch off or to change a turn

Until then it may lie in a folder of its own, from which it goes on after a restart; see
`ui.unfinished`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.embedding import Embed
from agents.events import Event, RenderStep
from agents.generation import Engine
from orbweave.errors import Cancelled, UsageError
from orbweave.files import build_folder, write_text
from orbweave.models import ModelRef
from orbweave.records import Brief, Design, ImagePrompt, Measurement, Picture, Structure
from ui.environment import environment, peak_memory_mb
from ui.geometry import DrawnGeometry
from ui.rendering import Chooser, Renderer, RenderSettings, consecutive, in_thread
from ui.target import check_target
from ui.unfinished import Unfinished
from ui.verdicts import doubts, tally

if TYPE_CHECKING:
    from agents.conversation import Conversation
    from agents.roles import Team
    from agents.state import State
    from imagegen.measure import SolidSide

__all__ = ["Order", "Workshop", "design", "is_design", "workshop"]

ASK_S = 0.5
"""How often a running design asks whether it was cancelled."""


@dataclass(frozen=True)
class Order:
    """What one design run shall do."""

    brief: Brief
    rounds: int
    """Prompt versions at most, at least 1."""
    n_images: int
    """Pictures of each version, seeds counted upwards from the brief's."""
    settings: RenderSettings
    model: str | None
    """Language model every speaker uses; None leaves each role the team's own."""
    structure: Chooser

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.n_images < 1:
            raise UsageError(
                f"wanted 1 or more rounds and images, got {self.rounds}, {self.n_images}"
            )
        consecutive(self.brief.seed, self.n_images)


@dataclass(frozen=True)
class Workshop:
    """What a run works with; fakes stand in for all of it in tests."""

    converse: Callable[..., Awaitable[Conversation]]
    open_engine: Callable[[str], Engine]
    open_knowledge: Callable[[], Any]
    team: Team
    renderer: Renderer
    measure: Callable[..., Measurement]
    """By a picture's file; `solid` says on which side of the threshold its material lies."""
    note: Callable[[str], None] = lambda text: None
    """Told what is being waited for."""
    lends_engines: bool = False
    """Whether engines belong to whoever opened them and are left open."""


def workshop(
    note: Callable[[str], None],
    embed: Embed,
    team: Team | None = None,
    corpora: Sequence[Path] = (),
) -> Workshop:
    """Return the real parts; importing them takes seconds, opening them more.

    Args:
        note: Told what is being waited for.
        embed: Texts to unit vectors, for the search of facts.
        team: Who talks; the shipped default if None.
        corpora: Of the user's own, beside the shipped facts; see `agents.corpora`.
    """
    note("starting")
    from agents.corpora import read_corpora
    from agents.engines import Engines
    from agents.knowledge import Knowledge, load_knowledge
    from agents.roles import load_team
    from agents.team import converse
    from imagegen.measure import measure
    from imagegen.pipeline import Renderer

    team = team or load_team()
    # A lone adapter is quicker merged into its model; several share the model's memory.
    engines = Engines(note, share=len(team.models) > 1)

    def open_knowledge() -> Knowledge:
        return load_knowledge(own=read_corpora(corpora), embed=embed)

    return Workshop(converse, engines.open, open_knowledge, team, Renderer(), measure, note)


@dataclass
class _Stopwatch:
    """Wall time per phase, summed."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Of the phases that have ended."""
    running: dict[str, float] = field(default_factory=dict)
    """When the others began."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.running[name] = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.so_far()[name]
            del self.running[name]

    def so_far(self) -> dict[str, float]:
        """Return the sums with what running phases have taken until now."""
        now = time.perf_counter()
        spent = {name: now - begun for name, begun in self.running.items()}
        return self.seconds | {
            name: round(self.seconds.get(name, 0.0) + seconds, 3) for name, seconds in spent.items()
        }


def design(
    order: Order,
    target: Path,
    workshop: Workshop,
    *,
    on_event: Callable[[Event], None],
    force: bool = False,
    cancelled: Callable[[], bool] = lambda: False,
    unfinished: Unfinished | None = None,
) -> Design:
    """Run one design and write its folder; return the record.

    Args:
        order: What to do.
        target: The folder to write.
        workshop: What to do it with.
        on_event: Hears what happens.
        force: Replace an earlier design.
        cancelled: Asked every `ASK_S` seconds while the team talks and draws.
        unfinished: Where it is kept if it is broken off, and what there is of it already; None
            keeps nothing.

    Raises:
        OutputError: the folder exists and `force` is off, is no design, or cannot be written.
        Cancelled: `cancelled` said so. Nothing is left behind, as on any error, but what is
            kept as unfinished.
        OrbweaveError: a model is missing or failed.
    """
    check_target(target, force=force, is_ours=is_design)
    with ExitStack() as stack:
        if unfinished is None:
            folder = stack.enter_context(build_folder(target, force=force))
            run = _Run(order, folder, workshop, on_event)
        else:
            folder = stack.enter_context(unfinished.working(force=force))
            hear = stack.enter_context(_recorded(folder, on_event))
            run = _Run(order, folder, workshop, hear, state=unfinished.state)
            if run.state is not None:
                run.clock.seconds |= run.state.timings_s
        run.open()
        record = asyncio.run(_unless(cancelled, run.weave()))
        write_record(record, folder)
    return record


@contextmanager
def _recorded(folder: Path, on_event: Callable[[Event], None]) -> Iterator[Callable[[Event], None]]:
    """Yield a listener that records what it hears, and hands it on."""
    from agents.recording import RECORDING_FILE, Recorder

    with Recorder(folder / RECORDING_FILE) as record:

        def hear(event: Event) -> None:
            record(event)
            on_event(event)

        yield hear


def is_design(folder: Path) -> bool:
    """Whether a folder holds a finished design."""
    return (folder / "design.json").is_file()


async def _unless(cancelled: Callable[[], bool], work: Coroutine[Any, Any, Design]) -> Design:
    """Return what `work` returns; stop it once `cancelled` says so."""
    task = asyncio.create_task(work)
    try:
        while not (await asyncio.wait([task], timeout=ASK_S))[0]:
            if cancelled():
                raise Cancelled("the design was stopped by request")
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@dataclass
class _Run:
    """The parts of one run that are opened late and used more than once."""

    order: Order
    folder: Path
    workshop: Workshop
    on_event: Callable[[Event], None]
    state: State | None = None
    """As far as the conversation has come; None at its beginning."""
    clock: _Stopwatch = field(default_factory=_Stopwatch)
    knowledge: Any = None
    team: Team | None = None
    """As it speaks; None before the models are loaded."""
    engines: dict[str, Engine] = field(default_factory=dict)
    drawn: int = 0
    """Pictures so far."""

    def open(self) -> None:
        """Read the facts and load the language models.

        Outside the event loop, where Ctrl-C is answered at once: asyncio would hold it
        back until the loading is over.
        """
        self.workshop.note("reading the facts")
        with self.clock.phase("facts"):
            self.knowledge = self.workshop.open_knowledge()
        with self.clock.phase("language model"):
            order = self.order
            self.team = speakers(self.workshop.team, order.model, order.brief, self.knowledge)
            for model in self.state.models if self.state else self.team.models:
                self.workshop.note(f"loading the language model {model}")
                self.engines[model] = self.workshop.open_engine(model)

    async def weave(self) -> Design:
        """Let the team talk and return the record; pictures are in the folder by then."""
        order = self.order
        try:
            with self.clock.phase("conversation and pictures"):
                conversation = await self._talk()
        finally:
            if not self.workshop.lends_engines:
                for engine in self.engines.values():
                    await engine.close()
        return Design(
            brief=order.brief,
            turns=conversation.turns,
            facts=conversation.facts,
            corpora=conversation.corpora,
            facts_note=conversation.facts_note,
            prompts=conversation.prompts,
            pictures=conversation.pictures,
            measurements=conversation.measurements,
            critiques=conversation.critiques,
            best_version=conversation.best_version,
            stop_reason=conversation.stop_reason,
            timings_s=self.clock.seconds,
            environment=environment() | {"peak memory": f"{peak_memory_mb():.0f} MB"},
        )

    async def _talk(self) -> Conversation:
        """Let the team talk, from the beginning or from where it stopped."""
        parts: dict[str, Any] = {
            "engine_for": self.engines.__getitem__,
            "knowledge": self.knowledge,
            "structure_for": self.geometry(),
            "render": self.render,
            "on_event": self.on_event,
            "keep": self._keep,
        }
        if self.state is None:
            brief, rounds = self.order.brief, self.order.rounds
            return await self.workshop.converse(brief, rounds=rounds, team=self.team, **parts)
        from agents.conversation import conversation_of
        from agents.team import resume

        return conversation_of(await resume(self.state, **parts))

    def _keep(self, state: State) -> None:
        from agents.state import STATE_FILE, write_state

        self.state = state.model_copy(update={"timings_s": self.clock.so_far()})
        write_state(self.state, self.folder / STATE_FILE)

    def _name(self, version: int) -> str:
        """Return a name for a version's pictures that none of an earlier try has."""
        if self.state is not None:
            taken = {picture.path for picture in self.state.pictures}
        else:  # somebody else keeps the state, and has put back what it tells of
            taken = {f"images/{path.name}" for path in (self.folder / "images").glob("*.png")}
        name, count = f"v{version}", 1
        while any(path.startswith(f"images/{name}-seed-") for path in taken):
            count += 1
            name = f"v{version}-{count}"
        return name

    def geometry(self) -> DrawnGeometry:
        """Return how structure seeds come about, as `--structure` said."""
        settings = self.order.settings
        request = settings.request("for its size and strength", "", None, (0,))
        return DrawnGeometry(
            self.order.structure,
            self.order.brief.concept,
            (request.width, request.height),
            request.strength,
            lambda: self.clock.phase("structure"),
        )

    async def render(
        self, prompt: ImagePrompt, version: int
    ) -> tuple[tuple[Picture, ...], tuple[Measurement, ...]]:
        """Draw and measure the pictures of one prompt version."""
        order = self.order
        seeds = consecutive(order.brief.seed, order.n_images)
        strength = prompt.strength or order.settings.strength
        request = replace(order.settings, strength=strength).request(
            prompt.prompt, prompt.negative_prompt, prompt.structure, seeds
        )
        images, name = self.folder / "images", self._name(version)
        geometry = images / f"seed-structure-{version}.png"
        # An earlier try may have been changed or cut off before anything told of what it drew.
        for stray in (geometry, *images.glob(f"{name}-seed-*.png")):
            stray.unlink(missing_ok=True)
        if not self.drawn:
            self.workshop.note(f"loading the image model {order.settings.model}")
        on_step = self._step_teller()
        with self.clock.phase("rendering"):
            drawn = await in_thread(
                lambda cancelled: self.workshop.renderer.render(
                    request,
                    images,
                    name=f"{name}-seed-{{seed}}",
                    on_step=on_step,
                    cancelled=cancelled,
                    save_seed_picture=geometry,
                )
            )
        self.drawn += len(drawn)
        with self.clock.phase("measuring"):
            return self._kept(drawn, version)

    def _step_teller(self) -> Callable[[int, int], None]:
        """Return a callback that may be called in any thread and tells the view in this one."""
        loop = asyncio.get_running_loop()

        def on_step(step: int, total: int) -> None:
            loop.call_soon_threadsafe(self.on_event, RenderStep(step, total))

        return on_step

    def _kept(
        self, drawn: list[Picture], version: int
    ) -> tuple[tuple[Picture, ...], tuple[Measurement, ...]]:
        """Return pictures and measurements with paths relative to the design folder."""
        pictures, measurements = [], []
        for picture in drawn:
            file = Path(picture.path)
            path = file.relative_to(self.folder).as_posix()
            pictures.append(picture.model_copy(update={"path": path, "prompt_version": version}))
            measured = self.workshop.measure(file, solid=_solid_side(picture.request.structure))
            measurements.append(measured.model_copy(update={"picture": path}))
        return tuple(pictures), tuple(measurements)


def _solid_side(structure: Structure | None) -> SolidSide:
    """Return where the material lies in a structure's colours; else the measurement guesses."""
    if structure is None:
        return "auto"
    from imagegen.measure import solid_side_of

    return solid_side_of(structure.look)


def team_with(team: Team, model: str | None) -> Team:
    """Return the team with every speaker on `model`, None for the team's own.

    Models that were trained on the team's forms are shown no worked examples, wherever they run:
    a server is taken at its word that `http://...#generalist` is the generalist.
    """
    if model is not None:
        experts = tuple(expert.model_copy(update={"model": model}) for expert in team.experts)
        models = {"experts": experts, "engineer_model": model, "critic_model": model}
        team = team.model_copy(update=models)
    names = {ModelRef.parse(ref).name if "://" in ref else ref for ref in team.models}
    return team.without_examples() if names <= set(team.trained) else team


def models_of(team: Team, model: str | None) -> list[str]:
    """Return every model the team speaks with once, in the order of speaking."""
    return list(team_with(team, model).models)


def speakers(team: Team, model: str | None, brief: Brief, knowledge: Any) -> Team:
    """Return the team as it speaks about a brief: on `model` if one is given, the weaver woven."""
    from agents.weaver import woven

    return woven(team_with(team, model), brief, knowledge)


def write_record(record: Design, folder: Path) -> None:
    """Write everything but the pictures into a design folder."""
    from ui.report import render_report

    write_text(folder / "design.json", record.model_dump_json(indent=2) + "\n")
    turns = "".join(turn.model_dump_json() + "\n" for turn in record.turns)
    write_text(folder / "conversation.jsonl", turns)
    write_text(folder / "conversation.md", conversation_markdown(record))
    measurements = [measurement.model_dump() for measurement in record.measurements]
    write_text(folder / "measurements.json", json.dumps(measurements, indent=2) + "\n")
    write_text(folder / "report.html", render_report(record, folder))


def conversation_markdown(record: Design) -> str:
    """Return the conversation for reading: turns, their facts, what these hold, prompts."""
    facts = {fact.id: fact for fact in record.facts}
    parts = [f"# {record.brief.concept}\n"]
    if record.facts_note:
        parts.append(f"Note: {record.facts_note}.\n")
    for turn in record.turns:
        parts.append(f"## {turn.index}. {turn.speaker} ({turn.role}, `{turn.model}`)\n")
        parts.append(turn.text.strip() + "\n")
        for fact in (facts[fact_id] for fact_id in turn.cited if fact_id in facts):
            parts.append(f"- `{fact.id}` {fact.statement} <{fact.source_url}>")
        parts += [f"- {tally(turn)}"] if turn.checks else []
        parts += [f"- {doubt}" for doubt in doubts(turn, "plausible", "unsupported")]
        if turn.cited or turn.checks:
            parts.append("")
    for version, prompt in enumerate(record.prompts):
        parts.append(f"## Prompt, version {version}: {prompt.title}\n\n> {prompt.prompt}\n")
    for corpus in record.corpora:
        parts.append(f"Corpus: {corpus.n_facts} facts of {corpus.path}, SHA-256 {corpus.sha256}\n")
    parts.append(f"Stopped: {record.stop_reason}\n")
    return "\n".join(parts)
