"""Compares, saves and tries merges, one after another, in a thread beside the pages.

    data/<owner>/mixes/<name>/
        mix.json      what was asked for and what came of it
        recipe.yaml   the merge in mergekit's terms
        geometry.png  how the models lie to each other
        place-0/ ...  the slider: one design folder for each t
    data/<owner>/models/<name>/   merges that were saved

Models on the slider are merged in memory and gone afterwards. What a restart of the server cuts
off counts as interrupted; the places that ended stay.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field, ValidationError

from agents.events import Event, RenderStep, Spoke, TurnStarted
from agents.generation import Engine
from agents.roles import Team, load_team
from merging.recipe import Recipe
from orbweave.errors import Cancelled, OrbweaveError, UsageError, shown
from orbweave.files import write_text
from orbweave.models import ModelRef
from orbweave.records import Brief, Design, Record
from ui.design import Order, Workshop, design, is_design
from ui.rendering import Chooser, RenderSettings
from ui.studio.drawer import Drawer
from ui.studio.mix import Mix, Tour, common_base
from ui.target import slug

__all__ = ["Bench", "Kind", "Mixer", "Place", "Task", "open_bench"]

logger = logging.getLogger(__name__)

RECORD = "mix.json"
RECIPE = "recipe.yaml"
GEOMETRY = "geometry.png"
TEAM = "experts"
"""The shipped team that knows most models that were trained on its forms."""
FACTS_EACH = 2
"""Facts each expert speaks from on the slider, where a team talks at every place."""
GROUNDING = 0.1
"""Of a prompt on the slider, see `Form.grounding`: what the merge itself writes is compared there,
and prompts composed of the facts would be the same at every place."""
MAX_WAITING = 16
MAX_EACH = 2
"""Tasks one person may have waiting or running."""
WAIT_S = 0.2
"""How often an idle thread looks whether the studio closes."""
FILE = re.compile(r"place-\d{1,2}/images/[A-Za-z0-9._-]+\.png")
Kind = Literal["compare", "save", "slide"]
Status = Literal["queued", "running", "done", "stopped", "failed"]


class MixRecord(Record):
    """What was asked for and what came of it."""

    kind: Kind
    mix: Mix
    tour: Tour | None = None
    name: str = ""
    """Of a merge to save: its folder among the owner's models."""
    at: float = Field(ge=0.0)
    """Seconds since 1970."""
    status: Status = "queued"
    why: str = ""
    """Why it ended so."""
    findings: tuple[str, ...] = ()
    """What stands against the merge, in words."""
    advice: tuple[str, ...] = ()
    """What the geometry means."""


class Place(NamedTuple):
    """One place of the slider."""

    t: float
    number: int
    design: Design | None
    """None while it is not done."""


class Bench(NamedTuple):
    """What the slider works with; fakes stand in for it in tests."""

    shop: Workshop
    structure: Chooser


@dataclass
class Task:
    """One thing to do, or done."""

    folder: Path
    record: MixRecord
    note: str = ""
    """What it waits for or does; only while it runs."""
    heard: str = ""
    """What the model on the slider has said so far at this place."""
    stopped: threading.Event = field(default_factory=threading.Event)
    is_alive: bool = True
    """Whether it is in the hands of this server."""

    @property
    def id(self) -> str:
        """Its name on the page."""
        return self.folder.name

    @property
    def status(self) -> str:
        """As in the record, or `interrupted`."""
        is_open = self.record.status in ("queued", "running")
        return "interrupted" if is_open and not self.is_alive else self.record.status

    @property
    def places(self) -> list[Place]:
        """The places of the slider, in order; none for other tasks."""
        ts = self.record.tour.places if self.record.tour else []
        return [Place(t, n, _design_in(self.folder / f"place-{n}")) for n, t in enumerate(ts)]

    @property
    def geometry(self) -> Path | None:
        """The picture of the two models; None if there is none."""
        path = self.folder / GEOMETRY
        return path if path.is_file() else None

    @property
    def recipe(self) -> Recipe:
        """The merge in mergekit's terms."""
        return self.record.mix.recipe

    def change(self, **what: object) -> None:
        """Keep what became of it."""
        changed = self.record.model_copy(update=what)
        write_text(self.folder / RECORD, changed.model_dump_json(indent=2) + "\n")
        self.record = changed  # who sees it may rely on the disk

    def file(self, path: str) -> Path | None:
        """Return a file that may be sent; None if there is none."""
        found = self.folder / path
        is_ours = path in (GEOMETRY, RECIPE) or FILE.fullmatch(path)
        return found if is_ours and found.is_file() else None


