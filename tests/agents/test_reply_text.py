"""Growing replies; one byte is one token here, the worst case for characters."""

from __future__ import annotations

import pytest

from agents.reply_text import ReplyText


def decode(ids: list[int]) -> str:
    return bytes(ids).decode("utf-8", errors="replace")


def pieces(reply: ReplyText, text: str) -> list[str]:
    shown = []
    for byte in text.encode():
        shown.append(reply.add(byte))
        if reply.stopped:
            break
    return [*shown, reply.finish()]


@pytest.mark.parametrize("text", ["plain", "Spinnennetz für 🕷️ und 蜘蛛", "é" * 5])
def test_no_half_character_is_ever_shown(text: str) -> None:
    shown = pieces(ReplyText(decode), text)
    assert "".join(shown) == text
    assert not any("\ufffd" in piece for piece in shown)


def test_broken_bytes_at_the_end_are_shown_when_it_ends() -> None:
    reply = ReplyText(decode)
    assert [reply.add(0x61), reply.add(0xF0), reply.finish()] == ["a", "", "\ufffd"]


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (("END",), "web ENTER "),
        (("xyz", "END"), "web ENTER "),
        (("END", "E"), "web "),
        (("D", "END"), "web ENTER "),
    ],
)
def test_reply_ends_before_the_first_stop_string(stop: tuple[str, ...], expected: str) -> None:
    reply = ReplyText(decode, stop=stop)
    assert "".join(pieces(reply, "web ENTER END more")) == reply.text == expected
    assert reply.stopped


def test_text_that_only_looks_like_a_stop_is_shown_once_it_cannot_be() -> None:
    shown = pieces(ReplyText(decode, stop=("END",)), "aEb")
    assert shown == ["a", "", "Eb", ""]


def test_prefix_is_shown_first_and_its_own_stop_does_not_count() -> None:
    reply = ReplyText(decode, "Title:\n", list(b"Title:\n"), stop=("\n",))
    assert pieces(reply, "Web\nx") == ["Title:\nW", "e", "b", "", ""]
    assert (reply.text, reply.n_tokens) == ("Title:\nWeb", 4)


def test_stop_across_the_end_of_the_prefix_counts() -> None:
    reply = ReplyText(decode, "a#", list(b"a#"), stop=("##",))
    assert pieces(reply, "#b") == ["a", ""]
