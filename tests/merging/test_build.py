"""References that are built: cached, reused, repaired, and written out with a card."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from merging.build import merge, preview, recipe_of, resolve_model
from merging.digests import digest
from merging.kernel import slerp
from orbweave import models
from orbweave.errors import Cancelled, ModelError, OutputError, UsageError
from orbweave.models import CatalogueEntry, export_model, show_model
from orbweave.paths import cache_root
from tests.merging.conftest import write_adapter, write_llama

ROOT = Path(__file__).parents[2]


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def _stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.fixture
def catalogue(tmp_path, monkeypatch) -> None:
    """The catalogue with a tiny base, an adapter `silk` over it, and a merge of the two."""
    base = write_llama(tmp_path / "tiny")
    write_adapter(tmp_path / "project" / "weights" / "silk")
    fields = {"kind": "language", "description": "-", "licence": "MIT"}
    entries = dict(models._catalogue())
    entries["silk"] = CatalogueEntry(
        name="silk", source="adapter:weights/silk", parents=(str(base),), **fields
    )
    entries["blend"] = CatalogueEntry(
        name="blend", source=f"merge:slerp({base}, silk, t=0.25)", **fields
    )
    monkeypatch.setattr(models, "_catalogue", lambda: entries)
    monkeypatch.setattr(models, "_PROJECT", tmp_path / "project")


def test_plain_references_are_resolved_as_ever(pair):
    assert resolve_model(str(pair[0])) == pair[0]
    with pytest.raises(ModelError, match="none called 'nobody'"):
        resolve_model("nobody")
    with pytest.raises(ModelError, match="got the server http://a/v1#x"):
        resolve_model("http://a/v1#x")


def test_a_merge_is_built_once_and_used_again(pair):
    a, b = pair
    told: list[str] = []
    folder = resolve_model(f"slerp({a}, {b}, t=0.25)", told.append)
    assert folder.parent == cache_root() / "merges"
    assert any(text.startswith(f"building slerp({a}, {b}, t=0.25) <- {a} <- {b}") for text in told)
    stamps = _stamps(folder)
    told.clear()
    assert resolve_model(f"slerp({a},{b},t=0.25)", told.append) == folder
    assert (_stamps(folder), told) == (stamps, [])
    for name, tensor in _weights(folder).items():
        torch.testing.assert_close(tensor, slerp(_weights(a)[name], _weights(b)[name], 0.25))


def test_another_t_or_another_parent_is_another_folder(pair):
    a, b = pair
    first = resolve_model(f"slerp({a}, {b}, t=0.25)")
    assert resolve_model(f"slerp({a}, {b}, t=0.3)") != first
    assert resolve_model(f"slerp({b}, {a}, t=0.25)") != first
    (b / "chat_template.jinja").write_text("changed")
    assert resolve_model(f"slerp({a}, {b}, t=0.25)") != first


def test_the_same_content_at_another_place_is_the_same_folder(pair, tmp_path):
    a, b = pair
    first = resolve_model(f"slerp({a}, {b}, t=0.25)")
    moved = b.rename(tmp_path / "moved")
    assert resolve_model(f"slerp({a}, {moved}, t=0.25)") == first


@pytest.mark.parametrize("damage", ["cut", "changed", "lost", "no manifest"])
def test_a_broken_cache_is_built_again(pair, damage, caplog):
    ref = f"slerp({pair[0]}, {pair[1]}, t=0.5)"
    folder = resolve_model(ref)
    weights, good = folder / "model.safetensors", (folder / "model.safetensors").read_bytes()
    if damage == "cut":
        weights.write_bytes(good[:-4])
    elif damage == "changed":
        weights.write_bytes(good[:-4] + b"\0\0\0\0")
    elif damage == "lost":
        (folder / "config.json").unlink()
    else:
        (folder / "manifest.json").unlink()
    assert resolve_model(ref) == folder
    assert weights.read_bytes() == good and (folder / "config.json").is_file()
    assert "is built again" in caplog.text


def test_nested_merges_and_adapters_are_built_from_the_inside(pair, tmp_path):
    a, b = pair
    adapter = write_adapter(tmp_path / "adapter")
    folder = resolve_model(f"slerp({a}, slerp({a}+{adapter}, {b}, t=0.5), t=0.5)")
    inner = _weights(resolve_model(f"slerp({a}+{adapter}, {b}, t=0.5)"))
    for name, tensor in _weights(folder).items():
        torch.testing.assert_close(tensor, slerp(_weights(a)[name], inner[name], 0.5))


def test_a_recipe_file_is_a_reference(pair, write_recipe):
    a, b = map(str, pair)
    recipe = write_recipe(
        merge_method="slerp",
        base_model=a,
        models=[{"model": a}, {"model": b}],
        parameters={"t": 0.25},
    )
    assert resolve_model(str(recipe)) == resolve_model(f"slerp({a}, {b}, t=0.25)")


def test_a_recipe_that_names_itself_is_refused(pair, write_recipe, tmp_path):
    path = str(tmp_path / "recipe.yaml")
    models_ = [{"model": str(pair[0])}, {"model": path}]
    write_recipe(
        merge_method="slerp", base_model=str(pair[0]), models=models_, parameters={"t": 0.5}
    )
    with pytest.raises(UsageError, match="names itself; take it out"):
        resolve_model(path)
    assert show_model(path)["lineage"] == [path, str(pair[0])]


def test_an_adapter_of_the_catalogue_is_a_model_and_an_adapter(catalogue, tmp_path):
    tiny = tmp_path / "tiny"
    folder = resolve_model("silk")
    assert resolve_model(f"{tiny}+silk") == resolve_model(f"{tiny}+{tmp_path}/project/weights/silk")
    assert _weights(folder).keys() == _weights(tiny).keys()
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(_weights(folder)[name], _weights(tiny)[name])
    assert show_model("silk")["lineage"] == ["silk", str(tiny)]
    with pytest.raises(ModelError, match=r"call merging\.build\.resolve_model"):
        models.resolve("silk")


def test_a_merge_of_the_catalogue_is_built(catalogue, tmp_path):
    tiny = tmp_path / "tiny"
    assert resolve_model("blend") == resolve_model(f"slerp({tiny}, silk, t=0.25)")
    assert show_model("blend")["lineage"] == [
        "blend",
        f"slerp({tiny}, silk, t=0.25)",
        str(tiny),
        "silk",
    ]


def test_profiles_are_chosen_by_name(tmp_path):
    a, b = (write_llama(tmp_path / name, n_layers=5, seed=i) for i, name in enumerate("ab"))
    steps = preview(f"slerp({a}, {b}, profile=paper)").steps
    t = {step.name: step.shares[1] for step in steps}
    layers = range(5)
    assert [t[f"model.layers.{i}.self_attn.q_proj.weight"] for i in layers] == [0, 0.5, 0.3, 0.7, 1]
    with pytest.raises(UsageError, match="wanted a profile as one of paper, linear, constant"):
        resolve_model(f"slerp({a}, {b}, profile=papr)")


def test_every_missing_parent_is_told(tmp_path, write_recipe, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [{"model": "./one"}, {"model": "./two"}]
    recipe = write_recipe(merge_method="slerp", base_model=names[0]["model"], models=names)
    with pytest.raises(ModelError, match=r"'\./one', found none.*'\./two', found none"):
        resolve_model(str(recipe))


def test_a_plain_model_is_no_recipe(pair):
    with pytest.raises(UsageError, match="wanted a merge recipe, got the model"):
        recipe_of(str(pair[0]))


# ---------------------------------------------------------------- the folder


def test_the_folder_is_a_whole_model_with_its_history(pair, tmp_path):
    out = tmp_path / "out"
    merge(f"slerp({pair[0]}, {pair[1]}, t=0.25)", out)
    names = {path.name for path in out.iterdir()}
    assert names == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "geometry.json",
        "mergekit_config.yml",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    recipe = yaml.safe_load((out / "mergekit_config.yml").read_text())
    assert recipe["merge_method"] == "slerp" and recipe["parameters"] == {"t": 0.25}
    card = (out / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["tags"] == ["merge", "mergekit", "orbweave"]
    for folder in pair:
        assert f"| `{folder}` | `{digest(folder / 'model.safetensors')}` |" in card
    assert "| along the arc (SLERP) | 100.0 % |" in card
    assert "| weights | median angle between the parents |" in card


def test_the_card_names_what_the_hub_knows(pair, tmp_path):
    for folder, name in zip(pair, ("org/one", "org/two"), strict=True):
        (folder / "README.md").write_text(f"---\nbase_model: {name}\nlicense: mit\n---\n")
    merge(f"slerp({pair[0]}, {pair[1]}, t=0.5)", tmp_path / "out")
    head = yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---")[1])
    assert head["base_model"] == ["org/one", "org/two"]
    assert (head["license"], head["base_model_relation"]) == ("mit", "merge")
    assert show_model(str(tmp_path / "out"))["lineage"][1:] == ["org/one", "org/two"]


def test_layers_and_dtype_of_the_result_stand_in_its_config(pair, write_recipe, tmp_path):
    sources = [{"model": str(folder), "layer_range": [1, 2]} for folder in pair]
    recipe = write_recipe(
        merge_method="slerp",
        base_model=str(pair[0]),
        slices=[{"sources": sources}],
        parameters={"t": 0.5},
        dtype="bfloat16",
    )
    merge(str(recipe), tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["num_hidden_layers"], config["dtype"]) == (1, "bfloat16")
    weights = _weights(tmp_path / "out")
    assert {t.dtype for t in weights.values()} == {torch.bfloat16}
    assert not any("layers.1." in name for name in weights)


def test_a_chosen_tokenizer_comes_with_its_chat_template(pair, write_recipe, tmp_path):
    a, b = map(str, pair)
    (pair[1] / "chat_template.jinja").write_text("learnt")
    recipe = write_recipe(
        merge_method="slerp",
        base_model=a,
        models=[{"model": a}, {"model": b}],
        parameters={"t": 0.5},
        tokenizer_source=b,
    )
    merge(str(recipe), tmp_path / "out")
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "learnt"


def test_an_existing_folder_is_kept_unless_forced(pair, tmp_path):
    (tmp_path / "out").mkdir()
    ref = f"slerp({pair[0]}, {pair[1]}, t=0.5)"
    with pytest.raises(OutputError, match="out, but it exists already"):
        merge(ref, tmp_path / "out")
    merge(ref, tmp_path / "out", force=True)
    assert (tmp_path / "out" / "config.json").is_file()


@pytest.mark.parametrize("place", ["a", "a/inside", "."])
def test_a_place_in_or_around_a_parent_is_refused(pair, tmp_path, place):
    with pytest.raises(UsageError, match="apart from its parents"):
        merge(f"slerp({pair[0]}, {pair[1]}, t=0.5)", tmp_path / place, force=True)
    assert (pair[0] / "model.safetensors").is_file()


def test_a_stopped_merge_leaves_nothing(pair, tmp_path):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(Cancelled):
        merge(f"slerp({pair[0]}, {pair[1]}, t=0.5)", tmp_path / "out", is_cancelled=lambda: True)
    assert sorted(tmp_path.iterdir()) == before


def test_a_full_disk_is_told_before_and_while_writing(pair, tmp_path, monkeypatch):
    ref, before = f"slerp({pair[0]}, {pair[1]}, t=0.5)", sorted(tmp_path.iterdir())
    usage = type("Usage", (), {"free": 10})()
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: usage)
        with pytest.raises(OutputError, match=r"wanted 0\.0 GB .* the disk has 0\.0 left"):
            merge(ref, tmp_path / "out")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(OutputError, match="No space left on device"):
        merge(ref, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_two_processes_build_once(pair, tmp_path):
    code = (
        "import sys, time, merging.build as b, merging.folder as f\n"
        "real = b.write_merge\n"
        "def slow(*a, **k):\n"
        "    print('built', flush=True); time.sleep(1.0); return real(*a, **k)\n"
        "b.write_merge = slow\n"
        "print(b.resolve_model(sys.argv[1]))\n"
    )
    args = [sys.executable, "-c", code, f"slerp({pair[0]}, {pair[1]}, t=0.5)"]
    children = [
        subprocess.Popen(args, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [child.communicate(timeout=110)[0].split() for child in children]
    assert sum(words.count("built") for words in said) == 1
    assert said[0][-1] == said[1][-1]


def test_importing_the_package_loads_no_torch():
    code = "import sys, merging.build; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


def test_a_merge_can_be_exported(pair, tmp_path):
    folder = resolve_model(f"slerp({pair[0]}, {pair[1]}, t=0.5)")
    export_model(str(folder), tmp_path / "plain")
    assert not (tmp_path / "plain" / "manifest.json").exists()
    assert (tmp_path / "plain" / "mergekit_config.yml").is_file()
