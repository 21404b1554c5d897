from __future__ import annotations

import pytest

from imagegen.device import placement

GB = 10**9


@pytest.mark.parametrize(
    ("n_bytes", "free", "expected"),
    [
        (34 * GB, None, "whole"),  # no memory but the machine's own
        (7 * GB, 24 * GB, "whole"),  # SDXL on a large card
        (7 * GB, 8 * GB, "by part"),
        (34 * GB, 80 * GB, "whole"),  # FLUX
        (34 * GB, 40 * GB, "by part"),
        (34 * GB, 24 * GB, "by layer"),
    ],
)
def test_a_model_lies_whole_where_it_fits(n_bytes: int, free: int | None, expected: str) -> None:
    assert placement(n_bytes, free) == expected
