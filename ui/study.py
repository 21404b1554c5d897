"""A study: which models, which merges of them and which questions, from one YAML file.

    study = load_study("smollm2-135m")     # every fault told at once, nothing loaded yet
    matrix(study)                          # the names of all that would be scored

The paper's grid (arXiv 2409.03444, Figs. 4 and 5): every strategy, with and without a merge, on
every benchmark. Beside each SLERP stands the straight line with the same t, see
`merging.variants`. `ui.study_run` scores it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from merging.variants import Variant, variants
from orbweave.errors import OrbweaveError, UsageError, shown
from orbweave.models import ModelRef, catalogue_entry
from orbweave.yaml_text import fault_text
from training.benchmark import load_benchmark, shipped_benchmarks
from training.evaluation import SCORINGS, Scoring
from training.recipe import read_yaml

__all__ = [
    "STUDIES",
    "Grid",
    "Pair",
    "Specimen",
    "Study",
    "load_study",
    "matrix",
    "named",
    "shipped_studies",
]

STUDIES = Path(__file__).with_name("studies")
"""The shipped studies."""
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Specimen(_Strict):
    """One model of a study."""

    model: str
    """Any reference to a language model on disk."""
    strategy: str = ""
    """How it was trained, in the paper's words: base, CPT, CPT-SFT, CPT-SFT-DPO ..."""
    parent: bool = False
    """Whether it goes into the merges of a grid that names no pairs."""
    merged_from: tuple[str, ...] = ()
    """Labels of what it is a merge of, where it was merged elsewhere or by a recipe (TIES, DARE
    ...): it is judged against them as the merges of a grid are. None, or two and more."""

    @field_validator("model")
    @classmethod
    def _is_on_disk(cls, value: str) -> str:
        try:
            ref = ModelRef.parse(value)
        except OrbweaveError as err:
            raise ValueError(str(err)) from err
        if ref.kind == "endpoint":
            raise ValueError("a model at a server has no weights to merge; give one on disk")
        if ref.kind == "catalogue" and catalogue_entry(ref.name).kind != "language":
            raise ValueError("it draws pictures; give a language model")
        return value


class Grid(_Strict):
    """Merges: pairs x profiles x t."""

    pairs: tuple[tuple[str, str], ...] = ()
    """Labels, the first at t = 0; none given stands for every two models marked `parent`."""
    profiles: tuple[Literal["constant", "paper", "linear"], ...] = Field(
        ("constant",), min_length=1
    )
    """How t goes with depth."""
    t: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field((0.5,), min_length=1)
    """Shares of the second model for the profile constant."""

    @model_validator(mode="after")
    def _is_used(self) -> Grid:
        if len(set(self.profiles)) < len(self.profiles):
            raise ValueError("a profile is named twice")
        if "t" in self.model_fields_set and "constant" not in self.profiles:
            raise ValueError("t is for the profile constant, which is not among the profiles")
        return self


class Study(_Strict):
    """What is to be scored."""

    name: Label
    description: str = ""
    models: dict[Label, Specimen] = Field(min_length=1)
    baseline: str = ""
    """Label of the model the others are compared with; none given is the first."""
    merges: tuple[Grid, ...] = ()
    """One grid or a list of them."""
    benchmarks: tuple[str, ...] = ()
    """Names or files, each once; none given stands for all that are shipped."""
    scoring: Literal["loglik", "reply", "both"] = "loglik"
    """By likelihood of each option, by one-word reply, or both; as in `orbweave evaluate`."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of the halves of the questions and of all intervals."""

    @field_validator("merges", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, dict) else value

    @field_validator("benchmarks")
    @classmethod
    def _can_be_read(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        faults, names = [], []
        for each in value:
            try:
                names.append(load_benchmark(each).name)
            except UsageError as err:
                faults.append(str(err))
        faults += [
            f"{name} is named twice" for name in sorted({n for n in names if names.count(n) > 1})
        ]
        if faults:
            raise ValueError("; ".join(faults))
        return value

    @property
    def first(self) -> str:
        """Label of the model that others are compared with."""
        return self.baseline or next(iter(self.models))

    @property
    def scorings(self) -> tuple[Scoring, ...]:
        """What `scoring` stands for."""
        return SCORINGS if self.scoring == "both" else (self.scoring,)

    @property
    def asked(self) -> tuple[str, ...]:
        """Names or files of the benchmarks."""
        return self.benchmarks or shipped_benchmarks()

    def pairs(self) -> list[Pair]:
        """Return every pair that is merged, in the order of the file."""
        parents = [label for label, one in self.models.items() if one.parent]
        return [
            Pair(a, b, tuple(variants(a, b, grid.t, grid.profiles)))
            for grid in self.merges
            for a, b in grid.pairs or combinations(parents, 2)
        ]

    def is_merge(self, name: str) -> bool:
        """Return whether what tables call so is a merge of models of this study."""
        return name not in self.models or bool(self.models[name].merged_from)

    def alone(self) -> list[str]:
        """Return the labels of models that are in no pair."""
        paired = {label for pair in self.pairs() for label in (pair.a, pair.b)}
        return [label for label in self.models if label not in paired]


class Pair(NamedTuple):
    """Two models and the merges that are made of them."""

    a: str
    b: str
    variants: tuple[Variant, ...]
    """Both parents first."""

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.a} × {self.b}"


