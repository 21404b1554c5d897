"""One design at the desk, from the concept to the last picture, in a folder of its own.

order.json     what was asked for
journal.jsonl  everything that happened
state.json     the conversation after its latest step, from which it can go on
changed.json   how a person changed it while it ran, until the run has heeded that
pictures/      every picture drawn so far, also of a run that was stopped
design/        the design folder as `orbweave design` writes it; there once it is whole
earlier-1/     what that was before somebody changed a turn, and so on
stars.json     what its owner thinks of it
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from agents.events import Critiqued, Rendered, TurnEnded
from agents.recording import events_of
from agents.state import STATE_FILE, PicturesStep, State, StateError, read_state, write_state
from agents.steering import siblings
from orbweave.errors import UsageError
from orbweave.files import write_bytes, write_text
from orbweave.records import Design, Picture, Record, Turn
from ui.matrix import BatchRow
from ui.studio.journal import Entry, Happening, Journal, Moved, Status, Steered
from ui.studio.story import Story

__all__ = ["RESTARTED", "STARS", "Asked", "Sitting", "kept_name"]

STARS = range(6)
"""0 means not rated."""
OPEN: frozenset[Status] = frozenset({"queued", "running"})
RESTARTED = "the studio was restarted"
"""Why a design is queued that was under way when the server went."""
GEOMETRY = "seed-structure-"
"""How the names of bare geometries begin."""


class Asked(Record):
    """What somebody asked for, and when."""

    row: BatchRow
    at: float = Field(ge=0.0)
    """Seconds since 1970."""
    repeats: str = ""
    """Name of the sitting whose order this is once more, to see whether the same comes out."""
    branched_from: str = ""
    """Name of the sitting with which this one shares its first turns."""


class Sitting:
    """A design under way or finished. Safe to use from several threads."""

    def __init__(self, folder: Path, asked: Asked) -> None:
        self.folder = folder
        self.asked = asked
        self.lock = threading.RLock()
        """Held while the story is read or added to."""
        self.stopped = threading.Event()
        """Set when somebody wants it to stop."""
        self.status: Status = "queued"
        self.n_laid = 0
        """How often it was laid anew; what was read of it before is stale."""
        self._journal = Journal(folder / "journal.jsonl")
        self._story: Story | None = None
        self._stars: int | None = None
        self.n_kept = 0
        """How often the conversation was kept since the server began."""
        self._earlier: tuple[int, Mapping[int, tuple[Turn, ...]]] = (-1, {})
        self._best: tuple[int, int | None] = (-1, None)

    @classmethod
    def begin(cls, folder: Path, asked: Asked) -> Sitting:
        """Return a new sitting, queued; its folder is made."""
        sitting = cls.prepare(folder, asked)
        sitting.settle()
        return sitting

    @classmethod
    def prepare(cls, folder: Path, asked: Asked) -> Sitting:
        """Return a new sitting that a restart does not find until it is settled."""
        folder.mkdir(parents=True)
        sitting = cls(folder, asked)
        sitting.add(Moved("queued"))
        return sitting

    def settle(self) -> None:
        """Keep what was asked for; from then on the sitting is found."""
        write_text(self.folder / "order.json", self.asked.model_dump_json(indent=2) + "\n")

    @classmethod
    def find(cls, folder: Path) -> Sitting | None:
        """Return the sitting of a folder; None if there is none that can be read."""
        try:
            asked = Asked.model_validate_json((folder / "order.json").read_text("utf-8"))
        except (OSError, ValidationError, UnicodeDecodeError):
            return None
        sitting = cls(folder, asked)
        sitting._journal.mend()
        sitting.status = sitting._journal.status()
        return sitting

    @property
    def id(self) -> str:
        """Its name at the desk, also the folder's."""
        return self.folder.name

    @property
    def is_open(self) -> bool:
        """Whether it waits or runs."""
        return self.status in OPEN

    @property
    def target(self) -> Path:
        """Where the finished design folder is."""
        return self.folder / "design"

    @property
    def story(self) -> Story:
        """What happened so far; hold `lock` while reading it."""
        with self.lock:
            if self._story is None:
                self._story = Story()
                for entry in self._journal.read():
                    self._story.hear(entry)
            return self._story

    @property
    def record(self) -> Design | None:
        """The finished record; None while there is none."""
        try:
            return Design.model_validate_json((self.target / "design.json").read_text("utf-8"))
        except (OSError, ValidationError):
            return None

    @property
    def best(self) -> int | None:
        """The version of the prompt that is the result; None before the end."""
        if self.status != "done":
            return None
        if self._best[0] != self.n_laid:
            record = self.record
            self._best = self.n_laid, record.best_version if record else None
        return self._best[1]

    @property
    def stars(self) -> int:
        """The owner's rating, 1 to 5; 0 without one."""
        if self._stars is None:
            try:
                kept = json.loads((self.folder / "stars.json").read_text("utf-8"))["stars"]
                self._stars = kept if kept in STARS else 0
            except (OSError, ValueError, KeyError, TypeError):
                self._stars = 0
        return self._stars

    def add(self, what: Happening) -> None:
        """Take in what happened: into the file, then into the story."""
        with self.lock:
            story = self.story  # read before the file grows, or the entry would count twice
            entry = Entry(time.time(), what)
            self._journal.add(entry)
            story.hear(entry)
            try:
                if isinstance(what, Moved) and story.status not in OPEN:
                    self._journal.compact()
            finally:
                self.status = story.status

    def rate(self, stars: int) -> None:
        """Keep the owner's rating beside the design; 0 takes it back.

        Raises:
            UsageError: not 0 to 5.
        """
        if stars not in STARS:
            raise UsageError(f"wanted 0 to 5 stars, got {stars}")
        write_text(self.folder / "stars.json", json.dumps({"stars": stars}) + "\n")
        self._stars = stars

    def picture(self, name: str) -> Path | None:
        """Return the file of a picture by its kept name; None if there is none."""
        path = self.folder / "pictures" / name
        is_ours = path.parent == self.folder / "pictures" and path.suffix == ".png"
        return path if is_ours and path.is_file() else None

    @property
    def state(self) -> State | None:
        """The conversation as far as it was kept; None if nothing was."""
        try:
            return read_state(self.folder / STATE_FILE)
        except StateError as err:
            return err.readable

    @property
    def earlier(self) -> Mapping[int, tuple[Turn, ...]]:
        """What turns were before they were changed, oldest first; without those never changed."""
        n_kept, found = self._earlier
        if n_kept != self.n_kept:
            n_kept, state = self.n_kept, self.state
            changed = {alternative.turn for alternative in state.alternatives} if state else ()
            found = {turn: siblings(state, turn) for turn in changed} if state else {}
            self._earlier = n_kept, found
        return found

    def keep(self, state: State) -> None:
        """Keep the conversation after a step."""
        # Pictures first: a server killed in between must not leave a state that tells of none.
        self._keep(state)
        write_state(state, self.folder / STATE_FILE)
        self.n_kept += 1

    @property
    def stands_still(self) -> bool:
        """Whether no step came to its end since it last went on after a restart."""
        for entry in reversed(list(self._journal.read())):
            if isinstance(entry.what, TurnEnded | Rendered | Critiqued):
                return False
            if isinstance(entry.what, Moved) and entry.what.why == RESTARTED:
                return True
        return False

    def ask(self, changed: State | None, how: str = "") -> None:
        """Keep what a running design shall go on from, lest the server be killed before it does.

        Args:
            changed: None forgets it.
            how: What a person changed.
        """
        if changed is None:
            self._asked.unlink(missing_ok=True)
        else:
            kept = {"how": how, "state": changed.model_dump(mode="json")}
            write_text(self._asked, json.dumps(kept) + "\n")

    @property
    def next_state(self) -> tuple[State | None, str]:
        """What to go on from after a restart, and how a person changed it, if so."""
        try:
            kept = json.loads(self._asked.read_text("utf-8"))
            return State.model_validate(kept["state"]), str(kept["how"])
        except (OSError, ValueError, KeyError, TypeError):
            return self.state, ""

    def lay_anew(self, state: State | None, how: str = "", why: str = "") -> None:
        """Queue it once more, to go on from `state`; what was drawn so far stays.

        Args:
            state: None begins at the beginning.
            how: What a person changed; empty if nothing.
            why: `RESTARTED`, if no person asked for it.
        """
        with self.lock:
            steered = [Steered(text) for text in (*self.story.steered, *([how] if how else []))]
            if state is not None:
                self.keep(state)
            self._set_aside()
            shown = () if state is None else events_of(state)
            now = time.time()
            self._journal.write(Entry(now, what) for what in (*steered, *shown))
            self.n_laid += 1
            self._story = None
            self.ask(None)
            self.stopped.clear()
            self.add(Moved("queued", why))

    def put_back(self) -> None:
        """Copy the pictures of earlier steps into the design folder being built."""
        state = self.state
        for built in self._built():
            images = built / "images"
            images.mkdir(exist_ok=True)
            for geometry in (self.folder / "pictures").glob(f"{GEOMETRY}*.png"):
                shutil.copyfile(geometry, images / geometry.name)
            for step in state.steps if state else ():
                for picture in step.pictures if isinstance(step, PicturesStep) else ():
                    kept = self.picture(kept_name(picture))
                    if kept is not None:
                        shutil.copyfile(kept, built / picture.path)

    def rest(self) -> None:
        """Forget the story until it is asked for again; a long list of designs stays small."""
        with self.lock:
            self._story = None

    def _keep(self, state: State) -> None:
        """Copy pictures out of the folder being built, which is removed if the run is stopped."""
        kept = self.folder / "pictures"
        kept.mkdir(exist_ok=True)
        for built in self._built():
            for picture in state.pictures:
                drawn, own = built / picture.path, kept / kept_name(picture)
                if drawn.is_file() and not own.is_file():
                    write_bytes(own, drawn.read_bytes())
            for geometry in (built / "images").glob(f"{GEOMETRY}*.png"):
                shutil.copyfile(geometry, kept / geometry.name)

    def _built(self) -> Iterator[Path]:
        """Yield the hidden folder in which `orbweave.files.build_folder` makes the design."""
        yield from self.folder.glob(f".{self.target.name}.*")

    @property
    def _asked(self) -> Path:
        return self.folder / "changed.json"

    def _set_aside(self) -> None:
        """Give a finished design another name: what comes next must not replace it."""
        if self.target.exists():
            n = 1 + sum(1 for _ in self.folder.glob("earlier-*"))
            self.target.rename(self.folder / f"earlier-{n}")


def kept_name(picture: Picture) -> str:
    """Return a name that no other picture of the sitting has: versions may be drawn twice."""
    return f"{Path(picture.path).stem}-{picture.sha256[:8]}.png"
