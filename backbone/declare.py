"""Words with which a service says what it hears, decides, shows, answers and does. Pure data: importing a table starts nothing.

`on(Message, function)` is one line of a table: the function's first argument is what is held, the second what came, further ones what
was looked up; its result is what is said.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar, cast, overload

from google.protobuf.message import Message

from backbone.errors import DeclarationError
from backbone.ports import Place
from backbone.settings import Settings

if TYPE_CHECKING:
    from grpc.aio import Channel

Held = TypeVar("Held")
HeldIn = TypeVar("HeldIn", contravariant=True)
State = TypeVar("State")
Said = TypeVar("Said", bound=Message)
Row = TypeVar("Row", bound=Message)
Row2 = TypeVar("Row2", bound=Message)
RowOut = TypeVar("RowOut", bound=Message, covariant=True)
Came = TypeVar("Came", bound=Message)
CameIn = TypeVar("CameIn", bound=Message, contravariant=True)
Found = TypeVar("Found", covariant=True)
Result = TypeVar("Result")
ResultOut = TypeVar("ResultOut", covariant=True)
Tool = TypeVar("Tool")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")

Key = Callable[[Came], "str | Iterable[str]"] | str
Connect = Callable[[Settings], AbstractAsyncContextManager[Tool]]


@dataclass(frozen=True, slots=True)
class Tick:
    """A deadline has passed.

    Attributes:
        due: the deadline.
        at: when the tick was appended to the log.
    """

    due: datetime
    at: datetime


class LookUp(Generic[CameIn, Found]):
    """What a function is handed besides what it holds and what came."""


@dataclass(frozen=True)
class Rows(LookUp[CameIn, Found]):
    """Rows of a view of the same service, fetched before the decision and recorded with what it says."""

    view: View[Any]
    keys: Callable[[Any], Iterable[str]]


class HappenedAt(LookUp[Message, datetime]):
    """When the record was appended to the log: the only clock a decision may read."""


class CommandId(LookUp[Message, str]):
    """The identity of the command: the idempotency key towards the outside."""


happened_at = HappenedAt()
command_id = CommandId()


class On(Generic[HeldIn, ResultOut]):
    """One line of a table.

    Attributes:
        hears: class of what comes; `Tick` for a deadline.
        function: what is done.
        look_ups: what the function is handed besides.
        key: makes the keys the line is about, if none of the topics has them.
        by: names the field that holds the key under which a topic offers what comes, if it is not the reader's own.
        due: for a deadline: when a state is due.
    """

    def __init__(
        self,
        hears: type[Any],
        function: Callable[..., Any],
        *,
        look_ups: tuple[LookUp[Any, Any], ...] = (),
        key: Callable[[Any], str | Iterable[str]] | None = None,
        by: str | None = None,
        due: Callable[[Any], datetime | None] | None = None,
    ) -> None:
        self.hears = hears
        self.function = function
        self.look_ups = look_ups
        self.key = key
        self.by = by
        self.due = due

    def __repr__(self) -> str:
        return f"on({self.hears.__name__}, {getattr(self.function, '__name__', self.function)})"


@overload
def on(message: type[Came], function: Callable[[Held, Came], Result], *, key: Key[Came] | None = None) -> On[Held, Result]: ...
@overload
def on(
    message: type[Came],
    function: Callable[[Held, Came, A], Result],
    *,
    look_up: LookUp[Came, A],
    key: Key[Came] | None = None,
) -> On[Held, Result]: ...
@overload
def on(
    message: type[Came],
    function: Callable[[Held, Came, A, B], Result],
    *,
    look_up: tuple[LookUp[Came, A], LookUp[Came, B]],
    key: Key[Came] | None = None,
) -> On[Held, Result]: ...
@overload
def on(
    message: type[Came],
    function: Callable[[Held, Came, A, B, C], Result],
    *,
    look_up: tuple[LookUp[Came, A], LookUp[Came, B], LookUp[Came, C]],
    key: Key[Came] | None = None,
) -> On[Held, Result]: ...
def on(message: type[Any], function: Callable[..., Any], *, look_up: Any = (), key: Any = None) -> On[Any, Any]:
    """One line of a table: when `message` comes, call `function`.

    Args:
        message: class of the event, outcome, command or request.
        function: called with what is held, what came and what was looked up.
        look_up: up to three: rows of views of the same service (`view.rows(keys)`), `happened_at`, `command_id`.
        key: where the reader's key is not that of a topic: the name of the field that holds it, if a topic offers the event under that
            field; else one or many keys made from the event alone, at the price of one more hop.
    """
    look_ups = look_up if isinstance(look_up, tuple) else (look_up,)
    return On(message, function, look_ups=look_ups, by=key) if isinstance(key, str) else On(message, function, look_ups=look_ups, key=key)


def on_deadline(due: Callable[[Held], datetime | None], expire: Callable[[Held, Tick], Result]) -> On[Held, Result]:
    """One line of a decider's table: when `due(state)` has passed, call `expire`.

    Args:
        due: when the state is due; None if it waits for nothing.
        expire: called with the state and the tick, once everything that came before the deadline has been decided.
    """
    return On(Tick, expire, due=due)


class Table(Protocol[RowOut]):
    """The rows of a view while they are filled from events: a dictionary whose missing rows are new ones."""

    def __getitem__(self, key: str) -> RowOut: ...
    def __contains__(self, key: object) -> bool: ...
    def __delitem__(self, key: str) -> None: ...


class Reader(Protocol[RowOut]):
    """The rows of a view for those who answer questions."""

    async def get(self, key: str) -> RowOut | None:
        """The row, or None."""
        ...

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, RowOut]:
        """The rows that exist among `keys`."""
        ...

    async def newest(self, index: str, group: str, limit: int) -> Sequence[RowOut]:
        """Rows of one group of a declared index, highest score first."""
        ...


class Piece:
    """What a service is made of."""


class Decider(Piece, Generic[State, Said]):
    """Decides: state per key is the fold of its own events; a table says what it answers to what it hears.

    Args:
        state: frozen dataclass; `state()` is an aggregate nobody has spoken of.
        evolve: the state after something was said.
        table: what it hears and how it decides.
        version: raised whenever the fold gives another state for the same events.
        since: "beginning" or "now": where its first read of each input starts.
        done: the stub of a finished aggregate, all that is kept of it: its answer. None while it is not finished. What it kept is
            folded from, so `done(stub)` is the stub again.
        forget_after: how long after the last word about it a stub is dropped, by the clock of the log; never if None. What comes for it
            later is set aside, not decided: take longer than anything may be late.

    Raises:
        DeclarationError: one of these contradicts another.
    """

    def __init__(
        self,
        state: type[State],
        evolve: Callable[[State, Said], State],
        *table: On[State, Iterable[Said]],
        version: int = 1,
        since: str = "beginning",
        done: Callable[[State], State | None] | None = None,
        forget_after: timedelta | None = None,
    ) -> None:
        if forget_after is not None and (done is None or forget_after <= timedelta(0)):
            raise DeclarationError(f"{state.__name__}: forget_after= says how long a stub is kept; say with done= what a stub is")
        if since not in ("beginning", "now"):
            raise DeclarationError(f'since={since!r}: say "beginning" or "now"')
        self.state = state
        self.evolve = evolve if done is None else _ending(evolve, done)
        self.done = done
        self.forget_after = forget_after
        self.table: tuple[On[Any, Any], ...] = tuple(line for line in table if line.due is None)
        deadlines = [line for line in table if line.due is not None]
        if len(deadlines) > 1:
            raise DeclarationError(f"{state.__name__}: a decider has at most one on_deadline; let `due` give the next")
        self.deadline: On[Any, Any] | None = deadlines[0] if deadlines else None
        self.version = version
        self.since = since


def _ending(evolve: Callable[[State, Said], State], done: Callable[[State], State | None]) -> Callable[[State, Said], State]:
    """The same fold, which leaves of a finished aggregate its stub."""

    @wraps(evolve)  # what it says is told by its types
    def ended(state: State, said: Said) -> State:
        evolved = evolve(state, said)
        stub = done(evolved)
        return evolved if stub is None else stub

    return ended


@dataclass(frozen=True)
class Index(Generic[Row]):
    """An order over the rows of a view, by group.

    Attributes:
        name: how readers ask for it.
        entry: the group and score of a row; None if it is in no group.
    """

    name: str
    entry: Callable[[Row], tuple[str, float] | None]


class View(Piece, Generic[Row]):
    """Rows filled from the events of one topic.

    Args:
        row: class of the row; names the view.
        table: which events fill it, each with a function of the table and the event.
        version: raised whenever the fold gives other rows for the same events.
        indexes: orders over the rows.
    """

    def __init__(self, row: type[Row], *table: On[Table[Row], None], version: int = 1, indexes: Sequence[Index[Row]] = ()) -> None:
        self.row = row
        self.table: tuple[On[Any, Any], ...] = table
        self.version = version
        self.indexes = tuple(indexes)
        self.name = re.sub(r"(?<!^)(?=[A-Z])", "_", row.DESCRIPTOR.name).lower()

    def rows(self, keys: Callable[[Came], Iterable[str]]) -> LookUp[Came, Mapping[str, Row]]:
        """Look up the rows that exist among `keys(what came)`."""
        return Rows(self, keys)


class Query(Piece):
    """Answers RPCs of the context's view services from the rows of its views."""

    @overload
    def __init__(self, views: View[Row], /, *table: On[Reader[Row], Coroutine[Any, Any, Message]]) -> None: ...
    @overload
    def __init__(
        self,
        views: tuple[View[Row], View[Row2]],
        /,
        *table: On[tuple[Reader[Row], Reader[Row2]], Coroutine[Any, Any, Message]],
    ) -> None: ...
    def __init__(self, views: Any, /, *table: On[Any, Any]) -> None:
        self.joined = isinstance(views, tuple)
        self.views = cast("tuple[View[Any], ...]", views if self.joined else (views,))
        self.table = table


