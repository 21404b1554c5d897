"""JSON that a model was asked for: valid, repaired or invalid, told apart.

A shape says what is wanted, written as the JSON would look, with types in place of values:

    {title: string, density: number, parts: [{name: string, "share?": number}], tags: [string]}

`valid` is a reply that is nothing but fitting JSON. `repaired` is one that fits after text around
it was taken away or its syntax was mended; what was wrong is kept. `invalid` is the rest, among
them JSON that broke off at the token limit: half a number is a wrong number.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Literal, NoReturn

import json_repair

from orbweave.errors import shown
from orbweave.records import Record

__all__ = ["TYPES", "JsonReply", "read_json_reply", "shape_faults"]

_OPENING = re.compile(r"[\[{]")
_LIKE_JSON = re.compile(r"""[\[{]\s*(["'\[{]|\w+\s*:)""")
TYPES = ("string", "number", "integer", "boolean", "any")
"""Words that may stand for a value; a key that ends in `?` may be absent."""


class JsonReply(Record):
    """What came of a request for JSON."""

    status: Literal["valid", "repaired", "invalid"]
    value: Any = None
    """The JSON as Python's values; None if invalid."""
    problem: str = ""
    """What was mended, or why it is invalid."""


def shape_faults(shape: Any, where: str = "json") -> list[str]:
    """Return what is wrong with a shape; empty if nothing."""
    if isinstance(shape, str):
        known = shape in TYPES
        return [] if known else [f"{where}: wanted one of {', '.join(TYPES)}, got {shown(shape)}"]
    if isinstance(shape, list) and len(shape) == 1:
        return shape_faults(shape[0], f"{where}[]")
    if isinstance(shape, dict) and shape:
        faults = [f"{where}: wanted keys of text, got {k!r}" for k in shape if _is_no_key(k)]
        return faults + [f for k, v in shape.items() for f in shape_faults(v, f"{where}.{k}")]
    return [f"{where}: wanted a type, a mapping or a list of one, got {shown(shape)}"]


def read_json_reply(text: str, shape: Any, *, complete: bool = True) -> JsonReply:
    """Return what a reply holds.

    Args:
        text: The whole reply.
        shape: What is wanted; `shape_faults` found nothing in it.
        complete: Whether the model ended by itself; what broke off is not completed.
    """
    try:
        value = _DECODER.decode(text.strip())
    except (ValueError, RecursionError) as err:
        broken = f"broken JSON ({getattr(err, 'msg', type(err).__name__)})"
    else:
        return _judged(value, shape, "valid", "")
    whole = [value for value in _whole_values(text) if isinstance(value, type(shape))]
    for value in whole:
        if not _misfits(value, shape):
            return JsonReply(status="repaired", value=value, problem="text around the JSON")
    if whole:  # mending would change what is sound
        return _judged(max(whole, key=lambda v: len(str(v))), shape, "repaired", "")
    begin = _OPENING.search(text)
    if begin is None:
        return JsonReply(status="invalid", problem="no JSON in the reply")
    if not complete:
        return JsonReply(status="invalid", problem="the JSON broke off at the token limit")
    mended = _mended(text[begin.start() :])
    found = mended if isinstance(mended, list) and not isinstance(shape, list) else [mended]
    for value in found:
        if not _misfits(value, shape):
            return JsonReply(status="repaired", value=value, problem=broken)
    return _judged(max(found, key=lambda v: len(str(v)), default=None), shape, "repaired", broken)


def _judged(
    value: Any, shape: Any, status: Literal["valid", "repaired"], problem: str
) -> JsonReply:
    misfits = _misfits(value, shape)
    if not misfits:
        return JsonReply(status=status, value=value, problem=problem)
    return JsonReply(status="invalid", problem="; ".join([*filter(None, [problem]), *misfits[:5]]))


def _whole_values(text: str) -> Iterator[Any]:
    """Yield the JSON objects and lists that stand whole inside prose, in order.

    What lies inside broken JSON is a part of something and not yielded.
    """
    at = 0
    while (begin := _OPENING.search(text, at)) is not None:
        try:
            value, at = _DECODER.raw_decode(text, begin.start())
        except (ValueError, RecursionError):
            if _LIKE_JSON.match(text, begin.start()):
                return
            at = begin.end()
        else:
            yield value


def _mended(text: str) -> Any:
    try:
        return json_repair.loads(text, skip_json_loads=True)
    except (ValueError, RecursionError):
        return None


def _misfits(value: Any, shape: Any, where: str = "") -> list[str]:
    """Return where a value does not have the shape."""
    place = where or "the JSON"
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"wanted a list at {place}, got {shown(value, 30)}"]
        return [f for i, v in enumerate(value) for f in _misfits(v, shape[0], f"{where}[{i}]")]
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return [f"wanted an object at {place}, got {shown(value, 30)}"]
        found = []
        for key, inner in shape.items():
            name = key.removesuffix("?")
            path = f"{where}.{name}" if where else name
            if name in value:
                found += _misfits(value[name], inner, path)
            elif name == key:
                found.append(f"no {path}")
        return found
    return [] if _is_a(value, shape) else [f"wanted a {shape} at {place}, got {shown(value, 30)}"]


def _is_a(value: Any, kind: str) -> bool:
    if kind == "any":
        return True
    if kind == "string":
        return isinstance(value, str)
    if kind == "boolean":
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) if kind == "integer" else math.isfinite(value)


def _is_no_key(key: Any) -> bool:
    return not isinstance(key, str) or not key.removesuffix("?")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
