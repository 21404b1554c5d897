"""`orbweave study` on tiny real models, as the command line calls it."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from merging.build import merge
from merging.geometry import Geometry, TensorGeometry
from merging.synergy import Merge, Results
from orbweave.errors import Cancelled, OutputError, UsageError
from orbweave.statistics import wilson
from training.benchmark import load_benchmark
from training.evaluation import evaluate
from ui.commands.study import study
from ui.study import load_study, matrix, shipped_studies
from ui.study_figures import Pictures
from ui.study_run import Found, Scored, run
from ui.study_sections import geometry_section
from ui.study_tables import Analysis, analyse
from ui.study_words import headline, summary
from ui.sweep import LoglikBench

LETTERS = "abcdefghijklmnop"


def rows(domain: str, n: int, *, shift: int = 0) -> str:
    """Questions as JSONL."""
    return "\n".join(
        json.dumps(
            {
                "id": f"q{i}",
                "domain": domain,
                "type": "mc",
                "category": "order",
                "question": f"What follows {x}{i + shift}?",
                "options": [f"{x}{x}", f"{i} of them", "none", "all"],
                "answer": (i + shift) % 4,
            }
        )
        for i, x in enumerate(LETTERS[:n])
    )


@pytest.fixture(scope="module")
def models(tiny_model, tmp_path_factory) -> Path:
    """Four tiny models: a, and three that lie in different directions from it."""
    import torch
    from transformers import LlamaForCausalLM

    place = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny_model, place / "a")
    for seed, name in enumerate("bcd", start=1):
        shutil.copytree(tiny_model, place / name)
        model = LlamaForCausalLM.from_pretrained(place / name, dtype=torch.float32)
        torch.manual_seed(seed)
        for weight in model.parameters():
            weight.data += 0.05 * torch.randn_like(weight)
        model.save_pretrained(place / name)
    return place


@pytest.fixture
def place(tmp_path, models, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORBWEAVE_CACHE", str(tmp_path / "cache"))
    return furnished(tmp_path, models)


@pytest.fixture(scope="module")
def finished(models, tmp_path_factory) -> Path:
    """A place where `study s.yaml --out out` was run; only to be read."""
    folder = furnished(tmp_path_factory.mktemp("finished"), models)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("ORBWEAVE_CACHE", str(folder / "cache"))
        study("s.yaml", out=Path("out"), quiet=True)
    return folder


def furnished(folder: Path, models: Path) -> Path:
    for name in "abcd":
        (folder / name).symlink_to(models / name)
    (folder / "one.jsonl").write_text(rows("letters", 16), "utf-8")
    (folder / "general.jsonl").write_text(rows("everyday", 8, shift=1), "utf-8")
    write(folder)
    return folder


def content(**changes):
    return {
        "name": "tiny",
        "description": "a <b>bold</b> question",
        "models": {
            "base": {"model": "./a", "strategy": "Base"},
            "sft": {"model": "./b", "strategy": "Base-SFT"},
            "dpo": {"model": "./c", "strategy": "Base-SFT-DPO"},
            "other": {"model": "./d", "strategy": "Base-CPT"},
        },
        "merges": {"pairs": [["base", "sft"], ["sft", "dpo"]], "t": [0.5]},
        "benchmarks": ["one.jsonl", "general.jsonl"],
    } | changes


def write(place: Path, **changes) -> None:
    (place / "s.yaml").write_text(yaml.safe_dump(content(**changes), sort_keys=False), "utf-8")


# ---------------------------------------------------------------- the file


def test_every_fault_is_told_in_one_list_before_anything_is_loaded(place, monkeypatch):
    monkeypatch.setattr("ui.study_run.open_models", None)
    write(
        place,
        baseline="nobody",
        speed=3,
        models={
            "base": {"model": "./a", "colour": "red"},
            "silk": {"model": "silkk"},
            "far": {"model": "http://host/v1#m"},
            "picture": {"model": "loom"},
            "bad label": {"model": "./b"},
            "ties": {"model": "./c", "merged_from": ["ties", "nowhere", "silk"]},
            "lone": {"model": "./d", "merged_from": ["base"]},
        },
        merges=[
            {"pairs": [["base", "nowhere"], ["base", "base"]], "t": [1.5]},
            {"pairs": [["base", "silk"], ["silk", "base"]], "profiles": ["cubic"]},
            {"profiles": ["paper"], "t": [0.5]},
        ],
        benchmarks=["one.jsonl", "missing", "one.jsonl"],
        scoring="luck",
    )
    with pytest.raises(UsageError) as caught:
        study("s.yaml", out=Path("out"))
    said = str(caught.value)
    for fault in (
        "speed: no such key",
        "models.base.colour: no such key",
        "found none called 'silkk'",
        "a model at a server has no weights to merge",
        "it draws pictures",
        "bad label",
        "baseline: no model is called 'nobody'; the labels are base, silk",
        "models.ties.merged_from: no model is called 'nowhere'",
        "models.ties.merged_from: ties cannot be merged from itself",
        "models.lone.merged_from: wanted two or more different models",
        "merges.0.t.0: Input should be less than or equal to 1",
        "merges.0.pairs.0: no model is called 'nowhere'",
        "merges.0.pairs.1: base cannot be merged with itself",
        "merges.1.profiles.0",
        "merges.1.pairs.1: silk and base are paired twice",
        "merges.2: t is for the profile constant",
        "merges.2: it names no pairs, and fewer than two models have parent: true",
        "no name or file 'missing'",
        "one is named twice",
        "scoring: Input should be 'loglik', 'reply' or 'both'",
    ):
        assert fault in said, fault
    assert not (place / "out.work").exists()


def test_keys_given_twice_are_refused(place):
    (place / "s.yaml").write_text("name: x\nmodels:\n  a: {model: ./a}\n  a: {model: ./b}\n")
    with pytest.raises(UsageError, match=r"found 1 fault to mend: line 4: a is given twice"):
        load_study("s.yaml")


@pytest.mark.parametrize("text", ["[]", "", "3", "models: 3", "name: x\nmodels: {a: 3}\nmerges: 4"])
def test_what_is_no_study_is_refused(place, text):
    (place / "s.yaml").write_text(text)
    with pytest.raises(UsageError, match="wanted a study in s.yaml, found"):
        load_study("s.yaml")
    with pytest.raises(
        UsageError, match="found no 'none.yaml'; give a YAML file or one of: smollm2"
    ):
        load_study("none.yaml")


@pytest.mark.parametrize("out", [".", "/"])
def test_a_folder_without_a_name_of_its_own_is_refused(place, out):
    with pytest.raises(UsageError, match=f"as a folder to make, got {out}; give it a name"):
        study("s.yaml", out=Path(out), plan=True)


def test_models_that_do_not_fit_are_told_before_any_scoring(place, monkeypatch):
    shutil.copytree(place / "a", place / "e")
    config = json.loads((place / "e" / "config.json").read_text())
    (place / "e" / "config.json").write_text(json.dumps(config | {"num_attention_heads": 2}))
    models = content()["models"] | {"other": {"model": "./e"}}
    write(place, models=models, merges={"pairs": [["base", "sft"], ["sft", "other"]]})
    monkeypatch.setattr(LoglikBench, "load", None)
    with pytest.raises(UsageError, match="num_attention_heads"):
        study("s.yaml", out=Path("out"))


def test_no_pairs_stands_for_every_two_parents(place):
    models = {name: {"model": f"./{name}", "parent": name != "d"} for name in "abcd"}
    write(place, models=models, merges={"profiles": ["paper", "constant"]})
    known = load_study("s.yaml")
    assert [(pair.a, pair.b) for pair in known.pairs()] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert known.alone() == ["d"]
    assert matrix(known)[4:8] == [
        *("a × b slerp paper", "a × b lerp paper", "a × b slerp t=0.5", "a × b lerp t=0.5")
    ]


def test_every_shipped_study_can_be_read_but_for_models_that_are_still_to_come():
    shipped = shipped_studies()
    assert list(shipped) == ["smollm2-135m"]
    to_come = {"silk", "collagen", "leaf", "biocomposite"}
    try:
        known = load_study("smollm2-135m")
    except UsageError as err:
        faults = re.findall(r"models\.(\w+)\.model: wanted a model, found none called", str(err))
        assert set(faults) <= to_come
        assert f"found {len(faults)} fault" in str(err)
    else:
        assert len(known.pairs()) == 15 and len(matrix(known)) == 6 + 15 * 6


# ---------------------------------------------------------------- words


def constructed(actual: list[bool], parents: list[list[bool]], study) -> Found:
    """A study of one merge with given answers."""
    n = len(actual)
    names = ("base", "sft", "m")
    return Found(
        study=study,
        questions=tuple(load_asked(n)),
        options=(4, 2) * (n // 2),
        scored=(
            *(Scored(name, "", "parent", "", None, name, name) for name in names[:2]),
            Scored("m", "base × sft", "slerp", "constant", 0.5, "m", "m"),
        ),
        results={
            "loglik": Results(
                names, tuple(f"s/q{i}" for i in range(n)), np.array([*parents, actual])
            )
        },
        merges=(Merge("m", ("base", "sft")),),
        controls=(),
        geometries={},
        hashes={},
        n_known=0,
        n_sets=3,
    )


def analysed(actual: list[bool], parents: list[list[bool]], study) -> tuple[Found, Analysis]:
    found = constructed(actual, parents, study)
    return found, analyse(found, "loglik")


def load_asked(n: int):
    from merging.sweep import Asked

    return [Asked(f"s/q{i}", "s/x", 0) for i in range(n)]


def test_a_gain_is_only_claimed_where_interval_and_corrected_test_agree(place):
    known = load_study("s.yaml")
    n = 200
    weak = [i % 2 == 0 for i in range(n)]
    strong = [i % 10 != 0 for i in range(n)]
    clear = summary(*analysed(strong, [weak, weak[::-1]], known))
    assert any("of 1 different merges 1 can be claimed to be better" in s for s in clear)
    assert any("merges against base: better: m +" in s for s in clear)
    slight = [right or i in {1, 3} for i, right in enumerate(weak)]
    doubt = summary(*analysed(slight, [weak, weak[::-1]], known))
    assert any("0 can be claimed to be better than the better parent and 0" in s for s in doubt)
    assert any("merges against base: no difference can be claimed for m +1.0" in s for s in doubt)


def test_the_answer_is_one_sentence_with_the_mean_over_merges(place):
    known = load_study("s.yaml")
    a, b = [i % 2 == 0 for i in range(200)], [i % 4 == 0 for i in range(200)]
    none = headline(*analysed(a, [a, b], known))
    assert none.startswith("None of 1 different merges can be claimed to be better than its ")
    assert "gains +0.0 (+0.0 to +0.0) points over its better parent and +12.5 (+" in none
    gained = headline(*analysed([True] * 200, [a, b], known))
    assert gained.startswith("1 of 1 different merges can be claimed to be better than their ")


def test_guessing_is_told_from_the_number_of_options(place):
    weak = [i % 2 == 0 for i in range(200)]
    found, analysis = analysed(weak, [weak, weak[::-1]], load_study("s.yaml"))
    assert analysis.chance == pytest.approx((1 / 4 + 1 / 2) / 2)
    assert summary(found, analysis)[0].endswith("guessing would get 37.5 %")


def test_many_merges_do_not_hide_what_training_did(finished):
    gains = json.loads((finished / "out" / "results.json").read_text("utf-8"))
    gains = gains["scorings"]["loglik"]["gains"]
    sizes = {(" × " in row["model"], row["group"] == "pooled"): row["n_family"] for row in gains}
    # Three models and four merges, on the questions that count and on the set general.
    assert sizes == {(False, True): 3, (False, False): 3, (True, True): 4, (True, False): 4}
    for row in gains:
        assert row["p_value"] <= row["p_holm"] <= min(1, row["p_value"] * row["n_family"])


def test_of_many_pairs_the_closest_and_the_farthest_are_drawn(place):
    a = [i % 2 == 0 for i in range(20)]
    found, _ = analysed(a, [a, a[::-1]], load_study("s.yaml"))
    geometries = {
        f"a × {x}": Geometry(
            ("a", x), None, (TensorGeometry("w", 0, "mlp", 9, "slerp", 1, 1, angle, 1, 1),)
        )
        for x, angle in zip("bcdef", (3, 1, 4, 9, 5), strict=True)
    }
    pictures = Pictures("s")
    _, drawn = geometry_section(replace(found, geometries=geometries), pictures).exhibits
    assert list(pictures.figures) == ["pictures/s-geometry-a+c.png", "pictures/s-geometry-a+e.png"]
    assert drawn.folded.endswith("the closest and the farthest pair")


# ---------------------------------------------------------------- the run


def test_a_study_that_was_stopped_goes_on(place, monkeypatch):
    asked, ask = [], LoglikBench.ask

    def ask_thrice(self, on_progress):
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(1)
        return ask(self, on_progress)

    told = "interrupted; 3 sets of answers are kept in out.work, the same command goes on"
    with monkeypatch.context() as patched, pytest.raises(Cancelled, match=told) as caught:
        patched.setattr(LoglikBench, "ask", ask_thrice)
        study("s.yaml", out=Path("out"), quiet=True)
    assert caught.value.__context__ is None  # the interrupt would be told instead
    assert not (place / "out").exists()
    assert len(list((place / "out.work" / "answers").iterdir())) == 3
    told = []
    found = run(
        load_study("s.yaml"), place / "out.work", on_progress=lambda *step: told.append(step)
    )
    assert found.n_known == 3
    assert told == sorted(told) and told[-1] == (9 * 24, 9 * 24)


def test_a_study_scores_as_evaluate_does_and_its_tables_follow_by_hand(place, finished):
    found = json.loads((finished / "out" / "results.json").read_text("utf-8"))
    names = [model["name"] for model in found["models"]]
    assert names == [
        *("base", "sft", "dpo", "other"),
        *("base × sft slerp t=0.5", "base × sft lerp t=0.5"),
        *("sft × dpo slerp t=0.5", "sft × dpo lerp t=0.5"),
    ]
    merge("slerp(./b, ./c, t=0.5)", place / "merged")
    folders = {"base": place / "a", "other": place / "d", names[6]: place / "merged"}
    sets = [load_benchmark("one.jsonl"), load_benchmark("general.jsonl")]
    loglik = found["scorings"]["loglik"]
    for model in evaluate(list(folders.items()), sets, {}).models:
        wanted = "".join("01"[answer.is_right("loglik")] for answer in model.answers)
        assert loglik["right"][model.model] == wanted

    by_model = {(row["model"], row["group"]): row for row in loglik["accuracies"]}
    right = loglik["right"]["other"]
    assert by_model["other", "pooled"]["n"] == 16  # without the set general
    assert by_model["other", "pooled"]["accuracy"] == right[:16].count("1") / 16
    assert by_model["other", "general"]["low"] == wilson(right[16:].count("1"), 8).low
    for row in loglik["synergies"]:
        parents = row["name"].split(" slerp")[0].split(" lerp")[0].split(" × ")
        means = [by_model[parent, "pooled"]["accuracy"] for parent in parents]
        assert row["expected"] == pytest.approx(np.mean(means))
        assert row["n"] == 16 and row["n_merges"] == len(loglik["synergies"]) == 4

    # Task vectors are seen from the baseline, where it is a third.
    assert found["geometry"]["base × sft"]["total"]["task_cosine"] is None
    assert abs(found["geometry"]["sft × dpo"]["total"]["task_cosine"]) < 0.2


def test_tables_plots_and_reports_are_all_there(finished):
    out = finished / "out"
    written = {path.name for path in out.iterdir()}
    plots = {"accuracy", "gains", "expected-against-actual", "deviations", "correlations"}
    plots |= {"clusters", "density", "dendrogram"}
    assert {path.name for path in (out / "pictures").iterdir()} == {
        *(f"tiny-{plot}-loglik.png" for plot in plots),
        *("tiny-geometry-base+sft.png", "tiny-geometry-sft+dpo.png"),
    }
    assert written == {
        "pictures",
        *("models.csv", "accuracy.csv", "gains.csv", "synergy.csv", "slerp-over-lerp.csv"),
        "ways.csv",
        *("correlations.csv", "clusters.csv", "geometry.csv"),
        *("results.json", "report.md", "report.html"),
    }
    with (out / "synergy.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    known = json.loads((out / "results.json").read_text("utf-8"))["scorings"]["loglik"]
    assert [float(row["actual"]) for row in table] == [r["actual"] for r in known["synergies"]]


def test_the_report_is_one_file_and_names_comparisons_and_corrections(finished):
    out = finished / "out"
    page = (out / "report.html").read_text("utf-8")
    assert not re.search(r'(src|href)="(?!data:image/png;base64,|#)', page)
    assert "<script" not in page and "a &lt;b&gt;bold&lt;/b&gt; question" in page
    text = (out / "report.md").read_text("utf-8")
    linked = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert {out / name for name in linked} == set(out.glob("pictures/*.png"))
    assert text.count("<details>") == text.count("</details>") == page.count("<details>") > 3
    # GitHub renders a table or a picture only behind a blank line.
    assert not re.search(r"[^|\n]\n\|", text) and not re.search(r"[^\n]\n!\[", text)
    assert max(line.count(" | ") for line in text.splitlines()) < 12
    for shown in (page, text):
        assert "corrected (Holm) for" in shown and "Comparisons made: by likelihood" in shown
        assert "over a better parent" in shown and "Warning: " in shown
    assert re.search(r"^\| base \| Base \| \d+\.\d % \(", text, re.M)


def test_a_second_run_asks_nothing_and_finds_the_same(finished, monkeypatch):
    monkeypatch.chdir(finished)
    with pytest.raises(OutputError, match="exists already"):
        study("s.yaml", out=Path("out"))
    monkeypatch.setattr(LoglikBench, "ask", None)
    found = run(load_study("s.yaml"), finished / "out.work")
    assert (found.n_known, found.n_sets) == (8, 8)
    first = json.loads((finished / "out" / "results.json").read_text("utf-8"))
    assert (first["n_known"], first["n_sets"]) == (0, 8)
    for name, right in first["scorings"]["loglik"]["right"].items():
        assert "".join("01"[r] for r in found.results["loglik"].row(name).tolist()) == right


def test_a_plan_names_the_matrix_the_questions_and_the_time_and_writes_nothing(place, capsys):
    before = sorted(place.iterdir())
    study("s.yaml", out=Path("out"), plan=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["base (Base)", "sft (Base-SFT)"]
    assert lines[4] == "base × sft slerp t=0.5"
    assert lines[-1].startswith(
        "plan: 8 models and merges, 8 of them different, 24 questions each by loglik, 0 sets of "
        "answers known before; "
    )
    assert sorted(place.iterdir()) == before


def test_a_report_can_be_copied_elsewhere_and_tells_nothing_of_the_machine(finished):
    for name in ("report.md", "report.html", "results.json", "models.csv"):
        text = (finished / "out" / name).read_text("utf-8")
        assert str(finished) not in text and str(finished.parent) not in text
        assert not re.search(r'[("]/(tmp|home|root|work)/', text), name


def test_ways_to_merge_are_averaged_over_pairs(finished):
    found = json.loads((finished / "out" / "results.json").read_text("utf-8"))["scorings"]["loglik"]
    rows = {row["name"]: row for row in found["synergies"]}
    ways = {way["name"]: way for way in found["ways"]}
    assert list(ways) == ["slerp t=0.5", "lerp t=0.5", "all"]
    own = [rows[f"{pair} slerp t=0.5"] for pair in ("base × sft", "sft × dpo")]
    for key in ("excess", "improvement"):
        assert ways["slerp t=0.5"][key] == pytest.approx(np.mean([row[key] for row in own]))
        assert ways["all"][key] == pytest.approx(np.mean([row[key] for row in rows.values()]))
    assert ways["all"]["n"] == len(rows) == 4
    with (finished / "out" / "ways.csv").open(encoding="utf-8") as file:
        assert [row["name"] for row in csv.DictReader(file)] == list(ways)


def test_a_merge_made_elsewhere_is_judged_against_its_parents(place):
    merge("slerp(./b, ./c, t=0.3)", place / "ties")
    models = {name: {"model": f"./{name}"} for name in "abc"}
    models["ties"] = {"model": "./ties", "merged_from": ["b", "c"]}
    write(place, models=models, merges={"pairs": [["b", "c"]], "t": [0.5]})
    known = load_study("s.yaml")
    found = run(known, place / "work")
    analysis = analyse(found, "loglik")
    row = next(row for row in analysis.synergies if row.name == "ties")
    accuracy = analysis.judged.accuracy
    assert row.parents == ("b", "c") and row.n_merges == 3
    assert row.expected == pytest.approx((accuracy("b") + accuracy("c")) / 2)
    assert row.actual == accuracy("ties")
    assert row.distance == analysis.synergies[0].distance
    assert [kind.name for kind in analysis.kinds][-2:] == ["merged elsewhere", "all"]
    assert any("merges against a: " in told for told in summary(found, analysis))


def test_a_plan_counts_equal_models_once(place, capsys):
    """A SLERP of nearly equal models is a straight line: it is the LERP, and is not asked."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(place / "a", place / "near")
    weights = load_file(place / "a" / "model.safetensors")
    save_file({name: 1.001 * w for name, w in weights.items()}, place / "near/model.safetensors")
    models = {name: {"model": f"./{name}", "parent": True} for name in ("a", "b", "near")}
    write(place, models=models, merges={"t": [0.5]})
    study("s.yaml", out=Path("out"), plan=True, as_json=True)
    planned = json.loads(capsys.readouterr().out)
    assert len(planned["matrix"]) == 3 + 3 * 2 and planned["n_models"] == 8


