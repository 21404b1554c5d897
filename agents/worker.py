"""The thread that owns one loaded model and answers all requests to it together.

A request joins between two tokens of the others and leaves when it ends or is cancelled.
`agents.decoder` says why companions do not change what a reply says.
"""

from __future__ import annotations

import atexit
import logging
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from agents.decoder import Decoder
from agents.jobs import Scoring, Speech
from orbweave.errors import EngineError, shown
from orbweave.thread_team import dismissing_team

__all__ = ["Worker"]

_log = logging.getLogger(__name__)

_MAX_REPLIES = 32
"""Replies under way at once; more wait. Chosen by us: beyond it a step takes longer by as much
as the batch grows."""


class Worker:
    """Works on jobs until it is closed."""

    def __init__(self, decoder: Decoder, name: str) -> None:
        """Start the thread; `name` is the model, as errors show it."""
        self._decoder = decoder
        self._name = name
        self._inbox: queue.SimpleQueue[Speech | Scoring | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=f"engine {name}", daemon=True)
        self._thread.start()
        # A thread inside torch while the interpreter ends would abort the process.
        atexit.register(self.close)

    def submit(self, job: Speech | Scoring) -> None:
        """Take in a job; it is told when it is done.

        Raises:
            EngineError: the worker was closed.
        """
        with self._gate:  # a job put in behind the closing would wait for ever
            if self._closed:
                raise EngineError(f"wanted an answer of {self._name}, the engine is closed")
            self._inbox.put(job)

    def close(self) -> None:
        """Stop the thread, wait for its end and forget the model."""
        with self._gate:
            self._closed = True
            self._inbox.put(None)  # wakes the thread
        self._thread.join()
        atexit.unregister(self.close)

    # ---------------------------------------------------------------- on the worker's thread

    @torch.inference_mode()
    def _work(self) -> None:
        """Until closed: take in one job, make one token for every reply, and again."""
        speeches: list[Speech] = []
        while not self._closed:
            speeches = [speech for speech in speeches if not speech.ended]
            job = self._next_job(len(speeches))
            with dismissing_team():
                if isinstance(job, Scoring):
                    with self._blaming([job]):
                        job.succeed(self._decoder.score(job.prompt, job.options, job.adapter))
                elif job is not None:
                    with self._blaming([job]):
                        job.begin(self._decoder)
                    speeches.append(job)
                elif speeches:
                    with self._blaming(speeches):
                        self._step(speeches)
        del self._decoder

    def _next_job(self, n_speeches: int) -> Speech | Scoring | None:
        """Return the next job; None if there is none while replies are under way."""
        if n_speeches >= _MAX_REPLIES:
            return None
        try:
            return self._inbox.get(block=n_speeches == 0)
        except queue.Empty:
            return None

    def _step(self, speeches: Sequence[Speech]) -> None:
        """Make one token for each reply under way."""
        tokens = [speech.last_token for speech in speeches]
        logits = self._decoder.step([speech.sequence for speech in speeches], tokens)
        for speech, row in zip(speeches, logits, strict=True):
            with self._blaming([speech]):
                speech.take(row)

    @contextmanager
    def _blaming(self, jobs: Sequence[Speech | Scoring]) -> Iterator[None]:
        """Give a failure to the jobs it hit; the thread and the other jobs go on."""
        try:
            yield
            return
        except EngineError as err:
            failure = err
        except Exception as err:
            _log.exception("%s failed", self._name)
            failure = EngineError(f"wanted an answer of {self._name}, it failed: {shown(err)}")
            failure.__cause__ = err
        for job in jobs:
            job.fail(failure)
