"""What a client may ask of the server, in OpenAI's words, and what that means here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agents.generation import Generation, Message, Sampling
from orbweave.errors import UsageError, shown
from orbweave.records import MAX_CONCEPT_CHARS
from ui.rendering import parse_size

__all__ = ["ChatForm", "ImageForm", "MessageForm"]

_MAX_SIDE_PX = 1_024
_ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


class _Form(BaseModel):
    """Fields that change nothing here, such as `user`, are taken and left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_given(cls, data: Any) -> Any:
        """As in OpenAI's protocol, where many clients write null for what they leave open."""
        if isinstance(data, dict):
            return {name: value for name, value in data.items() if value is not None}
        return data


class MessageForm(_Form):
    """One message of a chat."""

    role: str
    content: str | list[dict[str, Any]]
    """Text, or parts of type `text`."""
    name: str | None = None
    """Of the speaker; it is put before the text where several users speak."""

    @property
    def text(self) -> str:
        """The text of all parts.

        Raises:
            UsageError: a part is something else.
        """
        if isinstance(self.content, str):
            return self.content
        other = [part for part in self.content if not isinstance(part.get("text"), str)]
        if other:
            raise UsageError(f"wanted messages of text, got a part {shown(other[0].get('type'))}")
        return "\n".join(part["text"] for part in self.content)


class _StreamOptions(_Form):
    include_usage: bool = False


class ChatForm(_Form):
    """A request for `/v1/chat/completions`."""

    model: str
    messages: Annotated[list[MessageForm], Field(min_length=1, max_length=1_000)]
    stream: bool = False
    stream_options: _StreamOptions | None = None
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    """The newer name of `max_tokens`."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 1.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    seed: Annotated[int | None, Field(ge=-(2**63), lt=2**63)] = None
    stop: str | list[str] | None = None
    top_k: Annotated[int, Field(ge=-1)] = 0
    """As in vLLM; 0 and -1 keep all."""
    repetition_penalty: Annotated[float, Field(gt=0.0)] = 1.0
    """As in vLLM."""
    continue_final_message: bool = False
    """As in vLLM: the reply goes on with the last message, the assistant's."""
    rounds: Annotated[int, Field(ge=1, le=5)] = 1
    """Ours, for teams: prompt versions at most."""
    images: Annotated[int, Field(ge=1, le=4)] = 1
    """Ours, for teams: pictures of each version."""
    n: Literal[1] = 1
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    logprobs: bool | None = None
    response_format: dict[str, Any] | None = None

    def refuse_what_is_not_here(self) -> None:
        """Raise UsageError for what would change the reply and cannot be done."""
        wanted = {
            "tools": bool(self.tools or self.functions),
            "logprobs": bool(self.logprobs),
            "response_format": (self.response_format or {}).get("type", "text") != "text",
        }
        for name, is_wanted in wanted.items():
            if is_wanted:
                raise UsageError(
                    f"wanted plain chat, got {name}, which is not offered; leave it out"
                )

    @property
    def concept(self) -> str:
        """The last user's text, which is what a team designs."""
        texts = [message.text for message in self.messages if message.role == "user"]
        if not texts:
            raise UsageError("wanted a concept in a user's message, got none")
        return texts[-1]

    @property
    def usage_wanted(self) -> bool:
        """Whether a stream shall end with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def generation(self, max_new_tokens: int) -> Generation:
        """Return the request for an engine; raises UsageError for what it cannot take."""
        chat = _chat(self.messages)
        prefix = ""
        if self.continue_final_message:
            if chat[-1].role != "assistant" or len(chat) < 2:
                raise UsageError("wanted the assistant's beginning last, to go on with it")
            prefix = chat.pop().content
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        try:
            return Generation(
                tuple(chat),
                Sampling(self.temperature, self.top_p, max(self.top_k, 0), self.repetition_penalty),
                max_new_tokens,
                self.seed or 0,
                prefix,
                tuple(stops),
            )
        except ValueError as err:
            raise UsageError(str(err)) from err

    @property
    def limit(self) -> int | None:
        """Tokens of the reply at most; None leaves it to the server."""
        return self.max_completion_tokens or self.max_tokens


class ImageForm(_Form):
    """A request for `/v1/images/generations`."""

    prompt: Annotated[str, Field(min_length=1, max_length=MAX_CONCEPT_CHARS)]
    model: str = "loom"
    n: Annotated[int, Field(ge=1, le=10)] = 1
    size: str = "auto"
    """`WIDTHxHEIGHT` in pixels, or `auto`: the model's own."""
    response_format: Literal["url", "b64_json"] = "url"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Ours: of the first picture; the others count upwards."""
    negative_prompt: str = ""
    """Ours."""
    structure: Literal["auto", "none"] = "auto"
    """Ours: the geometry it starts from."""

    @property
    def size_px(self) -> tuple[int, int] | None:
        """(width, height), None for the model's own; raises UsageError."""
        size = parse_size(None if self.size == "auto" else self.size)
        if size is not None and max(size) > _MAX_SIDE_PX:
            raise UsageError(f"wanted sides up to {_MAX_SIDE_PX} pixels, got {self.size}")
        return size


def _chat(messages: Sequence[MessageForm]) -> list[Message]:
    """Return the chat in our roles, with the speakers' names where several users speak."""
    names = {m.name for m in messages if m.role == "user"}
    chat = []
    for message in messages:
        if message.role not in _ROLES:
            raise UsageError(f"wanted roles among {', '.join(_ROLES)}, got {shown(message.role)}")
        named = message.role == "user" and message.name and len(names) > 1
        text = f"{message.name}: {message.text}" if named else message.text
        chat.append(Message(_ROLES[message.role], text))
    return chat
