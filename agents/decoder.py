"""Next-token arithmetic for several sequences at once, without padding.

The linear layers see all sequences as one batch. Attention sees each one alone, over keys and
values of its own at its true length. So a sequence joins and leaves at any step for nothing,
and its numbers do not depend on its companions. Sequences may stand under different adapters.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import groupby
from threading import Lock
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from agents.adapters import Overlays, Span
from merging.adapter import Adapter

__all__ = ["Decoder", "KeyValues", "Reading", "attend"]

_CHUNK = 512
"""Prompt tokens per forward: the longest anybody waits for his next token."""
_ROWS_MULTIPLE = {torch.bfloat16: 2, torch.float32: 4}
"""Rows a decoding batch, and each adapter's part of it, is filled up to a multiple of.

The matrix kernels for other numbers of rows, one above all, add up in another order and differ
in the last bits. Measured with torch 2.13 (oneDNN, MKL) on AVX-512 with one and two threads:
from two rows on bfloat16 is the same for every number, float32 for the multiples of four.
"""

_MOST_KEPT_BYTES = 200_000_000
"""What the latest prompts may take: some 9,000 tokens of a model with 135 million parameters, 1,000
of one with 1.7 billion. Chosen by us for as many rows as a batch has under way."""
_MOST_KEPT = 64
"""How many of the latest prompts are kept: of a very small model the bytes alone would allow the
prompts of rows that ended long ago. More than the replies that `agents.worker` has under way."""
_MOST_ANSWERS = 256
"""Weighed questions whose answers are kept; each is a few hundred numbers. Chosen by us."""

_FILLING = -1
"""In the place of a sequence's number: a row of the batch that is nobody's."""


class KeyValues:
    """What attention remembers of one sequence: keys and values of every layer."""

    def __init__(self, room: int, adapter: str = "") -> None:
        """Start empty.

        Args:
            room: Number of tokens it will ever hold.
            adapter: What lies over the model that makes them; "" is the model alone.
        """
        self._room = room
        self.adapter = adapter
        self._held: tuple[Tensor, Tensor] | None = None
        """Keys and values, each (layers, 1, kv_heads, room, width)."""
        self.length = 0
        """Tokens held."""

    def extended(self, n_new: int, n_layers: int, like: Tensor) -> Extended:
        """Return each layer's view of the held tokens and of `n_new` behind them, to be written.

        Args:
            n_new: Tokens to come; `length` does not count them yet.
            n_layers: Of the model.
            like: Keys of a layer, (kv_heads, n, width), for their shape and dtype.
        """
        if self._held is None:
            shape = (n_layers, 1, like.shape[0], self._room, like.shape[2])
            self._held = like.new_empty(shape), like.new_empty(shape)
        end = self.length + n_new
        # All layers' views in a few calls: one by one they would take as long as the attention.
        whole = [held.narrow(3, 0, end).unbind(0) for held in self._held]
        new = [held.narrow(3, self.length, n_new).unbind(0) for held in self._held]
        return Extended(whole[0], whole[1], new[0], new[1])

    @property
    def n_bytes(self) -> int:
        """Memory it takes."""
        return sum(held.numel() * held.element_size() for held in self._held or ())

    def copy(self, room: int) -> KeyValues:
        """Return an independent copy with another room."""
        twin = KeyValues(room, self.adapter)
        if self._held is not None:
            twin._held = self._copied(self._held[0], room), self._copied(self._held[1], room)
        twin.length = self.length
        return twin

    def _copied(self, held: Tensor, room: int) -> Tensor:
        copied = held.new_empty((*held.shape[:3], room, held.shape[4]))
        copied[:, :, :, : self.length] = held[:, :, :, : self.length]
        return copied


class Extended(NamedTuple):
    """A sequence with new tokens behind it: views of one (1, kv_heads, n, width) per layer."""

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    new_keys: Sequence[Tensor]
    """The last of `keys`."""
    new_values: Sequence[Tensor]


class Reading(NamedTuple):
    """A prompt that was read; replies go on from copies of it."""

    sequence: KeyValues
    logits: Tensor
    """Of the token behind it, (vocabulary,) in float32."""

    @property
    def n_bytes(self) -> int:
        """Memory it takes."""
        return self.sequence.n_bytes + self.logits.numel() * self.logits.element_size()


class _Batch:
    """Several sequences in the place of a transformers cache, for one forward."""

    def __init__(self, rows: Sequence[KeyValues | None], n_layers: int) -> None:
        self._rows, self._n_layers = rows, n_layers
        self._extended: list[Extended | None] = []

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Extend each sequence by its row; a row without one is filling and stays as it is."""
        if layer_idx == 0:
            made = (keys.shape[2], self._n_layers)
            self._extended = [
                row.extended(*made, like) if row else None
                for row, like in zip(self._rows, keys, strict=True)
            ]
        all_keys, all_values = [], []
        for row, k, v in zip(
            self._extended, keys[:, None].unbind(), values[:, None].unbind(), strict=True
        ):
            if row is not None:
                row.new_keys[layer_idx].copy_(k)
                row.new_values[layer_idx].copy_(v)
                k, v = row.keys[layer_idx], row.values[layer_idx]
            all_keys.append(k)
            all_values.append(v)
        return all_keys, all_values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return 0: positions are always given."""
        return 0


def attend(
    module: torch.nn.Module,
    query: Tensor,
    keys: list[Tensor],
    values: list[Tensor],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Return each row's attention over its own keys, as transformers' interface wants it.

    Args:
        module: The calling layer; not used.
        query: Shape (rows, heads, n_new, width).
        keys: One (1, kv_heads, n_row, width) per row.
        values: Likewise.
        attention_mask: None; sequences are not padded.
        scaling: Factor of the logits; None is 1 / sqrt(width).
        others: What the layer passes besides.

    Returns:
        Shape (rows, n_new, heads, width), and no weights.

    Raises:
        NotImplementedError: the model wants an attention of another kind.
    """
    strange = {"softcap", "s_aux", "position_bias"} & {k for k in others if others[k] is not None}
    if strange or attention_mask is not None:
        raise NotImplementedError(f"attention with {', '.join(strange) or 'a mask'}")
    rows, heads, n_new, width = query.shape
    if n_new == 1:
        # The query heads that share a key head stand where queries of a sequence would: nothing
        # is repeated.
        kv_heads = keys[0].shape[1]
        grouped = query.reshape(rows, kv_heads, heads // kv_heads, width)
        each = [
            F.scaled_dot_product_attention(q, k, v, scale=scaling)
            for q, k, v in zip(grouped[:, None].unbind(), keys, values, strict=True)
        ]
        return torch.cat(each).reshape(rows, 1, heads, width), None
    each = [
        F.scaled_dot_product_attention(
            q, k, v, **_looking_back(n_new, k.shape[2]), scale=scaling, enable_gqa=True
        )
        for q, k, v in zip(query[:, None].unbind(), keys, values, strict=True)
    ]
    return torch.cat(each).transpose(1, 2), None


def _looking_back(n_new: int, n_all: int) -> dict[str, Any]:
    """Return how attention is told that none of the last `n_new` tokens sees a later one."""
    if n_new == n_all:
        return {"is_causal": True}  # the same bits as with a mask, and no mask to make
    return {"attn_mask": torch.ones(n_new, n_all, dtype=torch.bool).tril(n_all - n_new)}


class Decoder:
    """A causal language model as three questions about sequences."""

    def __init__(self, model: torch.nn.Module, dtype: torch.dtype, turn: Lock) -> None:
        """Wrap a transformers model whose attention is `attend`, computing in `dtype`.

        `turn` is held during each forward.
        """
        self._model = model
        self._n_layers = int(model.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
        self._turn = turn
        self._overlays = Overlays(model)
        self._multiple = _ROWS_MULTIPLE.get(dtype, 1)
        self._latest: OrderedDict[tuple[str, tuple[int, ...]], Reading] = OrderedDict()
        self._latest_bytes = 0
        self._answers: OrderedDict[Any, list[float]] = OrderedDict()

    def lay(self, name: str, adapters: Sequence[Adapter]) -> int:
        """Lay adapters over the model for sequences of that name; see `Overlays.add`."""
        with self._turn:
            return self._overlays.add(name, adapters)

    def lift(self, name: str) -> None:
        """Forget what was laid over the model under a name, if anything."""
        with self._turn:
            self._overlays.remove(name)

    def recall(
        self, prompt: Sequence[int], gone: Callable[[], bool], adapter: str = ""
    ) -> Reading | None:
        """Return a prompt as attention remembers it: found among the latest, or read now.

        The critic weighs the words of four scales behind one chat, what was badly said is said
        again, and what nothing in particular makes likely is the same question for all designs.

        Args:
            prompt: Token ids.
            gone: Asked between chunks; if so, returns None.
            adapter: What lies over the model; "" is the model alone.
        """
        key = adapter, tuple(prompt)
        if key in self._latest:
            self._latest.move_to_end(key)
            return self._latest[key]
        sequence = KeyValues(len(prompt), adapter)
        logits = self.read(sequence, prompt, gone)
        if logits is None:
            return None
        self._latest[key] = reading = Reading(sequence, logits)
        self._latest_bytes += reading.n_bytes
        while self._latest_bytes > _MOST_KEPT_BYTES or len(self._latest) > _MOST_KEPT:
            _, oldest = self._latest.popitem(last=False)
            self._latest_bytes -= oldest.n_bytes
        return reading

    def read(
        self, sequence: KeyValues, tokens: Sequence[int], gone: Callable[[], bool]
    ) -> Tensor | None:
        """Feed a prompt and return the next token's logits, (vocabulary,) in float32.

        Asks `gone()` between chunks; if so, returns None.
        """
        logits = None
        for start in range(0, len(tokens), _CHUNK):
            if gone():
                return None
            chunk = torch.tensor(tokens[start : start + _CHUNK])[None]
            logits = self._forward([sequence], chunk, keep=1)[0, 0]
        return logits

    def step(self, sequences: Sequence[KeyValues], tokens: Sequence[int]) -> Tensor:
        """Feed one token to each sequence; return logits (n_sequences, vocabulary), float32."""
        order = sorted(range(len(sequences)), key=lambda i: sequences[i].adapter)
        rows: list[int] = []
        for _, places in groupby(order, key=lambda i: sequences[i].adapter):
            group = list(places)
            rows += [*group, *[_FILLING] * (-len(group) % self._multiple)]
        batch = [None if i == _FILLING else sequences[i] for i in rows]
        fed = torch.tensor([0 if i == _FILLING else tokens[i] for i in rows])[:, None]
        logits = self._forward(batch, fed, keep=1)
        return logits[[rows.index(i) for i in range(len(sequences))], 0]

    def score(
        self, prompt: Sequence[int], options: Sequence[Sequence[int]], adapter: str = ""
    ) -> list[float]:
        """Return log p(option | prompt), summed over each option's tokens.

        The prompt is read once, and what all options begin with once behind a copy of it. Where
        they part they stand behind copies in one batch. What was asked lately is not weighed
        again: every design is held against the same question about nothing in particular.
        """
        key = adapter, tuple(prompt), tuple(map(tuple, options))
        if key not in self._answers:
            self._answers[key] = self._weighed(prompt, options, adapter)
        self._answers.move_to_end(key)
        if len(self._answers) > _MOST_ANSWERS:
            self._answers.popitem(last=False)
        return list(self._answers[key])

    def _weighed(
        self, prompt: Sequence[int], options: Sequence[Sequence[int]], adapter: str
    ) -> list[float]:
        """Return what `score` does, computed now."""
        read = self.recall(prompt, lambda: False, adapter)
        assert read is not None
        n_shared = _n_shared(options)
        longest = max(map(len, options))
        after = read.logits[None].log_softmax(-1)  # (1 + n_shared, vocabulary)
        sequence = read.sequence
        if n_shared:
            sequence = sequence.copy(len(prompt) + n_shared)
            fed = torch.tensor(options[0][:n_shared])[None]
            after = torch.cat([after, self._forward([sequence], fed, keep=0)[0].log_softmax(-1)])
        totals = [_summed(after, option[: n_shared + 1]) for option in options]
        if longest > n_shared + 1:
            copies = [sequence.copy(len(prompt) + longest) for _ in options]
            # Filled up behind: what stands after an option's end changes nothing before it.
            fed = torch.tensor([[*o[n_shared:-1], *[0] * (longest - len(o))] for o in options])
            logprobs = self._forward(copies, fed, keep=0).log_softmax(-1)
            for row, option in enumerate(options):
                totals[row] += _summed(logprobs[row], option[n_shared + 1 :])
        return totals

    def _forward(self, rows: Sequence[KeyValues | None], tokens: Tensor, keep: int) -> Tensor:
        """Feed tokens (rows, n_new); return float32 logits of the last `keep`, 0 for all."""
        starts = [row.length if row else 0 for row in rows]
        n_new = tokens.shape[1]
        with self._turn:
            self._overlays.spans = _spans(rows)
            logits: Tensor = self._model(
                input_ids=tokens,
                position_ids=torch.tensor(starts)[:, None] + torch.arange(n_new),
                past_key_values=_Batch(rows, self._n_layers),
                use_cache=True,
                logits_to_keep=keep,
            ).logits
        for row in rows:
            if row:
                row.length += n_new
        return logits.float()


def _n_shared(options: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all options begin with, the last of the shortest not counted."""
    n_most = min(map(len, options)) - 1
    first = options[0]
    return next((n for n in range(n_most) if any(o[n] != first[n] for o in options)), n_most)


def _summed(logprobs: Tensor, tokens: Sequence[int]) -> float:
    """Return the sum of the tokens' log-probabilities, row n of (rows, vocabulary) for the nth."""
    places = torch.tensor(tokens, dtype=torch.long)[:, None]
    return float(logprobs[: len(places)].gather(1, places).sum())


def _spans(rows: Sequence[KeyValues | None]) -> list[Span]:
    """Return who works on which rows; filling belongs to the sequence before it."""
    spans: list[Span] = []
    for place, row in enumerate(rows):
        adapter = row.adapter if row else spans[-1].adapter
        if spans and spans[-1].adapter == adapter:
            spans[-1] = spans[-1]._replace(stop=place + 1)
        else:
            spans.append(Span(place, place + 1, adapter))
    return [span for span in spans if span.adapter]
