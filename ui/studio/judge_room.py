"""What the judge page shows and does."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, get_args

from orbweave.errors import UsageError, shown
from ui.studio.judging import FILES, MAX_BYTES, Judging, Judgings, Pick
from ui.studio.rooms import Ask, Part, Seen
from ui.template import environment

__all__ = ["JudgeRoom"]

TEMPLATE = "judge.html.j2"


class JudgeRoom:
    """Answers are shown two by two, picked from by keyboard, and ranked at the end."""

    def __init__(self, judgings: Judgings) -> None:
        self._judgings = judgings

    def look(self, owner: str, asked: Ask) -> Seen:
        """Return the pair to judge, or the result, or what there is to begin with.

        Raises:
            OrbweaveError: there is none of that name.
        """
        template = _template()
        every = self._judgings.all(owner)
        if not asked.at:
            groups = self._judgings.groups(owner)
            begin = template.begin(groups, ",".join(FILES), MAX_BYTES)
            return Seen([Part("begin", begin), Part("list", template.every(every, ""))], False)
        judging = self._judgings.find(owner, asked.at)
        parts = [Part("head", template.head(judging, judging.tally))]
        parts.append(Part("pair", _result(judging) if judging.asked.is_over else _pair(judging)))
        parts.append(Part("list", template.every(every, asked.at)))
        return Seen(parts, False)

    def act(self, owner: str, asked: Ask) -> str:
        """Begin a judging, pick, take back or end; return the judging to look at then.

        Raises:
            OrbweaveError: it cannot be done.
        """
        if asked.do == "add":
            keys = [value for name, value in asked.fields.items() if name.startswith("group-")]
            files = {Path(file.name).name: file.content for file in asked.files}
            return self._judgings.begin(owner, keys, files, _seed(asked)).id
        judging = self._judgings.find(owner, asked.at)
        if asked.do in get_args(Pick):
            self._judgings.pick(judging, asked.value, asked.do)  # type: ignore[arg-type]
        elif asked.do == "undo":
            self._judgings.undo(judging)
        elif asked.do == "end":
            self._judgings.end(judging)
        else:
            raise UsageError(f"wanted something to do with a pair, got {shown(asked.do)}")
        return judging.id

    def file(self, owner: str, name: str, path: str) -> tuple[Path, str] | None:
        """Return a picture to show, or lines for download."""
        found = self._judgings.file(self._judgings.find(owner, name), path)
        if found is None:
            return None
        return found, "" if found.suffix == ".png" else found.name


def _seed(asked: Ask) -> int:
    text = asked.fields.get("seed", "").strip() or "0"
    if not text.isdecimal() or int(text) >= 2**32:
        raise UsageError(f"wanted a seed from 0 to {2**32 - 1:,}, got {shown(text)}")
    return int(text)


def _pair(judging: Judging) -> str:
    pair = judging.next_pair
    template = _template()
    return str(
        template.nothing_left(judging.tally) if pair is None else template.pair(judging, pair)
    )


def _result(judging: Judging) -> str:
    return str(_template().result(judging, judging.found))


@cache
def _template() -> Any:
    """Return the template's macros; reading it takes some milliseconds, so it is read once."""
    return environment("ui.studio", "assets").get_template(TEMPLATE).module
