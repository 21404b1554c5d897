"""The reader tells which motifs texts mean, and can be taught others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.embedding import MiniLM
from imagegen.assembly import encoder_folder
from imagegen.choose import choose_structure
from imagegen.motifs import FAMILIES
from imagegen.reader import Additions, Reader, ReaderConfig, logits, save_additions, sentences
from imagegen.reader_training import Meaning, meanings, train
from imagegen.text_encoder import load_text_encoder
from orbweave.errors import ModelError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = ReaderConfig(rank=2)
TEXTS = [
    Meaning("a spider's wheel of threads", "orb_web"),
    Meaning("spokes and a spiral", "orb_web"),
    Meaning("six-sided cells", "honeycomb"),
    Meaning("the comb of a bee", "honeycomb"),
    Meaning("in pale wood", None),
    Meaning("seen from above", None),
]


def rows(name: str) -> list[tuple[str, set[str]]]:
    lines = (BENCHMARKS / name).read_text("utf-8").splitlines()
    return [(row["prompt"], set(row["families"])) for row in map(json.loads, lines)]


def test_prompts_it_was_not_taught_by_are_read() -> None:
    """Figures are in docs/benchmarks.md; the nearest name alone found 83 of these 96."""
    asked = rows("prompts96.jsonl")
    read = [{m.family for m in choose_structure(prompt, 7).motifs} for prompt, _ in asked]
    right = [found == wanted for found, (_, wanted) in zip(read, asked, strict=True)]
    assert len(asked) == 96
    assert np.mean(right) >= 0.92
    taught = {meaning.text for meaning in meanings()}
    assert not taught & {prompt.lower() for prompt, _ in asked}


def test_shares_are_of_all_families_and_of_none() -> None:
    texts = ["the inside of an oyster shell", "a lamp for a library"]
    nacre, none = Reader()(texts)
    assert nacre.shape == (len(FAMILIES),)
    assert list(FAMILIES)[int(nacre.argmax())] == "nacre_bricks" and nacre.max() > 0.5
    assert none.sum() < 0.3


def test_a_text_is_read_alike_alone_and_among_others() -> None:
    reader, text = Reader(), "jigsaw pieces with small mouths between"
    (alone,) = reader([text])
    among = reader(["a web", text, "words " * 300])[1]
    assert np.allclose(alone, among, atol=1e-5)


def test_untaught_additions_leave_sentences_as_they_are() -> None:
    encoder = load_text_encoder(encoder_folder(), torch.float32)
    texts = ["an orb web", "two hundred words " * 30, ""]
    with torch.inference_mode():
        ours = sentences(encoder, texts)
    assert np.allclose((ours.numpy() * MiniLM()(texts)).sum(1), 1, atol=1e-3)


def test_what_was_learnt_is_read_back_as_it_was_in_training(tmp_path: Path) -> None:
    torch.manual_seed(0)
    additions = Additions(SMALL)
    for parameter in additions.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    additions.half().float()  # as it is written
    save_additions(additions, SMALL, tmp_path)
    encoder = load_text_encoder(encoder_folder(), torch.float32)
    for name, part in additions.places().items():
        encoder.network.get_submodule(name).register_forward_hook(
            lambda _layer, given, came, part=part: came + part(given[0])
        )
    texts = [meaning.text for meaning in TEXTS]
    with torch.inference_mode():
        wanted = logits(additions, sentences(encoder, texts)).softmax(1)[:, :-1].numpy()
    assert np.allclose(Reader(tmp_path)(texts), wanted, atol=1e-4)
    assert np.ptp(wanted) > 0.01


def test_a_few_texts_are_learnt_and_a_run_goes_on(tmp_path: Path) -> None:
    def run(out: Path, steps: int) -> Reader:
        train(out, TEXTS, SMALL, steps=steps, batch=6, lr=5e-3, seed=1)
        return Reader(out / "export")

    texts = [meaning.text for meaning in TEXTS]
    shares = run(tmp_path, 100)(texts)
    named = [list(FAMILIES)[i] for i in shares.argmax(1)[:4]]
    assert named == ["orb_web", "orb_web", "honeycomb", "honeycomb"]
    assert (shares[:4].max(1) > 0.5).all() and (shares[4:].sum(1) < 0.5).all()
    written = (tmp_path / "export" / "reader.safetensors").read_bytes()
    run(tmp_path, 100)  # nothing is left to do
    assert (tmp_path / "export" / "reader.safetensors").read_bytes() == written


def test_a_reader_of_other_families_is_told(tmp_path: Path) -> None:
    other = ReaderConfig(families=("orb_web", "honeycomb"))
    save_additions(Additions(other), other, tmp_path)
    with pytest.raises(ModelError, match="today's 26 families .* was taught 2; train it anew"):
        Reader(tmp_path)(["a web"])


def test_a_damaged_sentence_model_is_told(tmp_path: Path) -> None:
    shutil.copytree(encoder_folder(), tmp_path / "model")
    for name in ("tokenizer.json", "config.json", "model.safetensors"):
        (tmp_path / "model" / name).write_bytes(b"{")
        with pytest.raises(ModelError, match="wanted"):
            load_text_encoder(tmp_path / "model", torch.float32)
        shutil.copy(encoder_folder() / name, tmp_path / "model" / name)
    assert load_text_encoder(tmp_path / "model", torch.float32)


@pytest.mark.parametrize("spoil", ["missing", "torn"])
def test_damaged_weights_are_told(tmp_path: Path, spoil: str) -> None:
    save_additions(Additions(SMALL), SMALL, tmp_path)
    path = tmp_path / "reader.safetensors"
    if spoil == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="reader of prompts"):
        Reader(tmp_path)(["a web"])
