"""The digests of the parents, found beside a merge and remembered."""

from __future__ import annotations

import hashlib
import os
import time

import pytest
from blake3 import blake3

import merging.digests
from merging.digests import digest, digest_of_all, hash_at_once, sha256


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Five files that count as large."""
    monkeypatch.setattr(merging.digests, "_SMALL_BYTES", 0)
    paths = [tmp_path / f"{i}.safetensors" for i in range(5)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i]) * (i + 1))
    return paths


def blake3_of(path):
    return f"blake3:{blake3(path.read_bytes()).hexdigest()}"


def test_the_digest_is_that_of_the_published_test_vectors(tmp_path):
    # https://github.com/BLAKE3-team/BLAKE3/blob/master/test_vectors/test_vectors.json: bytes that
    # count from 0 to 250 and begin again.
    path = tmp_path / "file"
    path.write_bytes(b"")
    assert digest(path) == (
        "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    )
    path.write_bytes(bytes(i % 251 for i in range(1024)))
    assert digest(path) == (
        "blake3:42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"
    )


def test_a_file_of_many_blocks_has_the_digest_of_its_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(3 * merging.digests._BLOCK_BYTES + 17))
    assert digest(path) == blake3_of(path)


def test_a_file_of_the_hubs_cache_is_known_by_its_name(tmp_path):
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    name = hashlib.sha256(b"weights").hexdigest()
    (blobs / name).write_bytes(b"weights")
    (tmp_path / "model.safetensors").symlink_to(blobs / name)
    assert digest(tmp_path / "model.safetensors") == f"sha256:{name}"
    assert sha256(tmp_path / "model.safetensors") == name


def test_several_files_have_one_digest_that_depends_on_each_and_their_order(files):
    whole = digest_of_all(files[:2])
    assert whole != digest_of_all(files[1::-1])
    assert whole != digest_of_all(files[:3])
    assert digest_of_all(files[:1]) == digest(files[0])


def test_the_digest_of_a_large_file_is_remembered_until_it_changes(files, monkeypatch):
    first = digest(files[3])
    monkeypatch.setattr(merging.digests, "_hash", lambda path: "read again")
    assert digest(files[3]) == first
    time.sleep(0.01)
    files[3].write_bytes(b"9876")
    assert digest(files[3]) == "read again"


def test_both_digests_of_a_file_are_remembered_apart(files, monkeypatch):
    wanted = hashlib.sha256(files[3].read_bytes()).hexdigest()
    assert (digest(files[3]), sha256(files[3])) == (blake3_of(files[3]), wanted)
    monkeypatch.setattr(merging.digests, "_hash", lambda path: "read again")
    monkeypatch.setattr(merging.digests, "sha256_file", lambda path: "read again")
    assert (digest(files[3]), sha256(files[3])) == (blake3_of(files[3]), wanted)
    time.sleep(0.01)
    files[3].write_bytes(b"9876")
    assert digest(files[3]) == sha256(files[3]) == "read again"


def test_files_hashed_at_once_are_remembered(files, monkeypatch):
    hash_at_once([*files, *files])
    monkeypatch.setattr(merging.digests, "_hash", lambda path: "read again")
    wanted = [blake3_of(path) for path in files]
    assert [digest(path) for path in files] == wanted


def test_each_file_is_read_once_and_the_largest_first(files, monkeypatch):
    read = []
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.setattr(merging.digests, "_hash", lambda path: read.append(path) or "hash")
    hash_at_once([*files, *files])
    assert read == files[::-1]


def test_a_file_that_cannot_be_read_is_told(files, monkeypatch):
    def refuse(path):
        raise OSError("the disk is gone")

    monkeypatch.setattr(merging.digests, "_hash", refuse)
    with pytest.raises(OSError, match="the disk is gone"):
        hash_at_once(files)


def test_a_hash_that_cannot_be_remembered_is_a_hash_all_the_same(
    files, tmp_path, monkeypatch, caplog
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ORBWEAVE_CACHE", str(tmp_path / "file" / "cache"))
    assert digest(files[0]) == blake3_of(files[0])
    assert "0.safetensors will be computed again next time" in caplog.text
