"""A teacher with queued replies, and a real server; no model is loaded."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from orbweave.errors import EngineError, OutputError, UsageError
from training.corpus import ingest, read_chunks
from training.distill import COPY, Bill, Kind, approximate_tokens, distill, estimate
from training.duplicates import similarity
from training.fake import QueuedTeacher
from training.mix import read_rows
from training.rows import Turn
from training.teacher import OpenAITeacher, read_json

SILK = (
    "# Silk\n\nDragline silk of Nephila has a strength of 1.1 GPa and takes up 160 MJ/m3 before it "
    "breaks. Water softens the matrix between the crystals, and the thread shrinks to half of its "
    "length. The crystals stay as they are, because the water cannot enter them."
)
LEAF = (
    "# Leaf\n\nThe veins of a leaf form loops, so that water finds a way around when one of them "
    "is cut. A tree of veins would be cheaper to build, but it would lose all that lies beyond."
)
PAIR = {"question": "How strong is dragline silk?", "answer": "About 1.1 GPa."}
RECORD = {
    "title": "Silk",
    "insights": ["Wet silk shrinks."],
    "facts": ["Dragline silk has a strength of 1.1 GPa."],
    "details": [],
    "comparisons": ["Crystals stay, the matrix softens."],
    "questions": ["How strong is silk?"],
    "answers": ["1.1 GPa."],
}
CHOICE = {
    "prompt": "What does water do to dragline silk?",
    "chosen": "Water softens the matrix, and the thread shrinks.",
    "rejected": "Water hardens the crystals, and the thread grows longer.",
}
WRONG = '["wrong"]'


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two documents of one chunk each."""
    (tmp_path / "a-silk.md").write_text(SILK)
    (tmp_path / "b-leaf.md").write_text(LEAF)
    ingest([tmp_path / "a-silk.md", tmp_path / "b-leaf.md"], tmp_path / "corpus")
    return tmp_path / "corpus"


@pytest.fixture
def silk(tmp_path: Path) -> Path:
    """One document of one chunk."""
    (tmp_path / "silk.md").write_text(SILK)
    ingest([tmp_path / "silk.md"], tmp_path / "one")
    return tmp_path / "one"


def rows_of(out: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / f"{name}.jsonl").read_text("utf-8").splitlines()]


def teach(corpus: Path, out: Path, kind: Kind, *replies: str, **more: Any) -> QueuedTeacher:
    teacher = QueuedTeacher(replies)
    distill(corpus, teacher, out, [kind], **more)
    return teacher


def by_topic(messages: Sequence[Turn], seed: int) -> str:
    """A pair about whatever the passage is on, another one for every seed."""
    topic = "leaf" if "veins" in messages[-1].content else "silk"
    words = f"{seed:031b}".translate(str.maketrans("01", "ab"))
    question = " ".join(words[i : i + 3] + str(i) for i in range(0, 30, 3))
    return json.dumps([{"question": f"{topic} {question}?", "answer": "Yes."}])


# ---------------------------------------------------------------- kinds


def test_every_pair_cites_its_chunk_and_is_a_row_to_train_on(silk: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    teacher = teach(silk, out, "qa", json.dumps([PAIR]))

    (chunk,) = read_chunks(silk)
    (row,) = rows_of(out, "qa")
    assert row["chunk"] == chunk.id
    assert (row["document"], row["source"], row["teacher"]) == (
        chunk.document,
        chunk.source,
        "fake",
    )
    assert (row["prompt"], row["completion"]) == (PAIR["question"], PAIR["answer"])
    (read,) = read_rows(out / "qa.jsonl")
    assert read.turns == (Turn("user", PAIR["question"]), Turn("assistant", PAIR["answer"]))
    ((system, user), _) = teacher.requests[0]
    assert system.role == "system"
    assert chunk.text in user.content
    assert "{" not in user.content.replace('{"question": "...", "answer": "..."}', "")


def test_questions_that_point_back_at_the_passage_are_left_out(silk: Path, tmp_path: Path) -> None:
    back = [{"question": q, "answer": "It is."} for q in ("What does the passage say?",)]

    teach(silk, tmp_path / "out", "qa", json.dumps([*back, PAIR]))

    assert [row["prompt"] for row in rows_of(tmp_path / "out", "qa")] == [PAIR["question"]]


def test_a_record_has_its_seven_lists_and_a_text(silk: Path, tmp_path: Path) -> None:
    teach(silk, tmp_path / "out", "record", json.dumps(RECORD))

    (row,) = rows_of(tmp_path / "out", "record")
    assert {key: row[key] for key in RECORD} == RECORD
    assert row["chunks"] == [chunk.id for chunk in read_chunks(silk)]
    assert row["text"].startswith("# Silk\n\n## Insights\n\nWet silk shrinks.")
    assert "## Details" not in row["text"]
    assert "How strong is silk?\n1.1 GPa." in row["text"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"answers": []}, "1 questions, 0 answers"),
        ({"facts": [], "questions": [], "answers": []}, "without facts or questions"),
        ({"title": " "}, "title"),
        ({"insights": "none"}, "insights"),
    ],
)
def test_a_record_out_of_shape_is_a_failure(
    silk: Path, tmp_path: Path, change: dict[str, Any], fault: str
) -> None:
    teach(silk, tmp_path / "out", "record", json.dumps(RECORD | change), tries=1)

    assert rows_of(tmp_path / "out", "record") == []
    (failure,) = rows_of(tmp_path / "out", "failures")
    assert fault in failure["fault"]


