"""The slider and a batch on the embedded models, as the pages start them."""

from __future__ import annotations

import csv
from itertools import pairwise

import pytest

from orbweave.store import STORE_VARIABLE
from ui.studio.batches import Batches
from ui.studio.mix import Mix, Tour
from ui.studio.mixer import Mixer

from .conftest import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def test_merges_of_two_experts_write_and_draw_one_concept(tmp_path):
    mixer = Mixer(tmp_path)
    tour = Tour(concept="a filter membrane that combines spider silk and leaf veins", step="0.5")
    task = mixer.ask("ann", "slide", Mix(first="silk", second="leaf"), tour=tour)
    wait_until(lambda: task.status not in ("queued", "running"), "the slider ended", 800.0)
    mixer.close()
    assert task.status == "done", task.record.why
    designs = [place.design for place in task.places]
    words = [design.prompts[0].prompt for design in designs]
    assert all(len(prompt.split()) > 15 for prompt in words)
    assert any(a != b for a, b in pairwise(words))
    for place, design in enumerate(designs):
        assert task.file(f"place-{place}/{design.pictures[0].path}").stat().st_size > 10_000


def test_a_table_becomes_designs_in_a_process_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "orbweave.db"))
    batches = Batches(tmp_path / "data")
    table = b"a filter membrane that combines spider silk and leaf veins\n"
    batch = batches.add("ann", "idea.txt", table, {"images": "1", "steps": "4"})
    batches.run(batch)
    batch = batches.find("ann", batch.id)
    wait_until(lambda: not batches.standing(batch).is_running, "the process ended", 800.0)
    assert batches.standing(batch).tally == {"done": 1}, batches.standing(batch).last_words
    (row,) = csv.DictReader(batches.file(batch, "results.csv").read_text("utf-8").splitlines())
    assert batches.file(batch, row["picture"]).stat().st_size > 10_000
