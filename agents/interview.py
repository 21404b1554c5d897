"""A script put to one model with one seed, turn after turn; every end has a name.

    turns = await interview(script, engine, seed=7, keep=journal.append)

Nothing that a model does raises: a turn without a reply is recorded with what became of it, and
the interview ends there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from agents.expert import seed_for
from agents.generation import Engine, Generation, Message, Reply
from agents.json_reply import read_json_reply
from agents.script import Script, ScriptTurn
from agents.transcript import Outcome, SpokenTurn
from orbweave.errors import EngineError

__all__ = ["LEAST_TOKENS", "interview"]

LEAST_TOKENS = 32
"""Room below which a reply is not begun; chosen by us: about one sentence."""


async def interview(
    script: Script,
    engine: Engine,
    *,
    seed: int,
    done: Sequence[SpokenTurn] = (),
    keep: Callable[[SpokenTurn], None] = lambda turn: None,
    timeout_s: float = 900.0,
) -> tuple[SpokenTurn, ...]:
    """Return all turns of one interview; those already done are taken over.

    Args:
        script: What is asked.
        engine: Who answers.
        seed: Each turn draws with a seed of its own that follows from this one.
        done: Finished turns of an earlier run, the first ones of the script in order.
        keep: Called with each new turn before the next is asked.
        timeout_s: Longest wait for one reply.
    """
    turns = list(done)
    for index in range(len(turns), len(script.turns)):
        spoken = await _spoken(script, index, engine, seed, turns, timeout_s)
        keep(spoken)
        turns.append(spoken)
        if not spoken.is_finished:
            break
    return tuple(turns)


async def _spoken(
    script: Script,
    index: int,
    engine: Engine,
    seed: int,
    before: Sequence[SpokenTurn],
    timeout_s: float,
) -> SpokenTurn:
    """Return one turn."""
    turn = script.turns[index]
    replies = [spoken.reply for spoken in before]
    record = SpokenTurn(
        model=engine.model,
        seed=seed,
        index=index,
        turn=turn.name,
        system=script.system_of(turn, replies).strip(),
        asked=script.ask_of(turn, replies).strip(),
        sampling=script.sampling_of(turn),
        generation_seed=seed_for(seed, index),
        outcome="failed",
    )
    start = time.perf_counter()
    try:
        chat = _chat(script, record, before)
        n_prompt = engine.count_tokens(chat)
        wanted = turn.max_new_tokens or script.max_new_tokens
        room = min(wanted, engine.context_tokens - n_prompt)
        record = record.model_copy(update={"n_prompt_tokens": n_prompt})
        if room < min(wanted, LEAST_TOKENS):
            return record.model_copy(update=_full(engine, n_prompt))
        record = record.model_copy(update={"max_new_tokens": room})
        reply = await asyncio.wait_for(engine.generate(_request(record, chat)), timeout_s)
        found = _heard(turn, reply)
    except TimeoutError:
        found = {"outcome": "timed out", "error": f"no reply within {timeout_s:g} s"}
    except EngineError as err:
        found = {"error": str(err)}
    return record.model_copy(update=found | {"seconds": round(time.perf_counter() - start, 3)})


def _request(record: SpokenTurn, chat: tuple[Message, ...]) -> Generation:
    assert record.sampling is not None
    return Generation(
        messages=chat,
        sampling=record.sampling,
        max_new_tokens=record.max_new_tokens,
        seed=record.generation_seed,
    )


def _heard(turn: ScriptTurn, reply: Reply) -> dict[str, object]:
    """Return what a reply adds to the record."""
    text = reply.text.encode("utf-8", "replace").decode()  # half characters of a broken stream
    outcome: Outcome = "cut off" if reply.finish == "length" else "answered"
    complete = reply.finish == "stop"
    found = {
        "reply": text,
        "outcome": outcome if text.strip() else "empty",
        "n_prompt_tokens": reply.n_prompt_tokens,
        "n_tokens": reply.n_tokens,
    }
    if turn.shape is not None:
        found["json_reply"] = read_json_reply(text, turn.shape, complete=complete)
    return found


def _full(engine: Engine, n_prompt: int) -> dict[str, object]:
    error = (
        f"the chat has {n_prompt:,} tokens, {engine.model} holds {engine.context_tokens:,}; "
        "shorten the script, allow shorter replies or mark the turn fresh"
    )
    return {"outcome": "context full", "error": error}


def _chat(script: Script, record: SpokenTurn, before: Sequence[SpokenTurn]) -> tuple[Message, ...]:
    """Return the messages of a turn: system text, earlier turns since the last fresh one, ask."""
    starts = [i for i in range(record.index + 1) if script.turns[i].fresh]
    seen = before[starts[-1] if starts else 0 :]
    turns: list[Message] = []
    for spoken in seen:
        turns += [Message("user", spoken.asked), Message("assistant", spoken.reply)]
    turns.append(Message("user", record.asked))
    return (Message("system", record.system), *turns) if record.system else tuple(turns)
