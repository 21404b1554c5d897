"""Adapters side by side on one base, against models that each was merged into."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from agents.engine import TransformersEngine
from agents.engines import Engines, layers
from agents.generation import Generation, Message, Sampling
from merging.adapter import open_adapter
from merging.build import resolve_model
from orbweave.errors import EngineError, ModelError
from orbweave.models import ModelRef

GREEDY = Sampling(temperature=0.0, repetition_penalty=1.0)
WILD = Sampling(temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0)
QUESTIONS = ("silk?", "what carries water in the leaf?", "12", "bone " * 9, "strong")


def ask(text: str, **options: Any) -> Generation:
    return Generation(
        (Message("user", text),), **({"max_new_tokens": 24, "sampling": WILD} | options)
    )


def write_adapter(folder: Path, base: Path, seed: int, rank: int = 4, **settings: Any) -> Path:
    """Write random LoRA factors for some layers of a model."""
    folder.mkdir()
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, weight in load_file(base / "model.safetensors").items():
        if name.endswith(("q_proj.weight", "v_proj.weight", "down_proj.weight")):
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            rows, columns = weight.shape
            spread = float(weight.float().std())
            a = torch.randn(rank, columns, generator=random) / columns**0.5
            b = torch.randn(rows, rank, generator=random) * spread * 2
            tensors |= {f"{stem}.lora_A.weight": a, f"{stem}.lora_B.weight": b}
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank} | settings
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def merged(base: Path, adapters: list[Path], target: Path) -> Path:
    """Return a copy of a model with W + s B A written out by the formula."""
    shutil.copytree(base, target)
    weights = load_file(target / "model.safetensors")
    for folder in adapters:
        config = json.loads((folder / "adapter_config.json").read_text())
        factors = load_file(folder / "adapter_model.safetensors")
        rank = config["r"]
        scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
        for name in [n for n in factors if "lora_A" in n]:
            layer = name.removeprefix("base_model.model.").replace(".lora_A", "")
            weights[layer] += scale * factors[name.replace("lora_A", "lora_B")] @ factors[name]
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


@pytest.fixture
def adapters(tiny_folder: Path, tmp_path: Path) -> list[Path]:
    """Two random adapters of different ranks, the second rank-stabilised."""
    return [
        write_adapter(tmp_path / "silk", tiny_folder, 1, rank=4),
        write_adapter(tmp_path / "leaf", tiny_folder, 2, rank=6, use_rslora=True),
    ]


async def test_each_adapter_answers_as_the_model_it_was_merged_into(
    tiny_folder: Path, adapters: list[Path], tmp_path: Path
) -> None:
    silk, leaf = map(open_adapter, adapters)
    base = TransformersEngine(tiny_folder, "base", dtype="float32")
    shared = [base, base.beside("a", [silk]), base.beside("b", [leaf]),
              base.beside("ab", [silk, leaf])]  # fmt: skip
    folders = [
        tiny_folder,
        merged(tiny_folder, adapters[:1], tmp_path / "a"),
        merged(tiny_folder, adapters[1:], tmp_path / "b"),
        merged(tiny_folder, adapters, tmp_path / "ab"),
    ]
    chat = (Message("user", "silk?"),)
    options = ["yes", " no way", "the leaf carries water"]
    answers, weights = [], []
    for engine, folder in zip(shared, folders, strict=True):
        alone = TransformersEngine(folder, "alone", dtype="float32")
        weights.append(await alone.logprobs(chat, options))
        assert await engine.logprobs(chat, options) == pytest.approx(weights[-1], abs=2e-4)
        answers.append([(await alone.generate(ask(q, sampling=GREEDY))).text for q in QUESTIONS])
        await alone.close()
    asked = [e.generate(ask(q, sampling=GREEDY)) for e in shared for q in QUESTIONS]
    together = [reply.text for reply in await asyncio.gather(*asked)]
    assert together == sum(answers, [])
    assert len({tuple(values) for values in weights}) == 4
    for engine in shared:
        await engine.close()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_companions_under_other_adapters_do_not_change_a_reply(
    tiny_folder: Path, adapters: list[Path], dtype: Any
) -> None:
    base = TransformersEngine(tiny_folder, "base", dtype=dtype)
    engines = [base, *(base.beside(a.name, [open_adapter(a)]) for a in adapters)]
    alone = [(await e.generate(ask(q, seed=5))).text for e in engines for q in QUESTIONS]
    asked = [e.generate(ask(q, seed=5)) for e in engines for q in QUESTIONS]
    assert [reply.text for reply in await asyncio.gather(*asked)] == alone
    for engine in engines:
        await engine.close()


async def test_an_adapter_takes_its_own_size_and_gives_it_back(
    tiny_folder: Path, adapters: list[Path]
) -> None:
    base = TransformersEngine(tiny_folder, "base", dtype="float32")
    decoder = base._loaded.decoder
    stored = load_file(adapters[0] / "adapter_model.safetensors")
    size = sum(t.numel() * 4 for t in stored.values())
    assert decoder.lay("probe", [open_adapter(adapters[0])]) == size
    decoder.lift("probe")
    assert not any(decoder._overlays._layers.values())
    await base.close()


async def test_closing_one_engine_leaves_the_others_and_the_last_frees_the_model(
    tiny_folder: Path, adapters: list[Path]
) -> None:
    base = TransformersEngine(tiny_folder, "base", dtype="float32")
    silk = base.beside("silk", [open_adapter(adapters[0])])
    waiting = asyncio.create_task(base.generate(ask("silk", max_new_tokens=230)))
    await asyncio.sleep(0)
    await base.close()
    with pytest.raises(EngineError, match="base, the engine was closed"):
        await waiting
    assert (await silk.generate(ask("silk"))).n_tokens > 0
    thread = silk._loaded.worker._thread
    await silk.close()
    assert not thread.is_alive()
    with pytest.raises(EngineError, match="the engine is closed"):
        silk.beside("leaf", [open_adapter(adapters[1])])


async def test_an_adapter_of_another_model_is_refused_and_nothing_is_left(
    tiny_folder: Path, adapters: list[Path]
) -> None:
    file = adapters[0] / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(n for n in tensors if "lora_A" in n)
    tensors[name] = tensors[name][:, :-1].contiguous()
    save_file(tensors, file)
    base = TransformersEngine(tiny_folder, "base", dtype="float32")
    with pytest.raises(ModelError, match="give the model it was trained on"):
        base.beside("silk", [open_adapter(adapters[0])])
    assert len(base._loaded._engines) == 1
    await base.close()


async def test_engines_opened_by_name_share_the_base(
    tiny_folder: Path, adapters: list[Path]
) -> None:
    engines = Engines()
    names = [str(tiny_folder), *(f"{tiny_folder}+{folder}" for folder in adapters)]
    opened = [engines.open(name) for name in names[::-1]]
    assert [engine.model for engine in opened] == names[::-1]
    assert len({id(engine._loaded) for engine in opened}) == 1  # type: ignore[union-attr]
    texts = {(await e.generate(ask("silk?", sampling=GREEDY))).text for e in opened}
    assert len(texts) == 3
    for engine in opened:
        await engine.close()
    again = engines.open(names[0])
    assert (await again.generate(ask("silk?"))).n_tokens > 0
    await again.close()


def test_layers_of_a_reference_are_named_nearest_to_the_base_first(
    tiny_folder: Path, adapters: list[Path]
) -> None:
    root, over = layers(ModelRef.parse(f"{tiny_folder}+{adapters[0]}+{adapters[1]}"))
    assert (str(root), list(map(str, over))) == (str(tiny_folder), list(map(str, adapters)))
    root, over = layers(ModelRef.parse("generalist"))
    assert (str(root), list(map(str, over))) == ("base", ["generalist"])


@pytest.mark.slow
async def test_the_shipped_adapter_and_a_random_one_share_the_embedded_base(
    base_folder: Path, tmp_path: Path
) -> None:
    random = write_adapter(tmp_path / "random", base_folder, 3, rank=8)
    engines = Engines()
    names = ["base", "generalist", f"base+{random}"]
    shared = [engines.open(name) for name in names]
    chat = (Message("user", "What is the capital of France? Answer in one word."),)
    options = ["Paris", "London", "Rome"]
    found = [await engine.logprobs(chat, options) for engine in shared]
    for name, values in zip(names, found, strict=True):
        alone = TransformersEngine(resolve_model(name), name)
        expected = await alone.logprobs(chat, options)
        # Both round to bfloat16, the merged weights once more.
        assert values == pytest.approx(expected, abs=0.35)
        assert values.index(max(values)) == expected.index(max(expected))
        await alone.close()
    assert len({tuple(values) for values in found}) == 3
    for engine in shared:
        await engine.close()


async def test_a_steered_merge_in_memory_answers_as_the_folder_that_is_built(
    tiny_folder: Path, adapters: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORBWEAVE_CACHE", str(tmp_path / "cache"))
    silk, leaf = adapters
    ref = f"steered({tiny_folder}+{silk}=0.65, {tiny_folder}+{leaf}=0.35)"
    engine = Engines().open(ref)
    assert not (tmp_path / "cache" / "merges").exists()
    built = TransformersEngine(resolve_model(ref), "built")
    parent = TransformersEngine(tiny_folder, "parent")
    chat, options = (Message("user", "silk?"),), ["yes", " no way", "the leaf carries water"]
    assert await engine.logprobs(chat, options) == await built.logprobs(chat, options)
    assert await engine.logprobs(chat, options) != await parent.logprobs(chat, options)
    for each in (engine, built, parent):
        await each.close()


async def test_weights_of_another_model_are_refused(tiny_folder: Path) -> None:
    weights = load_file(tiny_folder / "model.safetensors")
    lost = {name: w for name, w in weights.items() if "layers.1" not in name}
    strange = {name: w[:1] if w.ndim == 2 else w for name, w in weights.items()}
    for wrong in (lost, strange, weights | {"wheel": weights["model.norm.weight"]}):
        with pytest.raises(ModelError, match="wanted weights that fit tiny"):
            TransformersEngine(tiny_folder, "tiny", weights=wrong)
