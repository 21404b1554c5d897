"""Two branches side by side."""

from __future__ import annotations

from agents.comparison import Comparison, compare
from agents.steering import branch, edit, inject


async def test_a_conversation_compared_with_itself_differs_in_nothing(table):
    whole = await table.resume(table.begin())
    again = await table.resume(branch(whole, 3))
    both = compare(whole, again)
    assert both.shared == len(both.steps) == len(whole.steps)
    assert all(word.change == "same" for prompt in both.prompts for word in prompt.words)
    assert all(drawn.settings == {} and drawn.same_seeds for drawn in both.drawn)


async def test_branches_are_aligned_step_by_step_and_what_one_alone_has_stands_alone(table):
    whole = await table.resume(table.begin())
    told = await table.resume(inject(branch(whole, 3), "Wide gaps"))
    both = compare(whole, told)
    assert both.shared == 3
    names = [(pair.name, pair.a is None, pair.b is None) for pair in both.steps]
    assert names[:5] == [
        ("facts", False, False),
        ("spider_silk_expert", False, False),
        ("leaf_expert", False, False),
        ("remark", True, False),
        ("prompt, version 0", False, False),
    ]
    assert (both.a, both.b) == (whole.id, told.id)


async def test_words_settings_and_measurements_of_a_changed_prompt_stand_side_by_side(table):
    whole = await table.resume(table.begin(rounds=1))
    other = await table.resume(edit(branch(whole, 4), 2, "A red net on black."))
    both = compare(whole, other)
    (prompt,) = both.prompts
    assert prompt.b == "A red net on black."
    assert "".join(word.text for word in prompt.words if word.change != "removed") == prompt.b
    assert "".join(word.text for word in prompt.words if word.change != "added") == prompt.a
    (drawn,) = both.drawn
    assert drawn.same_seeds
    assert drawn.settings == {"prompt": (prompt.a, prompt.b)}
    ours, theirs = drawn.measured["solid_fraction"]
    assert ours != theirs


async def test_a_version_that_one_has_not_reached_is_none_there(table):
    whole = await table.resume(table.begin())
    both = compare(whole, branch(whole, 4))
    assert [prompt.b is None for prompt in both.prompts] == [False, True]
    assert both.stop_reasons == (whole.stop_reason, "")
    assert Comparison.model_validate_json(both.model_dump_json()) == both
