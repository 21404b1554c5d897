"""Files people have, as documents of clean Markdown: PDF, HTML, Markdown, text, JSONL, .bib, CSV.

A file that cannot be used is an `Excluded` with its reason, never an exception: one bad paper
must not end the reading of a thousand. docs/decisions/0010 says why these extractors.
"""

from __future__ import annotations

import csv
import ctypes
import hashlib
import io
import json
import logging
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from orbweave.errors import UsageError, shown

__all__ = ["ENDINGS", "Document", "Excluded", "find", "read"]

_log = logging.getLogger(__name__)

_TITLE_CHARS = 200
"""A longer first line is a sentence, not a title."""


@dataclass(frozen=True)
class Document:
    """One text with its origin."""

    id: str
    """12 hex digits that follow from source and content."""
    title: str
    text: str
    """Markdown: `#` headings, paragraphs on one line each, blank lines between."""
    source: str
    """The file as typed; `#` and a key or line number for a record in it."""
    url: str
    """Address or `https://doi.org/...`; empty if unknown."""
    sha256: str
    """Of the file's bytes, or of the record's JSON."""
    note: str = ""
    """What a reader of the ledger should know, such as pages without text."""


@dataclass(frozen=True)
class Excluded:
    """A source, or a record in one, that gives no document."""

    source: str
    reason: str
    """A kind, a colon and the detail: `scanned: 4 of 4 pages hold no text, ...`."""
    title: str = ""


Item = Document | Excluded


def find(sources: Sequence[Path]) -> list[Path]:
    """Return all files in the order given, folders read through; hidden files are passed over.

    Raises:
        UsageError: a source does not exist, or there is no file at all.
    """
    missing = [str(path) for path in sources if not path.exists()]
    if missing:
        raise UsageError(
            f"wanted files or folders, found nothing at {', '.join(missing)}; "
            "check the path (pages of the web are read as saved .html files)"
        )
    files: dict[Path, None] = {}
    for source in sources:
        below = sorted(source.rglob("*")) if source.is_dir() else [source]
        for path in below:
            is_hidden = any(part.startswith(".") for part in path.relative_to(source).parts)
            if path.is_file() and not is_hidden:
                files.setdefault(path)
    if not files:
        raise UsageError(f"wanted at least one file, found none in {', '.join(map(str, sources))}")
    return list(files)


