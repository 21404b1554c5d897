"""Real runs of a tiny Llama: stages, resume, cache, lineage, and TRL's losses by hand."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from orbweave.errors import ModelError, UsageError
from training.items import Material
from training.recipe import LoraSettings, Recipe, Stage
from training.run import first_model, lineage, prepare, train

NOTHING = Material(forms={}, facts={}, fields={})
LETTERS = "abcdefghij"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = {
        "text": [{"text": f"The letter {x} comes before {y}."} for x in LETTERS for y in "xyz"],
        "chat": [{"prompt": f"After {x}?", "completion": f"It is {x}{x}."} for x in LETTERS * 2],
        "pair": [
            {"prompt": f"Say {x}", "chosen": f"{x} it is", "rejected": "no"} for x in LETTERS * 2
        ],
    }
    for name, records in rows.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)), "utf-8")
    return folder


def recipe(model: Path, data: Path, *methods: str, **more) -> Recipe:
    files = {"cpt": "text", "sft": "chat", "dpo": "pair", "orpo": "pair"}
    stages = [
        Stage(
            method=method,
            data={str(data / f"{files[method]}.jsonl"): 1.0},
            learning_rate=1e-2,
            epochs=2,
            max_length=128,
            batch=4,
            packing=method == "cpt",
        )
        for method in methods
    ]
    return Recipe(
        name="tiny", model=str(model), stages=tuple(stages),
        **({"adapter": LoraSettings(rank=4, alpha=8), "held_out": 0.1} | more),
    )  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def run(one: Recipe, out: Path, **more):
    return train(one, NOTHING, out, shows_progress=False, **more)


@pytest.fixture(scope="module")
def whole_run(tiny_model, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return out, run(recipe(tiny_model, data, "cpt", "sft", "dpo", "orpo"), out)


def test_every_stage_leaves_a_finished_model_named_by_its_path(whole_run):
    out, results = whole_run
    names = ["Instruct-CPT", "Instruct-CPT-SFT", "Instruct-CPT-SFT-DPO", "Instruct-CPT-SFT-ORPO"]
    assert [r.folder.name for r in results] == names
    for name in names:
        assert {"adapter_config.json", "README.md", "provenance.json", "chat_template.jinja"} <= {
            file.name for file in (out / name).iterdir()
        }
        assert not [file for file in (out / name).iterdir() if file.is_dir()]  # DPO's reference
    assert not list(out.glob(".work-*"))


def test_a_speed_that_was_not_measured_is_none(whole_run):
    _, results = whole_run
    speeds = [r.figures["tokens_per_s"] for r in results]
    assert 0 not in speeds
    assert speeds[-1] is None  # ORPO


def test_held_out_loss_is_reported_and_training_lowers_the_loss(whole_run):
    _, results = whole_run
    assert all(math.isfinite(r.figures["held_out_loss"]) for r in results)
    assert results[0].figures["train_loss"] < math.log(259)


def test_an_adapter_names_its_model_as_the_recipe_does(whole_run, tiny_model):
    out, _ = whole_run
    config = json.loads((out / "Instruct-CPT" / "adapter_config.json").read_text("utf-8"))
    assert config["base_model_name_or_path"] == str(tiny_model)


def test_weights_are_saved_as_bf16(whole_run):
    out, _ = whole_run
    assert {t.dtype for t in weights(out / "Instruct-CPT").values()} == {torch.bfloat16}


def test_a_finished_stage_is_kept_and_a_changed_one_is_made_anew(whole_run, tiny_model, data):
    out, _ = whole_run
    one = recipe(tiny_model, data, "cpt", "sft", "dpo", "orpo")
    assert all(r.was_kept for r in run(one, out))
    changed = one.stages[1].model_copy(update={"learning_rate": 2e-2})
    two = one.model_copy(update={"stages": (one.stages[0], changed)})
    told: list[tuple[int, int, str]] = []
    said: list[str] = []
    kept, made = run(two, out, on_step=lambda *each: told.append(each), on_progress=said.append)
    assert (kept.was_kept, made.was_kept) == (True, False)
    assert [line.split(" ", 1)[0] for line in said if "replaced" in line] == [str(made.folder)]
    steps = made.figures["steps"]
    assert [done for done, _, _ in told] == list(range(steps + 1))
    assert told[-1] == (steps, steps, f"Instruct-CPT-SFT, step {steps} of {steps}")
    run(one, out)  # as it was, for the tests after this one


def test_the_lineage_reaches_back_to_the_first_model(whole_run, tiny_model):
    out, _ = whole_run
    chain = lineage(out / "Instruct-CPT-SFT-DPO")
    assert [p.get("name", p.get("model")) for p in chain] == [
        "Instruct-CPT-SFT-DPO",
        "Instruct-CPT-SFT",
        "Instruct-CPT",
        str(tiny_model),
    ]
    assert len(chain[-1]["sha256"]) == 64


def test_the_card_names_parents_data_and_figures(whole_run):
    out, _ = whole_run
    card = (out / "Instruct-CPT-SFT" / "README.md").read_text("utf-8")
    assert card.startswith("---\nbase_model:")
    assert "Made from: tiny/Instruct-CPT (key " in card
    assert "chat.jsonl" in card


def test_a_folder_without_provenance_has_no_lineage(tmp_path):
    with pytest.raises(ModelError, match="found none"):
        lineage(tmp_path)


def test_adapter_training_leaves_the_model_alone(whole_run, tiny_model):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    out, _ = whole_run
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    tuned = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_model), str(out / "Instruct-CPT-SFT")
    )
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        difference = (tuned(ids).logits - base(ids).logits).abs().max()
        with tuned.disable_adapter():
            torch.testing.assert_close(tuned(ids).logits, base(ids).logits)
        apart = tuned(ids).logits
        torch.testing.assert_close(tuned.merge_and_unload()(ids).logits, apart, atol=1e-4, rtol=0)
    assert difference > 1e-3


def test_all_weights_can_learn(tiny_model, data, tmp_path):
    one = recipe(tiny_model, data, "sft", adapter=None)
    (result,) = run(one, tmp_path)
    before, after = weights(tiny_model), weights(result.folder)
    changed = [n for n in after if not torch.equal(after[n].float(), before[n].bfloat16().float())]
    assert len(changed) > len(after) / 2
    assert (result.folder / "config.json").is_file()


def test_the_stage_option_stops_early(tiny_model, data, tmp_path):
    one = recipe(tiny_model, data, "cpt", "sft")
    assert [r.folder.name for r in run(one, tmp_path, last="cpt")] == ["Instruct-CPT"]
    with pytest.raises(UsageError, match=r"this recipe has cpt \(Instruct-CPT\), sft"):
        run(one, tmp_path, last="orpo")


def test_a_stage_that_comes_again_goes_on_from_the_one_before(tiny_model, data, tmp_path):
    one = recipe(tiny_model, data, "sft", "sft", "dpo")
    first, second, leaf = run(one, tmp_path)
    assert second.folder.name == "Instruct-SFT-SFT"
    assert lineage(leaf.folder)[1:3] == lineage(second.folder)[:2]
    assert lineage(second.folder)[1:] == lineage(first.folder)
    before, after = weights(first.folder), weights(second.folder)
    assert not all(torch.equal(before[key], after[key]) for key in before)
    assert all(result.was_kept for result in run(one, tmp_path))
    gentler = one.stages[1].model_copy(update={"learning_rate": 1e-3})
    changed = one.model_copy(update={"stages": (one.stages[0], gentler)})
    assert [result.was_kept for result in run(changed, tmp_path)] == [True, False]


def test_a_recipe_goes_on_from_a_shipped_adapter_by_its_name(tiny_model, data):
    from training.run import _parent

    one = recipe(tiny_model, data, "sft", parent="generalist", adapter=LoraSettings(rank=32))
    folder = _parent(one)
    assert folder is not None
    assert (folder / "adapter_model.safetensors").is_file()
    assert lineage(folder)[-1]["model"] == "base"


def test_the_card_takes_the_licence_of_the_model_and_invents_none(tiny_model, data, tmp_path):
    from orbweave.models import read_card

    one = recipe(tiny_model, data, "sft")
    assert "license" not in read_card(run(one, tmp_path / "none")[0].folder)
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / "README.md").write_text("---\nlicense: llama3.1\n---\n", "utf-8")
    (made,) = run(one.model_copy(update={"model": str(model)}), tmp_path / "own")
    assert read_card(made.folder)["license"] == "llama3.1"


def test_a_missing_parent_is_told_before_training(tiny_model, data, tmp_path):
    one = recipe(tiny_model, data, "sft", parent=str(tmp_path / "none"))
    with pytest.raises(ModelError, match="wanted an adapter"):
        run(one, tmp_path)


def test_rows_that_are_too_long_are_counted_not_cut(tiny_model, data, tiny_tokenizer):
    one = recipe(tiny_model, data, "sft")
    short = one.stages[0].model_copy(update={"max_length": 80})
    (stage,) = prepare(one.model_copy(update={"stages": (short,)}), NOTHING, tiny_tokenizer)
    (whole,) = prepare(one, NOTHING, tiny_tokenizer)
    assert stage.too_long + len(stage.learnt) + len(stage.held_out) == len(whole.learnt) + len(
        whole.held_out
    )


def test_packing_loses_no_token_of_continued_pretraining(
    tiny_model, data, tiny_tokenizer, tmp_path
):
    prepared, trainer, _ = trainer_for("cpt", tiny_model, data, tiny_tokenizer, 0.1, tmp_path)
    lengths = [len(row["input_ids"]) for row in trainer.train_dataset]
    assert sum(lengths) == prepared.tokens
    assert max(lengths) <= 128


@pytest.fixture
def eager(monkeypatch):
    """Checkpoints after every step."""
    import training.watch

    monkeypatch.setattr(training.watch, "CHECKPOINT_S", 0.0)


def jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_stage_keeps_its_losses_and_what_it_answered_on_the_way(
    eager, tiny_model, data, tmp_path
):
    results = run(recipe(tiny_model, data, "cpt", "sft", "dpo"), tmp_path)
    for result in results:
        rows = jsonl(result.folder / "samples.jsonl")
        last = result.figures["steps"] - 1  # the last step is the result itself
        assert {row["step"] for row in rows} == set(range(1, last + 1))
        assert all(row.keys() == {"step", "prompt", "wanted", "reply"} for row in rows)
        assert any("eval_loss" in row for row in jsonl(result.folder / "metrics.jsonl"))
    said = jsonl(results[1].folder / "samples.jsonl")[0]
    letter = said["prompt"].partition("After ")[2][0]
    assert said["wanted"] == f"It is {letter}{letter}."
    assert said["prompt"].endswith("<|im_start|>assistant\n")


def test_samples_draw_no_random_number_and_leave_the_model_learning(tiny_model, tiny_tokenizer):
    from transformers import AutoModelForCausalLM

    from training.rows import Row, Turn
    from training.samples import complete, held_out_questions

    rows = [Row(f"{i}", "s", text="one two three four five six seven eight nine") for i in "abcd"]
    rows += [Row("e", "s", turns=(Turn("user", "Why?"), Turn("assistant", "So.")), domain="d")]
    asked = held_out_questions(tiny_tokenizer, rows)
    assert len(asked) == 3
    assert (asked[0].prompt, asked[0].wanted) == ("one two three four five six seven eight", "nine")
    model = AutoModelForCausalLM.from_pretrained(tiny_model).train()
    before = torch.get_rng_state()
    replies = complete(model, tiny_tokenizer, asked)
    assert len(replies) == 3
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_of_samples_says_what_each_alone_would(tiny_model, tiny_tokenizer):
    from transformers import AutoModelForCausalLM

    from training.samples import Asked, complete

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    texts = ["short", "a much longer prompt than the other one"]
    asked = [Asked(tiny_tokenizer(text)["input_ids"], text, "") for text in texts]
    together = complete(model, tiny_tokenizer, asked)
    assert together == [complete(model, tiny_tokenizer, [one])[0] for one in asked]


def test_rows_that_a_resumed_run_does_again_are_forgotten(tmp_path):
    from training.watch import _forget_after

    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "x": "\u2028"}\n{"step": 3}\n{"st', "utf-8")
    _forget_after(path, 2)
    assert [json.loads(x)["step"] for x in path.read_text("utf-8").split("\n")[:-1]] == [1, 2]


def test_kept_epochs_are_adapters_of_their_own(tiny_model, data, tmp_path):
    one = recipe(tiny_model, data, "sft")
    kept = one.stages[0].model_copy(update={"keep_epochs": True, "epochs": 2.5})
    one = one.model_copy(update={"stages": (kept,)})
    (result,) = run(one, tmp_path)
    names = sorted(folder.name for folder in tmp_path.iterdir())
    assert names == ["Instruct-SFT", "Instruct-SFT-epoch1", "Instruct-SFT-epoch2"]
    first, second = (tmp_path / name for name in names[1:])
    assert {f.name for f in first.iterdir()} == {f.name for f in result.folder.iterdir()}
    assert [p.get("name") for p in lineage(second)] == ["Instruct-SFT-epoch2", None]
    assert len({lineage(folder)[0]["key"] for folder in (result.folder, first, second)}) == 3
    assert "# tiny: Instruct-SFT-epoch2" in (second / "README.md").read_text("utf-8")
    of_each = [weights(tmp_path / name) for name in names]
    assert {t.dtype for t in of_each[1].values()} == {torch.bfloat16}
    assert of_each[0].keys() == of_each[1].keys()
    assert any(not torch.equal(of_each[1][k], of_each[2][k]) for k in of_each[1])
    # The second epoch is the run as it would be, so a stage can go on from it.
    onward = recipe(tiny_model, data, "dpo", parent=str(second))
    (made,) = run(onward, tmp_path / "onward", last="dpo")
    assert lineage(made.folder)[1]["name"] == "Instruct-SFT-epoch2"


def test_kept_epochs_of_whole_models_can_be_loaded(tiny_model, data, tmp_path):
    from transformers import AutoModelForCausalLM

    one = recipe(tiny_model, data, "sft", adapter=None)
    kept = one.stages[0].model_copy(update={"keep_epochs": True})
    run(one.model_copy(update={"stages": (kept,)}), tmp_path)
    last, final = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype="auto")
        for name in ("Instruct-SFT-epoch2", "Instruct-SFT")
    )
    assert last.dtype == torch.bfloat16
    assert all(
        torch.equal(a, b) for a, b in zip(last.parameters(), final.parameters(), strict=True)
    )


@pytest.mark.parametrize("adapter", [LoraSettings(rank=4, alpha=8), None])
def test_a_share_of_the_start_stays_in_what_is_written(tiny_model, data, tmp_path, adapter):
    one = recipe(tiny_model, data, "sft", adapter=adapter)
    parent = None
    if adapter is not None:
        parent = str(run(recipe(tiny_model, data, "cpt"), tmp_path / "parent")[0].folder)
    start = weights(tiny_model if parent is None else Path(parent))
    found = []
    for share in (0.0, 0.25):
        stage = one.stages[0].model_copy(update={"start_share": share})
        update = {"stages": (stage,), "parent": parent}
        (result,) = run(one.model_copy(update=update), tmp_path / str(share))
        found.append(weights(result.folder))
    for name, learnt in found[0].items():
        wanted = 0.75 * learnt.float() + 0.25 * start[name].float()
        torch.testing.assert_close(found[1][name].float(), wanted, rtol=2e-2, atol=1e-3)
    assert any(not torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_run_killed_behind_its_last_step_trains_nothing_again(
    tiny_model, data, tmp_path, monkeypatch
):
    import training.run

    one = recipe(tiny_model, data, "sft")
    kept = one.stages[0].model_copy(update={"keep_epochs": True})
    one = one.model_copy(update={"stages": (kept,)})
    really_save = training.run._save

    def killed(target, *rest):
        if target.name == "Instruct-SFT":
            raise KeyboardInterrupt
        really_save(target, *rest)

    monkeypatch.setattr(training.run, "_save", killed)
    with pytest.raises(KeyboardInterrupt):
        run(one, tmp_path)
    monkeypatch.setattr(training.run, "_save", really_save)
    epoch = weights(tmp_path / "Instruct-SFT-epoch2")
    (result,) = run(one, tmp_path)
    final = weights(result.folder)
    assert all(torch.equal(epoch[key], final[key]) for key in final)
    assert result.figures["steps"] > 0
    assert math.isfinite(result.figures["held_out_loss"])


def test_every_fault_is_told_in_one_list_before_anything_is_loaded(tiny_model, data, tmp_path):
    one = recipe(tiny_model, data, "cpt", "sft", "dpo", parent=str(tmp_path / "none"))
    sources = [{"nowhere": 1.0}, {str(data / "text.jsonl"): 1.0}, {str(data / "chat.jsonl"): 1.0}]
    stages = [s.model_copy(update={"data": d}) for s, d in zip(one.stages, sources, strict=True)]
    one = one.model_copy(
        update={"stages": tuple(stages), "model": "no-such-model", "chat_template": "./nor-this"}
    )
    with pytest.raises(UsageError) as caught:
        run(one, tmp_path / "out", last="orpo")
    told = str(caught.value)
    assert "found 7 faults in tiny" in told
    for part in (
        "no-such-model",
        "nor-this",
        "wanted an adapter in",
        "wanted the stage 'orpo'",
        "Instruct-CPT: wanted a data source, got 'nowhere'",
        "Instruct-CPT-SFT: wanted chats for sft, text.jsonl holds plain text",
        "Instruct-CPT-SFT-DPO: wanted chosen and rejected for dpo",
    ):
        assert part in told
    assert not (tmp_path / "out").exists()


def test_a_parent_of_another_rank_is_refused(whole_run, tiny_model, data, tmp_path):
    out, _ = whole_run
    parent = str(out / "Instruct-CPT")
    one = recipe(tiny_model, data, "sft", parent=parent, adapter=LoraSettings(rank=8))
    with pytest.raises(ModelError, match="wanted an adapter of rank 8 .*it has 4"):
        run(one, tmp_path)


def test_a_parent_without_provenance_is_refused(whole_run, tiny_model, data, tmp_path):
    out, _ = whole_run
    config = (out / "Instruct-CPT" / "adapter_config.json").read_text("utf-8")
    (tmp_path / "adapter_config.json").write_text(config, "utf-8")
    with pytest.raises(ModelError, match="wanted a checkpoint with provenance.json"):
        run(recipe(tiny_model, data, "sft", parent=str(tmp_path)), tmp_path / "out")


def test_rows_that_are_all_held_out_are_told_as_such(tiny_model, tiny_tokenizer, tmp_path):
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"prompt": "a", "completion": "b"}), "utf-8")
    stage = Stage(method="sft", data={str(path): 0.3}, learning_rate=1e-3)
    one = Recipe(name="few", model=str(tiny_model), stages=(stage,))
    with pytest.raises(UsageError, match="0 are held out and none is left; lower held_out"):
        prepare(one, NOTHING, tiny_tokenizer)


def test_more_epochs_than_rows_are_run_as_planned(tiny_model, tiny_tokenizer, tmp_path):
    from training.plan import plan_stages

    path = tmp_path / "chat.jsonl"
    rows = [{"prompt": f"q{i}", "completion": "yes"} for i in range(3)]
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    stage = Stage(
        method="sft", data={str(path): 1.0}, learning_rate=1e-3, epochs=7, batch=8, packing=False
    )
    one = Recipe(
        name="few", model=str(tiny_model), stages=(stage,), held_out=0.0,
        adapter=LoraSettings(rank=2),
    )  # fmt: skip
    config = json.loads((tiny_model / "config.json").read_text("utf-8"))
    (plan,) = plan_stages(prepare(one, NOTHING, tiny_tokenizer), one, config, 30_000, 1e12)
    (result,) = run(one, tmp_path / "out")
    assert result.figures["steps"] == plan.steps == 7
    assert result.figures["held_out_loss"] is None


def test_a_template_without_a_system_role_learns_the_system_text_in_the_first_turn(
    tiny_model, tmp_path
):
    from transformers import AutoTokenizer

    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer.save_pretrained(model)
    path = tmp_path / "chat.jsonl"
    said = [("system", "Be brief."), ("user", "Why?"), ("assistant", "So.")]
    messages = [{"role": role, "content": content} for role, content in said]
    path.write_text(json.dumps({"messages": messages}), "utf-8")
    stage = Stage(method="sft", data={str(path): 4.0}, learning_rate=1e-3, batch=4, packing=False)
    one = Recipe(
        name="folded", model=str(model), stages=(stage,), held_out=0.0,
        adapter=LoraSettings(rank=2),
    )  # fmt: skip
    _, known = first_model(one)
    (prepared,) = prepare(one, NOTHING, known)
    text = known.decode(prepared.learnt[0].input_ids)
    assert text.startswith("<|im_start|>user\nBe brief.\n\nWhy?<|im_end|>")
    (result,) = run(one, tmp_path / "out")
    assert result.figures["steps"] == 1


def test_a_base_model_without_a_template_is_told_for_every_stage(tiny_model, data, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / "chat_template.jinja").unlink()
    one = recipe(model, data, "sft", "dpo")
    with pytest.raises(UsageError, match="found 2 faults.*SFT: wanted to write a chat.*DPO: "):
        run(one, tmp_path / "out")
    assert run(
        one.model_copy(update={"chat_template": str(tiny_model)}), tmp_path / "out", last="sft"
    )


FULL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {root!r})
import training.watch
training.watch.CHECKPOINT_S = 0.0
from orbweave.errors import OutputError
from training.recipe import Recipe
from training.items import Material
from training.run import train
recipe = Recipe.model_validate_json(Path(sys.argv[1]).read_text())
begin = training.watch.Watch.on_step_end
def on_step_end(self, args, state, control, **more):
    if state.global_step == 3:
        limit = int(sys.argv[3])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    begin(self, args, state, control, **more)
training.watch.Watch.on_step_end = on_step_end
try:
    train(recipe, Material({{}}, {{}}, {{}}), Path(sys.argv[2]), shows_progress=False)
except OutputError as err:
    print(err)
    sys.exit(7)
"""


