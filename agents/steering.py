"""A person's hand in a conversation: say something, change a turn, have it said anew, branch.

    state = inject(state, "wider gaps, please")
    state = edit(state, turn=1, text="Let the veins taper. [leaf-0001]")
    state = reroll(state, turn=2, seed=7)
    other = branch(state, at=4)

Each returns a new state to `agents.team.resume`. What rests on a changed turn is made anew; what
was there before is kept among the state's alternatives, and `choose` brings it back.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from pydantic import ValidationError

from agents.conversation import checked
from agents.engineer import Draft, framed
from agents.remark import clean_remark, clean_turn
from agents.state import (
    AdviceStep,
    Alternative,
    CritiqueStep,
    FactsStep,
    PicturesStep,
    PromptStep,
    Recast,
    RemarkStep,
    State,
    Step,
    turn_of,
)
from orbweave.errors import UsageError
from orbweave.models import ModelRef
from orbweave.records import Turn

__all__ = ["EDITED", "branch", "choose", "edit", "inject", "reroll", "siblings"]

_HEAD = re.compile(r"^(Title|Prompt|Avoid|Structure|To measure):", re.M)
"""How the lines of the engineer's turn begin; what is drawn follows from the first three."""
EDITED = "edited by a person"
"""Stands behind the speaker's name of a turn whose text is a person's."""


def inject(state: State, text: str) -> State:
    """Return the state with a person's remark; all who speak from here on are told of it.

    After a critique it is the feedback of the next revision; if the conversation was over, it
    goes on for one more version.

    Raises:
        UsageError: the text is empty, too long or not plain.
    """
    turn = Turn(
        index=_next_turn(state),
        speaker="person",
        role="human",
        model="human",
        text=clean_remark(text),
    )
    steps = (*state.steps, RemarkStep(turn=turn))
    # Who is still to speak in the remark's place speaks behind it.
    recasts = tuple(
        recast if recast.turn < turn.index else recast.model_copy(update={"turn": recast.turn + 1})
        for recast in state.recasts
    )
    return _changed(state, steps=steps, recasts=recasts, **_one_more(state, state.steps))


def edit(state: State, turn: int, text: str) -> State:
    """Return the state with a turn's text replaced by a person's; what rested on it is dropped.

    Of the engineer's turn the lines `Title:`, `Prompt:` and `Avoid:` are read; a text without
    them is the prompt. Of the critic's, what stands behind `Advice:`, or all of it.

    Args:
        state: Not changed.
        turn: Index of the turn; any role.
        text: The new text.

    Raises:
        UsageError: there is no such turn, or the text is empty, too long or not plain.
    """
    cut = _cut(state, turn)
    edited = _edited(state, cut.step, clean_turn(text))
    # An expert's turn stands in its old place: others may have spoken since.
    place = cut.place if isinstance(edited, AdviceStep) else len(cut.kept)
    # A person who changes the last word of the critic wants it followed.
    more = _one_more(state, (*cut.kept, cut.step)) if isinstance(edited, CritiqueStep) else {}
    return _changed(
        state,
        steps=(*cut.kept[:place], edited, *cut.kept[place:]),
        recasts=_recasts(state, cut.kept),
        alternatives=(*state.alternatives, cut.alternative("edited")),
        **more,
    )


def reroll(state: State, turn: int, *, seed: int | None = None, model: str | None = None) -> State:
    """Return the state in which a turn is still to be spoken, with another seed or model.

    Args:
        state: Not changed.
        turn: Index of an expert's, the engineer's or the critic's turn.
        seed: In the place of the brief's; None takes the next unused one, or with a `model`
            leaves it.
        model: Reference of the model to speak; None leaves it.

    Raises:
        UsageError: there is no such turn, a person spoke it, or `model` is no reference.
    """
    cut = _cut(state, turn)
    if isinstance(cut.step, RemarkStep):
        raise UsageError(f"wanted a model's turn, turn {turn} is a person's; edit it instead")
    if model is not None:
        ModelRef.parse(model)
    elif seed is None:
        seed = (state.brief.seed + 1 + len(siblings(state, turn))) % 2**32
    try:
        recast = Recast(turn=turn, seed=seed, model=model)
    except ValidationError as err:
        raise UsageError(f"wanted a seed of 32 bits, got {seed}; choose a smaller one") from err
    return _changed(
        state,
        steps=cut.kept,
        recasts=(*_recasts(state, cut.kept), recast),
        alternatives=(*state.alternatives, cut.alternative("re-rolled")),
    )