@dataclass(frozen=True)
class Sibling(Generic[Tool]):
    """A stub of the own context's view server; whoever runs the effect opens it."""

    stub: Callable[[Channel], Tool]


def sibling(stub: Callable[[Channel], Tool]) -> Sibling[Tool]:
    """A stub of the own context, with deadline, trace and the position the question depends on."""
    return Sibling(stub)


class Effect(Piece, Generic[Tool]):
    """Does commands with a tool and tells what came of them.

    Args:
        connect: opens the tool for as long as the process lives; `sibling(Stub)` for a view of the own context.
        table: which commands it does, each with an async function of the tool and the command that returns the outcome. A function
            that raises is tried again until the command's `answer_by`.
        gave_up: the outcome of a command whose `answer_by` has passed; called with the command and the last error.
    """

    def __init__(
        self,
        connect: Connect[Tool] | Sibling[Tool],
        /,
        *table: On[Tool, Coroutine[Any, Any, Message]],
        gave_up: Callable[[Any, str], Message],
    ) -> None:
        self.connect = connect
        self.table: tuple[On[Any, Any], ...] = table
        self.gave_up = gave_up


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What lies in a foreign source where an event should be; it goes to quarantine, the cursor moves on.

    Attributes:
        raw: its bytes.
        reason: what is wrong with it and where it lies.
    """

    raw: bytes
    reason: str


Read = Callable[[Tool, str], Awaitable[Sequence[tuple[str, Message | Unreadable]]]]
"""Reads a foreign source after a cursor, "" at first: (cursor after the event, event) pairs in order, at most a few hundred."""


class Intake(Piece):
    """The right to raise events from outside.

    Args:
        messages: classes of the events it raises.
        source: where they come from, for a connector: how to open the foreign system and how to read it after a cursor. Cursor and
            events are written in one transaction.
        every_s: pause between two reads that found nothing, in seconds.
    """

    def __init__(
        self,
        *messages: type[Message],
        source: tuple[Connect[Tool], Read[Tool]] | None = None,
        every_s: float = 0.5,
    ) -> None:
        self.messages = messages
        self.source = cast("tuple[Connect[Any], Read[Any]] | None", source)
        self.every_s = every_s


class Tail(Piece):
    """Hears events as they come, in every replica, from the moment it starts; keeps nothing.

    Args:
        messages: classes of the events it hears; all of one topic.
    """

    def __init__(self, *messages: type[Message]) -> None:
        self.messages = messages


class Heard(NamedTuple):
    """What a tail hears.

    Attributes:
        event: what was said.
        at: when the record was appended to the log.
        position: the position after the record.
    """

    event: Message
    at: datetime
    position: Mapping[Place, int]


class Raise(Protocol):
    """A bound intake."""

    async def __call__(
        self, event: Message, *, request_id: str, correlation_id: str, traceparent: str = "", after: Mapping[Place, int] | None = None
    ) -> Mapping[Place, int]:
        """Append one event.

        Args:
            event: what happened.
            request_id: names the request; the event's id is made from it, so that a repetition is the same event.
            correlation_id: the conversation.
            traceparent: W3C trace context of the caller.
            after: what the caller had seen, as a position vector.

        Returns:
            The position after the record.

        Raises:
            Overloaded: nothing was appended.
            Unconfirmed: no acknowledgement came in time; it may be in the log or get there.
        """
        ...


class Asking(Protocol):
    """One question to the views of a service: all its reads are held to the same positions, within one deadline."""

    def reader(self, view: View[Row]) -> Reader[Row]:
        """Rows of a view of this service, for this question."""
        ...

    async def answer(self, ask: Callable[[], Awaitable[Result]]) -> Result:
        """What `ask` reads, once it knows all that is demanded.

        Args:
            ask: reads with the readers of this question; is called again while it does not know enough.

        Raises:
            Unavailable: it did not in time; `NotYet` if it is a demand that is not met.
            NotComparable: no part of the answer can tell whether it knows what is demanded.
        """
        ...

    @property
    def as_of(self) -> Mapping[Place, int]:
        """How far the views that were read had read."""
        ...

    @property
    def position(self) -> Mapping[Place, int]:
        """What the answer rests on."""
        ...

    def age_ms(self, as_of: Mapping[Place, int]) -> int:
        """How old a picture that knows these positions is: it shows all that lay in the log so many milliseconds ago."""
        ...


class Bound(Protocol):
    """A service's pieces, bound to the running platform, as its `Api` gets them."""

    @property
    def settings(self) -> Settings:
        """What the process was told."""
        ...

    def raise_(self) -> Raise:
        """The service's intake."""
        ...

    def reader(self, view: View[Row]) -> Reader[Row]:
        """Rows of a view of this service."""
        ...

    def asking(self, within_s: float, at_least: Mapping[Place, int]) -> Asking:
        """A question to the views of this service.

        Args:
            within_s: how long its answer may take, in seconds.
            at_least: positions its answer must know.
        """
        ...

    async def reader_of_now(self, view: View[Row]) -> Reader[Row]:
        """Rows of a view of this service that know all that the log holds now: what they do not have does not exist.

        Each read waits for the view, bounded.

        Raises:
            Unavailable: the log does not tell where it ends.
        """
        ...

    def tail(self, tail: Tail, heard: Callable[[Sequence[Heard]], None], stalled: Callable[[], None]) -> AbstractContextManager[None]:
        """Start to hear.

        Args:
            tail: a `Tail` of this service.
            heard: called in the event loop with what came, in order.
            stalled: called in the event loop after a gap during which nothing could be heard: look again.
        """
        ...

    def shows(self, status: Callable[[], Mapping[str, float]]) -> None:
        """Have numbers of this service shown beside those of the runtime.

        Args:
            status: the numbers of now by name; /status has all of them, /metrics those the runtime has a name for.
        """
        ...


