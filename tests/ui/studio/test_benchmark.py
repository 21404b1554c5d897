"""The studio's benchmark: its arithmetic, what it takes for a leak, and that its parts run."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from ui.studio.desk import Desk

from .conftest import GRADIO_WARNS, Painter, Parts, Server, wait_until

FOLDER = Path(__file__).parents[3] / "benchmarks"

pytestmark = [GRADIO_WARNS, pytest.mark.timeout(300)]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("studio")


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    parts = Parts(word_s=0.02, painter=Painter(0.03))
    desk = Desk(tmp_path / "data", parts.open)
    desk.open()
    desk.work()
    server = Server(desk)
    wait_until(lambda: httpx.get(server.url).status_code == 200, "the pages are there", 200)
    yield server.url
    server.close()
    desk.close()


def test_a_limit_is_held_by_so_many_tries(bench):
    rows = [bench.Row("first words on the screen", [1.0, 5.0, 3.0]), bench.Row("other", [2.0])]
    table = bench.table(rows, {})
    assert "| first words on the screen | 3.00 | 1.00 to 5.00 | 3 | 4: held by 2 of 3 |" in table
    assert "| other | 2.00 | 2.00 to 2.00 | 1 | – |" in table


@pytest.mark.parametrize(
    ("html", "stage"),
    [
        ('<div class="ow-text">Threads<span class="ow-caret" aria-hidden="true">', "talking"),
        ('<div class="ow-text"><span class="ow-caret" aria-hidden="true">', "running"),
        ('<div class="ow-text">Threads hold.</div>', "running"),
    ],
)
def test_a_stage_is_what_the_page_shows(bench, html, stage):
    seen = {"status": "running", "parts": {"head": {"html": ""}, "turn-0": {"html": html}}}
    assert bench.stage_of(seen) == stage
    seen["parts"]["head"]["html"] = "drawing, step 3 of 24"
    assert bench.stage_of(seen) == "drawing"


class Visitor:
    """Asks a studio that tells everybody of everything, or nobody of anything but his own."""

    def __init__(self, own: str, *, is_told_all: bool) -> None:
        self._own, self._is_told_all = own, is_told_all

    def ask(self, endpoint: str, *values: Any) -> Any:
        if endpoint == "designs":
            return [{"id": each} for each in (["a", "b"] if self._is_told_all else [self._own])]
        text = "zqA zqB" if self._is_told_all else f"zq{self._own.upper()}"
        return {"concept": text, "versions": [{"pictures": [{"address": "/p.png"}]}]}

    def sees(self, design: str) -> bool:
        return self._is_told_all

    def status(self, path: str) -> int:
        return 200 if self._is_told_all else 404


@pytest.mark.parametrize(("is_told_all", "n"), [(False, 0), (True, 10)])
def test_whatever_is_shown_of_another_counts_as_a_leak(bench, is_told_all, n):
    people = [Visitor(own, is_told_all=is_told_all) for own in ("a", "b")]
    stays = [bench.Stay(f"zq{own.upper()}", own, "done", [0.1]) for own in ("a", "b")]
    assert len(bench.leaks(people, stays)) == n


def test_its_parts_measure_a_studio(bench, url):
    """Fakes speak and draw; server, browser and the people are real."""
    for row in [*bench.on_screen(url, 1), *bench.stopping(url, 1, steps=20)]:
        assert all(0 < seconds < 60 for seconds in row.seconds), row
    small = {"size": "64", "steps": 2, "structure": "none", "domains": ["leaf"]}
    found = bench.crowd(url, os.getpid(), 3, **small)
    assert (found["sessions"], found["ended"], found["done"], found["leaks"]) == (3, 3, 3, [])
    assert found["peak_mb"] >= found["before_mb"] > 50
    assert found["look_s"]["p95"] >= found["look_s"]["median"] > 0
    assert "3 people at once: 3 designs ended, 3 of them done" in bench.table([], found)


@pytest.mark.long
def test_it_starts_a_studio_of_its_own(bench, tmp_path):
    rows = bench.starting(1)
    assert [row.what for row in rows][0] == "first request answered"
    assert rows[0].seconds[0] <= rows[1].seconds[0] <= rows[2].seconds[0]