def siblings(state: State, turn: int) -> tuple[Turn, ...]:
    """Return what a turn was before, oldest first; the original of an edited turn is the first."""
    kept = (alt.steps[0] for alt in state.alternatives if alt.turn == turn)
    return tuple(said for step in kept if (said := turn_of(step)) is not None)


def choose(state: State, turn: int, sibling: int) -> State:
    """Return the state with a turn as it was before; what is there now becomes an alternative.

    What came after it then comes back too if all before it is still the same; otherwise it is
    made anew.

    Args:
        state: Not changed.
        turn: Index of the turn.
        sibling: Index into `siblings(state, turn)`.

    Raises:
        UsageError: there is no such sibling, or it cannot stand there any more.
    """
    places = [n for n, alt in enumerate(state.alternatives) if alt.turn == turn]
    if not 0 <= sibling < len(places):
        raise UsageError(
            f"wanted sibling {sibling} of turn {turn}, it has {len(places)}, counted from 0"
        )
    chosen = state.alternatives[places[sibling]]
    others = tuple(alt for alt in state.alternatives if alt is not chosen)
    spoken = any(said.index == turn for said in state.turns)
    kept = state.steps
    if spoken:
        cut = _cut(state, turn)
        kept, others = cut.kept, (*others, cut.alternative("chosen"))
    back = chosen.steps if chosen.context == _context(kept) else chosen.steps[:1]
    try:
        return _changed(
            state, steps=(*kept, *back), recasts=_recasts(state, kept), alternatives=others
        )
    except ValidationError as err:
        raise UsageError(
            f"wanted turn {turn} as it was, what it rested on has changed too much; "
            "choose among the earlier turns first"
        ) from err


def branch(state: State, at: int, *, seed: int | None = None) -> State:
    """Return a conversation of its own that shares the first steps.

    Pictures of both come from the same seeds unless another is given.

    Args:
        state: Not changed.
        at: Steps to share, 0 to all.
        seed: Of the brief from here on; None keeps it.

    Raises:
        UsageError: there are not so many steps.
    """
    if not 0 <= at <= len(state.steps):
        raise UsageError(f"wanted a branch after 0 to {len(state.steps)} steps, got {at}")
    steps = state.steps[:at]
    brief = state.brief if seed is None else state.brief.model_copy(update={"seed": seed})
    return _changed(
        state,
        id=secrets.token_hex(6),
        parent=state.id,
        forked_at=at,
        brief=brief,
        steps=steps,
        recasts=_recasts(state, steps),
        alternatives=(),
        timings_s={},
        outcome="finished" if at and at == len(state.steps) and state.stop_reason else "paused",
        why=f"branched off {state.id}",
    )


class _Cut(NamedTuple):
    """A conversation cut at a turn."""

    place: int
    step: Step
    kept: tuple[Step, ...]
    """What does not rest on the turn, in order."""
    dropped: tuple[Step, ...]

    def alternative(self, why: str) -> Alternative:
        """Return the turn and what rested on it, to be kept."""
        turn = turn_of(self.step)
        assert turn is not None
        return Alternative.model_validate(
            {
                "turn": turn.index,
                "why": why,
                "context": _context(self.kept),
                "steps": (self.step, *self.dropped),
            }
        )


def _cut(state: State, turn: int) -> _Cut:
    """Cut at a turn: all later steps rest on it, save that experts do not rest on each other.

    Raises:
        UsageError: there is no such turn.
    """
    said = [turn_of(step) for step in state.steps]
    place = next((n for n, one in enumerate(said) if one and one.index == turn), None)
    if place is None:
        known = ", ".join(f"{one.index} ({one.speaker})" for one in state.turns) or "no turns"
        raise UsageError(f"wanted turn {turn}, the conversation has {known}")
    step = state.steps[place]
    after = state.steps[place + 1 :]
    beside: tuple[Step, ...] = ()
    if isinstance(step, AdviceStep):
        beside = tuple(takewhile(lambda s: isinstance(s, AdviceStep | RemarkStep), after))
    return _Cut(place, step, (*state.steps[:place], *beside), after[len(beside) :])


def _context(kept: Sequence[Step]) -> str:
    """Return a digest of steps that is the same in whatever order the experts ended."""
    texts = sorted(step.model_dump_json() for step in kept)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def _changed(state: State, **updates: Any) -> State:
    """Return the state with other fields, checked; it is no longer at its end."""
    fresh = {"outcome": "paused", "why": "a person changed it"}
    return State.model_validate(dict(state) | fresh | updates)


