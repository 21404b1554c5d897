"""How the next token is drawn from a model's logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from agents.generation import Sampling
from orbweave.errors import EngineError

__all__ = ["Sampler"]


class Sampler:
    """Draws one reply's tokens with a random generator of its own.

    The rules and their order are those of transformers' logits processors: repetition
    penalty, temperature, top-k, top-p.
    """

    def __init__(
        self, sampling: Sampling, seed: int, prompt: Sequence[int], vocabulary: int
    ) -> None:
        """Start a reply.

        Args:
            sampling: How to draw.
            seed: Of the random generator.
            prompt: Token ids; the penalty counts them as seen.
            vocabulary: Number of logits.
        """
        self._sampling = sampling
        self._random = torch.Generator().manual_seed(seed)
        self._seen = torch.zeros(vocabulary, dtype=torch.bool)
        self._seen[list(prompt)] = True

    def draw(self, logits: Tensor) -> int:
        """Return the next token's id and count it as seen; `logits` has shape (vocabulary,).

        Raises:
            EngineError: the logits are not numbers.
        """
        # The maximum is NaN if any logit is.
        if not torch.isfinite(logits.max()):
            raise EngineError(
                "wanted the next token, the model gave logits that are not numbers; "
                "its weights are damaged or do not fit together"
            )
        ids, probabilities = self.distribution(logits)
        # One uniform number per token and the inverse of the cumulated distribution.
        point = torch.rand((), generator=self._random, dtype=torch.float64)
        place = torch.searchsorted(probabilities.cumsum(0), point, right=True)
        token = int(ids[min(int(place), len(ids) - 1)])
        self._seen[token] = True
        return token

    def distribution(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the candidates, likeliest first, as (ids int64, probabilities float64).

        Both have shape (n_candidates,); the probabilities sum to 1. Equal logits are
        ordered by id, so that the order is the same on every run.
        """
        how = self._sampling
        if how.repetition_penalty != 1.0:
            penalised = torch.where(
                logits < 0, logits * how.repetition_penalty, logits / how.repetition_penalty
            )
            logits = torch.where(self._seen, penalised, logits)
        if how.temperature == 0.0:
            best = logits.argmax(0, keepdim=True)
            return best, torch.ones(1, dtype=torch.float64)
        ids = torch.arange(len(logits))
        if 0 < how.top_k < len(logits):
            ids = (logits >= logits.topk(how.top_k).values[-1]).nonzero()[:, 0]
        scores = logits[ids].double() / how.temperature
        scores, order = scores.sort(descending=True, stable=True)
        probabilities = scores.softmax(0)
        if how.top_p < 1.0:
            before = probabilities.cumsum(0) - probabilities
            probabilities = probabilities[before < how.top_p]
            probabilities = probabilities / probabilities.sum()
        return ids[order[: len(probabilities)]], probabilities
