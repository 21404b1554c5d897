"""How well the facts a concept needs are found: recall and rank, with two controls.

    python benchmarks/retrieval.py
    python benchmarks/retrieval.py --json

`retrieval.jsonl` holds 124 queries, each with the ids of the facts that answer it. They were
labelled by one reader: every statement of the corpus was read, queries were written as a designer
would speak of a thing without the fact's own words, and beside each stand all facts that the
reader held for an answer, two to seven, the excluded ones left out. No search was asked
before the labels stood; two queries were reworded afterwards, for they repeated five words of a
fact. 100 queries are of one field, 24 of two or three. One reader misses
some answers, so the figures are lower bounds, the same for every row.

    ours       what the experts are given, asked over all fields at once
    by field   the same, asked as a team does: each expert of the labels' fields in turn
    nearest    cosine of MiniLM alone, without clauses, preferences and variety
    keywords   BM25 over statement and looks
    random     every fact as likely as any other

Recall@k is the share of a query's facts among the first k, MRR the mean of 1 / rank of the
first one among 16; intervals are 95 %, by bootstrap over queries. Every second query, the odd
ones, served to choose between ways of searching; the even ones did not, but their figures with
a keyword weight of 0.2 had been seen when 0.3 was taken by the sum of the odd ones' figures.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agents.embedding import Embed, MiniLM
from agents.keywords import Keywords
from agents.knowledge import Fact, Knowledge, load_knowledge
from orbweave.statistics import Interval

QUERIES = Path(__file__).with_name("retrieval.jsonl")
KS = (4, 8, 16)
RESAMPLES = 10_000

Ranker = Callable[["Query"], Sequence[str]]
"""Returns the ids of the first max(KS) facts, best first."""


class Query(NamedTuple):
    """One line of the file."""

    id: str
    query: str
    domains: tuple[Any, ...]
    facts: frozenset[str]

    @property
    def is_for_choosing(self) -> bool:
        """Whether it served to choose between ways of searching."""
        return int(self.id[1:]) % 2 == 1


def main() -> None:
    """Ask every ranker every query and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    embed = MiniLM()
    found = figures(read(), rankers(load_knowledge(embed=embed), embed, args.seed), args.seed)
    if args.json:
        json.dump(found, sys.stdout, indent=2)
        print()
        return
    for part, rows in found.items():
        print(f"\n{part}")
        for name, row in rows.items():
            told = (f"{key} {v['mean']:.3f} ({v['low']:.3f} to {v['high']:.3f})"
                    for key, v in row.items() if key != "queries")  # fmt: skip
            print(f"  {name:9s} {row['queries']:4d} queries  {'  '.join(told)}")


def read(path: Path = QUERIES) -> list[Query]:
    """Return the labelled queries."""
    rows = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    return [Query(r["id"], r["query"], tuple(r["domains"]), frozenset(r["facts"])) for r in rows]


def rankers(knowledge: Knowledge, embed: Embed, seed: int) -> dict[str, Ranker]:
    """Return ours and the controls, by name."""
    most = max(KS)
    ids = [fact.id for fact in knowledge.facts]
    keywords = Keywords([_words(fact) for fact in knowledge.facts])

    def ours(query: Query) -> list[str]:
        return [found.id for found in knowledge.search(query.query, k=most)]

    def by_field(query: Query) -> list[str]:
        rows = [
            [found.id for found in knowledge.search(query.query, domain=domain, k=most)]
            for domain in query.domains
        ]
        return [i for i in chain.from_iterable(zip_longest(*rows)) if i][:most]

    def nearest(query: Query) -> list[str]:
        return _first(knowledge.vectors @ embed([query.query])[0])

    def by_keywords(query: Query) -> list[str]:
        return _first(keywords.scores(query.query))

    def at_random(query: Query) -> list[str]:
        return random.Random(f"{seed} {query.id}").sample(ids, most)

    def _first(scores: np.ndarray) -> list[str]:
        return [ids[i] for i in np.argsort(-scores, kind="stable")[:most]]

    return {
        "ours": ours,
        "by field": by_field,
        "nearest": nearest,
        "keywords": by_keywords,
        "random": at_random,
    }


def figures(
    queries: Sequence[Query], rankers: Mapping[str, Ranker], seed: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return part of the queries -> ranker -> figures with their intervals."""
    parts: dict[str, list[Query]] = {
        "all": list(queries),
        "for choosing": [q for q in queries if q.is_for_choosing],
        "not for choosing": [q for q in queries if not q.is_for_choosing],
    }
    for domain in sorted({d for q in queries for d in q.domains}):
        parts[domain] = [q for q in queries if q.domains == (domain,)]
    parts["two or more fields"] = [q for q in queries if len(q.domains) > 1]
    ranked = {name: {q.id: rank(q) for q in queries} for name, rank in rankers.items()}
    return {
        part: {name: _row(chosen, ranked[name], seed) for name in rankers}
        for part, chosen in parts.items()
        if chosen
    }


def _row(queries: Sequence[Query], ranked: Mapping[str, Sequence[str]], seed: int) -> Any:
    measured = {f"recall@{k}": [recall(q, ranked[q.id], k) for q in queries] for k in KS}
    measured["MRR"] = [reciprocal_rank(q, ranked[q.id]) for q in queries]
    return {"queries": len(queries)} | {
        name: {"mean": round(statistics.fmean(values), 4)}
        | {key: round(bound, 4) for key, bound in interval(values, seed)._asdict().items()}
        for name, values in measured.items()
    }


def recall(query: Query, ranked: Sequence[str], k: int) -> float:
    """Return the share of a query's facts among the first k."""
    return len(query.facts & set(ranked[:k])) / len(query.facts)


def reciprocal_rank(query: Query, ranked: Sequence[str]) -> float:
    """Return 1 / rank of the first right fact; 0 if there is none."""
    return next((1 / n for n, found in enumerate(ranked, start=1) if found in query.facts), 0.0)


def interval(values: Sequence[float], seed: int) -> Interval:
    """Return the 95 % percentile interval of a mean, queries drawn anew.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    every = np.asarray(values)
    rng = np.random.default_rng(seed)
    means = every[rng.integers(len(every), size=(RESAMPLES, len(every)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(low), float(high))


def _words(fact: Fact) -> str:
    return f"{fact.statement} {fact.visual or ''}"


if __name__ == "__main__":
    main()
