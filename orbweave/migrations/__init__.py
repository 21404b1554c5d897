"""How the store came to its present tables, step by step; Alembic walks the steps."""

from __future__ import annotations

__all__ = ["HEAD"]

HEAD = "0002"
"""The revision this version of Orbweave reads and writes."""
