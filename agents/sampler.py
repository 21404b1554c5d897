"""How the next token is drawn from a model's logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from agents.generation import Sampling
from orbweave.errors import EngineError

__all__ = ["Sampler"]

_SLICE = 64
"""Neighbouring logits that are looked at together; the quickest of 16 to 256."""


class Sampler:
    """Draws one reply's tokens with a random generator of its own.

    The rules and their order are those of transformers' logits processors: repetition
    penalty, temperature, top-k, top-p.
    """

    def __init__(self, sampling: Sampling, seed: int, prompt: Sequence[int]) -> None:
        """Start a reply.

        Args:
            sampling: How to draw.
            seed: Of the random generator.
            prompt: Token ids; the penalty counts them as seen.
        """
        self._sampling = sampling
        self._random = torch.Generator().manual_seed(seed)
        self._seen = torch.tensor(list(dict.fromkeys(prompt)), dtype=torch.int64)

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
        self._seen = torch.cat([self._seen, torch.tensor([token])])
        return token

    def distribution(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the candidates, likeliest first, as (ids int64, probabilities float64).

        Both have shape (n_candidates,); the probabilities sum to 1. Equal logits are
        ordered by id, so that the order is the same on every run.
        """
        how = self._sampling
        if how.repetition_penalty != 1.0:
            seen = logits[self._seen]
            factor = how.repetition_penalty
            penalised = torch.where(seen < 0, seen * factor, seen / factor)
            logits = logits.scatter(0, self._seen, penalised)
        if how.temperature == 0.0:
            best = logits.argmax(0, keepdim=True)
            return best, torch.ones(1, dtype=torch.float64)
        cuts = 0 < how.top_k < len(logits)
        ids = _likeliest(logits, how.top_k) if cuts else torch.arange(len(logits))
        scores = logits[ids].double() / how.temperature
        scores, order = scores.sort(descending=True, stable=True)
        probabilities = scores.softmax(0)
        if how.top_p < 1.0:
            before = probabilities.cumsum(0) - probabilities
            probabilities = probabilities[before < how.top_p]
            probabilities = probabilities / probabilities.sum()
        return ids[order[: len(probabilities)]], probabilities


def _likeliest(logits: Tensor, k: int) -> Tensor:
    """Return the ids of the k largest logits and of those equal to the last, ascending.

    They lie in the slices with the k largest maxima. To search these alone takes half the time
    that a whole vocabulary takes.
    """
    slices = F.pad(logits, (0, -len(logits) % _SLICE), value=-torch.inf).view(-1, _SLICE)
    tops = slices.amax(1)
    places = (tops >= tops.topk(min(k, len(tops))).values[-1]).nonzero()
    values, ids = slices[places[:, 0]], places * _SLICE + torch.arange(_SLICE)
    return ids[(values >= values.flatten().topk(k).values[-1]) & (ids < len(logits))]
