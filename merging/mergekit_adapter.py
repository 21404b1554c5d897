"""mergekit, for methods and vocabularies that are not merged here; the one file that imports it.

It runs in a process of its own: it seeds the global random generators, keeps every file it has
opened, and can then be stopped. It ends with the process that started it, even a killed one.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from merging.recipe import Recipe
from orbweave.errors import Cancelled, ModelError, OutputError, shown

__all__ = ["run"]

_COMMAND = (sys.executable, "-m", "merging.mergekit_adapter")
SEED = 42
"""For the methods that drop weights at random (DARE, DELLA): the same merge every time."""


def run(
    recipe: Recipe,
    folders: Mapping[str, Path],
    out: Path,
    *,
    partial: bool = False,
    on_progress: Callable[[str], None] = lambda _: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> None:
    """Let mergekit merge into the folder `out`.

    Args:
        recipe: In mergekit's own words, but for the models' names.
        folders: Each model of the recipe as a plain folder.
        out: An existing folder.
        partial: Let it mix architectures (its `allow_crimes`).
        on_progress: Is told how far it is.
        is_cancelled: Is asked five times a second.

    Raises:
        ModelError: mergekit failed; holds its last line.
        OutputError: the disk is full.
        Cancelled: `is_cancelled` said so.
    """
    on_progress(f"mergekit merges by {recipe.merge_method}; loading it takes some seconds")
    with tempfile.TemporaryDirectory() as place:
        # Links without + and @ in their names, to which mergekit gives a meaning.
        links = {name: Path(place) / f"model-{i}" for i, name in enumerate(folders)}
        for name, link in links.items():
            link.symlink_to(folders[name].resolve(), target_is_directory=True)
        config = Path(place) / "recipe.yaml"
        config.write_text(recipe.renamed({n: str(link) for n, link in links.items()}).to_yaml())
        arguments = [str(config), str(out), *(["--partial"] if partial else [])]
        told = _run_child(arguments, on_progress, is_cancelled)
        for name, link in links.items():
            told = told.replace(str(link), name)
    if os.strerror(errno.ENOSPC) in told:
        raise OutputError(
            "wanted to write the merged model, mergekit found the disk full; free some space or "
            "choose another place"
        )
    if told:
        raise ModelError(f"wanted a merge by mergekit, it said {shown(told, 300)}; mend the recipe")


def _run_child(
    arguments: list[str], on_progress: Callable[[str], None], is_cancelled: Callable[[], bool]
) -> str:
    """Return the last line of a mergekit that failed, nothing of one that did not."""
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    child = subprocess.Popen(
        [*_COMMAND, *arguments],
        env=os.environ | {"PYTHONPATH": path, "PYTHONWARNINGS": "ignore"},
        stdin=subprocess.PIPE,  # closed by the system when this process ends, see _end_with_parent
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    lines: list[str] = []  # the last few

    def listen() -> None:
        told = ""
        for line in child.stderr or ():  # a bar's \r ends a line too
            lines[:] = [*lines[-20:], line.strip()]
            found = re.search(r"Executing graph:\s+(\d)\d%", line)
            if found and found[1] != told:
                told = found[1]
                on_progress(f"mergekit: {told}0 %")

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        while child.poll() is None:
            listener.join(timeout=0.2)
            if not listener.is_alive():
                child.wait()
            if is_cancelled():
                raise Cancelled("the merge was stopped; nothing half made was kept")
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
        listener.join()
        for pipe in filter(None, (child.stdin, child.stderr)):
            pipe.close()
    if child.returncode == 0:
        return ""
    return next((line for line in reversed(lines) if line), "nothing")


def _end_with_parent() -> None:
    """End this process when the one that started it does: nobody waits for the merge then."""

    def watch() -> None:
        os.read(0, 1)  # nothing ever comes, so it returns when the other end is closed
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _main(config: str, out: str, *flags: str) -> None:
    """Run mergekit in this process."""
    _end_with_parent()
    from mergekit.config import MergeConfiguration  # type: ignore[import-untyped]
    from mergekit.merge import run_merge  # type: ignore[import-untyped]
    from mergekit.options import MergeOptions  # type: ignore[import-untyped]

    content = yaml.safe_load(Path(config).read_text("utf-8"))
    options = MergeOptions(
        device="cpu",
        copy_tokenizer=True,
        lazy_unpickle=True,
        write_model_card=False,
        random_seed=SEED,
        allow_crimes="--partial" in flags,
    )
    run_merge(MergeConfiguration.model_validate(content), out, options=options)


if __name__ == "__main__":
    _main(*sys.argv[1:])
