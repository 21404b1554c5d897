"""The matrix of a sweep: which merges of two models, and the controls beside them.

Beside every SLERP stands the straight line (LERP) with the same t for every tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from merging.recipe import PROFILES, Input, Recipe
from orbweave.errors import UsageError, shown

__all__ = ["Variant", "Way", "alone", "variants"]

Way = Literal["parent", "slerp", "lerp"]


class Variant(NamedTuple):
    """One model of a sweep."""

    name: str
    way: Way
    profile: str
    """`constant`, `paper`, ...; empty for a parent."""
    t: float | None
    """Share of the second parent; None where it changes with depth."""
    recipe: Recipe

    @property
    def place(self) -> tuple[str, float | None]:
        """What a SLERP and its LERP have in common."""
        return self.profile, self.t


def variants(a: str, b: str, ts: Sequence[float], profiles: Sequence[str]) -> list[Variant]:
    """Return the matrix of a sweep: parents, then SLERP and LERP for every t and profile.

    Args:
        a: The model at t = 0.
        b: The model at t = 1.
        ts: For the profile `constant`, each in [0, 1].
        profiles: Names of `merging.recipe.PROFILES`, each once; those that change with depth
            have no t.

    Raises:
        UsageError: an unknown or repeated profile, a t outside [0, 1], or nothing to sweep.
    """
    unknown = [name for name in profiles if name not in PROFILES]
    if unknown or not profiles or len(set(profiles)) < len(profiles):
        raise UsageError(
            f"wanted profiles out of {', '.join(PROFILES)}, each once, "
            f"got {shown(','.join(profiles))}"
        )
    if bad := [t for t in ts if not 0 <= t <= 1]:
        raise UsageError(f"wanted every t in [0, 1], got {bad[0]:g}")
    if "constant" in profiles and not ts:
        raise UsageError("wanted at least one t for the profile constant, got none")
    found = [Variant(name, "parent", "", None, alone(name)) for name in (a, b)]
    for profile in profiles:
        places = sorted(set(ts)) if profile == "constant" else [None]
        for t in places:
            label = profile if t is None else f"t={float(t)}".removesuffix(".0")
            setting = PROFILES[profile] if t is None else t
            found.append(Variant(f"slerp {label}", "slerp", profile, t, _arc(a, b, setting)))
            found.append(Variant(f"lerp {label}", "lerp", profile, t, _line(a, b, setting)))
    return found


def alone(name: str) -> Recipe:
    """Return the recipe of a model as it is, its adapters included."""
    return Recipe(merge_method="passthrough", models=(Input(model=name),))


def _arc(a: str, b: str, t: Any) -> Recipe:
    models = (Input(model=a), Input(model=b))
    return Recipe(merge_method="slerp", base_model=a, models=models, parameters={"t": t})


def _line(a: str, b: str, t: Any) -> Recipe:
    """Return the weighted average with the same t for every tensor."""
    models = (
        Input(model=a, parameters={"weight": _one_minus(t)}),
        Input(model=b, parameters={"weight": t}),
    )
    return Recipe(merge_method="linear", base_model=a, models=models)


def _one_minus(setting: Any) -> Any:
    """Return what is left of 1 for every value of a recipe's setting."""
    if isinstance(setting, list):
        return [_one_minus(part) for part in setting]
    if isinstance(setting, dict):
        return setting | {"value": _one_minus(setting["value"])}
    return 1 - setting