class Mixer:
    """All tasks of all people, and the thread that does them."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._drawer = Drawer(data, "mixes", RECORD)
        self._lock = threading.Condition()
        self._waiting: list[Task] = []
        self._tasks: dict[str, Task] = {}
        self._owners: dict[str, str] = {}
        self._thread: threading.Thread | None = None
        self._bench: Bench | None = None
        self._closing = False

    def ask(
        self, owner: str, kind: Kind, mix: Mix, *, tour: Tour | None = None, name: str = ""
    ) -> Task:
        """Put a task into the queue; the same one twice, as by a double click, is one.

        Args:
            owner: Whose it will be.
            kind: What to do.
            mix: The models and the profile; the slider has a t of its own.
            tour: What the slider tries.
            name: What a merge to save shall be called.

        Raises:
            UsageError: the name is taken or none, or too much is waiting.
        """
        called = slug(name) if kind == "save" else ""
        if kind == "save" and not name.strip():
            raise UsageError("wanted a name for the merge, got none")
        if called and (self.models(owner) / called).exists():
            raise UsageError(f"wanted a new name for the merge, you have {called!r} already")
        record = MixRecord(kind=kind, mix=mix, tour=tour, name=called, at=time.time())
        with self._lock:
            own = [t for t in self._tasks.values() if self._owners[t.id] == owner and _is_open(t)]
            for task in own:
                if task.record.model_copy(update={"at": 0.0, "status": "queued"}) == (
                    record.model_copy(update={"at": 0.0})
                ):
                    return task
            if len(own) >= MAX_EACH or len(self._waiting) >= MAX_WAITING:
                raise UsageError(
                    f"wanted room for one more task, {len(own)} of yours and "
                    f"{len(self._waiting)} in all are waiting; stop one or try later"
                )
            task = Task(self._drawer.new(owner), record)
            write_text(task.folder / RECIPE, mix.recipe.to_yaml())
            self._line_up(owner, task)
        return task

    def again(self, owner: str, name: str) -> Task:
        """Go on with a task that did not end; places of the slider that are done stay.

        Raises:
            UsageError: there is none of that name, or it is under way or done.
        """
        earlier = self.find(owner, name)
        with self._lock:
            if earlier.status not in ("stopped", "failed", "interrupted"):
                raise UsageError(f"wanted a task that did not end, this one is {earlier.status}")
            task = Task(earlier.folder, earlier.record.model_copy(update={"why": ""}))
            self._line_up(owner, task)
        return task

    def find(self, owner: str, name: str) -> Task:
        """Return one of the owner's tasks.

        Raises:
            UsageError: there is none of that name, or it is damaged.
        """
        folder = self._drawer.find(owner, name)
        with self._lock:
            return self._tasks.get(name) or _read(folder)

    def all(self, owner: str) -> list[Task]:
        """Return the owner's tasks that can be read, the latest first."""
        found = []
        for folder in self._drawer.all(owner):
            try:
                found.append(self.find(owner, folder.name))
            except UsageError:
                continue
        return found

    def stop(self, task: Task) -> None:
        """Stop a task: at once if it waits, within a word or a denoising step if it runs."""
        with self._lock:
            task.stopped.set()
            if task in self._waiting:
                self._waiting.remove(task)
                task.change(status="stopped", why="before its turn came")

    def position(self, task: Task) -> int:
        """Return the place in the queue, 1 for the next; 0 if it is not waiting."""
        with self._lock:
            return self._waiting.index(task) + 1 if task in self._waiting else 0

    def models(self, owner: str) -> Path:
        """Return the folder of the owner's saved merges."""
        return self._data / owner / "models"

    def saved(self, owner: str) -> dict[str, str]:
        """Return the names of the owner's saved merges by their folders."""
        heads = sorted(self.models(owner).glob("*/config.json"))
        return {str(head.parent): head.parent.name for head in heads}

    def close(self, timeout_s: float = 10.0) -> None:
        """Stop what is running; one that loads a model cannot be stopped."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _line_up(self, owner: str, task: Task) -> None:
        task.change(status="queued")
        self._tasks[task.id], self._owners[task.id] = task, owner
        self._waiting.append(task)
        self._begin()
        self._lock.notify()

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="mixer", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while (task := self._next()) is not None:
            try:
                self._do(task)
            except Exception:  # the disk is full, say: the next task may find room
                logger.exception("what became of the task %s could not be kept", task.id)
                task.is_alive = False
            task.note = task.heard = ""

    def _next(self) -> Task | None:
        """Wait for the next task; None once the studio closes."""
        with self._lock:
            while not self._closing:
                if self._waiting:
                    return self._waiting.pop(0)
                self._lock.wait(WAIT_S)
        return None

    def _do(self, task: Task) -> None:
        """Do one task; whatever goes wrong is kept and the next one is done."""
        task.change(status="running")
        work = {"compare": self._compare, "save": self._save, "slide": self._slide}
        try:
            work[task.record.kind](task)
        except Cancelled:
            if task.stopped.is_set():
                task.change(status="stopped", why="by you")
            else:  # the studio closes: after its restart it counts as interrupted
                task.is_alive = False
        except OrbweaveError as err:
            task.change(status="failed", why=str(err))
        except Exception as err:
            logger.exception("the task %s failed", task.id)
            why = f"a fault of Orbweave itself, {type(err).__name__}: {err}"
            task.change(status="failed", why=why)
        else:
            task.change(status="done")

    def _compare(self, task: Task) -> None:
        """Say what stands against the merge and how the models lie to each other."""
        from merging.build import open_models, open_parents
        from merging.compatibility import check
        from merging.geometry import compare
        from merging.geometry_advice import advice
        from merging.geometry_picture import save

        mix, tell = task.record.mix, _teller(task)
        parents = open_parents(mix.recipe, tell)
        found = check(mix.recipe, parents)
        task.change(findings=tuple(f"{finding.level}: {finding.text}" for finding in found))
        if mix.first == mix.second:
            return
        base = common_base(mix.first, mix.second)
        root = open_models([base], tell)[base] if base else None

        def on_progress(done: int, total: int) -> None:
            tell(f"comparing, {done} of {total} tensors")
            self._heed(task)

        geometry = compare(parents[mix.first], parents[mix.second], root, on_progress=on_progress)
        save(geometry, task.folder / GEOMETRY, force=True)
        task.change(advice=tuple(advice(geometry)))

    def _save(self, task: Task) -> None:
        """Write the merge among the owner's models."""
        from merging.build import merge

        owner = self._owners[task.id]
        found = merge(
            ModelRef("recipe", str(task.folder / RECIPE)),
            self.models(owner) / task.record.name,
            on_progress=_teller(task),
            is_cancelled=lambda: self._is_over(task),
        )
        task.change(findings=tuple(f"{finding.level}: {finding.text}" for finding in found))

    def _slide(self, task: Task) -> None:
        """Let the merge at each place play the whole team, and have its prompt drawn."""
        mix, tour = task.record.mix, task.record.tour
        assert tour is not None  # asked with one
        if self._bench is None:
            self._bench = open_bench(_teller(task))
        shop, structure = self._bench
        for number, t in enumerate(tour.places):
            self._heed(task)
            if is_design(task.folder / f"place-{number}"):
                continue  # of an earlier try
            model = mix.at(t)
            order = Order(
                Brief(concept=tour.concept, seed=tour.seed),
                1,
                1,
                RenderSettings(),
                model,
                structure,
            )
            design(
                order,
                task.folder / f"place-{number}",
                replace(shop, team=_team(mix, model), note=_teller(task)),
                on_event=_listener(task),
                cancelled=lambda: self._is_over(task),
            )

    def _is_over(self, task: Task) -> bool:
        return self._closing or task.stopped.is_set()

    def _heed(self, task: Task) -> None:
        if self._is_over(task):
            raise Cancelled("the task was stopped by request")


