"""Files of every kind, whole and damaged, made here byte by byte."""

from __future__ import annotations

import hashlib
import re
import struct
from pathlib import Path

import pytest
from PIL import Image

from orbweave.errors import UsageError
from training.sources import ENDINGS, Document, Excluded, find, read

REGULAR, BOLD = "F1", "F2"
PAD = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")


Line = tuple[str, float, float, float, str]
"""Font, size, x, y, text."""


def pdf(pages: list[list[Line]], password: str | None = None) -> bytes:
    """A PDF of lines (font, size, x, y, text); encrypted with 40-bit RC4 if a password is given.

    Algorithms 3.1 to 3.4 of the PDF reference 1.7, revision 2.
    """
    ident = b"0123456789abcdef"
    owner = rc4(md5(padded("owner"))[:5], padded(password or ""))
    key = md5(padded(password or "") + owner + struct.pack("<i", -4) + ident)[:5]
    objects: list[bytes] = [b"", b""]
    for name in (b"Helvetica", b"Helvetica-Bold"):
        objects.append(b"<</Type/Font/Subtype/Type1/BaseFont/%s/Encoding/WinAnsiEncoding>>" % name)
    kids = []
    for lines in pages:
        text = b"".join(
            b"BT /%s %g Tf %g %g Td (%s) Tj ET\n"
            % (font.encode(), size, x, y, re.sub(rb"([()])", rb"\\\1", said.encode("cp1252")))
            for font, size, x, y, said in lines
        )
        number = len(objects) + 1
        if password is not None:
            text = rc4(md5(key + struct.pack("<I", number)[:3] + b"\0\0")[:10], text)
        objects.append(b"<</Length %d>>stream\n%s\nendstream" % (len(text), text))
        kids.append(len(objects) + 1)
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents %d 0 R"
            b"/Resources<</Font<</F1 3 0 R/F2 4 0 R>>>>>>" % number
        )
    objects[0] = b"<</Type/Catalog/Pages 2 0 R>>"
    objects[1] = b"<</Type/Pages/Count %d/Kids[%s]>>" % (
        len(kids),
        b" ".join(b"%d 0 R" % kid for kid in kids),
    )
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start, size = len(out), len(objects) + 1
    out += b"xref\n0 %d\n0000000000 65535 f \n" % size
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    locked = b"/Encrypt<</Filter/Standard/V 1/R 2/P -4/O<%s>/U<%s>>>/ID[<%s><%s>]" % tuple(
        part.hex().encode() for part in (owner, rc4(key, PAD), ident, ident)
    )
    out += b"trailer<</Size %d/Root 1 0 R%s>>" % (size, locked if password is not None else b"")
    return out + b"\nstartxref\n%d\n%%%%EOF\n" % start


def padded(password: str) -> bytes:
    return (password.encode() + PAD)[:32]


def md5(content: bytes) -> bytes:
    return hashlib.md5(content).digest()


def rc4(key: bytes, content: bytes) -> bytes:
    box, j = list(range(256)), 0
    for i in range(256):
        j = (j + box[i] + key[i % len(key)]) % 256
        box[i], box[j] = box[j], box[i]
    i = j = 0
    out = bytearray()
    for byte in content:
        i = (i + 1) % 256
        j = (j + box[i]) % 256
        box[i], box[j] = box[j], box[i]
        out.append(byte ^ box[(box[i] + box[j]) % 256])
    return bytes(out)


def paragraph(lines: list[str], top: float, left: float = 60) -> list[Line]:
    return [(REGULAR, 10.0, left, top - 12 * n, line) for n, line in enumerate(lines)]


def paper() -> bytes:
    running = (REGULAR, 9.0, 200.0, 780.0, "Journal of Threads, volume 3")
    first = [
        running,
        (BOLD, 18.0, 60.0, 740.0, "The strength of spider silk"),
        (BOLD, 12.0, 60.0, 700.0, "1 Introduction"),
        *paragraph(
            [
                "Dragline silk is the thread from which a spider hangs, and it carries a re-",
                "markable load for its weight. Its strength is about 1.1 GPa, and its tough-",
                "ness is well above that of steel.",
                "   Water makes it shrink.",
            ],
            680,
        ),
        (REGULAR, 10.0, 300.0, 30.0, "1"),
    ]
    second = [
        running,
        (BOLD, 12.0, 60.0, 740.0, "2 Methods"),
        *paragraph(
            ["Threads were pulled (slowly) until they broke, at ten per cent a minute."], 720
        ),
        (REGULAR, 8.0, 60.0, 100.0, "Fig. 1 A thread in the machine."),
        (REGULAR, 10.0, 300.0, 30.0, "2"),
    ]
    return pdf([first, second])


