"""The rows of a batch on all machines of a Ray cluster; the one file that touches Ray.

One process a machine by default (an actor that holds the machine's processors and GPUs) takes
rows from the store by itself, as a second `orbweave batch` on the same folder would. So nothing
is pushed to a machine that has no room, and a row is never made twice: the leases in the store
are what keeps rows apart, here as everywhere. Ray starts a process that was lost again, where
there is room; its rows return to the queue (`orbweave.leases`).
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from orbweave.errors import OrbweaveError, OutputError, UsageError, shown
from orbweave.job import State
from orbweave.jobs import Jobs, open_jobs
from ui.batch import RECORD, MakeRow, OnProgress, Progress, work_on
from ui.environment import cores

__all__ = ["LOCAL", "work_on_cluster"]

logger = logging.getLogger(__name__)

LOCAL = "local"
"""In place of an address: start a cluster of this machine alone."""
LOSSES = 20
"""So often Ray starts one process again before its part of the work is given up; chosen by us:
a row that kills whoever makes it has failed after 10."""
LOOK_S = 1.0
KNOCK_S = 5.0
_UNENDED: frozenset[State] = frozenset({"queued", "running"})
OBJECTS_BYTES = 100_000_000
"""Memory of a local cluster's object store; only numbers travel through it."""


class _Seat(NamedTuple):
    """What one process holds of its machine."""

    cpus: float
    gpus: float
    n: int
    """Processes on the whole cluster."""


def work_on_cluster(
    jobs: Jobs,
    batch: int,
    open_maker: Callable[[], MakeRow],
    *,
    address: str,
    per_node: int = 1,
    at_once: int = 1,
    on_progress: OnProgress = lambda *_: None,
) -> dict[State, int]:
    """Make the rows of a batch on a cluster; return how many are in each state.

    Args:
        jobs: The store; every machine must reach it.
        batch: Number of the batch; its folder must be the same on every machine.
        open_maker: Called once in each process; Ray pickles it.
        address: Of the cluster: `host:port`, `ray://...`, `auto`, or `local`.
        per_node: Processes on each machine; they share its processors and GPUs evenly.
        at_once: Rows under way at the same time in each process.
        on_progress: Is told how far the whole batch is.

    Raises:
        UsageError: Ray is not installed, or a machine cannot reach the store.
        OutputError: a disk is full, or a machine does not see the batch's folder.
        OrbweaveError: the cluster cannot be reached.
    """
    progress = Progress(jobs, batch, on_progress)
    with _connected(address, per_node) as ray:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        _check_store(jobs, nodes)
        seat = _seat([node["Resources"] for node in nodes], per_node)
        hand = ray.remote(
            num_cpus=seat.cpus,
            num_gpus=seat.gpus,
            max_restarts=LOSSES,
            max_task_retries=LOSSES,
            scheduling_strategy="SPREAD",
        )(_Hand)
        folder = jobs.get(batch).key
        hands = [hand.remote(jobs.store.address, folder, open_maker) for _ in range(seat.n)]
        try:
            _watch(ray, [each.work.remote(batch, at_once) for each in hands], jobs, batch, progress)
        finally:
            for each in hands:
                ray.kill(each)
    return progress.end()


class _Hand:
    """One process that makes rows."""

    def __init__(self, store: str, folder: str, open_maker: Callable[[], MakeRow]) -> None:
        self._store, self._folder, self._open_maker = store, folder, open_maker

    def work(self, batch: int, at_once: int) -> dict[State, int]:
        """Make rows until none is left; called again in a new process after a loss."""
        if not (Path(self._folder) / RECORD).is_file():
            raise OutputError(
                f"wanted the batch in {self._folder} on every machine, {os.uname().nodename} "
                "does not see it; put it on a shared file system"
            )
        with closing(open_jobs(self._store).store) as store:
            return work_on(Jobs(store), batch, self._open_maker(), at_once=at_once)


