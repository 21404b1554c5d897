"""The team's prompts beside those of a plain chat with the bare base model, for blind picks.

    python benchmarks/loop.py --out runs/loop
    python benchmarks/blind.py --designs runs/loop --out runs/blind
    python benchmarks/blind.py --out runs/blind --score runs/blind/picks.txt

For each concept of `loop.py` one prompt is the kept one of its design, the other what the base
model says in two turns (principles, then the image prompt) under the paper's system text, drawn
as in the paper (agents/scripts/prompt-two-turns.yaml; replies of up to 1,024 tokens). The base
model sees no facts, no examples and no pictures: it is the paper's way of work, not an ablation.

OUT/
    bare.jsonl    what the base model said, one concept a line; not asked again
    pairs.jsonl   pair, concept, A and B; which is whose follows from the seed
    pairs.md      the same for reading
    picks.txt     one line a pair to be filled in with A, B or tie
    key.json      whose is whose, and what holds of each side's prompts: open it afterwards

A score counts the pairs that were picked: wins, losses and ties of the team, the share of wins
among those decided with its Wilson interval, the exact sign test, and how often side A was
picked. Beside it stand the shares of prompts on each side that have the properties `loop.py`
checks, by one rule for both: numbers and fields are held against the facts the team was given.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loop import concepts, every_expert_heard, given, read_lines  # beside this script

from agents.claims import sentences, unsupported
from agents.engines import Engines
from agents.generation import Engine
from agents.interview import interview
from agents.script import PAPER_TOKENS, Script, load_script
from orbweave.errors import ConceptError
from orbweave.files import write_text
from orbweave.records import Design
from orbweave.statistics import mcnemar, wilson
from ui.converse import prompt_in

SCRIPT = "prompt-two-turns"
TIMEOUT_S = 3_600.0
"""Longest wait for one reply: all concepts are asked at once, and none may lose by the clock."""
MODEL = "base"
SIDES = ("team", "bare")
PICKS = ("a", "b", "tie")
_PICK = re.compile(r"(\d+)(?:\W+(a|b|tie))?", re.I)


def main() -> None:
    """Write the pairs, or count picks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the pairs")
    parser.add_argument("--designs", type=Path, help="folder that loop.py wrote")
    parser.add_argument("--score", type=Path, metavar="PICKS", help="count filled-in picks")
    parser.add_argument("--limit", type=int, default=None, help="concepts at most")
    parser.add_argument("--seed", type=int, default=0, help="of concepts, replies and sides")
    args = parser.parse_args()
    if args.score is not None:
        key = json.loads((args.out / "key.json").read_text("utf-8"))
        found = score(key["pairs"], read_picks(args.score, len(key["pairs"])))
        json.dump(found | {"properties": key["properties"]}, sys.stdout, indent=2)
        print()
        return
    if args.designs is None:
        parser.error("wanted --designs FOLDER to make pairs, or --score PICKS to count them")
    if (args.out / "key.json").exists():
        parser.error(f"{args.out} holds pairs already, for which picks may exist; name another")
    cases = concepts(args.seed)[: args.limit]
    designs = {case["id"]: read_design(args.designs / case["id"]) for case in cases}
    missing = [name for name, design in designs.items() if design is None]
    if missing:
        parser.error(
            f"{args.designs} lacks {len(missing)} of {len(cases)} designs, {missing[0]} for one; "
            f"make them with: python benchmarks/loop.py --out {args.designs}"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    bare = asyncio.run(said_bare(cases, args.seed, args.out / "bare.jsonl"))
    write_pairs(cases, {n: d for n, d in designs.items() if d}, bare, args.seed, args.out)
    print(
        f"{len(cases)} pairs written to {args.out / 'pairs.md'}; fill in {args.out / 'picks.txt'}"
    )


def read_design(folder: Path) -> Design | None:
    """Return a finished design; None if there is none."""
    path = folder / "design.json"
    return Design.model_validate_json(path.read_text("utf-8")) if path.is_file() else None


async def said_bare(cases: Sequence[Mapping[str, Any]], seed: int, kept: Path) -> dict[str, str]:
    """Return the base model's prompt for each concept; those in the file are not asked again."""
    known = read_lines(kept)
    waiting = [case for case in cases if case["id"] not in known]
    if waiting:
        engine = Engines(share=False).open(MODEL)
        try:
            await asyncio.gather(*(_asked(engine, case, seed, kept, known) for case in waiting))
        finally:
            await engine.close()
    n_unsaid = sum(case["id"] not in known for case in cases)
    if n_unsaid:
        raise SystemExit(f"wanted {len(cases)} whole chats, {n_unsaid} ended early; run it again")
    return {name: row["prompt"] for name, row in known.items()}


async def _asked(
    engine: Engine,
    case: Mapping[str, Any],
    seed: int,
    kept: Path,
    known: dict[str, dict[str, Any]],
) -> None:
    """Interview the model on one concept, and keep what it said."""
    script = papers_script(case["concept"])
    turns = await interview(script, engine, seed=seed, timeout_s=TIMEOUT_S)
    if not turns[-1].is_finished:
        print(f"{case['id']}: {turns[-1].outcome}: {turns[-1].error}", file=sys.stderr, flush=True)
        return
    row = {
        "id": case["id"],
        "prompt": plain_prompt(turns[-1].reply),
        "outcomes": [turn.outcome for turn in turns],
        "replies": [turn.reply for turn in turns],
        "tokens": sum(turn.n_tokens for turn in turns),
    }
    with kept.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
    known[case["id"]] = row
    print(f"{case['id']}: {len(row['prompt'].split())} words", file=sys.stderr, flush=True)


def papers_script(concept: str) -> Script:
    """Return the two turns on a concept, with as long replies as in the paper."""
    script = load_script(SCRIPT, {"concept": concept})
    turns = tuple(turn.model_copy(update={"max_new_tokens": PAPER_TOKENS}) for turn in script.turns)
    return script.model_copy(update={"turns": turns})


def plain_prompt(reply: str) -> str:
    """Return the image prompt of a reply as one line; all of a reply that is no usable one."""
    try:
        return prompt_in(reply)
    except ConceptError:
        return " ".join(reply.split())


def kept_prompt(design: Design) -> str:
    """Return the prompt a design came to."""
    return design.prompts[design.best_version or 0].prompt


def write_pairs(
    cases: Sequence[Mapping[str, Any]],
    designs: Mapping[str, Design],
    bare: Mapping[str, str],
    seed: int,
    out: Path,
) -> None:
    """Write pairs, a form for the picks and, last, the key."""
    rng = random.Random(seed)
    pairs, key = [], []
    held: dict[str, list[dict[str, bool]]] = {side: [] for side in SIDES}
    words: dict[str, list[int]] = {side: [] for side in SIDES}
    for number, case in enumerate(cases, start=1):
        design = designs[case["id"]]
        prompts = {"team": kept_prompt(design), "bare": bare[case["id"]]}
        for side, prompt in prompts.items():
            held[side].append(properties(prompt, design))
            words[side].append(len(prompt.split()))
        sides = rng.sample(SIDES, 2)
        shown = {letter: prompts[side] for letter, side in zip("AB", sides, strict=True)}
        pairs.append({"pair": number, "concept": case["concept"], **shown})
        key.append({"pair": number, "id": case["id"], "A": sides[0], "B": sides[1]})
    shares = {side: share(rows) for side, rows in held.items()}
    for side, counts in words.items():
        shares[side]["words, median"] = statistics.median(counts)
    write_text(out / "pairs.jsonl", _lines(pairs))
    write_text(out / "pairs.md", markdown(pairs))
    write_text(out / "picks.txt", "".join(f"{pair['pair']} \n" for pair in pairs))
    document = {"seed": seed, "pairs": key, "properties": shares}
    write_text(out / "key.json", json.dumps(document, indent=2) + "\n")


def properties(prompt: str, design: Design) -> dict[str, bool]:
    """Return what holds of a prompt for the concept of a design, whoever wrote it.

    A number is held by the facts the team was given, the concept, or what was measured and
    wanted; an expert is heard by a fact given of its field, see `every_expert_heard`.
    """
    said = [sentence.lower() for sentence in sentences(prompt)]
    facts = given(design)
    asked = [design.brief.concept, *(critique.advice for critique in design.critiques)]
    return {
        "30 to 110 words": 30 <= len(prompt.split()) <= 110,
        "no sentence twice": len(set(said)) == len(said),
        "no unsupported number": not unsupported(prompt, [*(f.held for f in facts), *asked]),
        "every expert heard": every_expert_heard(prompt, facts),
    }


def share(rows: Sequence[Mapping[str, bool]]) -> dict[str, float]:
    """Return the share of prompts with each property, and with all of them."""
    names = list(rows[0])
    shares = {name: statistics.fmean(row[name] for row in rows) for name in names}
    shares["all"] = statistics.fmean(all(row.values()) for row in rows)
    return {name: round(value, 3) for name, value in shares.items()}


def markdown(pairs: Sequence[Mapping[str, Any]]) -> str:
    """Return the pairs for reading."""
    parts = [
        "# Which prompt is better?\n",
        "Read both prompts for a concept. Which would you rather hand to an image generator: which "
        "shows this concept, in things one would see? Write A, B or tie behind the pair's number "
        "in picks.txt, and open key.json only when all are picked.\n",
    ]
    for pair in pairs:
        parts.append(f"## {pair['pair']}. {pair['concept']}\n")
        parts += [f"**{side}**\n\n> {pair[side] or '(nothing)'}\n" for side in "AB"]
    return "\n".join(parts)


def read_picks(path: Path, n_pairs: int) -> dict[int, str]:
    """Return pair -> a, b or tie; pairs without a pick are left out.

    Lines are a pair's number and A, B or tie; blank lines and those behind # are passed over.
    """
    picks: dict[int, str] = {}
    faults = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        text = line.partition("#")[0].strip()
        found = _PICK.fullmatch(text)
        if text and (found is None or not 1 <= int(found[1]) <= n_pairs):
            faults.append(f"line {number}: wanted 1 to {n_pairs} and A, B or tie, got {text!r}")
        elif found and int(found[1]) in picks:
            faults.append(f"line {number}: pair {found[1]} is picked already")
        elif found and found[2]:
            picks[int(found[1])] = found[2].lower()
    if faults:
        raise SystemExit("; ".join(faults))
    return picks


def score(key: Sequence[Mapping[str, Any]], picks: Mapping[int, str]) -> dict[str, Any]:
    """Return how the team fared: over all concepts, over held-out ones and over our own."""
    own = [pair for pair in key if str(pair["id"]).startswith("own-")]
    unseen = [pair for pair in key if pair not in own]
    sides = Counter(picks.values())
    return {
        "picked": len(picks),
        "of": len(key),
        "all": standing(key, picks),
        "held_out": standing(unseen, picks),
        "own": standing(own, picks),
        "side_picked": {name: sides[name] for name in PICKS},
    }


def standing(key: Sequence[Mapping[str, Any]], picks: Mapping[int, str]) -> dict[str, Any]:
    """Return wins, losses and ties of the team, and how sure its lead is.

    `win_share` is of the decided pairs, with its 95 % interval; `p` is the two-sided sign test.
    """
    chosen = [(pair, picks[pair["pair"]]) for pair in key if pair["pair"] in picks]
    ties = sum(pick == "tie" for _, pick in chosen)
    wins = sum(pick != "tie" and pair[pick.upper()] == "team" for pair, pick in chosen)
    losses = len(chosen) - ties - wins
    found: dict[str, Any] = {"wins": wins, "losses": losses, "ties": ties}
    if wins + losses:
        interval = wilson(wins, wins + losses)
        found["win_share"] = round(wins / (wins + losses), 3)
        found["interval"] = [round(bound, 3) for bound in interval]
        found["p"] = round(mcnemar(wins, losses), 4)
    return found


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    main()
