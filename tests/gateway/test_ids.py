"""The id of an order and the digest of its content: what they depend on, and what they do not."""

from __future__ import annotations

import re
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone.errors import SettingsError
from gateway import ids
from tests.gateway.fakes import KEY, an_order, line

NAMES = st.text(min_size=1, max_size=20)


def test_the_id_of_an_order_never_changes() -> None:
    """Golden: another recipe would turn every retry after an upgrade into a second order."""
    assert ids.order_id(KEY, "ann", "k1") == "2yzg5db3f73kqd65ethrvfstugujscs5"


def test_the_fingerprint_of_an_order_never_changes() -> None:
    """Golden: another recipe would refuse every retry after an upgrade."""
    assert ids.fingerprint(an_order(line("a", 2, 11, 770_000_000))) == "4ef1f9fe8713e24ccae5a725f774f91fa68a4781b4716b1c913755b8158d956e"


@given(NAMES, NAMES, NAMES, NAMES)
def test_two_pairs_of_principal_and_key_never_share_an_id(p1: str, k1: str, p2: str, k2: str) -> None:
    assert (ids.order_id(KEY, p1, k1) == ids.order_id(KEY, p2, k2)) == ((p1, k1) == (p2, k2))


def test_an_id_is_a_key_that_is_easy_to_read_and_impossible_to_guess() -> None:
    made = ids.order_id(KEY, "ann", "k1")
    assert re.fullmatch("[a-z2-7]{32}", made)
    assert made != ids.order_id(b"j" * 32, "ann", "k1")


def test_the_fingerprint_covers_what_the_client_wants_and_nothing_else() -> None:
    same = ids.fingerprint(an_order(line("a"), wait_s=1))
    assert same == ids.fingerprint(an_order(line("a"), wait_s=20)) == ids.fingerprint(an_order(line("a")))
    others = [
        an_order(line("b")),
        an_order(line("a", quantity=3)),
        an_order(line("a", units=12)),
        an_order(line("a", nanos=780_000_000)),
        an_order(line("a", currency="EUR")),
        an_order(line("a"), zone="south"),
        an_order(line("a"), line("a")),
    ]
    assert len({same, *map(ids.fingerprint, others)}) == len(others) + 1


def test_fields_cannot_be_shifted_into_one_another() -> None:
    assert ids.fingerprint(an_order(line("a"), zone="north")) != ids.fingerprint(an_order(line("ha"), zone="nort"))


def test_the_key_is_made_once_and_survives(tmp_path: Path) -> None:
    file = tmp_path / "secrets" / "order-id.key"
    made = ids.secret_key(file)
    assert len(made) == 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert ids.secret_key(file) == made
    assert [entry.name for entry in file.parent.iterdir()] == ["order-id.key"]


def test_gateways_that_start_together_share_one_key(tmp_path: Path) -> None:
    found: list[bytes] = []
    gate = threading.Barrier(8)

    def start() -> None:
        gate.wait()
        found.append(ids.secret_key(tmp_path / "key"))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_key_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "key"
    ids.secret_key(file)
    file.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        ids.secret_key(file)


def test_a_cut_key_is_refused_and_never_replaced(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"short")
    file.chmod(0o600)
    with pytest.raises(SettingsError, match="holds 5 bytes"):
        ids.secret_key(file)
    assert file.read_bytes() == b"short"


def test_a_key_that_cannot_be_made_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="ORDER_ID_KEY_FILE="):
        ids.secret_key(tmp_path / "file" / "key")
