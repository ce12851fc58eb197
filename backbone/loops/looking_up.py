"""Rows a decision asks for: read atomically with their watermark, never decided on while they may merely be late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from backbone import damage
from backbone.contract import ResolvedService
from backbone.declare import On, View
from backbone.declare import Rows as RowsLookUp
from backbone.partitioner import partition_of
from backbone.ports import Fetched, Fragment, Log, Rows
from backbone.v1.meta_pb2 import Observed


class NotYet(Exception):
    """The rows of a record are not there yet; the record waits, and the message says for what."""


@dataclass(slots=True)
class Wanted:
    """What one record needs.

    Attributes:
        fragments: view, fragment and keys, by look-up in the order of the line.
        floors: watermarks at which an absent row counts as absent.
    """

    fragments: Sequence[Mapping[Fragment, Sequence[str]]]
    views: Sequence[View[Any]]
    floors: dict[Fragment, int] = field(default_factory=dict)


Answers = Mapping[Fragment, tuple[int | None, Mapping[str, bytes | None]]]
"""Watermark and rows of every fragment a batch asked for."""


class LookingUp:
    """The look-ups of one decider.

    A fragment is fit for use once its watermark has reached the end of its topic seen when this worker started, and whatever this
    worker has already used: so a view that was flushed, rolled back or never filled makes a decision wait instead of mislead it. A
    missing row counts as absent once the watermark has reached the end seen after the question came.
    """

    def __init__(self, service: ResolvedService, log: Log, rows: Rows, partitions: int) -> None:
        self._log = log
        self._rows = rows
        self._partitions = partitions
        self._views = {resolved.view: resolved for resolved in service.views}
        decider = service.decider
        assert decider is not None
        used = {look_up.view for r in decider.reactions for look_up in r.line.look_ups if isinstance(look_up, RowsLookUp)}
        self._topics = {self._views[view].name: self._views[view].topic.name for view in used}
        fragments = [Fragment(self._views[view].name, view.version, p) for view in used for p in range(partitions)]
        self._floors = self._ends(fragments)

    def wanted(self, line: On[Any, Any], event: Message) -> Wanted | None:
        """What a record needs; None if its line looks up no rows."""
        look_ups = [look_up for look_up in line.look_ups if isinstance(look_up, RowsLookUp)]
        if not look_ups:
            return None
        return Wanted([self._by_fragment(look_up, event) for look_up in look_ups], [look_up.view for look_up in look_ups])

    def fetch(self, wanted: Sequence[Wanted]) -> Answers:
        """Every row a batch needs, in one round trip.

        Raises:
            Unavailable: Redis does not answer.
        """
        keys: dict[Fragment, dict[str, None]] = {}
        for one in wanted:
            for fragments in one.fragments:
                for fragment, of in fragments.items():
                    keys.setdefault(fragment, {}).update(dict.fromkeys(of))
        asked = [(fragment, list(of)) for fragment, of in keys.items()]
        if not asked:
            return {}
        return {fragment: _by_key(of, found) for (fragment, of), found in zip(asked, self._rows.fetch(asked), strict=True)}

    def found(self, wanted: Wanted, answers: Answers) -> tuple[list[dict[str, Message]], list[Observed]]:
        """The rows that exist for one record, one dictionary per look-up, and what its events will say was observed.

        Raises:
            NotYet: a fragment is behind what a decision may rely on.
            DataLoss: a row is damaged.
        """
        found: list[dict[str, Message]] = []
        observed: list[Observed] = []
        late: list[Fragment] = []
        for view, fragments in zip(wanted.views, wanted.fragments, strict=True):
            rows: dict[str, Message] = {}
            for fragment, keys in fragments.items():
                watermark, values = answers[fragment]
                reached = watermark or 0
                floor = max(self._floors[fragment], wanted.floors.get(fragment, 0))
                if reached < floor:
                    raise NotYet(f"view {fragment.view} partition {fragment.partition} is at {reached}, must reach {floor}")
                absent = [key for key in keys if values[key] is None]
                if absent and fragment not in wanted.floors:
                    late.append(fragment)
                for key in keys:
                    raw = values[key]
                    if raw is not None:
                        rows[key] = damage.row_of(view.row, fragment.view, key, raw)
                observed.append(
                    Observed(view=fragment.view, version=fragment.version, partition=fragment.partition, watermark=reached, keys=keys)
                )
            found.append(rows)
        if late:
            wanted.floors.update(self._ends(late))
            behind = [fragment for fragment in late if (answers[fragment][0] or 0) < wanted.floors[fragment]]
            if behind:
                raise NotYet(f"rows are absent; view {behind[0].view} partition {behind[0].partition} is read to the end first")
        for one in observed:
            fragment = Fragment(one.view, one.version, one.partition)
            self._floors[fragment] = max(self._floors[fragment], one.watermark)
        return found, observed

    def _by_fragment(self, look_up: RowsLookUp[Any, Any], event: Message) -> dict[Fragment, list[str]]:
        name, version = self._views[look_up.view].name, look_up.view.version
        fragments: dict[Fragment, list[str]] = {}
        for key in sorted(set(look_up.keys(event))):
            fragments.setdefault(Fragment(name, version, partition_of(key.encode(), self._partitions)), []).append(key)
        return fragments

    def _ends(self, fragments: Sequence[Fragment]) -> dict[Fragment, int]:
        places = {fragment: (self._topics[fragment.view], fragment.partition) for fragment in fragments}
        ends = self._log.high_watermarks(sorted(set(places.values()))) if places else {}
        return {fragment: ends[place] for fragment, place in places.items()}


def _by_key(keys: Sequence[str], fetched: Fetched) -> tuple[int | None, dict[str, bytes | None]]:
    return fetched.watermark, dict(zip(keys, fetched.rows, strict=True))
