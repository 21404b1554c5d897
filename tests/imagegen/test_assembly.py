"""The shipped image model, put together in a cache from a tiny stand-in for its weights."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest

from imagegen.assembly import MANIFEST, AssembledModel, assembled
from orbweave.errors import ModelError, OutputError


@pytest.fixture
def weights(tiny_weights: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_weights, tmp_path / "weights"))


def test_the_folder_is_a_stock_diffusers_model(tiny_weights: Path, cache: Path) -> None:
    folder, sha256 = assembled(weights=tiny_weights, cache=cache)

    def read(name: str) -> dict[str, object]:
        document: dict[str, object] = json.loads((folder / name).read_text())
        return document

    assert read("model_index.json")["_class_name"] == "StableDiffusionPipeline"
    assert read("text_encoder/config.json")["use_attention_mask"] is True
    assert read("tokenizer/tokenizer_config.json")["model_max_length"] == 77
    scheduler = read("scheduler/scheduler_config.json")
    assert scheduler["prediction_type"] == "v_prediction" and scheduler["steps_offset"] == 1
    assert scheduler["timestep_spacing"] == "trailing" and scheduler["rescale_betas_zero_snr"]
    assert scheduler["beta_schedule"] == "scaled_linear"
    assert len(sha256) == 64 and sha256[:16] in folder.name
    named = set(read(MANIFEST))
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert there == named | {MANIFEST}


def test_the_second_use_takes_what_is_there(tiny_weights: Path, cache: Path) -> None:
    first = assembled(weights=tiny_weights, cache=cache)
    before = (first.folder / MANIFEST).stat().st_mtime_ns

    assert assembled(weights=tiny_weights, cache=cache) == first
    assert (first.folder / MANIFEST).stat().st_mtime_ns == before


def test_other_weights_make_another_folder(weights: Path, cache: Path) -> None:
    first = assembled(weights=weights, cache=cache)
    loom = json.loads((weights / "loom.json").read_text()) | {"max_tokens": 64}
    (weights / "loom.json").write_text(json.dumps(loom))
    second = assembled(weights=weights, cache=cache)

    assert first.folder != second.folder and first.sha256 != second.sha256
    assert first.folder.is_dir()


@pytest.mark.parametrize("damage", ["flipped byte", "missing file"])
def test_a_damaged_cache_is_noticed_and_built_again(
    tiny_weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    folder = assembled(weights=tiny_weights, cache=tmp_path).folder
    victim = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole = victim.read_bytes()
    if damage == "missing file":
        victim.unlink()
    else:
        victim.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))

    assert assembled(weights=tiny_weights, cache=tmp_path).folder == folder
    assert victim.read_bytes() == whole
    assert "damaged" in caplog.text and "unet" in caplog.text


def test_a_killed_build_leaves_nothing_behind(tiny_weights: Path, tmp_path: Path) -> None:
    target = assembled(weights=tiny_weights, cache=tmp_path).folder
    shutil.rmtree(target)
    leftover = target.with_name(f".{target.name}.dead.partial")
    leftover.mkdir()

    assert assembled(weights=tiny_weights, cache=tmp_path).folder == target
    assert not leftover.exists()


def test_two_at_once_build_one_model(tiny_weights: Path, tmp_path: Path) -> None:
    found: list[AssembledModel] = []

    def build() -> None:
        found.append(assembled(weights=tiny_weights, cache=tmp_path))

    threads = [threading.Thread(target=build) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 3 and len(set(found)) == 1
    folders = [p.name for p in (tmp_path / "imagegen").iterdir() if p.is_dir()]
    assert folders == [found[0].folder.name]


@pytest.mark.parametrize(
    "name", ["vae.json", "unet.json", "loom.json", "vae.safetensors", "unet.safetensors"]
)
def test_a_missing_shipped_file_is_named(weights: Path, tmp_path: Path, name: str) -> None:
    (weights / name).unlink()
    with pytest.raises(ModelError, match=rf"{name}.*install Orbweave again"):
        assembled(weights=weights, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "content", [b"version https://git-lfs.github.com/spec/v1\n", b"", None], ids=str
)
def test_truncated_weights_are_refused(
    weights: Path, tmp_path: Path, content: bytes | None
) -> None:
    path = weights / "unet.safetensors"
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(ModelError, match="unet.safetensors"):
        assembled(weights=weights, cache=tmp_path / "cache")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"max_tokens": 77, "scheduler": 3}'])
def test_an_unusable_loom_file_is_refused(weights: Path, tmp_path: Path, text: str) -> None:
    (weights / "loom.json").write_text(text)
    with pytest.raises(ModelError, match="loom.json"):
        assembled(weights=weights, cache=tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_said(tiny_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(OutputError, match="ORBWEAVE_CACHE"):
        assembled(weights=tiny_weights, cache=tmp_path / "cache")
