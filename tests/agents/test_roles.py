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
from orbweave.records import DOMAINS, SCALES, Scale

_FORMS = ("principle", "look", "prompt", "revision", "critique")


def test_every_shipped_team_loads_and_has_an_expert_per_domain_or_none() -> None:
    teams = {path.stem: load_team(path) for path in sorted(TEAMS.rglob("*.yaml"))}
    assert teams.keys() == {"default", "experts", "single", *SCALES}
    assert all(team.name == name for name, team in teams.items())
    assert teams.pop("single").experts == ()
    assert all({e.domain for e in team.experts} == set(DOMAINS) for team in teams.values())


@pytest.mark.parametrize("scale", SCALES)
def test_each_scale_has_a_team_that_asks_trained_models_in_the_words_of_the_default_one(
    scale: Scale,
) -> None:
    team, default = load_team(scale).without_examples(), load_team().without_examples()
    assert team.scale == scale
    assert all(getattr(team, name) == getattr(default, name) for name in _FORMS)
    assert team.experts == default.experts


@pytest.mark.parametrize("scale", SCALES)
def test_a_scales_worked_example_passes_the_check_a_model_must_pass(scale: Scale) -> None:
    for example in load_team(scale).prompt.examples:
        paragraph = example.reply.splitlines()[1].removeprefix("Prompt: ")
        assert faults_of(paragraph, min_words=30, max_words=90) == ()


def test_the_single_agent_is_one_untuned_model_without_examples_facts_or_loop() -> None:
    team = load_team("single")
    assert team.models == ("base",)
    assert (team.prompt.examples, team.most_rounds, team.trained) == ((), 1, ())
    assert "materials scientist" in team.prompt.system


def test_a_team_is_laid_over_the_one_it_is_like(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("like: urban\nname: mine\nprompt: {tries: 5}\n", "utf-8")
    team, urban = load_team(path), load_team("urban")
    assert (team.name, team.prompt.tries) == ("mine", 5)
    assert team.prompt.model_copy(update={"tries": urban.prompt.tries}) == urban.prompt
    assert team.model_copy(update={"name": "urban", "prompt": urban.prompt}) == urban


def test_a_team_may_be_like_one_beside_it_that_replaces_a_shipped_name(tmp_path: Path) -> None:
    (tmp_path / "default.yaml").write_text("like: default\nname: ours\nfacts_each: 5\n", "utf-8")
    (tmp_path / "mine.yaml").write_text("like: default\nname: mine\n", "utf-8")
    assert load_team(tmp_path / "default.yaml").facts_each == 5
    assert load_team(tmp_path / "mine.yaml").facts_each == 5


@pytest.mark.parametrize("like", ["nobody", "../default", "[default]"])
def test_a_team_like_no_other_is_an_error(tmp_path: Path, like: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"like: {like}\nname: mine\n", "utf-8")
    with pytest.raises(UsageError, match="is like, found no "):
        load_team(path)


def test_teams_that_are_like_each_other_are_an_error(tmp_path: Path) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        (tmp_path / f"{one}.yaml").write_text(f"like: {other}\nname: {one}\n", "utf-8")
    with pytest.raises(UsageError, match="are alike"):
        load_team(tmp_path / "a.yaml")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "\xff\xfe"])
def test_a_file_that_is_no_mapping_is_no_team(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match="wanted a team in"):
        load_team(path)


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
    with pytest.raises(UsageError, match=r"found no 'nobody'; use a YAML file or: archi"):
        load_team("nobody")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("like: default\nname: a\nname: b\n", "line 3: name is given twice"),
        ("like: default\nname: [", "wanted a team in .*, it is no YAML: line 2, column"),
        (
            "like: default\nfacts_each: many\nstop: {level: 9}\n",
            r"found 2 faults: .*facts_each: .* \(got 'many'\); .*stop.level: .* \(got '9'\)",
        ),
    ],
)
def test_faults_of_a_team_are_told_in_one_line_with_their_places(
    tmp_path: Path, text: str, fault: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(UsageError, match=fault) as raised:
        load_team(path)
    assert "\n" not in str(raised.value)


def test_a_misspelt_key_in_a_team_is_an_error(tmp_path: Path) -> None:
    content = yaml.safe_load((TEAMS / "default.yaml").read_text("utf-8"))
    content["expertz"] = []
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content), "utf-8")
    with pytest.raises(UsageError, match="expertz: no such key"):
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