def _one_more(state: State, steps: Sequence[Step]) -> dict[str, int]:
    """Return the bound of rounds that lets a conversation go on that is over after these steps."""
    last = steps[-1] if steps else None
    if not isinstance(last, CritiqueStep) or not last.stop_reason:
        return {}
    versions = sum(isinstance(step, PromptStep) for step in steps)
    return {"rounds": max(state.rounds, versions + 1)}


def _recasts(state: State, kept: Sequence[Step]) -> tuple[Recast, ...]:
    """Return the recasts of turns that stay."""
    turns = {said.index for step in kept if (said := turn_of(step)) is not None}
    spoken = {said.index for said in state.turns}
    free = next(i for i in range(len(spoken) + 1) if i not in spoken)
    advised = (step for step in state.steps if isinstance(step, AdviceStep))
    first = next((step.turn.index - step.expert for step in advised), free)
    # Experts who are still to speak rest on no other turn.
    turns |= set(range(first, first + len(_facts(state)))) - spoken
    return tuple(recast for recast in state.recasts if recast.turn in turns)


def _next_turn(state: State) -> int:
    """Return the index of a remark: behind all turns, and behind the experts' once they began."""
    taken = [said.index for said in state.turns]
    for step in state.steps:
        if isinstance(step, AdviceStep):
            first = step.turn.index - step.expert
            taken.append(first + len(_facts(state)) - 1)
    return max(taken, default=-1) + 1


def _facts(state: State) -> Sequence[Sequence[Any]]:
    return next((step.facts for step in state.steps if isinstance(step, FactsStep)), ())


def _edited(state: State, step: Step, text: str) -> Step:
    """Return a step with a person's words in the place of its own."""
    assert not isinstance(step, FactsStep | PicturesStep)
    if isinstance(step, RemarkStep):
        said = step.turn.model_copy(update={"text": clean_remark(text)})
        return RemarkStep(turn=said)
    if isinstance(step, AdviceStep):
        said = _said(state, step.turn, text, _facts(state)[step.expert])
        return step.model_copy(update={"turn": said})
    if isinstance(step, CritiqueStep):
        advice = text.partition("Advice:")[2].strip() or text
        return step.model_copy(
            update={
                "turn": _said(state, step.turn, text, (), claiming=""),
                "judgement": step.judgement._replace(advice=advice, text=text),
                "critique": step.critique.model_copy(update={"advice": advice}),
                "stop_reason": "",
            }
        )
    draft = _draft(text, step.draft)
    given = [fact for each in _facts(state) for fact in each]
    words = {"title": draft.title, "prompt": draft.prompt, "negative_prompt": draft.avoid}
    return step.model_copy(
        update={
            "turn": _said(state, step.turn, draft.text, given, claiming=draft.prompt),
            "draft": draft,
            "prompt": step.prompt.model_copy(update=words | {"origins": ()}),
            "is_stale": True,
        }
    )


def _said(
    state: State, turn: Turn, text: str, given: Sequence[Any], claiming: str | None = None
) -> Turn:
    """Return a turn with a person's text, checked against the facts as a model's would be."""
    frame = framed(state.team, state.brief.concept)
    cited, loose, checks = checked(text, turn.role, given, state.asked, claiming, frame)
    speaker = turn.speaker if turn.speaker.endswith(EDITED) else f"{turn.speaker}, {EDITED}"
    return turn.model_copy(
        update={
            "speaker": speaker,
            "model": "human",
            "text": text,
            "cited": cited,
            "unsupported": loose,
            "checks": checks,
            "n_tokens": 0,
            "seconds": 0.0,
        }
    )


def _draft(text: str, last: Draft) -> Draft:
    """Return the draft a person wrote; what is not said stays as it was."""
    heads = list(_HEAD.finditer(text))
    ends = [*(head.start() for head in heads[1:]), len(text)]
    said = {
        head[1].lower(): text[head.end() : end].strip()
        for head, end in zip(heads, ends, strict=False)  # no heads, one end
    }
    words = said.get("prompt", "") if heads else text
    title, avoid = (said.get(name, "").partition("\n")[0] for name in ("title", "avoid"))
    return last._replace(
        title=title or last.title,
        prompt=" ".join(words.split()) or last.prompt,
        avoid=avoid if "avoid" in said else last.avoid,
        note="",
    )
