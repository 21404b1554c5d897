"""The process edge of `orbweave`: arguments in, one exit code out.

    0    done
    1    failed
    2    used wrongly
    130  interrupted

Everything a person can mend is told in one line on stderr; `--debug` or ORBWEAVE_DEBUG=1
shows the traceback as well. Only the standard library is imported before `main` runs, so
that Ctrl-C during the slow imports is answered as politely as later.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from types import FrameType
from typing import TextIO

__all__ = ["main", "run"]

INTERRUPTED = 130


def main() -> None:
    """Run the command line and leave the process."""
    try:
        signal.signal(signal.SIGTERM, _as_interrupt)
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = INTERRUPTED
    _leave(code)


def run(argv: Sequence[str]) -> int:
    """Run one command and return its exit code; errors are printed, not raised."""
    debug = "--debug" in argv or bool(os.environ.get("ORBWEAVE_DEBUG"))
    try:
        return _command(argv, debug)
    except BrokenPipeError:
        return 0  # the reader, `head` for one, has seen enough
    except BaseException as err:
        if isinstance(err, SystemExit):
            raise
        if debug and not _is_interrupt(err):
            import traceback

            traceback.print_exc()
        code, line = _verdict(err)
        print(line, file=sys.stderr)
        return code


def _command(argv: Sequence[str], debug: bool) -> int:
    from ui.commands import build

    _set_up_logging(debug)
    code = build(debug=debug)(args=list(argv), prog_name="orbweave", standalone_mode=False)
    if code == INTERRUPTED:  # Typer answers Ctrl-C itself, without a word
        raise KeyboardInterrupt
    sys.stdout.flush()
    return code if isinstance(code, int) else 0


def _set_up_logging(debug: bool) -> None:
    """Send our log to stderr; the libraries' remarks only if somebody debugs."""
    handler = _StderrHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO if debug else logging.WARNING, handlers=[handler])
    if not debug:
        warnings.simplefilter("ignore")


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is now: the terminal view replaces it while it draws."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def _verdict(err: BaseException) -> tuple[int, str]:
    """Return the exit code and the one line that says what went wrong."""
    if _is_interrupt(err):
        return INTERRUPTED, "orbweave: interrupted; nothing half made was kept"
    from typer import TyperException

    from orbweave.errors import OrbweaveError

    if isinstance(err, OrbweaveError):
        return err.exit_code, f"orbweave: {_one_line(str(err))}"
    if isinstance(err, TyperException):
        return err.exit_code, f"orbweave: {_one_line(err.format_message())}{_hint(err)}"
    if isinstance(err, MemoryError):
        return 1, "orbweave: wanted more memory than there is; ask for fewer or smaller pictures"
    if isinstance(err, OSError) and err.strerror:
        where = f" ({err.filename})" if err.filename else ""
        return 1, f"orbweave: the system said {err.strerror!r}{where}; mend that and try again"
    name = type(err).__name__
    return 1, (
        f"orbweave: a fault of Orbweave itself, {name}: {_one_line(str(err))[:300]}; "
        "run it again with --debug and report what it shows"
    )


def _hint(err: BaseException) -> str:
    """Name the help page of the command that was used wrongly."""
    context = getattr(err, "ctx", None)
    command = context.command_path if context else "orbweave"
    return f"; `{command} --help` lists what it takes (put -- before a text that begins with -)"


def _is_interrupt(err: BaseException | None) -> bool:
    """Tell whether a Ctrl-C lies behind `err`; libraries like to wrap it during imports."""
    seen: set[int] = set()
    while err is not None and id(err) not in seen:
        if isinstance(err, KeyboardInterrupt):
            return True
        seen.add(id(err))
        err = err.__cause__ or err.__context__
    return False


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split()).rstrip(".")


def _as_interrupt(signum: int, frame: FrameType | None) -> None:
    """Answer SIGTERM as Ctrl-C, so that a stopped batch job cleans up too.

    A shell has what it starts in the background ignore Ctrl-C itself, so none is sent: whoever
    would answer it, the event loop for one, is called.
    """
    answer = signal.getsignal(signal.SIGINT)
    if not callable(answer):
        raise KeyboardInterrupt
    answer(signal.SIGINT, frame)


def _leave(code: int) -> None:
    """Flush and exit.

    After an interrupt the process leaves at once: a thread that is still loading weights
    cannot be stopped and must not hold the terminal. All clean-up has run by then.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        # A closed pipe: point stdout at nothing, or the interpreter complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if code == INTERRUPTED:
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