def one(path: Path) -> Document:
    (item,) = read(path)
    assert isinstance(item, Document), item
    return item


def excluded(path: Path) -> str:
    (item,) = read(path)
    assert isinstance(item, Excluded), item
    return item.reason


def put(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# ---------------------------------------------------------------- PDF


def test_a_paper_becomes_markdown_with_headings_and_whole_paragraphs(tmp_path: Path) -> None:
    document = one(put(tmp_path, "paper.pdf", paper()))

    assert document.text == (
        "# The strength of spider silk\n\n"
        "## 1 Introduction\n\n"
        "Dragline silk is the thread from which a spider hangs, and it carries a remarkable load "
        "for its weight. Its strength is about 1.1 GPa, and its toughness is well above that of "
        "steel.\n\n"
        "Water makes it shrink.\n\n"
        "## 2 Methods\n\n"
        "Threads were pulled (slowly) until they broke, at ten per cent a minute.\n\n"
        "Fig. 1 A thread in the machine."
    )
    assert document.title == "The strength of spider silk"
    assert document.sha256 == hashlib.sha256(paper()).hexdigest()


def test_columns_are_read_one_after_the_other(tmp_path: Path) -> None:
    left = ["The left column comes first and", "its sentence goes on in the"]
    right = ["right column, where it ends at", "last, as in a journal."]
    page = [*paragraph(left, 700), *paragraph(right, 700, left=330)]

    text = one(put(tmp_path, "columns.pdf", pdf([page]))).text

    assert text == " ".join(left + right)


def test_a_hyphen_stays_where_the_text_writes_the_compound(tmp_path: Path) -> None:
    lines = ["A load-bearing thread is here, and the other one is also load-", "bearing, by far."]

    text = one(put(tmp_path, "hyphen.pdf", pdf([paragraph(lines, 700)]))).text

    assert text.count("load-bearing") == 2


def test_a_scanned_pdf_is_excluded_with_what_to_do(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (200, 300), "white") for _ in range(3)]
    pages[0].save(tmp_path / "scan.pdf", save_all=True, append_images=pages[1:])

    assert excluded(tmp_path / "scan.pdf").startswith("scanned: 3 of 3 pages hold no text, run OCR")


def test_a_cover_page_does_not_make_a_scan_a_text(tmp_path: Path) -> None:
    cover = paragraph(["This article was downloaded from an archive of scanned journals."], 700)

    assert "scanned: 4 of 5" in excluded(put(tmp_path, "a.pdf", pdf([cover, [], [], [], []])))
    assert one(put(tmp_path, "b.pdf", pdf([cover, []]))).note == "1 of 2 pages hold no text"


def test_a_pdf_that_wants_a_password_is_excluded(tmp_path: Path) -> None:
    page = paragraph(["Dragline silk carries a remarkable load for its weight."], 700)

    assert excluded(put(tmp_path, "a.pdf", pdf([page], "secret"))).startswith("encrypted: ")


def test_a_pdf_encrypted_without_a_password_is_read(tmp_path: Path) -> None:
    page = paragraph(["Dragline silk carries a remarkable load for its weight."], 700)

    assert one(put(tmp_path, "a.pdf", pdf([page], ""))).text == page[0][-1]


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95, 0.99])
def test_a_truncated_pdf_is_excluded_wherever_it_was_cut(tmp_path: Path, share: float) -> None:
    whole = paper()

    reason = excluded(put(tmp_path, "cut.pdf", whole[: int(len(whole) * share)]))

    assert reason.startswith("truncated: ")


@pytest.mark.parametrize("junk", [b"%PDF-1.7\ngarbage\n%%EOF", b"GIF89a", b"%PDF-" + bytes(5000)])
def test_junk_called_pdf_is_excluded(tmp_path: Path, junk: bytes) -> None:
    assert excluded(put(tmp_path, "junk.pdf", junk)).startswith(("damaged: ", "truncated: "))


