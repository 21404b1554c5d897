"""The whole path on the embedded models: `orbweave ui`, a browser, words, pictures."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect, sync_playwright

from imagegen.png import read_note
from orbweave.records import Design

from .conftest import free_port

ROOT = Path(__file__).parents[3]
CONCEPT = "a filter membrane that combines spider silk and leaf veins"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[tuple[str, Path, float]]:
    """The address of a studio in a process of its own, its data, seconds to its first answer."""
    port, data = free_port(), tmp_path / "data"
    command = [sys.executable, "-m", "ui.cli", "ui", "--port", str(port), "--data", str(data)]
    begun = time.monotonic()
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})
    url = f"http://127.0.0.1:{port}"
    while True:
        assert process.poll() is None, "the studio ended by itself"
        try:
            httpx.get(url)
            break
        except httpx.TransportError:
            time.sleep(0.05)
    yield url, data, time.monotonic() - begun
    process.send_signal(signal.SIGINT)
    assert process.wait(60) in {0, 130}  # 0 where the shell behind all this ignores Ctrl-C


def test_a_concept_becomes_words_and_pictures_in_the_browser(studio):
    url, data, first_s = studio
    assert first_s < 10.0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(120_000)
        page.goto(url)
        expect(page.locator(".ow-welcome")).to_be_visible(timeout=120_000)
        page.fill("#concept textarea", CONCEPT)
        page.click("#settings button")
        page.get_by_label("number input for Rounds").fill("1")
        page.get_by_label("number input for Pictures").fill("1")
        page.click("#begin")
        expect(page.locator(".ow-status")).to_contain_text("Done", timeout=600_000)
        experts = page.locator(".ow-role-expert .ow-name b").all_inner_texts()
        assert {"spider silk expert", "leaf expert"} <= {name.lower() for name in experts}
        expect(page.locator(".ow-role-expert .ow-chip").first).to_be_visible()
        page.locator(".ow-pictures img").scroll_into_view_if_needed()
        page.wait_for_function("document.querySelector('.ow-pictures img').naturalWidth === 256")
        source = page.locator(".ow-pictures img").get_attribute("src")
        assert re.search(r"/picture/v0-seed-0-[0-9a-f]{8}\.png$", source)
        browser.close()
    (made,) = data.glob("*/*/design/design.json")
    record = Design.model_validate_json(made.read_text("utf-8"))
    (kept,) = data.glob(f"*/*/pictures/{source.rpartition('/')[2]}")
    assert read_note(kept).request.prompt == record.prompts[0].prompt
