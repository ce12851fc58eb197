"""A broker is declared dead before it starts again, so that it never believes it still leads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from backbone.local.processes import Process, ProcessSpec, kill_all

NAME = "kafka.fencing"

SESSION_MS = 200
"""How long the controller gives the dead broker to show up."""

WITHIN_S = 60.0
STOP_S = 10.0

VERBOSE_OPTIONS = tuple(
    f"-Dorg.slf4j.simpleLogger.log.org.apache.kafka.controller.{name}=info" for name in ("ClusterControlManager", "QuorumController")
)
"""What makes the controller say who is registered and when it is in charge."""

_REGISTERED = re.compile(
    rb"RegisterBrokerRecord\(brokerId=1,.*? fenced=(true|false)|BrokerRegistrationChangeRecord\(brokerId=1,.*? fenced=(-1|1)"
)
_IN_CHARGE = re.compile(rb"Becoming the active controller")


def settings(controller_port: int, broker: dict[str, str]) -> dict[str, str]:
    """The settings of a controller without a broker, on the same data; `broker` are those of both together."""
    left_out = ("advertised.listeners", "inter.broker.listener.name")
    return {name: value for name, value in broker.items() if name not in left_out} | {
        "process.roles": "controller",
        "listeners": f"CONTROLLER://127.0.0.1:{controller_port}",
        "broker.session.timeout.ms": str(SESSION_MS),
        "broker.heartbeat.interval.ms": str(SESSION_MS // 2),
        "controller.quorum.append.linger.ms": "0",  # it ends as soon as it has spoken, and what it said must be in the log
    }


def fence(folder: Path, argv: Sequence[str]) -> None:
    """Run a controller alone until it has fenced the broker that ran before.

    Without this the broker finds itself registered as alive when it starts, takes up its transactions, and drops their markers at the
    moment at which the controller notices that the old session is over (KAFKA-20734, ADR 15): they hang for ever.

    Args:
        folder: gets its log file and its pid.
        argv: starts the controller, with `VERBOSE_OPTIONS`.

    Raises:
        StartError: it ended, or did not get there in time; with its last lines.
    """
    log = folder / "logs" / f"{NAME}.log"
    log.unlink(missing_ok=True)
    controller = Process(ProcessSpec(NAME, tuple(argv), ready=lambda: has_fenced(log.read_bytes()), ready_within=WITHIN_S), folder)
    controller.start()
    try:
        controller.await_ready()
    finally:
        controller.terminate()
        if not controller.wait(STOP_S):
            kill_all([controller])


def has_fenced(said: bytes) -> bool:
    """Whether the controller that said this is in charge and takes no broker for alive."""
    return _IN_CHARGE.search(said) is not None and not is_alive(said)


def is_alive(said: bytes) -> bool:
    """Whether the broker is registered and not fenced, by what the controller said of its records."""
    states = [found[1] or found[2] for found in _REGISTERED.finditer(said)]
    return bool(states) and states[-1] in (b"false", b"-1")
