"""What a command finds where it is started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backbone.errors import ContractError, SettingsError
from backbone.local.locks import try_lock
from backbone.local.state import StackState, write_state
from backbone.operations.checkout import Checkout, find_checkout
from backbone.topology import topology

ROOT = Path(__file__).resolve().parents[2]
STATE = StackState(partitions=3, cluster_id="c1", kafka="127.0.0.1:9", redis={"ordering": "redis://127.0.0.1:8/0"})


def made(tmp_path: Path, pyproject: str = "", **variables: str) -> Checkout:
    (tmp_path / "pyproject.toml").write_text(pyproject)
    return find_checkout(start=tmp_path, variables=variables)


def test_this_checkout_declares_the_shop() -> None:
    found = find_checkout(start=ROOT / "tests", variables={})
    assert found.root == ROOT
    assert found.contracts == "retail"
    assert [context.name for context in found.platform().contexts] == ["ordering", "payments", "fulfilment", "gateway"]


def test_every_file_that_the_shop_takes_in_is_in_this_checkout() -> None:
    """So that `make up` starts with articles and stock."""
    found = find_checkout(start=ROOT, variables={})
    assert set(found.files()) == {outside.name for outside in found.platform().outside if outside.file}


def test_contexts_and_gateway_are_found_by_their_names() -> None:
    found = find_checkout(start=ROOT, variables={})
    assert found.context("ordering").name == "ordering"
    assert found.context("gateway").name == "gateway"


def test_an_unknown_context_is_refused_naming_those_there_are() -> None:
    with pytest.raises(SettingsError, match=r"no context 'nowhere'.*fulfilment, gateway, ordering, payments"):
        find_checkout(start=ROOT, variables={}).context("nowhere")


def test_the_environment_overrules_pyproject(tmp_path: Path) -> None:
    found = made(tmp_path, '[tool.backbone]\nplatform = "a:b"\n', BACKBONE_PLATFORM="shop:shop", BACKBONE_FOLDER=str(tmp_path / "x"))
    assert found.declared == "shop:shop"
    assert found.folder == tmp_path / "x"


def test_without_a_word_there_is_no_platform(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="BACKBONE_PLATFORM"):
        made(tmp_path).platform()


def test_a_context_alone_is_a_platform_of_one() -> None:
    found = find_checkout(start=ROOT, variables={"BACKBONE_PLATFORM": "contexts.payments.context:payments"}).platform()
    assert [context.name for context in found.contexts] == ["payments"]
    topics = {topic.name for topic in topology(found).topics}
    assert "retail.payments.payments.v1" in topics
    assert not [name for name in topics if ".ordering." in name]


@pytest.mark.parametrize("name", ["ordering", "payments", "fulfilment"])
def test_the_topology_of_a_context_alone_does_not_miss_the_others(name: str) -> None:
    found = find_checkout(start=ROOT, variables={"BACKBONE_PLATFORM": f"contexts.{name}.context:{name}"})
    assert found.contracts
    assert {service.partition(".")[0] for service in found.topology().services} == {name}


def test_a_platform_without_the_writer_of_a_topic_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lonely.py").write_text(
        "from backbone.declare import Platform\nfrom contexts.payments.context import payments\nshop = Platform(payments)\n"
    )
    found = made(tmp_path, '[tool.backbone]\nplatform = "lonely:shop"\ncontracts = "retail"\n')
    with pytest.raises(ContractError, match="which is no service"):
        found.topology()


def test_a_platform_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not a Platform"):
        made(tmp_path, '[tool.backbone]\nplatform = "json:dumps"\n').platform()


def test_a_module_that_imports_what_is_missing_is_not_taken_for_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy differs: the place is right, something it needs is not there."""
    (tmp_path / "needy_platform.py").write_text("import nothing_of_that_name\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SettingsError, match=r"needy_platform cannot be imported.*make protos"):
        made(tmp_path, '[tool.backbone]\nplatform = "needy_platform:p"\n').platform()


def test_a_pyproject_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be understood"):
        made(tmp_path, "[tool.backbone\n")


def test_files_that_stand_for_the_outside_must_be_there(tmp_path: Path) -> None:
    found = made(tmp_path, '[tool.backbone.outside]\ncatalogue = "catalogue.csv"\n')
    with pytest.raises(SettingsError, match=r"catalogue is .*catalogue\.csv, and there is no such file"):
        found.files()
    (tmp_path / "catalogue.csv").write_text("sku\n")
    assert found.files() == {"catalogue": tmp_path / "catalogue.csv"}


def test_without_a_stack_the_way_to_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="`backbone up`"):
        made(tmp_path).settings()


def test_a_stopped_stack_is_told_from_none(tmp_path: Path) -> None:
    found = made(tmp_path)
    found.folder.mkdir()
    write_state(found.folder, STATE)
    with pytest.raises(SettingsError, match="is stopped"):
        found.settings()


def test_where_another_stack_runs_is_told(tmp_path: Path) -> None:
    """A demonstration's lies in the folder of the one that is asked for."""
    found = made(tmp_path)
    demo, ended = found.folder / "demo", found.folder / "outage"
    for folder in (demo, ended):
        folder.mkdir(parents=True)
    (ended / "lock").write_text("1 0.0\n")
    lock = try_lock(demo / "lock")
    assert lock is not None
    try:
        with pytest.raises(SettingsError, match=rf"ever started.*; one runs in {demo}: name it by --folder"):
            found.settings()
        write_state(found.folder, STATE)
        with pytest.raises(SettingsError, match=rf"is stopped.*; one runs in {demo}: name it by --folder"):
            found.settings()
    finally:
        lock.release()


def test_a_running_stack_gives_its_addresses(tmp_path: Path) -> None:
    found = made(tmp_path)
    found.folder.mkdir()
    write_state(found.folder, STATE)
    lock = try_lock(found.folder / "lock")
    assert lock is not None
    try:
        settings = found.settings()
        assert (settings.kafka, settings.cluster_id, settings.partitions) == ("127.0.0.1:9", "c1", 3)
        assert found.launcher == os.getpid()
        assert found.redis_url("ordering") == "redis://127.0.0.1:8/0"
    finally:
        lock.release()


def test_servers_named_by_the_environment_come_first(tmp_path: Path) -> None:
    found = made(tmp_path, KAFKA_BOOTSTRAP_SERVERS="there:1", ORDERING_REDIS_URL="redis://there:2/0")
    assert found.settings().kafka == "there:1"
    assert found.redis_url("ordering") == "redis://there:2/0"
    assert found.redis_url("payments") is None
