"""Real servers for all tests, started when the first test asks for them, and names nobody else uses."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from backbone.adapters.kafka_clients import credentials
from backbone.local.kafka import Kafka, prepare
from backbone.local.valkey import Valkey
from backbone.ownership import BROKER
from backbone.settings import Settings
from tests.containers import kafka_in_container, require_docker, valkey_in_container
from tests.users import admit_tester

BOTH = ("embedded", pytest.param("containers", marks=pytest.mark.docker))

settings.register_profile("shared", deadline=None)  # the machine is: how long an example takes says nothing
settings.load_profile("shared")


@contextmanager
def scratch(prefix: str) -> Iterator[Path]:
    """A folder of its own for one server, deleted with it."""
    folder = Path(tempfile.mkdtemp(prefix=f"backbone-{prefix}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """The embedded broker of this run; tests share it, so they take topic and group names from `unique`."""
    prepare()
    with scratch("kafka") as folder, Kafka(folder) as broker:
        admit_tester(broker.admit)
        yield broker


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """The embedded Valkey of this run; tests share it, so they never flush it and take key names from `unique`."""
    with scratch("valkey") as folder, Valkey(folder) as server:
        yield server


@pytest.fixture(scope="session")
def unique() -> Callable[[str], str]:
    """Makes names that no other test of this run, nor another run, uses: `unique("orders")`."""
    numbers = itertools.count(1)
    return lambda word: f"{word}-{os.getpid()}-{next(numbers)}"


@dataclass(frozen=True, slots=True)
class Broker:
    """A Kafka, whoever runs it.

    Attributes:
        variables: where it is and how one gets in, as `Settings` reads it.
    """

    variables: Mapping[str, str]

    @property
    def cluster_id(self) -> str:
        """Identity of the cluster."""
        return self.variables["KAFKA_CLUSTER_ID"]

    def settings(self) -> Settings:
        """How our own clients reach it."""
        return Settings.read(self.variables)

    def credentials(self, user: str = BROKER) -> dict[str, str]:
        """How any client of librdkafka reaches it as a user; as the broker itself everything is allowed."""
        return credentials(self.settings(), user)


@pytest.fixture(scope="session", params=BOTH)
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A Kafka, once embedded and once in a container: a test that takes it runs on both."""
    if request.param == "embedded":
        embedded: Kafka = request.getfixturevalue("kafka")
        yield Broker(embedded.variables)
        return
    require_docker()
    with scratch("passwords") as secrets, kafka_in_container(secrets) as variables:
        yield Broker(variables)


@pytest.fixture(scope="session", params=BOTH)
def redis_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a Valkey, once embedded and once in a container: a test that takes it runs on both."""
    if request.param == "embedded":
        embedded: Valkey = request.getfixturevalue("valkey")
        yield embedded.url
        return
    require_docker()
    with valkey_in_container() as url:
        yield url