def test_a_long_document_gives_a_record_for_each_window(tmp_path: Path) -> None:
    text = "\n\n".join(f"## Part {n}\n\nThread {n} is strong in the web." for n in range(9))
    (tmp_path / "long.md").write_text(text)
    ingest([tmp_path / "long.md"], tmp_path / "corpus", max_chars=100, min_quality=0.0)
    chunks = read_chunks(tmp_path / "corpus")

    teacher = QueuedTeacher(lambda messages, seed: json.dumps(RECORD))
    distill(tmp_path / "corpus", teacher, tmp_path / "out", ["record"], window_chars=250)

    rows = rows_of(tmp_path / "out", "record")
    assert len(rows) > 1
    assert [chunk for row in rows for chunk in row["chunks"]] == [chunk.id for chunk in chunks]
    assert len({row["id"] for row in rows}) == len(rows)


def test_properties_keep_numbers_and_units_as_written_and_no_others(
    silk: Path, tmp_path: Path
) -> None:
    said = [
        {"material": "dragline silk", "quantity": "strength", "value": 1.1, "unit": "GPa"},
        {"material": "dragline silk", "quantity": "toughness", "value": "160", "unit": "MJ/m3"},
        {"material": "dragline silk", "quantity": "stiffness", "value": "10", "unit": "GPa"},
        {"material": "water", "quantity": "effect", "value": "strong", "unit": ""},
    ]

    teach(silk, tmp_path / "out", "properties", json.dumps({"properties": said}))

    rows = rows_of(tmp_path / "out", "properties")
    assert [(r["material"], r["quantity"], r["value"], r["unit"]) for r in rows] == [
        ("dragline silk", "strength", "1.1", "GPa"),
        ("dragline silk", "toughness", "160", "MJ/m3"),
    ]
    assert rows[0]["text"] == "strength of dragline silk: 1.1 GPa"


def test_a_passage_without_numbers_has_no_properties_and_that_is_no_failure(
    silk: Path, tmp_path: Path
) -> None:
    teacher = teach(silk, tmp_path / "out", "properties", "There are none: []")

    assert len(teacher.requests) == 1
    assert rows_of(tmp_path / "out", "properties") == rows_of(tmp_path / "out", "failures") == []


def test_invented_numbers_alone_are_asked_for_again(silk: Path, tmp_path: Path) -> None:
    invented = [{"material": "silk", "quantity": "density", "value": "1.3", "unit": "g/cm3"}]

    teacher = teach(silk, tmp_path / "out", "properties", json.dumps(invented), "[]")

    assert len(teacher.requests) == 2


def test_a_summary_is_a_text_to_train_on(silk: Path, tmp_path: Path) -> None:
    teach(silk, tmp_path / "out", "summary", '{"summary": "Silk is strong."}')

    (row,) = read_rows(tmp_path / "out" / "summary.jsonl")
    assert row.text == "Silk is strong."


def test_a_preference_has_a_rejected_answer_that_was_judged_wrong(
    silk: Path, tmp_path: Path
) -> None:
    teacher = teach(silk, tmp_path / "out", "preference", json.dumps([CHOICE]), WRONG)

    (row,) = read_rows(tmp_path / "out" / "preference.jsonl")
    assert row.turns[-1].content == CHOICE["chosen"] != row.rejected == CHOICE["rejected"]
    judged = teacher.requests[1][0][-1].content
    assert CHOICE["rejected"] in judged
    assert CHOICE["chosen"] not in judged


