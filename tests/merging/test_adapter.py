"""LoRA adapters, against PEFT itself."""

from __future__ import annotations

import json
import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from merging.adapter import open_adapter
from merging.build import resolve_model
from merging.parent import open_parent
from merging.tensors import open_weights
from orbweave.errors import ModelError
from tests.merging.conftest import HIDDEN, write_adapter, write_llama


@pytest.mark.parametrize(
    "settings",
    [
        {"r": 4, "lora_alpha": 8},
        {"r": 4, "lora_alpha": 8, "use_rslora": True},
        {"r": 3, "lora_alpha": 5, "use_dora": True},
        {"r": 4, "lora_alpha": 8, "rank_pattern": {"q_proj": 2}},
    ],
    ids=["lora", "rslora", "dora", "ranks"],
)
def test_the_adapted_model_speaks_as_pefts_own_merge(tmp_path, settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        load = AutoModelForCausalLM.from_pretrained
        base = write_llama(tmp_path / "base")
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        model = get_peft_model(load(base), LoraConfig(target_modules=targets, **settings))
        draw = torch.Generator().manual_seed(0)
        for name, weight in model.named_parameters():
            if "lora_B" in name or "magnitude" in name:
                weight.data += 0.1 * torch.rand(weight.shape, generator=draw)
        model.save_pretrained(tmp_path / "adapter")
        ids = torch.tensor([[2, 5, 7, 3]])
        with torch.no_grad():
            wanted = model.merge_and_unload()(ids).logits
            plain = load(base)(ids).logits
            ours = load(resolve_model(f"{base}+{tmp_path / 'adapter'}"))(ids).logits
    assert (wanted - plain).abs().max() > 1e-2
    torch.testing.assert_close(ours, wanted, atol=1e-6, rtol=1e-5)


def test_a_piece_that_begins_within_a_row_is_the_same_piece(tmp_path):
    base = write_llama(tmp_path / "base")
    adapter = open_adapter(write_adapter(tmp_path / "adapter"))
    weights = open_weights(open_parent("x", base, (adapter,)))
    name = "model.layers.1.self_attn.v_proj.weight"
    whole = torch.from_numpy(weights.read(name, 0, HIDDEN * HIDDEN))
    factors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    prefix = "base_model.model.model.layers.1.self_attn.v_proj.lora_"
    delta = 8 / 4 * factors[f"{prefix}B.weight"] @ factors[f"{prefix}A.weight"]
    stored = load_file(base / "model.safetensors")[name]
    torch.testing.assert_close(whole.reshape(HIDDEN, HIDDEN), stored + delta)
    for start, stop in ((0, 5), (7, 8), (13, 100), (250, 256)):
        piece = torch.from_numpy(weights.read(name, start, stop))
        torch.testing.assert_close(piece, whole[start:stop])
    untouched = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(
        torch.from_numpy(weights.read(untouched, 0, 9)),
        load_file(base / "model.safetensors")[untouched].reshape(-1)[:9],
    )


def test_two_adapters_are_laid_over_each_other(tmp_path):
    base = write_llama(tmp_path / "base")
    one = write_adapter(tmp_path / "one")
    twice = load_file(resolve_model(f"{base}+{one}+{one}") / "model.safetensors")
    once = load_file(resolve_model(f"{base}+{one}") / "model.safetensors")
    plain = load_file(base / "model.safetensors")
    for name, weight in plain.items():
        torch.testing.assert_close(twice[name] - weight, 2 * (once[name] - weight))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"peft_type": "IA3"}, "peft_type = 'IA3'"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out = 'True'"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"alpha_pattern": {"q_proj": 3}}, "alpha_pattern"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'"),
        ({"use_something_new": True}, "use_something_new = 'True'"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(tmp_path, settings, told):
    with pytest.raises(ModelError, match=f"found .*{told}.* cannot be applied here; merge it"):
        open_adapter(write_adapter(tmp_path / "adapter", **settings))


def test_weights_that_are_no_factors_are_refused_by_name(tmp_path):
    folder = write_adapter(tmp_path / "adapter")
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors["base_model.model.lm_head.weight"] = torch.ones(3, 3)
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"found base_model\.model\.lm_head\.weight, which cannot"):
        open_adapter(folder)


def test_a_factor_without_its_partner_is_told(tmp_path):
    folder = write_adapter(tmp_path / "adapter")
    tensors = load_file(folder / "adapter_model.safetensors")
    del tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"]
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(
        ModelError, match=r"wanted lora_A, lora_B of .*q_proj\.weight .* found lora_A"
    ):
        open_adapter(folder)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"peft_type": "LORA"}'])
def test_a_broken_configuration_is_told(tmp_path, content):
    folder = write_adapter(tmp_path / "adapter")
    path = folder / "adapter_config.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ModelError, match="wanted .*adapter"):
        open_adapter(folder)


def test_an_adapter_of_another_model_is_refused(tmp_path):
    base = write_llama(tmp_path / "base")
    deeper = open_adapter(write_adapter(tmp_path / "deeper", n_layers=3))
    with pytest.raises(
        ModelError, match=r"layers\.2\.self_attn\.q_proj\.weight, which the adapter"
    ):
        open_parent("base", base, (deeper,))
    wider = write_adapter(tmp_path / "wider")
    tensors = load_file(wider / "adapter_model.safetensors")
    save_file({n: torch.ones(20, 20) for n in tensors}, wider / "adapter_model.safetensors")
    with pytest.raises(
        ModelError, match=r"in the shape \(20, 20\) that the adapter .* found \(16, 16\)"
    ):
        open_parent("base", base, (open_adapter(wider),))


def test_the_adapters_own_tokenizer_comes_first(tmp_path):
    base, adapter = write_llama(tmp_path / "base"), write_adapter(tmp_path / "adapter")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, adapter / name)
    (adapter / "chat_template.jinja").write_text("learnt")
    built = resolve_model(f"{base}+{adapter}")
    assert (built / "chat_template.jinja").read_text() == "learnt"
    assert json.loads((built / "config.json").read_text())["model_type"] == "llama"
