"""Attention and weighing against their formulas."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AutoModelForCausalLM

from agents.decoder import Decoder, KeyValues, attend

PROMPT = [5, 80, 81, 7, 300, 12]


@pytest.fixture
def decoder(tiny_folder: Path) -> Decoder:
    """A decoder in float32 on the tiny model."""
    AttentionInterface.register("orbweave", attend)
    model = AutoModelForCausalLM.from_pretrained(
        tiny_folder, dtype=torch.float32, attn_implementation="orbweave"
    )  # from_pretrained gives it in evaluation mode
    return Decoder(model, torch.float32, threading.Lock())


def by_formula(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Softmax attention of the last tokens, (n_new, heads, width), in float64."""
    heads, n_new, width = query.shape
    groups = heads // keys.shape[0]
    out = torch.zeros(n_new, heads, width, dtype=torch.float64)
    for head in range(heads):
        for token in range(n_new):
            seen = keys.shape[1] - n_new + token + 1
            held = keys[head // groups, :seen].double(), values[head // groups, :seen].double()
            weights = (held[0] @ query[head, token].double() / width**0.5).softmax(0)
            out[token, head] = weights @ held[1]
    return out


@pytest.mark.parametrize(("n_new", "lengths"), [(1, (1, 9, 4)), (5, (5, 5)), (3, (8, 3))])
def test_attention_is_that_of_the_formula(n_new: int, lengths: tuple[int, ...]) -> None:
    random = torch.Generator().manual_seed(1)
    query = torch.randn(len(lengths), 6, n_new, 8, generator=random)
    keys = [torch.randn(1, 2, n, 8, generator=random) for n in lengths]
    values = [torch.randn(1, 2, n, 8, generator=random) for n in lengths]
    found, _ = attend(nn.Identity(), query, keys, values, None)
    assert found.shape == (len(lengths), n_new, 6, 8)
    for row, (k, v) in enumerate(zip(keys, values, strict=True)):
        expected = by_formula(query[row], k[0], v[0])
        torch.testing.assert_close(found[row].double(), expected, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_a_copy_of_a_sequence_goes_on_by_itself(decoder: Decoder) -> None:
    first = KeyValues(20)
    decoder.read(first, PROMPT, lambda: False)
    second = first.copy(10)
    expected = decoder.step([second.copy(10)], [9])
    decoder.step([first], [40])
    assert (first.length, second.length) == (7, 6)
    assert torch.equal(decoder.step([second], [9]), expected)


OPTIONS = {
    "differ in the last token": [[9, 8, 7, 4], [9, 8, 7, 5], [9, 8, 7, 6]],
    "differ from the first token": [[9, 8], [7, 8, 6], [5]],
    "begin alike": [[9, 8, 7], [9, 8, 4, 4, 3], [9, 8, 5]],
    "one begins the other": [[9, 8], [9, 8, 7]],
    "are the same": [[9, 8], [9, 8]],
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@torch.inference_mode()
def test_options_are_weighed_token_by_token(decoder: Decoder, options: list[list[int]]) -> None:
    found = decoder.score(PROMPT, options)
    for option, value in zip(options, found, strict=True):
        expected, sequence = 0.0, KeyValues(20)
        logits = decoder.read(sequence, PROMPT, lambda: False)
        for token in option:
            assert logits is not None
            expected += float(logits.double().log_softmax(0)[token])
            logits = decoder.step([sequence], [token])[0]
        assert value == pytest.approx(expected, abs=1e-4)


def count_fed(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of tokens of every forward."""
    fed: list[int] = []
    forward = decoder._forward

    def counted(rows: Any, tokens: Tensor, keep: int) -> Tensor:
        fed.append(tokens.numel())
        return forward(rows, tokens, keep)

    monkeypatch.setattr(decoder, "_forward", counted)
    return fed


@torch.inference_mode()
def test_what_options_begin_with_is_read_once(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed = count_fed(decoder, monkeypatch)
    decoder.score(PROMPT, OPTIONS["differ in the last token"])
    assert fed == [len(PROMPT), 3]


@torch.inference_mode()
def test_a_question_asked_again_is_not_weighed_again(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.decoder._MOST_ANSWERS", 2)
    fed = count_fed(decoder, monkeypatch)
    first = decoder.score(PROMPT, [[9, 8], [7]])
    n_fed = len(fed)
    first.append(0.0)  # what the caller does with it is his own business
    assert decoder.score(PROMPT, [[9, 8], [7]]) == first[:2]
    assert len(fed) == n_fed
    for token in (1, 2):
        decoder.score(PROMPT, [[9, token], [7]])
    assert decoder.score(PROMPT, [[9, 8], [7]]) == first[:2]
    assert len(fed) == n_fed + 3
    assert len(decoder._answers) == 2