@pytest.mark.long
@pytest.mark.parametrize("limit", [20_000, 50_000])  # the weights; the optimiser's state
def test_a_full_disk_is_told_and_the_next_run_goes_on_from_a_whole_checkpoint(
    eager, tiny_model, data, tmp_path, limit
):
    one = recipe(tiny_model, data, "sft", adapter=LoraSettings(rank=8))
    description = tmp_path / "recipe.json"
    description.write_text(one.model_dump_json(), "utf-8")
    out = tmp_path / "out"
    code = FULL.format(root=str(Path(__file__).parents[2]))
    done = subprocess.run(
        [sys.executable, "-c", code, str(description), str(out), str(limit)],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 7, done.stderr
    assert "free some space" in done.stdout
    assert not (out / "Instruct-SFT").exists()
    (work,) = out.glob(".work-*")
    whole = [f.parent.name for f in work.glob("checkpoint-*/complete.json")]
    assert sorted(whole) == ["checkpoint-1", "checkpoint-2"]
    (resumed,) = run(one, out)
    (never_full,) = run(one, tmp_path / "never-full")
    left, right = weights(resumed.folder), weights(never_full.folder)
    assert all(torch.equal(left[key], right[key]) for key in left)
    steps = [row["step"] for row in jsonl(resumed.folder / "samples.jsonl")]
    assert steps == sorted(steps)


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
import training.watch
training.watch.CHECKPOINT_S = 0.0
from training.recipe import Recipe
from training.items import Material
from training.run import train
recipe = Recipe.model_validate_json(Path(sys.argv[1]).read_text())
train(recipe, Material({{}}, {{}}, {{}}), Path(sys.argv[2]), shows_progress=False)
"""


def progress(out: Path) -> set[str]:
    """Return what a run has finished: whole checkpoints and whole stages."""
    found = [*out.glob(".work-*/checkpoint-*/complete.json"), *out.glob("*/provenance.json")]
    return {str(path) for path in found}


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_run_killed_at_five_moments_resumes_to_identical_weights(tiny_model, data, tmp_path):
    one = recipe(tiny_model, data, "cpt", "sft", "orpo")
    stages = [stage.model_copy(update={"epochs": 5}) for stage in one.stages]
    one = one.model_copy(update={"stages": tuple(stages)})
    description = tmp_path / "recipe.json"
    description.write_text(one.model_dump_json(), "utf-8")
    code = KILLED.format(root=str(Path(__file__).parents[2]))
    command = [sys.executable, "-c", code, str(description)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(tmp_path / "whole")], env=env, check=True)
    broken = tmp_path / "broken"
    kills, moments = 0, random.Random(0)
    for _ in range(5):
        before = progress(broken)
        process = subprocess.Popen([*command, str(broken)], env=env)
        # Wait until it goes on, so that the kill lands inside a stage and not in the imports.
        begun = time.monotonic()
        while process.poll() is None and time.monotonic() - begun < 60:
            if progress(broken) != before:
                break
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.2))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    subprocess.run([*command, str(broken)], env=env, check=True)
    assert kills == 5
    for name in ("Instruct-CPT", "Instruct-CPT-SFT", "Instruct-CPT-SFT-ORPO"):
        left, right = weights(tmp_path / "whole" / name), weights(broken / name)
        assert all(torch.equal(left[key], right[key]) for key in left), name


def test_an_unfinished_checkpoint_is_never_resumed(tmp_path):
    from training.watch import newest_checkpoint

    for step, is_whole in ((2, True), (4, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if is_whole:
            (folder / "complete.json").write_text("{}")
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    assert not (tmp_path / "checkpoint-4").exists()


def trainer_for(method: str, tiny_model: Path, data: Path, tokenizer, beta: float, work: Path):
    from training.stages import StageJob, _load, _trainer

    one = recipe(tiny_model, data, method, held_out=0.0)
    stage = one.stages[0].model_copy(update={"beta": beta})
    one = one.model_copy(update={"stages": (stage,)})
    (prepared,) = prepare(one, NOTHING, tokenizer)
    job = StageJob(
        tiny_model, None, one.adapter, stage, prepared.learnt, [], tokenizer, work, 0,
        shows_progress=False,
    )  # fmt: skip
    model = _load(job).float()
    return prepared, _trainer(job, model, tokenizer, []), model


def log_probs(model, tokenizer, prompt: str, reply: str) -> torch.Tensor:
    """Log-probabilities of a reply's tokens after a prompt, one forward, nothing clever."""
    head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([head + tokenizer(reply, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        log_p = torch.log_softmax(model(input_ids=ids).logits[0, :-1].float(), dim=1)
    return log_p[torch.arange(len(head) - 1, ids.shape[1] - 1), ids[0, len(head) :]]


def test_dpo_loss_is_ln_2_at_the_first_step(tiny_model, data, tiny_tokenizer, tmp_path):
    _, trainer, model = trainer_for("dpo", tiny_model, data, tiny_tokenizer, 0.1, tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(model, batch)
    assert float(loss.detach()) == pytest.approx(math.log(2), abs=1e-5)


def test_dpo_loss_equals_the_formula_once_the_policy_moved(
    tiny_model, data, tiny_tokenizer, tmp_path
):
    from training.tokens import pair_texts

    prepared, trainer, model = trainer_for("dpo", tiny_model, data, tiny_tokenizer, 0.3, tmp_path)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B.default" in name:
                weight.normal_(0, 0.2, generator=torch.Generator().manual_seed(1))
    model.eval()
    trainer.args.bf16 = False
    rows = prepared.learnt[:4]
    expected = []
    for row in rows:
        texts = pair_texts(tiny_tokenizer, row)
        margin = 0.0
        for sign, name in ((1, "chosen"), (-1, "rejected")):
            now = log_probs(model, tiny_tokenizer, texts["prompt"], texts[name]).sum()
            with model.disable_adapter():
                then = log_probs(model, tiny_tokenizer, texts["prompt"], texts[name]).sum()
            margin += sign * float(now - then)
        expected.append(-math.log(1 / (1 + math.exp(-0.3 * margin))))
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    with torch.autocast("cpu", enabled=False):
        loss = trainer.compute_loss(model, batch)
    assert float(loss.detach()) == pytest.approx(sum(expected) / 4, rel=0.02)


def test_orpo_loss_equals_likelihood_plus_odds_ratio(tiny_model, data, tiny_tokenizer, tmp_path):
    from training.tokens import pair_texts

    beta = 0.25
    prepared, trainer, model = trainer_for("orpo", tiny_model, data, tiny_tokenizer, beta, tmp_path)
    model.eval()
    rows = prepared.learnt[:4]
    nll, ratio, n_tokens = 0.0, 0.0, 0
    for row in rows:
        texts = pair_texts(tiny_tokenizer, row)
        good = log_probs(model, tiny_tokenizer, texts["prompt"], texts["chosen"])
        bad = log_probs(model, tiny_tokenizer, texts["prompt"], texts["rejected"])
        # Hong et al. 2403.07691, equations 5 to 7: odds of the mean token probability.
        p, q = float(good.mean()), float(bad.mean())
        log_odds = (p - q) - (math.log1p(-math.exp(p)) - math.log1p(-math.exp(q)))
        ratio += -math.log(1 / (1 + math.exp(-log_odds)))
        nll += -float(good.sum())
        n_tokens += len(good)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    loss, metrics = trainer.get_batch_loss_metrics(model, batch, train_eval="eval")
    assert float(metrics["eval_log_odds_ratio"]) == pytest.approx(-ratio / 4, rel=0.02)
    assert float(loss.detach()) > float(metrics["eval_nll_loss"])
    assert float(loss.detach()) == pytest.approx(
        float(metrics["eval_nll_loss"]) + beta * ratio / 4, rel=0.02
    )
