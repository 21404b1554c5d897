"""The studio as a person meets it: a real server, a real browser, fakes behind the table."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from agents.generation import Generation
from ui.studio.desk import Desk

from .conftest import CONCEPT, EVIL, GRADIO_WARNS, Parts, Server, obedient

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WAIT_MS = 60_000

JUMPS = """() => {
  window.jumps = 0;
  new PerformanceObserver((list) => {
    for (const jump of list.getEntries()) if (!jump.hadRecentInput) window.jumps += jump.value;
  }).observe({ type: "layout-shift" });
}"""
"""Sums up how much moved on the page without anybody's doing: cumulative layout shift."""

pytestmark = [pytest.mark.timeout(300), GRADIO_WARNS]
expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; without it these tests fail, for nothing else shows what people see."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def shared() -> Parts:
    return Parts()


@pytest.fixture
def parts(shared: Parts) -> Parts:
    """As usual when a test begins; the studio behind them is the same for all."""
    vars(shared).update(vars(Parts()))
    return shared


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory, shared: Parts) -> Iterator[Server]:
    """One studio for people who do not know each other: Gradio is slow to set up."""
    desk = Desk(tmp_path_factory.mktemp("studio"), shared.open)
    desk.open()
    desk.work()
    server = Server(desk)
    yield server
    server.close()
    desk.close()


@pytest.fixture
def server(common: Server, parts: Parts) -> Server:
    return common


class Person:
    """A browser of its own, with what went wrong in it."""

    def __init__(self, browser: Browser, server: Server, **how: Any) -> None:
        self.server = server
        self.context: BrowserContext = browser.new_context(
            viewport=how.pop("viewport", {"width": 1280, "height": 900}), **how
        )
        self.context.set_default_timeout(WAIT_MS)
        self.faults: list[str] = []
        self.hosts: set[str] = set()

    def page(self, path: str = "/") -> Page:
        page = self.context.new_page()
        page.on("pageerror", lambda err: self.faults.append(f"error: {err}"))
        page.on("dialog", lambda dialog: self.faults.append(f"dialog: {dialog.message}"))
        page.on("request", lambda r: self.hosts.add(r.url.split("/")[2] if "//" in r.url else ""))
        page.goto(self.server.url + path)
        return page

    def asks(self, concept: str = CONCEPT, path: str = "/") -> Page:
        page = self.page(path)
        expect(page.locator(".ow-welcome")).to_be_visible()
        page.fill("#concept textarea", concept)
        page.click("#begin")
        return page


@pytest.fixture
def person(browser: Browser, server: Server) -> Iterator[Callable[..., Person]]:
    known: list[Person] = []

    def another(**how: Any) -> Person:
        known.append(Person(browser, server, **how))
        return known[-1]

    yield another
    for one in known:
        one.context.close()
        assert one.faults == []
        assert one.hosts <= {one.server.url.split("/")[2], ""}, "something was fetched elsewhere"


def done(page: Page) -> None:
    expect(page.locator(".ow-status")).to_contain_text("Done", timeout=WAIT_MS)


def test_from_a_suggestion_to_pictures_stars_search_and_zip(person, parts, tmp_path):
    parts.word_s = 0.02
    page = person().page()
    page.click(".ow-suggestions button >> nth=0")
    expect(page.locator("#concept textarea")).to_have_value(re.compile("spider silk"))
    page.click("#begin")
    busy = page.locator(".ow-turn[aria-busy] .ow-text").first
    busy.wait_for()
    heard = len(busy.inner_text())
    page.wait_for_function(
        "n => [...document.querySelectorAll('.ow-text')].some(e => e.innerText.length > n + 20)",
        arg=heard,
    )
    parts.word_s = 0.0
    done(page)
    assert page.locator(".ow-role-expert").count() >= 2
    picture = page.locator(".ow-pictures img").first
    picture.scroll_into_view_if_needed()
    page.wait_for_function(
        "document.querySelector('.ow-pictures img').naturalWidth === 64 * 4"
        " || document.querySelector('.ow-pictures img').naturalWidth === 64"
    )
    expect(page.locator(".ow-pictures").first).to_contain_text("solid fraction")

    page.click(".ow-stars button >> nth=3")
    expect(page.locator(".ow-stars")).to_have_attribute("aria-label", "Your rating: 4")
    with page.expect_download() as download:
        page.click("text=Zip")
    download.value.save_as(tmp_path / "it.zip")
    names = zipfile.ZipFile(tmp_path / "it.zip").namelist()
    assert "design/design.json" in names
    assert sum(re.search(r"images/v\d-seed-\d\.png$", name) is not None for name in names) == 4

    page.click("text=Library")
    expect(page.locator(".ow-card")).to_have_count(1)
    expect(page.locator(".ow-card .ow-stars")).to_have_attribute("aria-label", "Your rating: 4")
    page.fill("#words textarea, #words input", "no such words")
    expect(page.locator(".ow-card")).to_have_count(0)
    page.fill("#words textarea, #words input", "membrane SILK")
    expect(page.locator(".ow-card")).to_have_count(1)
    page.click(".ow-card h3 a")
    done(page)


