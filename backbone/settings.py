"""The one place where the environment is read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backbone.errors import SettingsError

MEBIBYTE = 1024 * 1024


class Settings(BaseModel):
    """What a process is told from outside; frozen. Every field is the environment variable of its alias.

    Attributes:
        kafka: bootstrap servers of the log.
        kafka_secrets: folder with one file per user of Kafka, its name the user's, its content the password.
        kafka_protocol: how clients speak to the log; without a password nobody does.
        kafka_mechanism: how they prove that they know their password.
        kafka_ca_file: certificates that the brokers' must be signed by, for SASL_SSL; the machine's own if empty.
        cluster_id: the Kafka cluster the data belongs to; empty if it is not to be compared.
        redis_url: where the rows of the own context lie.
        partitions: P, the one number of partitions of the platform.
        slot: number of this process among its equals; names its transactional ids and group members.
        build: what this build calls itself in everything it writes.
        host: address every server of this process listens on.
        health_port: HTTP port of /livez, /readyz, /status and /metrics; 0 takes a free one.
        grpc_port: port of the gRPC server; 0 takes a free one.
        http_port: port of the gateway's HTTP server; 0 takes a free one.
        views_target: where siblings of the own context answer queries.
        answer_within_s: how long an order may stay without an answer, in seconds.
        session_timeout_s: after how many seconds without a sign a group member is taken for dead.
        transaction_timeout_s: after how many seconds the broker aborts an open transaction.
        start_patience_s: how long a process waits for Kafka and its topics before it gives up its start, in seconds.
        batch: how many records one transaction or one write of rows holds at most.
        batch_bytes: how many bytes of records it holds at most; one record is always taken.
        queue_bytes: how many bytes one client of the log holds at most: fetched ahead, or waiting to be sent.
        order_id_key_file: file that holds the secret from which the gateway makes order ids.
        origins: origins whose pages in browsers may call the gateway besides its own, with spaces between: https://shop.example.
        in_flight: how many calls the gateway has under way at most, whatever they want.
        orders_least: how many orders the gateway lets be under way at once however late answers are.
        orders_most: how many however quick they are; in between it goes by how many answers are late.
        orders_late_after_s: an order without an answer for so long is late, in seconds.
        outside: address of each outside server, or path of each file, by name.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    kafka: str = Field(default="", alias="KAFKA_BOOTSTRAP_SERVERS")
    kafka_secrets: str = Field(default="", alias="KAFKA_SECRETS")
    kafka_protocol: Literal["SASL_PLAINTEXT", "SASL_SSL"] = Field(default="SASL_PLAINTEXT", alias="KAFKA_SECURITY_PROTOCOL")
    kafka_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = Field(default="SCRAM-SHA-512", alias="KAFKA_SASL_MECHANISM")
    kafka_ca_file: str = Field(default="", alias="KAFKA_CA_FILE")
    cluster_id: str = Field(default="", alias="KAFKA_CLUSTER_ID")
    redis_url: str = Field(default="", alias="REDIS_URL")
    partitions: int = Field(default=4, ge=1, le=1024, alias="BACKBONE_PARTITIONS")
    slot: int = Field(default=0, ge=0, alias="BACKBONE_SLOT")
    build: str = Field(default="dev", alias="BACKBONE_BUILD")
    host: str = Field(default="127.0.0.1", alias="BACKBONE_HOST")
    health_port: int = Field(default=0, alias="BACKBONE_HEALTH_PORT")
    grpc_port: int = Field(default=0, alias="GRPC_PORT")
    http_port: int = Field(default=0, alias="HTTP_PORT")
    views_target: str = Field(default="", alias="VIEWS_TARGET")
    answer_within_s: float = Field(default=900.0, gt=0, alias="ANSWER_WITHIN_S")
    session_timeout_s: float = Field(default=6.0, gt=0, alias="BACKBONE_SESSION_TIMEOUT_S")
    transaction_timeout_s: float = Field(default=10.0, gt=0, alias="BACKBONE_TRANSACTION_TIMEOUT_S")
    start_patience_s: float = Field(default=120.0, gt=0, alias="BACKBONE_START_PATIENCE_S")
    batch: int = Field(default=500, ge=1, alias="BACKBONE_BATCH")
    batch_bytes: int = Field(default=4 * MEBIBYTE, ge=64 * 1024, alias="BACKBONE_BATCH_BYTES")
    queue_bytes: int = Field(default=16 * MEBIBYTE, ge=2 * MEBIBYTE, le=1024 * MEBIBYTE, alias="BACKBONE_QUEUE_BYTES")
    order_id_key_file: str = Field(default="", alias="ORDER_ID_KEY_FILE")
    origins: str = Field(default="", alias="GATEWAY_ORIGINS")
    in_flight: int = Field(default=1000, ge=1, alias="GATEWAY_IN_FLIGHT")
    orders_least: int = Field(default=32, ge=1, alias="GATEWAY_ORDERS_LEAST")
    orders_most: int = Field(default=1000, ge=1, alias="GATEWAY_ORDERS_MOST")
    orders_late_after_s: float = Field(default=2.0, gt=0, alias="GATEWAY_ORDERS_LATE_AFTER_S")
    outside: Mapping[str, str] = Field(default_factory=dict, alias="BACKBONE_OUTSIDE")

    @classmethod
    def read(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """The settings of an environment.

        Args:
            environment: variables by name; the process's own if not given. `OUTSIDE_<NAME>` fills `outside`.

        Raises:
            SettingsError: a variable has a value that cannot be used.
        """
        found = dict(os.environ if environment is None else environment)
        outside = {name.removeprefix("OUTSIDE_").lower(): value for name, value in found.items() if name.startswith("OUTSIDE_")}
        given: dict[str, object] = {
            field.alias: found[field.alias] for field in cls.model_fields.values() if field.alias in found and found[field.alias] != ""
        }
        given["BACKBONE_OUTSIDE"] = outside
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise SettingsError(f"the environment cannot be used: {wrong}") from error

    def require(self, name: str) -> str:
        """Address of an outside server or file.

        Raises:
            SettingsError: it is not set.
        """
        try:
            return self.outside[name]
        except KeyError:
            raise SettingsError(f"OUTSIDE_{name.upper()} is not set: where is {name}?") from None
