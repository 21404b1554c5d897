"""The in-process engine: a transformers model whose one thread answers all requests together.

    silk = TransformersEngine(folder, "base")
    leaf = silk.beside("base+leaf", [open_adapter(...)])   # the same weights and thread

Engines beside each other share the base's weights; each further one costs its adapter's size.
The last one to be closed frees the model.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal

import torch
from jinja2.exceptions import TemplateError
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from agents.chat import fitted
from agents.decoder import Decoder, attend
from agents.generation import Generation, Message, Reply
from agents.jobs import Emit, Scoring, Speech
from agents.products import prepare_products
from agents.reply_text import ReplyText
from agents.sampler import Sampler
from agents.worker import Worker
from merging.adapter import Adapter
from orbweave.errors import EngineError, ModelError, shown
from orbweave.processor import multiplies_bfloat16
from orbweave.product_caches import cap_product_caches
from orbweave.thread_team import dismissing_team
from orbweave.weights import put_weights

__all__ = ["TransformersEngine"]

_log = logging.getLogger(__name__)

_ATTENTION = "orbweave"
"""The name of `agents.decoder.attend` among transformers' attention functions."""
_ATTENTION_KINDS = {"full_attention", "sliding_attention"}
_MARKER = re.compile(r"<[^<>\s'\"{}%]{1,30}>|<<[A-Z/]{1,12}>>|\[/?[A-Z_]{2,24}\]")
"""What opens and closes turns in templates, like [INST], and need not be a token of its own."""