@pytest.mark.parametrize(
    "rejected",
    [
        CHOICE["chosen"],
        "The thread shrinks, and water softens the matrix!",
        "Water softens the matrix.",
    ],
)
def test_a_rejected_answer_that_says_the_same_is_flagged(
    silk: Path, tmp_path: Path, rejected: str
) -> None:
    planted = CHOICE | {"rejected": rejected, "prompt": "What does wet silk do in the end?"}

    teach(silk, tmp_path / "out", "preference", json.dumps([planted, CHOICE]), WRONG)

    (row,) = rows_of(tmp_path / "out", "preference")
    assert row["rejected"] == CHOICE["rejected"]


def test_a_right_answer_in_other_words_is_flagged_by_the_judge(silk: Path, tmp_path: Path) -> None:
    planted = CHOICE | {"rejected": "It becomes pliable and contracts once moist."}

    teacher = teach(
        silk,
        tmp_path / "out",
        "preference",
        json.dumps([planted]),
        '["right"]',
        json.dumps([CHOICE]),
        '["wrong", "wrong"]',
        json.dumps([CHOICE]),
        WRONG,
    )

    (row,) = rows_of(tmp_path / "out", "preference")
    assert row["rejected"] == CHOICE["rejected"]
    assert len(teacher.requests) == 6


# ---------------------------------------------------------------- failures and passes


@pytest.mark.parametrize("bad", ["", "I would rather not.", '[{"question": "Why', "[]", "[1, 2]"])
def test_bad_replies_are_asked_for_again_with_another_seed(
    silk: Path, tmp_path: Path, bad: str
) -> None:
    teacher = teach(silk, tmp_path / "out", "qa", bad, bad, json.dumps([PAIR]))

    assert len(rows_of(tmp_path / "out", "qa")) == 1
    assert len({seed for _, seed in teacher.requests}) == 3
    assert len({messages for messages, _ in teacher.requests}) == 1
    assert rows_of(tmp_path / "out", "failures") == []


