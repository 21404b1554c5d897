"""A whole conversation: who speaks when, what is kept, and why it stops."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from agents import Conversation, Knowledge, converse, load_team
from agents.advice import note_of, origins_of
from agents.claims import cited_ids, sentences
from agents.events import (
    Critiqued,
    Event,
    FactsFound,
    Prompted,
    Rendered,
    Spoke,
    Stopped,
    TurnEnded,
    TurnStarted,
)
from agents.fake import FakeEngine, hashed_words
from agents.generation import Generation
from agents.knowledge import Fact, read_facts
from agents.roles import StopRule, Team
from orbweave.errors import EngineError, OutputError, UsageError
from orbweave.records import Brief, ImagePrompt, Measurement, Picture, Structure, Targets

if TYPE_CHECKING:
    from agents.engine import TransformersEngine

_PROMPT = (
    "Close view of a pale membrane like a spider web with thick radial threads from one corner. "
    "Thin spiral threads cross them at even gaps. Straight side veins of a leaf leave each thick "
    "thread and end on the margin of the blade. Dark green background, soft even light."
)
_REVISED = (
    "Close view of a pale membrane like a spider web with thin radial threads from one corner. "
    "Few spiral threads cross them at wide gaps. Every side vein of a leaf tapers from the thread "
    "to the margin of the blade and leaves most of it open. Dark green background, soft even light."
)
_BRIEF = Brief(
    concept="A membrane that joins spider webs and leaf veins", domains=("spider-silk", "leaf")
)


def _facts() -> list[Fact]:
    rows: list[tuple[str, str, str, str | None]] = [
        ("silk-0001", "spider-silk", "Spiral threads of a web cross radial threads at 3 mm gaps.",
         "Even spiral lines on straight radial lines."),
        ("silk-0002", "spider-silk", "Anchor threads spread the load of a web to many points.",
         None),
        ("leaf-0001", "leaf", "Side veins of a leaf end on the margin of the blade.",
         "Slanted lines that end on an edge."),
    ]  # fmt: skip
    return [
        Fact(id=i, domain=d, topic="structure", statement=s, quantity=None, visual=v,
             source_title="A page", source_url="https://example.org")
        for i, d, s, v in rows
    ]  # fmt: skip


def _obedient(request: Generation) -> str:
    """Answer every form as a good model would."""
    question = request.messages[-1].content
    if "What should the design take" in question:
        return question.split("- ", 1)[1].splitlines()[0]
    if "Seen in nature" in question:
        return f"In plain shapes: {question.split('- ', 1)[1].splitlines()[0].lower()}"
    if request.prefix == "Title:":
        return "Title: Web of veins"
    if request.prefix.endswith("Prompt:"):
        return f"{request.prefix} {_REVISED if 'Feedback:' in question else _PROMPT}"
    if request.prefix.endswith("Avoid:"):
        return f"{request.prefix} cars, smoke"
    return f"{request.prefix} Let the thick threads taper toward the margin of the blade."


class _Studio:
    """Renders nothing and measures what it was told to."""

    def __init__(self, *solid_fractions: float) -> None:
        self._left = list(solid_fractions)
        self.drawn: list[tuple[str, int]] = []

    async def __call__(
        self, prompt: ImagePrompt, version: int
    ) -> tuple[tuple[Picture, ...], tuple[Measurement, ...]]:
        self.drawn.append((prompt.prompt, version))
        solid = self._left.pop(0) if self._left else 0.5
        return (), (_measured(solid_fraction=solid),)


def _measured(**fields: float | None) -> Measurement:
    values = {"solid_fraction": 0.5, "direction_deg": None, "spacing_px": None} | fields
    return Measurement(picture="0.png", anisotropy=0.1, contrast=0.2, **values)


async def _talk(
    engine: FakeEngine,
    *,
    brief: Brief = _BRIEF,
    studio: _Studio | None = None,
    rounds: int = 1,
    on_event: Callable[[Event], None] = lambda event: None,
    team: Team | None = None,
) -> Conversation:
    return await converse(
        brief,
        engine_for=lambda model: engine,
        knowledge=Knowledge(_facts(), hashed_words),
        structure_for=lambda prompt, seed: None,
        render=studio or _Studio(),
        rounds=rounds,
        on_event=on_event,
        team=team,
    )


async def test_one_round_is_one_prompt_one_rendering_one_critique() -> None:
    studio = _Studio()
    talk = await _talk(FakeEngine(_obedient), studio=studio)
    speakers = [turn.speaker for turn in talk.turns]
    assert speakers == ["spider_silk_expert", "leaf_expert", "prompt_engineer", "critic"]
    assert studio.drawn == [(_PROMPT, 0)]
    assert (len(talk.prompts), len(talk.critiques)) == (1, 1)
    assert talk.stop_reason == "the bound of 1 round was reached"


async def test_what_was_not_understood_of_a_foreign_brief_is_told_and_kept() -> None:
    heard: list[Event] = []
    brief = Brief(concept="像蜘蛛网一样分散载荷、像叶子一样排水的膜")
    talk = await _talk(FakeEngine(_obedient), brief=brief, on_event=heard.append)
    found = next(event for event in heard if isinstance(event, FactsFound))
    assert found.domains == ("spider-silk", "leaf")
    assert "the words for spider web, leaf of this concept were understood" in found.note
    assert talk.facts_note == found.note
    assert (await _talk(FakeEngine(_obedient))).facts_note == ""


async def test_turns_say_who_spoke_with_which_model_and_how_much() -> None:
    talk = await _talk(FakeEngine(_obedient))
    assert [turn.index for turn in talk.turns] == [0, 1, 2, 3]
    assert {turn.model for turn in talk.turns} == {"generalist"}
    assert all(turn.n_tokens > 0 for turn in talk.turns)


async def test_every_expert_sentence_cites_the_fact_it_was_written_from() -> None:
    talk = await _talk(FakeEngine(_obedient))
    silk, leaf = talk.turns[:2]
    assert silk.cited == ("silk-0001", "silk-0002")
    assert "to many points. [silk-0002]" in silk.text
    assert leaf.cited == ("leaf-0001",)


async def test_a_stray_sentence_is_replaced_by_the_fact_in_quotation_marks() -> None:
    def stray(request: Generation) -> str:
        principle = "What should the design take" in request.messages[-1].content
        return (
            "My favourite football club plays tonight at home." if principle else _obedient(request)
        )

    talk = await _talk(FakeEngine(stray))
    assert (
        '"Side veins of a leaf end on the margin of the blade." [leaf-0001]' in talk.turns[1].text
    )
    assert "football" not in talk.turns[1].text


async def test_a_sentence_of_the_prompt_with_a_number_nothing_holds_is_left_out_and_said() -> None:
    boast = "Every thread is 9 mm thick and shines."

    def boasting(request: Generation) -> str:
        if request.prefix.endswith("Prompt:"):
            return f"{request.prefix} {_PROMPT} {boast} The spiral threads leave 3 mm gaps."
        return _obedient(request)

    talk = await _talk(FakeEngine(boasting))
    assert talk.prompts[0].prompt == f"{_PROMPT} The spiral threads leave 3 mm gaps."
    assert "(Left out what states 9 mm, which is in no fact.)" in talk.turns[2].text
    assert talk.turns[2].unsupported == ()


async def test_a_sentence_said_twice_stands_in_the_prompt_once() -> None:
    def repeating(request: Generation) -> str:
        if request.prefix.endswith("Prompt:"):
            return f"{request.prefix} {_PROMPT} Dark green background, soft even light."
        return _obedient(request)

    talk = await _talk(FakeEngine(repeating))
    assert talk.prompts[0].prompt == _PROMPT


async def test_a_short_prompt_is_filled_up_with_what_the_facts_look_like() -> None:
    short = (
        "Close view of a pale membrane with thick radial threads of a web from one corner, seen "
        "from above, and side veins of a leaf."
    )

    def brief(request: Generation) -> str:
        if request.prefix.endswith("Prompt:"):
            return f"{request.prefix} {short}"
        return _obedient(request)

    talk = await _talk(FakeEngine(brief))
    prompt = talk.prompts[0].prompt
    assert prompt == f"{short} Even spiral lines on straight radial lines."
    assert len(short.split()) < 30 <= len(prompt.split())
    assert "(Added what was missing: Even spiral lines on straight radial lines.)" in (
        talk.turns[2].text
    )


async def test_an_expert_nothing_of_whom_is_in_the_prompt_has_its_look_added() -> None:
    silk_only = (
        "Close view of a pale membrane with thick radial threads from one corner, seen from above. "
        "Thin spiral threads cross them at even gaps and anchor threads spread to many points. "
        "Dark green background, soft even light."
    )

    def forgetful(request: Generation) -> str:
        if request.prefix.endswith("Prompt:"):
            return f"{request.prefix} {silk_only}"
        return _obedient(request)

    talk = await _talk(FakeEngine(forgetful), rounds=2)
    for prompt in talk.prompts:
        assert "Slanted lines that end on an edge." in prompt.prompt
        assert {origin.turn for origin in prompt.origins} == {0, 1}


async def test_a_long_prompt_keeps_whole_sentences_up_to_110_words() -> None:
    more = (
        "A web of fine lines joins the veins of a leaf. Anchor threads reach many points. "
        "Even spiral lines wind around straight radial ones. Slanted veins end on an edge with "
        "thick borders. Translucent polygons lie between thin glossy lines. Small openings stay "
        "dark inside each border. Soft light from below falls on crisp edges of the membrane."
    )

    def wordy(request: Generation) -> str:
        if request.prefix.endswith("Prompt:"):
            return f"{request.prefix} {_PROMPT} {more} This sentence would be one too many for it."
        return _obedient(request)

    talk = await _talk(FakeEngine(wordy))
    assert talk.prompts[0].prompt == f"{_PROMPT} {more}"
    assert 100 <= len(talk.prompts[0].prompt.split()) <= 110


async def test_the_prompt_knows_which_turn_its_phrases_came_from() -> None:
    talk = await _talk(FakeEngine(_obedient))
    origins = {origin.phrase: origin.turn for origin in talk.prompts[0].origins}
    assert origins["Thin spiral threads cross them at even gaps"] == 0
    veins = next(phrase for phrase in origins if phrase.startswith("Straight side veins"))
    assert origins[veins] == 1


async def test_a_bad_paragraph_is_written_again_and_only_the_good_one_kept() -> None:
    tries = iter(["Here is the prompt.", _PROMPT])

    def improving(request: Generation) -> str:
        if request.prefix.endswith("Prompt:"):
            return f"{request.prefix} {next(tries)}"
        return _obedient(request)

    heard: list[Event] = []
    talk = await _talk(FakeEngine(improving), on_event=heard.append)
    assert talk.prompts[0].prompt == _PROMPT
    spoken = "".join(event.text for event in heard if isinstance(event, Spoke))
    assert "(written again: talk about the task" in spoken


def _hopeless(request: Generation) -> str:
    if request.prefix.endswith("Prompt:"):
        return f"{request.prefix} lines lines lines"
    return _obedient(request)


async def test_a_prompt_the_model_cannot_write_is_composed_openly() -> None:
    talk = await _talk(FakeEngine(_hopeless))
    assert "Even spiral lines on straight radial lines." in talk.prompts[0].prompt
    assert "Slanted lines that end on an edge." in talk.prompts[0].prompt
    assert "(Composed from what the cited facts look like: 2 attempts" in talk.turns[2].text
    assert talk.prompts[0].prompt.count(f"{_BRIEF.concept}.") == 1


async def test_a_composed_prompt_names_a_long_concept_by_its_head() -> None:
    long = f"A round filter membrane that {'very ' * 20}gently joins spider webs and leaf veins"
    talk = await _talk(FakeEngine(_hopeless), brief=_BRIEF.model_copy(update={"concept": long}))
    assert talk.prompts[0].prompt.startswith("A round filter membrane. ")
    assert "very" not in talk.prompts[0].prompt


async def test_a_trained_model_too_is_held_to_its_notes() -> None:
    harbour = (
        "Two wooden boats lie on calm water near a low stone pier at noon. Loops of rope and "
        "threads of tar hang from iron rings. A gull stands on a post before a web of clouds. "
        "Warm light, long shadows, blue distance."
    )

    def elsewhere(request: Generation) -> str:
        if request.prefix.endswith("Prompt:"):
            return f"{request.prefix} {harbour}"
        return _obedient(request)

    trained = load_team().without_examples()
    talk = await _talk(FakeEngine(elsewhere), team=trained)
    assert "boats" not in talk.prompts[0].prompt
    assert "strays from the notes" in talk.turns[2].text
    assert (await _talk(FakeEngine(_obedient), team=trained)).prompts[0].prompt == _PROMPT


async def test_every_sentence_of_a_prompt_begins_with_a_capital_whoever_wrote_it() -> None:
    low = f"{_PROMPT[0].lower()}{_PROMPT[1:]}".replace(". Thin", ". thin").replace(
        ". Dark", ". dark"
    )

    def careless(request: Generation) -> str:
        if request.prefix.endswith("Prompt:"):
            return f"{request.prefix} {low}"
        return _obedient(request)

    assert (await _talk(FakeEngine(careless))).prompts[0].prompt == _PROMPT

    nobody = Brief(concept="a net that sings. it hums", domains=())
    talk = await converse(
        nobody, engine_for=lambda model: FakeEngine(_hopeless),
        knowledge=Knowledge(_facts(), hashed_words), structure_for=lambda prompt, seed: None,
        render=_Studio(), team=load_team("single"),
    )  # fmt: skip
    assert "A net that sings. It hums." in talk.prompts[0].prompt


async def test_scores_are_means_over_the_probabilities_of_one_to_five() -> None:
    # The fake prefers option 4 with 0.8 and shares 0.2 among 1, 2, 3 and 5.
    talk = await _talk(FakeEngine(_obedient, favourite=3))
    expected = 0.8 * 4 + 0.05 * (1 + 2 + 3 + 5)
    assert talk.critiques[0].scores == {
        "depth": expected, "creativity": expected, "clarity": expected, "quantitative": expected
    }  # fmt: skip


async def test_events_come_in_the_order_things_happen() -> None:
    heard: list[Event] = []
    await _talk(FakeEngine(_obedient), on_event=heard.append)
    kinds = [type(event) for event in heard if not isinstance(event, Spoke)]
    assert kinds == [
        FactsFound, TurnStarted, TurnStarted, TurnEnded, TurnEnded, TurnStarted, TurnEnded,
        Prompted, Rendered, TurnStarted, TurnEnded, Critiqued, Stopped,
    ]  # fmt: skip


async def test_experts_speak_at_once() -> None:
    heard: list[Event] = []
    await _talk(FakeEngine(_obedient, delay_s=0.001), on_event=heard.append)
    indices = [event.index for event in heard if isinstance(event, Spoke) and event.index < 2]
    first_of_leaf, last_of_silk = indices.index(1), len(indices) - 1 - indices[::-1].index(0)
    assert first_of_leaf < last_of_silk


async def test_pieces_of_a_turn_make_up_its_text() -> None:
    heard: list[Event] = []
    talk = await _talk(FakeEngine(_obedient), on_event=heard.append)
    spoken = "".join(e.text for e in heard if isinstance(e, Spoke) and e.index == 2)
    assert spoken.split() == talk.turns[2].text.split()


async def test_stray_advice_is_replaced_by_a_standing_one_that_says_so() -> None:
    def stray(request: Generation) -> str:
        if request.prefix.endswith("Advice:"):
            return f"{request.prefix} My favourite football club plays tonight at home."
        return _obedient(request)

    talk = await _talk(FakeEngine(stray))
    assert "(standing advice on depth: the model gave none)" in talk.critiques[0].advice
    assert "football" not in talk.critiques[0].advice


async def test_a_number_that_the_critic_was_not_told_is_left_out_of_its_advice() -> None:
    sound = "Let the thick threads taper toward the margin of the blade."

    def inventive(request: Generation) -> str:
        if request.prefix.endswith("Advice:"):
            return f"{request.prefix} Pomelo skin absorbs 60 dB/cm against 25 of wood. {sound}"
        return _obedient(request)

    advice = (await _talk(FakeEngine(inventive))).critiques[0].advice
    assert "60" not in advice
    assert sound in advice


async def test_what_the_prompt_shows_is_not_avoided() -> None:
    def contrary(request: Generation) -> str:
        if request.prefix.endswith("Avoid:"):
            return f"{request.prefix} spiral threads, cars, smoke"
        return _obedient(request)

    talk = await _talk(FakeEngine(contrary))
    assert talk.prompts[0].negative_prompt == "cars, smoke"


async def test_a_second_round_revises_by_the_critics_advice() -> None:
    engine = FakeEngine(_obedient)
    brief = _BRIEF.model_copy(update={"targets": Targets(solid_fraction=0.3)})
    talk = await _talk(engine, brief=brief, studio=_Studio(0.6, 0.5), rounds=2)
    assert talk.prompts[1].prompt == f"{_REVISED} Thin lines with wide open gaps between them."
    revision = next(r for r in engine.requests if "Feedback:" in r.messages[-1].content)
    told = "Measured solid fraction 0.60, wanted about 0.30; make lines thinner"
    assert told in revision.messages[-1].content
    assert talk.stop_reason == "the bound of 2 rounds was reached; still off target: solid_fraction"


async def test_a_revision_the_model_cannot_write_adds_what_must_change_in_plain_shapes() -> None:
    def hopeless(request: Generation) -> str:
        revision = "Feedback:" in request.messages[-1].content
        return "Prompt: lines lines lines" if revision else _obedient(request)

    brief = _BRIEF.model_copy(update={"targets": Targets(solid_fraction=0.3)})
    talk = await _talk(FakeEngine(hopeless), brief=brief, studio=_Studio(0.6, 0.5), rounds=2)
    changed = f"{_PROMPT} Thin lines with wide open gaps between them."
    assert talk.prompts[1].prompt == changed
    assert (
        "(Kept the last prompt: 1 attempt was unusable (no whole sentence; " in talk.turns[4].text
    )
    assert "Added what the measurement asks for: Thin lines" in talk.turns[4].text


async def test_a_revision_that_only_moves_a_word_counts_as_none() -> None:
    def lazy(request: Generation) -> str:
        if "Feedback:" in request.messages[-1].content:
            return "Prompt: " + _PROMPT.replace("even gaps", "wide gaps")
        return _obedient(request)

    talk = await _talk(FakeEngine(lazy), rounds=2)
    assert talk.prompts[1].prompt == _PROMPT
    assert "(Kept the last prompt: 1 attempt was unusable (hardly changed)." in talk.turns[4].text


async def test_it_stops_when_nothing_improves() -> None:
    talk = await _talk(FakeEngine(_obedient), rounds=9)
    assert len(talk.prompts) == 3
    assert talk.stop_reason == (
        "no improvement in 2 rounds: version 0 is still the best, with mean score 3.75"
    )
    assert talk.best_version == 0


async def test_it_stops_when_it_is_good_enough() -> None:
    team = load_team()
    easy = team.model_copy(update={"stop": StopRule(level=3.5)})
    talk = await converse(
        _BRIEF, engine_for=lambda model: FakeEngine(_obedient),
        knowledge=Knowledge(_facts(), hashed_words), structure_for=lambda prompt, seed: None,
        render=_Studio(), rounds=9, team=easy,
    )  # fmt: skip
    assert talk.stop_reason == "the critic's mean score 3.75 reached 3.50"


async def test_the_same_seed_asks_the_same_and_another_seed_does_not() -> None:
    seeds = []
    for seed in (1, 1, 2):
        engine = FakeEngine(_obedient)
        await _talk(engine, brief=_BRIEF.model_copy(update={"seed": seed}))
        seeds.append(sorted(request.seed for request in engine.requests))
    assert seeds[0] == seeds[1] != seeds[2]
    assert len(set(seeds[0])) == len(seeds[0])


async def test_the_structure_is_asked_for_by_prompt_and_seed() -> None:
    asked = []

    def structure_for(prompt: str, seed: int) -> Structure | None:
        asked.append((prompt, seed))

    await converse(
        _BRIEF.model_copy(update={"seed": 5}), engine_for=lambda model: FakeEngine(_obedient),
        knowledge=Knowledge(_facts(), hashed_words), structure_for=structure_for, render=_Studio(),
    )  # fmt: skip
    assert asked == [(_PROMPT, 5)]


async def test_roles_with_one_model_share_its_engine() -> None:
    made = []

    def engine_for(model: str) -> FakeEngine:
        made.append(model)
        return FakeEngine(_obedient)

    await converse(
        _BRIEF, engine_for=engine_for, knowledge=Knowledge(_facts(), hashed_words),
        structure_for=lambda prompt, seed: None, render=_Studio(),
    )  # fmt: skip
    assert made == ["generalist"]


async def test_cancelling_the_task_stops_every_speaker_within_a_token() -> None:
    engine = FakeEngine(lambda request: "word " * 1_000, delay_s=0.01)
    task = asyncio.create_task(_talk(engine))
    while engine.words_given < 4:
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stopped_at = engine.words_given
    await asyncio.sleep(0.1)
    assert engine.words_given == stopped_at


async def test_a_models_failure_is_our_error_and_stops_the_other_experts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def failing(request: Generation) -> str:
        if "leaves" in request.messages[0].content:
            raise EngineError("wanted a token, the model is gone; load it again")
        return "word " * 1_000

    engine = FakeEngine(failing, delay_s=0.01)
    with pytest.raises(EngineError, match="the model is gone"):
        await _talk(engine)
    assert engine.words_given < 1_000
    assert "GroupChatError" not in caplog.text
    assert "Traceback" not in caplog.text


async def test_an_error_of_the_renderer_comes_through_unwrapped() -> None:
    async def full_disk(
        prompt: ImagePrompt, version: int
    ) -> tuple[tuple[Picture, ...], tuple[Measurement, ...]]:
        raise OutputError("wanted to write 0.png, the disk is full; free some space")

    with pytest.raises(OutputError, match="the disk is full"):
        await converse(
            _BRIEF, engine_for=lambda model: FakeEngine(_obedient),
            knowledge=Knowledge(_facts(), hashed_words), structure_for=lambda prompt, seed: None,
            render=full_disk,
        )  # fmt: skip


async def test_fewer_than_one_round_is_refused() -> None:
    with pytest.raises(UsageError, match="wanted at least 1 round, got 0"):
        await _talk(FakeEngine(), rounds=0)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_the_embedded_model_talks_usably_and_repeats_itself(base: TransformersEngine) -> None:
    talks = [
        await converse(
            Brief(concept="A roof that drains like leaf veins", domains=("leaf",), seed=3),
            engine_for=lambda model: base, knowledge=Knowledge(read_facts(), hashed_words),
            structure_for=lambda prompt, seed: None, render=_Studio(),
        )
        for _ in range(2)
    ]  # fmt: skip
    expert = talks[0].turns[0]
    assert all(cited_ids(sentence) for sentence in sentences(expert.text))
    assert len(expert.cited) == 3
    assert 15 <= len(talks[0].prompts[0].prompt.split()) <= 54
    assert all(1.0 < score < 5.0 for score in talks[0].critiques[0].scores.values())
    assert [turn.text for turn in talks[0].turns] == [turn.text for turn in talks[1].turns]


def test_importing_agents_loads_no_giant() -> None:
    code = (
        "import sys, agents\n"
        "loaded = {'torch', 'transformers', 'autogen_core', 'autogen_agentchat',"
        " 'sentence_transformers'} & set(sys.modules)\n"
        "print(*sorted(loaded))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "\n"


def test_the_engineer_is_told_the_first_principle_and_the_look() -> None:
    text = 'Set lines apart. [silk-0001] Tilt them. [silk-0002] It looks like a "web". [silk-0001]'
    assert note_of(text) == "Set lines apart. It looks like a web."


def test_a_clause_nobody_said_has_no_origin() -> None:
    said = {2: "Spiral threads cross.", 5: "Threads hang."}
    (origin,) = origins_of("Purple hats on chairs, cross spiral threads", said)
    assert (origin.phrase, origin.turn) == ("cross spiral threads", 2)
