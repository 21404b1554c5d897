"""Merge recipes: mergekit's YAML, read as mergekit reads it.

    merge_method: slerp
    base_model: base
    models: [{model: base}, {model: base+silk}]
    parameters: {t: paper}          # or 0.4, or mergekit's filters and gradients
    dtype: bfloat16

Two things are ours: any model reference of this project names a model, and `t` may be the name
of a house profile. Both are written out when a recipe is saved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from orbweave.errors import UsageError, shown

__all__ = ["PROFILES", "Input", "Recipe", "Slice", "load_recipe", "value_at"]

PROFILES: dict[str, Any] = {
    "paper": [
        {"filter": "self_attn", "value": [0, 0.5, 0.3, 0.7, 1]},
        {"filter": "mlp", "value": [1, 0.5, 0.7, 0.3, 0]},
        {"value": 0.5},
    ],
    "linear": [
        {"filter": "self_attn", "value": [0, 0.3, 0.5, 0.7, 1]},
        {"filter": "mlp", "value": [1, 0.7, 0.5, 0.3, 0]},
        {"value": 0.5},
    ],
    "constant": 0.5,
}
"""`paper` is the reference merge of lamm-mit/LLM-finetuning (and mergekit's own example);
`linear` its monotone sister, commented out there and likely the paper's variant G."""

OURS = ("slerp", "linear", "karcher", "passthrough")
"""Methods that are computed here; mergekit runs the others."""
FORMS = ("mergekit", "paper")
_USED = {
    "slerp": {"t", "form"},
    "linear": {"weight", "normalize"},
    "karcher": {"weight"},
    "passthrough": {"scale"},
}
"""Parameters that each method looks at."""

_MODEL_KEYS = {"model", "base_model", "tokenizer_source", "source"}
"""Keys under which the YAML names a model; `source` is that of the section `tokenizer`."""
Dtype = Literal["float16", "bfloat16", "float32", "float64"]
Parameters = dict[str, Any]


class _Part(BaseModel):
    # Keys of a newer mergekit are kept and told of, see `unused`.
    model_config = ConfigDict(frozen=True, extra="allow")

    @field_validator("parameters", check_fields=False)
    @classmethod
    def _write_out_profile(cls, value: Parameters) -> Parameters:
        t = value.get("t")
        if not isinstance(t, str):
            return value
        if t in PROFILES:
            return value | {"t": PROFILES[t]}
        try:
            return value | {"t": float(t)}
        except ValueError:
            raise ValueError(f"t is a number, a list or one of {', '.join(PROFILES)}") from None


class Input(_Part):
    """One model that goes into a merge."""

    model: str
    parameters: Parameters = Field(default_factory=dict)
    layer_range: tuple[int, int] | None = None
    """First layer and the one after the last; only in slices."""


class Slice(_Part):
    """A run of layers of the merged model."""

    sources: tuple[Input, ...] = Field(min_length=1)
    base_model: str | None = None
    residual_weight: float | None = None
    parameters: Parameters = Field(default_factory=dict)


class Module(_Part):
    """One network of a model that has several; mergekit calls a lone one `default`."""

    models: tuple[Input, ...] | None = None
    """Either these or slices."""
    slices: tuple[Slice, ...] | None = None
    parameters: Parameters = Field(default_factory=dict)


class Recipe(_Part):
    """How to merge which models."""

    merge_method: str
    base_model: str | None = None
    models: tuple[Input, ...] | None = None
    slices: tuple[Slice, ...] | None = None
    modules: dict[str, Module] | None = None
    parameters: Parameters = Field(default_factory=dict)
    dtype: Dtype | None = None
    """Parents are rounded to it before the merge; None keeps their own."""
    out_dtype: Dtype | None = None
    """The result is rounded to it; None takes `dtype`, or that of the base."""
    tokenizer_source: str | None = None
    """`base`, `union` or one of the models."""
    tokenizer: dict[str, Any] | None = None
    chat_template: str | None = None

    @field_validator("dtype", "out_dtype", mode="before")
    @classmethod
    def _short_name(cls, value: Any) -> Any:
        return value.removeprefix("torch.") if isinstance(value, str) else value

    @model_validator(mode="after")
    def _is_whole(self) -> Recipe:
        if sum(bool(part) for part in (self.models, self.slices, self.modules)) != 1:
            raise ValueError("exactly one of models, slices and modules must be given")
        slices = [*(self.slices or ()), *(s for m in self._modules() for s in m.slices or ())]
        if any(source.layer_range is None for each in slices for source in each.sources):
            raise ValueError("every source of a slice needs a layer_range")
        if not self.model_names():
            raise ValueError("no model is named; give every module models or slices")
        return self

    @property
    def is_ours(self) -> bool:
        """Whether it is computed here; mergekit runs the rest."""
        return (
            self.merge_method in OURS
            and self.modules is None
            and self.tokenizer is None
            and self.chat_template is None
            and (self.slices is None or len(self.slices) == 1)
            and (self.slices is None or self.slices[0].residual_weight is None)
            and not any("scale" in parameters for parameters in self._all_parameters())
        )

    @property
    def base(self) -> str | None:
        """The model at t = 0, whose configuration the merged model takes."""
        return (self.slices[0].base_model if self.slices else None) or self.base_model

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What a recipe that is ours merges; the base comes first where there is one."""
        given = self.slices[0].sources if self.slices else self.models or ()
        if self.base is None:
            return given
        if all(part.model != self.base for part in given) and not self.slices:
            given = (*given, Input(model=self.base))
        return tuple(sorted(given, key=lambda part: part.model != self.base))

    @property
    def runs(self) -> tuple[Slice, ...]:
        """What is merged with what, one run of layers after the other; whole models are one run.

        As mergekit sees it: the base is one of whole models, parameters of a module are its runs'.
        """
        if self.slices:
            return self.slices
        found: list[Slice] = []
        for module in self._modules() or [Module(models=self.models)]:
            given = module.models or ()
            if given and self.base_model and all(p.model != self.base_model for p in given):
                given = (*given, Input(model=self.base_model))
            for run in module.slices or ([Slice(sources=given)] if given else []):
                parameters = {**module.parameters, **run.parameters}
                found.append(run.model_copy(update={"parameters": parameters}))
        return tuple(found)

    def model_names(self) -> list[str]:
        """Return every model reference in the recipe once, the base first."""
        names = [self.base_model] if self.base_model else []
        for run in self.runs:
            names += [run.base_model] if run.base_model else []
            names += [source.model for source in run.sources]
        if self.tokenizer_source not in {None, "base", "union"}:
            names.append(str(self.tokenizer_source))
        return list(dict.fromkeys(names))

    def value(self, parameter: str, tensor: str, depth: float, part: Input | None = None) -> Any:
        """Return a parameter for one tensor, None where no rule names it.

        A model's own parameters come before the slice's, these before the recipe's.

        Args:
            parameter: E.g. `t`.
            tensor: Name of the weight.
            depth: 0 at the first layer, 1 at the last; 0 outside the layers.
            part: The model, where each has its own value.
        """
        scopes = [part.parameters] if part else []
        scopes += [self.slices[0].parameters] if self.slices else []
        for scope in [*scopes, self.parameters]:
            found = value_at(scope[parameter], tensor, depth) if parameter in scope else None
            if found is not None:
                return found
        return None

    def settings(self, parameter: str) -> list[Any]:
        """Return every setting of a parameter, wherever it is made."""
        return [scope[parameter] for scope in self._all_parameters() if parameter in scope]

    def set_parameters(self) -> set[str]:
        """Return the names of all parameters that are set anywhere."""
        return {name for scope in self._all_parameters() for name in scope}

    def unused(self) -> list[str]:
        """Return what a recipe that is ours sets and nothing here or in mergekit looks at."""
        unused = self.set_parameters() - _USED[self.merge_method]
        return sorted({*unused, *(self.model_extra or {})})

    def to_yaml(self) -> str:
        """Return the recipe as mergekit's YAML, profiles and defaults written out."""
        plain = self.model_dump(mode="json", exclude_defaults=True)
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)

    def renamed(self, names: Mapping[str, str]) -> Recipe:
        """Return the recipe with other names for its models."""
        return Recipe.model_validate(_renamed(self.model_dump(exclude_defaults=True), names))

    def _modules(self) -> list[Module]:
        return list((self.modules or {}).values())

    def _all_parameters(self) -> Iterator[Parameters]:
        yield self.parameters
        for run in self.runs:
            yield run.parameters
            yield from (source.parameters for source in run.sources)


