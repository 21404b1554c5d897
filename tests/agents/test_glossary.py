"""The glossary: words of other languages are found, and nothing in English is."""

from __future__ import annotations

import pytest
import yaml

from agents.glossary import GLOSSARY, in_english, readings
from agents.knowledge import read_facts

LANGUAGES = {"zh", "ja", "ko", "de", "fr", "es", "it", "pt", "ru", "ar"}
SUBJECTS = ("spider web", "spider silk", "silk", "collagen", "bone", "leaf", "plant", "honeycomb")


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("像蜘蛛丝一样的线", ("spider silk",)),
        ("Knochenstruktur und Blattadern", ("bone", "leaf venation")),
        ("l’os et la toile d’araignée", ("bone", "spider web")),
        ("ЛИСТЬЯ", ("leaf",)),
        ("والحرير", ("silk",)),
        ("言葉で描く鉄骨の橋", ("words", "steel frame")),
        ("涡轮叶片", ("turbine blade",)),
        ("تحرير", ()),
    ],
)
def test_words_are_read_whole_the_longest_first(text: str, english: tuple[str, ...]) -> None:
    assert readings(text) == english


def test_what_is_not_in_the_glossary_stays() -> None:
    assert in_english("ein Netz wie ein Blatt!") == "ein Netz wie ein  leaf !"


def test_every_subject_has_a_name_in_every_language_and_is_read_as_itself() -> None:
    by_english = yaml.safe_load(GLOSSARY.read_text("utf-8"))
    for english in SUBJECTS:
        assert set(by_english[english]) >= LANGUAGES
    for english, by_language in by_english.items():
        assert set(by_language) <= LANGUAGES
        for words in by_language.values():
            assert all(readings(word.replace("*", "")) == (english,) for word in words)


def test_nothing_of_the_english_facts_is_taken_for_another_language() -> None:
    facts = [f"{fact.statement} {fact.visual or ''}" for fact in read_facts()]
    assert {word for text in facts for word in readings(text)} == set()