class Api(Piece):
    """The door of a platform: serves clients with the service's own intake, views and tails.

    Args:
        serve: opens the servers for as long as the process lives; ready once entered. It yields the addresses it serves, by name.
    """

    def __init__(self, serve: Callable[[Bound], AbstractAsyncContextManager[Mapping[str, str]]]) -> None:
        self.serve = serve


class Service:
    """One service: a name and its pieces.

    Args:
        name: unique in the context.
        pieces: its views, decider, queries, effects, intake, tails, api.
    """

    def __init__(self, name: str, *pieces: Piece) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            raise DeclarationError(f"service name {name!r}: lower case letters, digits and dashes only")
        self.name = name
        self.pieces = pieces
        self.views: tuple[View[Any], ...] = self._all(View)
        self.queries: tuple[Query, ...] = self._all(Query)
        self.effects: tuple[Effect[Any], ...] = self._all(Effect)
        self.tails: tuple[Tail, ...] = self._all(Tail)
        self.decider: Decider[Any, Any] | None = self._one(Decider)
        self.intake: Intake | None = self._one(Intake)
        self.api: Api | None = self._one(Api)

    def _all(self, kind: type[Any]) -> tuple[Any, ...]:
        return tuple(piece for piece in self.pieces if isinstance(piece, kind))

    def _one(self, kind: type[Any]) -> Any:
        found = self._all(kind)
        if len(found) > 1:
            raise DeclarationError(f"service {self.name} has {len(found)} pieces {kind.__name__}; it may have one")
        return found[0] if found else None

    def __repr__(self) -> str:
        return f"Service({self.name!r})"


