"""What a prompt lacks of its experts, and what gives way where there is no room for it."""

from __future__ import annotations

from agents.advice import MAX_WORDS, Advice, completed, is_heard, origins_of
from agents.claims import sentences
from agents.engineer import Draft, with_motif

SILK = Advice(0, "Hang spiral threads on radial threads. [silk-0001]", ("Even spiral threads",))
LEAF = Advice(1, "Let side veins end on the margin. [leaf-0001]", ("Slanted veins on a margin",))
WEB = "A pale round web of spiral threads on radial threads hangs in a dark frame."


def _heard(prompt: str) -> set[int]:
    return {o.turn for o in origins_of(prompt, {a.turn: a.words for a in (SILK, LEAF)})}


def test_a_look_of_an_expert_nobody_hears_is_what_a_prompt_lacks() -> None:
    long = f"{WEB} Soft light falls from above upon a table, where a cup, a plate and a spoon lie."
    assert completed(long, [SILK, LEAF]) == (long, ["Slanted veins on a margin."])


def test_for_it_the_last_sentence_that_nobody_is_missed_for_gives_way() -> None:
    plain = [f"Cup number {word} stands there on a table with nine plates." for word in
             ("two", "four", "six", "eight", "ten", "twelve", "twenty", "thirty")]  # fmt: skip
    full = " ".join(["A wooden tray.", *plain, WEB])
    assert len(full.split()) <= MAX_WORDS < len(full.split()) + 5
    kept, added = completed(full, [SILK, LEAF])
    assert added == ["Slanted veins on a margin."]
    assert sentences(kept) == ("A wooden tray.", *plain[:-1], WEB)
    assert _heard(" ".join([kept, *added])) == {0, 1}


def test_the_only_colour_does_not_give_way() -> None:
    plain = [f"Cup number {word} stands there on a table with nine plates." for word in
             ("two", "four", "six", "eight", "ten", "twelve", "twenty", "thirty")]  # fmt: skip
    full = " ".join(["A tray.", *plain, "Spiral threads on radial threads.", "A red margin."])
    kept, _ = completed(full, [SILK, LEAF], ["Thick lines with narrow gaps between them there."])
    assert kept.endswith("A red margin.")
    assert plain[-1] not in kept


def test_of_two_looks_the_one_by_which_its_expert_is_heard_is_taken() -> None:
    shared = Advice(1, "Margins.", ("Spiral threads", "Slanted veins on a margin"))
    long = f"{WEB} Soft light falls from above upon a table, where a cup, a plate and a spoon lie."
    assert completed(long, [SILK, shared])[1] == ["Slanted veins on a margin."]


CORDS = "A rod filled with many tiny dark streaks all pointing along its length"
MINERAL = "Crystals inside bone fibrils are aligned along the fibril"


def test_an_expert_that_cites_facts_is_heard_by_these_and_not_by_what_it_said() -> None:
    said = "Align the cords in one direction. [coll-0078]"
    prompt = (
        "A red plate with aligned cords in one direction lies on a table, where a cup, a plate, a "
        "fork, a knife and a spoon stand in soft light that falls from above."
    )
    bone = Advice(0, said, (CORDS,), (MINERAL,), (f"{MINERAL}. {CORDS}.",))
    assert completed(prompt, [bone]) == (prompt, [f"{CORDS}."])
    assert completed(prompt, [Advice(0, said, ())]) == (prompt, [])


def test_to_name_the_thing_is_not_to_hear_an_expert() -> None:
    thing = "A row of tiny dark streaks"
    prompt = (
        f"{thing}. A red plate lies on a table, where a cup, a plate, a fork, a knife and a spoon "
        "stand in soft light that falls from above upon a cloth."
    )
    bone = Advice(0, "Align. [coll-0078]", (CORDS,), (), (f"{CORDS}.",))
    assert completed(prompt, [bone], (), thing)[1] == [f"{CORDS}."]
    assert completed(prompt, [bone])[1] == []


def test_where_no_look_would_be_heard_what_a_fact_states_is_added() -> None:
    long = f"{WEB} Soft light falls from above upon a table, where a cup, a plate and a spoon lie."
    scattered = "Rods, streaks, plates, dots"
    bone = Advice(0, "Align. [coll-0078]", (scattered,), (MINERAL,), (f"{MINERAL}. {scattered}.",))
    assert completed(long, [bone])[1] == [f"{MINERAL}."]
    sized = Advice(0, "Align. [coll-0078]", (), ("Walls of 5 GPa are stiff",), ("Stiff walls.",))
    assert completed(long, [sized])[1] == []  # no picture shows it


def test_words_of_a_fact_are_counted_within_a_clause() -> None:
    assert is_heard("A cat, tiny streaks in a rod.", [CORDS])
    assert not is_heard("A rod, a cat; streaks.", [CORDS])
    assert not is_heard("A rod with streaks.", [])


def test_the_only_sentence_that_says_the_thing_does_not_give_way() -> None:
    plain = [f"Cup number {word} stands there on a table with nine plates." for word in
             ("two", "four", "six", "eight", "ten", "twelve", "twenty", "thirty")]  # fmt: skip
    full = " ".join(["A tray in red.", *plain, "A knee implant with spiral threads on threads."])
    also = ["Thick lines with narrow gaps between them there.", "Offset plates, some broken."]
    bare, _ = completed(full, [], also)
    kept, _ = completed(full, [], also, "A knee implant surface")
    assert "knee" not in bare
    assert kept.endswith("A knee implant with spiral threads on threads.")


def test_a_look_that_compares_a_thing_with_itself_is_none() -> None:
    assert Advice(0, "Wide.", ("A wheel twice as wide as wide",)).looks == []


def test_a_draft_that_does_not_say_what_is_drawn_is_given_a_look_of_it() -> None:
    draft = Draft("Plate", "A clear plate with two large dots and a grid of strings.", "text", "")
    foam = {"trabecular_foam": "rounded struts branching around open pores"}
    named = with_motif(draft, foam, [])
    assert named.prompt == f"{draft.prompt} Rounded struts branching around open pores."
    assert named.note == "Added what is drawn: Rounded struts branching around open pores."


def test_a_draft_that_says_one_motif_of_two_stays_as_it_is() -> None:
    draft = Draft("Net", "A round net of strings.", "text", "")
    seen = {"gyroid": "curved walls", "orb_web": "a round net of radial lines"}
    assert with_motif(draft, seen, []) is draft
    assert with_motif(draft, {}, []) is draft
