"""Whatever was ever stored is read for ever: decoded, valid, folded to what it gave; and older builds read what this one stores."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.unknown_fields import UnknownFieldSet
from protovalidate import Validator

from backbone.contract import is_effect
from backbone.envelope import decode, split_entry_key
from backbone.loops.snapshots import AGGREGATE, Held, Snapshots
from backbone.operations.contracts import corpus, releases
from backbone.operations.contracts.corpus import Stored
from backbone.ports import Record
from backbone.rules import violations
from backbone.topology import contract_topics, topology
from backbone.v1.private_pb2 import Cursor, Forwarded, Quarantined, Release, StateEntry, Tick
from shop import shop
from tests.corpus import FOLDED, FOLDER, HISTORIES, RELEASED, folds, held_by, make, services, unstored, write

STORED = corpus.stored(FOLDER)
TOPICS = contract_topics(shop)
OF_PURPOSE: dict[str, type[Any]] = {
    "state": StateEntry,
    "ticks": Tick,
    "quarantine": Quarantined,
    "releases": Release,
    "repartition": Forwarded,
    "cursor": Cursor,
}


def folders() -> list[tuple[str, int, list[Stored]]]:
    return [(topic, release, list(group)) for (topic, release), group in groupby(STORED, key=lambda one: (one.topic, one.release))]


def test_every_topic_has_stored_records() -> None:
    assert {node.name for node in topology(shop).topics} == {one.topic for one in STORED}


def test_every_event_command_and_outcome_is_stored_in_every_topic_that_holds_it() -> None:
    for name, topic in TOPICS.items():
        held = {event.DESCRIPTOR.name for event in topic.events.values()}
        assert held <= {one.name.partition("-")[2] for one in STORED if one.topic == name}, name


@pytest.mark.parametrize("stored", STORED, ids=lambda one: one.path)
def test_a_stored_record_is_understood_by_this_build(stored: Stored) -> None:
    topic = TOPICS.get(stored.topic)
    if stored.value is None:
        assert split_entry_key(stored.key)[0]
    elif topic is None:
        message = OF_PURPOSE[stored.topic.rpartition(".")[2]].FromString(stored.value)
        assert not len(UnknownFieldSet(message))
    else:
        found = decode(topic, Record(stored.topic, 0, 0, stored.key, stored.value, 0))
        assert found.event.DESCRIPTOR.name == stored.name.partition("-")[2]
        assert not len(UnknownFieldSet(found.event))
        assert found.meta.writer == topic.writer
        if not is_effect(type(found.event)):
            assert violations(found.event) == []


@pytest.mark.parametrize(("topic", "release", "records"), folders(), ids=str)
def test_stored_records_fold_to_what_they_gave(topic: str, release: int, records: list[Stored]) -> None:
    now = folds(topic, records)
    file = FOLDER / topic / str(release) / FOLDED
    then = json.loads(file.read_text()) if file.is_file() else {}
    for name, folded in then.items():
        if name in now and now[name]["version"] == folded["version"]:
            assert now[name] == folded, f"{name} folds release {release} otherwise: raise its version="


def test_every_decider_and_view_has_folded_stored_records() -> None:
    names = {service.name for service in services() if service.decider} | {view.name for service in services() for view in service.views}
    assert names == {name for file in FOLDER.glob(f"*/*/{FOLDED}") for name in json.loads(file.read_text())}


@pytest.mark.parametrize("service", [one for one in services() if one.decider], ids=lambda one: one.name)
def test_stored_states_are_restored(service: Any) -> None:
    decider = service.decider.decider
    snapshots = Snapshots(decider, "test")
    restored: dict[str, Held] = {}
    for stored in (one for one in STORED if one.topic == service.private("state")):
        aggregate, entry_name = split_entry_key(stored.key)
        held = restored.get(aggregate) or Held(decider.state())
        entry = StateEntry.FromString(stored.value or b"")
        if stored.value is None:
            restored[aggregate] = snapshots.without(held, entry_name)
        elif entry.version != decider.version:
            return  # it is folded anew from its events
        elif entry.HasField("part") or entry_name == AGGREGATE:
            restored[aggregate] = snapshots.taken_up(held, entry)
    assert restored == held_by(service.decider, HISTORIES[service.decider.primary.name])


def test_what_this_build_stores_is_stored() -> None:
    missing = unstored(STORED)
    assert not missing, f"{[f'{one.topic}/{one.name}' for one in missing]}: add them with python -m tests.corpus, and commit them"


def test_the_bytes_are_the_same_whenever_they_are_made() -> None:
    assert make() == make()


@pytest.mark.parametrize("release", releases.read_all(RELEASED), ids=lambda one: one.name)
def test_builds_of_every_release_understand_what_this_one_stores(release: releases.Release) -> None:
    wrappers = {wrapper.topic: wrapper for wrapper in release.image.wrappers.values()}
    validator = Validator()
    for one in make():
        wrapper = wrappers.get(one.topic)
        if wrapper is None or one.value is None:
            continue
        found: Any = release.image.message_class(wrapper.message).FromString(one.value)
        which = found.WhichOneof(found.DESCRIPTOR.oneofs[0].name)
        if which is None:
            assert len(UnknownFieldSet(found)), "it is an event that came later"
        elif not wrapper.private:
            assert getattr(getattr(found, which), wrapper.key).encode() == one.key
            assert validator.collect_violations(getattr(found, which)) == []


def test_writing_again_touches_nothing_that_a_release_kept(tmp_path: Path) -> None:
    folder, released = tmp_path / "corpus", tmp_path / "released"
    first = write(folder, released)
    before = corpus.digests(folder)
    released.mkdir()
    (released / "1.binpb").write_bytes(b"")
    assert write(folder, released) == []
    (folder / "retail.ordering.prices.v1" / "1" / "01-PriceListed.value").write_bytes(b"of another build")
    assert write(folder, released) == [folder / "retail.ordering.prices.v1" / "2"]
    after = corpus.digests(folder)
    assert first
    assert {path for path in before if before[path] != after[path]} == {"retail.ordering.prices.v1/1/01-PriceListed.value"}
