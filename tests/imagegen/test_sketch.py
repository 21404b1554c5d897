"""The network that sketches motifs: what it is asked, how it draws, its training, its files."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from imagegen.canvas import canvas
from imagegen.motifs import FAMILIES, draw_motif, random_motif
from imagegen.scene import seed_picture
from imagegen.sketch import (
    FINEST,
    SketchConfig,
    Sketcher,
    asked,
    build_network,
    canvas_of,
    load_sketcher,
    save_sketcher,
)
from imagegen.sketch_training import drawn_sketch, sketch_loss, train
from orbweave.errors import ModelError
from orbweave.records import Motif, Structure

TINY = SketchConfig(
    families=("shark_denticles", "diatom_pores"), side_px=24, patch_px=4, widths=(16, 32)
)
SILK = Motif(family="silk_bundle", spacing=20, thickness=0.7, direction_deg=30)


def trained(out: Path, steps: int) -> Sketcher:
    """A training of seconds, whose average is as short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imagegen.sketch_training.EMA_DECAY", 0.98)
        return train(out, TINY, steps=steps, batch=16, fresh=4, lr=3e-3, seed=1)


@pytest.fixture(scope="module")
def untrained() -> Sketcher:
    torch.manual_seed(0)
    config = TINY.model_copy(update={"families": tuple(FAMILIES)})
    return Sketcher(build_network(config), config)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sketch")
    trained(out, 400)
    return out


def test_what_is_asked_names_the_family_and_three_places_in_its_ranges() -> None:
    config = SketchConfig()
    low, high = FAMILIES["silk_bundle"].spacing
    row = asked(SILK.model_copy(update={"spacing": high, "irregularity": 0.5}), config)
    assert row.shape == (len(FAMILIES) + 3,)
    assert row[:-3].sum() == row[config.families.index("silk_bundle")] == 1
    assert row[-3:].tolist() == pytest.approx([0.5, 0.0, 0.0])
    # Finer than it was taught is asked as the finest; a direction is turned afterwards.
    finest = asked(SILK.model_copy(update={"spacing": low, "direction_deg": 90}), config)
    assert finest[-3] == pytest.approx(FINEST - 0.5)


def test_a_sketch_is_a_relief_of_its_seed(untrained: Sketcher) -> None:
    def drawn(seed: int, size: int = 40) -> np.ndarray:
        relief = untrained(canvas(size), SILK, np.random.default_rng(seed))
        return np.stack(relief)

    first = drawn(1)
    assert first.shape == (3, 40, 40) and first.dtype == np.float32
    assert first.min() >= 0 and first.max() <= 1
    assert np.array_equal(first, drawn(1))
    assert not np.array_equal(first, drawn(2))
    assert drawn(1, 96).shape == (3, 96, 96)


@pytest.mark.parametrize("family", sorted(name for name, f in FAMILIES.items() if f.directed))
def test_what_is_drawn_lying_and_turned_fills_the_view(family: str) -> None:
    # The corners of the view, turned by any angle, lie on what was drawn.
    drawn = canvas_of(family, 96)
    reach = np.hypot(*(a.max() for a in (canvas(256).x, canvas(256).y)))
    assert drawn.x.max() >= reach - drawn.pixel and drawn.extent == 256


@pytest.mark.parametrize("degrees", [0.0, 30.0, 90.0, 145.0])
def test_a_drawing_is_turned_as_the_procedure_turns_it(degrees: float) -> None:
    config = SketchConfig()

    class Drawn(Sketcher):
        """Gives back what the procedure draws lying, in place of the network's sketch."""

        def sketches(self, wanted, seed, before_step):  # type: ignore[no-untyped-def]
            relief = draw_motif(canvas_of(motif.family, config.side_px), lying, rng())
            return torch.from_numpy(np.stack([relief.cover, relief.cover * relief.tone]))[None]

    def rng() -> np.random.Generator:
        return np.random.default_rng(5)

    motif = SILK.model_copy(update={"direction_deg": degrees})
    lying = motif.model_copy(update={"direction_deg": 0.0})
    relief = Drawn(build_network(TINY), config)(canvas(128), motif, rng())
    procedure = draw_motif(canvas(128), motif, rng())
    between = (_direction(relief.cover) - _direction(procedure.cover)) % 180
    assert min(between, 180 - between) < 8


def _direction(cover: np.ndarray) -> float:
    """Direction of the lines, in degrees anticlockwise from horizontal, by the structure tensor."""
    down, right = np.gradient(cover)
    across = np.arctan2(-2 * (right * down).mean(), (right**2 - down**2).mean()) / 2
    return float(np.rad2deg(across) + 90) % 180


