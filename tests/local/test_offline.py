"""After the first set-up nothing is fetched: proved where a network namespace can be made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from backbone.local.kafka import Kafka

pytestmark = pytest.mark.integration

# In a new network namespace even the loopback address is down; 0x8914 is SIOCSIFFLAGS, 0x1 is IFF_UP.
PROGRAM = """
import fcntl, socket, struct, sys
from pathlib import Path
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x1))
names = [name for _, name in socket.if_nameindex()]
assert names == ["lo"], f"not cut off: {names}"
from backbone.local.stack import Stack
with Stack(Path(sys.argv[1]), ("ordering",), variables={}) as stack:
    stack.start_infrastructure()
    print("started offline")
"""


def test_a_stack_starts_without_a_network(kafka: Kafka, tmp_path: Path) -> None:
    """`kafka` has fetched what there is to fetch."""
    unshare = ["unshare", "--map-root-user", "--net"]
    try:
        probe = subprocess.run([*unshare, "true"], check=False, capture_output=True, text=True, timeout=20)
    except FileNotFoundError:
        pytest.skip("no `unshare` here")
    if probe.returncode != 0:
        pytest.skip(f"no network namespace can be made here: {probe.stderr.strip()}")
    done = subprocess.run(
        [*unshare, sys.executable, "-c", PROGRAM, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("started offline\n")
