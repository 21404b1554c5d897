"""What a model makes of closed questions and of plain text.

    loglik_scores   how likely it finds each option as its reply
    replies         what it replies when the options are listed
    perplexity      how well it foresees a text

By likelihood an option is the assistant's whole reply to the bare question, through the model's
own chat template; its score is the log-probability of its tokens, in nats per character. All
options of a question share one row: the question stands there once, the options behind it see
the question and themselves, not each other, and what all questions begin with (the template's
own system text) is computed once for all. That is a fifth of the tokens of one row per option.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging as transformers_logging

from orbweave.errors import ModelError, UsageError, shown
from training.benchmark import Question
from training.machine import number_type

__all__ = [
    "Perplexity",
    "asked_for_one_word",
    "load_model",
    "load_tokenizer",
    "loglik_scores",
    "perplexity",
    "replies",
]

Progress = Callable[[int, int], None]
"""Is told (items done, items in all)."""
_ATTENTION_KINDS = {"full_attention", "sliding_attention", "chunked_attention"}
"""Layers that read a mask; others would let the options of a question see each other."""
_REPLY_TOKENS = 12
"""Enough for "The correct answer is (B)."; what follows is not read."""
_WINDOW = 1_024
"""Tokens of a text read at a time; the next window begins where the last one ended."""


def load_model(folder: Path) -> tuple[Any, Any]:
    """Return (model, tokenizer) of a Hugging Face folder, on the GPU if there is one.

    It is in bfloat16 where that is multiplied natively, else in float32.

    Raises:
        ModelError: it cannot be loaded whole, or is no model of attention layers alone.
    """
    auto: Any = AutoModelForCausalLM  # its annotations do not know output_loading_info
    tokens: Any = AutoTokenizer
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        tokenizer = tokens.from_pretrained(folder, local_files_only=True)
        model, report = auto.from_pretrained(
            folder,
            dtype=number_type(),
            attn_implementation="sdpa",
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as err:
        raise ModelError(
            f"wanted a language model from {folder}, transformers says {shown(err, 200)}; "
            "fetch or build the model again, or use another"
        ) from err
    absent = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if absent:
        raise ModelError(
            f"wanted all weights of {folder}, {len(absent)} are missing or of another shape, "
            f"for instance {absent[0]}; fetch or build the model again"
        )
    strange = set(getattr(model.config, "layer_types", None) or ()) - _ATTENTION_KINDS
    if strange:
        raise ModelError(
            f"wanted a model of attention layers in {folder}, found {', '.join(sorted(strange))}; "
            "evaluate it with lm-evaluation-harness, see `orbweave evaluate --tasks-out`"
        )
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a Hugging Face folder, which need hold nothing else.

    Raises:
        ModelError: it cannot be loaded.
    """
    tokens: Any = AutoTokenizer
    try:
        return tokens.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError) as err:
        raise ModelError(
            f"wanted a tokenizer from {folder}, transformers says {shown(err, 200)}; "
            "fetch or build the model again"
        ) from err


def loglik_scores(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    batch: int = 16,
    on_progress: Progress = lambda done, total: None,
) -> list[list[float]]:
    """Return for each question the score of each option, in nats per character; the best wins.

    Args:
        model: A causal language model of transformers; put into evaluation mode.
        tokenizer: Its tokenizer.
        questions: In any order; they are batched by length.
        batch: Questions at a time.
        on_progress: Is told after each batch.

    Raises:
        UsageError: the tokenizer has no chat template.
    """
    model.eval()
    rows = [_row(tokenizer, question) for question in questions]
    prefix = _shared(rows)
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i].context), -rows[i].width, i))
    scores: list[list[float]] = [[] for _ in rows]
    with torch.inference_mode():
        cache = _read_prefix(model, prefix)
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            sums = _option_sums(model, cache, len(prefix), [rows[i] for i in chosen])
            for i, by_option in zip(chosen, sums, strict=True):
                options = questions[i].options
                scores[i] = [s / len(o) for s, o in zip(by_option, options, strict=True)]
            on_progress(min(start + batch, len(order)), len(order))
    return scores


def asked_for_one_word(question: Question) -> str:
    """Return the question as it is put for a one-word reply; nothing in it is tuned to a model."""
    if question.type == "tf":
        return f"{question.question}\nTrue or false? Answer with one word."
    lines = [f"{chr(ord('A') + i)}. {option}" for i, option in enumerate(question.options)]
    return "\n".join([question.question, *lines, "Answer with one letter."])


