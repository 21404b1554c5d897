"""Rows as tokens, with the places that count in the loss.

The template writes a chat once; the assistant's words are found in its text, so that what is
trained is exactly what the engine will see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from orbweave.errors import UsageError
from training.rows import Row, Turn

__all__ = ["IGNORED", "Encoded", "encode_chat", "encode_text", "pair_texts", "prepare_tokenizer"]

IGNORED = -100
"""Label of a token that does not count in the loss, as torch's cross entropy reads it."""


class Encoded(NamedTuple):
    """One example as tokens."""

    input_ids: list[int]
    labels: list[int]
    """The token itself, or `IGNORED`."""


def prepare_tokenizer(tokenizer: Any) -> Any:
    """Return the tokenizer with a pad token that is not the end token.

    A trainer masks padding; where padding is the end token, no model would learn to stop.

    Raises:
        UsageError: it has no end token, or no other token to pad with.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise UsageError(f"wanted an end token in {tokenizer.name_or_path}, found none")
    if tokenizer.pad_token_id in {None, end}:
        known = tokenizer.get_vocab()
        names = ["<pad>", "<|pad|>", "<|finetune_right_pad_id|>", "<|endoftext|>", "<unk>"]
        free = [n for n in [*names, tokenizer.unk_token] if n in known and known[n] != end]
        if not free:
            raise UsageError(
                f"wanted a token to pad with in {tokenizer.name_or_path}, its only candidate is "
                "the end token; add a pad token to the tokenizer"
            )
        tokenizer.pad_token = free[0]
    return tokenizer


def encode_text(tokenizer: Any, text: str) -> Encoded:
    """Return start token, text, end token; every token counts."""
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = [*start, *ids, tokenizer.eos_token_id]
    return Encoded(ids, list(ids))


def encode_chat(tokenizer: Any, turns: Sequence[Turn], *, loss_on: str = "replies") -> Encoded:
    """Return a chat as tokens; the assistant's words and their end-of-turn token count.

    Raises:
        UsageError: the template cannot write this chat, or writes it otherwise in parts than
            as a whole.
    """
    whole = _written(tokenizer, turns, False)
    spans = []
    for i, turn in enumerate(turns):
        if turn.role == "assistant":
            begin = _written(tokenizer, turns[:i], True)
            after = _written(tokenizer, turns[: i + 1], False)
            if not (whole.startswith(begin) and whole.startswith(after)):
                raise UsageError(
                    "wanted a chat template that writes turn after turn, "
                    f"{tokenizer.name_or_path} rewrites earlier turns; train single exchanges"
                )
            spans.append((len(begin), len(after.rstrip("\n"))))
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    ids = encoded["input_ids"]
    if loss_on == "all":
        return Encoded(ids, list(ids))
    labels = [
        token if any(a <= begin and end <= b and begin < end for a, b in spans) else IGNORED
        for token, (begin, end) in zip(ids, encoded["offset_mapping"], strict=True)
    ]
    return Encoded(ids, labels)


def pair_texts(tokenizer: Any, row: Row) -> dict[str, str]:
    """Return prompt, chosen and rejected as the template writes them, ends of turn included."""
    prompt = _written(tokenizer, row.turns[:-1], True)
    texts = {"prompt": prompt}
    replies = {"chosen": row.turns[-1].content, "rejected": row.rejected or ""}
    for name, reply in replies.items():
        whole = _written(tokenizer, (*row.turns[:-1], Turn("assistant", reply)), False)
        texts[name] = whole.removeprefix(prompt).rstrip("\n")
    if tokenizer("")["input_ids"]:  # it writes the start token itself, the template need not
        texts["prompt"] = prompt.removeprefix(tokenizer.bos_token or "")
    return texts


def _written(tokenizer: Any, turns: Sequence[Turn], opens_reply: bool) -> str:
    """Return a chat as the template writes it; a system text moves where it has no such role."""
    messages = [turn._asdict() for turn in turns]
    try:
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=opens_reply
        )
    except Exception as err:  # templates raise whatever their author chose
        if messages and messages[0]["role"] == "system" and len(messages) > 1:
            folded = [
                messages[1] | {"content": f"{messages[0]['content']}\n\n{messages[1]['content']}"},
                *messages[2:],
            ]
            return _written(tokenizer, [Turn(**m) for m in folded], opens_reply)
        raise UsageError(
            f"wanted to write a chat with the template of {tokenizer.name_or_path}, it said: {err}"
        ) from err
    return str(text)
