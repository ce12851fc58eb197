"""What can go wrong, named for what the reader can do about it.

BackboneError
├── DeclarationError       a table or contract lies; mend it and start again
│   └── ContractError      ... with the file, the message and the remedy
├── SettingsError          the environment is incomplete or contradicts itself
│   └── NoPassword         ... a user of Kafka has none (yet)
├── StrangeCluster         this Kafka is not the one the data belongs to
├── Unavailable            Kafka, Redis or a sibling does not answer now; nothing was done
│   ├── Overloaded         ... because a bound of ours is reached
│   └── NotYet             ... because it does not know enough yet; ask again, or elsewhere
├── NotComparable          a demand that these views can never be held to; ask others
├── DataLoss               a row cannot be read because its fold raised; mend the view and raise its version
├── Unconfirmed            it may or may not have been done; ask again, do not repeat blindly
└── WorkerEnded            this worker cannot go on; its slot starts again and takes over
    ├── Fenced             ... because another process took its place
    └── Refused            ... because Kafka does not know its password or gives it no right to what it does
"""

from __future__ import annotations


class BackboneError(Exception):
    """Anything this library raises on purpose."""


class DeclarationError(BackboneError):
    """A table says something that cannot be run."""


class ContractError(DeclarationError):
    """A contract or a table about it contradicts itself.

    Args:
        where: proto file, service or topic that is wrong.
        what: what is wrong with it, naming the message or field.
        remedy: what to change.
    """

    def __init__(self, where: str, what: str, remedy: str) -> None:
        super().__init__(f"{where}: {what}. {remedy}")
        self.where = where
        self.what = what
        self.remedy = remedy


class SettingsError(BackboneError):
    """The environment is incomplete or contradicts itself."""


class NoPassword(SettingsError):
    """A user of Kafka has no password where passwords lie; `backbone topics apply` makes it."""


class StrangeCluster(BackboneError):
    """The Kafka that answers is not the cluster this data belongs to."""


class Unavailable(BackboneError):
    """Something we need does not answer now, and nothing was done.

    Args:
        what: what does not answer.
        retry_after_s: when to try again, in seconds.
    """

    def __init__(self, what: str, retry_after_s: float = 1.0) -> None:
        super().__init__(what)
        self.retry_after_s = retry_after_s


class Overloaded(Unavailable):
    """A bound of ours is reached; nothing was done."""


class NotYet(Unavailable):
    """An answer does not know in time what it must know.

    Args:
        what: who does not know it, and how far it is.
        place: topic/partition of the position demanded.
        demanded: next offset that is demanded.
        reached: next offset that is known.
    """

    def __init__(self, what: str, place: str, demanded: int, reached: int) -> None:
        super().__init__(what, retry_after_s=0.2)
        self.place = place
        self.demanded = demanded
        self.reached = reached


class NotComparable(BackboneError):
    """A position is demanded of an answer that says nothing about its topic.

    Args:
        topic: that topic.
    """

    def __init__(self, topic: str) -> None:
        super().__init__(f"no part of the answer folds {topic}, and nothing it folds has come after {topic}: ask a view that hears of it")
        self.topic = topic


class DataLoss(BackboneError):
    """A row cannot be read because its fold raised."""


class Unconfirmed(BackboneError):
    """It may or may not have been done: the confirmation is missing."""


class WorkerEnded(BackboneError):
    """This worker cannot go on; its slot starts again and takes over from the log."""


class Fenced(WorkerEnded):
    """Another process took this worker's place."""


class Refused(WorkerEnded):
    """Kafka does not know the user's password, or the user has no right to what was attempted."""
