"""The merge methods of mergekit, and what each asks of a recipe.

Written down here, since asking mergekit itself means importing it, which takes many seconds. As
mergekit 0.1.5; a test holds the table against its registry.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["METHODS", "Method"]


class Method(NamedTuple):
    """What a method asks of a recipe."""

    base: Literal["required", "optional", "ignored"] = "ignored"
    fewest: int = 1
    """Models, the base included ..."""
    most: int | None = None
    children: int | None = None
    """... and how many there must be beside the base; None leaves it open."""
    shared: tuple[str, ...] = ()
    """Parameters it cannot do without ..."""
    own: tuple[str, ...] = ()
    """... and those that every model but the base must have."""
    others: tuple[str, ...] = ()
    """Parameters that may be left out."""

    @property
    def parameters(self) -> frozenset[str]:
        """Everything it looks at."""
        return frozenset((*self.shared, *self.own, *self.others))


def _task(*others: str) -> Method:
    """Return a method that adds up what each model learnt beyond the base."""
    common = ("int8_mask", "normalize", "rescale", "lambda", "density")
    return Method("required", own=("weight",), others=(*common, *others))


METHODS: dict[str, Method] = {
    "arcee_fusion": Method("required", 2, 2),
    "breadcrumbs": _task("gamma"),
    "breadcrumbs_ties": _task("gamma"),
    "dare_linear": _task(),
    "dare_ties": _task(),
    "della": _task("epsilon"),
    "della_linear": _task("epsilon"),
    "karcher": Method(others=("max_iter", "tol")),
    "linear": Method(own=("weight",), others=("normalize",)),
    "model_stock": Method("required", 3, others=("filter_wise",)),
    "multislerp": Method("optional", own=("weight",), others=("normalize_weights", "eps")),
    "nearswap": Method("required", 2, 2, shared=("t",)),
    "nuslerp": Method(
        "optional", children=2, own=("weight",), others=("nuslerp_row_wise", "nuslerp_flatten")
    ),
    "passthrough": Method(most=1, others=("scale",)),
    "ram": Method("required", others=("epsilon",)),
    "ramplus_tl": Method("required", others=("r", "alpha", "epsilon")),
    "sce": Method("required", others=("int8_mask", "select_topk")),
    "slerp": Method("required", 2, 2, shared=("t",)),
    "task_arithmetic": _task(),
    "ties": _task(),
}
"""By the name in a recipe."""
