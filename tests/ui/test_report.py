from __future__ import annotations

from html.parser import HTMLParser

import pytest

from ui.report import Segment, marked, render_report, safe_link

VOID = {"meta", "img", "br", "link", "hr", "input"}


class _Page(HTMLParser):
    """Collects tags and checks that they are nested as HTML wants them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


@pytest.fixture
def page(finished) -> _Page:
    return _Page(render_report(*finished))


def test_every_tag_is_closed_where_it_was_opened(page):
    assert page.open == []


def test_a_script_in_the_concept_is_text(page):
    assert page.all("script") == []
    assert "<script>alert(1)</script>" in page.text


def test_nothing_is_fetched_from_elsewhere(page):
    assert page.all("link") == []
    assert len(page.all("img")) == 3
    assert all(img["src"].startswith("data:image/png;base64,") for img in page.all("img"))


def test_only_http_and_https_sources_are_links(page):
    outside = [a["href"] for a in page.all("a") if not a["href"].startswith("#")]
    assert outside == ["https://example.org/a?b=1&c=2"]
    assert "javascript:alert(1)" in page.text


def test_inner_links_lead_somewhere(page):
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    inner = [a["href"] for a in page.all("a") if a["href"].startswith("#")]
    assert "#turn-0" in inner
    assert "#fact-silk-0001" in inner
    assert {href[1:] for href in inner} <= ids


def test_bare_geometry_and_statistics_are_labelled_as_what_they_are(page):
    assert "The bare geometry, not a rendering" in page.text
    assert "The geometry was seeded: orb web (spacing 24 px" in page.text
    assert "not material properties" in page.text


def test_unsupported_numbers_are_marked(page):
    assert [m["title"] for m in page.all("mark")] == ["no fact given to the speaker holds it"]
    assert "Not held by any fact the speaker was given: 30 %" in page.text


def test_every_checked_sentence_is_shown_with_its_verdict_and_its_fact(page):
    assert "Words and numbers are compared, not meanings" in page.text
    assert "2 sentences checked: 1 supported, 1 unsupported" in page.text
    assert "supported Radial threads carry load. (by silk-0001 ↓)" in page.text
    assert "unsupported They stretch 30 % more <b>. (in no fact: 30 %)" in page.text
    assert "to the fact silk-0001" in {a.get("aria-label") for a in page.all("a")}


def test_pictures_drawn_from_words_say_so(finished):
    design, folder = finished
    prompts = (design.prompts[0].model_copy(update={"structure": None}),)
    pictures = tuple(
        p.model_copy(update={"request": p.request.model_copy(update={"structure": None})})
        for p in design.pictures
    )
    design = design.model_copy(update={"prompts": prompts, "pictures": pictures})
    page = _Page(render_report(design, folder))
    assert "No structure seed" in page.text
    assert len(page.all("img")) == 2


def test_marked_prefers_longer_keys_and_whole_words():
    marks = {"web": ("#1", "a"), "orb web": ("#2", "b")}
    assert marked("An Orb web, cobwebs", marks) == [
        Segment("An "),
        Segment("Orb web", "#2", "b"),
        Segment(", cobwebs"),
    ]


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "data:text/html,x", "ftp://a/b", "http://", "//a/b", "http://[x"]
)
def test_safe_link_refuses(url):
    assert safe_link(url) == ""
