"""Pictures of other tools: what their files say of their making, as a `RenderRequest`.

AUTOMATIC1111 and its kin write text, InvokeAI, ComfyUI and Fooocus JSON. None of them names
everything that decides the pixels, so what is unknown here, or not taken over, is listed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from imagegen.comfyui import settings_of_graph
from imagegen.fields import in_words
from imagegen.png import PARAMETERS_KEY, read_texts
from imagegen.samplers import SAMPLERS
from orbweave.errors import UsageError, shown
from orbweave.records import RenderRequest

__all__ = ["ForeignPicture", "read_foreign"]

MAX_UNKNOWN = 40
"""Settings listed as not taken over; a hostile file may hold thousands."""
_PAIR = re.compile(r'(\w[\w \-/]{1,99}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
"""One `Key: value` of A1111's last line."""
_ADAPTER = re.compile(
    r"(?<![ \t])[ \t]*<lora:([^:<>]{1,200}):(-?\d{1,3}(?:\.\d{1,6})?)(?::[^<>]{0,100})?>"
)
_SIZE = re.compile(r"\(?\s*(\d{1,5})\s*[x×,]\s*(\d{1,5})\s*\)?")
_SAID_ELSEWHERE = {"Version", "Model hash", "Lora hashes", "TI hashes", "Hashes", "VAE hash"}
"""Of A1111's pairs: they name files, and change no pixel by themselves."""

# k-diffusion's and diffusers' names of the samplers we know by A1111's.
_SAMPLERS = {
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "euler_a": "Euler a",
    "heun": "Heun",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2m_sde_gpu": "DPM++ 2M SDE",
    "ddim": "DDIM",
    "uni_pc": "UniPC",
    "unipc": "UniPC",
    "lcm": "LCM",
}


class ForeignPicture(NamedTuple):
    """What a picture of another tool lets be known."""

    tool: str
    request: RenderRequest
    """The model and the adapters by the names the tool gives them, which need not be on this
    machine."""
    unknown: tuple[str, ...]
    """Settings that were not found or have no counterpart here, in words."""


class _Found(NamedTuple):
    """Settings by the names of a `RenderRequest`'s fields, as far as a reader found them."""

    tool: str
    fields: dict[str, Any]
    unknown: list[str]


def read_foreign(path: Path) -> ForeignPicture:
    """Read what another tool wrote into a PNG.

    Raises:
        UsageError: not a PNG, damaged, or without settings in a form we know.
    """
    texts = read_texts(path)
    found = _found_in(texts, path)
    wanted = {"prompt", "model", "steps", "guidance", "width", "height", "seeds", "scheduler"}
    missing = [f"{name} not named" for name in sorted(wanted - found.fields.keys())]
    fields = {"model": "unknown"} | {k: v for k, v in found.fields.items() if v is not None}
    try:
        request = RenderRequest.model_validate(fields)
    except ValidationError as err:
        first = err.errors()[0]
        raise UsageError(
            f"wanted settings that can be rendered in {path}, got {in_words(first['loc'])} "
            f"{shown(first['input'])}: {first['msg'].lower()}; give the words to "
            "`orbweave render`, with settings of your own"
        ) from err
    unknown = [shown(text, 100).strip("'") for text in [*missing, *found.unknown]]
    return ForeignPicture(found.tool, request, tuple(unknown[:MAX_UNKNOWN]))


def _found_in(texts: Mapping[str, str], path: Path) -> _Found:
    """Ask the reader of the tool whose key is there; the more exact form first."""
    try:
        if "invokeai_metadata" in texts:
            return _invokeai(_json(texts["invokeai_metadata"]))
        if texts.get("fooocus_scheme") == "fooocus" or texts.get(PARAMETERS_KEY, "")[:1] == "{":
            return _fooocus(_json(texts[PARAMETERS_KEY]))
        if PARAMETERS_KEY in texts:
            return _a1111(texts[PARAMETERS_KEY])
        if "prompt" in texts:
            return _comfyui(_json(texts["prompt"]))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as err:
        raise UsageError(
            f"wanted settings of a known tool in {path}, got text that is not in its form "
            f"({shown(err, 80)}); it was edited or damaged: give the file as it was written"
        ) from err
    raise UsageError(
        f"wanted settings of Orbweave, AUTOMATIC1111, InvokeAI, ComfyUI or Fooocus in {path}, "
        f"found {', '.join(shown(key) for key in list(texts)[:5]) or 'no text'}; "
        "other programs often strip it: give the file as it was written"
    )


