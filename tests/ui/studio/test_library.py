"""Boards, likeness, and reports taken home."""

from __future__ import annotations

import io
import threading
import zipfile

import pytest
from starlette.requests import Request

from orbweave.errors import OutputError, UsageError
from orbweave.records import Measurement
from ui.studio.asking import act
from ui.studio.boards import MAX_BOARDS, Boards
from ui.studio.downloads import sender
from ui.studio.gate import OWNER_HEADER
from ui.studio.library import Search, Shot, search
from ui.studio.likeness import unlikeness

from .conftest import EVIL, wait_until, wish
from .test_story import _card


def _measured(**fields):
    usual = {"picture": "p", "solid_fraction": 0.4, "direction_deg": 30.0, "anisotropy": 0.5,
             "spacing_px": 20.0, "contrast": 0.2}  # fmt: skip
    return Measurement(**(usual | fields))


def test_a_picture_is_most_like_itself_and_likeness_has_no_sides():
    a = _measured()
    for changed in (
        {"solid_fraction": 0.5}, {"direction_deg": 60.0}, {"anisotropy": 0.7},
        {"spacing_px": 30.0}, {"spacing_px": None}, {"contrast": 0.3}, {"direction_deg": None},
    ):  # fmt: skip
        b = _measured(**changed)
        assert unlikeness(a, b) == pytest.approx(unlikeness(b, a)) and unlikeness(a, b) > 0.2
    assert unlikeness(a, a) == 0.0


def test_lines_at_1_and_179_degrees_run_alike_and_without_order_directions_say_nothing():
    assert unlikeness(_measured(direction_deg=1.0), _measured(direction_deg=179.0)) < 0.1
    assert unlikeness(_measured(anisotropy=0.0), _measured(anisotropy=0.0, direction_deg=120)) == 0


def test_an_octave_of_spacing_counts_the_same_at_every_scale():
    near, far = (unlikeness(_measured(spacing_px=s), _measured(spacing_px=2 * s)) for s in (8, 64))
    assert near == pytest.approx(far)


def test_similar_designs_come_first_by_their_nearest_pictures():
    cards = [
        _card("far", shots=(Shot("a", _measured(solid_fraction=0.9)),)),
        _card("blank"),
        _card("near", shots=(Shot("b", _measured(solid_fraction=0.9)), Shot("c", _measured()))),
        _card("model", shots=(Shot("d", _measured()),)),
        _card("bone", domains=("collagen",), shots=(Shot("e", _measured()),)),
    ]
    assert [c.id for c in search(cards, Search(like="model", domain="leaf"))] == ["near", "far"]
    for wrong in ("blank", "none"):
        with pytest.raises(UsageError, match="wanted a design with pictures"):
            search(cards, Search(like=wrong))


def test_a_board_keeps_its_designs_and_goes_with_the_last(tmp_path):
    path = tmp_path / "ann" / "boards.json"
    for name, design in (("b", "2"), ("A", "1"), ("b", "3"), ("b", "2")):
        Boards(path).put(name, design)
    assert Boards(path).read() == {"A": ("1",), "b": ("2", "3")}
    Boards(path).take("A", "1")
    Boards(path).take("nowhere", "1")
    assert Boards(path).read() == {"b": ("2", "3")}


@pytest.mark.parametrize("name", ["", " \n", "x" * 61])
def test_a_name_that_is_none_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match="wanted a name of 1 to 60 characters"):
        Boards(tmp_path / "b.json").put(name, "1")


def test_boards_are_bounded_and_a_broken_file_is_left_as_it_is(tmp_path):
    path = tmp_path / "b.json"
    for n in range(MAX_BOARDS):
        Boards(path).put(f"board {n}", "1")
    with pytest.raises(UsageError, match="at most 50 boards"):
        Boards(path).put("one more", "1")
    path.write_text('{"boards": [')
    for call in (Boards(path).read, lambda: Boards(path).put("a", "1")):
        with pytest.raises(OutputError, match="they cannot be read; mend the file"):
            call()
    assert path.read_text() == '{"boards": ['


def test_two_tabs_at_once_lose_nothing(tmp_path):
    path = tmp_path / "b.json"
    tabs = [threading.Thread(target=Boards(path).put, args=("a", str(n))) for n in range(16)]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join()
    assert len(Boards(path).read()["a"]) == 16


def test_designs_are_put_on_boards_by_their_owner_only(desk):
    sitting = desk.start("ann", wish().row())
    asked = {"design": sitting.id, "do": "pin", "text": f"paper {EVIL[:20]}"}
    assert act(desk, "ann", asked)["fault"] == ""
    assert "found none of that name" in act(desk, "eve", asked)["fault"]
    (name,) = desk.boards("ann").read()
    assert desk.boards("eve").read() == {}
    assert [c.id for c in search([_card(sitting.id), _card("x")], Search(board=name),
                                 desk.boards("ann").read())] == [sitting.id]  # fmt: skip
    assert act(desk, "ann", asked | {"do": "unpin", "text": name})["fault"] == ""
    assert desk.boards("ann").read() == {}


def test_a_design_is_taken_home_in_four_kinds(desk):
    sitting = desk.start("ann", wish(concept="eine Membran für Füße").row())

    def get(name, owner="ann"):
        scope = {"type": "http", "headers": [(OWNER_HEADER.encode(), owner.encode())],
                 "path_params": {"sitting_id": sitting.id, "path": name}}  # fmt: skip
        return sender(desk)(Request(scope))

    assert get("report.pdf").status_code == 404
    wait_until(lambda: sitting.status == "done", "the design ended")
    assert get("report.html").status_code == 200
    pdf = get("report.pdf")
    assert pdf.body.startswith(b"%PDF-") and pdf.media_type == "application/pdf"
    assert "f%C3%BC%C3%9Fe.pdf" in pdf.headers["content-disposition"].replace("F%C3", "f%C3")
    for kind, name in (("latex", "report.tex"), ("markdown", "report.md")):
        archive = zipfile.ZipFile(io.BytesIO(get(f"report-{kind}.zip").body))
        text = archive.read(name).decode()
        pictures = [n for n in archive.namelist() if n.endswith(".png")]
        assert len(pictures) == 2
        assert all(picture in text for picture in pictures)
        assert get(f"report-{kind}.zip", owner="eve").status_code == 404
