"""Whether models can be merged: one list of everything that stands against it.

Only headers, configurations and tokenizer files are read, so the list is there before any
weight is touched.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from filecmp import cmp
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from merging.findings import Finding, fault, mismatch, note, some
from merging.parent import DEPTH_KEYS, Parent, layer_of
from merging.plan import Step, plan, renumbered, taken_from, tensors_of
from merging.recipe import Input, Recipe
from merging.recipe_findings import recipe_findings
from orbweave.errors import ModelError, UsageError, shown

__all__ = [
    "Finding",
    "by_token",
    "check",
    "config_findings",
    "have_one_vocabulary",
    "needs_mergekit",
    "tokenizer_parent",
]

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


def check(recipe: Recipe, parents: Mapping[str, Parent], *, partial: bool = False) -> list[Finding]:
    """Return everything that stands against a merge, faults first.

    Args:
        recipe: What is wanted.
        parents: By the names in the recipe.
        partial: What has the same name and shape everywhere is merged, the rest taken from the
            base: mismatches become notes, and more tell what was taken from whom.

    Raises:
        ModelError: a tokenizer's file is damaged.
    """
    names = recipe.model_names()
    if recipe.is_ours:  # a model that only lends its tokenizer may be of any shape
        names = [part.model for part in recipe.inputs]
    lead, *others = [parents[name] for name in dict.fromkeys(names)]
    by_mergekit = needs_mergekit(recipe, parents)
    findings = list(
        chain(
            recipe_findings(recipe, parents, partial=partial and not by_mergekit),
            *(_own_findings(parent) for parent in (lead, *others)),
            *(_pair_findings(lead, other, recipe, partial) for other in others),
            _run_findings(recipe, parents, by_mergekit, partial=partial and not by_mergekit),
        )
    )
    if recipe.is_ours and all(finding.level != "fault" for finding in findings):
        try:
            steps = plan(recipe, parents, partial=True)
        except UsageError as err:
            findings.append(fault(str(err)))
        else:
            if partial and not by_mergekit:
                findings += _taken(steps, (lead, *others))
    order = ("fault", "mismatch", "note")
    return sorted(dict.fromkeys(findings), key=lambda finding: order.index(finding.level))


def needs_mergekit(recipe: Recipe, parents: Mapping[str, Parent]) -> bool:
    """Return whether mergekit must run this: another method, or vocabularies to be joined."""
    if not recipe.is_ours:
        return True
    if recipe.tokenizer_source is None:
        return False
    return not have_one_vocabulary(list(parents.values()))


def have_one_vocabulary(parents: Sequence[Parent]) -> bool:
    """Return whether one row stands for the same token in all of these models."""
    lead, *others = parents
    return all(_same_tokenizer(lead, o) or _vocabulary(lead) == _vocabulary(o) for o in others)


def by_token(tensor: str) -> bool:
    """Return whether a weight has one row per token."""
    return _BY_TOKEN.search(tensor) is not None


def tokenizer_parent(recipe: Recipe, parents: Mapping[str, Parent]) -> Parent:
    """Return the parent whose tokenizer and chat template the merged model gets."""
    source = recipe.tokenizer_source
    if source is None or source in {"base", "union"}:
        return parents[recipe.model_names()[0]]
    return parents[source]


# ---------------------------------------------------------------- one model


def _own_findings(parent: Parent) -> Iterator[Finding]:
    """Find what makes a model unfit for any merge."""
    unreadable = {info.dtype for info in parent.tensors.values()} - _READABLE
    if unreadable or parent.config.get("quantization_config"):
        kinds = ", ".join(sorted(unreadable)) or "its own scheme"
        yield fault(
            f"{parent.name} is quantised ({kinds}), which cannot be averaged; "
            "give the model in bfloat16 or float32"
        )
    depths = (parent.config.get(key) for key in DEPTH_KEYS)
    promised = max((depth for depth in depths if isinstance(depth, int)), default=0)
    if 0 < parent.n_layers < promised:
        yield fault(
            f"config.json of {parent.name} promises {promised} layers, its weights hold "
            f"{parent.n_layers}; fetch the model again, or mend its config.json"
        )
    if parent.tokenizer_folder is None:
        yield note(f"{parent.name} has no tokenizer files to compare or copy")


# ---------------------------------------------------------------- two models


def _pair_findings(lead: Parent, other: Parent, recipe: Recipe, partial: bool) -> Iterator[Finding]:
    """Find where `other` does not fit `lead`, its tensors apart."""
    if _place(lead) == _place(other):
        yield fault(
            f"{lead.name} and {other.name} are the same weights, so a merge would change nothing; "
            "name different models"
        )
        return
    yield from config_findings(lead, other, partial=partial)
    yield from _tokenizer_findings(lead, other, recipe)
    ours, theirs = _dtypes(lead), _dtypes(other)
    if ours != theirs:
        yield note(
            f"{lead.name} is stored as {ours}, {other.name} as {theirs}; the result takes "
            f"{recipe.out_dtype or recipe.dtype or f'that of {lead.name}'}"
        )


def config_findings(lead: Parent, other: Parent, *, partial: bool = False) -> Iterator[Finding]:
    """Find where two models do different work with tensors of one name."""
    ours, theirs = _architecture(lead), _architecture(other)
    if ours != theirs:
        yield mismatch(
            f"{lead.name} is a {ours}, {other.name} a {theirs}: tensors of one name do different "
            "work in them",
            "merge models of one architecture, or ask for a partial merge",
            partial=partial,
        )
    for key in (*_CHANGES_MEANING, *_TAKEN_FROM_BASE):
        x, y = lead.config.get(key), other.config.get(key)
        if x is None or y is None or x == y:
            continue
        differ = f"{key} is {shown(x)} in {lead.name} and {shown(y)} in {other.name}"
        if key in _CHANGES_MEANING:
            why = f"{differ}: equal weights do different work"
            yield mismatch(why, "merge models of one shape", partial=partial)
        else:
            yield note(f"{differ}; the result takes that of {lead.name}")


def _run_findings(
    recipe: Recipe, parents: Mapping[str, Parent], by_mergekit: bool, *, partial: bool
) -> Iterator[Finding]:
    """Find where the tensors of what is merged, or stacked, do not fit each other."""
    chosen = bool(recipe.tokenizer_source or recipe.tokenizer)
    fitting = _Fitting(by_mergekit and chosen, chosen, partial)
    runs = [recipe.inputs] if recipe.is_ours else [run.sources for run in recipe.runs]
    whole = parents[recipe.model_names()[0]]
    for i, run in enumerate(runs):
        first, *others = sorted(run, key=lambda part: part.model != whole.name)
        is_end = i in {0, len(runs) - 1}
        lead, ours = parents[first.model], _brought(first, parents, is_end)
        if lead is not whole and not recipe.is_ours:
            yield from _tensor_findings(whole, _alike(ours, whole), lead, ours, fitting)
        for part in others:
            other, theirs = parents[part.model], _brought(part, parents, is_end)
            yield from _tensor_findings(lead, ours, other, theirs, fitting)


class _Fitting(NamedTuple):
    """What of two models' tensors may differ."""

    joins: bool
    """Vocabularies are to be joined: rows of tokens may."""
    chosen: bool
    """The recipe says whose tokenizer to take."""
    partial: bool
    """What does not fit is left out."""