# ---------------------------------------------------------------- text


def test_a_page_keeps_headings_table_and_exponents_and_loses_its_menu(tmp_path: Path) -> None:
    page = """<html lang="en"><head><title>Silk</title>
    <link rel="canonical" href="https://example.org/silk"></head>
    <body><nav>Home Shop About</nav><article><h1>Spider silk</h1>
    <p>Dragline silk is strong, and it carries a remarkable load for the weight of a thread.</p>
    <h2>Toughness</h2><p>It takes up about 160 MJ m<sup>-3</sup> before it breaks, in H<sub>2</sub>O
    less, and that is several times what a steel of the same size can take up.</p>
    <table><tr><th>silk</th><th>GPa</th></tr><tr><td>dragline</td><td>1.1</td></tr></table>
    </article><footer>Imprint</footer></body></html>"""

    document = one(put(tmp_path, "page.html", page))

    assert document.text.startswith("# Spider silk\n\nDragline")
    assert "\n## Toughness\n" in document.text
    assert "160 MJ m^-3 before it breaks, in H2O" in document.text
    assert "| dragline | 1.1 |" in document.text
    assert "Imprint" not in document.text
    assert "Shop" not in document.text
    assert document.url == "https://example.org/silk"


def test_an_empty_page_is_excluded(tmp_path: Path) -> None:
    assert excluded(put(tmp_path, "a.html", "<html><body></body></html>")).startswith("empty: ")


def test_markdown_keeps_headings_and_formulas_and_loses_its_head(tmp_path: Path) -> None:
    head = "---\ntitle: 'On silk'\nurl: https://example.org\n---\n"
    text = head + "Silk\n====\n\nE = $\\sigma/\\epsilon$\n\n## B\n\nText."

    document = one(put(tmp_path, "a.md", text))

    assert document.text == "# Silk\n\nE = $\\sigma/\\epsilon$\n\n## B\n\nText."
    assert (document.title, document.url) == ("On silk", "https://example.org")


def test_wrapped_lines_are_joined_and_lists_are_not(tmp_path: Path) -> None:
    text = (
        "Notes\r\n\r\n"
        "A thread of dragline silk is thinner than a hair and car-\r\n"
        "ries a remarkable load for its weight, as many have\r\n"
        "measured.\r\n\r\n"
        "- one thing that is listed here at some length to fill it\r\n"
        "- another thing that is listed here at some length as well\r\n"
    )

    document = one(put(tmp_path, "a.txt", text))

    _, prose, listed = document.text.split("\n\n")
    assert prose.endswith(
        "hair and carries a remarkable load for its weight, as many have measured."
    )
    assert listed.count("\n- ") == 1
    assert document.title == "Notes"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_text_is_read_in_the_encodings_people_have(tmp_path: Path, encoding: str) -> None:
    text = "Die Spinnenseide ist für ihre Stärke berühmt, und ihre Zähigkeit übertrifft Stähle."

    assert one(put(tmp_path, "a.txt", text.encode(encoding))).text == text


