"""The shop's deciders, views and commands without log, Redis, sockets or clock: what comes next is drawn by lot.

Kept is only what the platform promises: each reader reads each topic in order; the commands of an order are done one after the other;
a row counts as absent only once its view has read to the end. Otherwise everything may overtake everything.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Any

from google.protobuf.message import Message
from retail.payments.effects.v1.payment_pb2 import AssessRisk, AuthorizeCard, CaptureCard, VoidCard

from backbone.contract import ResolvedService, ResolvedView, is_effect, resolve_context, topics_holding
from backbone.declare import On, Rows, Tick
from backbone.moments import stamp
from backbone.money import minor_units
from backbone.testing.rows import rows
from backbone.v1 import private_pb2
from backbone.v1.meta_pb2 import Meta
from contexts.fulfilment.context import fulfilment
from contexts.ordering.context import ordering
from contexts.payments.context import payments
from contexts.payments.payments.effects import gave_up
from tests import examples
from tests.laws.history import History


@dataclass(frozen=True)
class Lies:
    """What lies in a topic: an event or outcome, its identity and its conversation."""

    event: Any
    id: str
    correlation: str


@dataclass
class Card:
    """What the payment provider keeps of one order."""

    authorization_id: str = ""
    customer_id: str = ""
    minor: int = 0
    voided: bool = False
    captured: bool = False


@dataclass
class Shop:
    """All that is under way.

    Attributes:
        lot: draws what comes next, and how commands turn out.
        refused: customers whose cards the provider refuses.
        instead: decisions that are replaced by others, for planting mistakes.
    """

    lot: Random
    refused: frozenset[str] = frozenset()
    instead: dict[Any, Any] = field(default_factory=dict)
    history: History = field(default_factory=History)
    now: datetime = examples.NOON

    def __post_init__(self) -> None:
        services = [service for context in (ordering, payments, fulfilment) for service in resolve_context(context)]
        self.deciders = {service.name: service for service in services if service.decider}
        self.views = {view.name: view for service in services for view in service.views}
        self.states: dict[tuple[str, str], Any] = {}
        self.rows: dict[str, dict[str, Any]] = defaultdict(dict)
        heard = [(name, topic.name) for name, service in self.deciders.items() if service.decider for topic in service.decider.inputs]
        heard += [(name, view.topic.name) for name, view in self.views.items()]
        self.unread: dict[tuple[str, str], deque[Lies]] = {one: deque() for one in heard}
        self.commands: dict[str, deque[Message]] = defaultdict(deque)
        self.late: list[Lies] = []
        self.cards: dict[str, Card] = defaultdict(Card)

    def say(self, event: Message, because: str = "", correlation: str = "") -> None:
        """An event lies in its topic and in every copy of it."""
        identity = self.history.say(event, because, correlation)
        self._publish(Lies(event, identity, self.history.lines[-1].correlation))

    def work(self) -> bool:
        """Do one of the things that can be done; False if there is none."""
        possible: list[Callable[[], None]] = [partial(self._read, *place) for place, lies in self.unread.items() if lies]
        possible += [partial(self._do, order_id) for order_id, commands in self.commands.items() if commands]
        possible += [partial(self._publish, late) for late in self.late]
        if not possible:
            return False
        self.now += timedelta(milliseconds=1)
        chosen = self.lot.choice(possible)
        if isinstance(chosen, partial) and chosen.func == self._publish:
            self.late.remove(chosen.args[0])
        chosen()
        return True

    def expire(self, order_id: str) -> None:
        """Let the deadline of an order pass, if it has one."""
        orders = self.deciders["ordering.orders"]
        line = orders.decider.decider.deadline if orders.decider else None
        assert line is not None
        assert line.due is not None
        due = line.due(self._state(orders, order_id))
        if due is not None:
            identity = f"tick-{len(self.history.private)}"
            tick = private_pb2.Tick(key=order_id, due=stamp(due), meta=Meta(id=identity))
            self.history.private.append(("private.ordering.orders.ticks", order_id.encode(), tick.SerializeToString()))
            self._decide(orders, line, order_id, Lies(Tick(due=due, at=due), identity, order_id))

    def rest(self, order_ids: Iterable[str]) -> None:
        """Work until nothing is under way; let what still waits expire, and work again."""
        while self.work():
            pass
        for order_id in order_ids:
            self.expire(order_id)
        while self.work():
            pass

    def _publish(self, lies: Lies) -> None:
        topics = {topic.name for topic in topics_holding(type(lies.event))}
        for (_, topic), unread in self.unread.items():
            if topic in topics:
                unread.append(lies)

    def _read(self, reader: str, topic: str) -> None:
        lies = self.unread[reader, topic].popleft()
        if reader in self.views:
            self._fold(self.views[reader], lies)
            return
        service = self.deciders[reader]
        for reaction in service.decider.reactions if service.decider else ():
            if reaction.topic.name == topic and reaction.line.hears is type(lies.event):
                self._decide(service, reaction.line, getattr(lies.event, reaction.topic.key), lies)

    def _fold(self, view: ResolvedView, lies: Lies) -> None:
        if type(lies.event) in {reaction.line.hears for reaction in view.reactions}:
            self.rows[view.name] = rows(view.view).given(*self.rows[view.name].values()).when(lies.event).folded()

    def _decide(self, service: ResolvedService, line: On[Any, Any], key: str, lies: Lies) -> None:
        assert service.decider is not None
        state = self._state(service, key)
        found = [self._looked_up(service, look_up, lies.event) for look_up in line.look_ups]
        for said in self.instead.get(line.function, line.function)(state, lies.event, *found):
            state = service.decider.decider.evolve(state, said)
            if is_effect(type(said)):
                self.commands[key].append(said)
            else:
                self.say(said, lies.id, lies.correlation)
        self.states[service.name, key] = state

    def _state(self, service: ResolvedService, key: str) -> Any:
        assert service.decider is not None
        return self.states.get((service.name, key)) or service.decider.decider.state()

    def _looked_up(self, service: ResolvedService, look_up: Any, came: Message) -> Any:
        if not isinstance(look_up, Rows):
            return self.now
        view = service.view_of(look_up.view)
        keys = list(look_up.keys(came))
        while any(key not in self.rows[view.name] for key in keys) and self.unread[view.name, view.topic.name]:
            self._read(view.name, view.topic.name)
        return {key: self.rows[view.name][key] for key in keys if key in self.rows[view.name]}

    def _do(self, order_id: str) -> None:
        """Do the oldest command of an order; what comes of it may come again, late."""
        command = self.commands[order_id].popleft()
        first, *more = self._outcomes(command)
        identity = self.history.command(command, first, order_id)
        self._publish(Lies(first, identity, order_id))
        self.late += [Lies(outcome, identity, order_id) for outcome in more]

    def _outcomes(self, command: Any) -> Iterator[Message]:
        """What comes of a command: mostly one outcome, sometimes the same twice; or it is given up, done or not, told late or never."""
        if self.lot.random() < 0.2:
            yield gave_up(command, "slow")
            if self.lot.random() < 0.7:
                done = self._done(command)
                if self.lot.random() < 0.5:
                    yield done
            return
        done = self._done(command)
        yield done
        if self.lot.random() < 0.2:
            yield done

    def _done(self, command: Any) -> Message:
        card = self.cards[command.order_id]
        match command:
            case AssessRisk():
                row = self.rows["payments.risk.customer_history"].get(command.customer_id)
                return examples.risk_assessed(command.order_id, row.authorized if row else 0, row.declined if row else 0)
            case AuthorizeCard() if card.voided or command.customer_id in self.refused:
                self.history.book("declined", command.order_id, customer=command.customer_id)
                return examples.card_refused(command.order_id)
            case AuthorizeCard():
                card.authorization_id, card.customer_id = f"a-{command.order_id}", command.customer_id
                card.minor = minor_units(command.total)
                self.history.book("authorized", command.order_id, card.minor, card.authorization_id, command.customer_id)
                return examples.card_authorized(command.order_id, card.authorization_id)
            case CaptureCard():
                assert card.authorization_id, f"{command.order_id} is captured without an authorisation"
                assert not card.voided, f"{command.order_id} is captured after it was given back"
                if not card.captured:
                    card.captured = True
                    self.history.book("captured", command.order_id, card.minor, card.authorization_id, card.customer_id)
                return examples.card_captured(command.order_id)
            case VoidCard():
                assert not card.captured, f"{command.order_id} is given back after it was captured"
                if not card.voided:
                    card.voided = True
                    self.history.book("voided", command.order_id, card.minor, card.authorization_id, card.customer_id)
                return examples.card_voided(command.order_id)
            case _:
                raise AssertionError(command)
