"""Our partitioner against librdkafka's own."""

from __future__ import annotations

import confluent_kafka
from hypothesis import given
from hypothesis import strategies as some

from backbone.partitioner import murmur2, partition_of


@given(key=some.binary(max_size=64), partitions=some.integers(1, 1024))
def test_a_key_lies_where_librdkafka_puts_it(key: bytes, partitions: int) -> None:
    assert partition_of(key, partitions) == confluent_kafka.murmur2(key, partitions)


def test_the_hash_is_the_one_of_kafkas_own_tests() -> None:
    known = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536, b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971}  # fmt: skip  # noqa: E501 - the vectors of Kafka's own test, side by side
    assert {key: murmur2(key) for key in known} == {key: value & 0xFFFFFFFF for key, value in known.items()}
