"""The chart and the table behind it agree; losses hang below the line."""

from __future__ import annotations

import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from training.chart import accuracy_bars, draw, gain_bars, save
from training.evaluation import (
    Answered,
    Asked,
    Evaluation,
    ModelResult,
    accuracies,
    comparisons,
)


def model(name: str, silk: int, leaf: int) -> ModelResult:
    """A model with so many of 20 answers right in each of two sets."""
    answers = tuple(
        Answered(
            benchmark=benchmark,
            id=f"{benchmark}{i}",
            domain=benchmark,
            type="mc",
            category="c",
            answer=0,
            loglik=(-1.0, -2.0) if i < right else (-2.0, -1.0),
        )
        for benchmark, right in [("silk", silk), ("leaf", leaf)]
        for i in range(20)
    )
    return ModelResult(model=name, weights_sha256="0", answers=answers)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return Evaluation(
        scorings=("loglik",),
        benchmarks=tuple(Asked(name=name, n=20, sha256="0") for name in ("silk", "leaf")),
        models=(model("base", 7, 9), model("tuned", 15, 4)),
    )


def drawn(axes) -> list[float]:
    return sorted(patch.get_height() for patch in axes.patches if isinstance(patch, Rectangle))


def test_the_bars_are_the_table_in_percent(evaluation):
    left, right = draw(evaluation).axes
    table = [r for r in accuracies(evaluation) if r.group in {"overall", "set"}]
    assert drawn(left) == pytest.approx(sorted(100 * r.accuracy for r in table))
    gains = [c for c in comparisons(evaluation) if c.group in {"overall", "set"}]
    assert drawn(right) == pytest.approx(sorted(100 * c.gain for c in gains))


def test_a_loss_is_a_bar_below_the_line_and_within_the_axes(evaluation):
    right = draw(evaluation).axes[1]
    assert drawn(right)[0] == pytest.approx(-25.0)
    assert right.get_ylim()[0] < -25.0


def test_error_bars_are_the_intervals_of_the_table(evaluation):
    table = accuracies(evaluation)
    bar = next(b for b in accuracy_bars(table, "loglik") if (b.model, b.name) == ("tuned", "silk"))
    row = next(r for r in table if (r.model, r.group, r.name) == ("tuned", "set", "silk"))
    assert (bar.low, bar.high) == (100 * row.low, 100 * row.high)
    (container,) = [c for c in draw(evaluation).axes[0].containers if c.get_label() == "tuned"]
    segments = container.errorbar.lines[2][0].get_segments()
    assert any(s[:, 1] == pytest.approx([bar.low, bar.high]) for s in segments)


def test_the_first_model_has_no_gain_bar(evaluation):
    assert {bar.model for bar in gain_bars(comparisons(evaluation), "loglik")} == {"tuned"}


def test_one_model_alone_has_one_panel(evaluation):
    alone = evaluation.model_copy(update={"models": evaluation.models[:1]})
    assert len(draw(alone).axes) == 1


def test_the_same_evaluation_gives_the_same_files(evaluation, tmp_path):
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        files = save(evaluation, tmp_path / name)
        assert [file.name for file in files] == ["accuracy.png", "accuracy.svg"]
        contents.append([file.read_bytes() for file in files])
    assert contents[0] == contents[1]
    with Image.open(tmp_path / "a" / "accuracy.png") as picture:
        assert min(picture.size) > 200
    assert b"tuned" in contents[0][1]