@contextmanager
def _connected(address: str, per_node: int) -> Iterator[Any]:
    """Yield the module `ray`, connected to a cluster.

    Raises:
        UsageError: it is not installed.
        OrbweaveError: there is no cluster at the address.
    """
    try:
        import ray
    except ImportError as err:
        raise UsageError(
            "wanted Ray for --ray, it is not installed; run: pip install 'ray>=2.60,<3'"
        ) from err
    if address not in (LOCAL, "auto"):
        _check_reachable(address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address == LOCAL:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would phone home
            n_cpus = max(cores(), per_node)
            ray.init(
                address="local", num_cpus=n_cpus, object_store_memory=OBJECTS_BYTES,
                include_dashboard=False, **quiet,
            )  # fmt: skip
        else:
            ray.init(address=address, **quiet)
    except (ValueError, RuntimeError, OSError) as err:
        raise _no_cluster(address, err) from err
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Knock at the address: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()
    except (OSError, ValueError) as err:
        raise _no_cluster(address, err) from err


def _no_cluster(address: str, err: Exception) -> OrbweaveError:
    return OrbweaveError(
        f"wanted a Ray cluster at {shown(address)}, the answer was {shown(err, 160)}; "
        "start one with `ray start --head`, or give --ray local"
    )


def _check_store(jobs: Jobs, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a SQLite file for several machines: its log does not work over a network."""
    hosts = {node["NodeManagerAddress"] for node in nodes}
    if jobs.store.file is not None and len(hosts) > 1:
        raise UsageError(
            f"wanted a store that {len(hosts)} machines can reach, got the file "
            f"{jobs.store.place}; set ORBWEAVE_STORE to postgresql://user@host/name"
        )


def _seat(machines: Sequence[Mapping[str, float]], per_node: int) -> _Seat:
    """Share out the machines that make rows: those with GPUs if there are any, else all.

    A process claims what the smallest of them can give, so that as many fit on each.

    Raises:
        UsageError: the smallest machine has fewer processors than processes.
    """
    gpus = min((m["GPU"] for m in machines if m.get("GPU")), default=0.0)
    able = [m for m in machines if m.get("CPU") and (m.get("GPU") or not gpus)]
    cpus = min((m["CPU"] for m in able), default=0.0) // per_node
    if cpus < 1:
        raise UsageError(
            f"wanted a processor for each of {per_node} processes a machine, the smallest of "
            f"{len(machines)} has too few; give a smaller --engines-per-node"
        )
    # Ray takes whole GPUs, or a share of one.
    share = gpus / per_node
    return _Seat(cpus, share if share < 1 else float(int(share)), len(able) * per_node)


def _watch(ray: Any, running: list[Any], jobs: Jobs, batch: int, progress: Progress) -> None:
    """Tell how far the batch is until it is over.

    A process whose machine is gone waits for room on another; if there is none it is not waited
    for: the batch is over when no row is left to make.

    Raises:
        OrbweaveError: what ended a process by itself, or all were lost.
    """
    while running and jobs.tally(batch).keys() & _UNENDED:
        ended, running = ray.wait(running, timeout=LOOK_S)
        for each in ended:
            try:
                ray.get(each)
            except ray.exceptions.RayTaskError as err:
                raise _cause(err) from err
            except ray.exceptions.RayActorError as err:
                logger.warning("a process of the cluster is lost for good: %s", shown(err, 200))
        progress.tell()
    if jobs.tally(batch).keys() & _UNENDED:
        raise OrbweaveError(
            f"wanted the batch to its end, the cluster lost every process {LOSSES} times; "
            "look at Ray's logs and run the command again, it goes on where it was"
        )


def _cause(err: Any) -> BaseException:
    """Return the error of ours behind one of Ray's."""
    cause = getattr(err, "cause", None)
    return cause if isinstance(cause, OrbweaveError) else err
