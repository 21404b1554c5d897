"""What holds for every test: no network, fixed seeds."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest

# Before any library reads it, and inherited by the processes that tests start.
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)
