"""Digests of the files that go into a merge: found beside it, and remembered.

    hash_at_once(files)
    digest(files[0])   # "blake3:9f86d0...", of a file in the Hub's cache "sha256:..."
    sha256(files[0])   # the digits alone; what answers are kept by

`b3sum` and `sha256sum` print the same digits.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from blake3 import blake3

from orbweave.errors import OutputError
from orbweave.files import sha256_file, write_text
from orbweave.paths import cache_root

__all__ = ["digest", "digest_of_all", "hash_at_once", "sha256"]

_log = logging.getLogger(__name__)

_SMALL_BYTES = 1 << 24
"""Digests of files up to this size are computed each time."""
_BLOCK_BYTES = 1 << 18
"""Stays in the processor's cache between reading and hashing."""


def digest(path: Path) -> str:
    """Return the name of a hash function and a file's digest.

    That of a large file is remembered until its size or time of change is another.

    Raises:
        OSError: the file cannot be read.
    """
    name = _name_in_hub(path)
    return f"sha256:{name}" if name else _remembered(path, "", _hash)


def sha256(path: Path) -> str:
    """Return a file's SHA-256 as 64 hex digits, remembered likewise; raises as `digest`."""
    return _name_in_hub(path) or _remembered(path, "-sha256", sha256_file)


def digest_of_all(files: Iterable[Path]) -> str:
    """Return one digest of several files: the file's own where there is just one.

    Else it is that of their digests in the order given, one a line.
    """
    digests = [digest(path) for path in files]
    if len(digests) == 1:
        return digests[0]
    lines = "\n".join(digests)
    return f"blake3:{blake3(lines.encode()).hexdigest()}"


def hash_at_once(files: Sequence[Path]) -> None:
    """Hash files, one on each core, the largest first; the digests of large ones are remembered.

    Beside a merge, whichever of the two is done first leaves its cores to the other.

    Raises:
        OSError: a file cannot be read.
    """
    waiting = sorted(set(files), key=lambda path: path.stat().st_size)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            while not failures:
                digest(waiting.pop())
        except IndexError:
            pass  # nothing is left
        except BaseException as err:  # raised again where the digests are waited for
            failures.append(err)

    # Not a pool, whose threads would hold up the end of a process whose merge has failed.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(os.cpu_count() or 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _name_in_hub(path: Path) -> str | None:
    """Return the SHA-256 by which the Hugging Face cache names large files; None of others."""
    blob = path.resolve()
    is_hash = blob.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", blob.name)
    return blob.name if is_hash else None


def _remembered(path: Path, kind: str, compute: Callable[[Path], str]) -> str:
    """Return what was found for a large file as it is now, or find it and note it."""
    stat = path.stat()
    if stat.st_size <= _SMALL_BYTES:
        return compute(path)
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
    note = cache_root() / "digests" / f"{place}{kind}.json"
    try:
        known = json.loads(note.read_bytes())
        if known[:2] == [stat.st_size, stat.st_mtime_ns]:
            return str(known[2])
    except (OSError, ValueError, TypeError):
        pass
    found = compute(path)
    try:
        write_text(note, json.dumps([stat.st_size, stat.st_mtime_ns, found]) + "\n")
    except OutputError as err:  # a whole merge would be lost for want of a note
        _log.warning("the hash of %s will be computed again next time: %s", path, err)
    return found


def _hash(path: Path) -> str:
    """Return a file's BLAKE3, three times as fast to find as its SHA-256."""
    hasher, block = blake3(), memoryview(bytearray(_BLOCK_BYTES))
    with path.open("rb", buffering=0) as file:
        while n := file.readinto(block):
            hasher.update(block[:n])
    return f"blake3:{hasher.hexdigest()}"
