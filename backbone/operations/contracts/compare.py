"""The laws of contracts that the wire does not show: two images beside each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from backbone.operations.contracts.consumers import Consumers
from backbone.operations.contracts.finding import RULES, Finding
from backbone.operations.contracts.image import SEALED, Image, Role, Wrapper
from backbone.operations.contracts.values import Change, all_rules, compare, refuses_absence, rules_of

HISTORY = frozenset({Role.EVENT, Role.EFFECT, Role.RUNTIME})
"""What lies in a log."""


class Comparison:
    """What changed from one image to another, as far as it breaks somebody.

    Args:
        before: what was promised; None to look only at what is wrong by itself.
        now: the contracts as they are, with sources for the places.
        against: name of `before`.
    """

    def __init__(self, before: Image | None, now: Image, consumers: Consumers, against: str = "") -> None:
        self._before = before
        self._now = now
        self._consumers = consumers
        self._against = (against,) if against else ()

    def findings(self) -> Iterator[Finding]:
        """All of it."""
        yield from self._ownership()
        if self._before is not None:
            yield from self._topics(self._before)
            yield from self._messages(self._before)
            yield from self._enums(self._before)
            yield from self._rpcs(self._before)

    def finding(self, rule: str, subject: str, what: str, breaks: Iterable[str] | None = None, at: str = "") -> Finding:
        """A finding about something, with whom it breaks and where it is declared."""
        law = RULES[rule]
        broken = tuple(sorted(set(self._consumers.of(subject) if breaks is None else breaks)))
        places = (at, subject, subject.rpartition(".")[0], subject.partition("/")[0])
        place = next((self._now.spans[one] for one in places if one in self._now.spans), None)
        return Finding(rule, subject, what, law.why, law.instead, law.level, broken, self._against, place)

    def _ownership(self) -> Iterator[Finding]:
        wrappers = list(self._now.wrappers.values())
        for number, one in enumerate(wrappers):
            for other in wrappers[:number]:
                if one.topic == other.topic:
                    what = f"{one.topic} is declared by {other.message} (writer {other.writer}) and by {one.message} (writer {one.writer})"
                    yield self.finding("TOPIC_TWO_WRITERS", one.message, what)
                if not one.copy_of and not other.copy_of:
                    for event in sorted(set(one.events.values()) & set(other.events.values())):
                        yield self.finding("EVENT_TWO_PRIMARIES", event, f"{event} is in {other.topic} and in {one.topic}, both primaries")

    def _topics(self, before: Image) -> Iterator[Finding]:
        for old in before.wrappers.values():
            new = self._now.wrappers.get(old.message)
            if new is None:
                moved = next((one for one in self._now.wrappers.values() if one.topic == old.topic), None)
                if moved is None:
                    readers = [old.writer, *self._consumers.of(old.message)]
                    yield self.finding("TOPIC_GONE", old.message, f"no wrapper declares {old.topic} any more", readers)
                    continue
                new = moved
            yield from self._topic(old, new)

    def _topic(self, old: Wrapper, new: Wrapper) -> Iterator[Finding]:
        readers = self._consumers.of(old.message)
        if new.topic != old.topic:
            yield self.finding("TOPIC_RENAMED", old.message, f"its topic was {old.topic}, now it is {new.topic}", readers, new.message)
        if new.key != old.key:
            yield self.finding("KEY_CHANGED", old.message, f"{old.topic} was keyed by {old.key}, now by {new.key}", readers, new.message)
        if new.writer != old.writer:
            what = f"{old.topic} was written by {old.writer}, now by {new.writer}"
            yield self.finding("WRITER_CHANGED", old.message, what, [old.writer, *readers], new.message)
        if new.copy_of != old.copy_of:
            was, now = (f"a copy of {one.copy_of}" if one.copy_of else "a primary" for one in (old, new))
            yield self.finding("COPY_CHANGED", old.message, f"{old.topic} was {was}, now it is {now}", readers, new.message)
        for event in sorted(set(old.events.values()) - set(new.events.values())):
            rule = "COPY_EVENT_LOST" if old.copy_of else "EVENT_DROPPED"
            hearing = [one for one in self._consumers.events.get(event, ()) if one in readers] if not old.private else [old.writer]
            yield self.finding(rule, f"{old.message}.{_field_of(old, event)}", f"{old.topic} no longer holds {event}", hearing, new.message)
        for event in sorted(set(new.events.values()) - set(old.events.values())):
            if not new.private:
                name = f"{new.message}.{_field_of(new, event)}"
                yield self.finding("EVENT_ADDED", name, f"{new.topic} now also holds {event}", readers)

    def _messages(self, before: Image) -> Iterator[Finding]:
        for name, old in before.messages.items():
            new = self._now.messages.get(name)
            if new is None or name in self._now.wrappers:
                continue
            yield from self._sealed(name, old, new)
            yield from self._values(before, name, old, new)

    def _sealed(self, name: str, old: Descriptor, new: Descriptor) -> Iterator[Finding]:
        for one in old.fields:
            if not _is_sealed(one):
                continue
            for successor in {new.fields_by_number.get(one.number), new.fields_by_name.get(one.name)}:
                if successor is not None and not _is_sealed(successor):
                    what = f"{name}.{one.name} was Sealed, {successor.name} = {successor.number} is not"
                    yield self.finding("SEALED_OPENED", f"{name}.{one.name}", what, at=f"{name}.{successor.name}")

    def _values(self, before: Image, name: str, old: Descriptor, new: Descriptor) -> Iterator[Finding]:
        roles = before.roles[name] | self._now.roles[name]
        then = dict(all_rules(before, old))
        for part, rules in all_rules(self._now, new):
            subject = f"{name}.{part}" if part else name
            one = new.fields_by_name.get(part)
            if part in then:
                for difference in compare(then[part], rules):
                    what = f"{subject}: {difference.rule} was {difference.before}, now {difference.after}"
                    yield from self._value(roles, difference.change, subject, what)
            elif one is not None and one.number not in old.fields_by_number and refuses_absence(one, rules):
                yield from self._value(roles, Change.TIGHTENED, subject, f"{subject} is new and must be there; older records lack it")
        for one in old.fields:
            if one.number not in new.fields_by_number and refuses_absence(one, rules_of(before, one)):
                subject = f"{name}.{one.name}"
                yield from self._value(roles, Change.LOOSENED, subject, f"{subject} is gone; builds of before refuse a message without it")

    def _value(self, roles: frozenset[Role], change: Change, subject: str, what: str) -> Iterator[Finding]:
        if roles & HISTORY:
            yield self.finding(f"VALUE_RULE_{change.name}", subject, what)
        elif Role.REQUEST in roles and change is Change.TIGHTENED:
            yield self.finding("REQUEST_RULE_TIGHTENED", subject, what)

    def _enums(self, before: Image) -> Iterator[Finding]:
        for name, new in self._now.enums.items():
            old = before.enums.get(name)
            if old is None:
                continue
            roles = before.roles[name] | self._now.roles[name]
            for added in _added(old, new):
                what = f"{name} has a new value, {added}"
                if roles & HISTORY:
                    yield self.finding("ENUM_VALUE_ADDED", f"{name}.{added}", what)
                elif Role.RESPONSE in roles:
                    yield self.finding("ENUM_VALUE_ADDED_TO_API", f"{name}.{added}", what)

    def _rpcs(self, before: Image) -> Iterator[Finding]:
        for name, old in before.rpcs.items():
            new = self._now.rpcs.get(name)
            if new is not None and (new.request, new.response) != (old.request, old.response):
                what = f"{name} took {old.request} and gave {old.response}, now {new.request} and {new.response}"
                yield self.finding("RPC_CHANGED", name, what)


def _field_of(wrapper: Wrapper, event: str) -> str:
    """A short name for an event in its wrapper."""
    return next(name.rpartition(".")[2] for name in wrapper.events.values() if name == event)


def _is_sealed(one: FieldDescriptor) -> bool:
    return one.message_type is not None and one.message_type.full_name == SEALED


def _added(old: EnumDescriptor, new: EnumDescriptor) -> list[str]:
    known = {value.number for value in old.values}
    return [value.name for value in new.values if value.number not in known]
