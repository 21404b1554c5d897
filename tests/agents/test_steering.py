"""A person's hand in a conversation: pause, resume, say, edit, re-roll, choose, branch."""

from __future__ import annotations

import asyncio

import pytest

from agents.conversation import conversation_of
from agents.events import FactsFound, Spoke, TurnEnded, TurnStarted
from agents.state import AdviceStep, PicturesStep, PromptStep, State, read_state, write_state
from agents.steering import EDITED, branch, choose, edit, inject, reroll, siblings
from orbweave.errors import UsageError

KINDS = ["facts", "advice", "advice", "prompt", "pictures", "critique"]


def _kinds(state: State) -> list[str]:
    return [step.kind for step in state.steps]


async def _after(table, n_steps: int, **begun) -> State:
    """Return the state after so many steps of a conversation."""
    await table.resume(table.begin(**begun))
    return next(state for state in table.kept if len(state.steps) == n_steps)


async def _cut(table, begun: State, n: int) -> State:
    """Cancel a conversation at its n-th event and return what was kept of it."""

    def stop_at_n(event: object) -> None:
        if len(table.heard) == n:
            task.cancel()

    task = asyncio.ensure_future(table.resume(begun, on_event=stop_at_n))
    with pytest.raises(asyncio.CancelledError):
        await task
    return table.kept[-1]


async def test_every_step_is_kept_and_so_is_the_end(table):
    state = await table.resume(table.begin())
    assert _kinds(state) == [*KINDS, *KINDS[3:]]
    assert [len(kept.steps) for kept in table.kept] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 9]
    assert [kept.outcome for kept in table.kept] == ["under way"] * 9 + ["finished"]
    assert state.why.startswith("the bound of 2 rounds was reached")


async def test_cut_after_any_step_it_goes_on_to_the_same_end(table, bare, tmp_path):
    whole = await table.resume(table.begin())
    beginnings = list(table.kept)
    for beginning in beginnings:
        write_state(beginning, tmp_path / "state.json")
        again = await table.resume(read_state(tmp_path / "state.json"))
        assert bare(again) == bare(whole), len(beginning.steps)


async def test_cut_in_the_middle_of_any_turn_it_goes_on_to_the_same_end(table, table_with, bare):
    begun = table.begin()
    whole = await table.resume(begun)
    for n in range(1, len(table.heard), 40):
        other = table_with()
        state = await _cut(other, begun, n)
        assert state.outcome == "cancelled"
        assert bare(await other.resume(state)) == bare(whole), n


async def test_a_finished_conversation_has_nothing_to_go_on_with(table):
    whole = await table.resume(table.begin())
    table.heard.clear()
    assert await table.resume(whole) == whole
    assert [type(event).__name__ for event in table.heard] == ["Stopped"]


async def test_a_pause_lets_those_who_speak_finish_and_nobody_begin(table, bare):
    paused = False

    def pause_at_first_word(event: object) -> None:
        nonlocal paused
        paused = paused or isinstance(event, Spoke)

    state = await table.resume(
        table.begin(), is_paused=lambda: paused, on_event=pause_at_first_word
    )
    assert _kinds(state) == KINDS[:3]
    assert (state.outcome, state.why) == ("paused", "a person paused it")
    whole = await table.resume(table.begin())
    assert bare(await table.resume(state)) == bare(whole)


async def test_what_was_heard_before_is_not_told_again(table):
    state = await _after(table, 4)
    table.heard.clear()
    await table.resume(state)
    assert not any(isinstance(event, FactsFound) for event in table.heard)
    first = next(event for event in table.heard if isinstance(event, TurnStarted))
    assert first.speaker == "critic"


# ------------------------------------------------------------------ a person speaks


async def test_a_wish_at_the_beginning_is_told_to_everybody(table):
    state = inject(await _after(table, 1), 'Wide gaps, "please"\nand 5 mm threads')
    table.engine.requests.clear()
    whole = await table.resume(state)
    quoted = "(added by a person: \"Wide gaps, 'please' and 5 mm threads\")"
    asked = ["\n".join(m.content for m in r.messages) for r in table.engine.requests]
    advising = [text for text in asked if "What should the design take" in text]
    assert advising and all(quoted in text for text in advising)
    assert any("- person: \"Wide gaps, 'please' and 5 mm threads\"" in text for text in asked)
    speakers = [turn.speaker for turn in whole.turns]
    assert speakers[:4] == ["person", "spider_silk_expert", "leaf_expert", "prompt_engineer"]


async def test_a_remark_changes_no_seed_of_those_who_speak_after_it(table):
    state = await _after(table, 1)
    plain = await table.resume(state)
    told = await table.resume(inject(state, "Wide gaps"))
    assert [turn.text for turn in told.turns[1:3]] == [turn.text for turn in plain.turns[:2]]


