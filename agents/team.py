"""The team as an AutoGen graph; the one file that touches AgentChat.

    experts (at once) -> prompt_engineer -> studio -> critic -> prompt_engineer ... or -> end

The graph decides who speaks; no model does. A saved conversation enters the same graph where it
stopped. A speaker that fails or is stopped says so with a `StopMessage` and ends the run, so
that AutoGen never has to wrap an error of ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

from autogen_agentchat.agents import BaseChatAgent
from autogen_agentchat.base import Response
from autogen_agentchat.conditions import FunctionalTermination
from autogen_agentchat.messages import BaseChatMessage, StopMessage, TextMessage
from autogen_agentchat.teams import DiGraphBuilder, GraphFlow
from autogen_core import CancellationToken

from agents.client import ClientVoice, EngineClient
from agents.conversation import Conversation, Render, Session, StructureFor, conversation_of
from agents.events import Event
from agents.generation import Engine
from agents.knowledge import Knowledge
from agents.roles import Team, load_team
from agents.state import FactsStep, Outcome, State, begin
from agents.voice import Voice
from orbweave.errors import EngineError, OutputError, UsageError
from orbweave.records import Brief

__all__ = ["TurnTimeout", "converse", "resume"]

_STOP_S = 20.0
"""Longest wait for a cancelled part; drawing ends with its denoising step."""


class TurnTimeout(EngineError):
    """A speaker was not done within the team's limit of a turn."""


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
    keep: Callable[[State], None] = lambda state: None,
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
        keep: Is given the state after every step and at the end, however it ends.

    Raises:
        UsageError: `rounds` is below 1, or the team has no expert for a domain.
        TurnTimeout: a turn took longer than `team.turn_limit_s`.
        EngineError: a model failed.
        OrbweaveError: whatever `render` raises.
    """
    state = await resume(
        begin(brief, team=team or load_team(), rounds=rounds),
        engine_for=engine_for,
        knowledge=knowledge,
        structure_for=structure_for,
        render=render,
        on_event=on_event,
        keep=keep,
    )
    return conversation_of(state)


async def resume(
    state: State,
    *,
    engine_for: Callable[[str], Engine],
    knowledge: Knowledge,
    structure_for: StructureFor,
    render: Render,
    on_event: Callable[[Event], None] = lambda event: None,
    keep: Callable[[State], None] = lambda state: None,
    is_paused: Callable[[], bool] = lambda: False,
) -> State:
    """Go on with a conversation where it stopped, to its end or to a pause.

    It says what it would have said without the interruption: seeds belong to turns. What is
    there already is not told to `on_event` again; `agents.recording.events_of` tells it.

    Args:
        state: From `begin`, from a file, or changed by `agents.steering`.
        engine_for: See `converse`; likewise the others.
        knowledge: Asked only if no facts have been found yet; its corpora must be the ones
            that facts were found in.
        structure_for: Geometry a picture starts from.
        render: Draws and measures.
        on_event: Hears what happens from here on.
        keep: Is given the state after every step and at the end, however it ends.
        is_paused: Asked at every step's boundary; speakers who have begun finish their turn.

    Returns:
        The state at the end; its `outcome` is `finished` or `paused`.

    Raises:
        UsageError: a corpus has changed since.
        TurnTimeout: a turn took longer than `state.team.turn_limit_s`.
        EngineError: a model failed.
        OrbweaveError: whatever `render` raises.
        asyncio.CancelledError: the awaiting task was cancelled. As after every error, `keep`
            has got all finished steps, and the outcome.
    """
    token = CancellationToken()
    clients: dict[str, EngineClient] = {}

    def voice_for(model: str, hear: Callable[[str], None]) -> Voice:
        if model not in clients:
            clients[model] = EngineClient(engine_for(model))
        return ClientVoice(clients[model], token, hear)

    _refuse_other_corpora(state, knowledge)
    session = Session(state, structure_for, render, on_event, voice_for, keep)
    try:
        if not any(isinstance(step, FactsStep) for step in state.steps):
            await asyncio.to_thread(session.find_facts, knowledge)
            session.announce_facts()
        await session.choose_geometry_again()
        await _Run(session, token, is_paused).until_over()
    except (Exception, asyncio.CancelledError) as err:
        with suppress(OutputError):  # a full disk is the very error, or must not hide it
            session.end(*_outcome_of(err))
        raise
    if session.stop_reason:
        session.finish()
    else:
        session.end("paused", "a person paused it")
    return session.state


def _refuse_other_corpora(state: State, knowledge: Knowledge) -> None:
    """Refuse to go on with other words under the same ids."""
    found = next((step for step in state.steps if isinstance(step, FactsStep)), None)
    for corpus in found.corpora if found else ():
        if corpus not in knowledge.corpora:
            raise UsageError(
                f"wanted the corpus {corpus.path} as it was when the conversation began "
                f"(SHA-256 {corpus.sha256[:12]}), it has changed; put it back, or begin anew"
            )


def _outcome_of(err: BaseException) -> tuple[Outcome, str]:
    """Return how a run ended that `err` ended, and why."""
    if isinstance(err, asyncio.CancelledError):
        return "cancelled", "stopped by request"
    return "timed out" if isinstance(err, TurnTimeout) else "failed", str(err)


class _Run:
    """One run of the graph over a session."""

    def __init__(
        self, session: Session, token: CancellationToken, is_paused: Callable[[], bool]
    ) -> None:
        self._session = session
        self._token = token
        self._is_paused = is_paused
        self._is_over = False
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
        """Return the whole graph, entered where the session stands."""
        session, limit_s = self._session, self._session.team.turn_limit_s
        seats = {
            "engineer": self._seat("prompt_engineer", session.write, limit_s),
            "studio": self._seat("studio", session.draw),
            "critic": self._seat("critic", session.judge, limit_s),
            "end": self._seat("end", self._closing),
        }
        graph = DiGraphBuilder()
        for seat in seats.values():
            graph.add_node(seat)
        entry = seats[session.next_seat]
        openers = [
            self._seat(session.experts[n].name, partial(session.advise, n), limit_s)
            for n in session.silent_experts
        ] or [self._seat("opening", self._opening)]
        for seat in openers:
            graph.add_node(seat).add_edge(seat, entry, activation_group="first")
        engineer, studio, critic, end = seats.values()
        graph.add_edge(engineer, studio).add_edge(studio, critic)
        graph.add_edge(
            critic, engineer, activation_group="again", condition=lambda _: not session.stop_reason
        )
        graph.add_edge(critic, end, condition=lambda _: bool(session.stop_reason))
        return GraphFlow(
            participants=graph.get_participants(),
            graph=graph.build(),
            termination_condition=FunctionalTermination(lambda _: self._is_over),
        )

    def _seat(
        self, name: str, play: Callable[[], Awaitable[str]], limit_s: float | None = None
    ) -> _Seat:
        return _Seat(name, play, self._token, self._stops, limit_s)

    def _stops(self, error: BaseException | None = None) -> bool:
        """Whether nobody may begin now. The first failure is kept and stops everybody else."""
        if error is not None and self._failure is None:
            self._failure = error
            self._token.cancel()
        self._is_over = self._is_over or self._failure is not None or self._is_paused()
        return self._is_over

    async def _opening(self) -> str:
        return "The conversation goes on."

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
        stops: Callable[[BaseException | None], bool],
        limit_s: float | None,
    ) -> None:
        super().__init__(name, description=name.replace("_", " "))
        self._play = play
        self._token = token
        self._stops = stops
        self._limit_s = limit_s

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        """Text, or a stop message once something failed or a pause was asked for."""
        return (TextMessage, StopMessage)

    async def on_messages(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> Response:
        """Play the part; a failure is handed on and answered with a stop message."""
        if self._stops(None):
            return self._stopped()
        part = asyncio.ensure_future(self._play())
        self._token.link_future(part)
        cancellation_token.link_future(part)
        try:
            done, _ = await asyncio.wait([part], timeout=self._limit_s)
            if not done:
                raise self._timeout()
            text = part.result()
        except (Exception, asyncio.CancelledError) as error:  # raised again in until_over
            self._stops(error)
            await asyncio.wait([part], timeout=_STOP_S)
            if part.done() and not part.cancelled():
                part.exception()  # heard, or asyncio logs it as forgotten
            return self._stopped()
        return Response(chat_message=TextMessage(content=text, source=self.name))

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        """Do nothing: a seat remembers nothing."""

    def _stopped(self) -> Response:
        return Response(chat_message=StopMessage(content="stopped", source=self.name))

    def _timeout(self) -> TurnTimeout:
        return TurnTimeout(
            f"wanted the turn of {self.name} within {self._limit_s:g} s, it was not done by then; "
            "use a smaller model or a longer turn_limit_s in the team's file, and go on from "
            "what was kept"
        )
