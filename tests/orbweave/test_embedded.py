"""The embedded model becomes an ordinary Hugging Face folder, once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orbweave import embedded
from orbweave.embedded import build_base, built_base, wheel_version
from orbweave.errors import ModelError, OutputError
from orbweave.weights import read_header

pytestmark = pytest.mark.slow


@pytest.fixture
def linked_cache(base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own whose model shares the real one's bytes until it is changed."""
    monkeypatch.setenv("ORBWEAVE_CACHE", str(tmp_path))
    folder = tmp_path / "models" / base_folder.name
    folder.mkdir(parents=True)
    for file in base_folder.iterdir():
        os.link(file, folder / file.name)
    return folder


def own_copy(file: Path) -> bytearray:
    """Detach `file` from the real cache and return its bytes."""
    content = bytearray(file.read_bytes())
    file.unlink()
    return content


def test_folder_holds_smollm2_in_bfloat16(base_folder: Path) -> None:
    tensors = read_header(base_folder / "model.safetensors")
    assert len(tensors) == 272
    assert {tensor.dtype for tensor in tensors.values()} == {"BF16"}
    assert tensors["model.embed_tokens.weight"].shape == (49152, 576)
    assert tensors["model.layers.29.self_attn.k_proj.weight"].shape == (192, 576)


def test_transformers_loads_every_weight(base_folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(base_folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert model.num_parameters() == 134_515_008
    assert model.generation_config.eos_token_id == 2


def test_chat_template_is_chatml_and_ends_are_apart(base_folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    chat = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
    )
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")


def test_tokenizer_splits_digits_and_keeps_text(base_folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    text = "list:\n\n10. silk  25 µm 🕷️\n"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    words = [tokenizer.decode([i]) for i in ids]
    # Digits stand alone and a blank line before a number stays one token, as in the
    # original tokenizer (Digits, then GPT-2's rule).
    assert words[:6] == ["list", ":", "\n\n", "1", "0", "."]


def test_weights_are_those_that_transformers_reads_from_the_wheel(base_folder: Path) -> None:
    import torch
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from safetensors import safe_open
    from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor

    reader = GGUFReader(embedded._find_gguf())
    raw = {t.name: t for t in reader.tensors if t.name.startswith("blk.17.")}
    config = {"num_attention_heads": 9, "num_key_value_heads": 3}
    processor = LlamaTensorProcessor(config=config)
    with safe_open(base_folder / "model.safetensors", "pt") as mine:
        for gguf_name, name in (("attn_q", "q_proj"), ("attn_k", "k_proj"), ("attn_v", "v_proj")):
            tensor = raw[f"blk.17.{gguf_name}.weight"]
            array = dequantize(tensor.data, tensor.tensor_type)
            expected = processor.process(array, name=tensor.name).weights
            found = mine.get_tensor(f"model.layers.17.self_attn.{name}.weight")
            assert torch.equal(found, torch.from_numpy(expected.copy()).bfloat16())


def test_second_use_builds_nothing(linked_cache: Path) -> None:
    told: list[str] = []
    assert build_base(told.append) == linked_cache
    assert told == []


def test_damaged_cache_is_noticed(linked_cache: Path) -> None:
    weights = linked_cache / "model.safetensors"
    content = own_copy(weights)
    content[200_000_000] ^= 1
    weights.write_bytes(content)
    assert embedded._damage(linked_cache) == "model.safetensors was changed"
    weights.write_bytes(content[:-5])
    assert "model.safetensors has 269" in str(embedded._damage(linked_cache))
    weights.unlink()
    assert built_base() is None


def test_copied_cache_is_accepted_by_its_hashes(linked_cache: Path) -> None:
    config = linked_cache / "config.json"
    content = own_copy(config)
    config.write_bytes(content)
    os.utime(config, (1, 1))
    assert built_base() == linked_cache


@pytest.mark.timeout(600)
def test_two_processes_build_a_damaged_cache_again_once(
    linked_cache: Path, base_folder: Path
) -> None:
    (linked_cache / "tokenizer.json").unlink()
    litter = linked_cache.with_name(f".{linked_cache.name}.00.partial")
    litter.mkdir()
    code = "from orbweave.embedded import build_base; print(build_base(lambda s: print('told')))"
    pair = [start(code), start(code)]
    answers, logs = zip(*(process.communicate(timeout=550) for process in pair), strict=True)
    assert sorted(answer.count("told") for answer in answers) == [0, 3]
    assert {answer.splitlines()[-1] for answer in answers} == {str(linked_cache)}
    assert [line.count("is built again: ") for line in "".join(logs).splitlines()] == [1]
    assert not litter.exists()
    assert hashes(linked_cache) == hashes(base_folder)


def start(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def hashes(folder: Path) -> dict[str, str]:
    files = json.loads((folder / "manifest.json").read_text())["files"]
    return {name: file["sha256"] for name, file in files.items()}


def test_missing_wheel_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_WHEEL", "llm-smollm-that-is-not-there")
    with pytest.raises(ModelError, match="is not installed; run `make setup` again"):
        wheel_version()


def test_cache_that_cannot_be_written_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ORBWEAVE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OutputError, match="the variable ORBWEAVE_CACHE moves the cache"):
        build_base()
