"""Who designs what: every person's designs, one queue, and the workers that make them.

A sitting belongs to the server, not to the page that asked for it: close the tab, open two,
restart the server, it is still there. The desk knows nothing of the web.
"""

from __future__ import annotations

import logging
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from agents.events import Event
from agents.state import PromptStep, State, turn_of
from agents.steering import branch
from orbweave.errors import Cancelled, OrbweaveError, OutputError, UsageError
from orbweave.files import remove_leftovers
from ui.batch import MakeRow
from ui.matrix import BatchRow
from ui.rendering import consecutive
from ui.studio.boards import Boards
from ui.studio.journal import Moved, Noted
from ui.studio.sitting import RESTARTED, Asked, Sitting
from ui.studio.talk import at_work

__all__ = ["MAX_EACH", "MAX_WAITING", "Desk", "Opener"]

logger = logging.getLogger(__name__)

MAX_WAITING = 64
"""Designs waiting in all; the next is refused and not kept."""
MAX_EACH = 8
"""Designs one person may have waiting or running."""
OWNER = re.compile(r"[A-Za-z0-9_-]{1,64}")
WAIT_S = 0.2
"""How often an idle worker looks whether the desk closes."""
RETRY_S = 5.0
"""How long a design that cannot be kept waits for room on the disk."""
CLOSED = "the studio was closed"
STORIES = 64
"""Stories of finished designs kept in memory, some 100 kB each."""

Change = Callable[[State], State]
Opener = Callable[[Callable[[str], None]], MakeRow]
"""Opens what makes designs, telling what is being waited for. May take long."""


