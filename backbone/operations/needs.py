"""What the design needs of every broker, topic, client and Redis, option by option, and why: one table, held against what is in effect.

An option is in effect however it came about: given, left to a default, or changed behind our back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from backbone.adapters.kafka_clients import LARGEST_RECORD_BYTES
from backbone.settings import Settings
from backbone.topology import Kept

DAY_MS = 86_400_000
WEEK_MINUTES = 7 * 24 * 60
FEW = 3
"""Brokers from which on each record can lie on several."""


class Of(StrEnum):
    """What has options."""

    BROKER = "broker"
    TOPIC = "topic"
    FOR_EVER = "topic kept for ever"
    COMPACTED = "compacted topic"
    CLIENT = "client"
    CONSUMER = "consumer"
    MEMBER = "group member"
    PRODUCER = "producer"
    TRANSACTIONS = "transactional producer"
    REDIS = "redis"


@dataclass(frozen=True, slots=True)
class Need:
    """One option that the design cannot do without.

    Attributes:
        wanted: what it must be, in words.
        holds: whether a value will do.
        because: what breaks otherwise, in one sentence.
    """

    of: Of
    option: str
    wanted: str
    holds: Callable[[str], bool]
    because: str


@dataclass(frozen=True, slots=True)
class Unmet:
    """A need that is not met.

    Attributes:
        found: what is in effect; None if it is not told, or left to the client.
    """

    need: Need
    found: str | None

    def __str__(self) -> str:
        found = "is not set" if self.found is None else f"is {self.found or 'empty'}"
        return f"{self.need.option} {found}, must be {self.need.wanted}: {self.need.because}"


Rule = tuple[str, Callable[[str], bool]]


def exactly(value: object) -> Rule:
    """This value and no other."""
    return str(value), lambda found: found == str(value)


def any_of(*values: str) -> Rule:
    """One of these."""
    return " or ".join(values), lambda found: found in values


def at_least(least: float) -> Rule:
    """This much or more."""
    return f"at least {least:g}", lambda found: _number(found) >= least


def at_most(most: float) -> Rule:
    """This much or less."""
    return f"at most {most:g}", lambda found: _number(found) <= most


def for_ever(least: float) -> Rule:
    """Without end, or this much."""
    return f"-1, or at least {least:g}", lambda found: _number(found) == -1 or _number(found) >= least


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def needs(settings: Settings, brokers: int = 1) -> Sequence[Need]:
    """The table.

    Args:
        settings: timeouts and bounds that options must agree with.
        brokers: how many there are; from three on, losing one must lose nothing.
    """
    session_ms, transaction_ms = round(settings.session_timeout_s * 1000), round(settings.transaction_timeout_s * 1000)
    rows: list[tuple[Of, str, Rule, str]] = [
        (Of.BROKER, "auto.create.topics.enable", exactly("false"), "a misspelt name would become a topic of its own"),
        (Of.BROKER, "unclean.leader.election.enable", exactly("false"), "a replica that lags would lead and lose what was acknowledged"),
        (Of.BROKER, "transaction.partition.verification.enable", exactly("true"), "a late record could join a transaction it is not of"),
        (Of.BROKER, "transaction.max.timeout.ms", at_least(transaction_ms), "our producers would be refused"),
        (
            Of.BROKER,
            "transaction.abort.timed.out.transaction.cleanup.interval.ms",
            at_most(10_000),
            "whoever takes over waits for it behind the transaction that a dead worker left open",
        ),
        (Of.BROKER, "group.min.session.timeout.ms", at_most(session_ms), "our members would be refused"),
        (Of.BROKER, "group.max.session.timeout.ms", at_least(session_ms), "our members would be refused"),
        (Of.BROKER, "group.initial.rebalance.delay.ms", at_most(3_000), "every start of a group waits for it"),
        (Of.BROKER, "offsets.retention.minutes", at_least(WEEK_MINUTES), "a service that stood still so long would lose its place"),
        (Of.BROKER, "transactional.id.expiration.ms", at_least(7 * DAY_MS), "a producer that was idle for that long could not be fenced"),
        (Of.BROKER, "producer.id.expiration.ms", at_least(DAY_MS), "a repetition after that would be appended twice"),
        (Of.BROKER, "log.cleaner.enable", exactly("true"), "state would grow for ever, and taking over with it"),
        (Of.TOPIC, "max.message.bytes", at_least(LARGEST_RECORD_BYTES), "records that our producers take would be refused"),
        (Of.TOPIC, "message.timestamp.type", exactly("LogAppendTime"), "deadlines go by when the log took a record"),
        (Of.TOPIC, "unclean.leader.election.enable", exactly("false"), "a replica that lags would lead and lose what was acknowledged"),
        (Of.FOR_EVER, "cleanup.policy", exactly("delete"), "compaction would take earlier events of a key away"),
        (Of.FOR_EVER, "retention.ms", exactly("-1"), "the log is the only truth; what is deleted cannot be rebuilt"),
        (Of.FOR_EVER, "retention.bytes", exactly("-1"), "the log is the only truth; what is deleted cannot be rebuilt"),
        (Of.COMPACTED, "cleanup.policy", exactly("compact"), "state and open commands would be deleted by age, or never shrink"),
        (Of.COMPACTED, "segment.bytes", at_most(64 * 1024 * 1024), "the active segment is never compacted, and is read at every takeover"),
        (Of.COMPACTED, "segment.ms", at_most(3_600_000), "the active segment is never compacted, and is read at every takeover"),
        (Of.COMPACTED, "min.cleanable.dirty.ratio", at_most(0.2), "what is read at every takeover would be half waste"),
        (Of.COMPACTED, "max.compaction.lag.ms", at_most(DAY_MS), "what is read at every takeover would grow while little is written"),
        (Of.COMPACTED, "delete.retention.ms", at_least(DAY_MS), "who was away longer would miss a tombstone"),
        (Of.CLIENT, "allow.auto.create.topics", exactly("false"), "a misspelt name would become a topic of its own"),
        (Of.CLIENT, "log_level", at_least(6), "its lines tell which commits are suspect"),
        (Of.CLIENT, "log.connection.close", exactly("true"), "its lines tell which commits are suspect"),
        (Of.CLIENT, "socket.timeout.ms", at_most(max(10_000, transaction_ms)), "a call to a frozen broker would outlast its bound"),
        (Of.CONSUMER, "isolation.level", exactly("read_committed"), "what was aborted would be decided on"),
        (Of.CONSUMER, "enable.partition.eof", exactly("true"), "a restore could not tell the end behind transaction markers"),
        (Of.CONSUMER, "auto.offset.reset", exactly("error"), "a lost position would silently skip or repeat history"),
        (Of.CONSUMER, "enable.auto.commit", exactly("false"), "positions would be committed apart from what was decided"),
        (Of.CONSUMER, "enable.auto.offset.store", exactly("false"), "positions would be committed apart from what was decided"),
        (Of.CONSUMER, "check.crcs", exactly("true"), "damaged records would be decided on"),
        (Of.CONSUMER, "fetch.min.bytes", exactly("1"), "a single record would wait for others"),
        (Of.CONSUMER, "fetch.wait.max.ms", at_most(500), "seeks and new assignments wait for it"),
        (Of.CONSUMER, "fetch.queue.backoff.ms", at_most(10), "refills stall, by a second at the default"),
        (Of.CONSUMER, "queued.max.messages.kbytes", at_most(settings.queue_bytes // 1024), "what is fetched ahead would be unbounded"),
        (Of.CONSUMER, "fetch.max.bytes", at_most(settings.queue_bytes), "what is fetched ahead would be unbounded"),
        (Of.MEMBER, "group.protocol", exactly("classic"), "KIP-848 fences a slot that was killed and started again"),
        (Of.MEMBER, "partition.assignment.strategy", exactly("range"), "partition p of all inputs would not sit on one worker"),
        (Of.MEMBER, "group.instance.id", ("the slot's name", bool), "a killed slot would wait out its session"),
        (Of.MEMBER, "session.timeout.ms", exactly(session_ms), "takeover would not keep the time that the settings say"),
        (Of.MEMBER, "heartbeat.interval.ms", at_most(session_ms / 3), "one lost heartbeat would end a member"),
        (Of.PRODUCER, "enable.idempotence", exactly("true"), "a retry would append twice, or out of order"),
        (Of.PRODUCER, "acks", any_of("all", "-1"), "what one broker had acknowledged would be lost with it"),
        (Of.PRODUCER, "partitioner", exactly("murmur2_random"), "equal keys of several topics would not meet on one worker"),
        (Of.PRODUCER, "linger.ms", exactly("0"), "every hop would wait for records that do not come"),
        (Of.PRODUCER, "queue.buffering.max.kbytes", at_most(settings.queue_bytes // 1024), "what waits to be sent would be unbounded"),
        (Of.PRODUCER, "message.max.bytes", exactly(LARGEST_RECORD_BYTES), "records could be produced that no topic takes"),
        (Of.TRANSACTIONS, "transactional.id", ("the slot's name", bool), "a successor could not end what its predecessor left open"),
        (Of.TRANSACTIONS, "transaction.timeout.ms", exactly(transaction_ms), "takeover would not keep the time that the settings say"),
        (Of.TRANSACTIONS, "retry.backoff.ms", at_most(10), "commits back to back are refused once, and wait for it"),
        (Of.REDIS, "maxmemory-policy", exactly("noeviction"), "a row that was evicted silently is taken for one that never was"),
        (Of.REDIS, "appendonly", exactly("yes"), "a killed server loses all rows, and every view is built anew"),
        (Of.REDIS, "appendfsync", any_of("everysec", "always"), "what is lost with the machine would have no bound"),
        (Of.REDIS, "timeout", exactly("0"), "idle connections would be cut in the middle of a fence"),
    ]
    if brokers >= FEW:
        lost = "one lost broker would lose what was acknowledged, or stop writing"
        rows += [
            (Of.BROKER, "default.replication.factor", at_least(3), lost),
            (Of.BROKER, "offsets.topic.replication.factor", at_least(3), lost),
            (Of.BROKER, "transaction.state.log.replication.factor", at_least(3), lost),
            (Of.BROKER, "transaction.state.log.min.isr", at_least(2), lost),
            (Of.TOPIC, "min.insync.replicas", at_least(2), lost),
        ]
    return [Need(of, option, *rule, because) for of, option, rule, because in rows]


def of_topic(kept: Kept) -> tuple[Of, ...]:
    """Whose needs a topic has."""
    return (Of.TOPIC, Of.COMPACTED if kept is Kept.COMPACTED else Of.FOR_EVER)


def unmet(table: Sequence[Need], of: Sequence[Of], found: Mapping[str, str]) -> Iterator[Unmet]:
    """The needs of something that what is in effect there does not meet.

    Args:
        of: what it is.
        found: its options in effect, by name.
    """
    for need in table:
        if need.of in of:
            value = found.get(need.option)
            if value is None or not need.holds(value):
                yield Unmet(need, value)