async def test_a_remark_after_a_critique_is_the_feedback_of_the_next_revision(table):
    state = inject(await _after(table, 6), "Leave out the spiral")
    table.engine.requests.clear()
    await table.resume(state)
    revision = (
        next(r for r in table.engine.requests if "Feedback: " in r.messages[-1].content)
        .messages[-1]
        .content
    )
    assert 'Feedback: A person asks: "Leave out the spiral"' in revision
    assert "taper toward" not in revision.split("Feedback:")[1]


async def test_a_remark_after_the_end_asks_for_one_more_version(table):
    whole = await table.resume(table.begin(rounds=1))
    assert len(conversation_of(whole).prompts) == 1
    more = await table.resume(inject(whole, "Thinner"))
    assert len(conversation_of(more).prompts) == 2
    assert more.stop_reason.startswith("the bound of 2 rounds was reached")


async def test_a_remark_between_the_experts_takes_no_experts_place(table):
    state = inject(await _after(table, 2), "Wide gaps")
    whole = await table.resume(state)
    assert [turn.index for turn in whole.turns] == list(range(len(whole.turns)))
    assert [turn.role for turn in whole.turns[:4]] == ["expert", "expert", "human", "engineer"]


@pytest.mark.parametrize("text", ["", "  \n ", "a\x1b[2Jb", "x" * 1_001])
async def test_a_remark_that_is_no_plain_text_is_refused(table, text):
    with pytest.raises(UsageError, match="wanted a remark"):
        inject(table.begin(), text)


# ------------------------------------------------------------------ a person edits


async def test_an_edited_expert_keeps_place_and_role_and_all_that_rests_on_it_is_made_anew(table):
    whole = await table.resume(table.begin())
    text = "Let 7 mm veins taper to the margin. [leaf-0001]"
    state = edit(whole, 1, text)
    assert _kinds(state) == KINDS[:3]
    turn = state.turns[1]
    assert (turn.speaker, turn.role, turn.model) == (f"leaf_expert, {EDITED}", "expert", "human")
    assert (turn.text, turn.cited, turn.unsupported) == (text, ("leaf-0001",), ("7 mm",))
    table.engine.requests.clear()
    again = await table.resume(state)
    assert "Let 7 mm veins taper to the margin" in table.engine.requests[0].messages[-1].content
    assert again.turns[0] == whole.turns[0]
    assert _kinds(again) == _kinds(whole)


async def test_the_original_of_an_edited_turn_is_kept(table):
    whole = await table.resume(table.begin())
    state = edit(edit(whole, 1, "First. [leaf-0001]"), 1, "Second. [leaf-0001]")
    assert [turn.text for turn in siblings(state, 1)] == [whole.turns[1].text, "First. [leaf-0001]"]
    assert state.turns[1].speaker == f"leaf_expert, {EDITED}"


async def test_an_edited_prompt_is_drawn_and_gets_a_geometry_of_its_own(table, monkeypatch):
    state = edit(await _after(table, 6), 2, "Title: Net\nPrompt: A red net\non black.\nAvoid: fog")
    assert _kinds(state) == KINDS[:4]
    assert isinstance(state.steps[3], PromptStep) and state.steps[3].is_stale
    again = await table.resume(state)
    prompt = conversation_of(again).prompts[0]
    assert (prompt.title, prompt.prompt, prompt.negative_prompt) == (
        "Net", "A red net on black.", "fog"
    )  # fmt: skip
    assert isinstance(again.steps[3], PromptStep) and not again.steps[3].is_stale
    drawn = next(step for step in again.steps if isinstance(step, PicturesStep))
    assert drawn.pictures[0].request.prompt == "A red net on black."


async def test_a_prompt_edited_without_its_form_keeps_title_and_what_to_avoid(table):
    before = await _after(table, 4)
    (step,) = (s for s in before.steps if isinstance(s, PromptStep))
    (after,) = (s for s in edit(before, 2, "Two nets: red ones.").steps if s.kind == "prompt")
    assert after.draft == step.draft._replace(prompt="Two nets: red ones.", note="")


async def test_an_edited_critique_is_followed_even_if_it_was_the_last_word(table):
    whole = await table.resume(table.begin(rounds=1))
    state = edit(whole, 3, "Scores: mine\nAdvice: Make all threads wavy.")
    table.engine.requests.clear()
    again = await table.resume(state)
    assert any(
        "Feedback: Make all threads wavy." in r.messages[-1].content for r in table.engine.requests
    )
    assert len(conversation_of(again).prompts) == 2


