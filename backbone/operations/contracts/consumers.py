"""Who reads what: from the topology, down to the last field."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from backbone.operations.contracts.image import Image
from backbone.topology import Topology


@dataclass(frozen=True)
class Consumers:
    """Who cannot go on when a contract breaks.

    Attributes:
        images: whose messages count: the contracts as they are, and as they were.
        topology: of the platform; None where only contracts are at hand, as in a repository that holds nothing else.
    """

    images: Sequence[Image]
    topology: Topology | None = field(repr=False, default=None)

    @cached_property
    def events(self) -> Mapping[str, tuple[str, ...]]:
        """Who hears each public event."""
        return {event.name: event.heard_by for event in self.topology.events} if self.topology else {}

    def of(self, subject: str) -> tuple[str, ...]:
        """Who reads a message, enum, field, value, method or wrapper."""
        owner = self._owner(subject)
        found: set[str] = set()
        for image in self.images:
            wrapper = image.wrappers.get(owner)
            if wrapper is not None:
                found.update(self.of_topic(wrapper.topic, wrapper.events.values()) if not wrapper.private else [wrapper.writer])
                continue
            found.update(self._of_parts(image, owner))
        return tuple(sorted(found))

    def _of_parts(self, image: Image, owner: str) -> Iterable[str]:
        for wrapper in image.wrappers.values():
            for event in wrapper.events.values():
                if owner in image.reach(event):
                    yield from [wrapper.writer] if wrapper.private else self.events.get(event, ())
        for rpc in image.rpcs.values():
            service = rpc.name.partition("/")[0]
            if owner == service or owner in image.reach(rpc.request) | image.reach(rpc.response):
                yield from self._askers(service) if rpc.private else [f"clients of {service}"]
        for row in image.rows:
            if owner in image.reach(row):
                yield from self.of_row(row)

    def of_topic(self, topic: str, events: Iterable[str]) -> Iterable[str]:
        """Who reads a topic: groups on it, and whoever hears its events without any group of theirs."""
        if self.topology is None:
            return []
        groups = {group.service for group in self.topology.groups if topic in group.topics}
        hearers = {hearer for event in events for hearer in self.events.get(event, ())}
        grouped = {
            group.service for group in self.topology.groups for event in self.topology.events if set(event.topics) & set(group.topics)
        }
        return groups | (hearers - grouped)

    def of_row(self, row: str) -> Iterable[str]:
        """Who keeps a row, and who asks for it."""
        if self.topology is None:
            return
        views = {view for view in self._views if view_of_row(view, row)}
        yield from (view.rpartition(".")[0] for view in views)
        for query in self.topology.queries:
            if views & set(query.views):
                yield from query.asked_by

    @cached_property
    def _views(self) -> frozenset[str]:
        groups = self.topology.groups if self.topology else ()
        return frozenset(found.group(1) for group in groups if (found := re.fullmatch(r"(.+\..+\..+)\.v\d+", group.name)))

    def _askers(self, service: str) -> Iterable[str]:
        for query in self.topology.queries if self.topology else ():
            if query.rpc.startswith(f"/{service}/"):
                yield from query.asked_by

    def _owner(self, subject: str) -> str:
        """The message, enum or service that a field, value or method belongs to; itself for anything else."""
        if "/" in subject:
            return subject.partition("/")[0]
        known = {name for image in self.images for name in (*image.messages, *image.enums)}
        while subject not in known and "." in subject:
            parent = subject.rpartition(".")[0]
            if parent in known:
                return parent
            break
        return subject


def view_of_row(view: str, row: str) -> bool:
    """Whether a view, <context>.<service>.<row>, keeps a row message of its context's private package."""
    context, _, rest = view.partition(".")
    name = rest.partition(".")[2]
    snake = re.sub(r"(?<!^)(?=[A-Z])", "_", row.rpartition(".")[2]).lower()
    return snake == name and f".{context}." in row
