"""A tiny chat model, engines on it and on the embedded one, and a table to talk at."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agents.conversation import Conversation, conversation_of
from agents.engine import TransformersEngine
from agents.events import Event
from agents.fake import FakeEngine, hashed_words
from agents.generation import Generation
from agents.knowledge import Fact, Knowledge
from agents.roles import load_team
from agents.state import State, begin
from agents.team import resume
from orbweave.models import resolve
from orbweave.records import Brief, ImagePrompt, Measurement, Picture, RenderRequest, Targets

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXT = ["spider silk is strong and light", "the leaf carries water in veins", "collagen, bone: 12"]


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 3, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
    )
    fast.chat_template = CHATML
    fast.save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama, two layers, 32 wide, 4 heads on 2 key heads, 256 positions."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.4,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    model.lm_head.weight.data[2] = 0.0  # so that replies seldom end by themselves
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest_asyncio.fixture
async def tiny(tiny_folder: Path) -> AsyncIterator[TransformersEngine]:
    """An engine in float32 on the tiny model."""
    engine = TransformersEngine(tiny_folder, "tiny", dtype="float32")
    yield engine
    await engine.close()


@pytest.fixture(scope="session")
def base_folder() -> Path:
    """The embedded model from the real cache, built there if need be."""
    return resolve("base")


@pytest_asyncio.fixture
async def base(base_folder: Path) -> AsyncIterator[TransformersEngine]:
    """An engine on the embedded model."""
    engine = TransformersEngine(base_folder, "base")
    yield engine
    await engine.close()


# ------------------------------------------------------------------ a table for a conversation

_PROMPTS = (
    "Close view of a pale membrane with thick radial threads from one corner, seen from above. "
    "Thin spiral threads cross them at even gaps. Straight side veins leave each thick thread "
    "and end on the margin of the blade. Dark green background, soft even light.",
    "A pale membrane seen straight from above. Spiral threads wind around the corner and cross "
    "bundles of radial threads. Side veins taper from each radial thread to the margin of the "
    "blade and leave wide gaps. Black background, light from the left.",
    "Slanted view of a membrane of ivory threads. Radial threads swell where the spiral threads "
    "meet them at even gaps. Between them side veins split into finer ones that end on the "
    "margin. Brown background, crisp edges.",
)


def seeded_answer(request: Generation) -> str:
    """Answer every form as a good model would, in words that depend on the seed."""
    question = request.messages[-1].content
    variant = request.seed % 3
    if "What should the design take" in question:
        statement = question.split("- ", 1)[1].splitlines()[0]
        return f"{statement.rstrip('.')} {('here', 'there', 'too')[variant]}."
    if "Seen in nature" in question:
        return f"In plain shapes: {question.split('- ', 1)[1].splitlines()[0].lower()}"
    if request.prefix == "Title:":
        return f"Title: Web of {('veins', 'lines', 'threads')[variant]}"
    if request.prefix.endswith("Prompt:"):
        return f"{request.prefix} {_PROMPTS[variant]}"
    if request.prefix.endswith("Avoid:"):
        return f"{request.prefix} cars, smoke"
    ending = ("margin", "blade", "corner")[variant]
    return f"{request.prefix} Let the thick threads taper toward the {ending} of the blade."


async def draw_nothing(prompt: ImagePrompt, version: int) -> tuple[Any, Any]:
    """Return a picture nobody drew, whose measurement follows from the words."""
    digest = hashlib.sha256(prompt.prompt.encode()).hexdigest()
    path = f"images/v{version}.png"
    picture = Picture(
        path=path, sha256=digest, seed=3, request=RenderRequest(prompt=prompt.prompt, seeds=(3,))
    )
    measured = Measurement(
        picture=path,
        solid_fraction=int(digest[:4], 16) / 65_535,
        direction_deg=None,
        anisotropy=0.1,
        spacing_px=None,
        contrast=0.2,
    )
    return (picture,), (measured,)


def _fact(number: str, domain: str, statement: str, visual: str | None) -> Fact:
    return Fact(
        id=number,
        domain=domain,
        topic="structure",
        statement=statement,
        quantity=None,
        visual=visual,
        source_title="A page",
        source_url="https://example.org",
    )


class Table:
    """All a conversation needs, without models; remembers what was heard and kept."""

    def __init__(self, answer: Callable[[Generation], str] = seeded_answer) -> None:
        self.engine = FakeEngine(answer)
        self.models: list[str] = []
        """References asked for."""
        self.heard: list[Event] = []
        self.kept: list[State] = []
        self.knowledge = Knowledge(
            [
                _fact("silk-0001", "spider-silk", "Spiral threads of a web cross radial threads.",
                      "Even spiral lines on straight radial lines."),
                _fact("silk-0002", "spider-silk", "Anchor threads spread the load of a web.", None),
                _fact("leaf-0001", "leaf", "Side veins of a leaf end on the margin of the blade.",
                      "Slanted lines that end on an edge."),
            ],
            hashed_words,
        )  # fmt: skip

    def begin(self, rounds: int = 2, **team: Any) -> State:
        """Return a conversation that uses up its rounds: its target is out of reach."""
        brief = Brief(
            concept="A membrane that joins spider webs and leaf veins",
            domains=("spider-silk", "leaf"),
            targets=Targets(direction_deg=90.0),
            seed=11,
        )
        default = load_team()
        stop = default.stop.model_copy(update={"level": 5.0})
        return begin(brief, team=default.model_copy(update={"stop": stop} | team), rounds=rounds)

    async def resume(
        self,
        state: State,
        *,
        is_paused: Callable[[], bool] = lambda: False,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> State:
        """Go on with fakes for all parts."""

        def engine_for(model: str) -> FakeEngine:
            self.models.append(model)
            return self.engine

        def hear(event: Event) -> None:
            self.heard.append(event)
            on_event(event)

        return await resume(
            state,
            engine_for=engine_for,
            knowledge=self.knowledge,
            structure_for=lambda prompt, seed: None,
            render=draw_nothing,
            on_event=hear,
            keep=self.kept.append,
            is_paused=is_paused,
        )


def without_times(state: State) -> Conversation:
    """Return what was said and made, without the seconds it took."""
    talk = conversation_of(state)
    turns = tuple(turn.model_copy(update={"seconds": 0.0}) for turn in talk.turns)
    return replace(talk, turns=turns)


@pytest.fixture
def table() -> Table:
    """A table with a good model at it."""
    return Table()


@pytest.fixture
def table_with() -> type[Table]:
    """Sets a table with a model that answers as told."""
    return Table


@pytest.fixture
def bare() -> Callable[[State], Conversation]:
    """What `without_times` does, for comparing."""
    return without_times