def _brought(part: Input, parents: Mapping[str, Parent], is_end: bool) -> dict[str, str]:
    """Return what a model brings to a run: name in the merged run -> name in its own files.

    Layers outside a range need not be there, and those inside may have other numbers. What lies
    outside the layers comes with the first and the last run.
    """
    brought = tensors_of(part, parents[part.model])
    return {name: t for name, t in brought.items() if is_end or layer_of(name) is not None}


def _alike(brought: Mapping[str, str], whole: Parent) -> dict[str, str]:
    """Return the tensors of `whole` that others are to take the place of, by the same names.

    Its configuration will stand for the stack, so every layer has to be like one of its own.
    """
    by_layer: dict[int | None, list[str]] = {}
    for tensor in whole.tensors:
        by_layer.setdefault(layer_of(tensor), []).append(tensor)
    layers = {layer_of(name): layer_of(tensor) for name, tensor in brought.items()}
    found: dict[str, str] = {}
    for place, layer in layers.items():
        own = layer if layer is None else min(layer, whole.n_layers - 1)
        offset = 0 if place is None or own is None else place - own
        found |= {renumbered(tensor, offset): tensor for tensor in by_layer.get(own, ())}
    return found


def _tensor_findings(
    lead: Parent,
    ours: Mapping[str, str],
    other: Parent,
    theirs: Mapping[str, str],
    fitting: _Fitting,
) -> Iterator[Finding]:
    """Find tensors that only one model has, or that are of unlike shape.

    Args:
        lead: Whose shapes are wanted.
        ours: Name in the merged model -> name in its files.
        other: Whose shapes are looked at.
        theirs: The same of it.
        fitting: What of it may differ.
    """
    for holder, held, lacker, had in ((lead, ours, other, theirs), (other, theirs, lead, ours)):
        lost = {renumbered(name, _offset(had)) for name in held.keys() - had.keys()}
        if lost == {"lm_head.weight"} and lacker.config.get("tie_word_embeddings"):
            yield mismatch(
                f"{holder.name} has an output head of its own, {lacker.name} ties it to the "
                "embedding",
                "save both alike",
                partial=fitting.partial,
            )
        elif lost:
            yield mismatch(
                f"{lacker.name} lacks {some(lost)}, which {holder.name} has",
                "merge models of one shape",
                partial=fitting.partial,
            )
    unlike: dict[str, str] = {}
    for name in ours.keys() & theirs.keys():
        x, y = lead.tensors[ours[name]].shape, other.tensors[theirs[name]].shape
        if fitting.joins and by_token(name):
            x, y = x[1:], y[1:]
        if x != y:
            unlike[ours[name]] = theirs[name]
    if unlike:
        mine, its = min(unlike.items())
        where = other.name if its == mine else f"{its} of {other.name}"
        mend = "merge models of one size"
        if not fitting.chosen and any(by_token(name) for name in unlike):
            mend += ", or set tokenizer_source if only the vocabularies differ"
        yield mismatch(
            f"{some(unlike)} has the shape {lead.tensors[mine].shape} in {lead.name} and "
            f"{other.tensors[its].shape} in {where}",
            mend,
            partial=fitting.partial,
        )


