"""What the merge page shows and does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from merging.recipe import PROFILES
from orbweave.errors import OrbweaveError, UsageError, shown
from ui.studio.mix import DEPTHS, KINDS, Curve, Mix, Tour, called, curves_of, offered
from ui.studio.mixer import Kind, Mixer, Task
from ui.studio.rooms import Ask, Part, Seen
from ui.template import environment

__all__ = ["MergeRoom"]

TEMPLATE = "merge.html.j2"
WIDTH, HEIGHT = 320, 120
"""Of the picture of a profile, in its own units."""
LABELS = {"self_attn": "attention", "mlp": "MLP", "rest": "all others"}


class MergeRoom:
    """Two models are compared, mixed, saved, and tried on the slider.

    Args:
        mixer: Does it.
        takes_any: Whether people may name any model on this machine, by its folder for one;
            else those of the catalogue and merges of their own. Only for a studio that nobody
            reaches who could not read the machine's files anyway.
    """

    def __init__(self, mixer: Mixer, *, takes_any: bool = False) -> None:
        self._mixer = mixer
        self._takes_any = takes_any

    def look(self, owner: str, asked: Ask) -> Seen:
        """Return the mixing desk, the recipe it stands for, and what is looked at.

        Raises:
            OrbweaveError: there is none of that name.
        """
        template = _template()
        task = self._mixer.find(owner, asked.at) if asked.at else None
        key = f"desk-{task.id}" if task else "desk"
        # What a form of another task holds is not meant here.
        fields = asked.fields if key in asked.known else {}
        saved = self._mixer.saved(owner)
        parts = [
            Part(key, self._desk(task, saved)),
            Part("recipe", _recipe(self._mix_of(fields, task, saved))),
            Part("try", template.deeds(task.record.tour if task else None)),
        ]
        if task is not None:
            parts += self._task(task)
        parts.append(Part("list", template.every(self._mixer.all(owner), asked.at)))
        folder = str(self._mixer.models(owner))
        parts.append(Part("saved", template.saved(list(saved.values()), folder)))
        is_busy = task is not None and task.status in ("queued", "running")
        return Seen(parts, is_busy)

    def act(self, owner: str, asked: Ask) -> str:
        """Compare, save, try, stop or go on; return the task to look at then.

        Raises:
            OrbweaveError: it cannot be done.
        """
        if asked.do == "stop":
            self._mixer.stop(self._mixer.find(owner, asked.at))
            return asked.at
        if asked.do == "again":
            return self._mixer.again(owner, asked.at).id
        kinds: Mapping[str, Kind] = {"compare": "compare", "save": "save", "slide": "slide"}
        if asked.do not in kinds:
            raise UsageError(f"wanted something to do with models, got {shown(asked.do)}")
        tour = Tour.read(asked.fields) if asked.do == "slide" else None
        saved = self._mixer.saved(owner)
        name = asked.fields.get("name", "")
        mix = Mix.read(asked.fields, saved, takes_any=self._takes_any)
        return self._mixer.ask(owner, kinds[asked.do], mix, tour=tour, name=name).id

    def file(self, owner: str, name: str, path: str) -> tuple[Path, str] | None:
        """Return a picture to show, or the recipe for download."""
        found = self._mixer.find(owner, name).file(path)
        if found is None:
            return None
        return found, found.name if found.suffix == ".yaml" else ""

    def _desk(self, task: Task | None, saved: Mapping[str, str]) -> str:
        mix = task.record.mix if task else _usual()
        profiles = [*PROFILES, "own"]
        on_offer = offered(), saved, self._takes_any
        return str(_template().desk(mix, *on_offer, profiles, KINDS, DEPTHS, LABELS))

    def _mix_of(
        self, fields: Mapping[str, str], task: Task | None, saved: Mapping[str, str]
    ) -> Mix | str:
        """Return the mix of the form as it stands, or in words why it is none."""
        if not fields:
            return task.record.mix if task else _usual()
        try:
            return Mix.read(fields, saved, takes_any=self._takes_any)
        except OrbweaveError as err:
            return str(err)

    def _task(self, task: Task) -> list[Part]:
        template = _template()
        parts = [Part(f"task-{task.id}", template.task(task, self._mixer.position(task)))]
        if task.record.findings or task.record.advice or task.geometry:
            parts.append(Part("geometry", template.geometry(task)))
        if task.record.tour is not None:
            parts.append(Part("slider", template.slider(task, task.record.tour)))
        return parts


def _usual() -> Mix:
    """Return what the page begins with: the default model and the next one."""
    first, second, *_ = offered()
    return Mix(first=first, second=second)


def _recipe(mix: Mix | str) -> str:
    """Return the profile as a picture and as YAML."""
    template = _template()
    if isinstance(mix, str):
        return str(template.fault(mix))
    recipe = mix.recipe
    text = recipe.to_yaml()
    lines = [(curve.kind, _path(curve)) for curve in curves_of(recipe)]
    address = f"data:application/yaml;charset=utf-8,{quote(text)}"
    return str(template.recipe(text, address, lines, LABELS, WIDTH, HEIGHT, mix))


def _path(curve: Curve) -> str:
    """Return a curve as points of an SVG line; t = 1 is at the top."""
    return " ".join(f"{WIDTH * depth:.1f},{HEIGHT * (1 - t):.1f}" for depth, t in curve.points)


@cache
def _template() -> Any:
    """Return the template's macros; reading it takes some milliseconds, so it is read once."""
    pages = environment("ui.studio", "assets")
    pages.filters["called"] = called
    return pages.get_template(TEMPLATE).module