def _json(text: str) -> dict[str, Any]:
    """Parse a JSON object; very deep or very long numbers raise ValueError or RecursionError."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    return value


# ----------------------------------------------------------------------------- one per tool


def _a1111(text: str) -> _Found:
    """Prompt lines, `Negative prompt:` lines and a last line of pairs."""
    *lines, last = text.strip().split("\n")
    pairs = {key.strip(): _unquoted(value) for key, value in _PAIR.findall(last)}
    if len(pairs) < 3:
        lines, pairs = [*lines, last], {}
    words: dict[bool, list[str]] = {False: [], True: []}
    negative = False
    for line in lines:
        negative = negative or line.startswith("Negative prompt:")
        words[negative].append(line.removeprefix("Negative prompt:").strip())
    prompt, adapters = _without_adapters("\n".join(words[False]).strip())
    fields: dict[str, Any] = {
        "prompt": prompt,
        "negative_prompt": "\n".join(words[True]).strip(),
        "adapters": adapters,
    }
    unknown: list[str] = []
    known = {
        "Steps": ("steps", int),
        "CFG scale": ("guidance", float),
        "Distilled CFG Scale": ("guidance", float),
        "Model": ("model", str),
        "Denoising strength": ("strength", float),
    }
    for key, (name, convert) in known.items():
        if key in pairs:
            fields[name] = _converted(key, pairs.pop(key), convert)
    if "strength" in fields:
        unknown.append("the picture it started from")
    if "Seed" in pairs:
        fields["seeds"] = (_converted("Seed", pairs.pop("Seed"), int),)
    if "Size" in pairs:
        fields["width"], fields["height"] = _size(pairs.pop("Size"))
    if "Sampler" in pairs:
        schedule = pairs.pop("Schedule type", "")
        fields["scheduler"] = _sampler(pairs.pop("Sampler"), schedule, unknown)
    if pairs.pop("Tiling", "").lower() == "true":
        fields["tile"] = True
    tool = "Fooocus" if pairs.get("Version", "").startswith("Fooocus") else "AUTOMATIC1111"
    unknown += [f"{key}: {value}" for key, value in pairs.items() if key not in _SAID_ELSEWHERE]
    return _Found(tool, fields, unknown)


def _invokeai(data: dict[str, Any]) -> _Found:
    """The metadata InvokeAI writes since version 3."""
    unknown: list[str] = []
    model = data.pop("model", None) or {}
    fields: dict[str, Any] = {
        "prompt": str(data.pop("positive_prompt", "")),
        "negative_prompt": str(data.pop("negative_prompt", None) or ""),
        "model": model.get("name") or model.get("model_name"),
        "adapters": tuple(
            (str((one.get("model") or one.get("lora") or {}).get("name")), float(one["weight"]))
            for one in data.pop("loras", None) or []
        ),
    }
    same = {"steps": "steps", "width": "width", "height": "height", "cfg_scale": "guidance"}
    for key, name in same.items():
        if data.get(key) is not None:
            fields[name] = data.pop(key)
    if data.get("seed") is not None:
        fields["seeds"] = (int(data.pop("seed")),)
    if data.get("scheduler"):
        name = str(data.pop("scheduler"))
        schedule = "karras" if name.endswith("_k") else ""
        fields["scheduler"] = _sampler(name.removesuffix("_k"), schedule, unknown)
    if data.get("strength") is not None:
        fields["strength"] = data.pop("strength")
        unknown.append("the picture it started from")
    for key in ("app_version", "rand_device", "created_by"):
        data.pop(key, None)
    unknown += [f"{key}: {value}" for key, value in data.items() if value not in (None, [], "")]
    return _Found("InvokeAI", fields, unknown)


def _fooocus(data: dict[str, Any]) -> _Found:
    """The JSON of Fooocus' own scheme."""
    unknown: list[str] = []
    adapters = []
    for key in [k for k in data if k.startswith("lora_combined_")]:
        name, _, weight = str(data.pop(key)).rpartition(" : ")
        adapters.append((name, float(weight)))
    for name, weight, *_ in data.pop("loras", None) or []:
        adapters.append((str(name), float(weight)))
    fields: dict[str, Any] = {
        # The words the model was given, where Fooocus' own expansion is noted.
        "prompt": "\n".join(data.pop("full_prompt", None) or [str(data.pop("prompt", ""))]),
        "negative_prompt": "\n".join(
            data.pop("full_negative_prompt", None) or [str(data.pop("negative_prompt", "") or "")]
        ),
        "model": data.pop("base_model", None),
        "adapters": tuple(adapters),
    }
    data.pop("prompt", None)
    data.pop("negative_prompt", None)
    if "steps" in data:
        fields["steps"] = int(data.pop("steps"))
    if "guidance_scale" in data:
        fields["guidance"] = float(data.pop("guidance_scale"))
    if "seed" in data:
        fields["seeds"] = (int(data.pop("seed")),)
    if "resolution" in data:
        fields["width"], fields["height"] = _size(str(data.pop("resolution")))
    if "sampler" in data:
        fields["scheduler"] = _sampler(
            str(data.pop("sampler")), str(data.pop("scheduler", "")), unknown
        )
    for key in ("metadata_scheme", "version", "base_model_hash", "created_by"):
        data.pop(key, None)
    unknown += [f"{key}: {value}" for key, value in data.items() if value not in (None, [], "")]
    return _Found("Fooocus", fields, unknown)