class TransformersEngine:
    """A chat model from a folder, on the CPU, behind `agents.generation.Engine`.

    Loading blocks for seconds; call it through `asyncio.to_thread` where that matters.
    """

    def __init__(
        self,
        folder: Path,
        model: str,
        *,
        dtype: Literal["bfloat16", "float32"] | None = None,
        turn: threading.Lock | None = None,
        adapters: Sequence[Adapter] = (),
        weights: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Load the model and start its thread.

        Args:
            folder: A Hugging Face folder with safetensors and a chat template.
            model: The reference, as records show it.
            dtype: None takes bfloat16 where the processor multiplies it natively.
            turn: Engines that work at the same time share one lock and take turns token by
                token; without it each uses all cores at once and they hinder each other.
            adapters: Laid over the model, nearest to it first.
            weights: In the place of the folder's own, by the names of its files.

        Raises:
            ModelError: the folder cannot be loaded, or holds no chat model of a known build, or
                an adapter or the weights do not fit it.
        """
        dtype = dtype or ("bfloat16" if multiplies_bfloat16() else "float32")
        with dismissing_team():
            loaded = _Loaded(folder, model, dtype, turn or threading.Lock(), weights)
            _log.info("%s runs in %s on the CPU", model, dtype)
            self._begin(model, loaded, adapters)

    def _begin(self, model: str, loaded: _Loaded, adapters: Sequence[Adapter]) -> None:
        self._name, self._loaded = model, loaded
        self._jobs: set[Speech | Scoring] = set()
        self._closed = False
        self._adapter = loaded.join(self, model, adapters)

    def beside(self, model: str, adapters: Sequence[Adapter]) -> TransformersEngine:
        """Return an engine on the same weights with LoRA adapters laid over them.

        Args:
            model: The reference, as records show it.
            adapters: Nearest to the base first.

        Raises:
            ModelError: an adapter does not fit the model, or has to be merged.
            EngineError: this engine is closed.
        """
        self._check_open()
        engine = object.__new__(TransformersEngine)
        engine._begin(model, self._loaded, adapters)
        return engine

    @property
    def model(self) -> str:
        """The model reference, as records show it."""
        return self._name

    @property
    def context_tokens(self) -> int:
        """Tokens the model can hold, prompt and reply together."""
        return self._loaded.context

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Return the chat's length in tokens, the opening of the reply included."""
        return len(self._encode_chat(messages))

    async def generate(self, request: Generation) -> Reply:
        """Return the whole reply; see `stream`."""
        async with aclosing(self.stream(request)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Reply):
                    return piece
        raise AssertionError("a stream ends with its reply")

    async def stream(self, request: Generation) -> AsyncGenerator[str | Reply, None]:
        """Yield pieces of text as they come and, last, the `Reply`.

        Closing the stream, or cancelling the task that reads it, ends the computation
        within a token.

        Raises:
            EngineError: the prompt does not fit the context, or the model failed.
        """
        answers: asyncio.Queue[str | Reply | EngineError] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        speech = self._speech(
            request, lambda answer: loop.call_soon_threadsafe(answers.put_nowait, answer)
        )
        self._submit(speech)
        try:
            while True:
                answer = await answers.get()
                if isinstance(answer, EngineError):
                    raise answer
                yield answer
                if isinstance(answer, Reply):
                    return
        finally:
            speech.ended = True
            self._jobs.discard(speech)

    async def logprobs(self, messages: Sequence[Message], options: Sequence[str]) -> list[float]:
        """Return log p(option | chat), summed over the option's tokens, one per option.

        Raises:
            EngineError: an option is empty, or the longest does not fit the context.
        """
        prompt = self._encode_chat(messages)
        encoded = [self._encode(option) for option in options]
        if not encoded or not all(encoded):
            raise EngineError(f"wanted options to score, got an empty one in {shown(options)}")
        self._check_room(len(prompt), max(map(len, encoded)))
        scoring = Scoring(prompt, encoded, self._adapter)
        self._submit(scoring)
        try:
            return await asyncio.wrap_future(scoring.answer)
        finally:
            self._jobs.discard(scoring)

    async def close(self) -> None:
        """End its replies, and free the model if no other engine uses it.

        Later calls raise EngineError.
        """
        self._closed = True
        for job in tuple(self._jobs):
            job.fail(EngineError(f"wanted an answer of {self._name}, the engine was closed"))
        await asyncio.to_thread(self._loaded.leave, self, self._adapter)

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError(f"wanted an answer of {self._name}, the engine is closed")

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._loaded.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _decode(self, ids: list[int]) -> str:
        text: str = self._loaded.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids of the chat up to where the reply begins.

        The template's markers inside a message become a space, so that no text, quoted or
        typed, can pose as another speaker.
        """
        loaded = self._loaded
        chat = [
            {"role": m.role, "content": loaded.markers.sub(" ", m.content)}
            for m in fitted(messages, system_role=loaded.system_role)
        ]
        try:
            text = loaded.tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as err:
            raise EngineError(
                f"wanted a chat that {self._name} can take, its template says {shown(err)}; "
                "change the order or the roles of the messages"
            ) from err
        return self._encode(text)

    def _check_room(self, n_prompt: int, n_new: int) -> None:
        if n_prompt + n_new > self.context_tokens:
            raise EngineError(
                f"wanted {n_new:,} tokens after a prompt of {n_prompt:,}, {self._name} holds "
                f"{self.context_tokens:,} together; shorten the chat or ask for fewer"
            )

    def _speech(self, request: Generation, emit: Emit) -> Speech:
        """Return the work of answering `request` through `emit`."""
        prefix = self._encode(request.prefix)
        prompt = self._encode_chat(request.messages) + prefix
        self._check_room(len(prompt), request.max_new_tokens)
        text = ReplyText(self._decode, request.prefix, prefix, request.stop)
        sampler = Sampler(request.sampling, request.seed, prompt)
        ends, limit = self._loaded.ends, request.max_new_tokens
        return Speech(prompt, limit, sampler, text, ends, emit, self._adapter)

    def _submit(self, job: Speech | Scoring) -> None:
        self._check_open()
        self._jobs.add(job)
        self._loaded.worker.submit(job)


class _Loaded:
    """A model in memory with all that engines on it share."""

    def __init__(
        self,
        folder: Path,
        model: str,
        dtype: Literal["bfloat16", "float32"],
        turn: threading.Lock,
        weights: Mapping[str, torch.Tensor] | None,
    ) -> None:
        cap_product_caches()
        self.tokenizer, loaded = _load(folder, dtype)
        if weights is not None:
            put_weights(loaded, weights, model)
        prepare_products(loaded)
        self.decoder = Decoder(loaded, loaded.dtype, turn)
        config = loaded.config
        windows = (config.max_position_embeddings, getattr(config, "sliding_window", None))
        self.context = min(int(window) for window in windows if window)
        ends = loaded.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        self.ends = frozenset((*ends, self.tokenizer.eos_token_id)) - {None}
        markers = [
            *self.tokenizer.all_special_tokens,
            *_MARKER.findall(self.tokenizer.chat_template),
        ]
        self.markers = re.compile("|".join(map(re.escape, sorted(markers, key=len, reverse=True))))
        self.system_role = _takes_system(self.tokenizer)
        self._engines: set[TransformersEngine] = set()
        self._n_adapters = 0
        self._changing = threading.Lock()
        self.worker = Worker(self.decoder, model)

    def join(self, engine: TransformersEngine, model: str, adapters: Sequence[Adapter]) -> str:
        """Take in an engine; return the name its adapters have here, "" if it has none."""
        with self._changing:
            self._engines.add(engine)
            self._n_adapters += 1
            name = f"{self._n_adapters} {model}" if adapters else ""
        try:
            n_bytes = self.decoder.lay(name, adapters)
        except ModelError:
            self.leave(engine, name)
            raise
        if adapters:
            _log.info("%s lies over the base in %d bytes", model, n_bytes)
        return name

    def leave(self, engine: TransformersEngine, adapter: str) -> None:
        """Forget an engine and its adapter; the last one ends the thread."""
        with self._changing:
            self._engines.discard(engine)
            self.decoder.lift(adapter)
            if not self._engines:
                self.worker.close()


def _takes_system(tokenizer: Any) -> bool:
    """Return whether the template writes a system text; some refuse it, some drop it unsaid."""
    mark = "Answer in one word."
    chat = [{"role": "system", "content": mark}, {"role": "user", "content": "Hello."}]
    try:
        return mark in tokenizer.apply_chat_template(chat, tokenize=False)
    except TemplateError:
        return False


def _load(folder: Path, dtype: str) -> tuple[Any, Any]:
    """Return (tokenizer, model in evaluation mode) of a folder.

    Raises:
        ModelError: it cannot be loaded whole, is built in a way the decoder does not know,
            or has no chat template.
    """
    auto: Any = AutoModelForCausalLM  # its annotations do not know output_loading_info
    AttentionInterface.register(_ATTENTION, attend)
    # The front ends have progress bars of their own.
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model, report = auto.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            attn_implementation=_ATTENTION,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as err:
        raise ModelError(
            f"wanted a language model from {folder}, transformers says {shown(err, 200)}; "
            "fetch or build the model again, or use another"
        ) from err
    absent = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if absent:
        raise ModelError(
            f"wanted all weights of {folder}, {len(absent)} are missing or of another shape, "
            f"for instance {absent[0]}; fetch or build the model again"
        )
    strange = set(getattr(model.config, "layer_types", None) or ()) - _ATTENTION_KINDS
    if strange:
        raise ModelError(
            f"wanted a model with plain attention in {folder}, found {', '.join(sorted(strange))}; "
            "serve it with vLLM and give http://host:port/v1#name"
        )
    if not tokenizer.chat_template:
        raise ModelError(
            f"wanted a chat model in {folder}, its tokenizer has no chat template; "
            "take an instruction-tuned model"
        )
    return tokenizer, model.eval()
