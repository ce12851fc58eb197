"""What the envelope writes by hand is what protobuf would write."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from retail.ordering.v1.price_pb2 import PriceEvent, PriceListed

from backbone.envelope import MOST_AFTER, because_of, encode, timestamp, varint
from backbone.ports import Record
from backbone.v1.meta_pb2 import Meta, Observed, Position

texts = st.text("aé€😀\0", max_size=300)
numbers = st.integers(0, 2**62)
small = st.integers(0, 300)
topics = st.sampled_from(["a", "b", "topic." + "x" * 200])
positions = st.builds(Position, topic=topics, partition=small, next_offset=numbers, topic_id=texts)
observed = st.builds(Observed, view=texts, version=small, partition=small, watermark=numbers, keys=st.lists(texts, max_size=3))
metas = st.builds(Meta, id=texts, correlation_id=texts, traceparent=texts, after=st.lists(positions, max_size=MOST_AFTER + 3))
records = st.builds(
    Record,
    topic=topics,
    partition=small,
    offset=st.integers(0, 2**62),
    key=st.just(b""),
    value=st.just(b""),
    timestamp_ms=st.integers(0, 2**42),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine draws slowly
@given(metas, records, st.lists(observed, max_size=3), st.none() | st.builds(Timestamp, seconds=small), texts, texts, small, small)
def test_what_is_said_because_of_a_record_carries_the_bytes_that_protobuf_would_write(
    meta: Meta,
    record: Record,
    looked_up: list[Observed],
    occurred_at: Timestamp | None,
    writer: str,
    build: str,
    index: int,
    sequence: int,
) -> None:
    said = because_of(writer=writer, build=build, topic_id="id", record=record, meta=meta, occurred_at=occurred_at, observed=looked_up)
    older = [one for one in meta.after[-MOST_AFTER + 1 :] if (one.topic, one.partition) != (record.topic, record.partition)]
    expected = Meta(
        id=f"{writer}:id:{record.partition}:{record.offset}:{index}",
        correlation_id=meta.correlation_id,
        causation_id=meta.id,
        sequence=sequence,
        occurred_at=occurred_at or timestamp(record.timestamp_ms),
        writer=writer,
        build=build,
        traceparent=meta.traceparent,
        after=[*older, Position(topic=record.topic, partition=record.partition, next_offset=record.offset + 1)],
        observed=looked_up,
    )
    assert Meta.FromString(said.meta(index, sequence)) == expected
    expected.ClearField("id")
    expected.ClearField("sequence")
    assert said.tail == expected.SerializeToString(deterministic=True)


def test_an_event_with_its_meta_behind_it_is_the_wrapper_that_protobuf_would_write() -> None:
    event, meta = PriceListed(sku="SKU-1"), Meta(id="one", correlation_id="x" * 200)
    wrapped = encode(PriceEvent.PRICE_LISTED_FIELD_NUMBER, event.SerializeToString(), meta.SerializeToString())
    assert wrapped == PriceEvent(price_listed=event, meta=meta).SerializeToString(deterministic=True)


@given(numbers)
def test_a_varint_is_what_protobuf_writes(number: int) -> None:
    assert Meta(sequence=number).SerializeToString() == (b"\x20" + varint(number) if number else b"")
