"""The output head on a processor: log-probabilities of the labelled tokens and of no others.

TRL's fused head scores every position where there is no GPU, padding and prompts included, in
float32 and over the whole vocabulary: on two cores that took six times as long as the rest of
the model. Here only labelled positions are scored, a few at a time. Where the head is frozen,
as it is beside LoRA, the derivative is taken in the same pass, so no logits are kept.
"""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Scores", "score_labels", "use_compact_head"]

_CHUNK = 256
"""Positions scored at a time: 256 x 49,152 float32 logits are 50 MB."""


class Scores(NamedTuple):
    """What is known of each labelled position, shape (n,)."""

    log_probs: Tensor
    """Of the label; carries the gradient."""
    is_top1: Tensor
    """Whether the label is the likeliest token."""
    mean_logits: Tensor


def use_compact_head(model: Any) -> None:
    """Let `model(..., labels=..., fused_lm_head=True)` score labels only.

    Args:
        model: A causal language model that TRL has put its own head on. What it returns keeps
            the fields TRL reads, but entropy, which would cost another pass, is zero.
    """
    original = model.forward

    @functools.wraps(type(model).forward)
    def forward(*args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        if not fused_lm_head:
            return original(*args, **kwargs)
        labels = kwargs.pop("labels")[:, 1:]
        kwargs.pop("num_items_in_batch", None)
        kwargs["use_cache"] = False
        hidden = model.base_model(*args, **kwargs).last_hidden_state[:, :-1]
        mask = labels != -100
        scores = score_labels(hidden[mask], model.get_output_embeddings().weight, labels[mask])

        def placed(values: Tensor) -> Tensor:
            return torch.zeros(mask.shape, dtype=values.dtype).masked_scatter(mask, values)

        log_probs = placed(scores.log_probs)
        return SimpleNamespace(
            loss=-log_probs.sum() / mask.sum().clamp(min=1),
            log_probs=log_probs,
            is_top1=placed(scores.is_top1),
            mean_logits=placed(scores.mean_logits),
            entropy=torch.zeros(mask.shape),
            label_mask=mask,
            aux_loss=None,
        )

    model.forward = forward


def score_labels(hidden: Tensor, weight: Tensor, labels: Tensor) -> Scores:
    """Return the scores of labels (n,) under softmax(hidden @ weight.T).

    Args:
        hidden: Last hidden states, shape (n, d).
        weight: Of the head, shape (vocabulary, d).
        labels: Token ids, shape (n,).
    """
    if weight.requires_grad:
        logits = (hidden.to(weight.dtype) @ weight.T).float()
        chosen = logits.gather(1, labels[:, None])[:, 0]
        is_top1 = logits.argmax(1) == labels
        return Scores(chosen - logits.logsumexp(1), is_top1, logits.detach().mean(1))
    apply: Any = _FrozenHead.apply
    return Scores(*apply(hidden, weight, labels))


class _FrozenHead(torch.autograd.Function):
    """Log-probabilities through a head that does not learn.

    d log p(label) / d hidden = (onehot(label) - p) @ weight holds for each position alone, so
    it can be formed while the probabilities are at hand and scaled when the loss is known.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor) -> Any:
        n = len(labels)
        log_probs, mean = (hidden.new_empty(n, dtype=torch.float32) for _ in range(2))
        is_top1 = hidden.new_empty(n, dtype=torch.bool)
        slope = torch.empty_like(hidden, dtype=weight.dtype)
        learns = ctx.needs_input_grad[0]
        for start in range(0, n, _CHUNK):
            part = slice(start, start + _CHUNK)
            label = labels[part, None]
            logits = (hidden[part].to(weight.dtype) @ weight.T).float()
            is_top1[part] = logits.argmax(1) == label[:, 0]
            mean[part] = logits.mean(1)
            logits -= logits.logsumexp(1, keepdim=True)
            log_probs[part] = logits.gather(1, label)[:, 0]
            if learns:
                p = logits.exp_().neg_()
                p.scatter_add_(1, label, torch.ones_like(label, dtype=p.dtype))
                slope[part] = p.to(weight.dtype) @ weight
        ctx.save_for_backward(slope)
        ctx.mark_non_differentiable(is_top1, mean)
        return log_probs, is_top1, mean

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (slope,) = ctx.saved_tensors
        return (slope * grads[0][:, None]).to(slope.dtype), None, None
