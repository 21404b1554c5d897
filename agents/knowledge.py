"""What the experts know: sourced facts, found by meaning and by words.

    knowledge = load_knowledge()
    knowledge.experts_for("a spider web that drains like a leaf")   # ("spider-silk", "leaf")
    knowledge.search("load spreading", domain="spider-silk", k=3)   # three Citations

The facts are data in `agents/facts`; `doubts.yaml` beside them says which are left out,
which carry a caveat and which have a weak address. A user's own corpora come beside them, see
`agents.corpora`.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import ValidationError

from agents.embedding import Embed, MiniLM
from agents.faults import faults_of
from agents.glossary import in_english, readings
from agents.keywords import Keywords
from orbweave.errors import UsageError, shown
from orbweave.files import write_bytes
from orbweave.paths import cache_root
from orbweave.records import DOMAINS, Citation, Corpus, Domain, Record

_log = logging.getLogger(__name__)

__all__ = [
    "FACTS",
    "OWN",
    "Fact",
    "Knowledge",
    "OwnFacts",
    "Quantity",
    "load_knowledge",
    "read_fact",
    "read_facts",
]

FACTS = Path(__file__).with_name("facts")
"""The shipped corpus."""

_EXPERT_OF: Mapping[str, Domain] = {
    **{domain: domain for domain in DOMAINS},
    "plant": "leaf",
    "bioinspired-design": "biocomposite",
}
"""Which expert speaks for a domain of the corpus."""
OWN = "own"
"""Domain of what a user's documents say: the expert speaks for it whose facts it is nearest to."""

_NAMES: Mapping[Domain, re.Pattern[str]] = {
    "spider-silk": re.compile(r"\b(spider|cobweb|orb[- ]?web|web|silk|dragline)s?\b", re.I),
    "collagen": re.compile(
        r"\b(collagen|tendon|bone|skin|cornea|cartilage|ligament|dentin|byssus|fish scale)s?\b",
        re.I,
    ),
    "leaf": re.compile(
        r"\b(leaf|leaves|plant|stomata|venation|petiole|bamboo|wood|cork|petal|tendril|lotus)s?\b",
        re.I,
    ),
    "biocomposite": re.compile(
        r"\b(nacre|shell|honeycomb|mantis shrimp|beetle|biocomposite|coral|feather|glass sponge"
        r"|mycelium|diatom)s?\b",
        re.I,
    ),
}
"""Words that name an expert outright; a named expert is always asked. Those of other languages
are read as these, see `agents.glossary`."""

_SHARE = 0.85
"""An expert who scores this share of the best is asked too. Chosen by us on the concepts of
tests/agents/test_knowledge.py: two or three where the concept is open, one where it is not."""
_TOP = 5
"""Facts whose mean score stands for a domain; one lucky fact should not carry it."""
_CLAUSES = re.compile(r"[,;:.]\s+|\s+(?:and|with|that|which|plus|into|between)\s+", re.I)
_KEYWORDS = 0.3
"""Weight of the words a fact shares with the query, in units of cosine, against the fact that
shares most. Chosen on one half of `benchmarks/retrieval.jsonl`, as was to rank by worth alone:
to prefer facts unlike each other cost a quarter of the recall there."""
_SAME = 0.85
"""Facts this alike (cosine) say the same thing; only the better one is given."""
_VISUAL_BONUS, _NUMBER_BONUS, _WEAK_MALUS = 0.06, 0.03, 0.05
"""In units of cosine: a picture needs what can be seen, a claim needs its number."""
_OWN_BONUS = 0.06
"""Quotations have no visual; who gives a corpus wants to hear from it all the same."""
_TOPIC_BONUS = {
    **dict.fromkeys(("geometry", "structure", "design-principle"), 0.03),
    **dict.fromkeys(("processing", "composition", "application"), -0.03),
}
"""How a thing is built tells a designer more than how it is made or of what."""


class Quantity(Record):
    """The number a fact is about, as its source writes it."""

    name: str
    value: str
    unit: str


