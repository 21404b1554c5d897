"""Facts: what is loaded, what is left out, and who is found for a concept."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agents.fake import hashed_words
from agents.knowledge import FACTS, Fact, Knowledge, load_knowledge, read_facts
from orbweave.errors import UsageError


def _slow(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that embeds the corpus: ten seconds of a free core, minutes of a busy one."""
    return pytest.mark.slow(pytest.mark.timeout(900)(test))


def _fact(number: int, statement: str, domain: str = "leaf", **more: object) -> Fact:
    fields: dict[str, object] = {
        "id": f"leaf-{number:04d}",
        "domain": domain,
        "topic": "structure",
        "statement": statement,
        "quantity": None,
        "visual": None,
        "source_title": "A page",
        "source_url": "https://example.org/page",
    }
    return Fact.model_validate(fields | more)


def _write(folder: Path, *facts: Fact) -> None:
    lines = [fact.model_dump_json(exclude={"caveat", "weak"}) for fact in facts]
    (folder / "leaf.jsonl").write_text("\n".join(lines), "utf-8")


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Knowledge:
    """The shipped facts with the real sentence model; embedding them takes seconds."""
    return load_knowledge(cache=tmp_path_factory.mktemp("embeddings"))


def test_every_shipped_fact_is_sourced_and_the_excluded_are_gone() -> None:
    facts = read_facts()
    assert len(facts) == 1_352 - 20
    assert all(fact.source_url.startswith("http") for fact in facts)
    assert "coll-0012" not in {fact.id for fact in facts}


def test_a_caveat_travels_with_its_statement() -> None:
    fact = next(fact for fact in read_facts() if fact.id == "bio-0303")
    assert fact.shown == f"{fact.statement} (Caveat: from simulation only.)"


def test_a_weak_address_ranks_below_an_equal_fact() -> None:
    sound, weak = _fact(1, "Veins branch."), _fact(2, "Veins branch.", weak=True)
    knowledge = Knowledge([weak, sound], hashed_words)
    assert [found.id for found in knowledge.search("Veins branch", k=1)] == ["leaf-0001"]


def test_plants_are_the_leaf_experts_and_bioinspired_design_the_biocomposite_experts() -> None:
    experts = {fact.domain: fact.expert for fact in read_facts()}
    assert experts["plant"] == "leaf"
    assert experts["bioinspired-design"] == "biocomposite"


def test_search_gives_the_nearest_fact_and_its_cosine() -> None:
    facts = [_fact(1, "Veins branch into loops"), _fact(2, "Threads carry glue")]
    (found,) = Knowledge(facts, hashed_words).search("Veins branch into loops", k=1)
    assert (found.id, found.score) == ("leaf-0001", 1.0)


def test_search_can_be_bound_to_an_expert() -> None:
    facts = [_fact(1, "Threads carry glue", domain="plant"), _fact(2, "Glue", domain="collagen")]
    found = Knowledge(facts, hashed_words).search("Glue", domain="leaf", k=5)
    assert [citation.id for citation in found] == ["leaf-0001"]


def test_search_does_not_give_the_same_thing_twice() -> None:
    facts = [
        _fact(1, "Veins branch into closed loops"),
        _fact(2, "Veins branch into closed loops often"),
        _fact(3, "Stomata branch into two"),
    ]
    found = Knowledge(facts, hashed_words).search("Veins branch into closed loops", k=2)
    assert [citation.id for citation in found] == ["leaf-0001", "leaf-0003"]


def test_one_of_several_facts_says_what_one_would_see() -> None:
    others = ("carry water", "stiffen blades", "end at margins", "bend in wind")
    near = [_fact(n, f"Veins branch, {rest}") for n, rest in enumerate(others, start=1)]
    far = _fact(9, "Hairs cover a leaf", visual="fine hairs on a disc")

    def found(facts: list[Fact], k: int) -> list[str]:
        hits = Knowledge(facts, hashed_words).search("Veins branch", k=k)
        return [hit.id for hit in hits]

    plain = found(near, 3)
    assert len(plain) == 3
    assert found([*near, far], 3) == [*plain[:2], far.id]
    assert found([*near, far], 1) == plain[:1]


