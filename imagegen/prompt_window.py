"""Which words of a prompt a text encoder reads, and which fall beyond its window."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from orbweave.errors import EngineError, shown

__all__ = [
    "PromptWindow",
    "Tokenizer",
    "chunk_spans",
    "lost_words",
    "prompt_window",
    "without_known_notices",
]

logger = logging.getLogger(__name__)

T5_WINDOW = 512
"""The most that diffusers' pipelines with a T5 encoder accept."""
TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
"""As pipelines call them; those a family lacks are absent."""
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
    window = tokenizer.model_max_length if window is None else window
    pieces = _pieces(tokenizer, prompt)
    framing = tokenizer.num_special_tokens_to_add()
    n_tokens, room = len(pieces) + framing, window - framing
    if window >= NO_LIMIT or len(pieces) <= room:
        return PromptWindow(prompt.strip(), (), n_tokens, window)
    first_lost = pieces[max(room, 0)].word
    cut = min(piece.start for piece in pieces if piece.word == first_lost)
    lost = tuple(word for word in prompt[cut:].split() if _is_word(word))
    return PromptWindow(prompt[:cut].strip(), lost, n_tokens, window)


def chunk_spans(
    tokenizer: Tokenizer, text: str, *, window: int | None = None
) -> list[tuple[int, int]]:
    """Cut a text into pieces that each fit an encoder's window, between words.

    Only a word that is longer than a whole window is cut inside.

    Returns:
        (start, end) of each piece in `text`, at least one; together they are the text.

    Raises:
        EngineError: the tokenizer cannot say where in the text its tokens are.
    """
    window = tokenizer.model_max_length if window is None else window
    room = max(window - tokenizer.num_special_tokens_to_add(), 1)
    pieces = _pieces(tokenizer, text)
    if window >= NO_LIMIT or len(pieces) <= room:
        return [(0, len(text))]
    cuts, first = [0], 0  # `first` is the piece the chunk begins with
    while len(pieces) - first > room:
        end = first + room
        while end > first and pieces[end - 1].word == pieces[end].word:
            end -= 1
        first = end if end > first else first + room
        cuts.append(pieces[first].start)
    return list(zip(cuts, [*cuts[1:], len(text)], strict=True))


class _Piece(NamedTuple):
    """One token of a text, without those that frame it."""

    word: int
    """Which word of the text it belongs to, as the tokenizer counts."""
    start: int
    """Where in the text it begins."""


def _pieces(tokenizer: Tokenizer, text: str) -> list[_Piece]:
    if not tokenizer.is_fast:
        raise EngineError(
            "wanted a fast tokenizer to count the prompt's tokens, "
            f"got {type(tokenizer).__name__}; "
            "save the model with a tokenizer.json"
        )
    # verbose=False: the tokenizer's own warning of long texts would come beside ours.
    encoding = tokenizer(text, truncation=False, return_offsets_mapping=True, verbose=False)
    words: list[int | None] = encoding.word_ids()
    offsets: list[tuple[int, int]] = encoding["offset_mapping"]
    return [_Piece(w, s) for w, (s, _) in zip(words, offsets, strict=True) if w is not None]


def _is_word(text: str) -> bool:
    """Whether the text holds a letter, a digit or a symbol such as an emoji."""
    return any(unicodedata.category(c)[0] in "LNS" for c in text)


def lost_words(
    tokenizers: Iterable[Tokenizer | None], prompt: str, negative_prompt: str
) -> tuple[str, ...]:
    """Return the words of the prompt that no text encoder reads; a warning says it aloud.

    Words lost from the negative prompt are warned of as well.

    Args:
        tokenizers: One per encoder; where there are several, what one reads is not lost.
        prompt: As the encoder is given it, without weights.
        negative_prompt: The same.
    """
    present = [tokenizer for tokenizer in tokenizers if tokenizer is not None]
    lost: tuple[str, ...] = ()
    for label, text in (("negative prompt", negative_prompt), ("prompt", prompt)):
        windows = [
            prompt_window(tokenizer, text, window=min(tokenizer.model_max_length, T5_WINDOW))
            for tokenizer in present
        ]
        widest = min(windows, key=lambda window: len(window.lost_words), default=None)
        lost = widest.lost_words if widest is not None else ()
        if widest is not None and lost:
            logger.warning(
                "the %s has %d tokens, the image model reads %d; not read: %s",
                *(label, widest.n_tokens, widest.n_window, shown(" ".join(lost), 300)),
            )
    return lost


class _AlreadySaid(logging.Filter):
    """Drops the libraries' notices of truncation, and of SDXL's decoder taking float32."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record may pass."""
        notices = (
            "The following part of your input was",
            "Token indices sequence length",
            "There are modules in AutoencoderKL",
        )
        return not record.getMessage().startswith(notices)


@contextmanager
def without_known_notices(pipeline_module: str) -> Iterator[None]:
    """Silence what was said already, or is nothing to the user, for a pipeline call."""
    drop = _AlreadySaid()
    loggers = [
        logging.getLogger(name)
        for name in (
            pipeline_module,
            "transformers.tokenization_utils_base",
            "diffusers.models.modeling_utils",
        )
    ]
    for each in loggers:
        each.addFilter(drop)
    try:
        yield
    finally:
        for each in loggers:
            each.removeFilter(drop)
