"""Whether models can be merged: one list of everything that stands against it.

Only headers, configurations and tokenizer files are read, so the list is there before any
weight is touched.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from filecmp import cmp
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

from merging.parent import DEPTH_KEYS, Parent
from merging.plan import plan, renumbered, tensors_of
from merging.recipe import FORMS, Recipe, numbers_in
from orbweave.errors import ModelError, UsageError, shown

__all__ = ["Finding", "check", "needs_mergekit", "tokenizer_parent"]

_READABLE = {"BF16", "F16", "F32", "F64", "I64", "I32", "I16", "I8", "U8", "BOOL"}
_CHANGES_MEANING = ("num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act")
"""Settings that say what a weight does without changing its shape."""
_TAKEN_FROM_BASE = (
    *("rope_theta", "rope_scaling", "rope_parameters", "rms_norm_eps"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)
_BY_TOKEN = re.compile(
    r"(^|\.)(embed_tokens|embed_in|embed_out|word_embeddings|wte|lm_head)\.weight$"
)
"""Weights with one row per token, which mergekit can put in another order."""
_SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")


class Finding(NamedTuple):
    """One thing a person should know before merging."""

    level: Literal["fault", "mismatch", "note"]
    """A fault stops the merge; a mismatch too, unless a partial merge is asked for."""
    text: str
    """What is wrong and what to do."""


def check(recipe: Recipe, parents: Mapping[str, Parent], *, partial: bool = False) -> list[Finding]:
    """Return everything that stands against a merge, faults first.

    Args:
        recipe: What is wanted.
        parents: By the names in the recipe.
        partial: Tensors that do not fit are taken from the base; mismatches become notes.

    Raises:
        ModelError: a tokenizer's file is damaged.
    """
    names = recipe.model_names()
    if recipe.is_ours:  # a model that only lends its tokenizer may be of any shape
        names = [part.model for part in recipe.inputs]
    lead, *others = [parents[name] for name in dict.fromkeys(names)]
    joins = recipe.is_ours and needs_mergekit(recipe, parents)
    findings = list(
        chain(
            _recipe_findings(recipe, parents) if recipe.is_ours else (),
            *(_own_findings(parent) for parent in (lead, *others)),
            *(_pair_findings(lead, other, recipe, joins) for other in others),
        )
    )
    if recipe.is_ours and all(finding.level != "fault" for finding in findings):
        try:
            plan(recipe, parents, partial=True)
        except UsageError as err:
            findings.append(_fault(str(err)))
    if partial:
        findings = [f._replace(level="note") if f.level == "mismatch" else f for f in findings]
    order = ("fault", "mismatch", "note")
    return sorted(dict.fromkeys(findings), key=lambda finding: order.index(finding.level))


def needs_mergekit(recipe: Recipe, parents: Mapping[str, Parent]) -> bool:
    """Return whether mergekit must run this: another method, or vocabularies to be joined."""
    if not recipe.is_ours:
        return True
    if recipe.tokenizer_source is None:
        return False
    lead, *others = parents.values()
    return any(_vocabulary(lead) != _vocabulary(other) for other in others)


def tokenizer_parent(recipe: Recipe, parents: Mapping[str, Parent]) -> Parent:
    """Return the parent whose tokenizer and chat template the merged model gets."""
    source = recipe.tokenizer_source
    if source is None or source in {"base", "union"}:
        return parents[recipe.model_names()[0]]
    return parents[source]


# ---------------------------------------------------------------- the recipe


def _recipe_findings(recipe: Recipe, parents: Mapping[str, Parent]) -> Iterator[Finding]:
    """Find what the recipe asks for and cannot have."""
    method, names = recipe.merge_method, [part.model for part in recipe.inputs]
    wanted = {"slerp": 2, "passthrough": 1}.get(method)
    if wanted is not None and len(names) != wanted:
        yield _fault(
            f"{method} takes {wanted} models, the recipe names {len(names)}; name {wanted}"
        )
    if method == "slerp" and recipe.base is None:
        yield _fault("slerp needs base_model, the model at t = 0; name one of the two")
    if recipe.base is not None and recipe.base not in names:
        yield _fault(f"base_model {recipe.base} is not among the models; add it")
    if len(set(names)) < len(names):
        yield _fault(f"a model is named twice: {', '.join(names)}; name different ones")
    depths = []
    for part in recipe.inputs:
        n_layers = parents[part.model].n_layers
        first, last = part.layer_range or (0, n_layers)
        depths.append(last - first)
        if not 0 <= first < last <= n_layers:
            yield _fault(
                f"layer_range [{first}, {last}] does not fit {part.model}, which has {n_layers} "
                "layers; the second number is the one after the last layer"
            )
    if len(set(depths)) > 1:
        lengths = " and ".join(map(str, depths))
        yield _fault(f"the models bring {lengths} layers; choose layer_range alike")
    for parameter in ("t", "weight"):
        for setting in recipe.settings(parameter):
            yield from _setting_findings(parameter, setting, recipe, min(depths))
    for form in recipe.settings("form"):
        if form not in FORMS:
            yield _fault(
                f"form must be one of {', '.join(FORMS)}, got {shown(form)}; or leave it out"
            )
    if recipe.unused():
        unused = ", ".join(recipe.unused())
        yield _note(f"{unused} is not used by {method}, neither here nor in mergekit")


def _setting_findings(
    parameter: str, setting: Any, recipe: Recipe, n_layers: int
) -> Iterator[Finding]:
    try:
        gradients = list(numbers_in(setting))
    except UsageError as err:
        yield _fault(str(err))
        return
    for values in gradients:
        if len(values) > max(n_layers, 1):
            yield _fault(
                f"{parameter} has {len(values)} values for {n_layers} layers, so some would never "
                "be used; give at most one per layer"
            )
        if not all(map(math.isfinite, values)):
            yield _fault(f"{parameter} must be finite, got {values}; write plain numbers")
        elif parameter == "t" and not all(0 <= t <= 1 for t in values):
            yield _fault(f"t must be between 0 and 1, got {values}; 0 is the base, 1 the other")
        elif recipe.merge_method == "karcher" and min(values, default=0) < 0:
            yield _fault(f"karcher takes no negative weights, got {values}; give 0 or more")


# ---------------------------------------------------------------- one model


def _own_findings(parent: Parent) -> Iterator[Finding]:
    """Find what makes a model unfit for any merge."""
    unreadable = {info.dtype for info in parent.tensors.values()} - _READABLE
    if unreadable or parent.config.get("quantization_config"):
        kinds = ", ".join(sorted(unreadable)) or "its own scheme"
        yield _fault(
            f"{parent.name} is quantised ({kinds}), which cannot be averaged; "
            "give the model in bfloat16 or float32"
        )
    depths = (parent.config.get(key) for key in DEPTH_KEYS)
    promised = max((depth for depth in depths if isinstance(depth, int)), default=0)
    if 0 < parent.n_layers < promised:
        yield _fault(
            f"config.json of {parent.name} promises {promised} layers, its weights hold "
            f"{parent.n_layers}; fetch the model again, or mend its config.json"
        )
    if parent.tokenizer_folder is None:
        yield _note(f"{parent.name} has no tokenizer files to compare or copy")


# ---------------------------------------------------------------- two models


def _pair_findings(lead: Parent, other: Parent, recipe: Recipe, joins: bool) -> Iterator[Finding]:
    """Find where `other` does not fit `lead`; `joins` tells that vocabularies are to be joined."""
    if _place(lead) == _place(other):
        yield _fault(
            f"{lead.name} and {other.name} are the same weights, so a merge would change nothing; "
            "name different models"
        )
        return
    yield from _config_findings(lead, other)
    if recipe.is_ours:
        yield from _tensor_findings(lead, other, recipe, joins)
    yield from _tokenizer_findings(lead, other, recipe)
    ours, theirs = _dtypes(lead), _dtypes(other)
    if ours != theirs:
        yield _note(
            f"{lead.name} is stored as {ours}, {other.name} as {theirs}; the result takes "
            f"{recipe.out_dtype or recipe.dtype or f'that of {lead.name}'}"
        )


def _config_findings(lead: Parent, other: Parent) -> Iterator[Finding]:
    ours, theirs = _architecture(lead), _architecture(other)
    if ours != theirs:
        yield _mismatch(
            f"{lead.name} is a {ours}, {other.name} a {theirs}: tensors of one name do different "
            "work in them; merge models of one architecture, or ask for a partial merge"
        )
    for key in (*_CHANGES_MEANING, *_TAKEN_FROM_BASE):
        x, y = lead.config.get(key), other.config.get(key)
        if x is None or y is None or x == y:
            continue
        differ = f"{key} is {shown(x)} in {lead.name} and {shown(y)} in {other.name}"
        if key in _CHANGES_MEANING:
            yield _mismatch(f"{differ}: equal weights do different work; merge models of one shape")
        else:
            yield _note(f"{differ}; the result takes that of {lead.name}")


def _tensor_findings(lead: Parent, other: Parent, recipe: Recipe, joins: bool) -> Iterator[Finding]:
    parts = {part.model: part for part in recipe.inputs}
    # Layers outside a range need not be there, and those inside may have other numbers.
    ours, theirs = (tensors_of(parts[parent.name], parent) for parent in (lead, other))
    for holder, held, lacker, had in ((lead, ours, other, theirs), (other, theirs, lead, ours)):
        first = (parts[lacker.name].layer_range or (0, 0))[0]
        lost = {renumbered(name, first) for name in held.keys() - had.keys()}
        if lost == {"lm_head.weight"} and lacker.config.get("tie_word_embeddings"):
            yield _mismatch(
                f"{holder.name} has an output head of its own, {lacker.name} ties it to the "
                "embedding; save both alike"
            )
        elif lost:
            yield _mismatch(
                f"{lacker.name} lacks {_some(lost)}, which {holder.name} has; "
                "merge models of one shape"
            )
    unlike: dict[str, str] = {}
    for name in ours.keys() & theirs.keys():
        x, y = lead.tensors[ours[name]].shape, other.tensors[theirs[name]].shape
        if joins and _BY_TOKEN.search(name):
            x, y = x[1:], y[1:]
        if x != y:
            unlike[ours[name]] = theirs[name]
    if unlike:
        mine, its = min(unlike.items())
        where = other.name if its == mine else f"{its} of {other.name}"
        mend = "merge models of one size"
        if not recipe.tokenizer_source:
            mend += ", or set tokenizer_source if only the vocabularies differ"
        yield _mismatch(
            f"{_some(unlike)} has the shape {lead.tensors[mine].shape} in {lead.name} and "
            f"{other.tensors[its].shape} in {where}; {mend}"
        )


def _tokenizer_findings(lead: Parent, other: Parent, recipe: Recipe) -> Iterator[Finding]:
    ours = _vocabulary(lead)
    theirs = ours if _same_tokenizer(lead, other) else _vocabulary(other)
    if ours is None or theirs is None or recipe.tokenizer_source or recipe.tokenizer:
        return
    if ours != theirs:
        n_unlike = len(ours.items() ^ theirs.items())
        yield _fault(
            f"the vocabularies of {lead.name} and {other.name} differ in {n_unlike} entries, so "
            "one row stands for different tokens; set tokenizer_source to base, union or a model"
        )
        return
    if _chat_template(lead) != _chat_template(other):
        yield _note(
            f"the chat templates differ; the result takes that of {lead.name}, "
            "tokenizer_source chooses another"
        )
    mine, its = _special_tokens(lead), _special_tokens(other)
    for key in _SPECIAL_TOKENS:
        if mine.get(key) != its.get(key):
            yield _note(
                f"{key} is {shown(mine.get(key))} in the tokenizer of {lead.name} and "
                f"{shown(its.get(key))} in that of {other.name}; the result takes the first, "
                "tokenizer_source chooses another"
            )


# ---------------------------------------------------------------- what the files say


def _place(parent: Parent) -> list[Path]:
    return [parent.folder.resolve(), *(adapter.folder.resolve() for adapter in parent.adapters)]


def _architecture(parent: Parent) -> str:
    names = parent.config.get("architectures")
    return str(names[0] if isinstance(names, list) and names else parent.config.get("model_type"))


def _dtypes(parent: Parent) -> str:
    return ", ".join(sorted({info.dtype for info in parent.tensors.values()}))


def _some(names: Collection[str]) -> str:
    first, *rest = sorted(names)
    return f"{first} (and {len(rest)} more)" if rest else first


def _same_tokenizer(lead: Parent, other: Parent) -> bool:
    """Return whether two models have one tokenizer.json, byte by byte: it is read once then."""
    ours, theirs = lead.tokenizer_folder, other.tokenizer_folder
    if ours is None or theirs is None:
        return False
    files = [ours / "tokenizer.json", theirs / "tokenizer.json"]
    return all(file.is_file() for file in files) and cmp(files[0], files[1], shallow=False)


def _vocabulary(parent: Parent) -> dict[str, int] | None:
    """Return token -> row, None where there is no tokenizer.

    A sentencepiece file without tokenizer.json is compared as a whole.
    """
    folder = parent.tokenizer_folder
    if folder is None:
        return None
    if not (folder / "tokenizer.json").is_file():
        return {hashlib.sha256((folder / "tokenizer.model").read_bytes()).hexdigest(): 0}
    content = _json(folder / "tokenizer.json")
    try:
        words = content["model"]["vocab"]
        if isinstance(words, list):  # unigram: [word, log probability] in order of rows
            words = {word: row for row, (word, _) in enumerate(words)}
        added = {token["content"]: token["id"] for token in content.get("added_tokens", [])}
        return {**words, **added}
    except (ValueError, KeyError, TypeError) as err:
        raise _damaged(folder / "tokenizer.json", err) from err


def _chat_template(parent: Parent) -> object:
    folder = parent.tokenizer_folder
    if folder is None:
        return None
    path = folder / "chat_template.jinja"
    if not path.is_file():
        return _json(folder / "tokenizer_config.json").get("chat_template")
    try:
        return path.read_text("utf-8").strip()
    except ValueError as err:
        raise _damaged(path, err) from err


def _special_tokens(parent: Parent) -> dict[str, Any]:
    """Return the special tokens a tokenizer names, by their part; empty where none are named."""
    folder = parent.tokenizer_folder
    if folder is None:
        return {}
    named = _json(folder / "special_tokens_map.json") | _json(folder / "tokenizer_config.json")
    tokens = {key: named.get(key) for key in _SPECIAL_TOKENS}
    return {k: t.get("content") if isinstance(t, dict) else t for k, t in tokens.items()}


def _json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, an empty one if there is no file."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as err:
        raise _damaged(path, err) from err
    if not isinstance(content, dict):
        raise _damaged(path, content)
    return content


def _damaged(path: Path, found: object) -> ModelError:
    return ModelError(
        f"wanted a tokenizer's file in {path}, found {shown(found)}; fetch or build the model again"
    )


def _fault(text: str) -> Finding:
    return Finding("fault", text)


def _mismatch(text: str) -> Finding:
    return Finding("mismatch", text)


def _note(text: str) -> Finding:
    return Finding("note", text)