class Desk:
    """All designs of all people, and the queue in front of the team.

    Args:
        data: The folder that keeps everything: `data/<owner>/<sitting>/`.
        opener: Opens the models; called in a worker's thread, and what it returns is shared.
        n_workers: Designs made at the same time.
    """

    def __init__(self, data: Path, opener: Opener, *, n_workers: int = 1) -> None:
        self.data = data
        self.note = "the models are waiting to be loaded"
        """What the models are waiting for; empty once they are ready."""
        self._opener = opener
        self._n_workers = n_workers
        self._lock = threading.Condition()
        self._waiting: list[Sitting] = []
        self._sittings: dict[str, dict[str, Sitting]] = {}
        self._closing = False
        self._workers: list[threading.Thread] = []
        self._changes: dict[Sitting, tuple[Change, str]] = {}
        self._opening = threading.Lock()
        self._make_row: MakeRow | None = None
        self._looked_at: dict[Sitting, None] = {}  # a set in order, the latest last
        self._hold = FileLock(data / "studio.lock")

    def open(self) -> None:
        """Read what is there and queue what was waiting; `work` begins with it.

        Raises:
            OutputError: another studio works on the folder, or it cannot be written.
        """
        try:
            self.data.mkdir(parents=True, exist_ok=True)
            self._hold.acquire(timeout=0)
        except Timeout as err:
            raise OutputError(
                f"wanted to open the studio on {self.data}, another one is working there; "
                "close that, or choose another --data"
            ) from err
        except OSError as err:
            raise OutputError(
                f"wanted to keep designs in {self.data}: {err.strerror}; choose another --data"
            ) from err
        for sitting in self._found():
            self._sittings.setdefault(sitting.folder.parent.name, {})[sitting.id] = sitting
            self._take_up(sitting)

    def work(self) -> None:
        """Start the workers: they open the models, then make what is queued."""
        for n in range(self._n_workers):
            worker = threading.Thread(target=self._work, name=f"desk-{n}", daemon=True)
            worker.start()
            self._workers.append(worker)

    def close(self, timeout_s: float = 10.0) -> None:
        """Stop what is running, which goes on at the next start, and give the folder free.

        Args:
            timeout_s: Longest wait for a worker; one that loads a model cannot be stopped.
        """
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        for worker in self._workers:
            worker.join(timeout_s)
        self._hold.release()

    def start(self, owner: str, row: BatchRow, *, repeats: str = "") -> Sitting:
        """Put a design into the queue; the same one twice, as by a double click, is one.

        Args:
            owner: Whose it will be.
            row: What to make.
            repeats: The sitting it repeats, if it does.

        Raises:
            UsageError: too many are waiting.
        """
        _check_owner(owner)
        with self._lock:
            open_ones = [s for s in self._of(owner).values() if s.is_open]
            for sitting in open_ones:
                if sitting.asked.row == row and not sitting.stopped.is_set():
                    return sitting
            self._check_room(len(open_ones))
            asked = Asked(row=row, at=time.time(), repeats=repeats)
            sitting = Sitting.begin(self.data / owner / _fresh_name(), asked)
            self._of(owner)[sitting.id] = sitting
            self._line_up(sitting)
            return sitting

    def again(self, owner: str, sitting_id: str) -> Sitting:
        """Go on with a design that did not end, from its latest step.

        Raises:
            UsageError: there is none of that name, it is under way or done, or too many wait.
        """
        sitting = self.sitting(owner, sitting_id)
        with self._lock, sitting.lock:
            if sitting.status not in {"stopped", "failed", "interrupted"}:
                raise UsageError(f"wanted a design that did not end, this one is {sitting.status}")
            self._check_room(sum(s.is_open for s in self._of(owner).values()))
            sitting.lay_anew(*sitting.next_state)
            self._line_up(sitting)
        return sitting

    def steer(self, owner: str, sitting_id: str, change: Change, how: str) -> Sitting:
        """Change what was said and go on from there; what runs is stopped for it, and goes first.

        Args:
            owner: Whose it is.
            sitting_id: Its name.
            change: One of `agents.steering`, with all but the state filled in.
            how: What is changed, in words.

        Raises:
            UsageError: there is none of that name, nothing was said yet, or it cannot be changed
                that way.
        """
        sitting = self.sitting(owner, sitting_id)
        with self._lock, sitting.lock:
            if sitting in self._changes:  # the run has not heeded the one before
                earlier, told = self._changes[sitting]
                change, how = _after(earlier, change), f"{told}, {how}"
            changed = change(_said_so_far(sitting))
            if sitting.status == "running":
                self._changes[sitting] = (change, how)
                sitting.ask(changed, how)
                sitting.stopped.set()
                return sitting
            if sitting in self._waiting:
                self._waiting.remove(sitting)
            else:
                self._check_room(sum(s.is_open for s in self._of(owner).values()))
            sitting.lay_anew(changed, how)
            self._line_up(sitting)
        return sitting

    def branch(self, owner: str, sitting_id: str, turn: int, change: Change, how: str) -> Sitting:
        """Make a design of its own of what was said up to a turn, changed there.

        Args:
            owner: Whose it is.
            sitting_id: What it branches off, which is left as it is.
            turn: Index of the last turn they share.
            change: As for `steer`.
            how: What is changed, in words.

        Raises:
            UsageError: as for `steer`.
        """
        first = self.sitting(owner, sitting_id)
        with self._lock:
            state = _said_so_far(first)
            said = [turn_of(step) for step in state.steps]
            place = next((n for n, t in enumerate(said) if t and t.index == turn), None)
            if place is None:
                raise UsageError(f"wanted turn {turn}, it was not said yet; wait for it")
            changed = change(branch(state, place + 1))
            self._check_room(sum(s.is_open for s in self._of(owner).values()))
            return self._begin_branch(owner, first, first.asked.row, changed, how)

    def draw_both(
        self, owner: str, sitting_ids: tuple[str, str], seed: int, images: int
    ) -> tuple[Sitting, Sitting]:
        """Draw the last prompts of two designs from the same seeds, each as a branch of its own.

        Settings stay each one's own, and both critics judge what they see; nothing is revised.

        Args:
            owner: Whose they are.
            sitting_ids: Their names.
            seed: Of the first picture.
            images: Pictures of each, seeds counted upwards.

        Raises:
            UsageError: there is none of that name, one has no prompt yet, the seeds are too
                large, or too many wait.
        """
        consecutive(seed, images)
        firsts = [self.sitting(owner, sitting_id) for sitting_id in sitting_ids]
        with self._lock:
            states = [_up_to_last_prompt(_said_so_far(first), seed) for first in firsts]
            self._check_room(1 + sum(s.is_open for s in self._of(owner).values()))
            how = f"Drawn again from seed {seed}, to be compared."
            rows = [_row_for(first.asked.row, seed, images) for first in firsts]
            a, b = (
                self._begin_branch(owner, *each, how)
                for each in zip(firsts, rows, states, strict=True)
            )
            return a, b

    def family(self, owner: str, sitting: Sitting) -> list[Sitting]:
        """Return what a design branched off and what branched off the same, the oldest first."""
        with self._lock:
            own = self._of(owner)
            members: dict[str, list[Sitting]] = {}
            for each in own.values():
                members.setdefault(_root(own, each), []).append(each)
            return sorted(members[_root(own, sitting)], key=lambda s: (s.asked.at, s.id))

    @property
    def n_waiting(self) -> int:
        """Designs of all people that wait for their turn."""
        return len(self._waiting)

    def stop(self, owner: str, sitting_id: str) -> None:
        """Stop a design: at once if it waits, within a word or a denoising step if it runs.

        Raises:
            UsageError: there is none of that name.
        """
        sitting = self.sitting(owner, sitting_id)
        with self._lock:
            self._changes.pop(sitting, None)
            sitting.ask(None)
            sitting.stopped.set()
            if sitting in self._waiting:
                self._waiting.remove(sitting)
                sitting.add(Moved("stopped", "before its turn came"))

    def sitting(self, owner: str, sitting_id: str) -> Sitting:
        """Return one of the owner's own designs.

        Raises:
            UsageError: the owner has none of that name; others' are not told from none.
        """
        with self._lock:
            found = self._sittings.get(owner, {}).get(sitting_id)
            if found is None:
                raise UsageError(
                    "wanted one of your designs, found none of that name; see the library"
                )
            self._remember(found)
        return found

    def boards(self, owner: str) -> Boards:
        """Return what an owner has put together under names."""
        _check_owner(owner)
        return Boards(self.data / owner / "boards.json")

    def sittings(self, owner: str) -> list[Sitting]:
        """Return all designs of an owner, the latest first."""
        with self._lock:
            own = list(self._sittings.get(owner, {}).values())
        return sorted(own, key=lambda s: (s.asked.at, s.id), reverse=True)

    def current(self, owner: str) -> Sitting | None:
        """Return what the owner has under way: the running one, else the first waiting."""
        open_ones = [s for s in self.sittings(owner) if s.is_open]
        running = [s for s in open_ones if s.status == "running"]
        return next(iter(running or reversed(open_ones)), None)

    def position(self, sitting: Sitting) -> int:
        """Return the place in the queue, 1 for the next; 0 if it is not waiting."""
        with self._lock:
            return self._waiting.index(sitting) + 1 if sitting in self._waiting else 0

    def _begin_branch(
        self, owner: str, first: Sitting, row: BatchRow, state: State, how: str
    ) -> Sitting:
        """Queue a design of its own that goes on from `state`, with the pictures drawn so far."""
        asked = Asked(row=row, at=time.time(), branched_from=first.id)
        sitting = Sitting.prepare(self.data / owner / _fresh_name(), asked)
        if (first.folder / "pictures").is_dir():
            shutil.copytree(first.folder / "pictures", sitting.folder / "pictures")
        sitting.lay_anew(state, how)
        sitting.settle()  # cut off before, it would begin anew and without the change
        self._of(owner)[sitting.id] = sitting
        self._line_up(sitting)
        return sitting

    def _remember(self, sitting: Sitting) -> None:
        """Keep the stories of those looked at last; the others are read again when asked for."""
        self._looked_at.pop(sitting, None)
        self._looked_at[sitting] = None
        if len(self._looked_at) > STORIES:
            oldest = next(iter(self._looked_at))
            del self._looked_at[oldest]
            if not oldest.is_open:
                oldest.rest()

    def _of(self, owner: str) -> dict[str, Sitting]:
        return self._sittings.setdefault(owner, {})

    def _found(self) -> Iterable[Sitting]:
        """Return every sitting on the disk, the oldest first."""
        found = [Sitting.find(path.parent) for path in self.data.glob("*/*/order.json")]
        return sorted((s for s in found if s is not None), key=lambda s: (s.asked.at, s.id))

    def _take_up(self, sitting: Sitting) -> None:
        """Queue what was waiting or under way when the server went."""
        if sitting.status == "running":
            remove_leftovers(sitting.target)
            if sitting.record is not None:  # it was cut off between its last two lines
                sitting.add(Moved("done"))
            elif sitting.stands_still:  # it may be what brings the server down
                sitting.add(Moved("interrupted", "the studio was restarted twice at this step"))
            else:
                sitting.lay_anew(*sitting.next_state, why=RESTARTED)
        elif sitting.status == "interrupted" and sitting.story.why == CLOSED:
            sitting.lay_anew(sitting.state)
        if sitting.status == "queued":
            self._waiting.append(sitting)
        sitting.rest()  # most are never looked at again

    def _check_room(self, n_own: int) -> None:
        if n_own >= MAX_EACH:
            raise UsageError(
                f"wanted room for one more design, {n_own} of yours are under way; "
                "stop one or wait for it"
            )
        if len(self._waiting) >= MAX_WAITING:
            raise UsageError(
                f"wanted room in the queue, {len(self._waiting)} designs are waiting; try later"
            )

    def _line_up(self, sitting: Sitting) -> None:
        self._waiting.append(sitting)
        self._lock.notify()

    def _work(self) -> None:
        """Open the models, then make one design after another until the desk closes."""
        self._opened()
        while (sitting := self._next()) is not None:
            make = self._opened()  # if that failed before, somebody may have mended it
            try:
                if make is None:
                    sitting.add(Moved("failed", self.note))
                else:
                    self._make(make, sitting)
            except Exception:  # the disk is full, say: the next design may find room
                logger.exception("what became of the design %s could not be kept", sitting.id)

    def _opened(self) -> MakeRow | None:
        """Return what makes designs, opened once; on failure None, and the note says why."""
        with self._opening:
            if self._make_row is None:
                try:
                    self._make_row = self._opener(self._tell)
                    self._tell("")
                except Exception as err:
                    logger.exception("the models could not be opened")
                    self._tell(_said(err))
            return self._make_row

    def _tell(self, text: str) -> None:
        """Keep what is being waited for: with the design that is made here, if any."""
        sitting = at_work.get()
        if sitting is None:
            self.note = text
        else:
            sitting.add(Noted(text))

    def _next(self) -> Sitting | None:
        """Wait for the next design; None once the desk closes."""
        with self._lock:
            while not self._closing:
                if self._waiting:
                    sitting = self._waiting.pop(0)
                    try:
                        sitting.add(Moved("running"))
                    except OSError:  # the disk is full, say: it waits until there is room
                        logger.exception("the design %s cannot be kept yet", sitting.id)
                        self._waiting.insert(0, sitting)
                        self._lock.wait(RETRY_S)
                        continue
                    return sitting
                self._lock.wait(WAIT_S)
        return None

    def _make(self, make: MakeRow, sitting: Sitting) -> None:
        """Make one design; whatever goes wrong is kept and the next one is made."""

        def on_event(event: Event) -> None:
            sitting.add(event)

        token = at_work.set(sitting)
        try:
            make(
                sitting.asked.row,
                sitting.target,
                on_event=on_event,
                cancelled=lambda: self._closing or sitting.stopped.is_set(),
            )
        except Cancelled:
            if sitting.stopped.is_set():
                end = Moved("stopped", "by you")
            else:
                end = Moved("interrupted", CLOSED)
        except Exception as err:
            logger.exception("the design %s failed", sitting.id)
            end = Moved("failed", _said(err))
        else:
            end = Moved("done")
        finally:
            at_work.reset(token)
        with self._lock, sitting.lock:  # or a change asked for just now would be lost
            if not self._goes_on_changed(sitting):
                sitting.add(end)

    def _goes_on_changed(self, sitting: Sitting) -> bool:
        """Queue a design again, as the next, if it was stopped to be changed."""
        with self._lock, sitting.lock:
            if sitting not in self._changes:
                return False
            change, how = self._changes.pop(sitting)
            try:
                sitting.lay_anew(change(_said_so_far(sitting)), how)
            except UsageError as err:
                sitting.add(Moved("stopped", f"it could not be changed: {err}"))
                return True
            self._waiting.insert(0, sitting)
            self._lock.notify()
            return True


