"""Sources become a corpus whose ledger adds up, and which goes on after an interruption."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orbweave.errors import OutputError, UsageError
from training import corpus as module
from training.corpus import ingest, is_corpus, pending, read_chunks
from training.mix import read_rows

SILK = (
    "Dragline silk is the thread from which a spider hangs, and it carries a remarkable load for "
    "its weight. The strength of the thread is about 1.1 GPa, while its toughness is well above "
    "that of steel. This comes from small crystals in a soft matrix of the same protein.\n"
)
LEAF = (
    "The veins of a leaf form loops, so that water finds a way around when one of them is cut. A "
    "tree of veins would be cheaper to build, but it would lose all that lies beyond a wound. The "
    "density of the smallest veins sets how much water the blade can give to the air.\n"
)
BONE = (
    "Bone is a composite of collagen and mineral with pores at all scales. The mineral makes it "
    "stiff, and the collagen keeps a crack from running through. When it is loaded for years, the "
    "cells in it lay down new bone where the strain is high and take it away where it is low.\n"
)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Ten files with twelve sources: five to keep, seven not."""
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "a-silk.txt").write_text(SILK)
    (folder / "b-leaf.md").write_text(f"# Leaf\n\n{LEAF}")
    (folder / "c-copy.txt").write_text(SILK.upper())
    (folder / "d-noise.txt").write_text(SILK.replace("e", "\ufffd"))
    Image.new("RGB", (200, 300), "white").save(folder / "e-scan.pdf")
    (folder / "f-cut.pdf").write_bytes((folder / "e-scan.pdf").read_bytes()[:500])
    (folder / "g.docx").write_bytes(b"PK")
    (folder / "h.bib").write_text(
        "@article{bone, title={Bone}, doi={10.1000/bone}, abstract={" + BONE + "}}\n"
        "@article{gap, title={Nowhere to be had}}\n"
    )
    rows = [
        {"text": "Nacre is built of plates and a little protein between them, which is tough."},
        {"text": "A wing is light because the membrane is thin and the veins in it are hollow."},
    ]
    (folder / "h2.csv").write_text(f"title,doi,abstract\nBone again,10.1000/BONE,{BONE[:60]}\n")
    (folder / "i.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def ledger(corpus: Path) -> list[dict[str, str]]:
    with (corpus / "ledger.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_the_ledger_accounts_for_every_source(sources: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"

    summary = ingest([sources], out)

    rows = ledger(out)
    assert len(rows) == summary.total == summary.kept + summary.excluded == 12
    assert Counter(row["status"] for row in rows) == {"kept": 5, "excluded": 7}
    assert (summary.kept, summary.excluded) == (5, 7)
    assert all(bool(row["reason"]) == (row["status"] == "excluded") for row in rows)
    assert sum(summary.reasons.values()) == summary.excluded
    assert summary.reasons == {
        "duplicate": 2,
        "quality": 1,
        "scanned": 1,
        "truncated": 1,
        "format": 1,
        "no text": 1,
    }
    reasons = {Path(row["source"]).name: row["reason"] for row in rows}
    assert reasons["c-copy.txt"] == f"duplicate: 100% of {sources / 'a-silk.txt'}"
    assert reasons["h2.csv#1"] == f"duplicate: same DOI as {sources / 'h.bib'}#bone"


def test_documents_and_chunks_belong_to_the_kept_rows(sources: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"

    summary = ingest([sources], out, max_chars=150)

    kept = [row for row in ledger(out) if row["status"] == "kept"]
    documents, chunks = lines(out / "documents.jsonl"), lines(out / "chunks.jsonl")
    assert [d["id"] for d in documents] == [row["document"] for row in kept]
    assert {c["document"] for c in chunks} == {d["id"] for d in documents}
    assert Counter(c["document"] for c in chunks) == {
        row["document"]: int(row["chunks"]) for row in kept
    }
    assert summary.chunks == len(chunks)
    assert summary.characters == sum(len(c["text"]) for c in chunks)
    assert [chunk.id for chunk in read_chunks(out)] == [c["id"] for c in chunks]
    leaf = next(c for c in chunks if c["source"].endswith("b-leaf.md"))
    assert (leaf["headings"], leaf["title"]) == (["Leaf"], "Leaf")


def test_chunks_are_read_as_rows_to_train_on(sources: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    ingest([sources], out)

    rows = read_rows(out / "chunks.jsonl")

    assert [row.text for row in rows] == [chunk.text for chunk in read_chunks(out)]
    assert len({row.id for row in rows}) == len(rows)


def test_an_interrupted_run_goes_on_and_ends_as_if_nothing_had_been(
    sources: Path, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    ingest([sources], whole)

    def interrupt(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest([sources], broken, interrupt)
    assert not (broken / "ledger.csv").exists()
    assert is_corpus(broken)
    with pytest.raises(UsageError, match="found no ledger.csv"):
        read_chunks(broken)
    seen: list[tuple[int, int]] = []
    ingest([sources], broken, lambda done, total: seen.append((done, total)))

    assert seen[0] == (4, 10)
    assert seen[-1] == (10, 10)
    for name in ("documents.jsonl", "chunks.jsonl", "ledger.csv"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()


def test_a_finished_source_is_not_opened_again(sources: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    ingest([sources], out)
    before = (out / "chunks.jsonl").read_bytes()
    silk = sources / "a-silk.txt"
    times = silk.stat()
    silk.write_text("x" * times.st_size)  # same size and time: only a reader would notice
    os.utime(silk, ns=(times.st_atime_ns, times.st_mtime_ns))

    ingest([sources], out)

    assert (out / "chunks.jsonl").read_bytes() == before
    assert pending([silk], out) == []
    ingest([sources], out, force=True)
    assert (out / "chunks.jsonl").read_bytes() != before


def test_a_changed_source_takes_the_place_of_its_earlier_state(
    sources: Path, tmp_path: Path
) -> None:
    out = tmp_path / "corpus"
    ingest([sources], out)
    (sources / "a-silk.txt").write_text(SILK.replace("1.1 GPa", "1.3 GPa"))

    ingest([sources], out)

    rows = ledger(out)
    assert len(rows) == 12
    assert rows[0]["source"].endswith("a-silk.txt")
    assert "1.3 GPa" in read_chunks(out)[0].text


def test_later_sources_are_added(sources: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    ingest([sources / "b-leaf.md"], out)

    summary = ingest([sources / "a-silk.txt"], out)

    assert summary.kept == 2
    assert [Path(row["source"]).name for row in ledger(out)] == ["b-leaf.md", "a-silk.txt"]


def test_other_settings_need_no_reading(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "corpus"
    ingest([sources], out)
    monkeypatch.delattr(module, "read")

    everything = ingest([sources], out, min_quality=0.0)
    on_silk = ingest([sources], out, about=["Spider", "tendon"])

    assert "quality" not in everything.reasons
    # Leaf, bone twice, nacre, wing, and the noise, in which no word is whole.
    assert (on_silk.kept, on_silk.reasons["off topic"]) == (1, 6)


def test_bad_chunks_of_a_good_document_are_left_out(tmp_path: Path) -> None:
    noise = "The \ue000 of the \ufffd\ufffd is in the \ue001, and the \ufffd is not \ue002."
    (tmp_path / "a.txt").write_text(f"{SILK}\n{LEAF}\n{BONE}\n{noise}")

    ingest([tmp_path / "a.txt"], tmp_path / "corpus", max_chars=300)

    (row,) = ledger(tmp_path / "corpus")
    assert row["status"] == "kept"
    assert (row["chunks"], row["chunks_left_out"]) == ("3", "1")
    assert not any("\ue000" in chunk.text for chunk in read_chunks(tmp_path / "corpus"))


def test_a_corpus_of_nothing_is_an_error_that_names_the_ledger(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("123")

    with pytest.raises(UsageError, match=r"all 1 sources were excluded \(1 empty\); .*ledger.csv"):
        ingest([tmp_path / "a.txt"], tmp_path / "corpus")

    assert ledger(tmp_path / "corpus")[0]["reason"] == "empty: no words in it"
    with pytest.raises(UsageError, match="at least one chunk"):
        read_chunks(tmp_path / "corpus")


def test_somebody_elses_folder_is_left_alone(sources: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter.txt").write_text("dear")

    with pytest.raises(OutputError, match="found something else"):
        ingest([sources], home)

    assert [path.name for path in home.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("settings", [{"min_quality": 1.5}, {"max_chars": 5}])
def test_settings_out_of_range_are_refused(
    sources: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="wanted min_quality in"):
        ingest([sources], tmp_path / "corpus", **settings)


def test_a_disk_that_refuses_leaves_no_corpus_that_looks_finished(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "corpus"
    ingest([sources], out)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        ingest([sources], out)

    assert not (out / "ledger.csv").exists()
    assert sorted(path.name for path in out.iterdir() if path.name.startswith(".")) == []


def test_rows_of_one_paper_are_no_copies_of_each_other(tmp_path: Path) -> None:
    rows = [{"statement": part, "source_url": "https://doi.org/10.1000/x"} for part in (SILK, LEAF)]
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    assert ingest([tmp_path / "facts.jsonl"], tmp_path / "corpus").kept == 2
