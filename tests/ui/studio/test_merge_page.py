"""The merge page: profiles, and tiny real models that are compared, saved and tried."""

from __future__ import annotations

import html
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from agents import Knowledge
from agents.fake import FakeEngine, hashed_words
from agents.roles import Form, Team, load_team
from agents.team import converse
from imagegen.measure import measure
from merging.recipe import PROFILES
from orbweave.errors import ConceptError, OrbweaveError, UsageError
from ui.design import Workshop
from ui.studio import mix as mix_module
from ui.studio import mixer as module
from ui.studio.merge_room import MergeRoom
from ui.studio.mix import Mix, Tour, common_base, curves_of, offered
from ui.studio.mixer import Bench, Mixer, Task
from ui.studio.rooms import Ask

from .conftest import EVIL, Painter, Parts, Talker, another, facts, wait_until

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def pair(tiny_model, tmp_path, monkeypatch) -> tuple[str, str]:
    """Two tiny chat models on offer."""
    folders = [another(tiny_model, tmp_path / name, n) for n, name in enumerate(("a", "b"))]
    names = str(folders[0]), str(folders[1])
    monkeypatch.setattr(mix_module, "offered", lambda: dict.fromkeys(names, "a tiny model"))
    return names


@pytest.fixture
def mixer(tmp_path) -> Iterator[Mixer]:
    mixer = Mixer(tmp_path / "data")
    yield mixer
    mixer.close()


def ended(task: Task, timeout_s: float = 200.0) -> str:
    wait_until(lambda: task.status not in ("queued", "running"), "the task ended", timeout_s)
    return task.status


def bench(shop_engine, painter: Painter) -> Bench:
    known = Knowledge(facts(), hashed_words)
    shop = Workshop(converse, shop_engine, lambda: known, load_team(), painter, measure)
    return Bench(shop, lambda words, seed: None)


def terse(team: Team) -> Team:
    """Return the team with one try and eight tokens a reply: noise need not be long."""
    short = {"tries": 1, "max_new_tokens": 8}
    forms = {n: f.model_copy(update=short) for n, f in dict(team).items() if isinstance(f, Form)}
    return team.model_copy(update=forms)


def test_the_desk_writes_mergekits_yaml():
    fields = {"first": "base", "second": "silk", "profile": "own", "mlp_middle": "0.25", "x": "y"}
    recipe = yaml.safe_load(Mix.read(fields).recipe.to_yaml())
    assert recipe["base_model"] == "base"
    assert recipe["parameters"]["t"] == [
        {"filter": "self_attn", "value": [0.5, 0.5, 0.5]},
        {"filter": "mlp", "value": [0.5, 0.25, 0.5]},
        {"value": [0.5, 0.5, 0.5]},
    ]
    for name in ("paper", "linear"):
        mix = Mix(first="base", second="silk", profile=name)
        assert mix.recipe.parameters["t"] == PROFILES[name]
    assert Mix(first="base", second="silk", profile="constant", t=0.3).recipe.parameters["t"] == 0.3


def test_a_profile_is_drawn_as_it_merges():
    curves = {c.kind: dict(c.points) for c in curves_of(Mix(first="a", second="b").recipe)}
    assert (curves["self_attn"][0.0], curves["self_attn"][1.0]) == (0.0, 1.0)
    assert (curves["mlp"][0.0], curves["mlp"][1.0]) == (1.0, 0.0)
    assert curves["mlp"][0.25] == 0.5
    assert set(curves["rest"].values()) == {0.5}


@pytest.mark.parametrize(
    "wrong",
    [
        {"first": "/etc"}, {"second": "http://10.0.0.1/v1#m"}, {"t": "1.5"}, {"t": "nan"},
        {"profile": "mine"}, {"mlp_last": ""}, {"first": "mistral-7b"},
    ],
)  # fmt: skip
def test_what_is_not_on_offer_cannot_be_merged(wrong):
    with pytest.raises(UsageError, match="^wanted a"):
        Mix.read({"first": "base", "second": "silk"} | wrong)