def _offset(brought: Mapping[str, str]) -> int:
    """Return how many layers further on a model's tensors lie in its own files."""
    for name, tensor in brought.items():
        place, own = layer_of(name), layer_of(tensor)
        if place is not None and own is not None:
            return own - place
    return 0


def _taken(steps: Sequence[Step], parents: Sequence[Parent]) -> Iterator[Finding]:
    """Tell what a partial merge takes from whom, unless everything is merged."""
    groups = taken_from(steps)
    if len(parents) > 1 and all(len(names) == 1 for names in groups):
        yield fault(
            f"no tensor has one name and one shape in {' and '.join(p.name for p in parents)}, so "
            "there is nothing to merge; name models of one size"
        )
        return
    used = {source for step in steps for source in step.sources}
    for names, tensors in groups.items():
        if len(names) > 1:
            yield note(
                f"merged from {' and '.join(names)}: the {len(tensors)} tensors that have one name "
                "and one shape in them"
            )
        else:
            yield note(f"copied from {names[0]} as they are: {some(tensors)}")
    for parent in parents:
        left = [name for name in parent.tensors if (parent.name, name) not in used]
        if left:
            yield note(f"left out of {parent.name}: {some(left)}")


def _tokenizer_findings(lead: Parent, other: Parent, recipe: Recipe) -> Iterator[Finding]:
    ours = _vocabulary(lead)
    theirs = ours if _same_tokenizer(lead, other) else _vocabulary(other)
    if ours is None or theirs is None or recipe.tokenizer_source or recipe.tokenizer:
        return
    if ours != theirs:
        n_unlike = len(ours.items() ^ theirs.items())
        yield fault(
            f"the vocabularies of {lead.name} and {other.name} differ in {n_unlike} entries, so "
            "one row stands for different tokens; set tokenizer_source to base, union or a model"
        )
        return
    if _chat_template(lead) != _chat_template(other):
        yield note(
            f"the chat templates differ; the result takes that of {lead.name}, "
            "tokenizer_source chooses another"
        )
    mine, its = _special_tokens(lead), _special_tokens(other)
    for key in _SPECIAL_TOKENS:
        if mine.get(key) != its.get(key):
            yield note(
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
    path = folder / "tokenizer.json"
    stat = path.stat()
    return _words(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=8)
def _words(path: Path, _size: int, _mtime_ns: int) -> dict[str, int]:
    """Return token -> row; read once, for a study asks for each of many pairs."""
    content = _json(path)
    try:
        words = content["model"]["vocab"]
        if isinstance(words, list):  # unigram: [word, log probability] in order of rows
            words = {word: row for row, (word, _) in enumerate(words)}
        added = {token["content"]: token["id"] for token in content.get("added_tokens", [])}
        return {**words, **added}
    except (ValueError, KeyError, TypeError) as err:
        raise _damaged(path, err) from err


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
