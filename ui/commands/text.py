"""A command whose argument is a text, which may begin with a dash."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

__all__ = ["TextCommand"]


class TextCommand(TyperCommand):
    """Takes `-3 degree fibre lattice` as text: no option has a blank in its name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move texts that begin with a dash behind `--`, where no option is looked for."""
        takes_value = {
            name
            for param in self.params
            if not getattr(param, "is_flag", True)
            for name in param.opts
        }
        options: list[str] = []
        texts: list[str] = []
        previous = ""
        for index, arg in enumerate(args):
            if arg == "--":
                options += args[index:]
                break
            is_text = arg.startswith("-") and any(c.isspace() for c in arg.partition("=")[0])
            (texts if is_text and previous not in takes_value else options).append(arg)
            previous = arg
        if texts and "--" not in options:
            options.append("--")
        return super().parse_args(ctx, options + texts)
