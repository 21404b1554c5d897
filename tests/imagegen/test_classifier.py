"""The classifier of pictures: it learns from drawings, is spoilt fairly, and loads or says why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from imagegen.autoencoder import psnr
from imagegen.canvas import canvas
from imagegen.classifier import Classifier, ClassifierConfig, Network, load_classifier
from imagegen.classifier import save_classifier as save
from imagegen.classifier_training import (
    answers,
    any_look,
    classifier_loss,
    drawn_as,
    load_autoencoder,
    train,
)
from imagegen.distortion import distorted
from imagegen.motifs import FAMILIES as MOTIFS
from imagegen.motifs import random_motif
from imagegen.scene import compose, lit_picture
from orbweave.errors import ModelError
from orbweave.records import Motif, Structure

FAMILIES = ("silk_bundle", "honeycomb", "diatom_pores")
LOOKS = ("golden on black", "blue on white")
TINY = ClassifierConfig(
    families=FAMILIES,
    materials=("golden", "blue"),
    grounds=("black", "white"),
    side_px=48,
    widths=(8, 12, 16, 24),
)


def draw(rng: np.random.Generator) -> Structure:
    motif = random_motif(str(rng.choice(FAMILIES)), rng)
    look = str(rng.choice(LOOKS))
    return Structure(motifs=(motif,), look=look, seed=int(rng.integers(2**31)))


def trained(out: Path, steps: int) -> Classifier:
    """A training of seconds; the slow manners of drawing are left out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imagegen.classifier_training.SHARES", (0.8, 0.2, 0, 0))
        return train(
            out, TINY, draw=draw, autoencoder=lambda pixels: pixels,
            steps=steps, batch=16, fresh=4, lr=4e-3, seed=0,
        )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("classifier")
    trained(out, 200)
    return out


@pytest.mark.slow
def test_a_short_training_tells_three_motifs_and_two_looks_apart(run: Path) -> None:
    rng = np.random.default_rng(99)
    structures = [draw(rng) for _ in range(60)]
    classifier = load_classifier(run / "export")
    found = classifier([lit_picture(s, TINY.side_px, 256.0) for s in structures])
    motif = [max(v.families, key=v.families.__getitem__) for v in found]
    look = [
        f"{max(v.materials, key=v.materials.__getitem__)} on "
        f"{max(v.grounds, key=v.grounds.__getitem__)}"
        for v in found
    ]
    assert np.mean([m == s.motifs[0].family for m, s in zip(motif, structures, strict=True)]) > 0.8
    assert np.mean([a == s.look for a, s in zip(look, structures, strict=True)]) > 0.9


@pytest.mark.slow
def test_the_shipped_classifier_names_what_new_drawings_show() -> None:
    rng = np.random.default_rng([48, 2**31])  # no training has drawn these
    structures = [
        Structure(motifs=(random_motif(name, rng),), look="golden on black", seed=i)
        for i, name in enumerate(sorted(MOTIFS))
    ]
    classifier = load_classifier()
    found = classifier([lit_picture(s, classifier.config.side_px, 256.0) for s in structures])
    motif = [max(v.families, key=v.families.__getitem__) for v in found]
    right = [m == s.motifs[0].family for m, s in zip(motif, structures, strict=True)]
    assert sum(right) >= 24
    assert sum(v.materials["golden"] > 0.5 for v in found) >= 20
    assert sum(v.grounds["black"] > 0.5 for v in found) >= 20


@pytest.mark.slow
def test_a_finished_training_is_not_run_again_and_a_longer_one_goes_on(run: Path) -> None:
    def exported() -> torch.Tensor:
        return load_classifier(run / "export")._network.head.weight

    before = exported()
    trained(run, 200)
    assert torch.equal(exported(), before)
    trained(run, 202)
    assert (run / "checkpoint-202").is_dir()
    assert not torch.equal(exported(), before)
    assert torch.allclose(exported(), before, atol=0.05)  # gone on, not begun anew


def test_right_answers_are_what_was_drawn() -> None:
    two = Structure(
        motifs=(Motif(family="honeycomb"), Motif(family="silk_bundle")),
        combine="half",
        look="golden and blue on white",
    )
    assert answers(two, TINY).tolist() == [1, 1, 0, 0.5, 0.5, 0, 1]
    one = two.model_copy(
        update={"motifs": two.motifs[:1], "combine": "single", "look": "blue on black"}
    )
    assert answers(one, TINY).tolist() == [0, 1, 0, 0, 1, 1, 0]