def test_what_can_be_seen_is_preferred_among_equals() -> None:
    facts = [_fact(1, "Veins branch"), _fact(2, "Veins branch", visual="Lines that fork.")]
    (found,) = Knowledge(facts, hashed_words).search("Veins branch", k=1)
    assert found.id == "leaf-0002"


def test_a_fact_that_is_one_clause_of_the_concept_counts_as_half_found() -> None:
    facts = [_fact(1, "drip tips shed water"), _fact(2, "threads carry glue")]
    scores = Knowledge(facts, hashed_words)._scores("spider webs and drip tips shed water")
    assert scores.nearness[0] == pytest.approx((scores.cosine[0] + 1) / 2)
    assert scores.nearness[1] == 0.0


def test_vectors_are_kept_and_not_made_again(tmp_path: Path) -> None:
    calls = []

    def counting(texts: list[str]) -> np.ndarray:
        calls.append(len(texts))
        return hashed_words(texts)

    facts = [_fact(1, "Veins branch"), _fact(2, "Threads carry glue")]
    for _ in range(2):
        Knowledge(facts, counting, cache=tmp_path).search("Veins")
    assert calls == [2, 2, 2]  # the facts once, then two queries of a whole and its only part
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]


def test_damaged_vectors_are_made_again_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    facts = [_fact(1, "Veins branch")]
    Knowledge(facts, hashed_words, cache=tmp_path).search("Veins")
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(b"half a file")
    with caplog.at_level(logging.WARNING):
        found = Knowledge(facts, hashed_words, cache=tmp_path).search("Veins branch", k=1)
    assert found[0].score == 1.0
    assert "are damaged" in caplog.text


def test_a_line_that_is_no_fact_is_named(tmp_path: Path) -> None:
    (tmp_path / "leaf.jsonl").write_text(json.dumps({"id": "leaf-0001"}), "utf-8")
    with pytest.raises(UsageError, match="wanted a fact in leaf.jsonl, line 1"):
        read_facts(tmp_path)


def test_an_id_that_comes_twice_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, _fact(1, "Veins"), _fact(1, "Loops"))
    with pytest.raises(UsageError, match="got leaf-0001 again in leaf.jsonl, line 2"):
        read_facts(tmp_path)


def test_an_unknown_domain_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, _fact(1, "Veins", domain="fungi"))
    with pytest.raises(UsageError, match="wanted one of the domains .* got 'fungi'"):
        read_facts(tmp_path)


def test_a_doubt_about_an_unknown_fact_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, _fact(1, "Veins"))
    (tmp_path / "doubts.yaml").write_text(
        "excluded: {leaf-0009: gone}\nqualified: {}\nweak: []\n", "utf-8"
    )
    with pytest.raises(UsageError, match="doubts about known facts in doubts.yaml, got leaf-0009"):
        read_facts(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="wanted at least one fact, got none"):
        load_knowledge(tmp_path, embed=hashed_words)


def test_the_shipped_folder_is_the_default() -> None:
    assert {path.name for path in FACTS.glob("*.jsonl")} == {
        "biocomposite.jsonl",
        "collagen.jsonl",
        "leaf.jsonl",
        "silk.jsonl",
    }