def load_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        UsageError: there is no such file, or it is no recipe; tells every fault at once.
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as err:
        raise UsageError(f"wanted a merge recipe, cannot read {path}; check the path") from err
    except yaml.YAMLError as err:
        raise UsageError(f"wanted a recipe in {path}, it is not YAML: {shown(err, 200)}") from err
    if not isinstance(content, dict):
        found = "nothing" if content is None else shown(content)
        raise UsageError(
            f"wanted a merge recipe in {path}, found: {found}; it begins with merge_method and "
            "models, as mergekit's do"
        )
    try:
        return Recipe.model_validate(content)
    except ValidationError as err:
        faults = "; ".join(_fault(error) for error in err.errors())
        raise UsageError(f"wanted a merge recipe in {path}, found: {faults}") from err


def value_at(setting: Any, tensor: str, depth: float) -> Any:
    """Return what a setting gives for one tensor, None where no filter lets it through.

    A list of numbers is a gradient: its points are spread evenly over the depth and joined by
    straight lines. A list of {filter, value} is searched from the top; a filter is a piece of
    the tensor's name, none or `*` fits all. As mergekit 0.1.5, `evaluate_setting`.

    Raises:
        UsageError: the setting is neither a number nor such a list.
    """
    if isinstance(setting, dict):
        setting = [setting]
    if isinstance(setting, bool):
        return setting
    if isinstance(setting, int | float | str):
        return _number(setting)
    if not isinstance(setting, list):
        raise UsageError(f"wanted a number or a list as a merge parameter, got {shown(setting)}")
    if any(isinstance(part, dict) for part in setting):
        for part in setting:
            if not isinstance(part, dict) or "value" not in part:
                raise UsageError(f"wanted a filter and a value, got {shown(part)}")
            wanted = part.get("filter")
            if wanted is not None and not isinstance(wanted, str):
                raise UsageError(f"wanted a piece of a tensor's name, got {shown(wanted)}")
            if wanted is None or wanted == "*" or wanted in tensor:
                return value_at(part["value"], tensor, depth)
        return None
    points = [_number(part) for part in setting]
    if not points:
        return None
    place = depth * (len(points) - 1)
    below = int(place)
    above = min(below + 1, len(points) - 1)
    return points[below] + (place - below) * (points[above] - points[below])


def numbers_in(setting: Any) -> Iterator[list[float]]:
    """Yield every gradient of a setting; a single number is one of length 1."""
    parts = [setting] if isinstance(setting, dict) else setting
    if isinstance(parts, list) and any(isinstance(part, dict) for part in parts):
        for part in parts:
            yield from numbers_in(part.get("value", []) if isinstance(part, dict) else part)
    elif isinstance(parts, list):
        yield [_number(part) for part in parts]
    else:
        yield [_number(parts)]


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as err:
        raise UsageError(f"wanted a number as a merge parameter, got {shown(value)}") from err


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, list | tuple):
        return [_renamed(part, names) for part in value]
    if not isinstance(value, dict):
        return value
    return {
        key: names.get(part, part)
        if key in _MODEL_KEYS and isinstance(part, str)
        else _renamed(part, names)
        for key, part in value.items()
    }


def _fault(error: Any) -> str:
    """Return one of pydantic's errors as `models.0.model: what is wrong (got ...)`."""
    place = ".".join(str(part) for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{place} is missing"
    return f"{place}: {message} (got {shown(error['input'])})" if place else message