def test_what_stays_bad_is_logged_and_the_rest_goes_on(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    teacher = QueuedTeacher(["no", "nor this", json.dumps([PAIR])])

    outcome = distill(corpus, teacher, out, ["qa"], tries=2)

    first, second = read_chunks(corpus)
    (row,) = rows_of(out, "qa")
    assert row["chunk"] == second.id
    (failure,) = rows_of(out, "failures")
    assert failure["task"] == f"qa {first.id} 0"
    assert (failure["reply"], failure["tries"]) == ("nor this", 2)
    assert "no whole JSON" in failure["fault"]
    assert (outcome.rows, outcome.failures) == ({"qa": 1}, 1)
    again = QueuedTeacher([json.dumps([PAIR])])
    assert distill(corpus, again, out, ["qa"], tries=2).failures == 1
    assert again.requests == []
    assert distill(corpus, again, out, ["qa"], tries=2, retry_failed=True).failures == 0
    assert again.requests[0][1] not in {seed for _, seed in teacher.requests}


def test_five_passes_hold_no_copies(silk: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked: list[str] = []

    def stubborn(messages: Sequence[Turn], seed: int) -> str:
        """Says everything twice, if it is let."""
        asked.append(messages[-1].content)
        n = len(asked) // 2
        facts = [f"The thread {n}{c} of web {n} bears load {n}{c} at place {n}." for c in "abcd"]
        return json.dumps(RECORD | {"facts": facts, "title": f"Silk number {n} in web {n}"})

    distill(silk, QueuedTeacher(stubborn), out, ["record"], passes=5)

    rows = rows_of(out, "record")
    assert [row["pass"] for row in rows] == [0, 1, 2, 3, 4]
    assert all(similarity(a["text"], b["text"]) < COPY for a, b in combinations(rows, 2))
    assert len(asked) > 5
    assert "These exist already" in asked[-1]
    assert "These exist already" not in asked[0]


def test_a_pass_that_only_copies_is_a_failure(silk: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    teacher = QueuedTeacher(lambda messages, seed: json.dumps([PAIR, PAIR]))

    outcome = distill(silk, teacher, out, ["qa"], passes=2)

    assert (outcome.rows["qa"], outcome.failures) == (1, 1)
    assert "copy of what an earlier pass said" in rows_of(out, "failures")[0]["fault"]


def test_more_workers_write_the_same_rows(corpus: Path, tmp_path: Path) -> None:
    kinds: list[Kind] = ["qa"]
    for workers in (1, 4):
        out = tmp_path / str(workers)
        distill(corpus, QueuedTeacher(by_topic), out, kinds, passes=4, workers=workers)

    assert len(rows_of(tmp_path / "1", "qa")) == 8
    assert (tmp_path / "1" / "qa.jsonl").read_bytes() == (tmp_path / "4" / "qa.jsonl").read_bytes()


# ---------------------------------------------------------------- interruptions


def test_an_interrupted_run_goes_on_and_ends_as_if_nothing_had_been(
    corpus: Path, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    distill(corpus, QueuedTeacher(by_topic), whole, ["qa"], passes=3)

    def interrupt(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(corpus, QueuedTeacher(by_topic), broken, ["qa"], 3, on_progress=interrupt)
    with (broken / "finished.jsonl").open("a") as journal:
        journal.write('{"key": "half a li')
    assert not (broken / "qa.jsonl").exists()
    rest = QueuedTeacher(by_topic)
    distill(corpus, rest, broken, ["qa"], passes=3)

    assert len(rest.requests) == 2
    for name in ("qa.jsonl", "failures.jsonl", "finished.jsonl"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()


def test_a_teacher_that_cannot_be_reached_stops_the_run_and_loses_nothing(tmp_path: Path) -> None:
    for n in range(6):
        (tmp_path / f"{n}.md").write_text(f"# {n}\n\nThread {n} is the one that is in web {n}.")
    ingest(sorted(tmp_path.glob("*.md")), tmp_path / "corpus")
    down = EngineError("the server is gone")
    teacher = QueuedTeacher([json.dumps([PAIR]), down, down, down])

    with pytest.raises(EngineError, match="server is gone; 1 of 6 passes are settled"):
        distill(tmp_path / "corpus", teacher, tmp_path / "out", ["qa"])
    again = QueuedTeacher(by_topic)
    outcome = distill(tmp_path / "corpus", again, tmp_path / "out", ["qa"])

    assert len(again.requests) == 5
    assert (outcome.rows["qa"], outcome.failures) == (6, 0)


def test_one_failing_request_does_not_end_the_run(corpus: Path, tmp_path: Path) -> None:
    teacher = QueuedTeacher([EngineError("too long"), json.dumps([PAIR])])

    outcome = distill(corpus, teacher, tmp_path / "out", ["qa"])

    assert (outcome.rows["qa"], outcome.failures) == (1, 1)
    assert rows_of(tmp_path / "out", "failures")[0]["fault"] == "too long"
    with pytest.raises(EngineError, match="still too long"):
        distill(corpus, QueuedTeacher([EngineError("still too long")]), tmp_path / "out", ["qa"])


def test_a_folder_belongs_to_one_teacher_and_seed(silk: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    teach(silk, out, "qa", json.dumps([PAIR]))
    other = QueuedTeacher([json.dumps([PAIR])], name="other")

    with pytest.raises(UsageError, match="begun with"):
        distill(silk, other, out, ["qa"])
    with pytest.raises(UsageError, match="begun with"):
        distill(silk, QueuedTeacher(), out, ["qa"], seed=1)
    distill(silk, other, out, ["qa"], force=True)

    assert rows_of(out, "qa")[0]["teacher"] == "other"


def test_somebody_elses_folder_is_left_alone(silk: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "qa.jsonl").write_text("mine")

    with pytest.raises(OutputError, match="found something else"):
        distill(silk, QueuedTeacher(), home, ["qa"], force=True)

    assert (home / "qa.jsonl").read_text() == "mine"


def test_a_damaged_journal_names_its_line(silk: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    teach(silk, out, "qa", json.dumps([PAIR]))
    (out / "finished.jsonl").write_text("{}\n")

    with pytest.raises(UsageError, match="in line 1 of"):
        distill(silk, QueuedTeacher(), out, ["qa"])


def test_no_corpus_no_distillation(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="orbweave ingest"):
        distill(tmp_path, QueuedTeacher(), tmp_path / "out", ["qa"])


# ---------------------------------------------------------------- the bill


def test_the_estimate_counts_the_prompts_that_are_then_sent(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    before = estimate(corpus, out, ["qa", "summary"])
    teacher = QueuedTeacher(
        lambda messages, seed: (
            '{"summary": "Short."}' if "Summarise" in messages[-1].content else json.dumps([PAIR])
        )
    )
    outcome = distill(corpus, teacher, out, ["qa", "summary"])

    sent = [turn.content for messages, _ in teacher.requests for turn in messages]
    assert before.requests == outcome.bill.requests == 4
    assert before.prompt_tokens == outcome.bill.prompt_tokens == sum(map(approximate_tokens, sent))
    assert before.reply_tokens > 0
    assert estimate(corpus, out, ["qa", "summary"]) == Bill(0, 0, 0)
    assert estimate(corpus, out, ["qa", "summary"], force=True) == before


def test_the_cost_follows_from_prices_of_a_million_tokens() -> None:
    assert Bill(1, 2_000_000, 500_000).cost((0.15, 0.60)) == pytest.approx(0.60)


def test_every_try_is_on_the_bill(silk: Path, tmp_path: Path) -> None:
    teacher = QueuedTeacher(["no", json.dumps([PAIR])])

    outcome = distill(silk, teacher, tmp_path / "out", ["qa"], count_tokens=len)

    sent = sum(len(turn.content) for messages, _ in teacher.requests for turn in messages)
    assert outcome.bill == Bill(2, sent, len("no") + len(json.dumps([PAIR])))


# ---------------------------------------------------------------- replies


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ('[{"a": 1}]', [{"a": 1}]),
        ('Sure! Here it is:\n```json\n{"a": [1, 2]}\n```\nAnything else?', {"a": [1, 2]}),
        ('See [1] and [2].\n{"summary": "long enough"}', {"summary": "long enough"}),
        ('<think>[1, 2, 3, 4, 5, 6, 7]</think>{"a": 1}', {"a": 1}),
        ('{"a": [1, 2,], }', {"a": [1, 2]}),
        (r'{"a": "\beta and \frac{1}{2}, 5 \mu m, \times, \\alpha"}', None),
        ('{"a": "two\nlines"}', {"a": "two\nlines"}),
        (r'{"a": "one\nother"}', {"a": "one\nother"}),
        ("{'a': 'it is', 'b': [1, 2]}", {"a": "it is", "b": [1, 2]}),
        ('{"a": "{not} [this]"}', {"a": "{not} [this]"}),
    ],
)
def test_json_is_found_in_what_models_say(reply: str, value: Any) -> None:
    expected = value or {"a": r"\beta and \frac{1}{2}, 5 \mu m, \times, \alpha"}

    assert read_json(reply) == expected


@pytest.mark.parametrize(
    "reply", ["", "none", '{"a": 3.', '["cut off', "{a: 1}", "][", "[" * 5_000]
)
def test_what_breaks_off_is_not_completed(reply: str) -> None:
    with pytest.raises(ValueError, match="no whole JSON"):
        read_json(reply)


# ---------------------------------------------------------------- a server

Answer = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]


@pytest.fixture
def server() -> Iterator[Callable[[Answer], str]]:
    """Starts OpenAI-compatible servers on the loopback address; returns their base address."""
    running: list[ThreadingHTTPServer] = []

    def start(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                asked = {"path": self.path, "key": self.headers["Authorization"], **body}
                code, document = answer(asked)
                content = json.dumps(document).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        running.append(httpd)
        return f"http://127.0.0.1:{httpd.server_port}/v1"

    yield start
    for httpd in running:
        httpd.shutdown()
        httpd.server_close()


def completion(text: str | None) -> tuple[int, dict[str, Any]]:
    message = {"role": "assistant", "content": text}
    return 200, {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "tiny",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
    }


def test_a_server_is_asked_with_messages_seed_and_key(
    server: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret")
    asked: list[dict[str, Any]] = []

    def answer(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        asked.append(request)
        return completion("Yes.")

    url = server(answer)
    teacher = OpenAITeacher(url, "tiny", temperature=0.5, max_tokens=99)

    assert teacher([Turn("system", "Be brief."), Turn("user", "Is it?")], 7) == "Yes."
    assert teacher([Turn("user", "Again?")], 8) == "Yes."

    assert asked[0]["path"] == "/v1/chat/completions"
    assert asked[0]["key"] == "Bearer s3cret"
    assert asked[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Is it?"},
    ]
    assert {k: asked[0][k] for k in ("model", "seed", "temperature", "max_tokens")} == {
        "model": "tiny",
        "seed": 7,
        "temperature": 0.5,
        "max_tokens": 99,
    }
    assert (teacher.requests, teacher.prompt_tokens, teacher.reply_tokens) == (2, 22, 6)
    assert teacher.name == f"{url}#tiny"
    assert "s3cret" not in teacher.name + repr(vars(teacher))
    teacher.close()


def test_an_empty_answer_of_a_server_is_an_empty_reply(server: Callable[[Answer], str]) -> None:
    teacher = OpenAITeacher(server(lambda request: completion(None)), "tiny")

    assert teacher([Turn("user", "Well?")], 0) == ""
    teacher.close()


@pytest.mark.parametrize(
    ("code", "told"),
    [(401, "said 401: .*bad.*; set OPENAI_API_KEY"), (400, "said 400"), (500, "500")],
)
def test_what_a_server_refuses_is_told(
    server: Callable[[Answer], str], code: int, told: str
) -> None:
    url = server(lambda request: (code, {"error": {"message": "bad request"}}))
    teacher = OpenAITeacher(url, "tiny", max_retries=0)

    with pytest.raises(EngineError, match=told):
        teacher([Turn("user", "Well?")], 0)
    teacher.close()


def test_a_server_that_is_not_there_is_told(server: Callable[[Answer], str]) -> None:
    teacher = OpenAITeacher("http://127.0.0.1:9/v1", "tiny", max_retries=0)

    with pytest.raises(EngineError, match="is the server running there?"):
        teacher([Turn("user", "Well?")], 0)
    teacher.close()


def test_an_engine_of_the_agents_is_a_teacher() -> None:
    from agents.fake import FakeEngine
    from agents.generation import Message
    from ui.commands.distill import EngineTeacher

    engine = FakeEngine(["Yes.", "No."], model="tiny")
    with EngineTeacher(engine, temperature=0.5) as teacher:
        assert teacher.name == "tiny"
        assert teacher([Turn("user", "Is it?")], 7) == "Yes."
        assert teacher([Turn("system", "Be brief."), Turn("user", "Is it?")], 8) == "No."
        with pytest.raises(EngineError, match="empty queue"):
            teacher([Turn("user", "Is it?")], 9)

    assert engine.closed
    asked = engine.requests[1]
    assert asked.messages == (Message("system", "Be brief."), Message("user", "Is it?"))
    assert (asked.seed, asked.sampling.temperature) == (8, 0.5)


def test_a_merge_is_built_to_be_a_teacher(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orbweave.paths import CACHE_VARIABLE
    from ui.commands.distill import _open_teacher

    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    other = shutil.copytree(tiny_model, tmp_path / "other")
    reference = f"slerp({tiny_model}, {other}, t=0.5)"
    with _open_teacher(reference, 0.0, lambda text: None) as local:
        assert local.teacher.name == reference


def test_the_commands_make_a_corpus_and_rows_with_a_server(
    server: Callable[[Answer], str], tmp_path: Path
) -> None:
    from ui.commands.distill import distill as distill_command
    from ui.commands.ingest import ingest as ingest_command

    app = typer.Typer()
    app.command("ingest")(ingest_command)
    app.command("distill")(distill_command)
    (tmp_path / "silk.md").write_text(SILK)
    corpus, out = str(tmp_path / "corpus"), str(tmp_path / "out")

    def run(*args: str) -> dict[str, Any]:
        result = CliRunner().invoke(app, [*args, "--json"], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        document: dict[str, Any] = json.loads(result.stdout)
        return document

    def answer(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return completion(json.dumps([PAIR]))

    assert run("ingest", str(tmp_path / "silk.md"), "--out", corpus, "--dry-run") == {
        "files": 1,
        "to_read": [str(tmp_path / "silk.md")],
        "out": corpus,
    }
    assert run("ingest", str(tmp_path / "silk.md"), "--out", corpus)["kept"] == 1
    asked = ["distill", corpus, "--teacher", f"{server(answer)}#tiny", "--out", out]
    asked += ["--kinds", "qa", "--price", "1,2"]
    planned = run(*asked, "--dry-run")
    done = run(*asked)

    assert planned["estimate"]["requests"] == done["estimate"]["requests"] == 1
    assert done["rows"] == {"qa": 1}
    assert done["server_counted"] == {
        "requests": 1,
        "prompt_tokens": 11,
        "reply_tokens": 3,
        "cost": 0.0,
    }
    assert done["asked"]["cost"] > 0
    assert rows_of(tmp_path / "out", "qa")[0]["prompt"] == PAIR["question"]