def test_a_structure_can_be_drawn_by_the_network(untrained: Sketcher) -> None:
    other = Motif(family="orb_web")
    two = Structure(motifs=(SILK, other), combine="half", look="golden and blue on white", seed=3)
    picture = seed_picture(two, 48, untrained)
    assert picture.shape == (48, 48, 3)
    assert np.array_equal(picture, seed_picture(two, 48, untrained))
    assert not np.array_equal(picture, seed_picture(two, 48))


def test_training_drawings_lie_and_are_not_finer_than_can_be_drawn() -> None:
    config, rng = SketchConfig(), np.random.default_rng(0)
    for family in itertools.islice(config.families, 8):
        layers, row = drawn_sketch(family, rng, config)
        assert layers.shape == (2, 96, 96) and layers.dtype == torch.uint8
        assert (layers[1] <= layers[0]).all()  # lightness is of the material
        assert row[-3] >= FINEST - 0.5


def test_the_loss_is_the_error_of_the_way_to_the_sketch() -> None:
    """A network that always says 0 is wrong by the sketch itself: here 1, and 1 at half weight."""

    class Nothing(torch.nn.Module):
        def forward(self, noisy, *rest, **options):  # type: ignore[no-untyped-def]
            from types import SimpleNamespace

            return SimpleNamespace(sample=torch.zeros_like(noisy))

    generator = torch.Generator().manual_seed(0)
    layers, rows = torch.ones(4000, 2, 4, 4), torch.zeros(4000, 5)
    loss = sketch_loss(Nothing(), layers, rows, generator, 4)
    # Logit of the clean share: mean -0.8, deviation 0.9. E[(1 - t)^-2] = E[(1 + e^z)^2].
    wanted = 0.75 * (1 + 2 * np.exp(-0.8 + 0.405) + np.exp(-1.6 + 1.62))
    assert float(loss) == pytest.approx(wanted, rel=0.02)


def test_a_sketcher_comes_back_as_it_was_saved(untrained: Sketcher, tmp_path: Path) -> None:
    save_sketcher(untrained._network, untrained.config, tmp_path)
    again = load_sketcher(tmp_path)
    assert again.config == untrained.config and len(again.sha256) == 64
    row = torch.from_numpy(asked(SILK, untrained.config))[None]
    assert torch.allclose(again.sketches(row, 1), untrained.sketches(row, 1), atol=0.02)


def test_missing_and_damaged_files_are_told(untrained: Sketcher, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"wanted .*sketch\.json .* no such file"):
        load_sketcher(tmp_path)
    save_sketcher(untrained._network, untrained.config, tmp_path)
    weights = tmp_path / "sketch.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="wanted the network that sketches"):
        load_sketcher(tmp_path)
    save_sketcher(untrained._network, untrained.config, tmp_path)
    config = json.loads((tmp_path / "sketch.json").read_text())
    (tmp_path / "sketch.json").write_text(json.dumps(config | {"widths": [16, 64]}))
    with pytest.raises(ModelError, match="the network that sketches"):
        load_sketcher(tmp_path)
    (tmp_path / "sketch.json").write_text(json.dumps(config | {"widths": [16, 30]}))
    with pytest.raises(ModelError, match=r"sketch\.json .* divisible by .*install Orbweave again"):
        load_sketcher(tmp_path)
    weights.unlink()
    (tmp_path / "sketch.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"sketches; .*sketch\.safetensors.*No such file"):
        load_sketcher(tmp_path)


@pytest.mark.slow
def test_a_short_training_fills_the_view_or_draws_a_disc(run: Path) -> None:
    sketcher = load_sketcher(run / "export")
    rng = np.random.default_rng(9)
    scales, disc = (
        torch.stack([torch.from_numpy(asked(random_motif(f, rng), TINY)) for _ in range(8)])
        for f in TINY.families
    )
    covers = sketcher.sketches(scales, 1)[:, 0]
    assert covers[:, 8:16, 8:16].mean() > 0.6
    assert covers[:, :3, :3].mean() > 0.6
    covers = sketcher.sketches(disc, 1)[:, 0]
    assert covers[:, 8:16, 8:16].mean() > 0.4
    assert covers[:, :3, :3].mean() < 0.2  # no material in the corners


@pytest.mark.slow
def test_a_finished_training_is_not_run_again_and_a_longer_one_goes_on(run: Path) -> None:
    def exported() -> torch.Tensor:
        return load_sketcher(run / "export")._network.conv_out.weight

    before = exported()
    trained(run, 400)
    assert torch.equal(exported(), before)
    trained(run, 402)
    assert (run / "checkpoint-402").is_dir()
    assert not torch.equal(exported(), before)
    assert torch.allclose(exported(), before, atol=0.05)  # gone on, not begun anew
