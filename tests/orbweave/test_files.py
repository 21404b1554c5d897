"""Files and folders are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orbweave.errors import OutputError
from orbweave.files import (
    append_line,
    build_folder,
    check_output,
    remove_leftovers,
    sha256_file,
    write_bytes,
    write_text,
)

not_as_root = pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")


def test_text_is_written_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.txt", "silk é")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.txt"]
    assert (tmp_path / "new" / "a.txt").read_bytes() == "silk é".encode()


def test_file_is_replaced_only_when_allowed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_bytes(path, b"old")
    with pytest.raises(OutputError, match=r"a, but it exists already; .* --force"):
        write_bytes(path, b"new", force=False)
    assert path.read_bytes() == b"old"
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


def test_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OutputError, match="wanted to write the file .* found a folder"):
        write_bytes(tmp_path / "a", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_sha256_is_that_of_the_standard_example(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(tmp_path / "abc") == expected


def test_folder_appears_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "run"
    with build_folder(target) as building:
        (building / "sub").mkdir()
        write_text(building / "sub" / "a", "1")
        assert not target.exists()
    assert (target / "sub" / "a").read_text() == "1"
    assert [p.name for p in target.parent.iterdir()] == ["run"]


def test_a_folder_is_noted_before_it_is_made_and_a_note_that_fails_is_told(tmp_path: Path) -> None:
    noted: list[tuple[Path, bool]] = []
    target = tmp_path / "run"
    with build_folder(target, note=lambda place: noted.append((place, place.exists()))) as building:
        assert noted == [(building, False)]

    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left on device"):
        with build_folder(target, force=True, note=full):
            pytest.fail("the block must not run")
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, SystemExit])
def test_folder_is_absent_after_a_fault(tmp_path: Path, fault: type[BaseException]) -> None:
    with pytest.raises(fault), build_folder(tmp_path / "run") as building:
        (building / "a").write_text("1")
        raise fault
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(OutputError, match="run, but it exists already"):
        with build_folder(tmp_path / "run"):
            pytest.fail("the block must not run")


def test_forced_folder_replaces_the_old_one_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "run"
    target.mkdir()
    (target / "old").write_text("1")
    with build_folder(target, force=True) as building:
        (building / "new").write_text("2")
        assert (target / "old").exists()
    assert [p.name for p in target.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_forced_folder_keeps_the_old_one_after_a_fault(tmp_path: Path) -> None:
    target = tmp_path / "run"
    target.mkdir()
    (target / "old").write_text("1")
    with pytest.raises(ValueError), build_folder(target, force=True):
        raise ValueError
    assert [p.name for p in target.iterdir()] == ["old"]


def test_target_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists already"):
        with build_folder(tmp_path / "run"):
            (tmp_path / "run").mkdir()
            (tmp_path / "run" / "theirs").write_text("1")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["theirs"]


def test_output_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    with pytest.raises(OutputError, match=r"but .*a is no folder; choose another"):
        check_output(tmp_path / "a" / "b" / "c")


@not_as_root
def test_read_only_place_is_refused_and_nothing_made(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="is not writable; choose another place"):
        check_output(tmp_path / "a" / "b")
    tmp_path.chmod(0o700)
    assert list(tmp_path.iterdir()) == []


def test_what_the_system_refuses_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the system said 'File name too long'; free some space"):
        write_bytes(tmp_path / ("n" * 300), b"")


def test_leftovers_of_one_target_are_removed(tmp_path: Path) -> None:
    for name in (".run.12ab.partial", ".other.12ab.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text("1")
    remove_leftovers(tmp_path / "run")
    assert [p.name for p in tmp_path.iterdir()] == [".other.12ab.partial"]


def test_a_line_takes_the_place_of_what_a_crash_left_behind_the_whole_ones(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"one\ntw")
    whole = append_line(path, b"two", whole=4)
    assert append_line(path, b"three", whole) == len(path.read_bytes()) == 14
    assert path.read_bytes() == b"one\ntwo\nthree\n"


def test_a_line_is_on_the_disk_before_it_counts_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "journal"
    whole = append_line(path, b"one", whole=0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="No space left on device'; free some space and run"):
            append_line(path, b"two", whole)
    append_line(path, b"three", whole)
    assert path.read_bytes() == b"one\nthree\n"
