"""The `backbone` command, as people and scripts use it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from backbone.adapters.kafka import KafkaLog
from backbone.cli import main
from backbone.local.kafka import Kafka
from backbone.local.locks import try_lock
from backbone.local.state import StackState, write_state
from backbone.operations import topics
from backbone.ownership import BROKER
from backbone.settings import Settings
from shop import shop
from tests import examples
from tests.conftest import scratch
from tests.operations.narrating import Narrator

NOWHERE = {"KAFKA_BOOTSTRAP_SERVERS": "", "BACKBONE_PLATFORM": "", "BACKBONE_PARTITIONS": "", "KAFKA_CLUSTER_ID": ""}


def run(folder: Path, *arguments: str, text: str | None = None, **variables: str) -> Result:
    return CliRunner().invoke(main, ["--folder", str(folder), *arguments], env={**NOWHERE, **variables}, input=text)


def commands(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            yield from commands(command, (*path, name))


@pytest.mark.parametrize("path", list(commands(main)), ids=" ".join)
def test_every_command_explains_itself(tmp_path: Path, path: Sequence[str]) -> None:
    result = run(tmp_path, *path, "--help")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 4


@pytest.mark.parametrize(
    "arguments",
    [("nonsense",), ("run",), ("story",), ("story", "order-1", "--last"), ("topics", "destroy"), ("tail", "--seconds", "soon")],
    ids=" ".join,
)
def test_a_command_that_is_not_understood_ends_with_2(tmp_path: Path, arguments: Sequence[str]) -> None:
    assert run(tmp_path, *arguments).exit_code == 2


@pytest.mark.parametrize(
    "arguments", [("status",), ("story", "--last"), ("tail",), ("topics", "plan"), ("quarantine", "list")], ids=" ".join
)
def test_without_a_stack_one_line_says_how_to_start_one(tmp_path: Path, arguments: Sequence[str]) -> None:
    result = run(tmp_path, *arguments)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "start it with `backbone up`" in result.stderr


def test_an_unknown_context_is_refused_in_one_line(tmp_path: Path) -> None:
    result = run(tmp_path, "run", "nowhere")
    assert result.exit_code == 1
    assert result.stderr.startswith("backbone run: there is no context 'nowhere'")


def test_the_topology_shows_the_three_lists(tmp_path: Path) -> None:
    shown = run(tmp_path, "topology").output
    for expected in ("Events:", "Commands:", "Queries:", "OrderValidated", "AuthorizeCard", "/retail.payments.views.v1.RiskViewService/"):
        assert expected in shown
    assert "…" not in shown, "names are never cut off"


def test_the_topology_is_json_for_programs(tmp_path: Path) -> None:
    found = json.loads(run(tmp_path, "topology", "--json").output)
    assert len(found["services"]) >= 8


class TestClean:
    """Deleting what a stack left behind."""

    def stack(self, folder: Path, *, log: bool) -> Path:
        folder.mkdir()
        write_state(folder, StackState(4))
        if log:
            (folder / "kafka").mkdir()
            (folder / "kafka" / "meta.properties").write_text("cluster.id=c\n")
        return folder

    def test_a_log_is_kept_where_nobody_can_be_asked(self, tmp_path: Path) -> None:
        folder = self.stack(tmp_path / "stack", log=True)
        result = run(folder, "clean")
        assert result.exit_code == 1
        assert "--yes" in result.stderr
        assert (folder / "kafka" / "meta.properties").exists()

    def test_a_log_is_deleted_when_told_so(self, tmp_path: Path) -> None:
        folder = self.stack(tmp_path / "stack", log=True)
        assert run(folder, "clean", "--yes").exit_code == 0
        assert not folder.exists()

    def test_without_a_log_nothing_is_asked(self, tmp_path: Path) -> None:
        folder = self.stack(tmp_path / "stack", log=False)
        assert run(folder, "clean").exit_code == 0
        assert not folder.exists()

    def test_a_running_stack_is_left_alone(self, tmp_path: Path) -> None:
        folder = self.stack(tmp_path / "stack", log=True)
        lock = try_lock(folder / "lock")
        assert lock is not None
        try:
            result = run(folder, "clean", "--yes")
        finally:
            lock.release()
        assert result.exit_code == 1
        assert "stop it with Ctrl-C first" in result.stderr
        assert folder.exists()

    def test_a_folder_that_no_stack_made_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("years of work")
        assert run(tmp_path, "clean", "--yes").exit_code == 1
        assert (tmp_path / "thesis.tex").exists()

    def test_where_nothing_is_there_is_nothing_to_do(self, tmp_path: Path) -> None:
        assert run(tmp_path / "none", "clean").exit_code == 0


@pytest.fixture(scope="module")
def variables() -> Iterator[dict[str, str]]:
    """A broker of our own with the topics of the shop, two orders and a quarantined record on it."""
    with scratch("cli") as folder, Kafka(folder) as broker:
        found = {**broker.variables, "BACKBONE_PARTITIONS": "4"}
        settings = Settings.read(found)
        topics.apply(shop, settings)
        log = KafkaLog(settings, BROKER)
        producer = log.producer("narrator")
        narrator = Narrator()
        for order in ("order-1", "order-2"):
            request = narrator.say(examples.order_requested(order_id=order), order=order)
            narrator.say(examples.order_validated(order_id=order), request, order=order)
            narrator.say(examples.authorize_card(order_id=order), request, order=order)
        narrator.set_aside(narrator.last("retail.ordering.orders.v1"), "payments.payments", "ZeroDivisionError: division by zero")
        half = len(narrator.records) // 2  # a transaction per order, so that the second one is the later one
        for some in (narrator.records[:half], narrator.records[half:]):
            producer.begin()
            for record in some:
                producer.produce(record.topic, record.key, record.value, record.partition)
            producer.commit()
        producer.close()
        log.close()
        yield found


@pytest.mark.integration
class TestOnKafka:
    """Looking into a real log."""

    def test_a_story_is_told(self, tmp_path: Path, variables: dict[str, str]) -> None:
        result = run(tmp_path, "story", "order-1", **variables)
        assert result.exit_code == 0, result.stderr
        assert "OrderValidated by ordering.orders (b1)  (because of 1)" in result.output
        assert "open: no outcome yet" in result.output

    def test_the_last_story_is_told_as_json(self, tmp_path: Path, variables: dict[str, str]) -> None:
        found = self.json(run(tmp_path, "story", "--last", "--json", **variables))
        assert found["correlation_id"] == "order-2"
        assert sorted(step["name"] for step in found["steps"]) == ["AuthorizeCard", "OrderRequested", "OrderValidated", "RAISED"]
        assert found["steps"][0]["name"] == "OrderRequested"

    def test_an_unknown_order_ends_with_1(self, tmp_path: Path, variables: dict[str, str]) -> None:
        result = run(tmp_path, "story", "order-9", **variables)
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1

    def test_the_log_is_followed(self, tmp_path: Path, variables: dict[str, str]) -> None:
        result = run(tmp_path, "tail", "order-2", "--from-beginning", "--count", "4", "--seconds", "60", **variables)
        assert result.exit_code == 0, result.stderr
        said = [line.split()[2] for line in result.stdout.splitlines()]
        assert sorted(said) == ["AuthorizeCard", "OrderRequested", "OrderValidated", "RAISED"]

    def test_quarantine_is_listed_and_shown(self, tmp_path: Path, variables: dict[str, str]) -> None:
        listed = run(tmp_path, "quarantine", "list", "--json", **variables)
        assert listed.exit_code == 1
        (aside,) = json.loads(listed.output)
        shown = run(tmp_path, "quarantine", "show", aside["name"], **variables)
        assert shown.exit_code == 0
        assert "ZeroDivisionError: division by zero" in shown.output

    def test_status_counts_what_is_behind_open_and_set_aside(self, tmp_path: Path, variables: dict[str, str]) -> None:
        result = run(tmp_path, "status", "--json", **variables)
        found = json.loads(result.output)
        behind: dict[str, int] = {}
        for lag in found["lag"]:
            if lag["reader"] == lag["service"]:
                behind[lag["topic"]] = behind.get(lag["topic"], 0) + lag["behind"]
        assert behind["retail.gateway.order-requests.v1"] == 2, "markers of transactions are no records"
        assert behind["retail.ordering.catalogue.v1"] == 0
        assert [command["aggregate"] for command in found["open_commands"]] == ["order-1", "order-2"]
        assert found["quarantined"] == {"payments.payments": 1}
        assert result.exit_code == 1, "where no Redis is named, the positions of views cannot be found out"

    def test_topics_that_fit_are_said_so(self, tmp_path: Path, variables: dict[str, str]) -> None:
        assert run(tmp_path, "topics", "plan", **variables).exit_code == 0
        assert self.json(run(tmp_path, "topics", "apply", "--json", **variables))["made"] == []

    def test_another_number_of_partitions_is_refused_naming_both(self, tmp_path: Path, variables: dict[str, str]) -> None:
        result = run(tmp_path, "topics", "apply", **{**variables, "BACKBONE_PARTITIONS": "5"})
        assert result.exit_code == 1
        assert "has 4 partitions on this cluster, the platform has 5" in result.stderr

    def test_a_strange_cluster_is_refused(self, tmp_path: Path, variables: dict[str, str]) -> None:
        result = run(tmp_path, "topics", "plan", **{**variables, "KAFKA_CLUSTER_ID": "another"})
        assert result.exit_code == 1
        assert "another" in result.stderr

    def test_the_doctor_finds_the_cluster_and_its_topics_well(self, tmp_path: Path, variables: dict[str, str]) -> None:
        found = {finding["about"]: finding for finding in json.loads(run(tmp_path, "doctor", "--json", **variables).output)}
        assert found["kafka"]["verdict"] == found["topics"]["verdict"] == "good"

    def json(self, result: Result) -> Any:
        assert result.exit_code == 0, result.stderr
        return json.loads(result.output)
