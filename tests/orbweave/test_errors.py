from __future__ import annotations

import pytest

from orbweave import errors


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("OrbweaveError", 1),
        ("UsageError", 2),
        ("ConceptError", 2),
        ("OutputError", 1),
        ("ModelError", 1),
        ("EngineError", 1),
        ("Cancelled", 130),
    ],
)
def test_every_error_has_the_exit_code_of_the_drawing(name, code):
    assert getattr(errors, name).exit_code == code
    assert f"{name} " in errors.__doc__


def test_all_errors_descend_from_the_root():
    classes = [getattr(errors, name) for name in errors.__all__ if name != "shown"]
    assert all(issubclass(error, errors.OrbweaveError) for error in classes)


def test_shown_is_one_printable_line_of_bounded_length():
    text = errors.shown("a\x1b[2J\n" + "b" * 100, limit=20)
    assert text.isprintable()
    assert len(text) <= 22
    assert text.endswith("…'")
