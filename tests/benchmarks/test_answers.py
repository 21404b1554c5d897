"""The sheet of open questions: what is chosen, what is asked, how marks are counted."""

from __future__ import annotations

import importlib
import json
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from orbweave.errors import UsageError

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("answers")


def some(answers: ModuleType) -> list:
    kinds = list(answers.KINDS) * 2
    return [answers.Asked("silk", kind, f"Why {n}?", f"So {n}.") for n, kind in enumerate(kinds)]


@pytest.mark.slow
def test_forty_questions_are_spread_over_fields_and_kinds(answers: ModuleType) -> None:
    asked = answers.questions(0)
    assert Counter((one.field, one.kind) for one in asked) == {
        (field, kind): n for field in answers.FIELDS for kind, n in answers.KINDS.items()
    }
    assert sum(answers.KINDS.values()) * len(answers.FIELDS) == 40
    unseen = {item["question"] for item in answers.unlearnt("choice", "qa")}
    for one in asked:
        assert (one.question in unseen) == (one.kind == "never taught")
        assert one.kind != "taught number" or any(letter.isdigit() for letter in one.expected)


def test_a_model_is_asked_through_its_template_and_answers_each(
    answers: ModuleType, tiny_model: Path
) -> None:
    asked = some(answers)
    said = answers.replies(str(tiny_model), asked)
    assert len(said) == len(asked)
    assert all("<|im_end|>" not in reply for reply in said)
    assert said == answers.replies(str(tiny_model), asked)


def test_marks_are_counted_by_model_and_kind(answers: ModuleType, tmp_path: Path) -> None:
    asked = some(answers)
    said = {"one": ["It | is\nso - [right]"] * 6, "./two (b)": ["No"] * 6}
    text = answers.sheet(asked, said)
    assert text.count("- [ ] **") == 12
    for mark in ["right", "wrong", " Partly "] + ["wrong"] * 9:
        text = text.replace("- [ ] **", f"- [{mark}] **", 1)
    path = tmp_path / "sheet.md"
    path.write_text(text, "utf-8")
    found = answers.counted(path)
    whole = found["one"]["all"]
    assert [whole[mark] for mark in answers.MARKS] == [1, 1, 4]
    assert whole["share"] == pytest.approx(1 / 6)
    assert whole["low"] < 1 / 6 < whole["high"]
    assert found["./two (b)"]["all"]["wrong"] == 6
    assert found["one"]["taught number"] == found["one"]["taught number"] | {"right": 1, "wrong": 1}
    assert json.loads(json.dumps(found)) == found
    assert "| one " in answers.table(found)


def test_a_sheet_with_open_marks_is_refused(answers: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "sheet.md"
    path.write_text(answers.sheet(some(answers), {"one": ["No"] * 6}), "utf-8")
    with pytest.raises(UsageError, match="6 are not: line 11 has"):
        answers.counted(path)
    with pytest.raises(UsageError, match="wanted a marked sheet"):
        answers.counted(tmp_path / "none.md")
