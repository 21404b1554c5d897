"""Model references, their folders and what is told when something is wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from orbweave.errors import ModelError, OutputError, UsageError
from orbweave.files import sha256_file
from orbweave.models import (
    ModelRef,
    export_model,
    lineage,
    list_models,
    resolve,
    show_model,
)
from orbweave.paths import cache_root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like a model of 28 weights."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "llama"}')
    (path / "tokenizer.json").write_text("{}")
    (path / "README.md").write_text("---\nbase_model: org/parent\nlicense: mit\n---\n# Hello\n")
    save_file({"a": np.ones((4, 5), "f4"), "b": np.ones(8, "f4")}, path / "model.safetensors")
    return path


@pytest.mark.parametrize(
    ("text", "kind", "name", "revision"),
    [
        ("base", "catalogue", "base", None),
        (" base\n", "catalogue", "base", None),
        ("org/name", "hub", "org/name", None),
        ("org/na.me-1_b@v1.0", "hub", "org/na.me-1_b", "v1.0"),
        ("org/name@refs/pr/1", "hub", "org/name", "refs/pr/1"),
    ],
)
def test_reference_is_parsed(text: str, kind: str, name: str, revision: str | None) -> None:
    ref = ModelRef.parse(text)
    assert (ref.kind, ref.name, ref.revision) == (kind, name, revision)
    assert str(ref) == text.strip()


def test_endpoint_is_parsed() -> None:
    ref = ModelRef.parse("http://localhost:8000/v1#org/silk")
    assert (ref.kind, ref.url, ref.name) == ("endpoint", "http://localhost:8000/v1", "org/silk")
    assert str(ref) == "http://localhost:8000/v1#org/silk"


def test_folder_is_a_reference_and_hub_names_yield_to_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent.parent)
    assert ModelRef.parse(f"{folder.parent.name}/model").kind == "folder"
    assert resolve(str(folder)) == folder


@pytest.mark.parametrize("text", ["", " \n", "ba\x1bse", "\x00", "base\u202e"])
def test_empty_and_control_characters_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="wanted a model reference, got (nothing|control char)"):
        ModelRef.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "x" * 5000,
        "y" * 300 + "/z",
        "a/b/c",
        "org/../x",
        "org/name@",
        "@x",
        "-rf",
        "org name",
        "ftp://a/b",
        "base@1",
    ],
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="wanted a model"):
        ModelRef.parse(text)


@pytest.mark.parametrize(
    ("text", "kind", "parents", "options"),
    [
        ("base+org/silk", "adapter", ["base", "org/silk"], {}),
        ("org/a@v1+org/silk@v2", "adapter", ["org/a@v1", "org/silk@v2"], {}),
        ("base+org/silk+org/leaf", "adapter", ["base+org/silk", "org/leaf"], {}),
        ("slerp(base, org/b, t=0.4)", "merge", ["base", "org/b"], {"t": "0.4"}),
        ("slerp(base, base+org/silk)", "merge", ["base", "base+org/silk"], {}),
        (
            "slerp(slerp(base, org/b, t=1), org/c, profile=paper)",
            "merge",
            ["slerp(base, org/b, t=1)", "org/c"],
            {"profile": "paper"},
        ),
        ("slerp(base, org/b)+org/silk", "adapter", ["slerp(base, org/b)", "org/silk"], {}),
    ],
)
def test_made_models_are_parsed_and_written_as_typed(
    text: str, kind: str, parents: list[str], options: dict[str, str]
) -> None:
    ref = ModelRef.parse(text)
    assert (ref.kind, str(ref), dict(ref.options)) == (kind, text, options)
    assert [str(parent) for parent in ref.parents] == parents
    assert ModelRef.parse(str(ref)) == ref


def test_spaces_in_a_merge_do_not_matter() -> None:
    assert str(ModelRef.parse("slerp( base,org/b ,t = .4 )")) == "slerp(base, org/b, t=.4)"


def test_recipe_file_is_a_reference(tmp_path: Path) -> None:
    path = tmp_path / "merge.yaml"
    with pytest.raises(ModelError, match="wanted the recipe file .* found none"):
        ModelRef.parse(str(path))
    path.write_text("models: [{model: base}, {model: org/b}]\nbase_model: base\n")
    ref = ModelRef.parse(str(path))
    assert (ref.kind, str(ref)) == ("recipe", str(path))
    assert lineage(ref) == [str(path), "base", "HuggingFaceTB/SmolLM2-135M-Instruct", "org/b"]


def test_folder_with_a_plus_in_its_name_is_a_folder(folder: Path, tmp_path: Path) -> None:
    moved = folder.rename(tmp_path / "a+b")
    assert ModelRef.parse(str(moved)).kind == "folder"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("base+base", "wanted an adapter after the .*, got 'base', which is none"),
        ("base+slerp(base, base)", "wanted an adapter after"),
        ("base+", "got nothing"),
        ("+org/silk", "got nothing"),
        ("+" * 900, "got nothing"),
        ("slerp(base)", "wanted a merge as slerp"),
        ("slerp(base, org/b, org/c)", "wanted a merge as slerp"),
        ("slerp(base, org/b, t=0.1, t=0.2)", "wanted a merge as slerp"),
        ("slerp(base, org/b, t=0.1, profile=paper)", "wanted a merge as slerp"),
        ("slerp(base, org/b, s=0.1)", "wanted a merge as slerp"),
        ("ties(base, org/b)", "for anything else write a recipe file"),
        ("slerp(base, org/b, t=1.5)", "wanted t between 0 and 1, got '1.5'"),
        ("slerp(base, org/b, t=nan)", "wanted t between 0 and 1, got 'nan'"),
        ("slerp(base, org/b, t=-1)", "wanted t between 0 and 1, got '-1'"),
        ("slerp(base, org/b", "wanted a model"),
        ("slerp(base, http://a/v1#x)", "wanted models on disk in .*, got the server"),
    ],
)
def test_half_a_merge_is_refused(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        ModelRef.parse(text)


@pytest.mark.parametrize("text", ["base+org/silk", "slerp(base, org/b, t=0.4)"])
def test_made_models_are_shown_and_have_to_be_built(text: str) -> None:
    shown = show_model(text)
    assert shown["folder"] is None and str(shown["source"]) in {"adapter", "merge"}
    assert shown["lineage"] == [
        text,
        "base",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "org/silk" if "silk" in text else "org/b",
    ]
    with pytest.raises(ModelError, match=r"built .* first; call merging\.build\.resolve_model"):
        resolve(text)


@pytest.mark.parametrize(
    "text", ["http://localhost:8000/v1", "http://#x", "http://a:99999/v1#x", "http://a/v1#x y"]
)
def test_half_an_endpoint_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="wanted a model server as http://host:port/v1#name"):
        ModelRef.parse(text)


def test_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match="without a password") as told:
        ModelRef.parse("http://me:hunter2@localhost/v1#x")
    assert "hunter2" not in str(told.value)


def test_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(ModelError, match="none called 'bas'; did you mean base?"):
        ModelRef.parse("bas")


def test_missing_folder_is_told() -> None:
    with pytest.raises(ModelError, match="the model folder './nowhere', found none"):
        ModelRef.parse("./nowhere")


def test_catalogue_is_whole_and_base_is_first() -> None:
    entries = list_models()
    assert entries[0].name == "base"
    assert len(entries) == 17
    assert all(entry.licence and entry.description for entry in entries)
    kinds = {entry.source.partition(":")[0] for entry in entries}
    assert kinds == {"embedded", "shipped", "adapter", "hub", "merge"}


def test_model_of_the_other_kind_is_refused(folder: Path) -> None:
    with pytest.raises(
        UsageError, match="wanted a model for language, got sdxl, which is for image"
    ):
        resolve("sdxl")
    with pytest.raises(
        ModelError, match="wanted image model files .* found those of the kind language"
    ):
        resolve(str(folder), "image")


def test_hub_model_offline_says_what_to_do() -> None:
    with pytest.raises(ModelError, match="not in the Hugging Face cache .* use base"):
        resolve("nobody/has-this-model")


def test_endpoint_has_no_folder() -> None:
    with pytest.raises(ModelError, match="got the server http://a/v1#x; give a model on disk"):
        resolve("http://a/v1#x")


@pytest.mark.parametrize("n_cut", [1, 100])
def test_truncated_weights_are_named(folder: Path, n_cut: int) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-n_cut])
    with pytest.raises(ModelError, match=r"model\.safetensors, found .* the file is cut off"):
        resolve(str(folder))


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 64, b"\x02" + b"\0" * 7 + b"[]"])
def test_file_that_is_not_safetensors_is_named(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"wanted safetensors weights in .*model\.safetensors"):
        resolve(str(folder))


def test_missing_shard_is_named(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "c": "model-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"model-00002\.safetensors, found none"):
        resolve(str(folder))


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only pickled weights \(pytorch_model\.bin\)"):
        resolve(str(folder))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("adapter_config.json", "found an adapter; merge it"),
        ("trainer_state.json", "found a checkpoint without config.json"),
        ("notes.txt", "found no config.json; give the folder that holds it"),
    ],
)
def test_folder_without_a_config_is_explained(folder: Path, name: str, told: str) -> None:
    (folder / "config.json").rename(folder / name)
    with pytest.raises(ModelError, match=told):
        resolve(str(folder))


def test_broken_config_is_named(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"wanted JSON in .*config\.json"):
        resolve(str(folder))


def test_shown_model_tells_size_hash_and_lineage(folder: Path) -> None:
    shown = show_model(str(folder))
    assert shown["parameters"] == 28
    assert shown["sha256"] == sha256_file(folder / "model.safetensors")
    assert shown["size_bytes"] == (folder / "model.safetensors").stat().st_size
    assert (shown["kind"], shown["licence"]) == ("language", "mit")
    assert shown["lineage"] == [str(folder), "org/parent"]


def test_model_that_is_not_here_is_shown_without_fetching_it() -> None:
    shown = show_model("llama-3.1-8b")
    assert shown["folder"] is None and shown["sha256"] is None
    assert shown["lineage"] == ["llama-3.1-8b", "meta-llama/Llama-3.1-8B"]


def test_export_copies_the_plain_files_only(folder: Path, tmp_path: Path) -> None:
    (folder / "manifest.json").write_text("{}")
    (folder / "optimizer.pt").write_bytes(b"")
    target = export_model(str(folder), tmp_path / "out")
    expected = ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    assert sorted(path.name for path in target.iterdir()) == expected


def test_export_refuses_an_existing_target(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="out, but it exists already"):
        export_model(str(folder), tmp_path / "out")


def test_export_of_a_damaged_model_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "config.json", folder / "model.safetensors")
    with pytest.raises(ModelError, match="wanted safetensors weights"):
        export_model(str(folder), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_export_into_the_model_itself_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="got a target inside it"):
        export_model(str(folder), folder / "copy")


@pytest.mark.slow
def test_exported_base_speaks(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    target = export_model("base", tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(target)
    tokenizer = AutoTokenizer.from_pretrained(target)
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert "Paris" in tokenizer.decode(ids[0])


def test_importing_models_loads_no_heavy_library() -> None:
    code = (
        "import sys, orbweave.models as m; m.list_models(); "
        "print([n for n in ('torch', 'transformers', 'numpy', 'gguf') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_cache_moves_with_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORBWEAVE_CACHE", str(tmp_path / "elsewhere"))
    assert cache_root() == tmp_path / "elsewhere"
    monkeypatch.delenv("ORBWEAVE_CACHE")
    assert cache_root().is_absolute() and cache_root().name == "orbweave"
    assert not (tmp_path / "elsewhere").exists()