def test_stop_stops_and_going_on_ends_it(person, parts):
    parts.word_s = 0.2
    page = person().asks()
    expect(page.locator(".ow-text").first).not_to_be_empty()
    page.click("text=Stop")
    expect(page.locator(".ow-status")).to_contain_text("Stopped by you", timeout=10_000)
    parts.word_s = 0.0
    page.get_by_role("button", name="Go on", exact=True).click()
    done(page)


def test_a_reload_and_a_second_tab_find_the_running_design(person, parts):
    parts.word_s = 0.1
    one = person()
    page = one.asks()
    expect(page.locator(".ow-turn")).not_to_have_count(0)
    page.reload()
    expect(page.locator(".ow-head h2")).to_have_text(CONCEPT)
    second = one.page()  # without its name: what is under way is shown
    expect(second.locator(".ow-turn")).not_to_have_count(0)
    stranger = person().page(page.url.removeprefix(one.server.url))
    expect(stranger.locator(".ow-fault")).to_contain_text("found none of that name")
    parts.word_s = 0.0
    done(page)
    done(second)
    picture = page.locator(".ow-pictures img").first.get_attribute("src")
    assert one.context.request.get(one.server.url + picture).status == 200
    assert stranger.context.request.get(one.server.url + picture).status == 404


def test_a_turn_is_edited_and_the_team_goes_on_from_it(person):
    page = person().asks()
    done(page)
    form = page.locator("#edit-2")
    form.locator("summary").click()
    form.locator("textarea").fill("Prompt: One thick vein on black.")
    form.get_by_text("Go on from this").click()
    expect(page.locator("#prompt-0 .ow-words").first).to_have_text("One thick vein on black.")
    done(page)
    expect(page.locator(".ow-head")).to_contain_text("You changed turn 2.")


def test_a_branch_opens_beside_its_origin(person):
    page = person().asks()
    done(page)
    before = page.url
    page.locator("#edit-2 summary").click()
    page.locator("#edit-2 textarea").fill("Prompt: One thick vein on black.")
    page.locator("#edit-2").get_by_text("Branch off with this").click()
    page.wait_for_url(lambda url: url != before)
    expect(page.locator("#prompt-0 .ow-words").first).to_have_text("One thick vein on black.")
    page.go_back()
    expect(page.locator("#prompt-0 .ow-words").first).to_contain_text("pale membrane")


def test_branches_are_compared_and_drawn_again_from_the_same_seeds(person):
    page = person().asks()
    done(page)
    page.locator("#edit-2 summary").click()
    page.locator("#edit-2 textarea").fill("Prompt: One thick vein on black.")
    page.locator("#edit-2").get_by_text("Branch off with this").click()
    page.locator(".ow-family").get_by_text("compare").click()
    expect(page.locator(".ow-wordings ins").first).to_contain_text("pale membrane")
    expect(page.locator(".ow-drawn img")).to_have_count(8)  # two of each of two versions
    page.get_by_label("seed").fill("40")
    page.get_by_label("pictures of each").fill("1")
    before = page.url
    page.get_by_role("button", name="Render both with the same seeds").click()
    page.wait_for_url(lambda url: url != before)
    expect(page.locator(".ow-beside-head .ow-done")).to_have_count(2)
    last = page.locator(".ow-drawn").first
    expect(last.locator("figcaption")).to_have_text(["seed 40", "seed 40"])


