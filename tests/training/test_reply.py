"""The reader of one-word replies, against a table of what models really write."""

from __future__ import annotations

import pytest

from training.benchmark import Question
from training.reply import read_reply

RESIDUES = Question(
    id="q",
    domain="d",
    type="mc",
    category="c",
    question="Which?",
    options=("Tyrosine", "Alanine", "Proline", "Glutamine"),
    answer=1,
)
AMOUNTS = RESIDUES.model_copy(
    update={"options": ("About 1.5", "About 150", "15 %", "A thin layer of wax")}
)
NESTED = RESIDUES.model_copy(
    update={"options": ("Silk", "Wet silk", "Vitamin C", "Collagen and silk")}
)
CLAIM = RESIDUES.model_copy(update={"type": "tf", "options": ("True", "False"), "answer": 0})

LETTERS = {
    "B": 1,
    "b": 1,
    " B\n": 1,
    "B.": 1,
    "b)": 1,
    "(B)": 1,
    "( b )": 1,
    "[C]": 2,
    "{d}": 3,
    "**B**": 1,
    "**C.** Proline": 2,
    "`D`": 3,
    '"B"': 1,
    "“B”": 1,
    "Ｂ": 1,
    "Ⓒ": 2,
    "B) Alanine": 1,
    "B: Alanine": 1,
    "B - Alanine": 1,
    "B, Alanine": 1,
    "B Alanine": 1,
    "B, a small residue": 1,
    "A Tyrosine": 0,
    "A. Tyrosine is": 0,
    "B. It is better than A.": 1,
    "B because it is small": 1,
    "A is correct": 0,
    "A because the others are larger": 0,
    "A": 0,
    "A.": 0,
    "Option D": 3,
    "option d": 3,
    "Letter: C": 2,
    "Answer: B": 1,
    "answer is c.": 2,
    "Answer:\nB": 1,
    "The answer is (C)": 2,
    "The correct answer is B.": 1,
    "The correct option is: **D**": 3,
    "The correct answer would be C, because A and B are wrong": 2,
    "I would choose (A)": 0,
    "I'd go with option D": 3,
    "I think it's C": 2,
    "Well, B": 1,
    "It is not A, it is C.": 2,
    "The best choice is B (Alanine)": 1,
    "Sure! The answer is B": 1,
    "<|im_start|>B<|im_end|>": 1,
    "$\\boxed{C}$": 2,
    "Final answer: D.": 3,
    "B\n\nExplanation: Alanine is small": 1,
    "A\nA\nA": 0,
    # the words of an option
    "Alanine": 1,
    "alanine.": 1,
    "the proline": 2,
    "It is Alanine": 1,
    "The residue is glutamine, which is polar": 3,
    "not tyrosine but proline": 2,
}
NO_LETTER = [
    "",
    "   ",
    "...",
    "A or B",
    "A and C",
    "A, B",
    "A/B",
    "B & D",
    "A. Tyrosine\nB. Alanine\nC. Proline",
    "A) Tyrosine B) Alanine",
    "The answer is A or B",
    "Option A and option B",
    "Neither A nor B",
    "Not B",
    "E",
    "Option F",
    "None of the above",
    "N/A",
    "A spider makes it",
    "I do not know",
    "i.e. it depends",
    "Yes",
    "True",
    "2",
    "Alanine or proline",
    "A. Alanine",
    "**B)** proline.\n\nThe answer",
    "Which residue should be lengthened in a",
    "Spider silk is a strong fibre that",
    "It's hard to say.",
]
TRUTHS = {
    "True": 0,
    "true.": 0,
    "TRUE": 0,
    "**True**": 0,
    "T": 0,
    "(T)": 0,
    "F": 1,
    "f.": 1,
    "False": 1,
    "false\n": 1,
    "False. It is true that silk is strong, but": 1,
    "True, because the false ones are weak": 0,
    "Answer: False": 1,
    "The answer is True.": 0,
    "The statement is true": 0,
    "The statement is false": 1,
    "This statement is not true.": 1,
    "That isn't true": 1,
    "It is not a true statement": 1,
    "It isn’t false": 0,
    "untrue": 1,
    "Yes": 0,
    "yes, it does": 0,
    "No.": 1,
    "No, that is not true": 1,
    "Correct": 0,
    "Incorrect": 1,
    "That is right": 0,
    "That's wrong": 1,
    "The claim is not correct": 1,
    "Yes, that is true.": 0,
    "I am not sure, but it is true": 0,
    "<|im_start|>True<|im_end|>": 0,
}
NO_TRUTH = [
    "",
    "True or false?",
    "True/False",
    "It is true or false",
    "Neither true nor false",
    "It depends",
    "There is no evidence",
    "Silk is strong",
    "A",
    "Maybe.",
    "I don't know",
]


@pytest.mark.parametrize(("reply", "option"), LETTERS.items())
def test_a_reply_that_means_one_option_is_read_as_it(reply, option):
    assert read_reply(reply, RESIDUES) == option


@pytest.mark.parametrize("reply", NO_LETTER)
def test_a_reply_that_means_no_option_or_several_is_unparsable(reply):
    assert read_reply(reply, RESIDUES) is None


@pytest.mark.parametrize(("reply", "option"), TRUTHS.items())
def test_a_reply_to_a_claim_is_read_with_its_negation(reply, option):
    assert read_reply(reply, CLAIM) == option


@pytest.mark.parametrize("reply", NO_TRUTH)
def test_a_reply_that_calls_a_claim_neither_or_both_is_unparsable(reply):
    assert read_reply(reply, CLAIM) is None


@pytest.mark.parametrize(
    ("reply", "option"),
    {"about 150": 1, "About 1.5.": 0, "15%": 2, "It is 15 %": 2, "a thin layer of wax": 3}.items(),
)
def test_numbers_are_told_apart_whole(reply, option):
    assert read_reply(reply, AMOUNTS) == option


@pytest.mark.parametrize(
    ("reply", "option"),
    {"It is wet silk": 1, "silk": 0, "Vitamin C": 2, "I mean collagen and silk": 3}.items(),
)
def test_an_option_within_another_does_not_count_beside_it(reply, option):
    assert read_reply(reply, NESTED) == option


def test_the_table_has_the_sixty_replies_it_is_meant_to_have():
    assert len(LETTERS) + len(NO_LETTER) + len(TRUTHS) + len(NO_TRUTH) >= 60
