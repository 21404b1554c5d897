"""The hashes of the parents, found beside a merge and remembered."""

from __future__ import annotations

import hashlib
import os

import pytest

import merging.build


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Five files that count as large."""
    monkeypatch.setattr(merging.build, "_SMALL_BYTES", 0)
    paths = [tmp_path / f"{i}.safetensors" for i in range(5)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i]) * (i + 1))
    return paths


def test_files_hashed_at_once_are_remembered(files, monkeypatch):
    merging.build._hash_at_once([*files, *files])
    monkeypatch.setattr(merging.build, "sha256_file", lambda path: "read again")
    wanted = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    assert [merging.build._sha256(path) for path in files] == wanted


def test_each_file_is_read_once_and_the_largest_first(files, monkeypatch):
    read = []
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.setattr(merging.build, "sha256_file", lambda path: read.append(path) or "hash")
    merging.build._hash_at_once([*files, *files])
    assert read == files[::-1]


def test_a_file_that_cannot_be_read_is_told(files, monkeypatch):
    def refuse(path):
        raise OSError("the disk is gone")

    monkeypatch.setattr(merging.build, "sha256_file", refuse)
    with pytest.raises(OSError, match="the disk is gone"):
        merging.build._hash_at_once(files)


def test_a_hash_that_cannot_be_remembered_is_a_hash_all_the_same(
    files, tmp_path, monkeypatch, caplog
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ORBWEAVE_CACHE", str(tmp_path / "file" / "cache"))
    assert merging.build._sha256(files[0]) == hashlib.sha256(files[0].read_bytes()).hexdigest()
    assert "0.safetensors will be computed again next time" in caplog.text