def open_bench(note: Callable[[str], None]) -> Bench:
    """Return the real parts of the slider; takes seconds.

    Raises:
        OrbweaveError: a model is missing or damaged.
    """
    from agents.embedding import MiniLM
    from ui.design import workshop
    from ui.maker import Studio
    from ui.rendering import chooser_for

    shop = workshop(note, MiniLM())
    note("reading the facts")
    knowledge = shop.open_knowledge()
    shop = replace(
        shop,
        open_engine=open_merged,
        open_knowledge=lambda: knowledge,
        renderer=Studio(shop.renderer),
    )
    return Bench(shop, chooser_for("auto"))


def open_merged(model: str) -> Engine:
    """Return an engine on a merge in memory, which is gone when the engine is closed.

    Raises:
        UsageError, ModelError: as `merging.build.merge_in_memory`.
    """
    from merging.build import merge_in_memory

    folder, weights = merge_in_memory(model)
    from agents.engine import TransformersEngine

    return TransformersEngine(folder, model, weights=weights)


def _team(mix: Mix, model: str) -> Team:
    """Return the team in which the merge at one place plays every role.

    A merge of two models that were trained on the team's forms knows them too.
    """
    team = load_team(TEAM)
    trained = (*team.trained, model) if {mix.first, mix.second} <= {*team.trained} else ()
    prompt = team.prompt.model_copy(update={"grounding": GROUNDING})
    return team.model_copy(update={"facts_each": FACTS_EACH, "trained": trained, "prompt": prompt})


def _teller(task: Task) -> Callable[[str], None]:
    def tell(text: str) -> None:
        task.note = text

    return tell


def _listener(task: Task) -> Callable[[Event], None]:
    speaking = -1

    def on_event(event: Event) -> None:
        nonlocal speaking
        if isinstance(event, TurnStarted):
            speaking = event.index
            task.note, task.heard = f"the {event.speaker.replace('_', ' ')} speaks", ""
        elif isinstance(event, Spoke) and event.index == speaking:  # of experts at once, one
            task.heard += event.text
        elif isinstance(event, RenderStep):
            task.note = f"drawing, step {event.step} of {event.total}"

    return on_event


def _is_open(task: Task) -> bool:
    return task.status in ("queued", "running")


def _design_in(folder: Path) -> Design | None:
    if not is_design(folder):
        return None
    try:
        return Design.model_validate_json((folder / "design.json").read_text("utf-8"))
    except (OSError, ValidationError):
        return None


def _read(folder: Path) -> Task:
    try:
        text = (folder / RECORD).read_text("utf-8")
        return Task(folder, MixRecord.model_validate_json(text), is_alive=False)
    except (OSError, ValidationError, UnicodeDecodeError) as err:
        raise UsageError(f"wanted the merge {folder.name}, it is damaged: {shown(err)}") from err
