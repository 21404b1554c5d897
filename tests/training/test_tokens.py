import pytest

from orbweave.errors import UsageError
from training.rows import Row, Turn
from training.tokens import (
    IGNORED,
    encode_chat,
    encode_text,
    pair_texts,
    prepare_tokenizer,
)

CHAT = (
    Turn("user", "How?"),
    Turn("assistant", "So."),
    Turn("user", "Why?"),
    Turn("assistant", "É"),
)


def trained(tokenizer, encoded) -> str:
    return tokenizer.decode([i for i in encoded.labels if i != IGNORED])


def test_the_chat_is_written_by_the_template(tiny_tokenizer):
    encoded = encode_chat(tiny_tokenizer, CHAT[:2])
    assert tiny_tokenizer.decode(encoded.input_ids) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHow?<|im_end|>\n"
        "<|im_start|>assistant\nSo.<|im_end|>\n"
    )


def test_replies_and_their_ends_count_and_nothing_else(tiny_tokenizer):
    encoded = encode_chat(tiny_tokenizer, CHAT)
    assert trained(tiny_tokenizer, encoded) == "So.<|im_end|>É<|im_end|>"


def test_the_whole_text_can_count(tiny_tokenizer):
    encoded = encode_chat(tiny_tokenizer, CHAT, loss_on="all")
    assert encoded.labels == encoded.input_ids


def test_a_text_gets_one_start_token_and_one_end_token(tiny_tokenizer):
    ids, labels = encode_text(tiny_tokenizer, "ab")
    assert (ids[0], ids[-1], len(ids)) == (1, 2, 4)
    assert labels == ids


def test_the_pad_token_is_never_the_end_token(tiny_tokenizer):
    # The folder says pad = end; loading mended it.
    assert tiny_tokenizer.pad_token_id != tiny_tokenizer.eos_token_id


def test_a_tokenizer_without_another_token_to_pad_with_is_refused(tiny_tokenizer):
    class Bare:
        eos_token_id, pad_token_id, unk_token, name_or_path = 2, None, None, "bare"

        def get_vocab(self):
            return {"</s>": 2}

    with pytest.raises(UsageError, match="token to pad with"):
        prepare_tokenizer(Bare())


def test_pairs_join_to_what_the_template_writes(tiny_tokenizer):
    row = Row("x", "t", turns=CHAT[:2], rejected="No.")
    texts = pair_texts(tiny_tokenizer, row)
    assert texts["prompt"].endswith("<|im_start|>assistant\n")
    assert (texts["chosen"], texts["rejected"]) == ("So.<|im_end|>", "No.<|im_end|>")


def test_a_system_text_moves_into_the_first_turn_where_the_template_has_no_such_role(
    tiny_model,
):
    from training.stages import load_tokenizer

    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}"
        "{% endif %}[{{ m['role'] }}]{{ m['content'] }}<|im_end|>{% endfor %}"
    )
    encoded = encode_chat(tokenizer, (Turn("system", "S"), *CHAT[:2]))
    assert (
        tokenizer.decode(encoded.input_ids) == "[user]S\n\nHow?<|im_end|>[assistant]So.<|im_end|>"
    )


def test_a_template_that_rewrites_earlier_turns_is_refused(tiny_model):
    from training.stages import load_tokenizer

    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = (
        "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    )
    with pytest.raises(UsageError, match="rewrites earlier turns"):
        encode_chat(tokenizer, CHAT)


@pytest.mark.slow
def test_the_embedded_model_is_taught_in_its_own_chat_form():
    from orbweave.models import resolve
    from training.stages import load_tokenizer

    tokenizer = load_tokenizer(resolve("base"))
    encoded = encode_chat(tokenizer, CHAT[:2])
    assert tokenizer.decode(encoded.input_ids) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHow?<|im_end|>\n<|im_start|>assistant\nSo.<|im_end|>\n"
    )
    assert trained(tokenizer, encoded) == "So.<|im_end|>"
