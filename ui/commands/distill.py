"""`orbweave distill CORPUS`: a teacher model rewrites a corpus into rows to train on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ui.commands import options
from ui.commands.choice import one_of

if TYPE_CHECKING:
    from agents.generation import Engine
    from training.distill import Bill
    from training.rows import Turn
    from training.teacher import OpenAITeacher, Teacher

__all__ = ["EngineTeacher", "distill"]

_KINDS = "qa,record,properties,summary,preference"
_REPLY_TOKENS = 2_048
_CHARS_PER_TOKEN = 3
"""Of text that must fit a local model's context; English has four, numbers and names fewer."""


def distill(
    corpus: Annotated[
        Path,
        typer.Argument(
            metavar="CORPUS", help="Folder made by `orbweave ingest`.", show_default=False
        ),
    ],
    teacher: Annotated[
        str,
        typer.Option(
            help="Model that writes: http://host:port/v1#name, or any model reference. A server's "
            "key is read from OPENAI_API_KEY.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Folder of the rows; an interrupted run there is gone on with."
        ),
    ] = Path("distilled"),
    kinds: Annotated[str, typer.Option(help="What to write, with commas between.")] = _KINDS,
    passes: Annotated[
        int, typer.Option(min=1, max=100, help="Times each passage is rewritten, without copies.")
    ] = 1,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Requests under way at once.")] = 1,
    tries: Annotated[
        int, typer.Option(min=1, max=20, help="Requests at most for one usable reply.")
    ] = 3,
    temperature: Annotated[
        float, typer.Option(min=0.0, max=2.0, help="Softmax temperature of the teacher.")
    ] = 0.7,
    price: Annotated[
        str,
        typer.Option(
            metavar="IN,OUT",
            help="Price of a million tokens of prompt and of reply, to show the cost.",
            show_default=False,
        ),
    ] = "",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask again for what failed in an earlier run.")
    ] = False,
    seed: options.Seed = 0,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Let a teacher model write questions, records, properties, summaries and preferences.

    Example: orbweave distill corpus --teacher http://localhost:8000/v1#qwen --passes 5 --dry-run
    """
    from training.distill import KINDS, WINDOW_CHARS, estimate
    from training.distill import distill as rewrite
    from ui.answer import Answer
    from ui.bar import bar

    answer = Answer(as_json=as_json, quiet=quiet)
    wanted = [one_of("--kinds", kind.strip(), KINDS) for kind in kinds.split(",") if kind.strip()]
    prices = _prices(price)
    if dry_run:
        expected = estimate(corpus, out, wanted, passes, force=force)
        answer.line(_told("estimate", expected, prices))
        plan = {"estimate": _billed(expected, prices), "out": str(out)}
        answer.end(plan, f"dry run: would write {out}")
        return
    with _open_teacher(teacher, temperature, answer.note) as local:
        window = min(WINDOW_CHARS, local.window_chars or WINDOW_CHARS)
        expected = estimate(corpus, out, wanted, passes, window_chars=window, force=force)
        answer.note(_told("estimate", expected, prices))
        with nullcontext(_silent) if quiet else bar("distilling", "pass") as on_progress:
            outcome = rewrite(
                corpus,
                local.teacher,
                out,
                wanted,
                passes,
                seed=seed,
                tries=tries,
                workers=workers,
                window_chars=window,
                retry_failed=retry_failed,
                force=force,
                on_progress=on_progress,
            )
        counted = local.counted()
    document = {
        "written": str(out),
        "rows": outcome.rows,
        "failures": outcome.failures,
        "files": [str(path) for path in outcome.files],
        "estimate": _billed(expected, prices),
        "asked": _billed(outcome.bill, prices),
        "server_counted": _billed(counted, prices) if counted else None,
    }
    for kind, count in outcome.rows.items():
        answer.line(f"{kind:<11} {count:>8,} rows")
    answer.line(f"{'failures':<11} {outcome.failures:>8,}")
    answer.line(_told("asked", outcome.bill, prices))
    if counted:
        answer.line(_told("this run, by the server's count", counted, prices))
    answer.end(document, f"rows written to {out}")


def _silent(done: int, total: int) -> None:
    """Draw no bar."""


def _prices(text: str) -> tuple[float, float] | None:
    """Return (prompt, reply) prices of a million tokens; None where nobody asked.

    Raises:
        UsageError: not two numbers.
    """
    from orbweave.errors import UsageError, shown

    if not text:
        return None
    try:
        asked, said = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"wanted --price as two numbers such as 0.15,0.60, got {shown(text)}"
        ) from None
    return asked, said


def _billed(bill: Bill, prices: tuple[float, float] | None) -> dict[str, Any]:
    return {**bill._asdict(), "cost": round(bill.cost(prices), 4) if prices else None}


def _told(what: str, bill: Bill, prices: tuple[float, float] | None) -> str:
    cost = f", cost {bill.cost(prices):,.2f}" if prices else ""
    return (
        f"{what}: {bill.requests:,} requests, about {bill.prompt_tokens:,} tokens of prompt and "
        f"{bill.reply_tokens:,} of reply{cost}"
    )


# ---------------------------------------------------------------- teachers


@dataclass(frozen=True)
class _Local:
    """An open teacher and what is known of it."""

    teacher: Teacher
    window_chars: int | None = None
    """Longest text that fits its context; None if unknown."""
    counted: Callable[[], Bill | None] = lambda: None
    """Tokens as a server counts them."""


@contextmanager
def _open_teacher(
    reference: str, temperature: float, note: Callable[[str], None]
) -> Iterator[_Local]:
    """Yield the model a reference names; closed at the end."""
    from merging.build import resolve_model
    from orbweave.models import ModelRef
    from training.teacher import OpenAITeacher

    ref = ModelRef.parse(reference)
    if ref.kind == "endpoint":
        server = OpenAITeacher(
            str(ref.url), ref.name, temperature=temperature, max_tokens=_REPLY_TOKENS
        )
        try:
            yield _Local(server, counted=lambda: _served(server))
        finally:
            server.close()
        return
    folder = resolve_model(ref, note)
    from agents.engine import TransformersEngine

    engine = TransformersEngine(folder, str(ref))
    left = engine.context_tokens - _REPLY_TOKENS
    with EngineTeacher(engine, temperature) as teacher:
        yield _Local(teacher, window_chars=max(1, left * _CHARS_PER_TOKEN))


def _served(server: OpenAITeacher) -> Bill | None:
    """Return the bill by the server's count; None if it gives none."""
    from training.distill import Bill

    if not server.prompt_tokens:
        return None
    return Bill(server.requests, server.prompt_tokens, server.reply_tokens)


class EngineTeacher:
    """An engine of `agents` as a `training.teacher.Teacher`; closes it at the end.

    The engine's coroutines run on a loop of their own, so that several threads may ask.
    """

    def __init__(self, engine: Engine, temperature: float) -> None:
        self._engine, self._temperature = engine, temperature
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> EngineTeacher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._engine.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def name(self) -> str:
        """The model reference, as the rows show it."""
        return self._engine.model

    def __call__(self, messages: Sequence[Turn], seed: int) -> str:
        """Return the reply to a chat; raises EngineError."""
        from agents.generation import Generation, Message, Sampling

        request = Generation(
            messages=tuple(Message(turn.role, turn.content) for turn in messages),
            sampling=Sampling(self._temperature, top_p=0.95, top_k=0, repetition_penalty=1.0),
            max_new_tokens=_REPLY_TOKENS,
            seed=seed,
        )
        reply = asyncio.run_coroutine_threadsafe(self._engine.generate(request), self._loop)
        return reply.result().text
