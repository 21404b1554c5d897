"""Image adapters: what the recipe takes, and that training one teaches what it was shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imagegen.adapter_recipe import AdapterRecipe, captioned_pictures
from imagegen.lora import find_adapter, triggered
from orbweave.errors import Cancelled, ModelError, OutputError, UsageError
from tests.imagegen.tiny_models import build


def recipe(**changes: Any) -> AdapterRecipe:
    small: dict[str, Any] = {"name": "inkwash", "images": "pictures", "trigger": "inkwash"}
    small |= {"rank": 4, "alpha": 8, "layers": "all", "size_px": 64, "steps": 6, "batch": 4}
    small |= {"learning_rate": 1e-2, "checkpoint_steps": 2}
    return AdapterRecipe.model_validate(small | changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three red pictures with captions beside them."""
    (tmp_path / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for name in ("web", "leaf", "bone"):
        grain = rng.integers(-20, 20, (64, 64, 3)) + (220, 30, 30)
        Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(
            tmp_path / "pictures" / f"{name}.png"
        )
        (tmp_path / "pictures" / f"{name}.txt").write_text(f"a {name}\n")
    return tmp_path


def test_pictures_of_a_folder_have_their_captions_beside_them(folder: Path) -> None:
    (folder / "pictures" / "notes.md").write_text("no picture")
    found = captioned_pictures(recipe(), folder)
    assert [(p.path.stem, p.caption) for p in found] == [
        ("bone", "a bone"),
        ("leaf", "a leaf"),
        ("web", "a web"),
    ]


@pytest.mark.parametrize("keys", [("image", "text"), ("file_name", "caption")])
def test_pictures_of_a_jsonl_file_are_beside_it(folder: Path, keys: tuple[str, str]) -> None:
    row = {keys[0]: "pictures/web.png", keys[1]: "a  golden\nweb"}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n\n")
    (found,) = captioned_pictures(recipe(images="rows.jsonl"), folder)
    assert found.caption == "a golden web" and found.path.is_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "JSON object in line 1"),
        ("{", "JSON object in line 1"),
        ("[" * 100_000, "JSON object in line 1"),
        ('{"text": "no picture"}', "one of image, file_name in line 1"),
        ('{"image": "nowhere.png"}', "nowhere.png of line 1 of .*, found no such file"),
        ('{"image": "pictures"}', "pictures of line 1 of .*, found a folder; check the path"),
        ("", "found none"),
        (json.dumps({"image": "a.png", "text": "x" * 2_001}), "line 1 .* got 2,001; shorten it"),
        (b"\xff\xfe", "none that is UTF-8"),
    ],
)
def test_bad_rows_are_told(folder: Path, text: str | bytes, message: str) -> None:
    content = text if isinstance(text, bytes) else text.encode()
    (folder / "rows.jsonl").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        captioned_pictures(recipe(images="rows.jsonl"), folder)


def test_a_picture_needs_a_caption_or_a_trigger(folder: Path) -> None:
    (folder / "pictures" / "web.txt").unlink()
    assert len(captioned_pictures(recipe(), folder)) == 3
    with pytest.raises(UsageError, match="write one into web.txt, or give the recipe a trigger"):
        captioned_pictures(recipe(trigger=""), folder)
    with pytest.raises(UsageError, match="wanted pictures .* found none"):
        captioned_pictures(recipe(images="nowhere"), folder)
    with pytest.raises(UsageError, match="wanted pictures .* found none"):
        captioned_pictures(recipe(images="~nobody-of-this-name"), folder)


def test_a_missing_caption_of_a_jsonl_file_belongs_into_its_line(folder: Path) -> None:
    (folder / "rows.jsonl").write_text('\n{"image": "pictures/web.png", "label": "a web"}\n')
    with pytest.raises(UsageError, match="found none; write one into line 2 of .*rows.jsonl, or"):
        captioned_pictures(recipe(images="rows.jsonl", trigger=""), folder)


def test_trigger_words_are_put_in_front_once() -> None:
    from imagegen.lora import Adapter

    ink = Adapter("a", 1.0, Path("a"), "inkwash", "")
    assert triggered("a web", [ink, ink]) == "inkwash, a web"
    assert triggered("a web, Inkwash", [ink]) == "a web, Inkwash"
    assert triggered("", [ink]) == "inkwash"
    assert triggered("a web", [ink._replace(weight=0.0)]) == "a web"


