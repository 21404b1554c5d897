"""The picture shows the summaries, at their layers, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image

from merging.geometry import COLLINEAR_DEG, Geometry, TensorGeometry
from merging.geometry_picture import draw, save
from orbweave.errors import OutputError, UsageError


def _geometry(scale: float = 1.0, base: str | None = "cem") -> Geometry:
    cells = [(None, "embedding"), (None, "norm")]
    cells += [(layer, part) for layer in range(3) for part in ("attention", "mlp")]
    rows = []
    for i, (layer, part) in enumerate(cells):
        row = TensorGeometry(f"{layer}.{part}", layer, part, 10, "slerp", 1.0, 1.0, None, None, 0.1)
        row = row._replace(angle_deg=scale * (i + 1), norm_ratio=1 + i / 10)
        if base:
            row = row._replace(task_norm_a=1.0, task_norm_b=1.0, task_cosine=i / 10 - 0.4)
        rows.append(row)
    return Geometry(("ada", "bob"), base, tuple(rows))


def _drawn(axes) -> dict[tuple[float, ...], list[float]]:
    lines = [line for line in axes.lines if line.get_marker() not in {"None", None, ""}]
    return {tuple(map(float, line.get_xdata())): list(line.get_ydata()) for line in lines}


def test_lines_run_through_the_layers_and_marks_stand_outside():
    angle, ratio, cosine = draw(_geometry()).axes
    labels = [line.get_label() for line in angle.lines]
    lines = {line.get_label(): line for line in angle.lines if line.get_label() in {"mlp", "norm"}}
    assert {"attention", "mlp", "embedding", "norm"} <= set(labels)
    assert list(lines["mlp"].get_xdata()) == [0, 1, 2]
    assert list(lines["mlp"].get_ydata()) == [4.0, 6.0, 8.0]
    drawn = _drawn(angle)
    assert (drawn[(-2.0,)], drawn[(4.0,)]) == ([1.0], [2.0])
    assert _drawn(ratio)[(-2.0,)] == [1.0]
    assert _drawn(cosine)[(-2.0,)] == pytest.approx([-0.4])


def test_rows_are_labelled_with_their_units():
    axes = draw(_geometry()).axes
    assert [a.get_ylabel() for a in axes] == [
        "angle, degrees",
        "norm ratio |B| / |A|",
        "cosine of\ntask vectors",
    ]
    assert axes[-1].get_xlabel() == "layer"
    assert [label.get_text() for label in axes[-1].get_xticklabels()] == [
        *("0", "1", "2", "before", "after"),
    ]


def test_without_a_base_there_are_no_task_vectors():
    assert len(draw(_geometry(base=None)).axes) == 2


@pytest.mark.parametrize(("scale", "words"), [(1.0, "grey, below 1.81°"), (0.1, "all below")])
def test_it_is_said_where_slerp_is_a_straight_line(scale, words):
    axes = draw(_geometry(scale)).axes[0]
    assert axes.get_title("right").startswith(words)
    assert (axes.get_ylim()[1] > COLLINEAR_DEG) == (scale == 1.0)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_same_geometry_gives_the_same_file(tmp_path, suffix):
    files = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for file in files:
        save(_geometry(), file)
    assert files[0].read_bytes() == files[1].read_bytes()
    if suffix == ".png":
        with Image.open(files[0]) as picture:
            assert min(picture.size) > 500
    else:
        assert b"A = ada, B = bob, base = cem" in files[0].read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        save(_geometry(), files[0])


def test_models_without_layers_or_with_zero_angles_are_drawn(tmp_path):
    outside = [row for row in _geometry().tensors if row.layer is None]
    same = [row._replace(angle_deg=0.0, norm_ratio=1.0) for row in _geometry().tensors]
    unknown = [row._replace(angle_deg=None, norm_ratio=None) for row in same]
    for i, rows in enumerate((outside, same, unknown)):
        save(Geometry(("ada", "bob"), None, tuple(rows)), tmp_path / f"{i}.png")


def test_long_names_are_cut_at_their_beginning(tmp_path):
    long = "/a/very/long/folder/name/that/would/not/fit/into/the/title/of/a/picture"
    geometry = Geometry((long, "bob"), None, _geometry().tensors)
    title = draw(geometry).get_suptitle()
    assert title.startswith("Two models by depth: A = …") and "the/title/of/a/picture, B" in title


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"wanted a picture as \.png or \.svg, got .*a\.gif"):
        save(_geometry(), tmp_path / "a.gif")


def test_a_dollar_in_a_name_is_no_formula(tmp_path):
    geometry = replace(_geometry(), parents=("./$\\bad$", "bob"))
    save(geometry, tmp_path / "g.svg")
    assert "A = ./$\\bad$, B = bob" in (tmp_path / "g.svg").read_text("utf-8")
