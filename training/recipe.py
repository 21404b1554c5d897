"""Training recipes: one YAML file says which stages a model goes through, on which data.

Faults are gathered and told all at once, before any model is touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from orbweave.errors import UsageError, shown
from orbweave.yaml_text import fault_text, parsed, yaml_fault

__all__ = [
    "METHODS",
    "RECIPES",
    "TRUNK",
    "LoraSettings",
    "Recipe",
    "Stage",
    "load_recipe",
    "read_yaml",
    "shipped_recipes",
]

RECIPES = Path(__file__).with_name("recipes")
"""The shipped recipes."""

Method = Literal["cpt", "sft", "dpo", "orpo"]
METHODS: tuple[Method, ...] = ("cpt", "sft", "dpo", "orpo")
TRUNK: tuple[Method, ...] = ("cpt", "sft")
"""DPO and ORPO branch off the last of these, each a leaf of the paper's stage graph."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LoraSettings(_Strict):
    """Low-rank adapters (Hu et al. 2106.09685) on every linear layer but the output head."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 32
    alpha: Annotated[float, Field(gt=0)] = 64.0
    """The update is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    dora: bool = False
    """Learn length and direction of each column apart (Liu et al. 2402.09353)."""


class Stage(_Strict):
    """One stage: a method, its data and its optimiser."""

    method: Method
    data: dict[str, Annotated[float, Field(gt=0, le=100)]] = Field(min_length=1)
    """Source -> fraction. 2.0 takes every row twice, 0.25 a quarter; see `training.mix`."""
    epochs: Annotated[float, Field(gt=0, le=1000)] = 1.0
    learning_rate: Annotated[float, Field(gt=0, lt=1)]
    schedule: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    warmup: Annotated[float, Field(ge=0)] = 0.1
    """Steps, or a share of them where it is below 1."""
    max_length: Annotated[int, Field(ge=16, le=131_072)] = 1024
    """Tokens of one row; packed rows hold several examples."""
    packing: bool = True
    """CPT and SFT only: fill rows with whole examples that do not see each other."""
    batch: Annotated[int, Field(ge=1)] = 1
    """Rows one device takes at a time."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Batches per optimiser step. Effective batch = batch x accumulate x processes."""
    loss_on: Literal["replies", "all"] = "replies"
    """SFT: the assistant's words alone, or the whole text."""
    join: Annotated[int, Field(ge=1, le=32)] = 1
    """SFT: short chats without a system text joined into one chat of so many exchanges, which
    saves the opening that a template writes for each."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """DPO: how far from the reference; ORPO: weight of the odds-ratio term (its lambda)."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    keep_epochs: bool = False
    """Keep a finished model after each epoch, for the study of epochs."""
    start_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the weights it began with in those it writes: less is forgotten for little less
    learnt (WiSE-FT, arXiv:2109.01903). Losses are measured on the weights as they were learnt."""


class Recipe(_Strict):
    """A path through the stage graph, from one model."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
    description: str = ""
    model: str
    """Reference of the model that learns."""
    start: Literal["Base", "Instruct"] = "Instruct"
    """What the first model is; the first word of every checkpoint's name."""
    chat_template: str | None = None
    """Model whose chat template is taken; a Base model has none of its own."""
    adapter: LoraSettings | None = None
    """None trains all weights."""
    parent: str | None = None
    """Adapter to go on from: a folder, e.g. the result of another recipe, or a shipped one by its
    name in the catalogue, e.g. generalist."""
    domains: tuple[str, ...] = ()
    """Keep shipped rows of these domains only; empty keeps all."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42
    held_out: Annotated[float, Field(ge=0, le=0.5)] = 0.02
    """Share of the rows that is only ever measured."""
    gradient_checkpointing: bool = False
    stages: tuple[Stage, ...] = Field(min_length=1)
    """In the order of METHODS. CPT and SFT may come again, on other data or at another rate."""

    @model_validator(mode="after")
    def _order_is_a_path(self) -> Recipe:
        methods = [stage.method for stage in self.stages]
        leaves = [method for method in methods if method not in TRUNK]
        if len(set(leaves)) < len(leaves):
            raise ValueError("dpo and orpo come once each: nothing goes on from them")
        if methods != sorted(methods, key=METHODS.index):
            raise ValueError(
                f"the order of stages is cpt, sft, dpo, orpo, not {', '.join(methods)}"
            )
        if self.parent is not None and self.adapter is None:
            raise ValueError("a parent is an adapter, so the recipe needs an adapter section")
        return self

    @property
    def checkpoints(self) -> list[str]:
        """The paper's names of what the stages make, in their order: `Instruct-CPT-SFT-ORPO`."""
        names = []
        for number, stage in enumerate(self.stages):
            trunk = [s.method for s in self.stages[:number] if s.method in TRUNK]
            names.append("-".join([self.start, *(m.upper() for m in (*trunk, stage.method))]))
        return names

    def n_stages(self, last: str | None) -> int:
        """Return how many stages are run if `last` is the last of them; None runs all.

        Args:
            last: A checkpoint's name; or a method, which means the last stage of that method.

        Raises:
            UsageError: there is no such stage.
        """
        if last is None:
            return len(self.stages)
        known = [(s.method, name) for s, name in zip(self.stages, self.checkpoints, strict=True)]
        found = [number for number, names in enumerate(known, 1) if last in names]
        if not found:
            raise UsageError(
                f"wanted the stage {shown(last)}, this recipe has "
                + ", ".join(f"{method} ({name})" for method, name in known)
            )
        return found[-1]


