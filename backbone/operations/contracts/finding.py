"""What the gate found: what, why it breaks, whom, and what to do instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from backbone.operations.contracts.image import Span


class Level(StrEnum):
    """Whether the gate lets it pass."""

    BREACH = "breach"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class Rule:
    """A law of contracts.

    Attributes:
        why: what breaks if it is broken.
        instead: what to do.
    """

    why: str
    instead: str
    level: Level = Level.BREACH


@dataclass(frozen=True, slots=True)
class Finding:
    """One law that a change of contracts breaks.

    Attributes:
        rule: name of the law.
        subject: full name of what changed.
        what: what changed, in one sentence.
        breaks: who cannot go on: services, or the clients of an API.
        against: the releases, ref or file it was compared with; empty for what is wrong by itself.
    """

    rule: str
    subject: str
    what: str
    why: str
    instead: str
    level: Level = Level.BREACH
    breaks: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    place: Span | None = None

    @property
    def name(self) -> str:
        """How a release names it to accept it."""
        return f"{self.rule}:{self.subject}"

    def to_dict(self) -> dict[str, Any]:
        """The finding for programs."""
        return {
            "name": self.name,
            "level": self.level.value,
            "what": self.what,
            "why": self.why,
            "breaks": list(self.breaks),
            "instead": self.instead,
            "against": list(self.against),
            "file": self.place.file if self.place else None,
            "line": self.place.line if self.place else None,
        }


TAKE_IN = "Leave it until the consumer does without, and take in its new file of expectations then."

RULES: Mapping[str, Rule] = {
    "VALUE_RULE_TIGHTENED": Rule(
        "what lies in the log was written under the looser rule, and is read again whenever a view or state is rebuilt",
        "Keep the rule; say the stricter one in a new event, or in a new topic v2.",
    ),
    "VALUE_RULE_LOOSENED": Rule(
        "consumers built against the stricter rule quarantine what it now allows",
        "Keep the rule until every consumer is built with the looser one, then release it with that as the reason.",
    ),
    "REQUEST_RULE_TIGHTENED": Rule("requests that clients send today are refused", "Keep the rule, or add a method of a new version."),
    "KEY_CHANGED": Rule(
        "records of one aggregate lie in another partition than before, so order is lost and states are read from the wrong key",
        "Offer the event under the other key by a copy (copy_of), or in a new topic v2.",
    ),
    "TOPIC_RENAMED": Rule(
        "the history stays in the old topic and its readers see nothing new",
        "Keep the name; a new one is a topic v2 beside the old one.",
    ),
    "TOPIC_GONE": Rule(
        "the topic's history can no longer be decoded, and its readers do not start", "Keep the wrapper as long as the topic exists."
    ),
    "TOPIC_TWO_WRITERS": Rule(
        "nobody can say in which order two writers' facts happened, and the broker admits one of them only",
        "Give the other facts a topic of their own.",
    ),
    "WRITER_CHANGED": Rule(
        "sequences and identities of the topic's events continue those of the old writer, whose state is lost",
        "Let the new writer say a topic of its own, and the old one retire.",
    ),
    "EVENT_TWO_PRIMARIES": Rule("two topics both claim to be the truth about it", "Make one of them a copy (copy_of)."),
    "EVENT_DROPPED": Rule(
        "history holds it: whoever reads the topic from its beginning sets those records aside as unknown",
        "Keep the event in the wrapper and stop saying it.",
    ),
    "EVENT_ADDED": Rule(
        "consumers of today set it aside as UNKNOWN_EVENT until they are built with it, and take it up then",
        "Nothing, if that is soon enough; else deploy consumers first.",
        Level.NOTICE,
    ),
    "COPY_CHANGED": Rule("its readers see other facts, or facts of another topic", "Declare a new copy under a new name."),
    "COPY_EVENT_LOST": Rule("readers of the copy no longer hear of it", "Keep it in the copy."),
    "SEALED_OPENED": Rule(
        "personal data would lie in the log in clear for ever, where destroying the subject's key erases nothing",
        "Keep the type backbone.v1.Sealed; open it only where the topology allows it.",
    ),
    "ENUM_VALUE_ADDED": Rule(
        "consumers of today do not know the value: where its rule is defined_only they quarantine the record, elsewhere they see a number",
        "Build and deploy the consumers with the value first, then release it with that as the reason.",
    ),
    "ENUM_VALUE_ADDED_TO_API": Rule("clients of today show it as unspecified", "Tell them; nothing else breaks.", Level.NOTICE),
    "RPC_CHANGED": Rule("clients of today send or expect other messages", "Add a method."),
    "ROW_CHANGED": Rule("rows kept by the running version are read as if the new one had made them", "Raise the view's version=."),
    "ROW_KEY_CHANGED": Rule("rows kept under the old key are never found again", "Raise the view's version=."),
    "STATE_CHANGED": Rule("states kept by the running version are read as if the new one had made them", "Raise the decider's version=."),
    "FOLD_CHANGED": Rule("kept states and rows differ from what the same events give now", "Raise its version= and record it anew."),
    "FOLD_VERSION_FELL": Rule("what the higher version kept is not read, or is overwritten", "Take a version= that was never used."),
    "READ_FIELD_GONE": Rule("its recorded decisions or folds give something else without the field", TAKE_IN),
    "READ_FIELD_CHANGED": Rule("what it reads today it misreads tomorrow", TAKE_IN),
    "READ_EVENT_GONE": Rule("it waits for an event that never comes again", TAKE_IN),
    "READ_TOPIC_GONE": Rule("it does not start", TAKE_IN),
    "READ_KEY_CHANGED": Rule("it keeps what it read under another key", TAKE_IN),
    "LAST_CONSUMER_LOST": Rule("nobody hears it any more", "Stop saying it if that is meant; keep it in the contract.", Level.NOTICE),
    "RELEASE_CHANGED": Rule("what was promised cannot be checked any more", "Bring it back from the history; make a new release."),
    "CORPUS_CHANGED": Rule("the bytes of a release are the proof that it can be read for ever", "Bring them back from the history."),
}
"""The laws that buf does not know."""

OF_BUF: Mapping[str, Rule] = {
    "FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED": Rule(
        "a later field may take the number, and then old records are misread", 'Reserve number and name: reserved 3; reserved "name";.'
    ),
    "FIELD_NO_DELETE_UNLESS_NAME_RESERVED": Rule(
        "a later field may take the name, and then JSON written before is misread", 'Reserve number and name: reserved 3; reserved "name";.'
    ),
    "ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED": Rule(
        "a later value may take the number, and then old records are misread", "Keep the value, or reserve its number and name."
    ),
    "ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED": Rule(
        "a later value may take the name, and then JSON written before is misread", "Keep the value, or reserve its number and name."
    ),
    "RESERVED_MESSAGE_NO_DELETE": Rule("numbers and names of the past become free and may be misread", "Keep the reservation."),
    "RESERVED_ENUM_NO_DELETE": Rule("numbers and names of the past become free and may be misread", "Keep the reservation."),
}
OTHERWISE_OF_BUF = Rule(
    "bytes or JSON written before are misread, refused or lost by builds that know only the other form",
    "Leave what exists as it is and add: a new field, event, method or topic v2.",
)
