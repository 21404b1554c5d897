"""Sweeps of merges with a bench that asks the weights themselves."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from merging.build import open_parents
from merging.kernel import lerp, slerp
from merging.sweep import Asked, open_laboratory, read
from merging.variants import variants
from orbweave.errors import Cancelled, ModelError, UsageError
from tests.merging.conftest import write_adapter, write_llama

TS = [0.0, 0.3, 0.5, 1.0]


class DotBench:
    """Option k of question i scores the product of the weights with a random direction."""

    def __init__(self, digest: str = "dot", n: int = 24) -> None:
        self.digest = digest
        self.questions = [Asked(f"q{i}", "even" if i % 2 == 0 else "odd", i % 3) for i in range(n)]
        self.loaded: list[str] = []

    def load(self, tensors, like):
        self.loaded.append(like.name)
        self.vector = flat(tensors)

    def ask(self, on_progress):
        scores = self.scores(self.vector)
        for i in range(len(self.questions)):
            on_progress(i + 1)
        return scores

    def scores(self, vector):
        draw = torch.Generator().manual_seed(0)
        directions = torch.randn(len(self.questions), 3, len(vector), generator=draw)
        rows = (directions @ vector).tolist()
        return {question.id: row for question, row in zip(self.questions, rows, strict=True)}


def flat(tensors):
    return torch.cat([tensors[name].flatten().float() for name in sorted(tensors)])


def laboratory(pair, ts=TS, profiles=("constant",)):
    matrix = variants(*map(str, pair), ts, profiles)
    return open_laboratory(matrix, open_parents(matrix[2].recipe))


def right(scores, bench):
    return [max(range(3), key=scores[q.id].__getitem__) == q.answer for q in bench.questions]


def test_a_lerp_stands_beside_every_slerp_and_both_parents_before():
    found = variants("a", "b", [0.5, 0.1], ["constant", "paper"])
    assert [v.name for v in found] == [
        *("a", "b", "slerp t=0.1", "lerp t=0.1", "slerp t=0.5", "lerp t=0.5"),
        *("slerp paper", "lerp paper"),
    ]
    assert found[2].place == found[3].place


@pytest.mark.parametrize("way", ["slerp", "lerp"])
def test_every_model_is_scored_as_merged_by_the_kernel(pair, way):
    bench = DotBench()
    found = laboratory(pair).run(bench).results
    a, b = (load_file(folder / "model.safetensors") for folder in pair)
    function = {"slerp": slerp, "lerp": lerp}[way]
    for t in (0.3, 0.5):
        merged = {name: function(a[name], b[name], t) for name in a}
        assert found.row(f"{way} t={t}").tolist() == right(bench.scores(flat(merged)), bench)
    for name, tensors in zip(map(str, pair), (a, b), strict=True):
        assert found.row(name).tolist() == right(bench.scores(flat(tensors)), bench)


def test_every_place_has_a_name_of_its_own():
    names = [v.name for v in variants("a", "b", [0, 0.5, 0.5000001, 1e-7], ["constant"])[2::2]]
    assert names == ["slerp t=0", "slerp t=1e-07", "slerp t=0.5", "slerp t=0.5000001"]


def test_the_lerp_of_a_profile_has_its_t_in_every_layer(tmp_path):
    pair = [write_llama(tmp_path / name, n_layers=5, seed=i) for i, name in enumerate("ab")]
    made = laboratory(pair, [0.5], ["paper"])
    line = next(each for each in made.made() if each.variant.name == "lerp paper")
    merged = made.weights_of(line)
    a, b = (load_file(folder / "model.safetensors") for folder in pair)
    for layer, on_attention, on_mlp in zip(
        range(5), [0, 0.5, 0.3, 0.7, 1], [1, 0.5, 0.7, 0.3, 0], strict=True
    ):
        for part, t in (("self_attn.q_proj", on_attention), ("mlp.up_proj", on_mlp)):
            name = f"model.layers.{layer}.{part}.weight"
            torch.testing.assert_close(merged[name], lerp(a[name], b[name], t))
    torch.testing.assert_close(
        merged["model.norm.weight"], lerp(a["model.norm.weight"], b["model.norm.weight"], 0.5)
    )


def test_the_ends_are_the_parents_and_not_scored_twice(pair):
    bench = DotBench()
    found = laboratory(pair).run(bench)
    a, b = map(str, pair)
    assert found.n_models == len(bench.loaded) == 6  # two parents, two t in two ways
    assert [found.twin(name) for name in ("slerp t=0", "lerp t=0", "slerp t=1")] == [a, a, b]
    assert [merge.name for merge in found.merges()] == [
        *("slerp t=0.3", "lerp t=0.3", "slerp t=0.5", "lerp t=0.5")
    ]
    assert len(found.pairs()) == 2


def test_where_all_angles_are_tiny_slerp_is_lerp_and_scored_once(tmp_path):
    a, b = (write_llama(tmp_path / name, seed=1) for name in "ab")
    tensors = load_file(b / "model.safetensors")
    noise = torch.Generator().manual_seed(3)
    near = {n: t * (1 + 1e-3 * torch.randn(t.shape, generator=noise)) for n, t in tensors.items()}
    save_file(near, b / "model.safetensors", metadata={"format": "pt"})
    bench = DotBench()
    found = laboratory((a, b), [0.1, 0.3, 0.7]).run(bench)
    assert len(bench.loaded) == 5
    assert found.twin("lerp t=0.7") == "slerp t=0.7"
    reading = read(found)
    assert reading.arc is None and reading.controls == {}
    assert len(reading.choice.table) == 3
    assert [merge.traits for merge in found.merges()] == [{"t": 0.1}, {"t": 0.3}, {"t": 0.7}]


def test_only_a_merge_that_is_one_of_both_is_called_slerp_or_lerp(pair):
    merges = laboratory(pair, [0.5]).run(DotBench()).merges()
    assert [merge.traits["slerp"] for merge in merges] == [1.0, 0.0]


def test_the_distance_is_that_of_all_weights_as_one_vector(pair):
    a, b = (flat(load_file(folder / "model.safetensors")).double() for folder in pair)
    wanted = (b - a).norm() / math.sqrt((a.norm() ** 2 + b.norm() ** 2) / 2)
    assert laboratory(pair).distance() == pytest.approx(wanted.item(), rel=1e-6)


def test_an_adapter_is_a_parent_like_any_other(pair, tmp_path):
    adapter = write_adapter(tmp_path / "adapter")
    bench = DotBench()
    found = laboratory((pair[0], f"{pair[0]}+{adapter}"), [0.5]).run(bench)
    assert bench.loaded[:2] == [str(pair[0]), f"{pair[0]}+{adapter}"]
    assert found.n_models == 4
    assert found.distance > 0


def test_a_stopped_sweep_continues_where_it_was(pair, tmp_path):
    whole = laboratory(pair).run(DotBench()).results.right
    kept, answered = tmp_path / "answers", []
    first = DotBench()
    with pytest.raises(Cancelled, match="what was answered so far is kept"):
        laboratory(pair).run(
            first, kept=kept, is_cancelled=lambda: len(first.loaded) == 4, on_progress=print
        )
    assert len(list(kept.glob("*.json"))) == 4
    second = DotBench()
    found = laboratory(pair).run(
        second, kept=kept, on_progress=lambda done, total: answered.append((done, total))
    )
    assert (len(second.loaded), found.n_known) == (2, 4)
    assert answered[-1] == (48, 48)
    assert (found.results.right == whole).all()


def test_a_finer_sweep_takes_what_a_coarser_one_answered(pair, tmp_path):
    laboratory(pair, [0.5]).run(DotBench(), kept=tmp_path / "answers")
    finer = DotBench()
    found = laboratory(pair, [0.25, 0.5]).run(finer, kept=tmp_path / "answers")
    assert (found.n_known, len(finer.loaded)) == (4, 2)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"scores": {"q0": [1]}}', '{"scores": {"q0": "x"}}']
)
def test_a_damaged_answer_is_asked_for_again(pair, tmp_path, content):
    kept = tmp_path / "answers"
    laboratory(pair).run(DotBench(), kept=kept)
    victim = min(kept.glob("*.json"))
    victim.write_text(content)
    bench = DotBench()
    laboratory(pair).run(bench, kept=kept)
    assert len(bench.loaded) == 1
    assert set(json.loads(victim.read_text())["scores"]) == {q.id for q in bench.questions}


def test_a_score_that_is_no_number_is_refused_and_not_kept(pair, tmp_path):
    bench, kept = DotBench(), tmp_path / "answers"
    bench.scores = lambda vector: {q.id: [math.nan] * 3 for q in bench.questions}
    with pytest.raises(ModelError, match=f"every option of q0, {pair[0]} gave NaN"):
        laboratory(pair).run(bench, kept=kept)
    assert not kept.exists()
    laboratory(pair).run(DotBench(), kept=kept)
    victim = min(kept.glob("*.json"))
    content = json.loads(victim.read_text())
    content["scores"]["q3"][1] = math.nan
    victim.write_text(json.dumps(content))
    assert laboratory(pair).run(DotBench(), kept=kept).n_known == 5


def test_a_chat_template_counts_where_the_tokenizer_is_of_an_old_form(pair, tmp_path):
    kept = tmp_path / "answers"
    for folder in pair:
        (folder / "tokenizer.json").unlink()
    laboratory(pair, [0.5]).run(DotBench(), kept=kept)
    (pair[0] / "chat_template.jinja").write_text("other")
    assert laboratory(pair, [0.5]).run(DotBench(), kept=kept).n_known == 1  # the second parent


def test_answers_to_other_questions_or_of_other_weights_are_not_taken(pair, tmp_path):
    kept = tmp_path / "answers"
    laboratory(pair, [0.5]).run(DotBench(), kept=kept)
    assert laboratory(pair, [0.5]).run(DotBench("others"), kept=kept).n_known == 0
    path = pair[1] / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    assert laboratory(pair, [0.5]).run(DotBench(), kept=kept).n_known == 1  # the first parent


def test_a_parent_speaks_with_its_own_chat_template_and_a_merge_with_the_first(pair):
    (pair[1] / "chat_template.jinja").write_text("other")
    bench = DotBench()
    found = laboratory(pair, [0.5, 1]).run(bench)
    a, b = map(str, pair)
    assert bench.loaded == [a, b, a, a, a]
    assert found.twin("slerp t=1") == "slerp t=1"  # b's weights, a's template
    assert found.twin("lerp t=1") == "slerp t=1"


def test_a_reading_is_of_the_half_that_did_not_choose(pair):
    found = laboratory(pair).run(DotBench(n=60))
    reading = read(found, seed=3)
    choice, results = reading.choice, found.results
    assert sorted(choice.choosing + choice.reporting) == list(range(60))
    best = max(choice.table, key=lambda row: choice.chosen_by[row.name])
    assert choice.best == best
    assert best.actual == results.take(choice.reporting).accuracy(best.name)
    assert {row.n_merges for row in choice.table} == {4}
    assert reading.controls.keys() == {"slerp t=0.3", "slerp t=0.5"}
    gains = [difference.gain for difference in reading.controls.values()]
    assert reading.arc[0] == pytest.approx(sum(gains) / 2)
    assert read(found, seed=3) == reading


def test_a_sweep_of_nothing_but_the_ends_has_no_merge_to_judge(pair):
    assert read(laboratory(pair, [0, 1]).run(DotBench())).choice is None


@pytest.mark.parametrize(
    ("ts", "profiles", "message"),
    [
        ([0.5], ["cosine"], "wanted profiles out of paper, linear, constant, each once"),
        ([0.5], ["paper", "paper"], "each once, got 'paper,paper'"),
        ([0.5], [], "each once"),
        ([1.5], ["constant"], r"every t in \[0, 1\], got 1.5"),
        ([], ["constant"], "at least one t"),
    ],
)
def test_a_matrix_that_makes_no_sense_is_refused(ts, profiles, message):
    with pytest.raises(UsageError, match=message):
        variants("a", "b", ts, profiles)


def test_parents_that_do_not_fit_are_refused_before_they_are_loaded(pair, tmp_path):
    with pytest.raises(UsageError, match="t has 5 values for 2 layers"):
        laboratory(pair, [0.5], ["paper"])
    with pytest.raises(UsageError, match="named twice|same weights"):
        laboratory((pair[0], pair[0]))
    deeper = write_llama(tmp_path / "deeper", n_layers=3)
    with pytest.raises(UsageError, match="layers"):
        laboratory((pair[0], deeper))