def shipped_recipes() -> dict[str, Path]:
    """Return the shipped recipes by name."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}


def load_recipe(source: str | Path) -> Recipe:
    """Return a shipped recipe by name, or one read from a YAML file.

    Raises:
        UsageError: no such recipe; or every fault of it, in one message.
    """
    path, data, faults = read_yaml(source, shipped_recipes(), "recipe")
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as err:
        errors = err.errors()
        if any(e["loc"][:1] == ("stages",) and len(e["loc"]) > 1 for e in errors):
            # Stages with faults are left out, so pydantic misses one although there are some.
            errors = [e for e in errors if e["loc"] != ("stages",)]
        faults += [fault_text(error) for error in errors]
    if faults:
        faults += _absent(data)  # of a sound recipe `training.run.check` tells it
        raise UsageError(
            f"wanted a recipe in {path}, found {len(faults)} faults: {'; '.join(faults)}"
        )
    return recipe


def read_yaml(
    source: str | Path, shipped: Mapping[str, Path], noun: str
) -> tuple[Path, Any, list[str]]:
    """Read a shipped YAML file by name, or one by its path.

    Returns:
        The file, what it holds, and a fault for every key given twice.

    Raises:
        UsageError: no such file, or not YAML; calls it by `noun`.
    """
    path = shipped.get(str(source), Path(source))
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise UsageError(
            f"wanted a {noun}, found no {shown(source)}; give a YAML file or one of: "
            f"{', '.join(shipped)}"
        ) from err
    try:
        data, repeated = parsed(text)
    except yaml.YAMLError as err:
        raise UsageError(f"wanted YAML in the {noun} {path}, {yaml_fault(err)}") from err
    return path, data, repeated


def _absent(data: Any) -> list[str]:
    """Return a fault for the parent and for each file of rows that a faulty recipe misses."""
    if not isinstance(data, dict):
        return []
    stages = data.get("stages")
    known = [s for s in stages if isinstance(s, dict)] if isinstance(stages, list) else []
    mixes = [s["data"] for s in known if isinstance(s.get("data"), dict)]
    sources = [str(source) for mix in mixes for source in mix]
    names = [n for n in dict.fromkeys(sources) if "/" in n or Path(n).suffix]
    faults = [f"stages: there is no file {n}" for n in names if not _is_there(n)]
    parent = data.get("parent")
    if isinstance(parent, str) and "/" in parent and not _is_there(parent):
        faults.append(f"parent: there is no folder {parent}")
    return faults


def _is_there(name: str) -> bool:
    return Path(name).expanduser().exists()
