"""The log in memory and the log on Kafka do the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from backbone.adapters.kafka import KafkaLog
from backbone.adapters.kafka_admin import KafkaAdmin, TopicSpec
from backbone.adapters.memory import MemoryLog
from backbone.settings import Settings
from backbone.testing.conformance.log import SESSION_S, LogConformance, MakeName, MakeTopic
from tests.conftest import Broker
from tests.users import TESTER

TRANSACTION_S = 4.0


@pytest.fixture
def name(unique: Callable[[str], str]) -> MakeName:
    """Names of this test."""
    return unique


class TestMemory(LogConformance):
    """In one process."""

    @pytest.fixture
    def log(self) -> MemoryLog:
        """Empty."""
        return MemoryLog(transaction_timeout_s=TRANSACTION_S, session_timeout_s=SESSION_S)

    @pytest.fixture
    def topic(self, log: MemoryLog, name: MakeName) -> MakeTopic:
        """Topics of this log."""

        def make(partitions: int = 4) -> str:
            made = name("topic")
            log.create_topic(made, partitions)
            return made

        return make


@pytest.mark.integration
class TestKafka(LogConformance):
    """On a real broker."""

    @pytest.fixture
    def settings(self, broker: Broker) -> Settings:
        """Short timeouts."""
        return broker.settings().model_copy(update={"session_timeout_s": SESSION_S, "transaction_timeout_s": TRANSACTION_S})

    @pytest.fixture
    def log(self, settings: Settings) -> Iterator[KafkaLog]:
        """The broker's."""
        log = KafkaLog(settings, TESTER)
        yield log
        log.close()

    @pytest.fixture
    def topic(self, settings: Settings, name: MakeName) -> MakeTopic:
        """Topics of this test."""
        admin = KafkaAdmin(settings)

        def make(partitions: int = 4) -> str:
            made = name("topic")
            admin.create_topics([TopicSpec(made, partitions)])
            return made

        return make
