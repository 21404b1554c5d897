"""Real runs of a tiny Llama: stages, resume, cache, lineage, and TRL's losses by hand."""

from __future__ import annotations

import json
import math
import os
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
from training.run import lineage, prepare, train

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
    assert not list(out.glob(".work-*"))


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
    assert [r.was_kept for r in run(two, out)] == [True, False]
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
    with pytest.raises(UsageError, match="this recipe has cpt, sft"):
        run(one, tmp_path, last="orpo")


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


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
import training.stages
training.stages.CHECKPOINT_S = 0.0
from training.recipe import Recipe
from training.items import Material
from training.run import train
recipe = Recipe.model_validate_json(Path(sys.argv[1]).read_text())
train(recipe, Material({{}}, {{}}, {{}}), Path(sys.argv[2]), shows_progress=False)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_run_resumes_to_identical_weights(tiny_model, data, tmp_path):
    one = recipe(tiny_model, data, "cpt", "sft", "orpo")
    description = tmp_path / "recipe.json"
    description.write_text(one.model_dump_json(), "utf-8")
    code = KILLED.format(root=str(Path(__file__).parents[2]))
    command = [sys.executable, "-c", code, str(description)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(tmp_path / "whole")], env=env, check=True)
    broken = tmp_path / "broken"
    kills = 0
    for delay in (0.0, 0.15, 0.3):
        process = subprocess.Popen([*command, str(broken)], env=env)
        # Wait until it is at work, so that the kill lands inside a stage.
        begun = time.monotonic()
        while process.poll() is None and time.monotonic() - begun < 60:
            if list(broken.glob(".work-*/checkpoint-*")):
                break
            time.sleep(0.02)
        time.sleep(delay)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    subprocess.run([*command, str(broken)], env=env, check=True)
    assert kills >= 1
    for name in ("Instruct-CPT", "Instruct-CPT-SFT", "Instruct-CPT-SFT-ORPO"):
        left, right = weights(tmp_path / "whole" / name), weights(broken / name)
        assert all(torch.equal(left[key], right[key]) for key in left), name


def test_an_unfinished_checkpoint_is_never_resumed(tmp_path):
    from training.stages import _newest_checkpoint

    for step, is_whole in ((2, True), (4, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if is_whole:
            (folder / "complete.json").write_text("{}")
    assert _newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
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
