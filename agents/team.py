"""The team as an AutoGen graph; the one file that touches AgentChat.

    experts (at once) -> prompt_engineer -> studio -> critic -> prompt_engineer ... or -> end

The graph decides who speaks; no model does. A speaker that fails or is stopped says so with
a `StopMessage` and ends the run, so that AutoGen never has to wrap an error of ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from autogen_agentchat.agents import BaseChatAgent
from autogen_agentchat.base import Response
from autogen_agentchat.conditions import FunctionalTermination
from autogen_agentchat.messages import BaseChatMessage, StopMessage, TextMessage
from autogen_agentchat.teams import DiGraphBuilder, GraphFlow
from autogen_core import CancellationToken

from agents.client import ClientVoice, EngineClient
from agents.conversation import Conversation, Render, Session, StructureFor
from agents.events import Event
from agents.generation import Engine
from agents.knowledge import Knowledge
from agents.roles import Team, load_team
from agents.voice import Voice
from orbweave.errors import UsageError
from orbweave.records import Brief

__all__ = ["converse"]


async def converse(
    brief: Brief,
    *,
    engine_for: Callable[[str], Engine],
    knowledge: Knowledge,
    structure_for: StructureFor,
    render: Render,
    rounds: int = 1,
    on_event: Callable[[Event], None] = lambda event: None,
    team: Team | None = None,
) -> Conversation:
    """Let a team talk about a concept until its prompt is good enough or the rounds are over.

    The same brief, team and engines give the same text. Cancelling the awaiting task stops
    every speaker within a token.

    Args:
        brief: What to design; `brief.domains` empty lets retrieval choose the experts.
        engine_for: From a model reference of the team to an engine; roles may share one.
        knowledge: Where facts are looked up.
        structure_for: Geometry a picture starts from, by prompt text and seed; None for none.
        render: Draws and measures version n of a prompt.
        rounds: Prompts at most; 1 means one prompt, one rendering, one critique.
        on_event: Hears everything in the order it happens. Streamed pieces are a preview:
            what is kept of a turn is in its `TurnEnded`.
        team: Roles and words; the shipped default if None.

    Raises:
        UsageError: `rounds` is below 1, or the team has no expert for a domain.
        EngineError: a model failed.
        OrbweaveError: whatever `render` raises.
    """
    if rounds < 1:
        raise UsageError(f"wanted at least 1 round, got {rounds}; one round is one prompt")
    token = CancellationToken()
    clients: dict[str, EngineClient] = {}

    def voice_for(model: str, hear: Callable[[str], None]) -> Voice:
        if model not in clients:
            clients[model] = EngineClient(engine_for(model))
        return ClientVoice(clients[model], token, hear)

    session = Session(
        brief, team or load_team(), structure_for, render, rounds, on_event, voice_for
    )
    await asyncio.to_thread(session.find_facts, knowledge)
    session.announce_facts()
    await _Run(session, token).until_over()
    return session.finish()


class _Run:
    """One run of the graph over a session."""

    def __init__(self, session: Session, token: CancellationToken) -> None:
        self._session = session
        self._token = token
        self._failure: BaseException | None = None

    async def until_over(self) -> None:
        """Run the graph; raise what stopped it, if it did not end by itself."""
        run = asyncio.create_task(self._drain())
        try:
            await asyncio.shield(run)
        except asyncio.CancelledError:
            self._token.cancel()
            await asyncio.wait([run])
            raise
        if self._failure is not None:
            raise self._failure

    async def _drain(self) -> None:
        async for _ in self._flow().run_stream(task=self._session.brief.concept):
            pass

    def _flow(self) -> GraphFlow:
        session = self._session
        engineer = self._seat("prompt_engineer", session.write)
        studio = self._seat("studio", session.draw)
        critic = self._seat("critic", session.judge)
        end = self._seat("end", self._closing)
        graph = DiGraphBuilder()
        for agent in (engineer, studio, critic, end):
            graph.add_node(agent)
        for index, expert in enumerate(session.experts):
            seat = self._seat(expert.name, partial(session.advise, index))
            graph.add_node(seat).add_edge(seat, engineer, activation_group="first")
        graph.add_edge(engineer, studio).add_edge(studio, critic)
        graph.add_edge(
            critic, engineer, activation_group="again", condition=lambda _: not session.stop_reason
        )
        graph.add_edge(critic, end, condition=lambda _: bool(session.stop_reason))
        return GraphFlow(
            participants=graph.get_participants(),
            graph=graph.build(),
            termination_condition=FunctionalTermination(lambda _: self._failure is not None),
        )

    def _seat(self, name: str, play: Callable[[], Awaitable[str]]) -> _Seat:
        return _Seat(name, play, self._token, self._fail)

    def _fail(self, error: BaseException) -> None:
        """Keep the first failure and stop everybody else."""
        if self._failure is None:
            self._failure = error
            self._token.cancel()

    async def _closing(self) -> str:
        return self._session.stop_reason


class _Seat(BaseChatAgent):
    """One participant: when the graph calls on it, it plays its part of the session.

    What it builds on lies typed in the session; the messages AutoGen passes around are the
    same conversation as text.
    """

    def __init__(
        self,
        name: str,
        play: Callable[[], Awaitable[str]],
        token: CancellationToken,
        fail: Callable[[BaseException], None],
    ) -> None:
        super().__init__(name, description=name.replace("_", " "))
        self._play = play
        self._token = token
        self._fail = fail

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        """Text, or a stop message once something failed."""
        return (TextMessage, StopMessage)

    async def on_messages(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> Response:
        """Play the part; a failure is handed on and answered with a stop message."""
        part = asyncio.ensure_future(self._play())
        self._token.link_future(part)
        cancellation_token.link_future(part)
        try:
            text = await part
        except (Exception, asyncio.CancelledError) as error:  # raised again in until_over
            self._fail(error)
            return Response(chat_message=StopMessage(content="stopped", source=self.name))
        return Response(chat_message=TextMessage(content=text, source=self.name))

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        """Do nothing: a seat remembers nothing."""
