"""How a prompt reaches a model: as token states, or as words where it reads no others.

States are made once for all pictures of a request. A prompt longer than the encoder's window is
cut between words, every chunk is encoded by the pipeline itself and the states are joined, as
AUTOMATIC1111's web UI does. A word of weight w has its state moved away from the state of an
empty prompt, s = e + w (s - e), as ComfyUI does: A1111's own rule, which restores the mean of all
states, divides by about zero for encoders whose states are centred, MiniLM for one.
"""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from imagegen.families import Family
from imagegen.prompt_weights import WeightedText, read_weights, without_weights
from imagegen.prompt_window import T5_WINDOW, TOKENIZERS, Tokenizer, chunk_spans, lost_words

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PromptInput", "prompt_input"]

logger = logging.getLogger(__name__)


class PromptInput(NamedTuple):
    """What a pipeline is called with for a prompt."""

    options: dict[str, Any]
    """Arguments of the call."""
    lost_words: tuple[str, ...]
    """Words the model does not read."""


class _Chunk(NamedTuple):
    """As much text as an encoder takes at a time."""

    text: str
    weights: tuple[float, ...]
    """One per character."""


def prompt_input(
    pipe: Any, family: Family, prompt: str, negative_prompt: str, guidance: float
) -> PromptInput:
    """Encode a prompt for a pipeline, or leave it in words where that does as well.

    Args:
        pipe: A diffusers pipeline.
        family: Its family.
        prompt: With A1111 weights, if any.
        negative_prompt: The same; empty for none.
        guidance: As in the request; a negative prompt needs more than 1.

    Raises:
        UsageError: a weight out of range.
        EngineError: the model's tokenizer cannot say where its tokens are.
    """
    accepted = inspect.signature(type(pipe).__call__).parameters
    # FLUX is guided by a learned number and knows a negative prompt only beside that.
    knows = "negative_prompt" in accepted and "true_cfg_scale" not in accepted
    if negative_prompt and not (knows and guidance > 1):
        why = "it needs a guidance above 1" if knows else "this model has none"
        logger.warning("the negative prompt has no effect: %s", why)
        negative_prompt = ""
    tokenizers = [getattr(pipe, name, None) for name in TOKENIZERS]
    if family.reads_in_chunks:
        return PromptInput(_chunked(pipe, tokenizers[0], prompt, negative_prompt, guidance), ())
    words, against = without_weights(prompt), without_weights(negative_prompt)
    if not (read_weights(prompt).is_plain and read_weights(negative_prompt).is_plain):
        logger.warning("weights in the prompt have no effect with %s", family.name)
    options: dict[str, Any] = {"prompt": [words]}
    if against:
        options["negative_prompt"] = [against]
    if "max_sequence_length" in accepted:
        options["max_sequence_length"] = T5_WINDOW
    return PromptInput(options, lost_words(tokenizers, words, against))


def _chunked(
    pipe: Any, tokenizer: Any, prompt: str, negative_prompt: str, guidance: float
) -> dict[str, Any]:
    """Options for a family that attends to token states."""
    import torch

    wanted, unwanted = read_weights(prompt), read_weights(negative_prompt)
    chunks, against = _chunks(tokenizer, wanted), _chunks(tokenizer, unwanted)
    # Both sides are read by one denoiser in one batch, so the shorter one is filled up.
    empty = _Chunk("", ())
    n = max(len(chunks), len(against))
    pairs = zip(
        chunks + [empty] * (n - len(chunks)), against + [empty] * (n - len(against)), strict=True
    )
    guided = guidance > 1
    with torch.inference_mode():
        parts = [
            _encoded(pipe, tokenizer, chunk, other if negative_prompt else None, guided)
            for chunk, other in pairs
        ]
    options: dict[str, Any] = {"prompt_embeds": torch.cat([part[0] for part in parts], dim=1)}
    if guided:
        options["negative_prompt_embeds"] = torch.cat([part[1] for part in parts], dim=1)
    if len(parts[0]) == 4:  # SDXL's pooled states, of the whole prompt: the first chunk's speak
        options["pooled_prompt_embeds"] = parts[0][2]
        if guided:
            options["negative_pooled_prompt_embeds"] = parts[0][3]
    return options


def _chunks(tokenizer: Tokenizer, prompt: WeightedText) -> list[_Chunk]:
    return [
        _Chunk(text[start:end], weights[start:end])
        for text, weights in zip(prompt.chunks, prompt.weights, strict=True)
        for start, end in chunk_spans(tokenizer, text)
    ]


def _encoded(
    pipe: Any, tokenizer: Any, chunk: _Chunk, against: _Chunk | None, guided: bool
) -> list[Tensor]:
    """States of one chunk, each (1, tokens, width), and pooled ones where the family has them."""

    def encode(text: str, other: str | None) -> list[Tensor]:
        return list(
            pipe.encode_prompt(
                prompt=text,
                device=pipe._execution_device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=guided,
                negative_prompt=other,
            )
        )

    states = encode(chunk.text, against.text if against is not None else None)
    sides = [(0, chunk), *([(1, against)] if guided and against is not None else [])]
    for side, part in sides:
        if any(w != 1.0 for w in part.weights):
            weights = _token_weights(tokenizer, part).to(states[side])
            neutral = encode("", "")[0]
            states[side] = neutral + weights * (states[side] - neutral)
    return states


def _token_weights(tokenizer: Any, chunk: _Chunk) -> Tensor:
    """One weight per token of the window, shape (1, tokens, 1); framing and padding have 1."""
    import torch

    encoding = tokenizer(
        chunk.text,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_offsets_mapping=True,
    )
    weights = [
        1.0 if word is None else chunk.weights[start]
        for word, (start, _) in zip(encoding.word_ids(), encoding["offset_mapping"], strict=True)
    ]
    return torch.tensor(weights)[None, :, None]
