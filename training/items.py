"""The shipped training items, laid out in the very words the agents use.

`items/*.jsonl` hold fields, not chats. Each source here turns one kind of item into rows:

    facts        a fact as a passage                       -> text
    statements   the true half of a claim                  -> text
    qa           question -> answer                        -> chat
    choices      question -> short answer                  -> chat
    listed       question with lettered options -> letter  -> chat
    claims       statement, true or false?                 -> chat
    expert       concept and facts -> what to do; one fact -> one sentence; what it looks like
    prompt, revision, critique   the engineer's and the critic's turns
    preference   prompt -> chosen and rejected
    rivals       question -> right and wrong short answer; true and false

The forms and the facts belong to the agents and are handed in, so that both sides cannot
drift apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from training.rows import Row, Turn

__all__ = ["ITEMS", "SOURCES", "Fact", "Form", "Material", "shipped_rows"]

ITEMS = Path(__file__).with_name("items")
LETTERS = "ABCD"
_DISTRACTING = 2
"""Facts of other topics put beside the right ones, so that a model learns to choose."""
_MIN_SHARED = 4
"""Words a sentence must share with the one fact it is said to rest on."""
_CLOSED_SHARE = 0.25
"""Expert rows without facts: what the model must know by itself."""


class Fact(Protocol):
    """What an expert may be given; `agents.knowledge.Fact` is one."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def domain(self) -> str: ...  # noqa: D102
    @property
    def topic(self) -> str: ...  # noqa: D102
    @property
    def shown(self) -> str: ...  # noqa: D102
    @property
    def visual(self) -> str | None: ...  # noqa: D102


class Message(Protocol):
    """A chat message; `agents.generation.Message` is one."""

    @property
    def role(self) -> Any: ...  # noqa: D102
    @property
    def content(self) -> str: ...  # noqa: D102


class Form(Protocol):
    """One kind of question to a model; `agents.roles.Form` is one."""

    def messages(self, fields: Mapping[str, str]) -> Sequence[Message]:
        """Return the chat that asks it."""

    @property
    def prefix(self) -> str:
        """How the reply must begin."""


@dataclass(frozen=True)
class Material:
    """What the items are laid out with."""

    forms: Mapping[str, Form]
    """principle, look, prompt, revision and critique, without worked examples."""
    facts: Mapping[str, Fact]
    """By id; an item that rests on a fact that is not here is left out."""
    fields: Mapping[str, str]
    """Domain of an item -> the expert's field in words."""


def shipped_rows(source: str, material: Material, seed: int = 0) -> list[Row]:
    """Return all rows of a source, in the order of the files.

    Raises:
        KeyError: no such source.
    """
    rows: list[Row] = []
    for item in _items():
        if all(fact in material.facts for fact in item["fact_ids"]):
            # Its own for each item; made where it is wanted, for making it costs more than a row.
            draws = partial(np.random.default_rng, [seed, *item["id"].encode()])
            rows.extend(SOURCES[source](item, material, draws))
    if source == "facts":
        rows = [_passage(fact) for fact in material.facts.values()]
    return rows


@cache
def _items() -> tuple[dict[str, Any], ...]:
    files = sorted(ITEMS.rglob("*.jsonl"))
    return tuple(json.loads(line) for f in files for line in f.read_text("utf-8").splitlines())


_Draws = Callable[[], np.random.Generator]
_Layout = Callable[[dict[str, Any], Material, _Draws], Iterator[Row]]


def _row(item: dict[str, Any], source: str, turns: Sequence[Turn], **more: Any) -> Row:
    return Row(item["id"], source, turns=tuple(turns), domain=item["domain"], **more)


def _chat(user: str, assistant: str) -> tuple[Turn, Turn]:
    return Turn("user", user), Turn("assistant", assistant)


def _passage(fact: Fact) -> Row:
    """Return a fact as a paragraph of a text on its topic."""
    look = f" {fact.visual}" if fact.visual else ""
    head = f"{fact.domain.replace('-', ' ').capitalize()}, {fact.topic.replace('-', ' ')}."
    return Row(fact.id, "facts", text=f"{head} {fact.shown}{look}", domain=fact.domain)


def _nothing(item: dict[str, Any], material: Material, draws: _Draws) -> Iterator[Row]:
    yield from ()


def _statements(item: dict[str, Any], material: Material, draws: _Draws) -> Iterator[Row]:
    if item["kind"] == "claim":
        yield Row(item["id"], "statements", text=item["true"], domain=item["domain"])


def _qa(item: dict[str, Any], material: Material, draws: _Draws) -> Iterator[Row]:
    if item["kind"] == "qa":
        yield _row(item, "qa", _chat(item["question"], item["answer"]))
    elif item["kind"] == "preference":
        yield _row(item, "qa", _chat(item["prompt"], item["chosen"]))


def _choices(item: dict[str, Any], material: Material, draws: _Draws) -> Iterator[Row]:
    if item["kind"] == "choice":
        yield _row(item, "choices", _chat(item["question"], item["answer"]))


def _listed(item: dict[str, Any], material: Material, draws: _Draws) -> Iterator[Row]:
    if item["kind"] == "choice":
        options = [item["answer"], *item["distractors"]]
        order = draws().permutation(len(options))
        lines = [f"{LETTERS[i]}. {options[k]}" for i, k in enumerate(order)]
        right = LETTERS[int(np.flatnonzero(order == 0)[0])]
        user = "\n".join([item["question"], *lines, "Answer with one letter."])
        yield _row(item, "listed", _chat(user, right))


_ASKED = ("{}", "{}", "True or false? {}", "{} True or false?", "Is this true or false? {}")