def test_ligatures_and_soft_hyphens_are_undone(tmp_path: Path) -> None:
    assert (
        one(put(tmp_path, "a.txt", "a ﬁbre and its eﬃ\u00adciency")).text
        == "a fibre and its efficiency"
    )


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"", "empty: "),
        ("a.txt", b" \n\t ", "empty: "),
        ("a.md", b"12 345 -- 6", "empty: no words"),
        ("a.txt", b"GIF89a\x00\x01\x02", "unreadable: "),
        ("a.docx", b"PK", "format: .docx is not read"),
        ("Makefile", b"all:", "format: no ending is not read"),
        ("a.jsonl", b"\n\n", "empty: "),
        ("a.bib", b"no entry here", "empty: "),
    ],
)
def test_what_holds_no_text_is_excluded_with_its_reason(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    assert excluded(put(tmp_path, name, content)).startswith(reason)


def test_a_file_one_may_not_read_is_excluded(tmp_path: Path) -> None:
    folder = tmp_path / "a.txt"
    folder.mkdir()

    assert excluded(folder).startswith("unreadable: IsADirectoryError")


# ---------------------------------------------------------------- records


def test_jsonl_gives_a_document_or_a_reason_for_each_line(tmp_path: Path) -> None:
    good = '{"text": "Silk is strong.", "title": "Silk", "url": "https://example.org/1"}'
    lines = good + '\n{"text": \n[1]\n{"id": 3}\n'

    first, *rest = read(put(tmp_path, "a.jsonl", lines))

    assert isinstance(first, Document)
    assert first.text == "# Silk\n\nSilk is strong."
    assert (first.source, first.url) == (f"{tmp_path / 'a.jsonl'}#1", "https://example.org/1")
    assert [type(item) for item in rest] == [Excluded] * 3
    reasons = [item.reason.partition(":")[0] for item in rest if isinstance(item, Excluded)]
    assert reasons == ["malformed", "malformed", "no text"]


def test_a_bibliography_gives_abstracts_files_gaps_and_faults(tmp_path: Path) -> None:
    put(tmp_path, "paper.pdf", paper())
    library = r"""
    @article{abstract, title={The {S}pider \"{u}ber silk}, doi={https://doi.org/10.1000/ABC.1},
      abstract={Silk is 5% of the mass \& $\beta$-sheets make it strong.}}
    @article{file, title={A paper}, file={:paper.pdf:PDF}, doi = {}}
    @article{gap, title={Nothing at hand}, doi={10.1000/gap}}
    @article{twice, title={a}, abstract={b}}
    @article{twice, title={a}, abstract={c}}
    """

    found = {item.source.partition("#")[2]: item for item in read(put(tmp_path, "a.bib", library))}

    abstract, file, gap = found["abstract"], found["file"], found["gap"]
    assert isinstance(abstract, Document)
    assert abstract.text == (
        "# The Spider über silk\n\nSilk is 5% of the mass & β-sheets make it strong."
    )
    assert abstract.url == "https://doi.org/10.1000/abc.1"
    assert isinstance(file, Document)
    assert "1.1 GPa" in file.text
    assert file.note == f"no DOI; text of {tmp_path / 'paper.pdf'}"
    assert isinstance(gap, Excluded)
    assert gap.reason.endswith("get it from https://doi.org/10.1000/gap")
    (fault,) = (item for item in found.values() if item.source.partition("#")[2][:4] == "line")
    assert isinstance(fault, Excluded)
    assert "Duplicate entry key 'twice'" in fault.reason
    assert len(found) == 5


def test_a_table_with_semicolons_and_database_headings_is_read(tmp_path: Path) -> None:
    table = "\ufeffArticle Title;Abstract;DOI\nSilk;Silk is strong, and tough.;10.1000/x\nEmpty;;\n"

    first, second = read(put(tmp_path, "a.csv", table))

    assert isinstance(first, Document)
    assert first.text == "# Silk\n\nSilk is strong, and tough."
    assert first.url == "https://doi.org/10.1000/x"
    assert isinstance(second, Excluded)
    assert second.reason == "no text: neither text, abstract nor file, no DOI or address either"


def test_a_record_that_names_its_own_list_does_not_read_it_for_ever(tmp_path: Path) -> None:
    (item,) = read(put(tmp_path, "a.csv", "title,file\nSilk,a.csv\n"))

    assert isinstance(item, Excluded)


# ---------------------------------------------------------------- finding


def test_folders_are_read_through_in_order_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a/y.md", ".git/x.txt", ".hidden.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        put(tmp_path, name, "text")

    found = find([tmp_path / "b.txt", tmp_path])

    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "b.txt",
        "a/y.md",
        "a/z.txt",
    ]


def test_missing_sources_are_named_all_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="found nothing at .*one.pdf, .*two.pdf; check"):
        find([tmp_path / "one.pdf", tmp_path / "two.pdf"])
    with pytest.raises(UsageError, match="found none in"):
        find([tmp_path])


def test_the_same_file_gives_the_same_id_and_another_content_another(tmp_path: Path) -> None:
    path = put(tmp_path, "a.txt", "Silk is strong.")
    before = one(path).id
    assert one(path).id == before

    put(tmp_path, "a.txt", "Silk is weak.")

    assert one(path).id != before


def test_every_ending_has_a_reader() -> None:
    assert set(ENDINGS) >= {".pdf", ".html", ".md", ".txt", ".jsonl", ".bib", ".csv"}
