"""A tiny chat model made on the spot, and engines on it and on the embedded one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from agents.engine import TransformersEngine
from orbweave.models import resolve

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXT = ["spider silk is strong and light", "the leaf carries water in veins", "collagen, bone: 12"]


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 3, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
    )
    fast.chat_template = CHATML
    fast.save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama, two layers, 32 wide, 4 heads on 2 key heads, 256 positions."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.4,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    model.lm_head.weight.data[2] = 0.0  # so that replies seldom end by themselves
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest_asyncio.fixture
async def tiny(tiny_folder: Path) -> AsyncIterator[TransformersEngine]:
    """An engine in float32 on the tiny model."""
    engine = TransformersEngine(tiny_folder, "tiny", dtype="float32")
    yield engine
    await engine.close()


@pytest.fixture(scope="session")
def base_folder() -> Path:
    """The embedded model from the real cache, built there if need be."""
    return resolve("base")


@pytest_asyncio.fixture
async def base(base_folder: Path) -> AsyncIterator[TransformersEngine]:
    """An engine on the embedded model."""
    engine = TransformersEngine(base_folder, "base")
    yield engine
    await engine.close()