class Fact(Record):
    """One sourced statement."""

    id: str
    domain: str
    topic: str
    statement: str
    quantity: Quantity | None
    visual: str | None
    """What one would see, in plain shapes."""
    source_title: str
    source_url: str
    caveat: str = ""
    """What a reader must know before relying on it; empty for most."""
    weak: bool = False
    """The address is a mirror or a popular page."""

    @property
    def expert(self) -> Domain:
        """The expert who speaks for this fact; KeyError for a user's own, see `OWN`."""
        return _EXPERT_OF[self.domain]

    @property
    def shown(self) -> str:
        """The statement with its caveat, as models and people get it."""
        return f"{self.statement} (Caveat: {self.caveat}.)" if self.caveat else self.statement

    @property
    def held(self) -> str:
        """Everything the fact says, for looking up words and numbers."""
        number = f"{self.quantity.value} {self.quantity.unit}" if self.quantity else ""
        return " ".join(part for part in (self.shown, self.visual, number) if part)


class _Doubts(Record):
    excluded: dict[str, str]
    qualified: dict[str, str]
    weak: tuple[str, ...]


class _Scores(NamedTuple):
    """How near every fact is to a query, each of shape (n_facts,)."""

    cosine: NDArray[np.float32]
    """To the query as a whole."""
    nearness: NDArray[np.float32]
    """Mean of that and of the cosine to the nearest clause."""


class OwnFacts(NamedTuple):
    """What a corpus of a user's own says."""

    corpus: Corpus
    facts: tuple[Fact, ...]