async def test_an_edited_remark_is_told_as_it_reads_now(table):
    state = inject(await _after(table, 6), "Thinner")
    state = edit(state, state.turns[-1].index, "Thicker")
    table.engine.requests.clear()
    await table.resume(state)
    texts = "\n".join(r.messages[-1].content for r in table.engine.requests)
    assert '"Thicker"' in texts and "Thinner" not in texts


async def test_a_turn_that_is_not_there_cannot_be_changed(table):
    state = await _after(table, 3)
    with pytest.raises(UsageError, match=r"wanted turn 9, the conversation has 0 \(spider_silk"):
        edit(state, 9, "Hello")


# ------------------------------------------------------------------ again, and another way


async def test_another_seed_gives_another_text_and_keeps_the_sibling(table):
    whole = await table.resume(table.begin())
    texts = {whole.turns[2].text}
    state = whole
    for _ in range(3):
        state = await table.resume(reroll(state, 2))
        texts.add(state.turns[2].text)
    assert len(texts) > 1
    assert len(siblings(state, 2)) == 3
    assert siblings(state, 2)[0] == whole.turns[2]
    assert state.turns[:2] == whole.turns[:2]


async def test_the_same_seed_gives_the_same_text_again(table):
    whole = await table.resume(table.begin())
    again = await table.resume(reroll(whole, 0, seed=whole.brief.seed))
    assert [turn.text for turn in again.turns] == [turn.text for turn in whole.turns]


async def test_another_model_speaks_and_only_that_turn(table):
    whole = await table.resume(table.begin())
    state = reroll(whole, 0, model="base")
    assert "base" in state.models
    again = await table.resume(state)
    assert [turn.model for turn in again.turns[:3]] == ["base", *[whole.turns[1].model] * 2]
    assert "base" in table.models


async def test_a_second_expert_rerolled_leaves_the_first_alone(table):
    whole = await table.resume(table.begin())
    state = reroll(whole, 1, seed=5)
    assert [s.expert for s in state.steps if isinstance(s, AdviceStep)] == [0]
    table.heard.clear()
    again = await table.resume(state)
    assert [e.turn.index for e in table.heard if isinstance(e, TurnEnded)][:2] == [1, 2]
    assert again.turns[0] == whole.turns[0]


async def test_a_persons_turn_is_not_rerolled(table):
    state = inject(table.begin(), "Thin")
    with pytest.raises(UsageError, match="turn 0 is a person's; edit it instead"):
        reroll(state, 0)


async def test_a_sibling_comes_back_with_all_that_came_after_it(table, bare):
    whole = await table.resume(table.begin())
    other = await table.resume(reroll(whole, 2, seed=4))
    back = choose(other, 2, 0)
    assert bare(back) == bare(whole)
    assert bare(await table.resume(back)) == bare(whole)
    assert bare(choose(back, 2, 0)) == bare(other)


async def test_a_sibling_whose_ground_has_changed_comes_back_alone(table):
    whole = await table.resume(table.begin())
    other = await table.resume(reroll(whole, 2, seed=4))
    moved = await table.resume(edit(other, 0, "Hang it on anchor threads. [silk-0002]"))
    back = choose(moved, 2, 0)
    assert _kinds(back) == KINDS[:4]
    assert back.turns[2] == whole.turns[2]


async def test_a_sibling_that_is_not_there_cannot_be_chosen(table):
    with pytest.raises(UsageError, match="wanted sibling 0 of turn 1, it has 0"):
        choose(await _after(table, 4), 1, 0)


# ------------------------------------------------------------------ branches


async def test_a_branch_knows_its_parent_and_shares_its_steps_and_seed(table, bare):
    whole = await table.resume(table.begin())
    other = branch(whole, 4)
    assert (other.parent, other.forked_at, other.steps) == (whole.id, 4, whole.steps[:4])
    assert other.id != whole.id and other.brief == whole.brief
    assert bare(await table.resume(other)) == bare(whole)


async def test_a_branch_with_a_seed_of_its_own_says_other_words(table):
    whole = await table.resume(table.begin())
    other = await table.resume(branch(whole, 1, seed=whole.brief.seed + 1))
    assert [t.text for t in other.turns] != [t.text for t in whole.turns]


@pytest.mark.parametrize("at", [-1, 10])
async def test_a_branch_after_steps_that_are_not_there_is_refused(table, at):
    whole = await table.resume(table.begin())
    with pytest.raises(UsageError, match="wanted a branch after 0 to 9 steps"):
        branch(whole, at)


async def test_steering_leaves_the_state_it_was_given_alone(table):
    whole = await table.resume(table.begin())
    before = whole.model_dump_json()
    for changed in (inject(whole, "a"), edit(whole, 1, "b"), reroll(whole, 2), branch(whole, 3)):
        assert changed != whole
    assert whole.model_dump_json() == before
