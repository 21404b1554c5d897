"""All pictures of a batch on one page with filters; works from the disk, without a network.

The page holds the table of results as JSON and a script of its own; pictures are loaded from
the design folders beside it as they come into sight.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ui.template import environment

__all__ = ["render_gallery"]

TEMPLATE = "gallery.html.j2"
SHOWN = (
    "row", "name", "state", "concept", "title", "prompt", "negative_prompt", "seed", "version",
    "is_result", "picture", "design", "error", "score_mean", "solid_fraction", "direction_deg",
    "anisotropy", "spacing_px", "seconds",
)  # fmt: skip
"""What every card knows; what varies within the batch comes on top."""


def render_gallery(rows: Iterable[Mapping[str, Any]], varying: Sequence[str], title: str) -> str:
    """Return the page as HTML.

    Args:
        rows: The table of results, see `ui.results.COLUMNS`.
        varying: Columns with more than one value; each gets a filter.
        title: Name of the batch.
    """
    names = list(dict.fromkeys([*SHOWN, *varying]))
    values = [[row[name] for name in names] for row in rows]
    return (
        environment()
        .get_template(TEMPLATE)
        .render(data={"names": names, "rows": values, "varying": list(varying)}, title=title)
    )
