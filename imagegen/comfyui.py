"""ComfyUI's graph of nodes, followed from the sampler back to what fed it.

The graph is `{id: {"class_type": ..., "inputs": {name: value or [id, output]}}}`; a list of two
whose first is an id is a wire. Nodes that are not known are looked through by their inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["settings_of_graph"]

MAX_NODES = 2_000
"""A large workflow has some hundred."""
_MODEL_FILES = ("ckpt_name", "unet_name", "model_name")


def settings_of_graph(graph: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return what the graph's first sampler was given, and what is not taken over, in words.

    The fields are a `RenderRequest`'s, but for `sampler` and `schedule` by ComfyUI's names.

    Raises:
        ValueError: no graph, or one without a sampler.
    """
    nodes = {
        str(key): node
        for key, node in list(graph.items())[:MAX_NODES]
        if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
    }
    samplers = [
        key for key, node in nodes.items() if _inputs(node).keys() >= {"positive", "latent_image"}
    ] or [key for key, node in nodes.items() if _inputs(node).keys() >= {"guider", "latent_image"}]
    if not samplers:
        raise ValueError("no sampler in the graph")
    sampler = nodes[samplers[0]]
    fed_by = [nodes[key] for key in _upstream(nodes, samplers[0])]
    fields: dict[str, Any] = {}
    unknown = [f"{len(samplers)} samplers, the first was read"] if len(samplers) > 1 else []
    _read_numbers(fields, fed_by)
    guider = _wired(nodes, sampler, "guider") or sampler
    fields["prompt"] = _text(nodes, guider, "positive") or _text(nodes, guider, "conditioning")
    fields["negative_prompt"] = _text(nodes, guider, "negative")
    adapters = [
        (str(_inputs(node)["lora_name"]), float(_inputs(node).get("strength_model", 1.0)))
        for node in fed_by
        if "lora_name" in _inputs(node)
    ]
    # Found walking back from the sampler, so the last one laid over the model comes first.
    fields["adapters"] = tuple(reversed(adapters))
    if any("image" in _inputs(node) for node in fed_by):
        unknown.append("the picture it started from")
    used = {id(node) for node in fed_by}
    unknown += [f"node {node.get('class_type')}" for node in nodes.values() if id(node) not in used]
    return fields, unknown


def _read_numbers(fields: dict[str, Any], nodes: list[dict[str, Any]]) -> None:
    """Fill in what the nodes state as plain values; the nearest to the sampler wins."""
    names = {
        "steps": "steps", "cfg": "guidance", "guidance": "guidance", "denoise": "strength",
        "width": "width", "height": "height", "sampler_name": "sampler", "scheduler": "schedule",
    }  # fmt: skip
    for node in nodes:
        inputs = _inputs(node)
        for key, name in names.items():
            if isinstance(inputs.get(key), int | float | str):
                fields.setdefault(name, inputs[key])
        for key in ("seed", "noise_seed"):
            if isinstance(inputs.get(key), int):
                fields.setdefault("seeds", (inputs[key],))
        for key in _MODEL_FILES:
            if isinstance(inputs.get(key), str) and "control" not in str(node.get("class_type")):
                fields.setdefault("model", inputs[key])
    # FLUX's learned guidance is what a request means; the sampler's cfg beside it is 1.
    for value in (_inputs(node).get("guidance") for node in reversed(nodes)):
        if isinstance(value, int | float):
            fields["guidance"] = value
    if fields.get("strength") == 1:
        del fields["strength"]


def _inputs(node: dict[str, Any]) -> dict[str, Any]:
    inputs: dict[str, Any] = node["inputs"]
    return inputs


def _wires(node: dict[str, Any]) -> Iterator[str]:
    for value in _inputs(node).values():
        if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int):
            yield str(value[0])


def _upstream(nodes: dict[str, Any], start: str) -> list[str]:
    """The nodes that feed one, itself first, nearest first, each once, however they are wired."""
    found, waiting = [start], [start]
    while waiting:
        for key in _wires(nodes[waiting.pop(0)]):
            if key in nodes and key not in found:
                found.append(key)
                waiting.append(key)
    return found


def _wired(nodes: dict[str, Any], node: dict[str, Any], name: str) -> dict[str, Any] | None:
    value = _inputs(node).get(name)
    is_wire = isinstance(value, list) and value and str(value[0]) in nodes
    found: dict[str, Any] | None = nodes[str(value[0])] if is_wire and value else None
    return found


def _text(nodes: dict[str, Any], node: dict[str, Any], name: str) -> str:
    """The words that reach an input, through whatever conditioning lies between."""
    value = _inputs(node).get(name)
    # A ControlNet lets both sides pass: the input of the same name goes on.
    for _ in nodes:  # bounded, should the graph run in a circle
        before = _wired(nodes, node, name)
        if before is None or name not in _inputs(before):
            break
        node, value = before, _inputs(before)[name]
    if isinstance(value, str):
        return value
    if not (isinstance(value, list) and value and str(value[0]) in nodes):
        return ""
    if nodes[str(value[0])].get("class_type") == "ConditioningZeroOut":
        return ""
    for key in _upstream(nodes, str(value[0])):
        for field in ("text", "t5xxl", "text_g", "string", "value"):
            text = _inputs(nodes[key]).get(field)
            if isinstance(text, str):
                return text
    return ""