class Knowledge:
    """Facts and their vectors.

    Args:
        facts: At least one.
        embed: Turns texts into unit vectors.
        own: Corpora of the user's own; an id stands for one fact in all of them and `facts`.
        cache: Folder where vectors are kept by content hash; None keeps none.
    """

    def __init__(
        self,
        facts: Sequence[Fact],
        embed: Embed,
        *,
        own: Sequence[OwnFacts] = (),
        cache: Path | None = None,
    ) -> None:
        if not facts:
            raise UsageError("wanted at least one fact, got none; point to a folder with *.jsonl")
        self._parts = (tuple(facts), *(each.facts for each in own))
        self.corpora = tuple(each.corpus for each in own)
        """Of the user's own."""
        self.facts = tuple(fact for part in self._parts for fact in part)
        self._by_id = {fact.id: fact for fact in self.facts}
        self._embed = embed
        self._cache = cache

    def __getitem__(self, fact_id: str) -> Fact:
        """Return a fact by its id; KeyError if there is none."""
        return self._by_id[fact_id]

    def __len__(self) -> int:
        """Return the number of facts."""
        return len(self.facts)

    def search(
        self, query: str, *, domain: Domain | None = None, k: int = 4
    ) -> tuple[Citation, ...]:
        """Return up to `k` facts near the query in meaning and words, best first, none twice.

        Facts that say what one would see, or give a number, are preferred a little, and one of
        several says what one would see, if any does: a prompt is made of it. The score shown is
        the plain cosine similarity.

        Args:
            query: A concept or question in words.
            domain: Only facts for which this expert speaks; None searches all.
            k: At least 1.
        """
        scores = self._scores(query)
        shared = self._keywords.scores(query)
        worth = scores.nearness + _KEYWORDS * shared / max(float(shared.max()), 1.0)
        rows = [i for i, expert in enumerate(self._experts) if domain in (None, expert)]
        ranked = sorted(
            rows, key=lambda i: (-worth[i] - _preference(self.facts[i]), self.facts[i].id)
        )
        return tuple(
            _citation(self.facts[i], float(scores.cosine[i])) for i in self._with_a_look(ranked, k)
        )

    def experts_for(self, concept: str, n: int = 3) -> tuple[Domain, ...]:
        """Return the 1 to `n` experts worth asking, best first.

        An expert's score is the mean nearness of its best five facts. Experts the concept
        names ("silk", "leaf") come first; others follow if they score at least 0.85 of the
        best. A concept nobody knows anything about still gets the best one; `note_on` says so.
        """
        nearness = self._scores(concept).nearness
        best = {
            domain: float(np.sort(column)[-_TOP:].mean())
            for domain in DOMAINS
            if (column := nearness[[expert == domain for expert in self._experts]]).size
        }
        named = [domain for domain in best if _NAMES[domain].search(_in_words(concept))]
        order = sorted(best, key=lambda d: (d not in named, -best[d]))
        floor = max(best.values()) * _SHARE
        return tuple(d for d in order if d in named or best[d] >= floor)[: max(1, n)]

    def note_on(self, concept: str) -> str:
        """Return what a reader should know of how a concept was understood; empty if well."""
        names = [
            found[0] for name in _NAMES.values() for found in name.finditer(_in_words(concept))
        ]
        foreign = readings(concept)
        if foreign or "another language" in faults_of(concept):
            known = dict.fromkeys(foreign or names)
        elif names or self._keywords.scores(concept).any():
            return ""
        else:
            known = {}
        words = f"the words for {', '.join(known)}" if known else "no word"
        return (
            f"the facts are in English: {words} of this concept {'were' if known else 'was'} "
            "understood, the rest was compared by likeness alone, and experts may be missing; say "
            "it in English, or name the domains"
        )

    def _with_a_look(self, ranked: Sequence[int], k: int) -> list[int]:
        """Return the first k unlike facts; if none has a look, the first that has comes last."""
        chosen = self._unlike(ranked, k)
        if len(chosen) < 2 or any(self.facts[i].visual for i in chosen):
            return chosen
        looks = [i for i in ranked if self.facts[i].visual]
        return self._unlike([*chosen[:-1], *looks, chosen[-1]], k)[: len(chosen)]

    def _unlike(self, ranked: Sequence[int], k: int) -> list[int]:
        """Return the first k facts, without those that say the same as one before them."""
        chosen: list[int] = []
        for i in ranked:
            if all(self.vectors[i] @ self.vectors[other] < _SAME for other in chosen):
                chosen.append(i)
            if len(chosen) == max(1, k):
                break
        return chosen

    def _scores(self, query: str) -> _Scores:
        """Compare every fact with the query as a whole and with its clauses.

        In "the load spreading of a web with the drainage of a leaf" the whole is near to
        facts on webs and leaves, but only the second clause is near to facts on drainage.
        """
        words = _in_words(query)
        parts = [part.strip() for part in _CLAUSES.split(words) if len(part.split()) > 1]
        cosines = self.vectors @ self._embed([words, *(parts or [words])]).T
        whole, nearest = cosines[:, 0], cosines[:, 1:].max(axis=1)
        return _Scores(whole, (whole + nearest) / 2)

    @cached_property
    def _experts(self) -> tuple[Domain | None, ...]:
        """Who speaks for each fact; for a user's own, whose five nearest facts are nearest."""
        experts = [_EXPERT_OF.get(fact.domain) for fact in self.facts]
        rows = {d: [i for i, expert in enumerate(experts) if expert == d] for d in DOMAINS}
        known = {domain: self.vectors[found] for domain, found in rows.items() if found}
        for i, expert in enumerate(experts):
            if expert is None and known:
                near = {d: np.sort(v @ self.vectors[i])[-_TOP:].mean() for d, v in known.items()}
                experts[i] = max(near, key=lambda domain: near[domain])
        return tuple(experts)

    @cached_property
    def _keywords(self) -> Keywords:
        return Keywords([f"{fact.statement} {fact.visual or ''}" for fact in self.facts])

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """Unit vectors of the statements, shape (n_facts, width)."""
        return np.concatenate([self._embedded(part) for part in self._parts if part])

    def _embedded(self, facts: Sequence[Fact]) -> NDArray[np.float32]:
        texts = [fact.statement for fact in facts]
        if self._cache is None:
            return self._embed(texts)
        name = type(self._embed).__name__
        digest = hashlib.sha256("\n".join([name, *texts]).encode()).hexdigest()[:16]
        return _cached(self._cache / f"facts-{digest}.npy", lambda: self._embed(texts))


