"""A user's own corpus: how it becomes facts, who speaks for them, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from agents.corpora import read_corpora
from agents.fake import hashed_words
from agents.knowledge import FACTS, Fact, Knowledge, load_knowledge
from agents.team import resume
from orbweave.errors import UsageError
from training.corpus import ingest

PAPER = """# Mycelium panels

Hyphae of the fungus bind the straw into a light panel of 25 mm thickness. They grow for five days
at 25 °C in the dark.

- a list of things that is no sentence at all, though it is long enough to be one of them

Pores of the panel spread the load between hyphae and straw, as the veins of a leaf do it.
"""
HYPHAE = "Hyphae of the fungus bind the straw into a light panel of 25 mm thickness."


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "panel.md").write_text(PAPER, "utf-8")
    ingest([tmp_path / "papers"], tmp_path / "corpus", min_quality=0.0)
    return tmp_path / "corpus"


def _fact(number: str, domain: str, statement: str) -> Fact:
    return Fact(
        id=number, domain=domain, topic="structure", statement=statement, quantity=None,
        visual=None, source_title="A page", source_url="https://example.org",
    )  # fmt: skip


def test_sentences_of_an_ingested_corpus_are_quoted_with_their_source(corpus):
    (own,) = read_corpora([corpus])
    assert [fact.statement for fact in own.facts] == [
        HYPHAE,
        "They grow for five days at 25 °C in the dark.",
        "Pores of the panel spread the load between hyphae and straw, as the veins of a leaf do "
        "it.",
    ]
    assert [fact.id for fact in own.facts] == ["own-000001", "own-000002", "own-000003"]
    assert own.facts[0].source_title.endswith("Mycelium panels")
    assert own.facts[0].source_url.endswith("panel.md")
    chunks = corpus / "chunks.jsonl"
    assert own.corpus.path == str(chunks)
    assert own.corpus.sha256 == hashlib.sha256(chunks.read_bytes()).hexdigest()
    assert own.corpus.n_facts == 3


def test_a_file_of_facts_in_the_shipped_form_is_read_as_it_is():
    (own,) = read_corpora([FACTS / "leaf.jsonl"])
    assert len(own.facts) == own.corpus.n_facts == 353
    assert own.facts[0].id == "leaf-0001"


def test_ids_count_over_all_corpora(corpus):
    first, second = read_corpora([corpus, corpus])
    assert second.facts[0].id == "own-000004"
    assert first.facts[0].statement == second.facts[0].statement


def test_every_broken_line_is_named_with_its_file(corpus):
    path = corpus / "chunks.jsonl"
    (whole,) = path.read_text("utf-8").splitlines()
    path.write_text(f'{whole}\n{{"text": \n\n{{"id": "x"}}\n{whole}\n', "utf-8")
    with pytest.raises(UsageError, match=r"chunks.jsonl, 2 are broken \(line 2: .*; line 4: "):
        read_corpora([corpus])


def test_a_fact_that_comes_twice_is_a_broken_line(tmp_path):
    line = _fact("my-0001", "leaf", "Veins branch.").model_dump_json()
    (tmp_path / "mine.jsonl").write_text(f"{line}\n{line}\n", "utf-8")
    with pytest.raises(UsageError, match=r"1 are broken \(line 2: 'my-0001 comes again'\)"):
        read_corpora([tmp_path / "mine.jsonl"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "the system said .No such file"),
        (b"\xff\xfe", "wanted text in UTF-8"),
        (b"\n", "wanted at least one fact"),
    ],
)
def test_a_place_that_is_no_corpus_is_refused(tmp_path, content, said):
    path = tmp_path / "mine.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        read_corpora([path])


def test_an_id_of_a_shipped_fact_is_refused(corpus):
    own = read_corpora([FACTS / "leaf.jsonl"])
    with pytest.raises(UsageError, match=r"wanted new ids in .*leaf.jsonl, got 'leaf-0001,"):
        load_knowledge(own=own, embed=hashed_words)


def test_the_expert_whose_facts_are_nearest_speaks_for_a_quotation(corpus):
    facts = [
        _fact("leaf-0001", "leaf", "Veins of a leaf spread the load over pores."),
        _fact("bio-0001", "biocomposite", "Hyphae of a fungus bind straw in a light panel."),
    ]
    knowledge = Knowledge(facts, hashed_words, own=read_corpora([corpus]))
    assert [c.path.count("chunks.jsonl") for c in knowledge.corpora] == [1]
    found = knowledge.search("hyphae bind straw into a panel", domain="biocomposite", k=4)
    assert "own-000001" in {citation.id for citation in found}
    assert "own-000001" not in {c.id for c in knowledge.search("hyphae", domain="leaf", k=4)}


def test_vectors_of_each_corpus_are_kept_by_its_content(tmp_path, corpus):
    made = []

    def counting(texts):
        made.append(len(texts))
        return hashed_words(texts)

    facts = [_fact("leaf-0001", "leaf", "Veins branch.")]
    own = read_corpora([corpus])
    cache = tmp_path / "cache"
    Knowledge(facts, counting, cache=cache).search("veins")
    Knowledge(facts, counting, own=own, cache=cache).search("veins")
    Knowledge(facts, counting, own=own, cache=cache).search("veins")
    assert made == [1, 2, 3, 2, 2]  # the shipped facts and the corpus once each; queries in pairs


async def test_a_quotation_is_spoken_from_cited_and_recorded(table, corpus):
    state = table.begin(rounds=1)
    brief = state.brief.model_copy(update={"concept": "hyphae bind straw", "domains": ("leaf",)})
    table.knowledge = Knowledge(table.knowledge.facts, hashed_words, own=read_corpora([corpus]))
    whole = await table.resume(state.model_copy(update={"brief": brief}))
    facts = whole.steps[0]
    assert facts.corpora == table.knowledge.corpora
    (turn,) = [turn for turn in whole.turns if turn.role == "expert"]
    assert any(fact_id.startswith("own-") for fact_id in turn.cited)
    assert turn.checks[0].verdict == "supported"


async def test_a_conversation_does_not_go_on_with_a_corpus_that_has_changed(table, corpus):
    table.knowledge = Knowledge(table.knowledge.facts, hashed_words, own=read_corpora([corpus]))
    state = await table.resume(table.begin(), is_paused=lambda: bool(table.kept))
    assert state.outcome == "paused"
    chunks = corpus / "chunks.jsonl"
    (line,) = chunks.read_text("utf-8").splitlines()
    chunk = json.loads(line)
    chunk["text"] = chunk["text"].replace("25 mm", "50 mm")
    chunks.write_text(json.dumps(chunk) + "\n", "utf-8")
    changed = Knowledge(table.knowledge.facts[:3], hashed_words, own=read_corpora([corpus]))

    def nobody(*_):
        raise AssertionError("nobody is asked")

    with pytest.raises(UsageError, match=r"wanted the corpus .*chunks.jsonl as it was .*changed"):
        await resume(
            state, engine_for=nobody, knowledge=changed, structure_for=nobody, render=nobody
        )
    assert (await table.resume(state)).outcome == "finished"