def test_a_plan_reads_every_model_once_and_loads_one(place, monkeypatch, capsys):
    """Fifteen pairs of six models once meant thirty loads."""
    from merging import sketch, sweep
    from ui import study_plan

    monkeypatch.setattr(sweep, "open_laboratory", None)
    reads, loads = [], []

    def read(parent):
        reads.append(parent.name)
        return sketch.read_sample(parent)

    def load(*given, load=LoglikBench.load):
        loads.append(1)
        load(*given)

    monkeypatch.setattr(study_plan, "read_sample", read)
    monkeypatch.setattr(LoglikBench, "load", load)
    models = {name: {"model": f"./{name}", "parent": True} for name in "abc"}
    write(place, models=models, merges={"t": [0.5]})
    study("s.yaml", out=Path("out"), plan=True, quiet=True)
    assert (reads, loads) == (["a", "b", "c"], [1])


def test_a_plan_knows_what_was_answered_before(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished)
    study("s.yaml", out=Path("out"), plan=True, as_json=True)
    planned = json.loads(capsys.readouterr().out)
    assert (planned["n_known"], planned["scoring_s"]) == (8, 0)


def test_replies_are_scored_beside_likelihoods(place):
    write(
        place, scoring="both", merges=[], models={"base": {"model": "./a"}, "b": {"model": "./b"}}
    )
    study("s.yaml", out=Path("out"), quiet=True)
    found = json.loads((place / "out" / "results.json").read_text("utf-8"))
    sets = [load_benchmark("one.jsonl"), load_benchmark("general.jsonl")]
    (model,) = evaluate([("b", place / "b")], sets, {}, scorings=("loglik", "reply")).models
    for scoring in ("loglik", "reply"):
        wanted = "".join("01"[answer.is_right(scoring)] for answer in model.answers)
        assert found["scorings"][scoring]["right"]["b"] == wanted
    assert (place / "out" / "pictures" / "tiny-accuracy-reply.png").is_file()