class Context:
    """A bounded context: services that share a Redis and ask each other by gRPC; known to others by events only."""

    def __init__(self, name: str, *services: Service) -> None:
        names = [service.name for service in services]
        if len(set(names)) != len(names):
            raise DeclarationError(f"context {name} has two services of one name: {sorted(names)}")
        self.name = name
        self.services = services

    def __repr__(self) -> str:
        return f"Context({self.name!r})"


@dataclass(frozen=True)
class Outside:
    """Something we do not own: a server, or a file that others write. Processes find it as OUTSIDE_<NAME>.

    Attributes:
        name: how services ask for it (`settings.require(name)`).
        module: the stand-in a local stack starts, `python -m <module> <arguments>`; it answers /livez.
        arguments: of the stand-in; {port} and {folder} are filled in. In a cluster `--host` comes before them.
        file: name of the file, below the stack's folder, instead of a server.
        used_by: <context>.<service> of those that reach it; a cluster lets nobody else through.
    """

    name: str
    module: str = ""
    arguments: tuple[str, ...] = ()
    file: str = ""
    used_by: tuple[str, ...] = ()


class Platform:
    """The whole system on one page.

    Args:
        contexts: the bounded contexts.
        gateway: the door for clients; belongs to no context and calls none.
        outside: what the system meets and does not own.
    """

    def __init__(self, *contexts: Context, gateway: Context | None = None, outside: Sequence[Outside] = ()) -> None:
        self.contexts = contexts + ((gateway,) if gateway else ())
        self.gateway = gateway
        self.outside = tuple(outside)

    def context(self, name: str) -> Context:
        """The context of that name.

        Raises:
            DeclarationError: there is none.
        """
        for context in self.contexts:
            if context.name == name:
                return context
        raise DeclarationError(f"no context {name!r}; there are {', '.join(c.name for c in self.contexts)}")