def test_any_model_on_this_machine_may_be_named_where_nobody_else_comes_in(
    mixer, tiny_model, tmp_path, monkeypatch
):
    folder = str(another(tiny_model, tmp_path / "other", 1))
    fields = {"first": "", "other_first": folder, "second": "silk"}
    assert Mix.read(fields, takes_any=True).first == folder
    for name in (f"slerp({folder}, silk, t=0.3)", f"{folder}+silk", "slerp(base, silk, t=0.4)"):
        assert Mix.read(fields | {"other_first": name}, takes_any=True).first == name
    with pytest.raises(UsageError, match="or a merge of yours, got"):
        Mix.read(fields)

    (Path(folder) / "model.safetensors").unlink()
    empty = tmp_path / "a,b"
    shutil.copytree(tiny_model, empty)
    wrong = {
        "": "wanted a model reference, got nothing",
        folder: "wanted safetensors weights in",
        "/nowhere": "wanted the model folder '/nowhere', found none",
        "http://10.0.0.1/v1#m": "wanted models on disk to merge, got the server",
        "loom": "wanted a language model, got loom",
        "mistral-7b": "is not; fetch it first: orbweave models export mistral-7b",
        "some/thing": "wanted a model that is on this machine, some/thing is not",
        f"slerp({folder}, some/thing, t=0.5)": "wanted safetensors weights in",
        str(empty): "wanted a merge as slerp",
    }
    for name, said in wrong.items():
        with pytest.raises(OrbweaveError, match=re.escape(said)):
            Mix.read(fields | {"other_first": name}, takes_any=True)
        told = MergeRoom(mixer, takes_any=True).look(
            "ann", Ask(known={"desk": "x"}, fields=fields | {"other_first": name})
        )
        assert said in html.unescape("".join(part.html for part in told.parts))


def test_a_saved_merge_is_on_offer_to_its_owner_only(mixer, pair):
    mix = Mix(first=pair[0], second=pair[1], profile="constant", t=0.25)
    assert ended(mixer.ask("ann", "save", mix, name="pair")) == "done"
    (folder,) = mixer.saved("ann")
    assert Path(folder) == mixer.models("ann") / "pair"
    fields = {"first": folder, "second": pair[0]}
    room = MergeRoom(mixer)
    assert f'<option value="{folder}">pair</option>' in room.look("ann", Ask()).parts[0].html
    assert "pair</option>" not in room.look("eve", Ask()).parts[0].html.partition("Merges")[2]
    task = mixer.find("ann", room.act("ann", Ask(do="compare", fields=fields)))
    assert ended(task) == "done", task.record.why
    with pytest.raises(UsageError, match="or a merge of yours, got"):
        room.act("eve", Ask(do="compare", fields=fields))


def test_the_slider_has_both_ends():
    assert Tour.read({"concept": " a  web "}).places == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert Tour.read({"concept": "a web", "step": "0.1"}).places[3] == 0.3
    with pytest.raises(ConceptError):
        Tour.read({"concept": ""})
    with pytest.raises(UsageError, match="wanted a step that can be used"):
        Tour.read({"concept": "a web", "step": "0.001"})


def test_only_what_is_here_is_on_offer_and_siblings_know_their_base():
    assert {"base", "silk", "weaver"} <= offered().keys()
    assert "llama-3.1-8b" not in offered()
    assert common_base("silk", "leaf") == "base"
    assert common_base("base", "silk") is None


def test_two_models_are_compared_in_words_and_a_picture(mixer, pair):
    mix = Mix(first=pair[0], second=pair[1])
    task = mixer.ask("ann", "compare", mix)
    assert ended(task) == "done", task.record.why
    assert task.geometry.read_bytes().startswith(b"\x89PNG")
    assert any("median angle" in text or "little in common" in text for text in task.record.advice)
    again = Mixer(mixer.models("ann").parents[1]).find("ann", task.id)  # after a restart
    assert (again.status, again.record.advice) == ("done", task.record.advice)
    with pytest.raises(UsageError, match="found none of that name"):
        mixer.find("eve", task.id)


def test_what_does_not_fit_together_is_said_in_words(mixer, pair, tmp_path):
    config = json.loads((Path(pair[1]) / "config.json").read_text())
    (Path(pair[1]) / "config.json").write_text(json.dumps(config | {"num_attention_heads": 2}))
    task = mixer.ask("ann", "compare", Mix(first=pair[0], second=pair[1]))
    assert ended(task) == "done", task.record.why
    assert any("num_attention_heads" in text for text in task.record.findings)
    same = mixer.ask("ann", "compare", Mix(first=pair[0], second=pair[0]))
    assert ended(same) == "done"
    assert any(text.startswith("fault") for text in same.record.findings)


def test_a_merge_is_saved_under_a_name_of_its_own(mixer, pair):
    mix = Mix(first=pair[0], second=pair[1], profile="constant", t=0.25)
    task = mixer.ask("ann", "save", mix, name="../My Merge")
    assert ended(task) == "done", task.record.why
    folder = mixer.models("ann") / "my-merge"
    assert yaml.safe_load((folder / "mergekit_config.yml").read_text())["parameters"]["t"] == 0.25
    merged = load_file(folder / "model.safetensors")
    first, second = (load_file(Path(name) / "model.safetensors") for name in pair)
    name = "model.layers.0.mlp.up_proj.weight"
    near, far = (abs(merged[name].float() - w[name].float()).sum() for w in (first, second))
    assert 0 < near < far
    with pytest.raises(UsageError, match="you have 'my-merge' already"):
        mixer.ask("ann", "save", mix, name="my merge")
    with pytest.raises(UsageError, match="wanted a name for the merge"):
        mixer.ask("ann", "save", mix, name=" ")