def replies(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    batch: int = 16,
    on_progress: Progress = lambda done, total: None,
) -> list[str]:
    """Return what the model replies to each question with its options listed.

    Greedy, and free of whatever sampling settings the model's folder asks for; cut off after
    a dozen tokens. Arguments as in `loglik_scores`; `training.reply` reads the replies.
    """
    prompts = [_tokens(tokenizer, _chat(tokenizer, asked_for_one_word(q))) for q in questions]
    settings = _greedy(model, tokenizer)
    texts = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        width = max(len(prompts[i]) for i in chosen)
        ids = torch.full((len(chosen), width), settings.pad_token_id)
        mask = torch.zeros_like(ids)
        for b, i in enumerate(chosen):  # on the left, so that all replies begin at one place
            ids[b, width - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask[b, width - len(prompts[i]) :] = 1
        with torch.inference_mode():
            out = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                generation_config=settings,
            )
        for i, tokens in zip(chosen, out[:, width:], strict=True):
            texts[i] = tokenizer.decode(tokens, skip_special_tokens=True)
        on_progress(min(start + batch, len(order)), len(order))
    return texts


class Perplexity(NamedTuple):
    """How well a model foresees texts; lower is better, 1 is certainty."""

    per_token: float
    """exp of the mean nats per token; comparable between models of one tokenizer."""
    per_char: float
    """exp of the mean nats per character; comparable between any models."""
    n_tokens: int
    n_chars: int


def perplexity(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    batch: int = 8,
    on_progress: Progress = lambda done, total: None,
) -> Perplexity:
    """Return the perplexity over all texts together, each read without a chat around it.

    A text begins after the start token; without one its first token is given, not foreseen.
    Long texts are read in windows, and every token is foreseen once.

    Raises:
        UsageError: there is not one token to foresee.
    """
    starts = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    pieces = [p for text in texts for p in _windows([*starts, *_tokens(tokenizer, text)])]
    pieces.sort(key=len, reverse=True)
    n_tokens, n_chars = sum(len(p) - 1 for p in pieces), sum(len(text) for text in texts)
    if n_tokens < 1:
        raise UsageError("wanted text for a perplexity, got none; give at least a sentence")
    nats = 0.0
    for start in range(0, len(pieces), batch):
        rows = pieces[start : start + batch]
        ids = torch.zeros(len(rows), len(rows[0]), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for b, row in enumerate(rows):
            ids[b, : len(row)], mask[b, : len(row)] = torch.tensor(row), 1
        ids, mask = ids.to(model.device), mask.to(model.device)
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            for b, row in enumerate(rows):  # one by one: in float32 they are large
                n = len(row)
                nats += float(
                    cross_entropy(logits[b, : n - 1].float(), ids[b, 1:n], reduction="sum")
                )
        on_progress(min(start + batch, len(pieces)), len(pieces))
    return Perplexity(math.exp(nats / n_tokens), math.exp(nats / n_chars), n_tokens, n_chars)


def _windows(tokens: Sequence[int]) -> list[list[int]]:
    """Return pieces of at most `_WINDOW` + 1 tokens; each begins where the one before ended."""
    return [list(tokens[i : i + _WINDOW + 1]) for i in range(0, len(tokens) - 1, _WINDOW)]


def _greedy(model: Any, tokenizer: Any) -> GenerationConfig:
    """Return settings that take the likeliest token until the turn ends."""
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}
    stops = sorted(end for end in ends if end is not None)
    pad = tokenizer.pad_token_id
    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=_REPLY_TOKENS,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        eos_token_id=stops or None,
        # Masked on the way in, and nothing is read behind an end token.
        pad_token_id=pad if pad is not None else (stops or [0])[0],
    )


class _Row(NamedTuple):
    """One question as tokens."""

    context: list[int]
    """The chat up to the reply."""
    options: list[list[int]]

    @property
    def width(self) -> int:
        return sum(len(option) for option in self.options)


def _row(tokenizer: Any, question: Question) -> _Row:
    """Return the tokens of a question and of its options as replies.

    Where a tokenizer melts the end of the prompt and an option into one token, all options of
    the question begin there, so that their sums stay comparable.
    """
    prompt = _chat(tokenizer, question.question)
    asked = _tokens(tokenizer, prompt)
    wholes = [
        _tokens(tokenizer, prompt + _reply_part(tokenizer, question.question, prompt, option))
        for option in question.options
    ]
    n = min(_n_common(asked, whole) for whole in wholes)
    return _Row(asked[:n], [whole[n:] for whole in wholes])


