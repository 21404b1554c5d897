from __future__ import annotations

import asyncio
import threading

import pytest

from orbweave.errors import UsageError
from orbweave.records import RenderRequest
from ui.rendering import RenderSettings, chooser_for, in_thread, parse_size

STRUCTURE = "motifs: [{family: orb_web, spacing: 30}]\nlook: golden on black\n"


@pytest.mark.parametrize(
    ("text", "size"),
    [(None, None), ("256", (256, 256)), ("512x384", (512, 384)), ("64×8", (64, 8))],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "big", "-8", "8x", "8x8x8", "999999"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match="256 or 512x384"):
        parse_size(text)


def test_unset_settings_take_the_records_defaults():
    assert RenderSettings(steps=4).request("p", "", None, (1,)).model_dump(
        include={"steps", "guidance", "width"}
    ) == {"steps": 4, "guidance": RenderRequest(prompt="p").guidance, "width": 256}


def test_a_setting_out_of_range_is_told_with_its_value():
    with pytest.raises(UsageError, match=r"wanted a width that can be rendered, got '250'"):
        RenderSettings(size_px=(250, 256)).request("p", "", None, (1,))


def test_a_preset_brings_model_adapter_and_settings_and_the_user_wins():
    leaf = RenderSettings("leaf-flux").request("p", "", None, (1,))
    assert (leaf.model, leaf.steps, leaf.guidance) == ("flux-dev", 25, 3.5)
    assert leaf.adapters == (("lamm-mit/leaf-FLUX.1-dev", 1.0),)
    assert (leaf.scheduler, leaf.width) == ("Euler", 1024)
    mine = RenderSettings("leaf-flux", steps=9, adapters=(("mine", 0.5),), tile=True)
    asked = mine.request("p", "", None, (1,))
    assert asked.steps == 9 and asked.adapters[1:] == (("mine", 0.5),) and asked.tile


def test_every_preset_can_be_rendered_and_every_image_model_has_one():
    from imagegen.presets import preset
    from orbweave.models import list_models

    names = {entry.name for entry in list_models() if entry.kind == "image"}
    assert {name for name in names if preset(name) != {"model": name}} == names - {"loom"}
    assert len(names) >= 7
    for name in names:
        assert RenderSettings(name).request("p", "", None, (1,)).model in names


def test_no_steps_and_weights_out_of_range_are_told():
    with pytest.raises(UsageError, match="wanted a steps that can be rendered, got '0'"):
        RenderSettings(steps=0).request("p", "", None, (1,))
    with pytest.raises(UsageError, match="wanted a weight of adapter 1 that"):
        RenderSettings(adapters=(("a", float("nan")),)).request("p", "", None, (1,))


@pytest.mark.parametrize("name", ["s.yaml", "s.json"])
def test_a_structure_file_is_used_for_every_prompt(tmp_path, name):
    path = tmp_path / name
    path.write_text(STRUCTURE if name == "s.yaml" else '{"motifs": [{"family": "orb_web"}]}')
    structure = chooser_for(str(path))("any prompt", 3)
    assert structure is not None
    assert structure.motifs[0].family == "orb_web"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"motifs: []\n", "at motifs"),
        (b"[1, 2", "wanted JSON or YAML"),
        (b"motifs: [{family: x, spacing: 2}]", "at spacing of motif 1: Input"),
        (b"\xff\xfe\x00", "not a text file"),
        (b"a: " + b"x" * 100_001, "more than 100 kB"),
        (b"!!python/object/apply:os.system [ls]", "wanted JSON or YAML"),
        (b"[" * 20_000, "wanted JSON or YAML"),
        (b"look: 2026-13-45", "wanted JSON or YAML"),
        (b"motifs: [{family: nope}]", "wanted a family of motifs, got 'nope'; the names are "),
        (b"motifs: [{family: orb_web}]\nlook: mud", "wanted a look .*, got 'mud'; materials: "),
    ],
)
def test_a_bad_structure_file_is_told(tmp_path, content, message):
    (tmp_path / "s.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        chooser_for(str(tmp_path / "s.yaml"))


def test_a_structure_file_without_end_is_not_read_to_its_end():
    with pytest.raises(UsageError, match="/dev/zero of more than 100 kB"):
        chooser_for("/dev/zero")


def test_a_missing_structure_file_is_told():
    with pytest.raises(UsageError, match="auto, none or a readable file"):
        chooser_for("nowhere.yaml")


async def test_a_cancelled_thread_is_told_and_waited_for():
    started, ended = threading.Event(), threading.Event()

    def work(cancelled):
        started.set()
        while not cancelled():
            pass
        ended.set()

    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(started.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_an_error_in_the_thread_arrives_here():
    def work(cancelled):
        raise UsageError("from the thread")

    with pytest.raises(UsageError, match="from the thread"):
        await in_thread(work)


def test_auto_takes_the_motif_the_prompt_names_and_none_takes_none():
    structure = chooser_for("auto")("a golden orb web on black", 3)
    assert structure is not None
    assert structure.motifs[0].family == "orb_web"
    assert chooser_for("none")("a golden orb web on black", 3) is None
