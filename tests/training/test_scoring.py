"""Batched scoring on a tiny random Llama, against one plain forward pass per option."""

from __future__ import annotations

import math
import random
import shutil

import pytest
import torch

from orbweave.errors import ModelError, UsageError
from training import scoring
from training.benchmark import Question
from training.scoring import asked_for_one_word, load_model, loglik_scores, perplexity, replies

TEXTS = ["A short one.", "Rain fell on the roof all night, and nobody slept.", "É, ü: bytes."]
NO_SYSTEM = "{% for m in messages %}{{ '[INST] ' + m['content'] + ' [/INST]' if m['role'] == 'user' else ' ' + m['content'] + '</s>' }}{% endfor %}"  # noqa: E501


def question(i: int, text: str, *options: str) -> Question:
    kind = "tf" if options == ("True", "False") else "mc"
    return Question(
        id=f"q{i}", domain="d", type=kind, category="c", question=text, options=options, answer=0
    )


QUESTIONS = [
    question(0, "How stiff is it?", "About 1.5", "About 150", "About 11", "15"),
    question(1, "Silk is strong.", "True", "False"),
    question(2, "What " * 30 + "then?", "A very long option, longer than the others", "B", "C"),
    question(3, "Ü?", "é", "ö"),
    question(4, "How stiff is it, again?", "About 1.5", "About 150"),
    question(5, "Water is dry.", "True", "False"),
    question(6, "Why?", *(f"option {letter}" for letter in "abcdefgh")),
]


