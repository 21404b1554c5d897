"""Teams and forms: the words are data, and every shipped team must be complete."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from agents.claims import cited_ids
from agents.faults import faults_of
from agents.generation import Message
from agents.roles import TEAMS, Example, Form, load_team
from orbweave.errors import UsageError
from orbweave.records import DOMAINS

_FORMS = ("principle", "look", "prompt", "revision", "critique")


def test_every_shipped_team_loads_and_has_an_expert_per_domain() -> None:
    teams = [load_team(path) for path in sorted(TEAMS.rglob("*.yaml"))]
    assert len(teams) == 1
    assert {expert.domain for expert in teams[0].experts} == set(DOMAINS)


def test_expert_names_are_identifiers_as_autogen_wants() -> None:
    assert all(expert.name.isidentifier() for expert in load_team().experts)


@pytest.mark.parametrize("name", _FORMS)
def test_shipped_examples_begin_as_the_reply_must(name: str) -> None:
    form: Form = getattr(load_team(), name)
    assert form.examples
    assert all(example.reply.startswith(form.prefix) for example in form.examples)


def test_shipped_prompt_examples_pass_the_check_a_model_must_pass() -> None:
    prompt, revision = load_team().prompt.examples[0], load_team().revision.examples[0]
    paragraph = prompt.reply.splitlines()[1].removeprefix("Prompt: ")
    assert faults_of(paragraph, min_words=30, max_words=90) == ()
    assert faults_of(revision.reply.removeprefix("Prompt: "), min_words=30, max_words=90) == ()


def test_the_shipped_words_name_no_fact_ids() -> None:
    # Citations are added by the frame; a model shown ids would learn to invent some.
    assert cited_ids((TEAMS / "default.yaml").read_text("utf-8")) == ()


def test_a_form_lays_out_examples_before_the_question() -> None:
    form = Form(
        system="You know {field}.",
        user="Concept: {concept}",
        examples=(Example(fields={"concept": "A chair"}, reply="Use wood."),),
    )
    assert form.messages({"concept": "A {roof}", "field": "trees"}) == (
        Message("system", "You know trees."),
        Message("user", "Concept: A chair"),
        Message("assistant", "Use wood."),
        Message("user", "Concept: A {roof}"),
    )


def test_an_example_without_a_field_is_refused() -> None:
    with pytest.raises(ValueError, match=r"an example lacks the fields \[\['facts'\]\]"):
        Form(
            system="",
            user="{concept} {facts}",
            examples=(Example(fields={"concept": "A chair"}, reply="Wood."),),
        )


def test_an_unknown_team_is_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"found no 'nobody'; use a YAML file or: default"):
        load_team("nobody")


def test_a_misspelt_key_in_a_team_is_an_error(tmp_path: Path) -> None:
    content = yaml.safe_load((TEAMS / "default.yaml").read_text("utf-8"))
    content["expertz"] = []
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content), "utf-8")
    with pytest.raises(UsageError, match=r"expertz\n  Extra inputs are not permitted"):
        load_team(path)


def test_a_team_without_the_expert_says_whom_it_has() -> None:
    team = load_team()
    lonely = team.model_copy(update={"experts": team.experts[:1]})
    with pytest.raises(UsageError, match="an expert on 'leaf', the team has spider-silk"):
        lonely.expert("leaf")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Here is the prompt you asked for.", "talk about the task"),
        ("**Bold** lines on green.", "markup"),
        ("- lines\n- gaps", "markup"),
        ("lines and gaps and lines and gaps and lines and gaps", "repetition"),
        ("thin thin lines", "repetition"),
        ("Thick borders outline large irregular polygons; inside each.", "echo"),
        ("Lines.", "too short: 1 words"),
    ],
)
def test_unusable_text_is_named(text: str, fault: str) -> None:
    example = "Thick borders outline large irregular polygons; inside each, thinner lines."
    assert fault in faults_of(text, min_words=3, echo_of=[example])


def test_a_plain_description_is_usable() -> None:
    text = "Close view of a pale membrane with thick radial lines, seen from above."
    assert faults_of(text, min_words=10, max_words=20) == ()
