"""Which words of a prompt a text encoder reads, and which fall beyond its window."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from orbweave.errors import EngineError, shown
from orbweave.records import RenderRequest

__all__ = [
    "PromptWindow",
    "Tokenizer",
    "lost_words",
    "prompt_window",
    "without_truncation_notices",
]

logger = logging.getLogger(__name__)

NO_LIMIT = 1_000_000
"""Tokenizers without a limit of their own state 1e30 or so as `model_max_length`."""


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    is_fast: bool
    model_max_length: int

    def __call__(self, text: str, **options: Any) -> Any:
        """Return an encoding with offsets and word ids."""
        ...

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Return how many tokens frame a text, 2 for BERT and CLIP."""
        ...


@dataclass(frozen=True)
class PromptWindow:
    """A prompt, cut where the encoder stops reading."""

    kept: str
    """The text up to the last word that is read completely."""
    lost_words: tuple[str, ...]
    """Words that are not read, or only in part, in order; punctuation alone is no word."""
    n_tokens: int
    """Tokens of the whole prompt, with the encoder's start and end tokens."""
    n_window: int
    """Tokens the encoder reads, with its start and end tokens."""


def prompt_window(tokenizer: Tokenizer, prompt: str, *, window: int | None = None) -> PromptWindow:
    """Find the words of a prompt that lie beyond the encoder's window.

    Exact, for it asks the tokenizer for the position of every piece: a word that is cut
    in the middle of its pieces counts as lost. A word is the tokenizer's own at the cut
    (so a lost comma does not lose the word before it), and split at white space after it.

    Args:
        tokenizer: A fast tokenizer, of BERT, CLIP, T5 or another kind.
        prompt: Any text.
        window: Tokens the encoder reads; default: the tokenizer's `model_max_length`.

    Raises:
        EngineError: the tokenizer cannot say where in the text its tokens are.
    """
    if not tokenizer.is_fast:
        raise EngineError(
            "wanted a fast tokenizer to count the prompt's tokens, "
            f"got {type(tokenizer).__name__}; "
            "save the model with a tokenizer.json"
        )
    window = tokenizer.model_max_length if window is None else window
    # verbose=False: the tokenizer's own warning of long texts would come beside ours.
    encoding = tokenizer(prompt, truncation=False, return_offsets_mapping=True, verbose=False)
    words: list[int | None] = encoding.word_ids()
    offsets: list[tuple[int, int]] = encoding["offset_mapping"]
    content = [(w, span) for w, span in zip(words, offsets, strict=True) if w is not None]
    room = window - tokenizer.num_special_tokens_to_add()
    if window >= NO_LIMIT or len(content) <= room:
        return PromptWindow(prompt.strip(), (), len(words), window)
    first_lost = content[max(room, 0)][0]
    cut = min(start for w, (start, _) in content if w == first_lost)
    lost = tuple(word for word in prompt[cut:].split() if _is_word(word))
    return PromptWindow(prompt[:cut].strip(), lost, len(words), window)


def _is_word(text: str) -> bool:
    """Whether the text holds a letter, a digit or a symbol such as an emoji."""
    return any(unicodedata.category(c)[0] in "LNS" for c in text)


def lost_words(tokenizers: Iterable[Tokenizer | None], request: RenderRequest) -> tuple[str, ...]:
    """Return the words of the prompt that no text encoder reads; a warning says it aloud.

    Words lost from the negative prompt are warned of as well.

    Args:
        tokenizers: One per encoder; where there are several, what one reads is not lost.
        request: Whose prompts to look at.
    """
    present = [tokenizer for tokenizer in tokenizers if tokenizer is not None]
    lost: tuple[str, ...] = ()
    for label, text in (("negative prompt", request.negative_prompt), ("prompt", request.prompt)):
        windows = [prompt_window(tokenizer, text) for tokenizer in present]
        widest = min(windows, key=lambda window: len(window.lost_words), default=None)
        lost = widest.lost_words if widest is not None else ()
        if widest is not None and lost:
            logger.warning(
                "the %s has %d tokens, the image model reads %d; not read: %s",
                *(label, widest.n_tokens, widest.n_window, shown(" ".join(lost), 300)),
            )
    return lost


class _AlreadySaid(logging.Filter):
    """Drops the libraries' truncation notices, which come once per picture."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record may pass."""
        notices = ("The following part of your input was", "Token indices sequence length")
        return not record.getMessage().startswith(notices)


@contextmanager
def without_truncation_notices(pipeline_module: str) -> Iterator[None]:
    """Silence what `lost_words` has said already, for the length of a pipeline call."""
    drop = _AlreadySaid()
    loggers = [
        logging.getLogger(name)
        for name in (pipeline_module, "transformers.tokenization_utils_base")
    ]
    for each in loggers:
        each.addFilter(drop)
    try:
        yield
    finally:
        for each in loggers:
            each.removeFilter(drop)
