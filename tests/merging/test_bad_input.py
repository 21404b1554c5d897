"""Whatever is wrong: one line that says so, inputs as they were, nothing that looks whole.

`test_tensors`, `test_compatibility` and `test_build` look at single errors; here the same
things happen to the command `orbweave merge`, and every file is compared before and after.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from merging.build import merge
from merging.compatibility import check
from merging.parent import open_parent
from merging.plan import plan
from merging.recipe import Input, Recipe
from merging.stream import merge_into_memory
from merging.tensors import open_weights
from orbweave.errors import ModelError, OrbweaveError, OutputError, UsageError
from orbweave.weights import check_folder
from tests.merging.conftest import write_llama
from ui.cli import run

ROOT = Path(__file__).parents[2]
UP = "model.layers.1.mlp.up_proj.weight"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def _ref(tmp_path: Path, t: object = 0.5) -> str:
    return f"slerp({tmp_path / 'a'}, {tmp_path / 'b'}, t={t})"


def _files(folder: Path) -> dict[str, str]:
    """Every file below a folder and its hash, the folders too; the cache apart."""
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in folder.rglob("*")
        if path.relative_to(folder).parts[0] != "cache"
    }


def _split(folder: Path) -> None:
    """Write the model in two shards with an index."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    shards = {}
    for i, names in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2])):
        file = f"model-{i + 1:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, folder / file)
        shards |= dict.fromkeys(names, file)
    (folder / INDEX).write_text(json.dumps({"weight_map": shards}))


# ---------------------------------------------------------------- damaged models


def _put(value: float) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        tensors[UP][3, 2] = value
        save_file(tensors, folder / WEIGHTS)

    return damage


def _flip_exponent(folder: Path) -> None:
    """Flip the highest bit of one exponent in bfloat16: 0.05 becomes some 10^37."""
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(folder / WEIGHTS).items()}
    tensors[UP].view(torch.int16)[3, 2] ^= 1 << 14
    save_file(tensors, folder / WEIGHTS)


def _cut(n_bytes: int) -> Callable[[Path], None]:
    """Keep so many bytes of the weights; negative: take as many away."""

    def damage(folder: Path) -> None:
        path = folder / WEIGHTS
        path.write_bytes(path.read_bytes()[:n_bytes])

    return damage


def _replace(old: bytes, new: bytes) -> Callable[[Path], None]:
    """Change the header."""

    def damage(folder: Path) -> None:
        path = folder / WEIGHTS
        content = path.read_bytes()
        assert old in content and len(old) == len(new)
        path.write_bytes(content.replace(old, new, 1))

    return damage


