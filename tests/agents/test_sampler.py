"""The sampler against transformers' logits processors."""

from __future__ import annotations

import pytest
import torch
from transformers.generation import logits_process as processors

from agents.generation import Sampling
from agents.sampler import Sampler
from orbweave.errors import EngineError

SAMPLINGS = [
    Sampling(temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0),
    Sampling(temperature=0.3, top_p=0.9, top_k=50, repetition_penalty=1.1),
    Sampling(temperature=1.7, top_p=0.5, top_k=0, repetition_penalty=0.8),
    Sampling(temperature=0.9, top_p=1.0, top_k=3, repetition_penalty=1.5),
    Sampling(temperature=0.01, top_p=0.01, top_k=5000, repetition_penalty=2.0),
]


def oracle(sampling: Sampling, logits: torch.Tensor, prompt: list[int]) -> torch.Tensor:
    """Probabilities, shape (vocabulary,), as transformers filters them."""
    chain = processors.LogitsProcessorList()
    chain.append(processors.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    chain.append(processors.TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        chain.append(processors.TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1.0:
        chain.append(processors.TopPLogitsWarper(sampling.top_p))
    return chain(torch.tensor([prompt]), logits[None])[0].double().softmax(0)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_distribution_is_that_of_transformers(sampling: Sampling) -> None:
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(300, generator=generator) * 4
        prompt = torch.randint(0, 300, (40,), generator=generator).tolist()
        ids, probabilities = Sampler(sampling, 0, prompt).distribution(logits)
        mine = torch.zeros(300, dtype=torch.float64).scatter(0, ids, probabilities)
        torch.testing.assert_close(mine, oracle(sampling, logits, prompt), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("vocabulary", [64, 300, 5000])
def test_the_likeliest_of_a_large_vocabulary_are_found_ties_included(vocabulary: int) -> None:
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(vocabulary, generator=generator).mul(4).round()
        for k in (1, 50):
            ids, _ = Sampler(Sampling(1.0, 1.0, k, 1.0), 0, []).distribution(logits)
            least = logits.sort(descending=True).values[k - 1]
            assert sorted(ids.tolist()) == (logits >= least).nonzero()[:, 0].tolist()


def test_draws_follow_the_distribution() -> None:
    sampler = Sampler(SAMPLINGS[0], 7, [])
    draws = torch.tensor([sampler.draw(torch.tensor([0.0, 1.0, 2.0])) for _ in range(4000)])
    shares = draws.bincount(minlength=3) / 4000
    expected = torch.tensor([0.0, 1.0, 2.0]).softmax(0)
    assert (shares - expected).abs().max() < 0.025  # three standard deviations


def test_temperature_zero_takes_the_likeliest() -> None:
    greedy = Sampling(temperature=0.0, repetition_penalty=1.0)
    assert Sampler(greedy, 0, []).draw(torch.tensor([1.0, 3.0, 3.0, -2.0])) == 1


def test_drawn_token_is_penalised_the_next_time() -> None:
    sampler = Sampler(Sampling(temperature=0.0, repetition_penalty=2.0), 0, [])
    logits = torch.tensor([3.0, 2.0, -5.0])
    assert [sampler.draw(logits) for _ in range(3)] == [0, 1, 0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_numbers_are_refused(bad: float) -> None:
    with pytest.raises(EngineError, match="not numbers; its weights are damaged"):
        Sampler(Sampling(), 0, []).draw(torch.tensor([0.0, bad, 1.0]))


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}, {"repetition_penalty": 0.0}]
)
def test_sampling_outside_its_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="lies outside its range"):
        Sampling(**wrong)  # type: ignore[arg-type]
