"""Completions of held-out questions while a model learns: what the loss does not show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from training.rows import Row
from training.tokens import encode_text, pair_texts

__all__ = ["Asked", "complete", "held_out_questions"]

_QUESTIONS = 3
_REPLY_TOKENS = 40
"""Three replies of so many tokens take SmolLM2-135M three seconds on one core: 1 % of the five
minutes between two checkpoints."""
_OPENING_WORDS = 8
"""Words of a held-out text that are given; the rest is to be written."""


class Asked(NamedTuple):
    """A held-out question, or the opening of a held-out text."""

    ids: list[int]
    prompt: str
    wanted: str
    """What the row goes on with."""


def held_out_questions(tokenizer: Any, rows: Sequence[Row]) -> list[Asked]:
    """Return a few questions spread over the rows; of a chat its first exchange."""
    chosen = rows[:: -(-len(rows) // _QUESTIONS)] if rows else []
    return [_asked(tokenizer, row) for row in chosen]


def complete(
    model: Any, tokenizer: Any, asked: Sequence[Asked], n_tokens: int = _REPLY_TOKENS
) -> list[str]:
    """Return what the model writes after each prompt: greedy, at most `n_tokens` tokens.

    Greedy and without dropout it draws no random number, so a training that is resumed goes
    on as if nothing had been asked. The model is left in the mode it came in.
    """
    import torch
    from transformers import GenerationConfig

    pad, width = tokenizer.pad_token_id, max(len(one.ids) for one in asked)
    ids = torch.full((len(asked), width), pad)
    mask = torch.zeros_like(ids)
    for b, one in enumerate(asked):  # on the left, so that all replies begin at one place
        ids[b, width - len(one.ids) :] = torch.tensor(one.ids)
        mask[b, width - len(one.ids) :] = 1
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=n_tokens,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        use_cache=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=pad,
    )
    learns = model.training
    model.eval()
    with torch.no_grad():
        out = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=settings,
        )
    model.train(learns)
    return [tokenizer.decode(reply, skip_special_tokens=True) for reply in out[:, width:]]


def _asked(tokenizer: Any, row: Row) -> Asked:
    if row.text:
        words = row.text.split(" ")
        opening, rest = (" ".join(p) for p in (words[:_OPENING_WORDS], words[_OPENING_WORDS:]))
        return Asked(encode_text(tokenizer, opening).input_ids[:-1], opening, rest)
    first = next(i for i, turn in enumerate(row.turns) if turn.role == "assistant")
    texts = pair_texts(tokenizer, replace(row, turns=row.turns[: first + 1]))
    ids = list(tokenizer(texts["prompt"])["input_ids"])
    return Asked(ids, texts["prompt"], row.turns[first].content)
