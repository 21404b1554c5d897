from __future__ import annotations

import pytest
from pydantic import ValidationError

from orbweave.errors import ConceptError
from orbweave.records import (
    MAX_CONCEPT_CHARS,
    Brief,
    Design,
    ImagePrompt,
    Motif,
    RenderRequest,
    Structure,
    clean_concept,
)

WEB = Motif(family="orb_web")


def _design() -> Design:
    return Design(
        brief=Brief(concept="silk"),
        turns=(),
        facts=(),
        prompts=(ImagePrompt(title="t", prompt="p", structure=Structure(motifs=(WEB,))),),
        pictures=(),
        measurements=(),
        critiques=(),
        stop_reason="done",
        timings_s={"all": 1.0},
        environment={},
    )


def test_a_design_survives_the_way_through_json():
    design = _design()
    assert Design.model_validate_json(design.model_dump_json()) == design


def test_another_schema_version_is_refused():
    document = _design().model_dump() | {"schema_version": 2}
    with pytest.raises(ValidationError, match="schema_version"):
        Design.model_validate(document)


def test_a_misspelt_key_is_refused():
    with pytest.raises(ValidationError, match="sead"):
        Brief.model_validate({"concept": "silk", "sead": 1})


def test_records_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        Brief(concept="silk").seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("motifs", "combine"), [((WEB,), "overlay"), ((WEB, WEB), "single"), ((), "single")]
)
def test_a_combination_must_fit_the_number_of_motifs(motifs, combine):
    with pytest.raises(ValidationError):
        Structure(motifs=motifs, combine=combine)


@pytest.mark.parametrize(
    "field", [{"steps": 0}, {"width": 250}, {"strength": 0.0}, {"seeds": ()}, {"guidance": -1.0}]
)
def test_a_request_outside_its_range_is_refused(field):
    with pytest.raises(ValidationError, match=next(iter(field))):
        RenderRequest(prompt="p", **field)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("  a  web\n of\tsilk ", "a web of silk"),
        ("e\u0301lytre", "\u00e9lytre"),
        ("👩\u200d🔬 silk", "👩\u200d🔬 silk"),
        ("🕸", "🕸"),
        ("קורי עכביש\u200f", "קורי עכביש\u200f"),
        ("../../etc/passwd", "../../etc/passwd"),
        ("-rf /", "-rf /"),
    ],
)
def test_a_concept_is_normalised_and_otherwise_kept(text, kept):
    assert clean_concept(text) == kept


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "wanted a concept in words, got ''"),
        (" \n ", "wanted a concept in words"),
        ("...", "wanted a concept in words"),
        ("a\x1b[2Jb", r"control character U\+001B"),
        ("a\x00b", r"U\+0000"),
        ("a\ud800b", r"U\+D800"),
        ("x" * (MAX_CONCEPT_CHARS + 1), "at most 2,000 characters, got 2,001"),
    ],
)
def test_what_is_no_concept_is_refused_in_words(text, message):
    with pytest.raises(ConceptError, match=message):
        clean_concept(text)
