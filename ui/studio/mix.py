"""What the merge page may ask for: two models, a profile of t over depth, one place or many."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import ConfigDict, Field, ValidationError

from merging.recipe import PROFILES, Input, Recipe, value_at
from orbweave.errors import ModelError, UsageError, shown
from orbweave.models import ModelRef, cached_folder, catalogue_entry, lineage, list_models
from orbweave.records import Record, clean_concept
from orbweave.weights import check_folder

__all__ = [
    "DEPTHS",
    "KINDS",
    "Curve",
    "Mix",
    "Tour",
    "called",
    "check_here",
    "common_base",
    "curves_of",
    "offered",
]

SIDES = ("first", "second")
KINDS = ("self_attn", "mlp", "rest")
DEPTHS = ("first", "middle", "last")
"""Where the own profile has its points; between them t goes in straight lines."""
Share = Annotated[float, Field(ge=0.0, le=1.0)]
POINTS = 41
"""Places at which a profile is drawn."""


class Curve(NamedTuple):
    """How t goes with depth for one kind of weight."""

    kind: str
    points: list[tuple[float, float]]
    """(depth, t), both in [0, 1]."""


class Mix(Record):
    """Two models and how much of the second goes where."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    first: str
    second: str
    profile: Literal["paper", "linear", "constant", "own"] = "paper"
    t: Share = 0.5
    """For the constant profile."""
    self_attn_first: Share = 0.5
    self_attn_middle: Share = 0.5
    self_attn_last: Share = 0.5
    mlp_first: Share = 0.5
    mlp_middle: Share = 0.5
    mlp_last: Share = 0.5
    rest_first: Share = 0.5
    rest_middle: Share = 0.5
    rest_last: Share = 0.5

    @classmethod
    def read(
        cls,
        fields: Mapping[str, str],
        saved: Collection[str] = (),
        *,
        takes_any: bool = False,
    ) -> Mix:
        """Return the mix of a form.

        Args:
            fields: Its fields; where none of the models on offer is chosen, `other_first` and
                `other_second` name the models.
            saved: Folders of the owner's merges, on offer beside the catalogue.
            takes_any: Whether any model on this machine may be named; else those on offer.

        Raises:
            UsageError: a field is out of its range, or a model is not on offer.
            ModelError: a model is not on this machine, or damaged.
        """
        named = {side: fields.get(side) or fields.get(f"other_{side}", "") for side in SIDES}
        try:
            mix = cls.model_validate({**fields, **named})
        except ValidationError as err:
            raise _told(err) from err
        known = offered()
        for name in (mix.first, mix.second):
            if name not in known and name not in saved:
                if not takes_any:
                    raise UsageError(
                        f"wanted a model of {', '.join(known)} or a merge of yours, "
                        f"got {shown(name)}"
                    )
                check_here(ModelRef.parse(name))
        ModelRef.parse(mix.at(0.5))  # a folder with a comma in its name cannot be written so
        return mix

    def at(self, t: float) -> str:
        """Return the reference of the merge at one place between the two, the same t for all."""
        return f"slerp({self.first}, {self.second}, t={t:g})"

    @property
    def recipe(self) -> Recipe:
        """The merge in mergekit's terms."""
        return Recipe(
            merge_method="slerp",
            base_model=self.first,
            models=(Input(model=self.first), Input(model=self.second)),
            parameters={"t": self._setting()},
            dtype="bfloat16",
        )

    def _setting(self) -> Any:
        if self.profile == "constant":
            return self.t
        if self.profile != "own":
            return PROFILES[self.profile]
        own = {kind: [getattr(self, f"{kind}_{depth}") for depth in DEPTHS] for kind in KINDS}
        return [
            {"filter": "self_attn", "value": own["self_attn"]},
            {"filter": "mlp", "value": own["mlp"]},
            {"value": own["rest"]},
        ]


class Tour(Record):
    """The slider: one concept and one seed at several places between two models."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    concept: str
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    step: Literal["0.5", "0.25", "0.2", "0.1"] = "0.25"

    @classmethod
    def read(cls, fields: Mapping[str, str]) -> Tour:
        """Return the tour of a form.

        Raises:
            UsageError: a field is out of its range, or the concept is none.
        """
        try:
            tour = cls.model_validate(dict(fields))
        except ValidationError as err:
            raise _told(err) from err
        return tour.model_copy(update={"concept": clean_concept(tour.concept)})

    @property
    def places(self) -> list[float]:
        """Values of t from 0 to 1, both ends among them."""
        n = round(1 / float(self.step))
        return [round(i / n, 4) for i in range(n + 1)]


def offered() -> dict[str, str]:
    """Return the language models that need not be downloaded first, and what each is."""
    return {
        entry.name: entry.description
        for entry in list_models()
        if entry.kind == "language"
        and (entry.place != "hub" or cached_folder(ModelRef.parse(entry.name)) is not None)
    }


def check_here(ref: ModelRef) -> None:
    """Check that a model named on the page, and all it is made from, is whole on this machine.

    A page downloads nothing: gigabytes would come without anybody having said so.

    Raises:
        UsageError: it is at a server, or makes pictures.
        ModelError: it is not here, or damaged.
    """
    if ref.kind == "endpoint":
        raise UsageError(f"wanted models on disk to merge, got the server {ref}; give a folder")
    if ref.kind == "adapter":  # what is laid over a model is no model itself
        check_here(ref.parents[0])
        return
    for parent in ref.parents:
        check_here(parent)
    if ref.kind == "catalogue" and catalogue_entry(ref.name).kind != "language":
        raise UsageError(f"wanted a language model, got {ref}, which makes pictures")
    if ref.kind == "hub" or (ref.kind == "catalogue" and catalogue_entry(ref.name).place == "hub"):
        if cached_folder(ref) is None:
            raise ModelError(
                f"wanted a model that is on this machine, {ref} is not; fetch it first: "
                f"orbweave models export {ref} FOLDER"
            )
    folder = cached_folder(ref) if ref.kind in {"folder", "hub"} else None
    if folder is not None:
        check_folder(folder, "language")


def called(name: str) -> str:
    """Return what to call a model on the page: of a folder its own name."""
    return Path(name).name if name.startswith(("/", "~", ".")) else name


def common_base(first: str, second: str) -> str | None:
    """Return the model of the catalogue that both were made from; None if there is none."""
    above = lineage(second)[1:]
    known = offered()
    return next((name for name in lineage(first)[1:] if name in above and name in known), None)


def curves_of(recipe: Recipe) -> list[Curve]:
    """Return how t of a recipe goes with depth, for each kind of weight."""
    setting = recipe.parameters["t"]
    names = {"self_attn": "self_attn.q_proj", "mlp": "mlp.up_proj", "rest": "norm"}
    depths = [i / (POINTS - 1) for i in range(POINTS)]
    return [
        Curve(kind, [(depth, value_at(setting, names[kind], depth)) for depth in depths])
        for kind in KINDS
    ]


def _told(err: ValidationError) -> UsageError:
    first = err.errors()[0]
    where = ".".join(str(part) for part in first["loc"]).replace("_", " ")
    return UsageError(
        f"wanted a {where} that can be used, got {shown(first['input'])}: {first['msg'].lower()}"
    )