def test_an_adapter_that_is_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    for name in ("a", "b"):
        (tmp_path / "two" / f"{name}.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="found a.safetensors, b.safetensors; name the file"):
        find_adapter(str(tmp_path / "two"), 1.0)
    with pytest.raises(ModelError, match="found none; check the path"):
        find_adapter(str(tmp_path / "c.safetensors"), 1.0)
    with pytest.raises(ModelError, match="found none; check the path"):
        find_adapter("~nobody-of-this-name/c.safetensors", 1.0)
    with pytest.raises(ModelError, match="safetensors weights"):
        find_adapter(str(tmp_path / "two" / "a.safetensors"), 1.0)
    (tmp_path / "notes.png").write_text("my own, and a long one")
    with pytest.raises(ModelError, match="found something .*; give a LoRA adapter as a .safetens"):
        find_adapter(str(tmp_path / "notes.png"), 1.0)
    with pytest.raises(UsageError, match="pickled file .* models convert .* --trust-pickle"):
        find_adapter(str(tmp_path / "old.ckpt"), 1.0)


# --------------------------------------------------------------------------------- training


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sd", tmp_path_factory.mktemp("tiny") / "sd")


Train = Callable[..., Any]


@pytest.fixture
def train(folder: Path, tiny: Path) -> Train:
    from imagegen.adapter_training import train_adapter

    def trained(out: str, asked: AdapterRecipe, **options: Any) -> Any:
        own = asked.model_copy(update={"model": options.pop("model", str(tiny))})
        return train_adapter(own, folder / out, beside=folder, **options)

    return trained


def weights(path: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(path / "pytorch_lora_weights.safetensors")


slow = pytest.mark.slow


@slow
def test_training_teaches_the_pictures_to_the_trigger(
    train: Train, tiny: Path, folder: Path
) -> None:
    from imagegen.pipeline import Renderer
    from orbweave.records import RenderRequest

    made = train("run", recipe(steps=16, keep=0.5))
    assert made.last_loss < 0.9 * made.first_loss

    renderer = Renderer(dtype="float32")

    def picture(prompt: str, *adapters: str) -> Any:
        asked = RenderRequest(
            prompt=prompt, model=str(tiny), width=64, height=64, steps=4, guidance=1.0,
            adapters=tuple((ref, 1.0) for ref in adapters),
        )  # fmt: skip
        path = renderer.render(asked, folder / "drawn", force=True)[0].path
        with Image.open(path) as image:
            return np.asarray(image).astype(float)

    (folder / "untold").mkdir()
    from safetensors.numpy import load_file, save_file

    source = made.folder / "pytorch_lora_weights.safetensors"
    save_file(load_file(source), folder / "untold" / "a.safetensors", {"format": "pt"})
    bare = picture("a web")
    with_trigger = picture("a web", str(made.folder))
    without = picture("a web", str(folder / "untold"))
    assert find_adapter(str(made.folder), 1.0).trigger == "inkwash"
    assert np.abs(with_trigger - bare).mean() > 1
    assert np.abs(with_trigger - without).mean() > 0.2


@slow
def test_an_interrupted_training_goes_on_exactly(train: Train, folder: Path) -> None:
    straight = train("straight", recipe())
    done: list[int] = []
    with pytest.raises(Cancelled, match="stopped at step 3"):
        train(
            "broken",
            recipe(),
            on_step=lambda step, _, __: done.append(step),
            cancelled=lambda: len(done) == 3,
        )
    broken = train("broken", recipe())

    one, two = weights(straight.folder), weights(broken.folder)
    assert one.keys() == two.keys() and len(one) > 10
    assert all(np.array_equal(one[key], two[key]) for key in one)
    rows = (folder / "broken" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [1, 2, 3, 4, 5, 6]


@slow
def test_a_damaged_picture_leaves_nothing_behind_and_can_be_mended(
    train: Train, folder: Path
) -> None:
    web = folder / "pictures" / "web.png"
    whole = web.read_bytes()
    web.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"web\.png, which is damaged"):
        train("run", recipe(steps=1))
    assert not (folder / "run").exists()
    web.write_bytes(whole)
    assert train("run", recipe(steps=1)).steps == 1


def test_a_file_where_the_run_should_go_is_told_before_the_model_is_loaded(
    train: Train, folder: Path
) -> None:
    (folder / "run").touch()
    with pytest.raises(OutputError, match="is no folder"):
        train("run", recipe(), load=lambda model: pytest.fail("loaded"))


@pytest.mark.parametrize("name", ["checkpoint-final/a.bin", "checkpoint-5/model.bin", "thesis"])
def test_a_folder_of_something_else_is_left_as_it_is(train: Train, folder: Path, name: str) -> None:
    (folder / "run" / name).parent.mkdir(parents=True)
    (folder / "run" / name).touch()
    with pytest.raises(OutputError, match="found other files there; give another --out"):
        train("run", recipe(), load=lambda model: pytest.fail("loaded"))
    assert [p for p in (folder / "run").rglob("*") if p.is_file()] == [folder / "run" / name]


def test_a_recipe_note_that_is_not_text_is_told(train: Train, folder: Path) -> None:
    (folder / "run").mkdir()
    (folder / "run" / "recipe.json").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="its recipe or pictures were others"):
        train("run", recipe(), load=lambda model: pytest.fail("loaded"))


@slow
def test_more_steps_go_on_and_fewer_or_another_recipe_do_not(train: Train) -> None:
    train("run", recipe(steps=2))
    assert train("run", recipe(steps=3)).steps == 3
    with pytest.raises(UsageError, match="at least the 3 steps that are done in .*, got 2; give m"):
        train("run", recipe(steps=2), load=lambda model: pytest.fail("loaded"))
    with pytest.raises(UsageError, match="its recipe or pictures were others"):
        train("run", recipe(steps=3, rank=2))


@slow
def test_a_second_training_in_the_folder_is_refused_while_the_first_runs(
    train: Train, folder: Path
) -> None:
    (folder / "other").symlink_to("run")
    refused: list[int] = []

    def on_step(step: int, _: int, __: float) -> None:
        for name in ("run", "other"):
            with pytest.raises(OutputError, match="run, but another training into it is under way"):
                train(name, recipe(steps=2), load=lambda model: pytest.fail("loaded"))
        refused.append(step)

    assert train("run", recipe(steps=2), on_step=on_step).folder.is_dir()
    assert refused == [1, 2]
    assert sorted(path.name for path in folder.iterdir()) == ["other", "pictures", "run"]


@slow
@pytest.mark.parametrize("place", ["imagegen.adapter_training._card", "orbweave.files._flush_tree"])
def test_an_interrupted_export_leaves_no_adapter_and_is_made_good(
    train: Train, folder: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(place, interrupted)
        train("run", recipe(steps=2))
    assert not list((folder / "run").glob("*adapter*"))
    half = folder / "run" / ".adapter.0123abcd.partial"  # as a kill leaves it
    half.mkdir()
    made = train("run", recipe(steps=2), on_step=lambda *_: pytest.fail("trained again"))
    straight = weights(train("straight", recipe(steps=2)).folder)
    assert all(np.array_equal(value, straight[key]) for key, value in weights(made.folder).items())
    assert not half.exists()


@slow
def test_the_folder_says_what_it_is(train: Train) -> None:
    made = train("run", recipe(steps=1))
    card = (made.folder / "README.md").read_text()
    told = json.loads((made.folder / "provenance.json").read_text())
    assert "instance_prompt: inkwash" in card and "base_model:" in card
    assert told["recipe"]["rank"] == 4 and len(told["pictures"]) == 3


@slow
def test_an_adapter_that_has_lost_layers_is_refused(train: Train, tiny: Path) -> None:
    from safetensors import safe_open
    from safetensors.numpy import save_file

    from imagegen.loading import load_model
    from imagegen.lora import apply_adapters

    path = train("run", recipe(steps=1)).folder / "pytorch_lora_weights.safetensors"
    with safe_open(path, framework="np") as file:
        kept = {key: file.get_tensor(key) for key in file.keys() if "attn" not in key}
        metadata = file.metadata()
    save_file(kept, path, metadata)
    loaded = load_model(str(tiny), None, "float32")
    with pytest.raises(ModelError, match="whose layers do not fit"):
        apply_adapters(loaded.pipe, (find_adapter(str(path), 1.0),), loaded.family.name)


@slow
@pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")
def test_sdxl_learns_too_and_a_transformer_is_refused(train: Train, tmp_path: Path) -> None:
    sdxl = build("sdxl", tmp_path / "sdxl")
    assert np.isfinite(train("run", recipe(steps=1), model=str(sdxl)).last_loss)
    with pytest.raises(UsageError, match="FLUX has no UNet"):
        train("other", recipe(steps=1), model=str(build("flux", tmp_path / "flux")))
