"""Batch, merge and judge as a person meets them: a real server, a real browser, a real process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from agents import Knowledge
from agents.fake import hashed_words
from agents.roles import load_team
from agents.team import converse
from imagegen.measure import measure
from orbweave.store import STORE_VARIABLE
from ui.design import Workshop
from ui.studio import batches, mix, mixer
from ui.studio.desk import Desk

from .conftest import EVIL, GRADIO_WARNS, Painter, Parts, Server, Talker, another, facts
from .test_batch_page import CODE, TABLE
from .test_browser import CHROMIUM, FLAGS, Person

pytestmark = [pytest.mark.timeout(300), GRADIO_WARNS]


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, patch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """A studio with two tiny real models to compare and merge; on the slider fakes speak."""
    place = tmp_path_factory.mktemp("studio")
    models = [str(another(tiny_model, place / name, n)) for n, name in enumerate(("a", "b"))]
    patch.setenv(STORE_VARIABLE, str(place / "orbweave.db"))
    patch.setattr(batches, "COMMAND", (sys.executable, "-c", CODE))
    patch.setattr(mix, "offered", lambda: dict.fromkeys(models, "tiny"))
    patch.setattr("ui.studio.merge_room.offered", mix.offered)
    known = Knowledge(facts(), hashed_words)
    parts = Parts(word_s=0.005, painter=Painter(0.02))

    def open_engine(model: str) -> Talker:
        return Talker(parts, model)  # a real one speaks in test_merge_page

    shop = Workshop(converse, open_engine, lambda: known, load_team(), parts.painter, measure)
    patch.setattr(mixer, "open_bench", lambda note: mixer.Bench(shop, lambda words, seed: None))
    desk = Desk(place / "data", Parts().open)
    desk.open()
    server = Server(desk)
    yield server
    server.close()
    desk.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def person(browser: Browser, server: Server) -> Iterator[Person]:
    one = Person(browser, server, bypass_csp=True)  # for the one script that looks for faults
    yield one
    one.context.close()
    assert one.faults == []
    assert one.hosts <= {server.url.split("/")[2], ""}, "something was fetched elsewhere"


@pytest.fixture(scope="module")
def axe() -> str:
    return resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")


@pytest.fixture
def sound(axe: str) -> Callable[[Page], None]:
    """Checks that a page fits its window and that axe finds no serious fault."""

    def check(page: Page) -> None:
        page.add_style_tag(content="* { transition: none !important; animation: none !important; }")
        for width, scheme in ((1280, "light"), (390, "dark")):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.evaluate(axe)
            found = page.evaluate("axe.run(document.querySelector('.gradio-container'))")
            bad = [
                f"{scheme}: {v['id']}: {[n['html'][:120] for n in v['nodes'][:3]]}"
                for v in found["violations"]
                if v["impact"] in {"serious", "critical"}
            ]
            assert bad == []
        page.set_viewport_size({"width": 1280, "height": 900})

    return check


def table(name: str, text: str) -> dict[str, object]:
    return {"name": name, "mimeType": "text/csv", "buffer": text.encode()}


def test_a_table_is_planned_run_watched_and_taken_home(person, sound, tmp_path):
    page = person.page("/batch")
    page.set_input_files("[name=table]", table("ideas.csv", f"concept,hue\n{EVIL},red\n"))
    page.click("text=Show the plan")
    expect(page.get_by_role("region", name="Faults of the table")).to_contain_text("is unknown")
    page.click("text=Discard")
    expect(page.get_by_role("region", name="Faults of the table")).to_have_count(0)

    page.set_input_files("[name=table]", table("ideas.csv", TABLE))
    page.click("text=Show the plan")
    expect(page.get_by_role("region", name="Rows of the plan")).to_contain_text("dew")
    page.get_by_role("button", name="Run", exact=True).dblclick()
    expect(page.locator(".ow-status")).to_contain_text("of 3 designs done")
    page.reload()
    expect(page.locator(".ow-status")).to_contain_text("3 of 3 designs done")
    expect(page.get_by_role("link", name="CSV", exact=True)).to_be_visible()
    expect(page.locator("figure.ow-card")).to_have_count(6)
    page.fill("[name=words]", "rain folds")
    expect(page.locator("figure.ow-card")).to_have_count(2)
    page.click("text=Contact sheet")
    page.wait_for_function("document.querySelector('.ow-sheet img').naturalWidth > 500")
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV", exact=True).click()
    download.value.save_as(tmp_path / "ideas.csv")
    assert (tmp_path / "ideas.csv").read_text().startswith("row,name,state,concept")
    sound(page)
    stranger = person.context.browser.new_context()
    answer = stranger.request.get(
        person.server.url + page.locator(".ow-sheet img").get_attribute("src")
    )
    assert answer.status == 404
    stranger.close()


def test_two_models_are_compared_mixed_saved_and_slid(person, sound):
    page = person.page("/merge")
    page.click("text=Compare the two")
    expect(page.locator(".ow-status")).to_contain_text("Done")
    page.wait_for_function("document.querySelector('.ow-geometry img').naturalWidth > 500")
    page.check("[name=profile][value=own]")
    page.locator("[name=mlp_middle]").fill("0.25")
    expect(page.locator(".ow-yaml")).to_contain_text("- 0.25")
    sound(page)

    page.check("[name=profile][value=constant]")  # two layers are too few for three points
    page.fill("[name=name]", "Tiny pair")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".ow-head h2")).to_contain_text("Saved as tiny-pair")
    expect(page.locator("[name=mlp_middle]")).to_have_value("0.25")
    page.locator("[name=t]").fill("0.75")
    expect(page.locator(".ow-status")).to_contain_text("Done")
    page.select_option("[name=second]", label="tiny-pair")  # on offer now, and the form is kept
    expect(page.locator("[name=t]")).to_have_value("0.75")
    expect(page.locator(".ow-yaml")).to_contain_text("models/tiny-pair")

    page.fill("[name=concept]", f"a web of leaves {EVIL}")
    page.select_option("[name=step]", "0.5")
    page.get_by_role("button", name="Slide").click()
    expect(page.locator(".ow-place")).to_have_count(3)
    expect(page.locator(".ow-place img")).not_to_have_count(0)  # the first is there before the last
    page.reload()
    expect(page.locator(".ow-status")).to_contain_text("Done")
    expect(page.locator(".ow-place img")).to_have_count(3)
    sound(page)


def test_pairs_are_judged_by_keyboard_and_named_at_the_end(person, sound, tmp_path):
    page = person.page("/judge")
    rows = [
        {"model": model, "question": f"Question {n}? {EVIL}", "answer": f"{word} {n} {EVIL}"}
        for n in range(3)
        for model, word in (("model-alpha", "Long"), ("model-beta", "Short"))
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    page.set_input_files("[name=file]", table("answers.jsonl", text))
    page.get_by_role("button", name="Begin", exact=True).click()
    expect(page.locator(".ow-status")).to_contain_text("0 of 3 pairs judged")
    sound(page)
    page.keyboard.press("ArrowDown")
    expect(page.locator(".ow-status")).to_contain_text("1 passed over")
    page.keyboard.press("u")
    expect(page.locator(".ow-status")).not_to_contain_text("passed over")
    for judged in range(3):
        left = page.locator(".ow-side >> nth=0").inner_text()
        assert "model-" not in page.content()
        page.keyboard.press("ArrowLeft" if "Long" in left else "ArrowRight")
        expect(page.locator(".ow-status")).to_contain_text(f"{judged + 1} of 3 pairs judged")
    page.reload()
    page.click("text=Tell whose they are")
    expect(page.locator(".ow-result")).to_contain_text("model-alpha")
    with page.expect_download() as download:
        page.click("text=Preference data")
    download.value.save_as(tmp_path / "pairs.jsonl")
    pairs = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert [pair["chosen_model"] for pair in pairs] == ["model-alpha"] * 3
    sound(page)