def named(pair: Pair, variant: str) -> str:
    """Return the name a variant has in the whole study: a parent's is its label."""
    return variant if variant in {pair.a, pair.b} else f"{pair.name} {variant}"


def matrix(study: Study) -> list[str]:
    """Return the names of all models and merges, models first."""
    merges = [
        named(pair, variant.name)
        for pair in study.pairs()
        for variant in pair.variants
        if variant.way != "parent"
    ]
    return [*study.models, *merges]


def shipped_studies() -> dict[str, Path]:
    """Return the shipped studies by name."""
    return {path.stem: path for path in sorted(STUDIES.glob("*.yaml"))}


def load_study(source: str | Path) -> Study:
    """Return a shipped study by name, or one read from a YAML file; no model is loaded.

    Raises:
        UsageError: no such study; or every fault of it, in one message.
    """
    path, data, faults = read_yaml(source, shipped_studies(), "study")
    study = None
    try:
        study = Study.model_validate(data)
    except ValidationError as err:
        faults += [fault_text(error) for error in err.errors()]
    faults += _label_faults(data) if isinstance(data, dict) else []
    if faults or study is None:
        raise UsageError(
            f"wanted a study in {path}, found {len(faults)} fault{'s' * (len(faults) != 1)} to "
            f"mend: {'; '.join(faults)}"
        )
    return study


def _label_faults(data: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong between the parts of a study, as far as the parts can be read.

    Read from the bare YAML, so that these faults stand in the same list as those of the parts.
    """
    models = data.get("models")
    if not isinstance(models, dict):
        return
    baseline = data.get("baseline") or None
    if baseline not in (None, *models):
        yield f"baseline: no model is called {shown(baseline)}; the labels are {_listed(models)}"
    for label, model in models.items():
        yield from _origin_faults(label, model, models)
    parents = [str(k) for k, v in models.items() if isinstance(v, dict) and v.get("parent") is True]
    grids = data.get("merges") or []
    grids = grids if isinstance(grids, list) else [grids]
    before: set[frozenset[str]] = set()
    for i, grid in enumerate(grids):
        if not isinstance(grid, dict):
            continue
        given = grid.get("pairs") or list(map(list, combinations(parents, 2)))
        if not given:
            yield f"merges.{i}: it names no pairs, and fewer than two models have parent: true"
        for j, pair in enumerate(given if isinstance(given, list) else []):
            if not (isinstance(pair, list) and all(isinstance(label, str) for label in pair)):
                continue
            for label in pair:
                if label not in models:
                    yield (
                        f"merges.{i}.pairs.{j}: no model is called {shown(label)}; "
                        f"the labels are {_listed(models)}"
                    )
            if len(pair) != 2:
                continue
            if pair[0] == pair[1]:
                yield f"merges.{i}.pairs.{j}: {pair[0]} cannot be merged with itself"
            elif frozenset(pair) in before:
                yield (
                    f"merges.{i}.pairs.{j}: {' and '.join(pair)} are paired twice; name them once, "
                    "with all profiles and t"
                )
            before.add(frozenset(pair))


def _origin_faults(label: Any, model: Any, models: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the models that one says it was merged from."""
    origins = model.get("merged_from") if isinstance(model, dict) else None
    if not (isinstance(origins, list) and all(isinstance(each, str) for each in origins)):
        return
    place = f"models.{label}.merged_from"
    for each in origins:
        if each not in models:
            yield f"{place}: no model is called {shown(each)}; the labels are {_listed(models)}"
    if label in origins:
        yield f"{place}: {label} cannot be merged from itself"
    if len(set(origins)) < 2 or len(set(origins)) < len(origins):
        yield f"{place}: wanted two or more different models, got {shown(origins)}"


def _listed(labels: dict[Any, Any]) -> str:
    return ", ".join(map(str, labels))
