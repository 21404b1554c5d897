"""What a recipe asks for and cannot have, told before any weight is read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from merging.findings import Finding, fault, mismatch, note
from merging.methods import METHODS, Method
from merging.parent import Parent
from merging.recipe import FORMS, Input, Recipe, Slice, numbers_in, value_at
from orbweave.errors import UsageError, shown

__all__ = ["recipe_findings"]

_NUMBERS = ("t", "weight", "density", "lambda", "gamma", "epsilon", "scale")
"""Parameters that are numbers or gradients of numbers."""


def recipe_findings(
    recipe: Recipe, parents: Mapping[str, Parent], *, partial: bool = False
) -> Iterator[Finding]:
    """Find what a recipe asks for and cannot have.

    Args:
        recipe: What is wanted.
        parents: By the names in the recipe.
        partial: Models of unlike depths may be merged as far as both go.
    """
    if recipe.is_ours:
        yield from _of_ours(recipe, parents, partial)
    else:
        yield from _of_mergekits(recipe, parents)


def _of_ours(recipe: Recipe, parents: Mapping[str, Parent], partial: bool) -> Iterator[Finding]:
    method, names = recipe.merge_method, [part.model for part in recipe.inputs]
    wanted = {"slerp": 2, "passthrough": 1}.get(method)
    if wanted is not None and len(names) != wanted:
        yield fault(f"{method} takes {wanted} models, the recipe names {len(names)}; name {wanted}")
    if method == "slerp" and recipe.base is None:
        yield fault("slerp needs base_model, the model at t = 0; name one of the two")
    if recipe.base is not None and recipe.base not in names:
        yield fault(f"base_model {recipe.base} is not among the models; add it")
    if len(set(names)) < len(names):
        yield fault(f"a model is named twice: {', '.join(names)}; name different ones")
    for part in recipe.inputs:
        yield from _range_findings(part, parents[part.model])
    depths = [_depth(part, parents) for part in recipe.inputs]
    if len(set(depths)) > 1:
        brought = f"the models bring {' and '.join(map(str, depths))} layers"
        if recipe.slices:
            yield fault(f"{brought}; choose layer_range alike")
        else:
            yield mismatch(brought, "choose layer_range alike", partial=partial)
    for parameter in ("t", "weight"):
        for setting in recipe.settings(parameter):
            yield from _setting_findings(parameter, setting, recipe, min(depths))
    for form in recipe.settings("form"):
        if form not in FORMS:
            yield fault(
                f"form must be one of {', '.join(FORMS)}, got {shown(form)}; or leave it out"
            )
    if recipe.unused():
        unused = ", ".join(recipe.unused())
        yield note(f"{unused} is not used by {method}, neither here nor in mergekit")


def _range_findings(part: Input, parent: Parent) -> Iterator[Finding]:
    first, last = part.layer_range or (0, parent.n_layers)
    if not 0 <= first < last <= parent.n_layers:
        yield fault(
            f"layer_range [{first}, {last}] does not fit {part.model}, which has "
            f"{parent.n_layers} layers; the second number is the one after the last layer"
        )


def _depth(part: Input, parents: Mapping[str, Parent]) -> int:
    first, last = part.layer_range or (0, parents[part.model].n_layers)
    return last - first


def _setting_findings(
    parameter: str, setting: Any, recipe: Recipe, n_layers: int
) -> Iterator[Finding]:
    try:
        gradients = list(numbers_in(setting))
    except UsageError as err:
        yield fault(f"{parameter}: {err}")
        return
    for values in gradients:
        if len(values) > max(n_layers, 1):
            yield fault(
                f"{parameter} has {len(values)} values for {n_layers} layers, so some would never "
                "be used; give at most one per layer"
            )
        if not all(map(math.isfinite, values)):
            yield fault(f"{parameter} must be finite, got {values}; write plain numbers")
        elif parameter == "t" and recipe.merge_method == "nearswap":
            continue  # a distance of weights, of any size
        elif parameter == "t" and not all(0 <= t <= 1 for t in values):
            yield fault(f"t must be between 0 and 1, got {values}; 0 is the base, 1 the other")
        elif parameter == "density" and not all(0 < share <= 1 for share in values):
            yield fault(f"density must be above 0 and at most 1, got {values}; 1 keeps all")
        elif recipe.merge_method == "karcher" and min(values, default=0) < 0:
            yield fault(f"karcher takes no negative weights, got {values}; give 0 or more")


# ---------------------------------------------------------------- what mergekit would refuse


def _of_mergekits(recipe: Recipe, parents: Mapping[str, Parent]) -> Iterator[Finding]:
    """Find what mergekit would refuse, which it tells after twenty seconds and one by one."""
    name, method = recipe.merge_method, METHODS.get(recipe.merge_method)
    if method is None:
        near = get_close_matches(name, METHODS, 1)
        meant = f"; did you mean {near[0]}" if near else ""
        yield fault(f"no merge method is called {shown(name)}{meant}; there are {_listed(METHODS)}")
    for key, module in (recipe.modules or {}).items():
        if bool(module.models) == bool(module.slices):
            yield fault(f"modules.{key} needs either models or slices; give one of them")
    for run in recipe.runs:
        for part in run.sources:
            yield from _range_findings(part, parents[part.model])
        depths = [_depth(part, parents) for part in run.sources]
        if len(set(depths)) > 1:
            lengths = " and ".join(map(str, depths))
            yield fault(f"the models of a slice bring {lengths} layers; choose layer_range alike")
        if method is not None:
            yield from _count_findings(name, method, recipe, run)
            yield from _missing_parameters(method, recipe, run, parents)
        scopes = [recipe.parameters, run.parameters, *(part.parameters for part in run.sources)]
        for scope in scopes:
            for parameter in filter(scope.__contains__, _NUMBERS):
                yield from _setting_findings(parameter, scope[parameter], recipe, min(depths))
    if method is not None:
        if unused := sorted(recipe.set_parameters() - method.parameters):
            yield note(f"{', '.join(unused)} is not used by {name}")


def _count_findings(name: str, method: Method, recipe: Recipe, run: Slice) -> Iterator[Finding]:
    """Find a base that is missing, and too many or too few models."""
    names = [part.model for part in run.sources]
    base = run.base_model or recipe.base_model
    if len(set(names)) < len(names):
        yield fault(f"a model is named twice: {', '.join(names)}; name different ones")
    if method.base == "required" and base is None:
        yield fault(f"{name} needs base_model, the model the others were trained from; name it")
    elif method.base != "ignored" and base is not None and base not in names:
        yield fault(f"base_model {base} is not among the models of a slice; add it")
    if method.children is not None:
        n_children = len(set(names) - {base})
        if n_children != method.children:
            yield fault(
                f"{name} takes {method.children} models beside the base, the recipe names "
                f"{n_children}; name {method.children}"
            )
    elif len(names) < method.fewest or len(names) > (method.most or len(names)):
        wanted = f"{method.fewest}" if method.most == method.fewest else f"at least {method.fewest}"
        yield fault(
            f"{name} takes {wanted} model{'s' * (method.fewest > 1)}, the base included, the "
            f"recipe names {len(names)}; name {wanted}"
        )


def _missing_parameters(
    method: Method, recipe: Recipe, run: Slice, parents: Mapping[str, Parent]
) -> Iterator[Finding]:
    """Find parameters that some tensor is left without."""
    base = run.base_model or recipe.base_model
    tensors = parents[run.sources[0].model].tensors
    ignores_base = method.base == "ignored"
    wanted: list[tuple[str, Input | None]] = [(parameter, None) for parameter in method.shared]
    wanted += [
        (parameter, part)
        for parameter in method.own
        for part in run.sources
        if ignores_base or part.model != base
    ]
    for parameter, part in wanted:
        scopes = [part.parameters] if part else []
        settings = [
            scope[parameter]
            for scope in (*scopes, run.parameters, recipe.parameters)
            if parameter in scope
        ]
        try:
            lacking = next((t for t in tensors if not any(_names(s, t) for s in settings)), None)
        except UsageError:  # told with the setting
            continue
        if lacking is not None:
            whose = f"{parameter} of {part.model}" if part else parameter
            mend = "add a last rule without a filter" if settings else "add it to the recipe"
            yield fault(
                f"wanted the merge parameter {whose} for every tensor, found none for {lacking}; "
                f"{mend}"
            )


def _names(setting: Any, tensor: str) -> bool:
    """Return whether a setting gives a tensor a value."""
    return value_at(setting, tensor, 0.0) is not None


def _listed(names: Mapping[str, object]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}"
