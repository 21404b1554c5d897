"""How pages are made from templates: HTML is escaped, what is missing is a fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["environment"]


def environment(
    package: str = "ui", folder: str = ".", *, is_html: bool = True, keeps_end: bool = False
) -> Environment:
    """Return the environment in which a package's templates are filled in.

    Args:
        package: Whose templates, by its import name.
        folder: Where in the package they are.
        is_html: Escape what is put in; False for Markdown.
        keeps_end: Keep the line break a template ends with.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package, folder),
        autoescape=is_html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=keeps_end,
    )
