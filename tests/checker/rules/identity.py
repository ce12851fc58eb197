"""Who was caused by what: nothing by what was aborted, everything by what exists and came before, nothing twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from laws.entries import WRAPPERS, Place
from tests.checker.seen import DECIDERS, REQUESTS, Said, Seen
from tests.checker.world import Finding

MOST_AFTER = 64
"""A position vector that is as long as this may have left something out."""


def aborted_read(seen: Seen) -> Iterator[Finding]:
    """Nothing was said because of a record whose transaction was aborted."""
    for one in seen.said:
        if one.because is not None and one.because.place in seen.aborted:
            yield _finding("aborted read", one, f"{_called(one)} was caused by a record that was aborted", one.because.place)


def cause(seen: Seen) -> Iterator[Finding]:
    """What was caused names a record that exists, has the identity it is said to have, and was there before."""
    compacted = {one.place.topic for one in seen.said if one.place.topic.endswith((".commands", ".outcomes", ".ticks"))}
    for one in seen.said:
        if one.because is None or one.because.place in seen.aborted:
            continue
        came = seen.at.get(one.because.place)
        if came is None:
            if one.because.place.topic not in compacted:
                yield _finding("cause", one, f"{_called(one)} names a cause at {one.because.place}, where nothing lies")
        elif came.meta.id != one.meta.causation_id:
            what = f"{_called(one)} names {one.meta.causation_id} as its cause, and a coordinate where {came.meta.id or 'garbage'} lies"
            yield _finding("cause", one, what, came.place)
        elif came.at_ms > one.at_ms:
            yield _finding("cause", one, f"{_called(one)} was said {came.at_ms - one.at_ms} ms before its cause", came.place)
        else:
            yield from _after(one, came)


def _after(one: Said, came: Said) -> Iterator[Finding]:
    known = {(place.topic, place.partition): place.next_offset for place in one.meta.after}
    lacking = [(came.place.topic, came.place.partition, came.place.offset + 1)]
    lacking += [(place.topic, place.partition, place.next_offset) for place in came.meta.after]
    for topic, partition, offset in lacking:
        if known.get((topic, partition), 0) < offset and len(known) < MOST_AFTER:
            what = f"{_called(one)} does not say that it comes after {topic}/{partition}@{offset - 1}, as its cause does"
            yield _finding("cause", one, what, came.place)
            return


def unique_ids(seen: Seen) -> Iterator[Finding]:
    """No two things have one identity; a wish that was asked again is the same wish."""
    first: dict[tuple[str, str], Said] = {}
    for one in seen.said:
        topic = one.place.topic
        if not one.meta.id or topic == REQUESTS or topic.endswith((".ticks", ".quarantine", ".state")) or _is_copy(topic):
            continue
        of = (topic, one.meta.id)
        if of in first:
            yield _finding("unique ids", one, f"{_called(one)} {one.meta.id} was said twice", first[of].place)
        first[of] = one


def one_reaction(seen: Seen) -> Iterator[Finding]:
    """A decider reacts once to what happened: from one record, with things numbered 0, 1, 2, ..."""
    for writer in DECIDERS:
        by_cause: dict[str, dict[Place, list[Said]]] = defaultdict(dict)
        for place, said in seen.reactions.get(writer, {}).items():
            by_cause[said[0].meta.causation_id][place] = said
            numbers = sorted(one.because.index for one in said if one.because is not None)
            gaps = writer != "payments.payments"  # its commands may have been compacted away
            if len(set(numbers)) != len(numbers) or (gaps and numbers != list(range(len(numbers)))):
                what = f"{writer} said things numbered {numbers} because of {place}"
                yield Finding("one reaction", what, (place, *(one.place for one in said[:3])), _order(said[0]))
        for places in by_cause.values():
            # A wish to cancel that is asked again is refused again; all else is silence.
            told = [said for said in places.values() if {one.name for one in said} != {"OrderCancellationRefused"}]
            if len(told) > 1:
                what = f"{writer} reacted {len(told)} times to {told[0][0].meta.causation_id}: {', '.join(_called(one[0]) for one in told)}"
                yield Finding("one reaction", what, (*places, *(said[0].place for said in told)), _order(told[0][0]))


def one_outcome(seen: Seen) -> Iterator[Finding]:
    """A command has one outcome, and once all is at rest it has one."""
    outcomes: dict[str, list[Said]] = defaultdict(list)
    for topic, said in seen.by_topic.items():
        if topic.endswith(".outcomes"):
            for one in said:
                if one.entry.value is not None:
                    outcomes[one.meta.causation_id].append(one)
    for command, came in outcomes.items():
        if len(came) > 1:
            yield Finding(
                "one outcome", f"command {command} has {len(came)} outcomes", tuple(one.place for one in came[:3]), _order(came[0])
            )
    if not seen.world.at_rest:
        return
    for topic, said in seen.by_topic.items():
        if topic.endswith(".commands"):
            for one in said:
                if one.entry.value is not None and one.meta.id and one.meta.id not in outcomes:
                    yield _finding("one outcome", one, f"command {one.meta.id} has no outcome")


def _is_copy(topic: str) -> bool:
    return topic in WRAPPERS and bool(WRAPPERS[topic].copy_of)


def _finding(rule: str, one: Said, text: str, *others: Place) -> Finding:
    return Finding(rule, text, (one.place, *others), _order(one))


def _order(one: Said) -> str:
    return one.meta.correlation_id


def _called(one: Said) -> str:
    return one.name or f"a record of {one.place.topic}"