def _chat(tokenizer: Any, user: str, reply: str | None = None) -> str:
    """Return one exchange as the template writes it, up to the reply or with it.

    Raises:
        UsageError: the tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise UsageError(
            f"wanted a chat model, the tokenizer of {tokenizer.name_or_path} has no chat template; "
            "give it the template of the family's instruct model"
        )
    messages = [{"role": "user", "content": user}]
    if reply is not None:
        messages.append({"role": "assistant", "content": reply})
    return str(
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=reply is None)
    )


def _reply_part(tokenizer: Any, user: str, prompt: str, reply: str) -> str:
    """Return what the template writes after the prompt, up to the reply's last character.

    Some templates put a blank before the reply. Where one rewrites the prompt, the reply
    follows it directly, as it does when the model generates.
    """
    whole = _chat(tokenizer, user, reply)
    _, found, _ = whole.removeprefix(prompt).partition(reply)
    if not (found and whole.startswith(prompt)):
        return reply
    return whole[len(prompt) : whole.index(reply, len(prompt)) + len(reply)]


def _tokens(tokenizer: Any, text: str) -> list[int]:
    """Return the tokens of a text that holds its special tokens already."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _n_common(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many tokens two sequences share from their start."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def _shared(rows: Sequence[_Row]) -> list[int]:
    """Return what all contexts begin with; every context keeps at least its last token."""
    if not rows:
        return []
    first = rows[0].context
    n = min(min(_n_common(first, row.context), len(row.context) - 1) for row in rows)
    return first[:n]


def _read_prefix(model: Any, prefix: Sequence[int]) -> Any:
    """Return the model's cache after reading the prefix; None for an empty one."""
    if not prefix:
        return None
    ids = torch.tensor([prefix], device=model.device)
    return model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values


def _option_sums(model: Any, cache: Any, n_prefix: int, rows: Sequence[_Row]) -> list[list[float]]:
    """Return the log-probability of each option, in nats.

    Contexts are padded on the left and options on the right, so that the logits wanted are
    the last ones: those of the context's last token and of the options' tokens.
    """
    n_context = max(len(row.context) for row in rows) - n_prefix
    n_options = max(row.width for row in rows)
    shape = (len(rows), n_context + n_options)
    ids = torch.zeros(shape, dtype=torch.long)
    place = torch.zeros(shape, dtype=torch.long)
    part = torch.full(shape, -1)  # -1 padding, 0 context, k the k-th option
    for b, row in enumerate(rows):
        context = row.context[n_prefix:]
        at = n_context - len(context)
        for k, tokens in enumerate([context, *row.options]):
            here = slice(at, at + len(tokens))
            begin = n_prefix if k == 0 else len(row.context)
            ids[b, here] = torch.tensor(tokens)
            place[b, here] = torch.arange(begin, begin + len(tokens))
            part[b, here] = k
            at += len(tokens)
    logits = model(
        input_ids=ids.to(model.device),
        position_ids=place.to(model.device),
        attention_mask=_mask(part, n_prefix, model.dtype).to(model.device),
        past_key_values=_copies(cache, len(rows)),
        use_cache=cache is not None,
        logits_to_keep=n_options + 1,
    ).logits  # (b, n_options + 1, vocabulary)
    target, part = ids[:, n_context:], part[:, n_context:]
    which, spot = torch.nonzero(part > 0, as_tuple=True)
    option = part[which, spot]
    # The token before an option's first is the context's last, whose logits come first.
    begins = (spot == 0) | (part[which, spot - 1] != option)
    picked = logits[which, torch.where(begins, 0, spot)].float()  # (tokens, vocabulary)
    log_probs = picked.log_softmax(-1).gather(1, target[which, spot, None].to(picked.device))[:, 0]
    sums = torch.zeros(len(rows), int(part.max()) + 1, dtype=torch.float64)
    sums.index_put_((which, option), log_probs.double().cpu(), accumulate=True)
    return [sums[b, 1 : len(r.options) + 1].tolist() for b, r in enumerate(rows)]


def _mask(part: Tensor, n_prefix: int, dtype: torch.dtype) -> Tensor:
    """Return what may see what, shape (b, 1, n, n_prefix + n): 0 where it may, else -max.

    The prefix is seen by all; a token sees the context and its own part, up to itself.
    """
    same = part[:, :, None] == part[:, None, :]
    sees = (same | (part[:, None, :] == 0)).tril()
    before = torch.ones(*part.shape, n_prefix, dtype=torch.bool)
    mask = torch.zeros(len(part), 1, part.shape[1], n_prefix + part.shape[1], dtype=dtype)
    return mask.masked_fill(~torch.cat([before, sees], -1)[:, None], torch.finfo(dtype).min)


def _copies(cache: Any, n: int) -> Any:
    """Return the prefix's cache for n rows; the original stays as it is."""
    if cache is None:
        return None
    copied = copy.deepcopy(cache)
    copied.batch_repeat_interleave(n)
    return copied
