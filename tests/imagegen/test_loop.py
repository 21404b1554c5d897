"""The loop of the trainings: what a run that was stopped keeps, and what it goes on from."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from imagegen.loop import METRICS, drop_rows_after, fit


def trained(out: Path, steps: int, stop: int = -1, step_s: float = 0.0) -> None:
    """Train one weight, a step taking `step_s` or longer; Ctrl-C comes in the step `stop`."""
    model = torch.nn.Linear(1, 1)

    def losses(start: int) -> Callable[[], tuple[Tensor, dict[str, float]]]:
        numbers = iter(range(start, steps))

        def next_loss() -> tuple[Tensor, dict[str, float]]:
            if next(numbers) == stop:
                raise KeyboardInterrupt
            time.sleep(step_s)
            return model(torch.ones(1, 1)).square().mean(), {}

        return next_loss

    fit(out, model, losses, rate=lambda _: 1e-3, steps=steps, ema_decay=0.9, weight_decay=0.0)


def steps_told(out: Path) -> list[int]:
    return [json.loads(row)["step"] for row in (out / METRICS).read_text("utf-8").splitlines()]


def test_a_run_that_was_stopped_tells_of_every_step_once(tmp_path: Path) -> None:
    trained(tmp_path, 120)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, 300, stop=260)
    assert steps_told(tmp_path) == [50, 100, 150, 200, 250]
    trained(tmp_path, 300)
    assert steps_told(tmp_path) == [50, 100, 150, 200, 250, 300]


def test_a_run_that_goes_on_between_two_rows_counts_its_own_steps(tmp_path: Path) -> None:
    trained(tmp_path, 40)
    trained(tmp_path, 50, step_s=0.02)
    (row,) = (tmp_path / METRICS).read_text("utf-8").splitlines()
    assert json.loads(row)["s_per_step"] >= 0.02


def test_rows_up_to_the_checkpoint_stay_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / METRICS
    kept = b'{"step": 50, "loss": 0.5}\n{"step":100}\n'
    path.write_bytes(kept + b'{"step": 150}\n{"step": 50}\n{"step": 10')
    drop_rows_after(100, path)
    assert path.read_bytes() == kept + b'{"step": 50}\n'


@pytest.mark.parametrize("torn", [b"\xff\x00", b"[1]", b'{"loss": 1}', b'"step"', b"5", b""])
def test_what_a_crash_tore_is_no_row(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / METRICS
    path.write_bytes(b'{"step": 50}\n' + torn)
    drop_rows_after(100, path)
    assert path.read_bytes() == b'{"step": 50}\n'


def test_nothing_is_written_where_nothing_is_cut(tmp_path: Path) -> None:
    path = tmp_path / METRICS
    drop_rows_after(100, path)
    assert not path.exists()
    path.write_bytes(b'{"step": 50}\n{"step": 100}\n')
    before = path.stat()
    drop_rows_after(100, path)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