def _cut_a_shard(folder: Path) -> None:
    _split(folder)
    path = folder / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def _lose_a_shard(folder: Path) -> None:
    _split(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def _swap_shards(folder: Path) -> None:
    _split(folder)
    first, second = sorted(folder.glob("model-0*"))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def _break_index(folder: Path) -> None:
    _split(folder)
    (folder / INDEX).write_text((folder / INDEX).read_text()[:-30])


def _leave_a_pointer(folder: Path) -> None:
    """What a clone without Git LFS has instead of weights."""
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1234567\n"
    (folder / WEIGHTS).write_text(text)


def _write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: None if (folder / name).write_bytes(content) else None


DAMAGES = {
    "nan": (_put(float("nan")), f"wanted finite weights in {UP} of .*/b, found NaN"),
    "inf": (_put(float("inf")), f"wanted finite weights in {UP} of .*/b, found NaN, infinite"),
    "a flipped exponent": (_flip_exponent, f"{UP} of .*/b, found .* or absurdly large ones"),
    "cut off": (_cut(-10), "bytes of weights in .*/b/model.safetensors, .*: the file is cut off"),
    "cut in the header": (_cut(100), "wanted safetensors weights in .*/b/model.safetensors, found"),
    "empty": (_cut(0), "wanted safetensors weights in .*/b/model.safetensors, found"),
    "a pointer": (_leave_a_pointer, "wanted safetensors weights in .*/b/model.safetensors, found"),
    "a flipped shape": (
        _replace(b"[12,16]", b"[12,17]"),
        r"has the shape \(12, 16\) .* \(12, 17\)",
    ),
    "a flipped dtype": (_replace(b'"F32"', b'"F33"'), r"is quantised \(F33\)"),
    "a flipped name": (_replace(b"layers.0", b"layers.p"), "shape|lacks"),
    "a shard cut off": (_cut_a_shard, "model-00002-of-00002.safetensors, .*: the file is cut off"),
    "a shard lost": (_lose_a_shard, "wanted the weights .*model-00002-of-00002.safetensors, found"),
    "shards swapped": (_swap_shards, "wanted .* in .*model-0000.-of-00002.* as the index says"),
    "a broken index": (_break_index, "wanted JSON in .*/b/model.safetensors.index.json, found"),
    "a broken tokenizer": (_write("tokenizer.json", b"{"), "wanted a tokenizer's file in .*/b/tok"),
    "a list as tokenizer": (
        _write("tokenizer.json", b"[]"),
        "wanted a tokenizer's file .*'\\[\\]'",
    ),
    "no vocabulary": (_write("tokenizer.json", b'{"model": []}'), "wanted a tokenizer's file in"),
    "no word": (_write("tokenizer.json", b'{"model": {"vocab": [3]}}'), "a tokenizer's file in"),
    "a broken template": (_write("chat_template.jinja", b"\xff"), "a tokenizer's file .*'utf-8'"),
    "a broken config": (_write("config.json", b"[]"), "wanted a JSON object in .*/b/config.json"),
    "no architecture": (_write("config.json", b'{"architectures": 3}'), ".*/b a None: tensors of"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_model_is_told_in_one_line_and_nothing_is_written(pair, tmp_path, name, capsys):
    damage, told = DAMAGES[name]
    damage(pair[1])
    before = _files(tmp_path)
    code = run(["merge", _ref(tmp_path), str(tmp_path / "out"), "--quiet"])
    said = capsys.readouterr()
    mends_the_recipe = "wanted models that can be merged" in said.err
    assert code == (2 if mends_the_recipe else 1)
    assert said.out == "" and said.err.count("\n") == 1
    _assert_matches(told, said.err)
    assert _files(tmp_path) == before


@pytest.mark.parametrize("damaged", ["a", "b"])
def test_no_flipped_bit_of_a_header_passes_as_another_model(tmp_path, damaged):
    """Every seventh bit, which meets all of a byte: an error, or the same merge as before."""
    for i, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        draw = torch.Generator().manual_seed(i)
        tensors = {f"layers.{k}.up.weight": torch.randn(2, 3, generator=draw) for k in (0, 1)}
        save_file(tensors, tmp_path / name / WEIGHTS, metadata={"format": "pt"})
        (tmp_path / name / "config.json").write_text("{}")
    good = _merged(tmp_path)
    path = tmp_path / damaged / WEIGHTS
    content = path.read_bytes()
    n_bits = 8 * (8 + int.from_bytes(content[:8], "little"))
    n_harmless = 0
    for bit in range(0, n_bits, 7):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            merged = _merged(tmp_path)
        except OrbweaveError:
            continue
        n_harmless += 1
        assert merged.keys() == good.keys()
        assert all(torch.equal(merged[name], good[name]) for name in good), bytes(flipped)
    assert n_harmless < n_bits / 7 / 5  # in "format": "pt" and the padding


def _merged(tmp_path: Path) -> dict[str, torch.Tensor]:
    models = (Input(model="a"), Input(model="b"))
    recipe = Recipe(merge_method="slerp", base_model="a", models=models, parameters={"t": 0.5})
    parents = {name: open_parent(name, tmp_path / name) for name in "ab"}
    faults = [finding.text for finding in check(recipe, parents) if finding.level != "note"]
    if faults:
        raise UsageError("; ".join(faults))
    weights = {name: open_weights(parent) for name, parent in parents.items()}
    return merge_into_memory(plan(recipe, parents), weights)


def test_a_name_changed_into_another_is_found_without_a_second_model(tmp_path):
    """JSON keeps the last of two equal names, so the first one's bytes belong to nobody."""
    folder = write_llama(tmp_path / "a")
    name = b"model.layers.0.mlp.up_proj.weight"
    _replace(name, name.replace(b"0", b"1"))(folder)
    with pytest.raises(ModelError, match=r"wanted .* at byte .*, its header says .* is damaged"):
        open_weights(open_parent("a", folder))


def test_a_result_too_large_for_its_dtype_is_refused(tmp_path, write_recipe, capsys):
    """Two orthogonal tensors near float16's largest number, 65,504; half way lies above it."""
    for folder, row in zip((tmp_path / "a", tmp_path / "b"), (0, 1), strict=True):
        write_llama(folder, dtype=torch.float16)
        tensors = load_file(folder / WEIGHTS)
        tensors[UP] = torch.zeros_like(tensors[UP])
        tensors[UP][0, :] = 60_000
        tensors[UP][1, :] = 60_000 * (1 - 2 * row)
        save_file(tensors, folder / WEIGHTS)
    content = {
        "merge_method": "slerp",
        "base_model": str(tmp_path / "a"),
        "models": [{"model": str(tmp_path / name)} for name in "ab"],
        "parameters": {"t": 0.5},
    }
    before = _files(tmp_path)
    with pytest.raises(ModelError, match=f"wanted {UP} in F16, found .* too large for it; set out"):
        merge(str(write_recipe("narrow.yaml", **content)), tmp_path / "out")
    assert before.items() <= _files(tmp_path).items() and not (tmp_path / "out").exists()
    merge(str(write_recipe(**content, out_dtype="float32")), tmp_path / "wide")
    assert load_file(tmp_path / "wide" / WEIGHTS)[UP].max() > 65_504


# ---------------------------------------------------------------- recipes used wrongly


RECIPES = {
    "t above 1": ({"parameters": {"t": 1.5}}, r"t must be between 0 and 1, got \[1.5\]"),
    "t below 0": ({"parameters": {"t": [0, -0.1]}}, "t must be between 0 and 1"),
    "t not a number": ({"parameters": {"t": float("nan")}}, r"t must be finite, got \[nan\]"),
    "too many points": ({"parameters": {"t": "paper"}}, "t has 5 values for 2 layers"),
    "a number as filter": (
        {"parameters": {"t": [{"filter": 3, "value": 1}, {"value": 0.5}]}},
        "wanted a piece of a tensor's name, got '3'",
    ),
    "a list as filter": (
        {"parameters": {"t": [{"filter": ["mlp"], "value": 1}, {"value": 0.5}]}},
        "wanted a piece of a tensor's name, got",
    ),
    "infinite weights": (
        {"merge_method": "linear", "parameters": {"weight": float("inf")}},
        r"weight must be finite, got \[inf\]",
    ),
    "weights of no number": (
        {"merge_method": "karcher", "parameters": {"weight": float("nan")}},
        r"weight must be finite, got \[nan\]",
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_an_impossible_recipe_exits_2_and_writes_nothing(
    pair, tmp_path, write_recipe, name, capsys
):
    more, told = RECIPES[name]
    content = {
        "merge_method": "slerp",
        "base_model": str(pair[0]),
        "models": [{"model": str(folder)} for folder in pair],
        "parameters": {"t": 0.5},
    }
    recipe = write_recipe(**content | more)
    before = _files(tmp_path)
    for flags in (["--quiet"], ["--quiet", "--dry-run"]):
        assert run(["merge", str(recipe), str(tmp_path / "out"), *flags]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1
        _assert_matches(told, said.err)
    assert _files(tmp_path) == before


@pytest.mark.parametrize("t", ["1.5", "-0.1", "nan", "x"])
def test_a_t_off_the_arc_is_refused_in_a_reference_too(pair, tmp_path, t, capsys):
    before = _files(tmp_path)
    assert run(["merge", _ref(tmp_path, t), str(tmp_path / "out"), "--quiet"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert _files(tmp_path) == before


def test_shares_of_nothing_at_all_give_nothing(pair, tmp_path, write_recipe):
    """As in mergekit: weights of 0 without normalisation make a tensor of zeros."""
    models = [{"model": str(folder), "parameters": {"weight": 0}} for folder in pair]
    recipe = write_recipe(merge_method="linear", models=models, parameters={"normalize": False})
    merge(str(recipe), tmp_path / "out")
    assert not any(tensor.any() for tensor in load_file(tmp_path / "out" / WEIGHTS).values())


# ---------------------------------------------------------------- places


@pytest.mark.parametrize("other", ["a", "a/", "a/../a", "link", "./a"])
def test_one_folder_under_two_names_is_refused(pair, tmp_path, other, capsys):
    (tmp_path / "link").symlink_to(pair[0])
    before = _files(tmp_path)
    ref = f"slerp({pair[0]}, {tmp_path}/{other}, t=0.5)"
    assert run(["merge", ref, str(tmp_path / "out"), "--quiet"]) == 2
    _assert_matches("are the same weights|named twice|different models", capsys.readouterr().err)
    assert _files(tmp_path) == before


@pytest.mark.parametrize("place", ["a", "a/inside", "a/../b", "link", "link/inside", "."])
@pytest.mark.parametrize("force", [True, False])
def test_a_place_within_an_input_or_around_it_is_refused(pair, tmp_path, place, force, capsys):
    (tmp_path / "link").symlink_to(pair[0])
    before = _files(tmp_path)
    flags = ["--quiet", *(["--force"] if force else [])]
    assert run(["merge", _ref(tmp_path), f"{tmp_path}/{place}", *flags]) in {1, 2}
    assert capsys.readouterr().err.count("\n") == 1
    assert _files(tmp_path) == before


# ---------------------------------------------------------------- the disk


@pytest.mark.parametrize("n_written", [0, 1, 13, 25])
def test_a_disk_that_fills_while_weights_are_written(
    pair, tmp_path, monkeypatch, n_written, capsys
):
    before, write, n_calls = _files(tmp_path), os.pwrite, 0

    def pwrite(file: int, data: bytes, place: int) -> int:
        nonlocal n_calls
        n_calls += 1
        if n_calls > n_written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data[: max(1, len(data) // 2)], place)  # and short writes, too

    monkeypatch.setattr("os.pwrite", pwrite)
    assert run(["merge", _ref(tmp_path), str(tmp_path / "out"), "--quiet"]) == 1
    assert n_calls > n_written
    _assert_matches(
        "wanted to write .*/out, the system said 'No space left on device'; free some space",
        capsys.readouterr().err,
    )
    assert _files(tmp_path) == before


def test_short_writes_are_carried_on(pair, tmp_path, monkeypatch):
    merge(_ref(tmp_path), tmp_path / "whole")
    write = os.pwrite
    monkeypatch.setattr(
        "os.pwrite", lambda file, data, place: write(file, data[: max(1, len(data) // 3)], place)
    )
    merge(_ref(tmp_path), tmp_path / "pieces")
    assert (tmp_path / "pieces" / WEIGHTS).read_bytes() == (
        tmp_path / "whole" / WEIGHTS
    ).read_bytes()


def test_a_disk_that_refuses_only_when_it_is_flushed(pair, tmp_path, monkeypatch, capsys):
    """As network folders and quotas do."""

    def fsync(_: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    before = _files(tmp_path)
    monkeypatch.setattr("os.fsync", fsync)
    assert run(["merge", _ref(tmp_path), str(tmp_path / "out"), "--quiet"]) == 1
    _assert_matches("the system said 'Disk quota exceeded'", capsys.readouterr().err)
    assert _files(tmp_path) == before


def test_an_earlier_merge_survives_a_disk_that_fills(pair, tmp_path, monkeypatch):
    merge(_ref(tmp_path), tmp_path / "out")
    before = _files(tmp_path)

    def pwrite(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.pwrite", pwrite)
    with pytest.raises(OutputError, match="No space left"):
        merge(_ref(tmp_path, 0.25), tmp_path / "out", force=True)
    assert _files(tmp_path) == before


def test_a_limit_of_the_system_on_files_is_told(pair, tmp_path):
    """A real refusal by the kernel, in a process of its own."""
    before = _files(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "ui.cli", "merge", _ref(tmp_path), str(tmp_path / "out"), "--quiet"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)),
    )
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    warning, error = done.stderr.splitlines()  # the list of jobs cannot be written either
    assert warning.startswith("WARNING orbweave.logbook: ") and error.startswith("orbweave: ")
    _assert_matches("wanted to write .*/out, the system said 'File too large'", done.stderr)
    assert _files(tmp_path) == before


# ---------------------------------------------------------------- two at once


# Waits at the point where the weights are written until it is told to go on.
WAITING = """
import sys, time
from pathlib import Path
import merging.folder
here, told = Path(sys.argv[1]), Path(sys.argv[2])
write = merging.folder._merge

def wait(*arguments):
    here.touch()
    until = time.monotonic() + 60
    while not told.exists() and time.monotonic() < until:
        time.sleep(0.002)
    return write(*arguments)

merging.folder._merge = wait
from ui.cli import run
sys.exit(run(sys.argv[3:]))
"""


def _start_merge(tmp_path: Path, marks: list[Path], t: float, *flags: str) -> subprocess.Popen[str]:
    """Start a merge that touches the first mark before its weights and waits for the second."""
    out = str(tmp_path / "place" / "out")
    return subprocess.Popen(
        [
            *(sys.executable, "-c", WAITING, *map(str, marks)),
            *("merge", _ref(tmp_path, t), out, "--quiet", *flags),
        ],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


def _await(mark: Path) -> None:
    until = time.monotonic() + 60
    while not mark.exists():
        assert time.monotonic() < until
        time.sleep(0.01)


def _error(said: str) -> str:
    *warnings, error = said.splitlines()  # of the list of jobs: one entry a place
    assert error[:9] == "orbweave:" and len(warnings) <= 1
    assert all(line.startswith("WARNING orbweave.logbook: ") for line in warnings)
    return error


@pytest.mark.parametrize("flags", [[], ["--force"]], ids=["", "force"])
def test_a_second_merge_into_one_folder_is_refused_before_its_work(pair, tmp_path, flags):
    place, marks = tmp_path / "place", [tmp_path / "cache" / name for name in ("here", "told")]
    for folder in (place, marks[0].parent):
        folder.mkdir(exist_ok=True)
    before = _files(tmp_path)
    with _start_merge(tmp_path, marks, 0.25, *flags) as first:
        _await(marks[0])
        marks[0].unlink()
        with _start_merge(tmp_path, marks, 0.75, *flags) as second:
            said = second.communicate(timeout=110)[1]
        assert second.returncode == 1 and not marks[0].exists()
        _assert_matches("wanted to write .*/out, but another merge into it is und", _error(said))
        marks[1].touch()
        said = first.communicate(timeout=110)[1]
    assert first.returncode == 0, said
    check_folder(place / "out", "language")
    written = yaml.safe_load((place / "out" / "mergekit_config.yml").read_text())
    assert written["parameters"]["t"] == 0.25
    assert [path.name for path in place.iterdir()] == ["out"]
    assert before.items() <= _files(tmp_path).items()


@pytest.mark.parametrize("flags", [[], ["--force"]], ids=["", "force"])
def test_two_merges_begun_together_leave_one_whole_model(pair, tmp_path, flags):
    place, told = tmp_path / "place", tmp_path / "cache" / "told"
    for folder in (place, told.parent):
        folder.mkdir(exist_ok=True)
    told.touch()
    before, ts = _files(tmp_path), (0.25, 0.75)
    marks = [tmp_path / "cache" / "here", told]
    children = [_start_merge(tmp_path, marks, t, *flags) for t in ts]
    said = [child.communicate(timeout=110)[1] for child in children]
    codes = [child.returncode for child in children]
    assert 0 in codes and (flags or sorted(codes) == [0, 1]), said
    for code, text in zip(codes, said, strict=True):
        if code:
            assert code == 1
            _assert_matches("wanted to write .*/out, ", _error(text))
    check_folder(place / "out", "language")
    written = yaml.safe_load((place / "out" / "mergekit_config.yml").read_text())
    assert written["parameters"]["t"] in [t for t, code in zip(ts, codes, strict=True) if not code]
    assert [path.name for path in place.iterdir()] == ["out"]
    assert before.items() <= _files(tmp_path).items()


def test_what_another_program_put_there_meanwhile_is_not_overwritten(pair, tmp_path):
    place, marks = tmp_path / "place", [tmp_path / "cache" / name for name in ("here", "told")]
    for folder in (place, marks[0].parent):
        folder.mkdir(exist_ok=True)
    with _start_merge(tmp_path, marks, 0.5) as child:
        _await(marks[0])
        (place / "out").mkdir()
        (place / "out" / "thesis.tex").write_text("precious")
        marks[1].touch()
        said = child.communicate(timeout=110)[1]
    assert child.returncode == 1
    _assert_matches("wanted to write .*/out, but it exists already", _error(said))
    assert [str(path.relative_to(place)) for path in sorted(place.rglob("*"))] == [
        "out",
        "out/thesis.tex",
    ]


def _assert_matches(pattern: str, text: str) -> None:
    with pytest.raises(ValueError, match=pattern):
        raise ValueError(text)
