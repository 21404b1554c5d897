from __future__ import annotations

from pathlib import Path

import pytest

from orbweave.errors import OutputError
from ui.target import SLUG_BYTES, check_target, default_folder, slug


@pytest.mark.parametrize(
    ("concept", "name"),
    [
        ("A Spider's web, drained!", "a-spider-s-web-drained"),
        ("../../etc/passwd", "etc-passwd"),
        ("/", "design"),
        ("..", "design"),
        ("-rf ~", "rf"),
        ("🕸️✨", "design"),
        ("קורי עכביש", "קורי-עכביש"),
        ("C:\\temp\\con", "c-temp-con"),
        ("a\u202eb", "a-b"),
    ],
)
def test_slug_keeps_letters_of_any_script_and_nothing_else(concept, name):
    assert slug(concept) == name


@pytest.mark.parametrize("concept", ["x" * 2000, "word " * 400, "網" * 700, "a" * 59 + " bc"])
def test_slug_is_short_in_bytes_and_whole_in_letters(concept):
    name = slug(concept)
    assert 0 < len(name.encode()) <= SLUG_BYTES
    assert "\ufffd" not in name


def test_default_folder_is_always_fresh(tmp_path):
    names = []
    for _ in range(3):
        target = default_folder(tmp_path, "silk", 4)
        target.mkdir()
        names.append(target.name)
    assert names == ["silk-4", "silk-4-2", "silk-4-3"]


def test_force_replaces_nothing_but_our_own_results(tmp_path):
    (tmp_path / "thesis.tex").write_text("ten years")
    with pytest.raises(OutputError, match="replaces results of this command only"):
        check_target(tmp_path, force=True, is_ours=lambda folder: False)


@pytest.mark.parametrize("tail", ["file/below", "file"])
def test_a_file_in_the_way_is_named(tmp_path: Path, tail):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="file"):
        check_target(tmp_path / tail, force=False, is_ours=lambda folder: True)


def test_missing_parents_are_fine(tmp_path):
    check_target(tmp_path / "a" / "b" / "c", force=False, is_ours=lambda folder: False)
    assert list(tmp_path.iterdir()) == []
