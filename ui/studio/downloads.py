"""Pictures, reports and archives of a sitting, sent to its owner and to nobody else."""

from __future__ import annotations

import io
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from orbweave.errors import UsageError
from orbweave.records import Design
from ui.archive import write_archive
from ui.document import Block, Figure, document
from ui.report_latex import latex_report
from ui.report_markdown import markdown_report
from ui.report_pdf import pdf_report
from ui.studio.desk import Desk
from ui.studio.gate import OWNER_HEADER
from ui.studio.sitting import Sitting
from ui.target import slug

__all__ = ["DOWNLOADS", "sender"]

DOWNLOADS = "/sitting/{sitting_id}/{path:path}"
FILES = {"report.html": "text/html", "conversation.md": "text/markdown"}
"""Files of a design folder that are sent by name."""
PACKED = {
    "report-latex.zip": ("report.tex", latex_report),
    "report-markdown.zip": ("report.md", markdown_report),
}
"""Reports that need their pictures beside them: what they are called inside, what writes them."""
ALONE = {
    # A report needs nothing but itself: no script, nothing from elsewhere.
    "content-security-policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
}
FOR_EVER = {"cache-control": "private, max-age=31536000, immutable"}
"""A picture's name holds version and seed: it never changes."""


def sender(desk: Desk) -> Callable[[Request], Response]:
    """Return the handler of `DOWNLOADS`."""

    def send(request: Request) -> Response:
        try:
            owner = request.headers[OWNER_HEADER]
            sitting = desk.sitting(owner, request.path_params["sitting_id"])
        except UsageError as err:
            return PlainTextResponse(str(err), 404)
        return _file(sitting, request.path_params["path"])

    return send


def _file(sitting: Sitting, path: str) -> Response:
    folder, _, name = path.rpartition("/")
    if folder == "picture":
        picture = sitting.picture(name)
        if picture is not None:
            return FileResponse(picture, media_type="image/png", headers=FOR_EVER)
    elif path == "design.zip" and not sitting.is_open:
        return _archive(sitting)
    elif path == "report.pdf" and (record := sitting.record) is not None:
        content = pdf_report(document(record, sitting.target), sitting.target, _made(sitting))
        return Response(content, media_type="application/pdf", headers=_named(sitting, ".pdf"))
    elif path in PACKED and (record := sitting.record) is not None:
        content = _packed(sitting, record, *PACKED[path])
        headers = _named(sitting, f"-{path.partition('-')[2]}")
        return Response(content, media_type="application/zip", headers=headers)
    elif path in FILES and (sitting.target / path).is_file():
        return FileResponse(sitting.target / path, media_type=FILES[path], headers=ALONE)
    return PlainTextResponse(f"wanted {path!r} of this design, there is none yet", 404)


def _packed(
    sitting: Sitting, record: Design, name: str, write: Callable[[Sequence[Block]], str]
) -> bytes:
    """Return a zip of a report and the pictures it names."""
    blocks = document(record, sitting.target)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, write(blocks))
        for block in blocks:
            if isinstance(block, Figure):
                archive.write(sitting.target / block.path, block.path, zipfile.ZIP_STORED)
    return packed.getvalue()


def _made(sitting: Sitting) -> datetime:
    return datetime.fromtimestamp(int(sitting.asked.at), UTC)


def _named(sitting: Sitting, end: str) -> dict[str, str]:
    name = quote(f"{slug(sitting.asked.row.brief.concept)}{end}")
    return {"content-disposition": f"attachment; filename*=utf-8''{name}"}


def _archive(sitting: Sitting) -> Response:
    """Return the finished design folder, or what there is of an unfinished one, as a zip."""
    folder = sitting.target if sitting.record is not None else sitting.folder
    place = Path(tempfile.mkdtemp(prefix="orbweave-"))
    try:
        write_archive(folder, place / "design.zip")
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return _Once(
        place / "design.zip",
        media_type="application/zip",
        filename=f"{slug(sitting.asked.row.brief.concept)}.zip",
    )


class _Once(FileResponse):
    """A file that goes with its folder afterwards, even if only an impossible part was wanted."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            shutil.rmtree(Path(self.path).parent, ignore_errors=True)