def load_knowledge(
    folder: Path = FACTS,
    *,
    own: Sequence[OwnFacts] = (),
    embed: Embed | None = None,
    cache: Path | None = None,
) -> Knowledge:
    """Read a corpus and prepare to search it; nothing is embedded before the first search.

    Args:
        folder: Holds `*.jsonl` and, if need be, `doubts.yaml`.
        own: Corpora of the user's own, from `agents.corpora.read_corpora`.
        embed: Defaults to MiniLM.
        cache: Folder for vectors; defaults to `embeddings` in the cache folder.

    Raises:
        UsageError: a line is no fact, an id comes twice, or a doubt names an unknown fact.
    """
    where = cache_root() / "embeddings" if cache is None else cache
    facts = read_facts(folder)
    ids = {fact.id for fact in facts}
    for each in own:
        twice = sorted(ids & {fact.id for fact in each.facts})
        if twice:
            raise UsageError(
                f"wanted new ids in {each.corpus.path}, got {shown(', '.join(twice))} again; "
                "rename them there"
            )
        ids |= {fact.id for fact in each.facts}
    return Knowledge(facts, embed or MiniLM(), own=own, cache=where)


def read_facts(folder: Path = FACTS) -> tuple[Fact, ...]:
    """Return the facts of all `*.jsonl` in a folder, without the excluded ones.

    Raises:
        UsageError: see `load_knowledge`.
    """
    facts: dict[str, Fact] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
            fact = read_fact(line, f"{path.name}, line {number}")
            if fact.id in facts:
                raise UsageError(
                    f"wanted each fact once, got {fact.id} again in {path.name}, line {number}; "
                    "rename one of the two"
                )
            facts[fact.id] = fact
    return _judged(facts, folder / "doubts.yaml")


def read_fact(line: str, where: str) -> Fact:
    """Return the fact a line of JSON holds.

    Raises:
        UsageError: it holds none, or of an unknown domain; `where` says which line it is.
    """
    try:
        fact = Fact.model_validate_json(line)
    except ValidationError as err:
        raise UsageError(f"wanted a fact in {where}, got {shown(line)}: {err}") from err
    if fact.domain not in _EXPERT_OF:
        raise UsageError(
            f"wanted one of the domains {', '.join(_EXPERT_OF)} in {where}, "
            f"got {shown(fact.domain)}; correct it"
        )
    return fact


def _judged(facts: dict[str, Fact], path: Path) -> tuple[Fact, ...]:
    """Drop, qualify and mark facts as the doubts file says."""
    if not path.exists():
        return tuple(facts.values())
    try:
        doubts = _Doubts.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (ValidationError, yaml.YAMLError) as err:
        raise UsageError(f"wanted excluded, qualified and weak facts in {path}: {err}") from err
    unknown = sorted({*doubts.excluded, *doubts.qualified, *doubts.weak} - facts.keys())
    if unknown:
        raise UsageError(
            f"wanted doubts about known facts in {path.name}, got {', '.join(unknown)}; "
            "remove them or add the facts"
        )
    return tuple(
        fact.model_copy(
            update={"caveat": doubts.qualified.get(fact.id, ""), "weak": fact.id in doubts.weak}
        )
        for fact in facts.values()
        if fact.id not in doubts.excluded
    )


def _in_words(query: str) -> str:
    """Return the query with what is no English in it in English, as far as we know.

    Symbols go by their Unicode names, a leaf emoji says "leaf"; words by the glossary.
    """
    return in_english(
        "".join(
            f" {unicodedata.name(c, '').lower()} " if unicodedata.category(c) == "So" else c
            for c in query
        )
    )


def _preference(fact: Fact) -> float:
    return (
        _TOPIC_BONUS.get(fact.topic, 0.0)
        + (_VISUAL_BONUS if fact.visual else 0.0)
        + (_NUMBER_BONUS if fact.quantity else 0.0)
        + (_OWN_BONUS if fact.domain == OWN else 0.0)
        - (_WEAK_MALUS if fact.weak else 0.0)
    )


def _citation(fact: Fact, score: float) -> Citation:
    return Citation(
        id=fact.id,
        domain=fact.domain,
        statement=fact.shown,
        source_title=fact.source_title,
        source_url=fact.source_url,
        score=round(score, 4),
    )


def _cached(path: Path, make: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the array kept at `path`, or make it and keep it; a damaged file is made again."""
    try:
        kept: NDArray[np.float32] = np.load(path, allow_pickle=False)
        return kept
    except FileNotFoundError:
        made = make()
    except (ValueError, EOFError) as err:
        _log.warning("the kept vectors in %s are damaged (%s); making them again", path, err)
        made = make()
    content = io.BytesIO()
    np.save(content, made, allow_pickle=False)
    write_bytes(path, content.getvalue())
    return made