@_slow
@pytest.mark.parametrize(
    ("concept", "wanted"),
    [
        (
            "a filter membrane that joins a spider web with the drainage of a leaf",
            {"spider-silk", "leaf"},
        ),
        ("a bridge like spider silk", {"spider-silk"}),
        ("a roof after leaf veins", {"leaf"}),
        ("a rope like a tendon that stiffens", {"collagen"}),
        ("floor tiles like nacre", {"biocomposite"}),
        ("crack-proof armour after sea shells and bone", {"biocomposite", "collagen"}),
        ("a honeycomb panel hung on silk threads", {"biocomposite", "spider-silk"}),
        ("a scaffold for cartilage", {"collagen"}),
        ("bamboo-like graded tubes", {"leaf"}),
        ("a canopy like a cobweb", {"spider-silk"}),
        ("opening and closing pores like stomata", {"leaf"}),
        ("helicoidal plates as in the club of the mantis shrimp", {"biocomposite"}),
        ("sacrificial bonds between twisted protein fibrils", {"collagen"}),
        ("sticky droplets on stretchy thread", {"spider-silk"}),
        ("branching channels that carry water", {"leaf"}),
        ("🕸️ 🍃", {"spider-silk", "leaf"}),
    ],
)
def test_the_experts_a_concept_needs_are_asked(
    shipped: Knowledge, concept: str, wanted: set[str]
) -> None:
    asked = shipped.experts_for(concept)
    assert wanted <= set(asked)
    assert len(asked) <= 3


OTHER_LANGUAGES = [
    "一种像蜘蛛网一样分散载荷、像叶子一样排水的膜",
    "像蜘蛛網一樣分散載荷、像葉子一樣排水的膜",
    "クモの巣のように荷重を分散し、葉のように排水する膜",
    "거미줄처럼 하중을 분산하고 나뭇잎처럼 배수하는 막",
    "Eine Membran, die Lasten verteilt wie ein Spinnennetz und entwässert wie ein Blatt",
    "une membrane qui répartit la charge comme une toile d’araignée et draine comme une feuille",
    "una membrana que reparte la carga como una telaraña y drena como una hoja",
    "una membrana che distribuisce il carico come una ragnatela e drena come una foglia",
    "uma membrana que distribui a carga como uma teia de aranha e drena como uma folha",
    "мембрана, которая распределяет нагрузку как паутина и отводит воду как лист",
    "غشاء يوزع الحمل مثل شبكة العنكبوت ويصرف الماء مثل ورقة الشجر",
]


@pytest.mark.parametrize("concept", OTHER_LANGUAGES)
def test_domains_named_in_another_language_are_asked_and_the_rest_is_noted(concept: str) -> None:
    facts = [
        _fact(n, f"Text number {n}", domain)
        for n, domain in enumerate(("leaf", "spider-silk", "collagen", "biocomposite"))
    ]
    knowledge = Knowledge(facts, hashed_words)
    assert {"spider-silk", "leaf"} <= set(knowledge.experts_for(concept))
    assert "the words for spider web, " in knowledge.note_on(concept)


@pytest.mark.parametrize(
    "concept", ["Eine Brücke, die sich selbst heilt und mit dem Wind wächst", "橋", "asdf zxcv"]
)
def test_a_concept_of_which_nothing_is_understood_is_noted(concept: str) -> None:
    note = Knowledge([_fact(1, "Veins branch")], hashed_words).note_on(concept)
    assert "no word of this concept was understood" in note


@pytest.mark.parametrize("concept", ["a web that drains", "veins for a roof", "🕸️ 🍃", "Nacre"])
def test_a_concept_in_english_is_not_noted(concept: str) -> None:
    assert Knowledge([_fact(1, "Veins branch")], hashed_words).note_on(concept) == ""


@_slow
@pytest.mark.parametrize(
    "concept", ["asdf qwer zxcv", "شبكة العنكبوت وورقة الشجر", "42", "a chair"]
)
def test_any_concept_gets_one_to_three_experts(shipped: Knowledge, concept: str) -> None:
    assert 1 <= len(shipped.experts_for(concept)) <= 3


@_slow
def test_a_concept_of_one_domain_does_not_call_everybody(shipped: Knowledge) -> None:
    assert shipped.experts_for("dragline silk of an orb web spider") == ("spider-silk",)


@_slow
def test_the_leaf_expert_is_given_facts_on_draining(shipped: Knowledge) -> None:
    concept = "a membrane with the load spreading of a spider web and the drainage of a leaf"
    found = shipped.search(concept, domain="leaf", k=3)
    assert any(word in c.statement for c in found for word in ("drip", "drain", "water", "vein"))
