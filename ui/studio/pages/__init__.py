"""The pages of the studio, one file each; the first is the one at `/`.

A page is a module with `TITLE`, `PATH` (without a slash, its place in the address) and
`build(desk)`, which is called inside Gradio's `Blocks` and lays out the page. To add one,
write it and name it in `PAGES`.
"""

from __future__ import annotations

from ui.studio.pages import batch, chat, judge, library, merge, models

__all__ = ["PAGES"]

PAGES = (chat, library, batch, merge, judge, models)