@pytest.fixture(scope="module")
def chatty(tiny_model):
    """The tiny model in float32 with weights so large that every token and place matters."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(8)
    return model.eval(), AutoTokenizer.from_pretrained(tiny_model)


def one_by_one(model, tokenizer, asked: Question) -> list[float]:
    """Score each option alone: the whole chat in one row, no padding, no cache, no mask."""
    scores = []
    for option in asked.options:
        user = {"role": "user", "content": asked.question}
        prompt = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
        n = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        ids = tokenizer(prompt + option, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        total = sum(float(logs[i - 1, ids[i]]) for i in range(n, len(ids)))
        scores.append(total / len(option))
    return scores


def near(first, second) -> bool:
    return all(a == pytest.approx(b, abs=1e-4) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_scores_are_those_of_one_plain_pass_per_option(chatty, batch):
    model, tokenizer = chatty
    scores = loglik_scores(model, tokenizer, QUESTIONS, batch=batch)
    for asked, by_option in zip(QUESTIONS, scores, strict=True):
        assert near(by_option, one_by_one(model, tokenizer, asked))


def test_the_oracle_tells_options_apart(chatty):
    model, tokenizer = chatty
    found = one_by_one(model, tokenizer, QUESTIONS[0])
    assert max(found) - min(found) > 0.1


def test_eager_attention_reads_the_same_mask(chatty):
    model, tokenizer = chatty
    model.set_attn_implementation("eager")
    try:
        scores = loglik_scores(model, tokenizer, QUESTIONS)
    finally:
        model.set_attn_implementation("sdpa")
    assert near(scores[2], one_by_one(model, tokenizer, QUESTIONS[2]))


def test_the_same_question_twice_has_the_same_scores_to_the_last_bit(chatty):
    first, second = (loglik_scores(*chatty, QUESTIONS) for _ in range(2))
    assert first == second


def test_one_question_alone_is_scored_as_among_others(chatty):
    (alone,) = loglik_scores(*chatty, QUESTIONS[2:3])
    assert near(alone, loglik_scores(*chatty, QUESTIONS)[2])


def test_no_questions_have_no_scores(chatty):
    assert loglik_scores(*chatty, []) == []
    assert replies(*chatty, []) == []


def test_scores_come_back_in_the_order_asked_whatever_the_lengths(chatty):
    shuffled = QUESTIONS[:]
    random.Random(1).shuffle(shuffled)
    scores = dict(zip([q.id for q in shuffled], loglik_scores(*chatty, shuffled, 2), strict=True))
    for asked, by_option in zip(QUESTIONS, loglik_scores(*chatty, QUESTIONS), strict=True):
        assert near(scores[asked.id], by_option)


def test_a_template_without_system_text_that_puts_a_blank_before_the_reply(chatty):
    model, tokenizer = chatty
    was = tokenizer.chat_template
    tokenizer.chat_template = NO_SYSTEM
    try:
        (scores,) = loglik_scores(model, tokenizer, QUESTIONS[:1])
    finally:
        tokenizer.chat_template = was
    ids = tokenizer("[INST] How stiff is it? [/INST] 15", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    total = sum(float(logs[i - 1, ids[i]]) for i in range(len(ids) - 3, len(ids)))
    assert scores[3] == pytest.approx(total / len("15"), abs=1e-4)


def test_where_prompt_and_reply_melt_into_one_token_all_options_begin_there():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(["q", ":", "a", "b", ":a"])}
    bpe = Tokenizer(models.BPE(words, [(":", "a")]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'user' %}:{% endif %}{% endfor %}"  # noqa: E501
    row = scoring._row(tokenizer, question(0, "q", "a", "b"))
    assert (row.context, row.options) == ([0], [[4], [1, 3]])


def test_a_tokenizer_without_a_template_is_refused(chatty):
    model, tokenizer = chatty
    was, tokenizer.chat_template = tokenizer.chat_template, None
    try:
        with pytest.raises(UsageError, match="wanted a chat model.*no chat template"):
            loglik_scores(model, tokenizer, QUESTIONS)
    finally:
        tokenizer.chat_template = was


def test_the_end_of_turn_does_not_count(chatty):
    model, tokenizer = chatty
    before = loglik_scores(model, tokenizer, QUESTIONS[:2])
    end = tokenizer.eos_token_id
    row = scoring._row(tokenizer, QUESTIONS[0])
    assert all(end not in option for option in row.options)
    assert before == loglik_scores(model, tokenizer, QUESTIONS[:2])


def greedy(model, tokenizer, text: str, n: int) -> str:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    said: list[int] = []
    for _ in range(n):
        with torch.no_grad():
            token = int(model(torch.tensor([ids + said])).logits[0, -1].argmax())
        if token == tokenizer.eos_token_id:
            break
        said.append(token)
    return tokenizer.decode(said, skip_special_tokens=True)


@pytest.mark.parametrize("batch", [1, 4])
def test_replies_are_those_of_a_plain_greedy_loop(chatty, batch):
    model, tokenizer = chatty
    model.generation_config.do_sample = True
    model.generation_config.temperature = 2.0
    model.generation_config.repetition_penalty = 1.7
    found = replies(model, tokenizer, QUESTIONS, batch)
    for asked, reply in zip(QUESTIONS, found, strict=True):
        user = {"role": "user", "content": asked_for_one_word(asked)}
        prompt = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
        assert reply == greedy(model, tokenizer, prompt, scoring._REPLY_TOKENS)


def test_options_are_listed_with_letters_and_a_claim_is_asked_for_its_truth():
    assert asked_for_one_word(QUESTIONS[3]) == "Ü?\nA. é\nB. ö\nAnswer with one letter."
    assert (
        asked_for_one_word(QUESTIONS[1]) == "Silk is strong.\nTrue or false? Answer with one word."
    )


def test_perplexity_is_that_of_one_plain_pass_per_text(chatty):
    model, tokenizer = chatty
    nats, n_tokens = 0.0, 0
    for text in TEXTS:
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([[tokenizer.bos_token_id, *tokens]])
        with torch.no_grad():
            nats += len(tokens) * float(model(ids, labels=ids).loss)
        n_tokens += len(tokens)
    found = perplexity(model, tokenizer, TEXTS, batch=2)
    n_chars = sum(map(len, TEXTS))
    assert (found.n_tokens, found.n_chars) == (n_tokens, n_chars)
    assert found.per_token == pytest.approx(math.exp(nats / n_tokens), rel=1e-4)
    assert found.per_char == pytest.approx(math.exp(nats / n_chars), rel=1e-4)


def test_a_long_text_is_read_in_windows_and_every_token_once(chatty, monkeypatch):
    model, tokenizer = chatty
    monkeypatch.setattr(scoring, "_WINDOW", 8)
    tokens = [tokenizer.bos_token_id, *tokenizer(TEXTS[1])["input_ids"]]
    windows = [tokens[i : i + 9] for i in range(0, len(tokens) - 1, 8)]
    assert sum(len(window) - 1 for window in windows) == len(tokens) - 1
    nats = 0.0
    for window in windows:
        ids = torch.tensor([window])
        with torch.no_grad():
            nats += (len(window) - 1) * float(model(ids, labels=ids).loss)
    found = perplexity(model, tokenizer, TEXTS[1:2])
    assert found.n_tokens == len(tokens) - 1
    assert found.per_token == pytest.approx(math.exp(nats / found.n_tokens), rel=1e-4)


def test_a_perplexity_of_nothing_is_refused(chatty):
    with pytest.raises(UsageError, match="got none"):
        perplexity(*chatty, [])


def test_progress_is_told_after_each_batch_and_ends_at_the_whole(chatty):
    told: list[tuple[int, int]] = []
    loglik_scores(*chatty, QUESTIONS, 3, lambda done, total: told.append((done, total)))
    assert told == [(3, 7), (6, 7), (7, 7)]


@pytest.mark.parametrize("chosen", [torch.bfloat16, torch.float32])
def test_a_folder_is_scored_in_the_numbers_of_the_machine(chosen, tiny_model, monkeypatch):
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr("training.scoring.number_type", lambda: chosen)
    model, tokenizer = load_model(tiny_model)
    assert model.dtype == chosen
    exact = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    rough = loglik_scores(model, tokenizer, QUESTIONS)
    for asked, by_option in zip(QUESTIONS, rough, strict=True):
        assert by_option == pytest.approx(one_by_one(exact, tokenizer, asked), abs=0.05)


def test_a_folder_that_is_no_model_is_refused(tmp_path, tiny_model):
    with pytest.raises(ModelError, match="wanted a language model"):
        load_model(tmp_path)
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_model, damaged)
    (damaged / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="wanted a language model"):
        load_model(damaged)


def test_a_folder_with_missing_weights_is_refused(tmp_path, tiny_model):
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny_model, tmp_path / "m")
    weights = load_file(tmp_path / "m" / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="1 are missing.*model.norm.weight"):
        load_model(tmp_path / "m")