def test_the_loss_is_nothing_for_sure_right_answers_and_large_for_wrong_ones() -> None:
    right = torch.tensor([[0, 1, 0, 0, 1, 1, 0.0]])
    sure = (right * 2 - 1) * 20
    logits = sure.split([3, 2, 2], 1)
    assert classifier_loss(logits, right) == pytest.approx(0, abs=1e-6)
    # All three families wrong by 20, both colours wrong by 40 and weighted by a half.
    assert classifier_loss((-sure).split([3, 2, 2], 1), right) == pytest.approx(100, rel=1e-3)


def test_distorted_pictures_keep_shape_range_and_colour_and_follow_the_generator() -> None:
    structure = Structure(motifs=(Motif(family="honeycomb"),), look="golden on black")
    drawn = torch.tensor(lit_picture(structure, 64, 256.0)).permute(2, 0, 1).float() / 255
    x = drawn.expand(12, 3, 64, 64)
    kept = x.clone()
    y = distorted(x, torch.Generator().manual_seed(3))
    assert torch.equal(x, kept)
    assert y.shape == x.shape and y.min() >= 0 and y.max() <= 1
    assert torch.equal(y, distorted(x, torch.Generator().manual_seed(3)))
    assert not torch.equal(y, distorted(x, torch.Generator().manual_seed(4)))
    assert (y - x).abs().mean((1, 2, 3)).min() > 0.01  # each is changed
    red, green, blue = y.mean((2, 3)).unbind(1)
    assert (red > green).all() and (green > blue).all()  # golden it stays


@pytest.mark.parametrize("manner", ["lit", "bare", "large"])
def test_every_manner_shows_the_whole_view(manner: str) -> None:
    structure = Structure(motifs=(Motif(family="diatom_pores"),), look="blue on white", seed=5)
    small = drawn_as(manner, structure, 64, lambda pixels: pixels).astype(float)
    large = np.asarray(lit_picture(structure, 256, 256.0), float)
    shrunk = large.reshape(64, 4, 64, 4, 3).mean((1, 3))
    assert small.shape == (64, 64, 3)
    assert np.corrcoef(small.ravel(), shrunk.ravel())[0, 1] > 0.7


@pytest.mark.slow
def test_the_autoencoder_gives_back_nearly_the_same_picture() -> None:
    structure = Structure(motifs=(Motif(family="honeycomb"),), look="golden on black")
    picture = lit_picture(structure, 256, 256.0)
    back = load_autoencoder()(picture)
    assert back.shape == picture.shape and back.dtype == np.uint8
    x, y = (torch.tensor(p).float() / 127.5 - 1 for p in (picture, back))
    assert 15 < psnr(x, y) < 60


def test_a_saved_classifier_judges_as_before_and_is_small(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ClassifierConfig()
    network = Network(config)
    network(torch.rand(4, 3, 128, 128))  # moves the statistics of the normalisation
    save(network, config, tmp_path)
    pictures = [np.random.default_rng(i).integers(0, 256, (128, 128, 3), np.uint8) for i in (0, 1)]
    before, after = Classifier(network, config)(pictures), load_classifier(tmp_path)(pictures)
    for a, b in zip(before, after, strict=True):
        for one, other in zip(a, b, strict=True):
            assert other == pytest.approx(one, abs=2e-3)
    assert sum(before[0].grounds.values()) == pytest.approx(1, abs=1e-5)
    assert sum(p.numel() for p in network.parameters()) < 1_500_000
    assert (tmp_path / "classifier.safetensors").stat().st_size < 3_000_000


def test_missing_and_damaged_files_are_told_with_what_mends_them(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file; install Orbweave again"):
        load_classifier(tmp_path)
    save(Network(TINY), TINY, tmp_path)
    weights, config = tmp_path / "classifier.safetensors", tmp_path / "classifier.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-9])
    with pytest.raises(ModelError, match="cut off or damaged"):
        load_classifier(tmp_path)
    weights.write_bytes(whole)
    other = TINY.model_copy(update={"families": FAMILIES[:2]})
    config.write_text(other.model_dump_json())
    misfit = "wanted weights that fit the classifier of pictures.*install Orbweave again"
    with pytest.raises(ModelError, match=misfit):
        load_classifier(tmp_path)
    config.write_text('{"families": 3}')
    with pytest.raises(ModelError, match="classifier.json"):
        load_classifier(tmp_path)


def test_half_of_what_it_learns_from_has_two_motifs_and_of_overlays_both_are_seen() -> None:
    rng = np.random.default_rng(3)
    drawn = [any_look(rng) for _ in range(120)]
    assert 0.3 < np.mean([len(structure.motifs) == 2 for structure in drawn]) < 0.65
    laid_over = [structure for structure in drawn if structure.combine == "overlay"]
    assert laid_over
    for structure in laid_over:
        _, lower = compose(canvas(128, 256.0), structure, np.random.default_rng(structure.seed))
        assert lower is not None and lower.mean() > 0.45
