"""The in-process engine: one thread owns a transformers model and answers all requests together.

A request joins between two tokens of the others and leaves when it ends or is cancelled.
`agents.decoder` says why companions do not change what a reply says.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import queue
import re
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import torch
from jinja2.exceptions import TemplateError
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from agents.decoder import Decoder, attend
from agents.generation import Generation, Message, Reply
from agents.jobs import Emit, Scoring, Speech
from agents.reply_text import ReplyText
from agents.sampler import Sampler
from orbweave.errors import EngineError, ModelError, shown

__all__ = ["TransformersEngine"]

_log = logging.getLogger(__name__)

_ATTENTION = "orbweave"
"""The name of `agents.decoder.attend` among transformers' attention functions."""
_MAX_REPLIES = 16
"""Replies under way at once; more wait. Chosen by us: enough for a team, short steps."""
_ATTENTION_KINDS = {"full_attention", "sliding_attention"}


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
    ) -> None:
        """Load the model and start its thread.

        Args:
            folder: A Hugging Face folder with safetensors and a chat template.
            model: The reference, as records show it.
            dtype: None takes bfloat16 where the processor multiplies it natively.
            turn: Engines that work at the same time share one lock and take turns token by
                token; without it each uses all cores at once and they hinder each other.

        Raises:
            ModelError: the folder cannot be loaded, or holds no chat model of a known build.
        """
        dtype = dtype or ("bfloat16" if _multiplies_bfloat16() else "float32")
        self._name = model
        self._tokenizer, loaded = _load(folder, dtype)
        _log.info("%s runs in %s on the CPU", model, dtype)
        self._decoder = Decoder(loaded, loaded.dtype, turn or threading.Lock())
        config = loaded.config
        windows = (config.max_position_embeddings, getattr(config, "sliding_window", None))
        self._context = min(int(window) for window in windows if window)
        self._vocabulary = int(config.vocab_size)
        ends = loaded.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        self._ends = frozenset((*ends, self._tokenizer.eos_token_id)) - {None}
        self._markers = re.compile("|".join(map(re.escape, self._tokenizer.all_special_tokens)))
        self._inbox: queue.SimpleQueue[Speech | Scoring | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=f"engine {model}", daemon=True)
        self._thread.start()
        # A thread inside torch while the interpreter ends would abort the process.
        atexit.register(self._end)

    @property
    def model(self) -> str:
        """The model reference, as records show it."""
        return self._name

    @property
    def context_tokens(self) -> int:
        """Tokens the model can hold, prompt and reply together."""
        return self._context

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
        scoring = Scoring(prompt, encoded)
        self._submit(scoring)
        return await asyncio.wrap_future(scoring.answer)

    async def close(self) -> None:
        """Stop the thread and free the model; later calls raise EngineError."""
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        with self._gate:
            self._closed = True
            self._inbox.put(None)  # wakes the thread
        self._thread.join()
        atexit.unregister(self._end)

    # ---------------------------------------------------------------- on the caller's thread

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids of the chat up to where the reply begins.

        The template's markers inside a message become a space, so that no text, quoted or
        typed, can pose as another speaker.
        """
        chat = [{"role": m.role, "content": self._markers.sub(" ", m.content)} for m in messages]
        try:
            text = self._tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as err:
            raise EngineError(
                f"wanted a chat that {self._name} can take, its template says {shown(err)}; "
                "change the order or the roles of the messages"
            ) from err
        return self._encode(text)

    def _check_room(self, n_prompt: int, n_new: int) -> None:
        if n_prompt + n_new > self._context:
            raise EngineError(
                f"wanted {n_new:,} tokens after a prompt of {n_prompt:,}, {self._name} holds "
                f"{self._context:,} together; shorten the chat or ask for fewer"
            )

    def _speech(self, request: Generation, emit: Emit) -> Speech:
        """Return the work of answering `request` through `emit`."""
        prefix = self._encode(request.prefix)
        prompt = self._encode_chat(request.messages) + prefix
        self._check_room(len(prompt), request.max_new_tokens)
        text = ReplyText(self._decode, request.prefix, prefix, request.stop)
        sampler = Sampler(request.sampling, request.seed, prompt, self._vocabulary)
        return Speech(prompt, request.max_new_tokens, sampler, text, self._ends, emit)

    def _submit(self, job: Speech | Scoring) -> None:
        with self._gate:  # a job put in behind the closing would wait for ever
            if self._closed:
                raise EngineError(f"wanted an answer of {self._name}, the engine is closed")
            self._inbox.put(job)

    # ---------------------------------------------------------------- on the engine's thread

    @torch.inference_mode()
    def _work(self) -> None:
        """Until closed: take in one job, make one token for every reply, and again."""
        speeches: list[Speech] = []
        while not self._closed:
            speeches = [speech for speech in speeches if not speech.ended]
            job = self._next_job(len(speeches))
            if isinstance(job, Scoring):
                with self._blaming([job]):
                    job.succeed(self._decoder.score(job.prompt, job.options))
            elif job is not None:
                with self._blaming([job]):
                    job.begin(self._decoder)
                speeches.append(job)
            elif speeches:
                with self._blaming(speeches):
                    self._step(speeches)
        self._abandon(speeches)
        del self._decoder

    def _next_job(self, n_speeches: int) -> Speech | Scoring | None:
        """Return the next job; None if there is none while replies are under way."""
        if n_speeches >= _MAX_REPLIES:
            return None
        try:
            return self._inbox.get(block=n_speeches == 0)
        except queue.Empty:
            return None

    def _step(self, speeches: Sequence[Speech]) -> None:
        """Make one token for each reply under way."""
        tokens = [speech.last_token for speech in speeches]
        logits = self._decoder.step([speech.sequence for speech in speeches], tokens)
        for speech, row in zip(speeches, logits, strict=True):
            with self._blaming([speech]):
                speech.take(row)

    @contextmanager
    def _blaming(self, jobs: Sequence[Speech | Scoring]) -> Iterator[None]:
        """Give a failure to the jobs it hit; the thread and the other jobs go on."""
        try:
            yield
            return
        except EngineError as err:
            failure = err
        except Exception as err:
            _log.exception("%s failed", self._name)
            failure = EngineError(f"wanted an answer of {self._name}, it failed: {shown(err)}")
            failure.__cause__ = err
        for job in jobs:
            job.fail(failure)

    def _abandon(self, speeches: Sequence[Speech]) -> None:
        """Tell everybody who still waits that the engine was closed."""
        jobs: list[Speech | Scoring] = list(speeches)
        with suppress(queue.Empty):
            while True:
                job = self._inbox.get_nowait()
                jobs += [] if job is None else [job]
        for job in jobs:
            job.fail(EngineError(f"wanted an answer of {self._name}, the engine was closed"))


def _multiplies_bfloat16() -> bool:
    """Return whether this processor has instructions for bfloat16 products."""
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


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
