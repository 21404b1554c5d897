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
        self._layers: list[tuple[Tensor, Tensor]] = []
        self.length = 0
        """Tokens held."""

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write new tokens behind the held ones and return all, each (kv_heads, n, width)."""
        if layer == len(self._layers):
            shape = (keys.shape[0], self._room, keys.shape[2])
            self._layers.append((keys.new_empty(shape), values.new_empty(shape)))
        end = self.length + keys.shape[1]
        held_keys, held_values = self._layers[layer]
        held_keys[:, self.length : end] = keys
        held_values[:, self.length : end] = values
        return held_keys[:, :end], held_values[:, :end]

    @property
    def n_bytes(self) -> int:
        """Memory it takes."""
        return sum(2 * keys.numel() * keys.element_size() for keys, _ in self._layers)

    def copy(self, room: int) -> KeyValues:
        """Return an independent copy with another room."""
        twin = KeyValues(room, self.adapter)
        for layer, (keys, values) in enumerate(self._layers):
            twin.extend(layer, keys[:, : self.length], values[:, : self.length])
        twin.length = self.length
        return twin


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
    """Several sequences in the place of a transformers cache."""

    def __init__(self, rows: Sequence[KeyValues | None]) -> None:
        self._rows = rows

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Extend each sequence by its row; a row without one is filling and stays as it is."""
        rows = zip(self._rows, keys, values, strict=True)
        held = [row.extend(layer_idx, k, v) if row else (k, v) for row, k, v in rows]
        return [k for k, _ in held], [v for _, v in held]

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
        keys: One (kv_heads, n_row, width) per row.
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
    out = torch.empty_like(query)
    for row, (q, k, v) in enumerate(zip(query, keys, values, strict=True)):
        groups, n_new, n_all = q.shape[0] // k.shape[0], q.shape[1], k.shape[1]
        mask = None
        if n_new == 1:
            # The query heads that share a key head stand where queries of a sequence would:
            # nothing is repeated.
            q = q.view(k.shape[0], groups, -1)
        else:
            k, v = k.repeat_interleave(groups, 0), v.repeat_interleave(groups, 0)
            mask = torch.ones(n_new, n_all, dtype=torch.bool).tril(n_all - n_new)
        result = F.scaled_dot_product_attention(q[None], k[None], v[None], mask, scale=scaling)
        out[row] = result.view(out.shape[1:])
    return out.transpose(1, 2), None


class Decoder:
    """A causal language model as three questions about sequences."""

    def __init__(self, model: torch.nn.Module, dtype: torch.dtype, turn: Lock) -> None:
        """Wrap a transformers model whose attention is `attend`, computing in `dtype`.

        `turn` is held during each forward.
        """
        self._model = model
        self._turn = turn
        self._overlays = Overlays(model)
        self._multiple = _ROWS_MULTIPLE.get(dtype, 1)
        self._latest: OrderedDict[tuple[str, tuple[int, ...]], Reading] = OrderedDict()
        self._latest_bytes = 0

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
        while self._latest_bytes > _MOST_KEPT_BYTES:
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

        The prompt is read once; the options then stand behind copies of it in one batch.
        """
        read = self.recall(prompt, lambda: False, adapter)
        assert read is not None
        first = read.logits.log_softmax(0)
        totals = [float(first[option[0]]) for option in options]
        longest = max(map(len, options))
        if longest > 1:
            copies = [read.sequence.copy(len(prompt) + longest) for _ in options]
            # Filled up behind: what stands after an option's end changes nothing before it.
            fed = torch.tensor([[*o[:-1], *[0] * (longest - len(o))] for o in options])
            logprobs = self._forward(copies, fed, keep=0).log_softmax(-1)
            for row, option in enumerate(options):
                rest = torch.tensor(option[1:], dtype=torch.long)[:, None]
                totals[row] += float(logprobs[row, : len(rest)].gather(1, rest).sum())
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
                past_key_values=_Batch(rows),
                use_cache=True,
                logits_to_keep=keep,
            ).logits
        for row in rows:
            if row:
                row.length += n_new
        return logits.float()


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