def test_designs_are_put_on_boards_and_found_by_likeness(person):
    one = person()
    page = one.asks()
    done(page)
    page.fill("#concept textarea", "a bridge deck like an orb web")
    page.click("#begin")
    expect(page.locator(".ow-head h2")).to_have_text("a bridge deck like an orb web")
    done(page)
    page.goto(one.server.url + "/library")
    card = page.locator(".ow-card").filter(has_text="bridge deck")
    card.get_by_text("put on a board").click()
    board = f"for the paper {EVIL.partition('<script>')[0]}"
    card.get_by_label("Name of the board").fill(board)
    card.get_by_role("button", name="Put", exact=True).click()
    expect(card.locator(".ow-boards > form")).to_contain_text(board)
    page.locator("#board input").click()
    page.get_by_role("option", name="for the paper").click()
    expect(page.locator(".ow-card")).to_have_count(1)
    card.get_by_role("button", name="Take it off the board").click()
    expect(page.locator(".ow-card")).to_have_count(0)
    page.locator("#board input").click()
    page.get_by_role("option", name="any").click()
    expect(page.locator(".ow-card")).to_have_count(2)
    card.get_by_role("button", name="Similar").click()
    expect(page.locator(".ow-like")).to_contain_text("1 design, those first")
    page.get_by_role("button", name="All designs").click()
    expect(page.locator(".ow-card")).to_have_count(2)


def test_enter_puts_a_design_on_a_board_and_a_date_counts_once_its_field_is_left(person):
    one = person()
    page = one.asks()
    done(page)
    page.goto(one.server.url + "/library")
    page.get_by_text("put on a board").click()
    page.get_by_label("Name of the board").fill("by Enter")
    page.get_by_label("Name of the board").press("Enter")
    expect(page.locator(".ow-boards > form")).to_contain_text("by Enter")
    page.get_by_label("From").fill("2999-12-31")
    page.get_by_label("From").press("Tab")
    expect(page.locator(".ow-card")).to_have_count(0)


def test_the_settings_can_be_read_on_a_phone(person):
    page = person(viewport={"width": 390, "height": 844}).page()
    expect(page.locator(".ow-welcome")).to_be_visible()
    page.click("#settings button")
    expect(page.get_by_label("Wanted spacing")).to_be_visible()
    clipped = page.evaluate(
        """() => [...document.querySelectorAll("#settings .form *")]
          .filter((e) => e.clientWidth && e.scrollWidth > e.clientWidth + 1)
          .filter((e) => getComputedStyle(e).display !== "inline")
          .map((e) => e.value || e.textContent.trim())"""
    )
    assert clipped == []
    scale = page.get_by_label("Scale").bounding_box()
    talk = page.locator(".ow-welcome").bounding_box()
    assert scale is not None and scale["width"] > 200  # the arrow lies beside the word, not on it
    assert talk is not None and talk["width"] > 340


def test_the_catalogue_needs_no_scrolling_sideways_on_a_phone(person):
    page = person(viewport={"width": 390, "height": 844}).page("/models")
    licence = page.locator(".ow-stacked td[data-head=licence]").first
    expect(licence).to_contain_text("Apache-2.0")
    for table in page.locator(".ow-stacked .ow-scroll").all():
        assert table.evaluate("(e) => e.scrollWidth <= e.clientWidth")


def test_nobody_seems_to_go_on_writing_once_a_design_is_stopped(person, parts):
    parts.word_s = 0.2
    page = person().asks()
    expect(page.locator(".ow-caret").first).to_be_visible()
    page.click("text=Stop")
    expect(page.locator(".ow-status")).to_contain_text("Stopped by you")
    expect(page.locator(".ow-caret:visible")).to_have_count(0)


def test_markup_from_people_models_and_facts_is_text(person, parts):
    def evil(request: Generation) -> str:
        said = obedient(request)
        return f"{said} {EVIL}" if request.prefix in {"Title:"} else said

    parts.answer = evil
    page = person().asks(f"a membrane that joins spider webs and leaf veins {EVIL}")
    done(page)
    expect(page.locator(".ow-head h2")).to_contain_text("<script>alert(2)</script>")
    page.locator(".ow-chip:visible").first.click()
    expect(page.locator(".ow-pop:popover-open")).to_contain_text("<img src=x")
    page.keyboard.press("Escape")
    page.goto(page.url.split("?")[0] + "library")
    expect(page.locator(".ow-card")).to_contain_text("<script>alert(2)</script>")
    assert page.locator("img[src=x]").count() == 0


def test_what_cannot_be_designed_is_told_in_words(person):
    page = person().page()
    expect(page.locator(".ow-welcome")).to_be_visible()
    page.click("#begin")
    expect(page.get_by_text("wanted a concept in words")).to_be_visible()
    expect(page.locator(".ow-welcome")).to_be_visible()


def test_a_paste_of_five_megabytes_is_told_in_words_and_the_page_goes_on(person):
    page = person().page()
    expect(page.locator(".ow-welcome")).to_be_visible()
    page.fill("#concept textarea", "silk and leaf " * 360_000)
    page.click("#begin")
    expect(page.get_by_text(re.compile("should have at most [0-9]+ characters"))).to_be_visible()
    page.fill("#concept textarea", CONCEPT)
    page.click("#begin")
    done(page)


