"""Tokens a second of many conversations at once in one process, beside one after another.

    python benchmarks/engine.py --conversations 20 --json

Each conversation asks its own question and writes so many tokens, few end earlier. Both ways
get the same requests; the replies are compared, for companions may not change a word. `--models`
takes several references over one base, which the conversations use in turn: so it also shows
what several adapters on one base cost. Where the machine is shared, the processor's milliseconds a
token say more than the rate.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from agents.engines import Engines
from agents.generation import Engine, Generation, Message, Sampling

_SUBJECTS = ("spider silk", "a leaf vein", "tendon", "nacre", "an orb web", "bamboo", "cork")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="generalist", help="references, commas between")
    parser.add_argument("--conversations", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=64, help="of each reply")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    args = parser.parse_args()
    models = args.models.split(",")
    document = asyncio.run(measured(models, args.conversations, args.tokens, args.repeats))
    if args.json:
        print(json.dumps(document, indent=2))
    else:
        print(
            f"{document['together']:.0f} tokens/s for {args.conversations} at once, "
            f"{document['in_turn']:.1f} one after another: {document['ratio']:.1f} times"
        )


async def measured(models: Sequence[str], n: int, n_tokens: int, repeats: int) -> dict[str, Any]:
    """Return tokens per second both ways, medians, and whether the replies were the same."""
    opened = Engines(share=len(models) > 1)
    engines = [opened.open(model) for model in models]
    asked = [(engines[i % len(engines)], question(i, n_tokens)) for i in range(n)]
    await engines[0].generate(question(0, 4))  # what is done once is done
    rates: dict[str, list[float]] = {"in_turn": [], "together": []}
    busy: dict[str, list[float]] = {"in_turn": [], "together": []}
    same = True
    for _ in range(repeats):
        replies = []
        for kind in rates:
            texts, rate, ms = await timed(asked, at_once=kind == "together")
            replies.append(texts)
            rates[kind].append(rate)
            busy[kind].append(ms)
        same = same and replies[0] == replies[1]
        print({kind: f"{each[-1]:.1f}" for kind, each in rates.items()}, file=sys.stderr)
    for engine in engines:
        await engine.close()
    medians = {kind: statistics.median(each) for kind, each in rates.items()}
    return {
        "models": list(models),
        "conversations": n,
        "tokens_each": n_tokens,
        **medians,
        "ratio": medians["together"] / medians["in_turn"],
        "processor_ms_per_token": {kind: statistics.median(each) for kind, each in busy.items()},
        "same_replies": same,
        "runs": rates,
    }


async def timed(
    asked: Sequence[tuple[Engine, Generation]], *, at_once: bool
) -> tuple[list[str], float, float]:
    """Return the replies, tokens per second, and the processor's milliseconds per token."""
    started, worked = time.perf_counter(), time.process_time()
    if at_once:
        replies = await asyncio.gather(*(engine.generate(request) for engine, request in asked))
    else:
        replies = [await engine.generate(request) for engine, request in asked]
    seconds = time.perf_counter() - started
    n_tokens, busy_ms = sum(r.n_tokens for r in replies), 1000 * (time.process_time() - worked)
    return [r.text for r in replies], n_tokens / seconds, busy_ms / n_tokens


def question(i: int, n_tokens: int) -> Generation:
    """Return conversation `i`'s request; it is long enough that few replies end by themselves."""
    subject = _SUBJECTS[i % len(_SUBJECTS)]
    text = f"Write a long story about {subject}, number {i}, and describe all one would see."
    sampling = Sampling(temperature=1.0, top_p=1.0, repetition_penalty=1.1)
    return Generation((Message("user", text),), sampling, n_tokens, seed=i)


if __name__ == "__main__":
    main()
