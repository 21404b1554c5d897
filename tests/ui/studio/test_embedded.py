"""The whole path on the embedded models: `orbweave ui`, a browser, words, pictures."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from imagegen.png import read_note
from orbweave.records import Design

from .conftest import free_port

ROOT = Path(__file__).parents[3]
CONCEPT = "a filter membrane that combines spider silk and leaf veins"
SOON_MS = 60_000
"""Longest wait for what takes a second on an idle machine."""
WORDS = "Join thin threads to thick veins, so that the membrane spreads its load."

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


def change_a_turn(page: Page) -> None:
    """Put other words into an expert's mouth; the team goes on from there and draws anew."""
    form = page.locator("#edit-0")
    form.locator("summary").click()
    form.locator("textarea").fill(WORDS)
    form.get_by_text("Go on from this").click()
    expect(page.locator("#turn-0 .ow-text")).to_contain_text(WORDS, timeout=SOON_MS)
    expect(page.locator(".ow-head")).to_contain_text("You changed turn 0.", timeout=SOON_MS)
    expect(page.locator(".ow-status")).to_contain_text("Done", timeout=600_000)
    page.wait_for_function("document.querySelector('.ow-pictures img').naturalWidth === 256")


def rate_search_and_take_home(page: Page, path: Path) -> None:
    """Give four stars, download the zip, and find the design again in the library."""
    page.click(".ow-stars button >> nth=3")
    expect(page.locator(".ow-stars")).to_have_attribute(
        "aria-label", "Your rating: 4", timeout=SOON_MS
    )
    with page.expect_download() as download:
        page.click("text=Zip")
    download.value.save_as(path)
    names = zipfile.ZipFile(path).namelist()
    assert {"design/design.json", "design/images/v0-seed-0.png"} <= {*names}
    page.click("text=Library")
    page.fill("#words textarea, #words input", "no such words")
    expect(page.locator(".ow-card")).to_have_count(0, timeout=SOON_MS)
    page.fill("#words textarea, #words input", "membrane SILK")
    expect(page.locator(".ow-card")).to_have_count(1, timeout=SOON_MS)


def test_a_concept_becomes_words_and_pictures_in_the_browser(studio, tmp_path):
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
        expect(page.locator(".ow-text").first).not_to_be_empty(timeout=600_000)
        page.click("text=Stop")
        expect(page.locator(".ow-status")).to_contain_text("Stopped by you", timeout=SOON_MS)
        page.get_by_role("button", name="Go on", exact=True).click()
        expect(page.locator(".ow-status")).not_to_contain_text("Stopped", timeout=SOON_MS)
        page.reload()
        expect(page.locator(".ow-head h2")).to_have_text(CONCEPT, timeout=SOON_MS)
        expect(page.locator(".ow-status")).to_contain_text("Done", timeout=600_000)
        experts = page.locator(".ow-role-expert .ow-name b").all_inner_texts()
        assert {"spider silk expert", "leaf expert"} <= {name.lower() for name in experts}
        expect(page.locator(".ow-role-expert .ow-chip").first).to_be_visible()
        page.locator(".ow-pictures img").first.scroll_into_view_if_needed()
        page.wait_for_function("document.querySelector('.ow-pictures img').naturalWidth === 256")
        change_a_turn(page)
        source = page.locator(".ow-pictures img").first.get_attribute("src")
        assert re.search(r"/picture/v0-seed-0-[0-9a-f]{8}\.png$", source)
        rate_search_and_take_home(page, tmp_path / "it.zip")
        browser.close()
    (made,) = data.glob("*/*/design/design.json")
    record = Design.model_validate_json(made.read_text("utf-8"))
    (kept,) = data.glob(f"*/*/pictures/{source.rpartition('/')[2]}")
    assert read_note(kept).request.prompt == record.prompts[0].prompt
