"""The engineer's choice among motifs, and how a structure seed goes through a conversation."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from agents import Conversation, Knowledge, converse, load_team
from agents.advice import Advice
from agents.claims import sentences
from agents.engineer import _chosen, _opened, choose_family, framed
from agents.fake import FakeEngine, hashed_words
from agents.generation import Generation, Message
from agents.knowledge import Fact
from agents.roles import StopRule
from agents.seeing import names_colour
from orbweave.records import (
    SCALES,
    Brief,
    ImagePrompt,
    Measurement,
    Motif,
    Picture,
    Scale,
    Structure,
    Targets,
)

NEAR = {
    "orb_web": "a round net of radial lines",
    "cobweb": "a loose tangle of lines",
    "gyroid": "smooth round channels",
}
FIELDS = {"concept": "A net", "scale": "component", "notes": "- spider-silk: Radial lines."}
FACT = Fact(
    id="silk-0001", domain="spider-silk", topic="structure",
    statement="Spiral threads of a web cross radial threads at even gaps.", quantity=None,
    visual="Even spiral lines on straight radial lines.", source_title="A page",
    source_url="https://example.org",
)  # fmt: skip
PROMPTS = (
    "Close view of a pale membrane with thick radial threads from one corner, seen from above. "
    "Thin spiral threads cross them at even gaps. Dark green background, soft even light.",
    "Wide view of a golden net with straight radial lines that meet in the middle of a sheet. "
    "Spiral threads run around them and hold small round drops. Black background, sharp focus.",
    "Straight section of a silver web whose radial threads are doubled near the outer margin. "
    "Every second spiral thread is left out, so large gaps stay open. Navy ground, cool light.",
)


class _Weighs:
    """A voice that finds an option likely if the question asks for what it shows."""

    n_tokens = 0

    def __init__(self) -> None:
        self.asked: list[Sequence[Message]] = []

    async def weigh(self, messages: Sequence[Message], options: Sequence[str]) -> list[float]:
        self.asked.append(messages)
        question = messages[-1].content.lower()
        # Long options are unlikely as such; what the notes say makes them less so.
        return [-float(len(o)) + 9 * ("radial" in o and "radial" in question) for o in options]

    async def say(self, job: Any) -> Any:
        raise AssertionError("it only weighs")

    def remark(self, text: str) -> None:
        raise AssertionError("it only weighs")


async def test_the_model_chooses_the_motif_its_notes_make_most_likely() -> None:
    assert await choose_family(_Weighs(), load_team(), FIELDS, NEAR) == "orb_web"


async def test_with_one_motif_or_none_the_model_is_not_asked() -> None:
    voice = _Weighs()
    assert await choose_family(voice, load_team(), FIELDS, {"gyroid": "channels"}) == "gyroid"
    assert await choose_family(voice, load_team(), FIELDS, {}) is None
    assert voice.asked == []


def test_what_no_picture_shows_is_no_look_of_an_expert() -> None:
    absorbed = "Leaves typically absorb about 85 percent of incident light between 400 and 700 nm"
    told = f'Let light in. [leaf-0001] In nature one sees: "{absorbed}." [leaf-0001]'
    assert Advice(0, told, ()).looks == []
    bent = ("Fibres of 2 µm bend by 30 degrees", "Walls of 5 GPa")
    assert Advice(0, told, bent).looks == ["Fibres of 2 µm bend by 30 degrees."]


@dataclass
class _Loom:
    """A geometry whose thickness is its solid fraction, and a studio that draws it too solid."""

    strength: float = 0.6
    too_solid: tuple[float, ...] = (0.2, 0.2, 0.2, 0.2)
    drawn: list[ImagePrompt] = field(default_factory=list)

    def nearest(self, words: str, wanted: Targets) -> Mapping[str, str]:
        return NEAR

    def look(self, family: str) -> str:
        return NEAR.get(family, "")

    def choose(self, words: str, seed: int, family: str | None) -> Structure | None:
        return Structure(motifs=(Motif(family=family or "none", thickness=0.3),), seed=seed)

    def measure(self, structure: Structure) -> Targets:
        return Targets(solid_fraction=structure.motifs[0].thickness)

    def lasting(self, structure: Structure) -> Targets:
        return self.measure(structure)

    def fit(self, structure: Structure, aims: Targets) -> Structure:
        motif = structure.motifs[0].model_copy(update={"thickness": aims.solid_fraction})
        return structure.model_copy(update={"motifs": (motif,)})

    def dress(self, structure: Structure, words: str) -> Structure:
        return structure

    async def render(
        self, prompt: ImagePrompt, version: int
    ) -> tuple[tuple[Picture, ...], tuple[Measurement, ...]]:
        self.drawn.append(prompt)
        assert prompt.structure is not None
        solid = prompt.structure.motifs[0].thickness + self.too_solid[version]
        measured = Measurement(
            picture=f"{version}.png", solid_fraction=solid, direction_deg=None, anisotropy=0.1,
            spacing_px=None, contrast=0.2,
        )  # fmt: skip
        return (), (measured,)


class _Obedient:
    """Answers every form as a good model would, each revision in new words."""

    def __init__(self) -> None:
        self.revisions = 0

    def __call__(self, request: Generation) -> str:
        question = request.messages[-1].content
        if "What should the design take" in question:
            return question.split("- ", 1)[1].splitlines()[0]
        if "Seen in nature" in question:
            return f"In plain shapes: {question.split('- ', 1)[1].splitlines()[0].lower()}"
        if request.prefix == "Title:":
            return "Title: Web"
        if request.prefix.endswith("Prompt:"):
            self.revisions += "Feedback:" in question
            turn = (self.revisions + 1) % 2 + 1 if self.revisions else 0
            return f"{request.prefix} {PROMPTS[turn]}"
        if request.prefix.endswith("Avoid:"):
            return f"{request.prefix} cars, smoke"
        return f"{request.prefix} Let the radial threads taper toward the margin of the membrane."


class _Hopeless(_Obedient):
    """Never writes a prompt."""

    def __call__(self, request: Generation) -> str:
        if request.prefix.endswith("Prompt:"):
            return f"{request.prefix} lines lines lines"
        return super().__call__(request)


async def _talk(
    loom: _Loom,
    rounds: int = 3,
    wanted: Targets | None = None,
    model: Callable[[Generation], str] | None = None,
    scale: Scale = "microstructure",
    concept: str = "A membrane of radial and spiral threads",
) -> Conversation:
    brief = Brief(
        concept=concept,
        scale=scale,
        domains=("spider-silk",),
        targets=wanted or Targets(),
        seed=4,
    )
    engine = FakeEngine(model or _Obedient(), favourite=0)
    team = load_team().model_copy(update={"stop": StopRule(solid_fraction=0.05)})
    return await converse(
        brief, engine_for=lambda model: engine, knowledge=Knowledge([FACT], hashed_words),
        structure_for=loom, render=loom.render, rounds=rounds, team=team,
    )  # fmt: skip


async def test_a_first_prompt_states_its_structure_and_what_it_should_measure() -> None:
    talk = await _talk(_Loom(), rounds=1)
    (prompt,) = talk.prompts
    assert prompt.structure is not None
    assert (prompt.structure.motifs[0].family in NEAR, prompt.structure.seed) == (True, 4)
    assert prompt.targets == Targets(solid_fraction=0.3)
    assert "\nStructure: " in talk.turns[1].text
    assert talk.turns[1].text.endswith("To measure: solid fraction 0.30.")


async def test_the_loop_draws_thinner_what_came_out_too_solid_and_stops_at_the_target() -> None:
    loom = _Loom()
    talk = await _talk(loom)
    thickness = [p.structure.motifs[0].thickness for p in loom.drawn if p.structure]
    assert thickness == pytest.approx([0.3, 0.1])
    assert [critique.distance for critique in talk.critiques] == [4.0, 0.0]
    assert talk.stop_reason == "the measured targets are met"
    assert talk.best_version == 1
    change = (
        "Thickness from 0.30 to 0.10 of the spacing: the picture measured solid fraction 0.50 "
        "where solid fraction 0.30 is wanted."
    )
    assert talk.prompts[1].changes == (change,)
    assert change in talk.turns[3].text
    assert talk.prompts[1].revises == 0


async def test_what_a_person_wants_is_fitted_before_the_first_picture() -> None:
    talk = await _talk(_Loom(too_solid=(0.0,)), wanted=Targets(solid_fraction=0.6))
    assert len(talk.prompts) == 1
    assert talk.critiques[0].measured["solid_fraction"] == pytest.approx(0.6)


async def test_a_worse_round_is_not_the_result_and_the_next_one_starts_from_the_best() -> None:
    loom = _Loom(too_solid=(0.06, 0.6, 0.05))
    talk = await _talk(loom)
    assert [prompt.revises for prompt in talk.prompts] == [None, 0, 0]
    thickness = [p.structure.motifs[0].thickness for p in loom.drawn if p.structure]
    assert thickness == pytest.approx([0.3, 0.24, 0.27])  # half the step, after a whole one failed
    assert talk.best_version == 2


async def test_a_prompt_that_does_not_say_the_thing_begins_with_it_in_revisions_too() -> None:
    class Netting(_Obedient):
        def __call__(self, request: Generation) -> str:
            if request.prefix.endswith("Prompt:"):
                is_revision = "Feedback:" in request.messages[-1].content
                return f"{request.prefix} {open_sheet if is_revision else sheet}"
            return super().__call__(request)

    sheet = PROMPTS[0].replace("membrane", "sheet")
    open_sheet = (
        "Wide view of a pale sheet with thin radial threads from one corner, seen from above. Few "
        "spiral threads cross them at wide gaps and leave most of it open. Dark green background, "
        "soft even light."
    )
    thing = "A membrane of radial and spiral threads."
    talk = await _talk(_Loom(), rounds=2, model=Netting())
    first, second = (prompt.prompt for prompt in talk.prompts)
    assert first.startswith(f"{thing} {sheet}")
    assert second.startswith(f"{thing} {open_sheet}")
    assert first.count(thing) == second.count(thing) == 1
    assert f"Began with the thing itself: {thing}" in talk.turns[1].text
    assert talk.turns[1].checks
    assert thing not in [check.sentence for check in talk.turns[1].checks]


async def test_what_an_expert_only_said_does_not_stand_for_its_fact() -> None:
    bare = (
        "Close view of a pale membrane whose radial ribs leave one corner, seen from above. Small "
        "round drops hang on every rib, far apart, and a margin runs around them. Dark green "
        "background, soft even light, crisp edges."
    )

    class Ribbed(_Obedient):
        def __call__(self, request: Generation) -> str:
            if request.prefix.endswith("Prompt:"):
                return f"{request.prefix} {bare}"
            return super().__call__(request)

    talk = await _talk(_Loom(), rounds=1, model=Ribbed())
    assert FACT.visual is not None
    assert f"{bare} {FACT.visual}" in talk.prompts[0].prompt
    assert f"Added what was missing: {FACT.visual}" in talk.turns[1].text


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        ("Pale cords lie side by side.", "A knee implant. Pale cords lie side by side."),
        ("Cords on an implant for a knee.", "Cords on an implant for a knee."),
        ("Pale cords. A knee implant. Light.", "A knee implant. Pale cords. Light."),
    ],
)
def test_the_thing_is_said_once_and_in_front(prompt: str, opened: str) -> None:
    assert _opened(prompt, "a knee implant")[0] == opened
    assert _opened(opened, "a knee implant") == (opened, ())


def test_a_thing_nobody_can_name_or_see_opens_nothing() -> None:
    assert _opened("Pale cords.", "") == ("Pale cords.", ())
    assert _opened("Pale cords.", "a cord of 5 GPa") == ("Pale cords.", ())


async def test_the_frames_own_sentences_are_not_checked_as_claims() -> None:
    talk = await _talk(_Loom(), rounds=1, model=_Hopeless())
    palette = load_team().palette
    claimed = [check.sentence for check in talk.turns[1].checks]
    assert FACT.visual in claimed
    assert palette.close in talk.prompts[0].prompt
    assert not palette.sentences & set(claimed)


@pytest.mark.parametrize("scale", SCALES)
async def test_a_composed_prompt_is_seen_and_coloured_as_its_scale_is(scale: Scale) -> None:
    talk = await _talk(_Loom(), rounds=1, model=_Hopeless(), scale=scale)
    palette = load_team().palette
    said = {*sentences(talk.prompts[0].prompt)}
    assert len(said & {*palette.views[scale]}) == 1
    assert len(said & {*palette.colours[scale]}) == 1
    assert said & {*palette.leads.values()} == {*filter(None, [palette.leads.get(scale)])}


@pytest.mark.parametrize(
    ("concept", "once"),
    [
        ("A wall panel, red on navy", "red on navy"),
        ("A wall panel, red on navy, which lasts 40 years and bears 300 MPa", "Red on navy."),
        ("A teal wall panel", "teal"),
    ],
)
async def test_a_composed_prompt_has_the_colours_of_its_concept_once(
    concept: str, once: str
) -> None:
    talk = await _talk(_Loom(), rounds=1, model=_Hopeless(), concept=concept)
    prompt = talk.prompts[0].prompt
    assert prompt.count(once) == 1
    assert not {*sentences(prompt)} & {*load_team().palette.colours["microstructure"]}
    assert not any(names_colour(check.sentence) for check in talk.turns[1].checks)


async def test_a_written_prompt_without_colours_is_given_those_of_its_concept() -> None:
    bare = (
        "Close view of a wall panel with thick radial threads from one corner, seen from above. "
        "Thin spiral threads cross them at even gaps and hold small round drops of clear glue. "
        "Even soft light, crisp edges."
    )

    class _Bare(_Obedient):
        def __call__(self, request: Generation) -> str:
            if request.prefix.endswith("Prompt:"):
                return f"{request.prefix} {bare}"
            return super().__call__(request)

    concept = "A wall panel, red on navy, which lasts 40 years and bears 300 MPa"
    talk = await _talk(_Loom(), rounds=1, model=_Bare(), concept=concept)
    assert talk.prompts[0].prompt.endswith("Red on navy.")


def test_the_whole_concept_and_its_head_are_of_the_frame() -> None:
    names = {"A knee implant for a runner.", "A knee implant."}
    assert names <= framed(load_team(), "a knee implant for a runner")


@dataclass
class _Dyed(_Loom):
    """A loom that dresses in the first colour of the words, and pictures of so much contrast."""

    contrast: float = 0.2

    def choose(self, words: str, seed: int, family: str | None) -> Structure | None:
        structure = super().choose(words, seed, family)
        return self.dress(structure, words) if structure else None

    def dress(self, structure: Structure, words: str) -> Structure:
        found = re.search(r"golden|silver|pale|ivory|amber|white|rust", words.lower())
        return structure.model_copy(update={"look": f"{found[0] if found else 'grey'} on black"})

    async def render(
        self, prompt: ImagePrompt, version: int
    ) -> tuple[tuple[Picture, ...], tuple[Measurement, ...]]:
        pictures, (measured,) = await super().render(prompt, version)
        return pictures, (measured.model_copy(update={"contrast": self.contrast}),)


def _looks(loom: _Loom) -> list[str]:
    return [prompt.structure.look for prompt in loom.drawn if prompt.structure]


async def test_a_prompt_that_does_not_say_what_is_drawn_has_it_added() -> None:
    talk = await _talk(_Loom(), rounds=1)
    assert talk.prompts[0].prompt == f"{PROMPTS[0]} A round net of radial lines."
    assert "(Added what is drawn: A round net of radial lines.)" in talk.turns[1].text


async def test_a_correction_is_drawn_in_the_colours_of_the_picture_that_missed() -> None:
    loom = _Dyed()
    talk = await _talk(loom, rounds=2)
    second = talk.prompts[1].prompt
    pale, _, dark = sentences(PROMPTS[0])
    drops = sentences(PROMPTS[1])[1]  # all that the model's own sentences say without a colour
    assert second == f"{pale} {drops} {dark} Thin lines with wide open gaps between them."
    assert "Kept the colours that were measured." in talk.turns[3].text
    assert _looks(loom) == ["pale on black"] * 2
    assert talk.stop_reason == "the measured targets are met"


async def test_other_colours_are_not_taken_where_those_measured_leave_too_little_to_say() -> None:
    class Brief(_Obedient):
        def __call__(self, request: Generation) -> str:
            if "Feedback:" in request.messages[-1].content:
                return f"{request.prefix} A golden net of spiral threads with silver drops."
            return super().__call__(request)

    loom = _Dyed()
    talk = await _talk(loom, rounds=2, model=Brief())
    first, second = talk.prompts
    assert second.prompt == f"{first.prompt} Thin lines with wide open gaps between them."
    assert "(Kept the last prompt: 1 attempt was unusable (" in talk.turns[3].text
    assert _looks(loom) == ["pale on black"] * 2


async def test_what_an_overshot_correction_asked_for_is_not_asked_for_any_more() -> None:
    loom = _Dyed(too_solid=(0.2, 0.1, 0.15))
    talk = await _talk(loom)
    thin, thick = "Thin lines with wide open gaps", "Thick lines with narrow gaps"
    assert [thin in prompt.prompt for prompt in talk.prompts] == [False, True, False]
    assert [thick in prompt.prompt for prompt in talk.prompts] == [False, False, True]
    # Between .30 drawn, .50 measured, and .10 drawn, .20 measured.
    thickness = [p.structure.motifs[0].thickness for p in loom.drawn if p.structure]
    assert thickness == pytest.approx([0.3, 0.1, 0.1 + 0.2 / 3])
    assert talk.stop_reason == "the measured targets are met"


async def test_a_faint_picture_is_drawn_anew_in_other_colours() -> None:
    golden = (
        "View of a golden membrane from above, whose thin radial threads leave one corner. Spiral "
        "threads cross them, few of them, at wide even gaps. Dark background, even light."
    )

    class Gilding(_Obedient):
        def __call__(self, request: Generation) -> str:
            is_revision = "Feedback:" in request.messages[-1].content
            return f"{request.prefix} {golden}" if is_revision else super().__call__(request)

    loom = _Dyed(contrast=0.1, too_solid=(0.2, 0.0))
    talk = await _talk(loom, rounds=2, model=Gilding())
    assert _looks(loom) == ["pale on black", "golden on black"]
    # What the pale one missed says nothing of the golden one.
    thickness = [p.structure.motifs[0].thickness for p in loom.drawn if p.structure]
    assert thickness == pytest.approx([0.3, 0.3])
    assert talk.prompts[1].changes == ("Colours from pale on black to golden on black.",)
    assert talk.stop_reason == "the measured targets are met"


async def test_a_sentence_of_the_frame_is_drawn_by_likelihood_but_never_always_the_same() -> None:
    class Sure:
        async def weigh(self, messages: Sequence[Message], options: Sequence[str]) -> list[float]:
            is_asked = "none" not in messages[-1].content
            return [9.0 * i * is_asked - len(option) for i, option in enumerate(options)]

    form, fields = load_team().prompt, {"concept": "A web", "scale": "urban", "notes": "- threads"}
    options = ("One.", "Two words.", "Three words here.")
    drawn = [await _chosen(Sure(), form, fields, options, seed) for seed in range(300)]  # type: ignore[arg-type]
    assert 15 < drawn.count("One.") < drawn.count("Two words.") < drawn.count("Three words here.")


async def test_where_the_model_finds_no_other_colours_the_palette_has_some() -> None:
    loom = _Dyed(contrast=0.1, too_solid=(0.2, 0.0))
    talk = await _talk(loom, rounds=2, model=_Hopeless())
    first, second = _looks(loom)
    assert first != second
    assert "Recoloured it: solid and void were too near in brightness." in talk.turns[3].text
    colours = [
        c for c in load_team().palette.colours["microstructure"] if c in talk.prompts[1].prompt
    ]
    assert len(colours) == 1
    assert colours[0] not in talk.prompts[0].prompt