def _comfyui(graph: dict[str, Any]) -> _Found:
    """The graph ComfyUI writes as `prompt`."""
    unknown: list[str] = []
    fields, rest = settings_of_graph(graph)
    sampler, schedule = fields.pop("sampler", None), fields.pop("schedule", "")
    if sampler is not None:
        fields["scheduler"] = _sampler(str(sampler), str(schedule), unknown)
    return _Found("ComfyUI", fields, [*unknown, *rest])


# ---------------------------------------------------------------------------------- values


def _converted(key: str, value: str, convert: Callable[[str], Any]) -> Any:
    try:
        return convert(value)
    except ValueError as err:
        raise ValueError(f"{key}: {value}") from err


def _unquoted(value: str) -> str:
    return str(json.loads(value)) if value.startswith('"') else value.strip()


def _without_adapters(prompt: str) -> tuple[str, tuple[tuple[str, float], ...]]:
    """Prompt and adapters of A1111's `<lora:name:weight>`."""
    adapters = tuple((name, float(weight)) for name, weight in _ADAPTER.findall(prompt))
    return _ADAPTER.sub("", prompt).strip(), adapters


def _size(text: str) -> tuple[int, int]:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"the size {text}")
    return int(match[1]), int(match[2])


def _sampler(name: str, schedule: str, unknown: list[str]) -> str | None:
    """Return our name of a sampler; None, and a word in `unknown`, for one we do not have."""
    karras = schedule.lower() == "karras" or name.endswith(" Karras")
    base = _SAMPLERS.get(name.lower().replace(" ", "_"), name.removesuffix(" Karras"))
    full = f"{base} Karras" if karras else base
    if full in SAMPLERS:
        usual = schedule.lower() in {"", "automatic", "normal", "karras", "simple", "sgm_uniform"}
        if not usual:
            unknown.append(f"schedule {schedule}")
        return full
    if base in SAMPLERS:
        unknown.append(f"schedule {schedule}")
        return base
    unknown.append(f"sampler {name} {schedule}".strip())
    return None