def read(path: Path) -> list[Item]:
    """Return what one file holds: at least one item, whatever is wrong with it."""
    source = str(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = " ".join(ENDINGS)
        return [Excluded(source, f"format: {path.suffix or 'no ending'} is not read ({known})")]
    try:
        content = path.read_bytes()
        if not content.strip():
            return [Excluded(source, "empty: the file holds nothing")]
        found = list(reader(path, content))
    except Exception as err:  # whatever a foreign file does to an extractor, the rest goes on
        _log.warning("%s cannot be read: %s", path, shown(err, 200))
        _log.debug("while reading %s", path, exc_info=True)
        return [Excluded(source, f"unreadable: {type(err).__name__}, {shown(err, 120)}")]
    return found or [Excluded(source, "empty: no record in it")]


def _item(source: str, sha256: str, title: str, text: str, url: str = "", note: str = "") -> Item:
    """Return a document, or an exclusion if no word is left."""
    text = _tidied(text)
    if not any(c.isalpha() for c in text):
        return Excluded(source, "empty: no words in it", title)
    ident = hashlib.sha256(f"{source}\0{sha256}".encode()).hexdigest()[:12]
    title = " ".join(_tidied(title).split()) or Path(source).stem
    return Document(ident, title, text, source, url, sha256, note)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# ---------------------------------------------------------------- text

_LIGATURES = dict(zip("ﬀﬁﬂﬃﬄﬅﬆ", ("ff", "fi", "fl", "ffi", "ffl", "st", "st"), strict=True))
_REPLACED = str.maketrans(_LIGATURES | {"\u00ad": "", "\u200b": "", "\ufeff": "", "\u00a0": " "})
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
_LIST_MARK = re.compile(r"(?:[•▪◦‣·∙–*+-]|\(?\d{1,2}[.)]|\([a-z]\))\s+(?=\S)")
_HYPHENED = re.compile(r"(\w+)[\x02\ufffe]\s?(\w+)")
"""A word that was cut at the end of a line; the marks are PDFium's and ours."""
_CAPTION = re.compile(r"(?:Fig(?:ure|\.)|Table|Scheme)\s*S?\d")
_ENDS_SENTENCE = re.compile(r"[.!?:;][\"'”’)\]\d,–-]*$")


def _tidied(text: str) -> str:
    """Return the text composed, without ligatures and invisible marks, lines stripped."""
    text = unicodedata.normalize("NFC", text).translate(_REPLACED)
    text = re.sub(r"\r\n?|[\v\f\x85\u2028\u2029]", "\n", text)
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _decoded(content: bytes) -> str:
    """Return bytes as text: UTF-8 or UTF-16, else what Windows wrote in the West.

    Another alphabet read so gives words of no language, which the quality gate sees.

    Raises:
        ValueError: it is no text.
    """
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return content.decode(encoding)
    if b"\0" in content:
        raise ValueError("not text: it holds zero bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252")


def _read_text(path: Path, content: bytes) -> Iterator[Item]:
    text = _unwrapped(_tidied(_decoded(content)))
    first = text.partition("\n")[0]
    is_title = len(first) <= _TITLE_CHARS and not first.endswith(".") and first != text
    title = first if is_title else path.stem
    yield _item(str(path), _sha256(content), title, text)


def _unwrapped(text: str) -> str:
    """Join the lines of paragraphs that were wrapped at a fixed width."""
    blocks = []
    for block in re.split(r"\n\s*\n", text):
        lines = [line.strip() for line in block.split("\n")]
        width = max(map(len, lines))
        joined = lines[0]
        for previous, line in pairwise(lines):
            is_wrapped = len(previous) >= 0.6 * width >= 24 and not _LIST_MARK.match(line)
            joined += (_seam(joined, line) if is_wrapped else "\n") + line
        blocks.append(_rejoined(joined))
    return "\n\n".join(blocks)


def _seam(before: str, after: str) -> str:
    """Return what stands between two parts of one paragraph: a blank, or a mark to join at."""
    is_cut = re.search(r"[a-z]-$", before) and after[:1].islower()
    return "\x02" if is_cut else " "


def _rejoined(text: str) -> str:
    """Join words cut by a hyphen; a hyphen stays where the rest of the text speaks for it."""
    text = text.replace("-\x02", "\x02")
    known = set(re.findall(r"[\w-]+", _HYPHENED.sub(" ", text).lower()))

    def join(cut: re.Match[str]) -> str:
        first, second = cut[1], cut[2]
        parts = {first.lower(), second.lower()}
        are_words = parts <= known and min(map(len, parts)) > 3
        is_compound = f"{first}-{second}".lower() in known or are_words
        is_one = (first + second).lower() in known
        return f"{first}-{second}" if is_compound and not is_one else first + second

    return re.sub(r"[\x02\ufffe]", "", _HYPHENED.sub(join, text))


def _read_markdown(path: Path, content: bytes) -> Iterator[Item]:
    head, text = _without_front_matter(_tidied(_decoded(content)))
    text = re.sub(r"^(?![#|>-])(.+)\n=+$", r"# \1", text, flags=re.M)  # underlined headings
    text = re.sub(r"^(?![#|>-])(.+)\n-{3,}$", r"## \1", text, flags=re.M)
    heading = re.search(r"^#{1,6} +(.+?)#*$", text, re.M)
    title = head.get("title") or (heading[1] if heading else path.stem)
    yield _item(str(path), _sha256(content), title, text, head.get("url", ""))


def _without_front_matter(text: str) -> tuple[dict[str, str], str]:
    """Return (simple keys of a YAML head, the text after it)."""
    found = re.match(r"---\n(.*?)\n(?:---|\.\.\.)(?:\n|$)", text, re.S)
    if found is None:
        return {}, text
    pairs = re.findall(r"^(\w+):[ \t]*(.+?)[ \t]*$", found[1], re.M)
    return {key.lower(): value.strip("\"'") for key, value in pairs}, text[found.end() :]


def _read_html(path: Path, content: bytes) -> Iterator[Item]:
    from trafilatura import extract_with_metadata

    page = extract_with_metadata(
        content, output_format="markdown", include_comments=False, include_formatting=True
    )
    if page is None or not page.text:
        yield Excluded(str(path), "empty: no article text on the page")
        return
    _, text = _without_front_matter(page.text)
    text = re.sub(r"<sup>(.*?)</sup>", r"^\1", re.sub(r"</?sub>", "", text))
    yield _item(str(path), _sha256(content), page.title or path.stem, text, page.url or "")


# ---------------------------------------------------------------- records: JSONL, CSV, BibTeX

_TEXT_KEYS = ("text", "content", "body", "abstract", "statement")
_TITLE_KEYS = ("title", "article title", "document title", "source_title")
_URL_KEYS = ("url", "link", "source_url")
_FILE_KEYS = ("file", "pdf", "path", "file attachments")
_DOI = re.compile(r"10\.\d{4,9}/\S*[^\s.,;}]")


def _read_jsonl(path: Path, content: bytes) -> Iterator[Item]:
    for number, line in enumerate(_decoded(content).splitlines(), 1):
        place = f"{path}#{number}"
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as err:
            yield Excluded(place, f"malformed: not JSON, {err}")
            continue
        if isinstance(record, dict):
            yield from _from_record(record, place, path.parent)
        else:
            yield Excluded(place, f"malformed: wanted an object, got {shown(record)}")


def _read_csv(path: Path, content: bytes) -> Iterator[Item]:
    text = _decoded(content)
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    for number, row in enumerate(rows, 1):
        record = {key: value for key, value in row.items() if isinstance(key, str)}
        yield from _from_record(record, f"{path}#{number}", path.parent)


def _read_bib(path: Path, content: bytes) -> Iterator[Item]:
    from bibtexparser.entrypoint import parse_string
    from pylatexenc.latex2text import LatexNodes2Text  # type: ignore[import-untyped]

    # The parser logs each fault as well; the ledger says it once.
    logging.getLogger("bibtexparser").setLevel(logging.CRITICAL)
    library = parse_string(_decoded(content))
    plain = LatexNodes2Text(math_mode="text").latex_to_text
    for entry in library.entries:
        record = {field.key.lower(): str(field.value) for field in entry.fields}
        for key in {*_TITLE_KEYS, *_TEXT_KEYS} & record.keys():
            # A bare percent sign would begin a comment and hide the rest of an abstract.
            record[key] = plain(re.sub(r"(?<!\\)%", r"\\%", record[key]))
        yield from _from_record(record, f"{path}#{entry.key}", path.parent)
    for block in library.failed_blocks:
        line = (block.start_line or 0) + 1
        fault = getattr(block.error, "abort_reason", "") or str(block.error)
        yield Excluded(f"{path}#line {line}", f"malformed: {fault.partition(' Note:')[0]}")


def _from_record(record: Mapping[str, Any], source: str, folder: Path) -> Iterator[Item]:
    """Yield a record's own text, or that of the file it names."""
    fields = {
        str(key).strip().lower().lstrip("\ufeff"): str(value).strip()
        for key, value in record.items()
        if isinstance(value, str | int | float)
    }
    title = _first(fields, _TITLE_KEYS)
    doi = _DOI.search(" ".join([fields.get("doi", ""), *(fields.get(k, "") for k in _URL_KEYS)]))
    url = f"https://doi.org/{doi[0].lower()}" if doi else _first(fields, _URL_KEYS)
    note = "" if doi or "doi" not in fields else "no DOI"
    linked = _linked_file(_first(fields, _FILE_KEYS), folder)
    if linked is not None:
        for item in read(linked):
            if isinstance(item, Excluded):
                yield Excluded(source, item.reason, title)
            else:
                notes = "; ".join(part for part in (note, f"text of {linked}", item.note) if part)
                document = _item(source, item.sha256, title or item.title, item.text, url, notes)
                yield document if isinstance(document, Excluded) else replace(document, note=notes)
        return
    text = _first(fields, _TEXT_KEYS)
    if not text:
        where = f"get it from {url}" if url else "no DOI or address either"
        yield Excluded(source, f"no text: neither text, abstract nor file, {where}", title)
        return
    if title and not text.startswith("#"):
        text = f"# {title}\n\n{text}"
    sha256 = _sha256(json.dumps(fields, sort_keys=True).encode())
    yield _item(source, sha256, title or text.partition("\n")[0][:_TITLE_CHARS], text, url, note)


def _first(fields: Mapping[str, str], keys: Iterable[str]) -> str:
    return next((fields[key] for key in keys if fields.get(key)), "")


def _linked_file(field: str, folder: Path) -> Path | None:
    """Return the existing file a record names; JabRef writes `:name.pdf:PDF`, with `;` between."""
    for part in [field, *field.split(";"), *field.replace(";", ":").split(":")]:
        name = part.strip()
        path = folder / Path(name).expanduser()
        # Only formats of one text each: a bibliography that names itself would never end.
        if name and path.suffix.lower() in _SINGLE and path.is_file():
            return path
    return None


# ---------------------------------------------------------------- PDF

_LEAST_LETTERS = 20
"""A page with fewer is a picture to us."""
_MOST_TEXTLESS = 0.5
"""Share of such pages above which a PDF counts as scanned: a cover page is not the paper."""
_HEADING_SIZE = 1.15
"""A heading's size against the body's, unless it is bold."""
_BOLD = re.compile(r"bold|black|heavy|demi|medi(?!um)|bx\d", re.I)
_LEADER = re.compile(r"(?:\. ?){5,}\s*\w*$")
"""A row of a table of contents."""
_NEW_LINE, _RETURN = 0x0A, 0x0D


class _Line(NamedTuple):
    """One line of a page, lengths in points."""

    text: str
    size: float
    is_bold: bool
    left: float
    right: float
    top: float
    """Foot of the first character; PDFium runs lines joined by a hyphen into one."""
    bottom: float
    """Foot of the last character."""


def _read_pdf(path: Path, content: bytes) -> Iterator[Item]:
    import pypdfium2  # type: ignore[import-untyped]

    source = str(path)
    if b"%PDF-" not in content[:1024]:
        yield Excluded(source, "damaged: it does not begin as a PDF does")
        return
    if b"%%EOF" not in content[-4096:]:
        yield Excluded(source, "truncated: its end is missing, fetch it again")
        return
    try:
        pdf = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as err:
        is_locked = any(word in str(err).lower() for word in ("password", "security"))
        locked = "encrypted: it wants a password, save it without"
        yield Excluded(source, locked if is_locked else f"damaged: {err}")
        return
    try:
        pages = [_page_lines(page) for page in pdf]
        title = str(pdf.get_metadata_value("Title")).strip("\0 ")
    finally:
        pdf.close()
    textless = sum(1 for lines in pages if _letters(lines) < _LEAST_LETTERS)
    if not pages or textless > _MOST_TEXTLESS * len(pages):
        told = f"{textless} of {len(pages)} pages hold no text, run OCR over it (such as ocrmypdf)"
        yield Excluded(source, f"scanned: {told}", title)
        return
    note = f"{textless} of {len(pages)} pages hold no text" if textless else ""
    text = _pdf_markdown(pages)
    heading = re.match(r"# (.+)", text)
    # Many papers carry the name of their typesetting file as title.
    is_title = " " in title and not re.search(r"\.(docx?|tex|indd|dvi|pdf)\b", title, re.I)
    title = title if is_title else heading[1] if heading else path.stem
    yield _item(source, _sha256(content), title, text, note=note)


def _letters(lines: Iterable[_Line]) -> int:
    return sum(c.isalpha() for line in lines for c in line.text)


def _page_lines(page: Any) -> list[_Line]:
    """Return the lines of a page in reading order, without turned text such as axis labels."""
    import pypdfium2.raw as pdfium  # type: ignore[import-untyped]

    text = page.get_textpage()
    lines: list[_Line] = []
    indices: list[int] = []
    codes: list[int] = []
    for index in range(text.count_chars() + 1):
        at_end = index == text.count_chars()
        code = _NEW_LINE if at_end else pdfium.FPDFText_GetUnicode(text, index)
        if code not in (_NEW_LINE, _RETURN):
            indices.append(index)
            codes.append(code)
            continue
        if indices:
            line = _line(text, indices, codes)
            if line is not None:
                lines.append(line)
        indices, codes = [], []
    return lines


def _line(text: Any, indices: Sequence[int], codes: Sequence[int]) -> _Line | None:
    """Return one line from PDFium's characters; None if it is turned, or a number alone."""
    # Characters beyond the first plane may come as two halves.
    halves = "".join(map(chr, codes)).encode("utf-16", "surrogatepass")
    said = halves.decode("utf-16", "replace").strip()
    is_word = any(c.isalpha() for c in said) and (len(said) > 3 or said[-1:] in ".!?:")
    if not said or (len(said.split()) == 1 and not is_word):
        return None  # page numbers, ticks and letters of figures
    if _LEADER.search(said):
        return None
    solid = [i for i, code in zip(indices, codes, strict=True) if not chr(code).isspace()]
    sample = [solid[0], solid[len(solid) // 2], solid[-1]]
    fonts = [_font(text, index) for index in sample]
    sizes = [size for size, _, _ in fonts]
    if all(is_turned for _, _, is_turned in fonts):
        return None
    is_bold = fonts[0][1] and fonts[-1][1]
    left, top, _, _ = text.get_charbox(solid[0], loose=True)
    _, bottom, right, _ = text.get_charbox(solid[-1], loose=True)
    return _Line(said, median(sizes), is_bold, left, right, top, bottom)


def _font(text: Any, index: int) -> tuple[float, bool, bool]:
    """Return (size in points, is bold, is turned) of one character."""
    import pypdfium2.raw as pdfium

    matrix = pdfium.FS_MATRIX()
    pdfium.FPDFText_GetMatrix(text, index, matrix)
    name = ctypes.create_string_buffer(128)
    pdfium.FPDFText_GetFontInfo(text, index, name, len(name), ctypes.c_int())
    # Some writers set size 1 and scale the page instead.
    size = pdfium.FPDFText_GetFontSize(text, index) * math.hypot(matrix.c, matrix.d)
    is_turned = abs(matrix.b) > abs(matrix.a)
    return round(size, 1), bool(_BOLD.search(name.value.decode("latin-1"))), is_turned


def _pdf_markdown(pages: Sequence[Sequence[_Line]]) -> str:
    """Return the pages as Markdown: running heads gone, headings marked, paragraphs joined."""
    sizes: Counter[float] = Counter()
    for line in (line for page in pages for line in page):
        sizes[line.size] += len(line.text)
    body = sizes.most_common(1)[0][0]
    pages = _without_running_lines(pages, body)
    gaps = [a.bottom - b.top for page in pages for a, b in pairwise(page)]
    gap = median([gap for gap in gaps if 0 < gap < 4 * body] or [1.2 * body])
    blocks: list[_Block] = []
    growing: dict[str, _Block] = {}
    for line in (line for page in pages for line in page):
        kind = _kind(line, body)
        block = growing.get(kind)
        if block is not None and _continues(line, block, gap):
            block.lines.append(line)
        else:
            # A paragraph goes on around a footnote or a figure, not around a heading.
            growing = growing if kind != "heading" else {}
            growing.pop("heading", None)
            growing[kind] = _Block(kind, [line])
            blocks.append(growing[kind])
    heads = {block.lines[0].size for block in blocks if block.kind == "heading"}
    levels = {size: min(n, 4) for n, size in enumerate(sorted(heads, reverse=True), 1)}
    text = "\n\n".join(_written(block, levels) for block in blocks)
    return _rejoined(text)


class _Block(NamedTuple):
    """A heading, a paragraph of the body, or an aside in smaller print."""

    kind: str
    lines: list[_Line]


def _without_running_lines(pages: Sequence[Sequence[_Line]], body: float) -> list[list[_Line]]:
    """Leave out what stands on top or at the foot of many pages, numbers apart."""

    def key(line: _Line) -> str:
        return re.sub(r"\d+", "#", line.text)

    edges = Counter(k for page in pages for k in set(map(key, [*page[:2], *page[-2:]])))
    running = {k for k, count in edges.items() if count >= max(2, 0.3 * len(pages))}
    return [
        [line for line in page if key(line) not in running or line.size > _HEADING_SIZE * body]
        for page in pages
    ]


def _kind(line: _Line, body: float) -> str:
    is_short = len(line.text) <= _TITLE_CHARS
    if is_short and line.size > _HEADING_SIZE * body:
        return "heading"
    if line.size <= 0.95 * body:
        return "aside"
    is_bold_head = is_short and line.is_bold and not line.text.endswith((".", ",", ";"))
    return "heading" if is_bold_head else "body"


def _continues(line: _Line, block: _Block, gap: float) -> bool:
    """Tell whether a line belongs to the paragraph or heading before it."""
    last = block.lines[-1]
    step = last.bottom - line.top  # below 0: another column or page
    if block.kind == "heading":
        return line.size == last.size and 0 < step < 2 * line.size
    if _LIST_MARK.match(line.text) or _CAPTION.match(line.text):
        return False
    if not _ENDS_SENTENCE.search(last.text):
        return step < 3 * gap
    is_apart = step > 1.4 * gap or (step < 0 and block.kind == "aside")
    is_indented = 0.6 * line.size < line.left - last.left < 5 * line.size
    is_last_short = max(each.right for each in block.lines[-4:]) - last.right > 3 * line.size
    return not (is_apart or is_indented or is_last_short)


def _written(block: _Block, levels: Mapping[float, int]) -> str:
    text = block.lines[0].text
    for previous, line in pairwise(block.lines):
        text += _seam(previous.text, line.text) + line.text
    if block.kind == "heading":
        return f"{'#' * levels[block.lines[0].size]} {text}"
    return _LIST_MARK.sub("- ", text, count=1) if text[0] in "•▪◦‣·∙" else text


_READERS: Mapping[str, Callable[[Path, bytes], Iterator[Item]]] = {
    ".pdf": _read_pdf,
    ".html": _read_html,
    ".htm": _read_html,
    ".md": _read_markdown,
    ".markdown": _read_markdown,
    ".txt": _read_text,
    ".jsonl": _read_jsonl,
    ".bib": _read_bib,
    ".csv": _read_csv,
}
ENDINGS = tuple(_READERS)
_SINGLE = (".pdf", ".html", ".htm", ".md", ".markdown", ".txt")
