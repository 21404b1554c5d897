"""YAML as people write it by hand: a key given twice is told, and a fault says where it stands."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from orbweave.errors import shown

__all__ = ["fault_text", "parsed", "yaml_fault"]


def parsed(text: str) -> tuple[Any, list[str]]:
    """Return what a YAML text holds, and a fault for every key that is given twice.

    PyYAML silently keeps the last of such keys, and so is it here.

    Raises:
        yaml.YAMLError: it is no YAML; see `yaml_fault`.
    """
    repeated: list[str] = []

    class Loader(yaml.SafeLoader):
        def construct_mapping(
            self, node: yaml.MappingNode, deep: bool = False
        ) -> dict[Hashable, Any]:
            keys: list[Any] = []
            for key, _ in node.value:
                name = self.construct_object(key, deep=True)
                if name in keys:
                    repeated.append(f"line {key.start_mark.line + 1}: {name} is given twice")
                keys.append(name)
            return super().construct_mapping(node, deep)

    return yaml.load(text, Loader), repeated


def yaml_fault(err: yaml.YAMLError) -> str:
    """Return where a text is no YAML and why: `line 3, column 5: ...`."""
    mark, problem = (getattr(err, name, None) for name in ("problem_mark", "problem"))
    if mark is None or problem is None:
        return shown(err, 160)
    return f"line {mark.line + 1}, column {mark.column + 1}: {shown(problem, 160)}"


def fault_text(error: Any) -> str:
    """Return one of pydantic's errors as `stages.1.epochs: what is wrong (got ...)`."""
    place = ".".join(str(part) for part in error["loc"]) or "the whole"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"{place}: no such key"
    if error["type"] == "missing":
        return f"{place}: is missing"
    return f"{place}: {message}" + ("" if not error["loc"] else f" (got {shown(error['input'])})")