def test_what_the_facts_say_to_a_turn_opens_below_it_and_nothing_jumps(person, parts):
    parts.word_s = 0.01
    page = person().page()
    expect(page.locator(".ow-welcome")).to_be_visible()
    page.fill("#concept textarea", CONCEPT)
    page.click("#begin")
    expect(page.locator(".ow-turn[aria-busy] .ow-text").first).not_to_be_empty()
    page.evaluate(JUMPS)
    done(page)
    assert page.evaluate("window.jumps") < 0.1  # what the web's own measure calls good
    checks = page.locator(".ow-role-expert .ow-checks").first
    expect(checks.locator("ol")).to_be_hidden()
    checks.locator("summary").click()
    expect(checks.locator("li").first).to_contain_text("Supported")
    expect(checks.locator("li").first).to_contain_text(re.compile("(leaf|silk)-000"))


def test_a_double_click_makes_one_design(person, parts):
    parts.word_s = 0.05
    one = person()
    page = one.page()
    expect(page.locator(".ow-welcome")).to_be_visible()
    page.fill("#concept textarea", CONCEPT)
    page.dblclick("#begin")
    expect(page.locator(".ow-turn")).not_to_have_count(0)
    library = one.page("/library")
    expect(library.locator("#library [role=status]")).to_contain_text("1 of 1 designs")
    parts.word_s = 0.0
    done(page)


def test_a_double_click_on_any_button_of_the_table_counts_once(person):
    page = person().asks()
    done(page)
    page.locator("#edit-2 summary").click()
    page.locator("#edit-2 textarea").fill("Prompt: One thick vein on black.")
    page.locator("#edit-2").get_by_text("Branch off with this").dblclick()
    expect(page.locator("#prompt-0 .ow-words").first).to_have_text("One thick vein on black.")
    done(page)
    expect(page.locator(".ow-family li")).to_have_count(2)
    page.locator(".ow-stars button >> nth=3").dblclick()
    expect(page.locator(".ow-stars")).to_have_attribute("aria-label", "Your rating: 4")
    page.locator(".ow-say textarea").fill("wider gaps")
    page.get_by_role("button", name="Say it", exact=True).dblclick()
    expect(page.locator(".ow-role-human")).to_have_count(1)
    done(page)
    expect(page.locator(".ow-role-human")).to_have_count(1)


def test_the_page_finds_the_studio_again_after_a_restart(browser, open_desk, parts):
    parts.word_s = 0.2
    desk = open_desk()
    server = Server(desk)
    one = Person(browser, server)
    page = one.asks()
    expect(page.locator(".ow-text").first).not_to_be_empty()
    server.close()
    desk = open_desk()
    again = Server(desk, port=server.port)
    parts.word_s = 0.0
    done(page)
    assert one.faults == []
    one.context.close()
    again.close()


def test_no_page_is_wider_than_its_window_and_axe_finds_no_serious_fault(person):
    axe = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
    one = person(bypass_csp=True)  # for the one script that looks for faults
    page = one.asks()
    done(page)
    made = page.url.removeprefix(one.server.url)
    itself = f"{made}&beside={made.partition('=')[2]}"
    for path in (made, itself, "/library", "/models", "/?design=none"):
        page.goto(one.server.url + path)
        page.wait_for_selector(".ow-turn, .ow-steps, .ow-models, .ow-card, .ow-fault:not([hidden])")
        for each in page.locator(".ow-checks, .ow-edit, .ow-revise, .ow-boards details").all()[:5]:
            each.evaluate("details => { details.open = true; }")
        # A colour on its way from day to night is no fault.
        page.add_style_tag(content="* { transition: none !important; }")
        for width, scheme in ((1280, "light"), (390, "dark")):
            page.set_viewport_size({"width": width, "height": 800})
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            page.evaluate(axe)
            found = page.evaluate("axe.run(document.querySelector('.gradio-container'))")
            bad = [
                f"{path} {scheme}: {v['id']}: {[n['html'][:120] for n in v['nodes'][:3]]}"
                for v in found["violations"]
                if v["impact"] in {"serious", "critical"}
            ]
            assert bad == []


def test_the_table_is_reached_and_used_by_keyboard(person):
    page = person().page()
    expect(page.locator(".ow-welcome")).to_be_visible()
    page.locator("#concept textarea").focus()
    for _ in range(8):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.suggest"):
            break
    page.keyboard.press("Enter")
    expect(page.locator("#concept textarea")).to_be_focused()
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".ow-turn")).not_to_have_count(0)
    done(page)
