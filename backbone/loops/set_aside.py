"""Records that cannot be decided or folded, with all that is needed to look at them and take them up again."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from backbone.envelope import timestamp
from backbone.ports import Record
from backbone.v1.private_pb2 import Quarantined, QuarantineReason


@dataclass(frozen=True, slots=True)
class SetAside:
    """Who sets records aside.

    Attributes:
        service: <context>.<service>.
    """

    service: str
    build: str

    @property
    def topic(self) -> str:
        """The quarantine topic of the service (its dead-letter topic)."""
        return f"private.{self.service}.quarantine"

    def record(
        self,
        record: Record,
        reason: QuarantineReason.ValueType,
        detail: str,
        *,
        aggregate: str = "",
        error: BaseException | None = None,
    ) -> tuple[bytes, bytes]:
        """Key and value of the quarantine record.

        Args:
            record: what is set aside; its raw bytes are kept.
            reason: why.
            detail: what was wrong, in one line.
            aggregate: key of the aggregate or row that is concerned, if known.
            error: what was raised, for a defect.
        """
        quarantined = Quarantined(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            appended_at=timestamp(record.timestamp_ms),
            key=record.key,
            value=record.value,
            reason=reason,
            detail=detail[:1000],
            traceback="".join(traceback.format_exception(error))[-8000:] if error else "",
            aggregate=aggregate,
            service=self.service,
            build=self.build,
        )
        return f"{record.topic}/{record.partition}/{record.offset}".encode(), quarantined.SerializeToString()
