"""What is wrong with a machine, and how to mend it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from backbone.local import jars
from backbone.local.locks import try_lock
from backbone.local.ports import free_port
from backbone.local.state import StackState, write_state
from backbone.operations import doctor
from backbone.operations.checkout import Checkout, find_checkout
from backbone.operations.doctor import Finding, Verdict
from backbone.ownership import READER
from backbone.passwords import make_passwords

ROOT = Path(__file__).resolve().parents[2]


def checkout(folder: Path, **variables: str) -> Checkout:
    return find_checkout(folder, start=ROOT, variables=variables)


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


@pytest.mark.integration
@pytest.mark.usefixtures("kafka")  # whose start fetches the jars
def test_a_machine_that_ran_the_set_up_is_well(tmp_path: Path) -> None:
    findings = list(doctor.examine(checkout(tmp_path)))
    assert [finding for finding in findings if finding.verdict is Verdict.WRONG] == []
    assert {"python", "platform", "disk", "jars", "java", "valkey", "stack", "ports", "kafka"} <= {one.about for one in findings}


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_full_disk_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12, 10**6))
    finding = only(list(doctor.disk(checkout(tmp_path))))
    assert finding.verdict is Verdict.WRONG
    assert "free at least 1 GB" in finding.remedy


def test_a_damaged_jar_is_named_with_the_way_to_mend_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jars, "shared_folder", lambda: tmp_path)
    first = jars.locked()[0]
    (tmp_path / first.file).write_bytes(b"8 bytes!")
    finding = only(list(doctor.kafka_jars(checkout(tmp_path))))
    assert finding.verdict is Verdict.WRONG
    assert f"{first.file} is damaged: it has 8 bytes" in finding.found
    assert "backbone.local.jars" in finding.remedy


def test_missing_jars_do_not_matter_to_who_uses_another_kafka(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jars, "shared_folder", lambda: tmp_path)
    finding = only(list(doctor.kafka_jars(checkout(tmp_path, KAFKA_BOOTSTRAP_SERVERS="there:1"))))
    assert finding.verdict is Verdict.NOTICE


def test_a_port_that_another_program_took_is_a_notice(tmp_path: Path) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        write_state(tmp_path, StackState(4, ports={"kafka": port}))
        finding = only(list(doctor.ports(checkout(tmp_path))))
    assert finding.verdict is Verdict.NOTICE
    assert f"{port} (kafka)" in finding.found


def test_a_worker_that_does_not_run_beside_the_others_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = try_lock(tmp_path / "lock")
    assert lock is not None
    write_state(tmp_path, StackState(4, processes=("ordering", "payments.risk", "fulfilment", "fulfilment.1")))
    running: dict[str, list[object]] = {"kafka": [], "ordering": [], "payments.risk": [], "fulfilment": []}
    monkeypatch.setattr(doctor, "recorded", lambda _: running)
    try:
        finding = only(list(doctor.stack(checkout(tmp_path))))
        assert (finding.verdict, finding.found.startswith("fulfilment.1 does not run")) == (Verdict.WRONG, True)
        running["fulfilment.1"] = []
        assert only(list(doctor.stack(checkout(tmp_path)))).verdict is not Verdict.WRONG
    finally:
        lock.release()


def test_a_kafka_that_does_not_answer_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ANSWER_S", 0.3)
    make_passwords(tmp_path, [READER])
    finding = only(list(doctor.kafka(checkout(tmp_path, KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}", KAFKA_SECRETS=str(tmp_path)))))
    assert finding.verdict is Verdict.WRONG
    assert "nobody answers" in finding.found


def test_what_cannot_be_looked_at_is_wrong_for_that_reason(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text("{")
    findings = {finding.about: finding for finding in doctor.examine(checkout(tmp_path))}
    assert findings["stack"].verdict is Verdict.WRONG
    assert "cannot be understood" in findings["stack"].found


def test_a_program_that_does_not_start_is_wrong(tmp_path: Path) -> None:
    assert doctor._runs("java", [str(tmp_path / "java")], "mend it").verdict is Verdict.WRONG
    assert doctor._runs("java", ["false"], "mend it").verdict is Verdict.WRONG


def test_a_finding_for_people_says_what_to_do() -> None:
    assert doctor.line(doctor.wrong("disk", "it is full", "empty it")).splitlines()[1].strip() == "-> empty it"
