"""A design taken home as Markdown, LaTeX and PDF."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pypdfium2
import pytest
from markdown_it import MarkdownIt

from orbweave.records import Design
from ui.document import Heading, Paragraph, Quote, Table, document
from ui.report_latex import latex_report
from ui.report_markdown import markdown_report
from ui.report_pdf import pdf_report

MADE = datetime(2026, 11, 22, tzinfo=UTC)
HOSTILE = "# no title\n- no list\n1. no <b>list</b> `x` *y* [a](javascript:b) | $x$ \\input{/etc}"


def _text(content: bytes) -> str:
    pages = pypdfium2.PdfDocument(content)
    return "\n".join(page.get_textpage().get_text_range() for page in pages)


def test_a_document_tells_the_whole_design_in_order(finished: tuple[Design, Path]) -> None:
    blocks = document(*finished)
    titles = [block.text for block in blocks if isinstance(block, Heading)]
    assert titles[0] == finished[0].brief.concept
    assert titles[1:4] == ["Version 0: Web", "The conversation",
                           "0. spider silk expert (expert, base)"]  # fmt: skip
    (measures, scores, *_) = (block for block in blocks if isinstance(block, Table))
    assert measures.head == ("image statistic", "wanted", "seed 7", "seed 8")
    assert measures.rows[0] == ("solid fraction", "0.40", "0.50", "0.50")
    assert scores.rows[0] == ("depth", "3.2 of 5")


def test_a_document_names_the_sentences_that_no_fact_holds(finished: tuple[Design, Path]) -> None:
    told = [block.text for block in document(*finished) if isinstance(block, Paragraph)]
    assert any("compared, not meanings" in text for text in told)
    assert "2 sentences checked: 1 supported, 1 unsupported" in told
    assert "Unsupported: They stretch 30 % more <b>. (in no fact: 30 %)" in told
    assert not any("Radial threads carry load" in text for text in told)  # it stands above


def test_pictures_that_are_gone_are_left_out(finished: tuple[Design, Path]) -> None:
    design, folder = finished
    (folder / design.pictures[0].path).unlink()
    assert markdown_report(document(design, folder)).count("![") == 1


def test_words_make_no_markup_in_markdown() -> None:
    html = (
        MarkdownIt("commonmark")
        .enable("table")
        .render(
            markdown_report(
                [
                    Heading(HOSTILE, 1),
                    Paragraph(HOSTILE),
                    Quote(HOSTILE),
                    Table(("a", "b"), ((HOSTILE, "c"),)),
                ]
            )  # fmt: skip
        )
    )
    for tag in ("<b>", "<ul>", "<ol>", "<li>", "<code>", "<em>", "<a "):
        assert tag not in html
    assert html.count("<h1>") == html.count("<blockquote>") == html.count("<table>") == 1
    for line in ("# no title", "- no list", "1. no &lt;b&gt;list", "\\input{/etc}"):
        assert html.count(line) == 4, line
    assert "\\1" not in html


def test_numbers_stay_as_they_are_in_markdown() -> None:
    assert markdown_report([Paragraph("0.50 of 2\n3) none")]) == "0.50 of 2\n3\\) none\n"


def test_words_make_no_commands_in_latex(finished: tuple[Design, Path]) -> None:
    text = latex_report([*document(*finished), Paragraph(HOSTILE)])
    text.encode("ascii")
    assert r"\input{" not in text and r"\textbackslash{}input\{/etc\}" in text
    assert r"\includegraphics[width=0.6\linewidth]{images/v0-seed-7.png}" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_pdflatex_sets_the_report(finished: tuple[Design, Path]) -> None:
    design, folder = finished
    (folder / "report.tex").write_text(latex_report(document(design, folder)))
    subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=batchmode", "report.tex"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip


def test_a_pdf_holds_words_pictures_and_only_safe_links(finished: tuple[Design, Path]) -> None:
    design, folder = finished
    content = pdf_report(document(design, folder), folder, MADE)
    text = " ".join(_text(content).split())
    assert "a web <script>alert(1)</script> & “veins”" in text
    assert "Radial threads carry load [silk-0001]" in text
    assert "solid fraction 0.40 0.50 0.50" in text
    pages = pypdfium2.PdfDocument(content)
    images = [o for page in pages for o in page.get_objects() if o.type == 3]
    assert len(images) == len(design.pictures)
    assert b"https://example.org/a?b=1&c=2" in content and b"javascript:" not in content
    assert pdf_report(document(design, folder), folder, MADE) == content


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("中", "[U+4E2D]"),
        ("\U0001f577", "[U+1F577]"),
        ("**bold** __x__", "**bold** __x__"),
        ("Spinnfäden ≥ 3 µm", "Spinnfäden ≥ 3 µm"),
    ],
)
def test_a_pdf_shows_every_character_or_its_number(text: str, shown: str, tmp_path: Path) -> None:
    assert shown in _text(pdf_report([Paragraph(text)], tmp_path, MADE))


def test_a_pdf_breaks_words_that_are_longer_than_a_line(tmp_path: Path) -> None:
    content = pdf_report([Paragraph("x" * 5_000), Heading("y" * 500, 1)], tmp_path, MADE)
    assert _text(content).count("x") >= 5_000
