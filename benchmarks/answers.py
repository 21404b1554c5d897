"""Forty open questions, asked of models and marked by a reader: what they can say, right or wrong.

    python benchmarks/answers.py base generalist silk --out answers.md
    python benchmarks/answers.py --marks answers.md

Sixteen are short questions for a number that the generalist was taught, twelve others it was
taught, twelve it never was; all four fields have as many, and a seed chooses. Every model is asked
all of them at once, greedily, through its chat template. The sheet shows each question with the
expected answer and every reply; the reader writes right, partly or wrong between the brackets
before a reply. Counted are the marks by model and kind of question, with the 95 % interval
(Wilson) of the share that is right.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unlearnt import items_of, unlearnt  # beside this script

from orbweave.errors import OrbweaveError, UsageError, shown
from orbweave.files import write_text
from orbweave.statistics import wilson
from ui.markdown import aligned_table

FIELDS = {
    "silk": ("spider-silk",),
    "collagen": ("collagen",),
    "leaf": ("leaf", "plant"),
    "biocomposite": ("biocomposite", "bioinspired-design"),
}
"""Field -> domains of its items."""
KINDS = {"taught number": 4, "taught": 3, "never taught": 3}
"""Kind of question -> how many of each field."""
MARKS = ("right", "partly", "wrong")
REPLY_TOKENS = 96
_NUMBER = re.compile(r"\d")
_HEAD = re.compile(r"## \d+\. (?P<field>.+), (?P<kind>.+)")
_REPLY = re.compile(r"- \[(?P<mark>.*?)\] \*\*(?P<model>.+?)\*\*: ")


class Asked(NamedTuple):
    """One question."""

    field: str
    kind: str
    question: str
    expected: str


def main() -> None:
    """Ask and write the sheet, or count a marked one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="any model references")
    parser.add_argument("--out", type=Path, default=Path("answers.md"), help="the sheet")
    parser.add_argument("--seed", type=int, default=0, help="chooses the questions")
    parser.add_argument("--marks", type=Path, help="a marked sheet to count")
    parser.add_argument("--json", action="store_true", help="the counts as one JSON document")
    args = parser.parse_args()
    try:
        if args.marks is not None:
            counts = counted(args.marks)
            print(json.dumps(counts, indent=2) if args.json else table(counts))
        elif args.models and not args.out.exists():
            asked = questions(args.seed)
            write_text(args.out, sheet(asked, {name: replies(name, asked) for name in args.models}))
            print(f"sheet written to {args.out}")
        else:
            parser.error(f"{args.out} exists" if args.models else "give models or --marks")
    except OrbweaveError as err:
        sys.exit(str(err))


def questions(seed: int) -> list[Asked]:
    """Return the forty questions, field by field."""
    unseen = {item["id"] for item in unlearnt("choice", "qa")}
    items = items_of("choice", "qa")
    chosen = []
    for field, domains in FIELDS.items():
        own = [item for item in items if item["domain"] in domains]
        of_kind = {
            "taught number": [i for i in own if i["id"] not in unseen and _asks_number(i)],
            "taught": [i for i in own if i["id"] not in unseen and i["kind"] == "qa"],
            "never taught": [i for i in own if i["id"] in unseen],
        }
        for kind, n in KINDS.items():
            drawn = random.Random(f"{seed} {field} {kind}").sample(of_kind[kind], n)
            chosen += [Asked(field, kind, item["question"], item["answer"]) for item in drawn]
    return chosen


def replies(reference: str, asked: Sequence[Asked]) -> list[str]:
    """Return what a model says to each question, all in one batch."""
    from merging.build import resolve_model
    from training.rows import Row, Turn
    from training.samples import Asked as Opening
    from training.samples import complete
    from training.scoring import load_model
    from training.tokens import pair_texts, prepare_tokenizer

    model, tokenizer = load_model(resolve_model(reference))
    prepare_tokenizer(tokenizer)
    openings = []
    for one in asked:
        turns = (Turn("user", one.question), Turn("assistant", one.expected))
        prompt = pair_texts(tokenizer, Row("", "", turns=turns))["prompt"]
        openings.append(Opening(list(tokenizer(prompt)["input_ids"]), prompt, one.expected))
    return complete(model, tokenizer, openings, REPLY_TOKENS)


def sheet(asked: Sequence[Asked], said: Mapping[str, Sequence[str]]) -> str:
    """Return the sheet as Markdown, with empty brackets before the replies."""
    lines = [
        f"# Answers of {', '.join(said)}",
        "",
        f"Write {', '.join(MARKS[:-1])} or {MARKS[-1]} between the brackets before each reply.",
        "",
    ]
    for n, one in enumerate(asked):
        lines += [f"## {n + 1}. {one.field}, {one.kind}", "", one.question, ""]
        lines += [f"Expected: {one.expected}", ""]
        lines += [f"- [ ] **{name}**: {' '.join(of[n].split())}" for name, of in said.items()]
        lines.append("")
    return "\n".join(lines)


def counted(path: Path) -> dict[str, Any]:
    """Return model -> kind of question, or `all` -> marks, and the share right.

    Raises:
        UsageError: no such sheet, or a mark that is none of the three.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise UsageError(f"wanted a marked sheet in {path}, {shown(err)}") from err
    found: dict[str, dict[str, Counter[str]]] = {}
    faults = []
    for number, kind, model, mark in _marks(text):
        if mark in MARKS:
            of_model = found.setdefault(model, {})
            for group in (kind, "all"):
                of_model.setdefault(group, Counter())[mark] += 1
        else:
            faults.append(f"line {number} has {shown(mark)}")
    if faults or not found:
        told = "; ".join(faults[:10]) or "it holds no reply"
        raise UsageError(
            f"wanted {', '.join(MARKS)} before each reply in {path}, {len(faults)} are not: {told}"
        )
    return {
        model: {group: _share(marks) for group, marks in sorted(groups.items())}
        for model, groups in found.items()
    }


def table(counts: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Return the counts as Markdown."""
    rows = [
        [
            model,
            group,
            *(str(of[mark]) for mark in MARKS),
            f"{of['share']:.0%} ({of['low']:.0%} to {of['high']:.0%})",
        ]
        for model, groups in counts.items()
        for group, of in groups.items()
    ]
    return aligned_table(["model", "questions", *MARKS, "right"], rows)


def _asks_number(item: Mapping[str, Any]) -> bool:
    return item["kind"] == "choice" and _NUMBER.search(item["answer"]) is not None


def _marks(text: str) -> Iterator[tuple[int, str, str, str]]:
    """Yield (line, kind of question, model, mark) of every reply on a sheet."""
    kind = ""
    for number, line in enumerate(text.splitlines(), 1):
        if head := _HEAD.fullmatch(line):
            kind = head["kind"]
        elif reply := _REPLY.match(line):
            yield number, kind, reply["model"], reply["mark"].strip().lower()


def _share(marks: Counter[str]) -> dict[str, Any]:
    n = marks.total()
    low, high = wilson(marks["right"], n)
    return {mark: marks[mark] for mark in MARKS} | {
        "share": marks["right"] / n, "low": low, "high": high,
    }  # fmt: skip


if __name__ == "__main__":
    main()