def _claims(item: dict[str, Any], material: Material, draws: _Draws) -> Iterator[Row]:
    if item["kind"] == "claim":
        rng = draws()
        for value in ("True", "False"):
            asked = _ASKED[int(rng.integers(len(_ASKED)))].format(item[value.lower()])
            row = _row(item, "claims", _chat(asked, value))
            yield replace(row, id=f"{row.id}-{value}")


def _rivals(item: dict[str, Any], material: Material, draws: _Draws) -> Iterator[Row]:
    if item["kind"] == "choice":
        turns = _chat(item["question"], item["answer"])
        for wrong in item["distractors"]:
            yield _row(item, "rivals", turns, rejected=wrong)
    elif item["kind"] == "claim":
        for row in _claims(item, material, draws):
            right = row.turns[-1].content
            wrong = "False" if right == "True" else "True"
            yield replace(row, source="rivals", rejected=wrong)


def _preference(item: dict[str, Any], material: Material, draws: _Draws) -> Iterator[Row]:
    if item["kind"] == "preference":
        turns = _chat(item["prompt"], item["chosen"])
        yield _row(item, "preference", turns, rejected=item["rejected"])


def _expert(item: dict[str, Any], material: Material, draws: _Draws) -> Iterator[Row]:
    if item["kind"] != "expert":
        return
    rng = draws()
    *sentences, look = _sentences(item["answer"])
    given = [material.facts[i] for i in item["fact_ids"]]
    fields = {"concept": item["concept"], "field": material.fields[item["domain"]]}
    if sentences and given:
        others = [f for f in material.facts.values() if f.domain == item["domain"]]
        picked = rng.choice(len(others), size=_DISTRACTING, replace=False)
        told = [*given, *(others[i] for i in picked if others[i] not in given)]
        order = rng.permutation(len(told))
        facts = "\n".join(f"- {told[i].shown}" for i in order)
        if rng.uniform() < _CLOSED_SHARE:
            facts = "- none"
        fields["facts"] = facts
        yield _asked(item, "principle", material, fields, " ".join(sentences))
        for number, (sentence, fact) in enumerate(_grounded(sentences, given)):
            fields["facts"] = f"- {fact.shown}"
            row = _asked(item, "principle", material, fields, sentence)
            yield replace(row, id=f"{row.id}-{number}")
    seen = [fact.visual for fact in given if fact.visual]
    if seen:
        fields["visuals"] = "\n".join(f"- {visual}" for visual in seen)
        yield _asked(item, "look", material, fields, look)


def _grounded(sentences: Sequence[str], facts: Sequence[Fact]) -> Iterator[tuple[str, Fact]]:
    """Yield the sentences that rest on one fact by its words, each with that fact."""
    for sentence in sentences:
        words = _content(sentence)
        shared = [len(words & _content(fact.shown)) for fact in facts]
        best = int(np.argmax(shared))
        if shared[best] >= _MIN_SHARED and shared.count(shared[best]) == 1:
            yield sentence, facts[best]


def _content(text: str) -> set[str]:
    """Return the words that carry meaning, cut to their stems' first letters, and numbers."""
    words = re.findall(r"[a-z]{4,}|\d[\d.,]*", text.lower())
    return {word[:6] for word in words}


def _prompt(item: dict[str, Any], material: Material, draws: _Draws) -> Iterator[Row]:
    if item["kind"] == "prompt":
        notes = "\n".join(f"- {n['domain']}: {n['note']}" for n in item["notes"])
        fields = {"concept": item["concept"], "scale": item["scale"], "notes": notes}
        reply = (
            f"Title: {item['title']}\nPrompt: {item['image_prompt']}\n"
            f"Avoid: {item['negative_prompt']}"
        )
        yield _asked(item, "prompt", material, fields, reply)


def _revision(item: dict[str, Any], material: Material, draws: _Draws) -> Iterator[Row]:
    if item["kind"] == "revision":
        fields = {
            "concept": item["concept"],
            "prompt": item["image_prompt"],
            "feedback": item["feedback"],
        }
        yield _asked(item, "revision", material, fields, item["revised_prompt"])


def _critique(item: dict[str, Any], material: Material, draws: _Draws) -> Iterator[Row]:
    if item["kind"] == "critique":
        fields = {
            "concept": item["concept"],
            "prompt": item["image_prompt"],
            "wanted": "nothing",
            "measured": "nothing",
        }
        scores = [f"{name.capitalize()}: {score}" for name, score in item["scores"].items()]
        reply = "\n".join([*scores, f"Advice: {item['advice']}"])
        yield _asked(item, "critique", material, fields, reply)


def _asked(
    item: dict[str, Any], form: str, material: Material, fields: dict[str, str], reply: str
) -> Row:
    """Return the row in which a form is asked and answered."""
    asked = material.forms[form]
    prefix = f"{asked.prefix} " if asked.prefix else ""
    turns = [Turn(m.role, m.content) for m in asked.messages(fields)]
    row = _row(item, form, [*turns, Turn("assistant", prefix + reply)])
    return replace(row, id=f"{row.id}-{form}")


def _sentences(text: str) -> list[str]:
    """Return the sentences of a text; a stop inside a number or after one letter ends none."""
    parts: list[str] = []
    for word in text.split(" "):
        starts = not parts or (parts[-1][-1] in ".!?" and word[:1].isupper())
        if starts and (not parts or len(parts[-1].split()) > 2):
            parts.append(word)
        else:
            parts[-1] += f" {word}"
    return parts


SOURCES: Mapping[str, _Layout] = {
    "facts": _nothing,
    "statements": _statements,
    "qa": _qa,
    "choices": _choices,
    "listed": _listed,
    "claims": _claims,
    "expert": _expert,
    "prompt": _prompt,
    "revision": _revision,
    "critique": _critique,
    "preference": _preference,
    "rivals": _rivals,
}