def test_the_slider_lets_every_merge_speak_and_draw(mixer, pair, monkeypatch):
    """Real merges in memory behind the real engine; only the pictures are checkerboards."""
    monkeypatch.setattr(module, "open_bench", lambda note: bench(module.open_merged, Painter()))
    monkeypatch.setattr(module, "load_team", lambda name: terse(load_team(name)))
    tour = Tour(concept="a web of leaves", seed=3, step="0.5")
    task = mixer.ask("ann", "slide", Mix(first=pair[0], second=pair[1]), tour=tour)
    assert ended(task) == "done", task.record.why
    designs = [place.design for place in task.places]
    assert [design.brief.seed for design in designs] == [3, 3, 3]
    models = [design.turns[0].model for design in designs]
    assert models == [f"slerp({pair[0]}, {pair[1]}, t={t})" for t in ("0", "0.5", "1")]
    assert {turn.model for design in designs for turn in design.turns} == {*models}
    assert [design.turns[0].role for design in designs] == ["expert"] * 3
    shown = "".join(p.html for p in MergeRoom(mixer).look("ann", Ask(at=task.id)).parts)
    assert shown.count("<img src=") == 3
    assert shown.count("what its experts said") == 3
    picture = f"place-1/{designs[1].pictures[0].path}"
    assert task.file(picture).is_file()
    for path in ("mix.json", "place-1/design.json", "place-1/images/../design.json"):
        assert task.file(path) is None


def test_stop_stops_and_going_on_keeps_what_was_made(mixer, monkeypatch):
    parts, asked = Parts(), []

    def open_engine(model: str) -> FakeEngine:
        asked.append(model)
        parts.word_s = 0.05 if len(asked) == 2 else 0.0
        return Talker(parts, model)

    monkeypatch.setattr(module, "open_bench", lambda note: bench(open_engine, Painter()))
    tour = Tour(concept=f"a web {EVIL}", step="0.5")
    task = mixer.ask("ann", "slide", Mix(first="base", second="silk"), tour=tour)
    assert mixer.ask("ann", "slide", Mix(first="base", second="silk"), tour=tour) is task
    wait_until(lambda: len(asked) == 2 and task.heard, "the second place speaks")

    def shown() -> str:
        return "".join(p.html for p in MergeRoom(mixer).look("ann", Ask(at=task.id)).parts)

    wait_until(lambda: task.heard and task.heard[:10] in html.unescape(shown()), "it is shown")
    assert "<script>alert" not in shown()
    begun = time.monotonic()
    mixer.stop(task)
    assert ended(task) == "stopped"
    assert time.monotonic() - begun < 2.0
    assert [place.design is not None for place in task.places] == [True, False, False]
    again = mixer.again("ann", task.id)
    assert ended(again) == "done"
    assert [place.design is not None for place in again.places] == [True, True, True]
    assert [model[-5:] for model in asked] == [" t=0)", "=0.5)", "=0.5)", " t=1)"]


def test_one_person_cannot_fill_the_queue(mixer, monkeypatch):
    parts = Parts(word_s=0.05)
    monkeypatch.setattr(
        module, "open_bench", lambda note: bench(lambda model: Talker(parts, model), Painter())
    )
    mix = Mix(first="base", second="silk")
    tasks = [
        mixer.ask("ann", "slide", mix, tour=Tour(concept=f"web {n}", step="0.5")) for n in range(2)
    ]
    with pytest.raises(UsageError, match="wanted room for one more task, 2 of yours"):
        mixer.ask("ann", "compare", mix)
    other = mixer.ask("ben", "compare", mix)
    assert mixer.position(other) >= 1
    mixer.stop(tasks[1])
    assert tasks[1].status == "stopped"
    for task in (tasks[0], other):
        mixer.stop(task)
    assert ended(tasks[0]) == "stopped"


def test_what_a_restart_cut_off_is_told(tmp_path, monkeypatch):
    parts = Parts(word_s=0.05)
    monkeypatch.setattr(
        module, "open_bench", lambda note: bench(lambda model: Talker(parts, model), Painter())
    )
    first = Mixer(tmp_path / "data")
    tour = Tour(concept="a web", step="0.5")
    task = first.ask("ann", "slide", Mix(first="base", second="silk"), tour=tour)
    wait_until(lambda: task.heard, "it speaks")
    first.close()
    later = Mixer(tmp_path / "data").find("ann", task.id)
    assert later.status == "interrupted"
