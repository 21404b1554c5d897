"""The embedded model's folder, from the real cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from orbweave.embedded import build_base


@pytest.fixture(scope="session")
def base_folder() -> Path:
    """The embedded model from the real cache, built there if need be."""
    return build_base()