def _after(first: Change, then: Change) -> Change:
    return lambda state: then(first(state))


def _said_so_far(sitting: Sitting) -> State:
    """Return the conversation as kept.

    Raises:
        UsageError: nothing was said.
    """
    state = sitting.state
    if state is None:
        raise UsageError(
            "wanted something to change, nothing was said yet; wait for the first turn"
        )
    return state


def _up_to_last_prompt(state: State, seed: int) -> State:
    """Return a branch that ends with the last prompt, to be drawn and judged and no more.

    Raises:
        UsageError: there is no prompt yet.
    """
    places = [n for n, step in enumerate(state.steps) if isinstance(step, PromptStep)]
    if not places:
        raise UsageError("wanted a prompt to draw, one of the two has none yet; wait for it")
    changed = branch(state, places[-1] + 1, seed=seed)
    return changed.model_copy(update={"rounds": len(places)})


def _row_for(row: BatchRow, seed: int, images: int) -> BatchRow:
    brief = row.brief.model_copy(update={"seed": seed})
    return row.model_copy(update={"brief": brief, "images": images})


def _root(own: Mapping[str, Sitting], sitting: Sitting) -> str:
    """Return the name of the design that everything in a family branched off."""
    seen: set[str] = set()
    name = sitting.id
    while name in own and own[name].asked.branched_from and name not in seen:
        seen.add(name)
        name = own[name].asked.branched_from
    return name


def _fresh_name() -> str:
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"


def _check_owner(owner: str) -> None:
    if not OWNER.fullmatch(owner):
        raise UsageError(f"wanted an owner in letters, digits, - and _; got {owner!r}")


def _said(err: Exception) -> str:
    """Return an error for the person at the page; a fault of ours names itself."""
    if isinstance(err, OrbweaveError):
        return str(err)
    return f"a fault of Orbweave itself, {type(err).__name__}: {err}"
