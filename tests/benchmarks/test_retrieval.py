"""The retrieval benchmark: its labels, its arithmetic, and what the real search reaches."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path

import pytest

from agents.embedding import MiniLM
from agents.knowledge import load_knowledge, read_facts
from orbweave.records import DOMAINS

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "retrieval.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("retrieval", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["retrieval"] = module
    spec.loader.exec_module(module)
    return module


def test_every_label_is_a_fact_of_the_fields_it_names(bench):
    facts = {fact.id: fact.expert for fact in read_facts()}
    queries = bench.read()
    for query in queries:
        assert 2 <= len(query.facts) <= 7
        assert {facts[i] for i in query.facts} == set(query.domains), query
    fields = Counter(domain for query in queries for domain in query.domains)
    assert all(fields[domain] >= 20 for domain in DOMAINS)
    assert sum(len(query.domains) > 1 for query in queries) >= 20
    assert len({query.query for query in queries}) == len(queries) >= 80


def test_queries_are_no_copies_of_their_facts(bench):
    statements = {fact.id: fact.statement.lower().split() for fact in read_facts()}
    for query in bench.read():
        words = query.query.lower().split()
        runs = {tuple(words[i : i + 5]) for i in range(len(words) - 4)}
        for fact_id in query.facts:
            theirs = statements[fact_id]
            assert not runs & {tuple(theirs[i : i + 5]) for i in range(len(theirs) - 4)}


def test_recall_and_rank_by_hand(bench):
    query = bench.Query("q001", "threads", ("leaf",), frozenset({"a", "b", "c", "d"}))
    ranked = ["x", "b", "y", "a", "z", "c"]
    assert [bench.recall(query, ranked, k) for k in (1, 4, 8)] == [0.0, 0.5, 0.75]
    assert bench.reciprocal_rank(query, ranked) == 0.5
    assert bench.reciprocal_rank(query, ["x"]) == 0.0


def test_the_interval_holds_the_mean_and_no_spread_is_no_width(bench):
    low, high = bench.interval([0.0, 1.0] * 50, seed=0)
    assert 0.38 < low < 0.5 < high < 0.62
    assert bench.interval([0.5] * 9, seed=0) == (0.5, 0.5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_search_beats_its_controls_on_queries_that_chose_nothing(bench):
    embed = MiniLM()
    queries = [query for query in bench.read() if not query.is_for_choosing]
    rankers = bench.rankers(load_knowledge(embed=embed), embed, 0)
    rows = bench.figures(queries, rankers, 0)["all"]
    recall = {name: row["recall@16"]["mean"] for name, row in rows.items()}
    rank = {name: row["MRR"]["mean"] for name, row in rows.items()}
    for control in ("nearest", "keywords", "random"):
        assert recall["ours"] > recall[control]
        assert rank["ours"] > rank[control]
    assert recall["by field"] > recall["ours"]
    assert recall["random"] < 0.05
