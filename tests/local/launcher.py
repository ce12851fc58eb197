"""A launcher for tests to kill: `python -m tests.local.launcher FOLDER [--kafka] [--child CODE]...`.

Prints one JSON line of pids by name once all are ready, then lines of the stack, until it is interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from backbone.local.processes import ProcessSpec, recorded
from backbone.local.stack import Stack


def say(line: str) -> None:
    """Prints at once, since the test reads along."""
    print(line, flush=True)


def main() -> None:
    """Runs a stack with a Valkey `ordering`, and one Python process `child-N` per `--child`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--child", action="append", default=[])
    arguments = parser.parse_args()
    with Stack(arguments.folder, ("ordering",), announce=say) as stack:
        stack.start_infrastructure()
        codes = enumerate(arguments.child)
        stack.run([ProcessSpec(f"child-{number}", (sys.executable, "-c", code)) for number, code in codes])
        pids = {name: [identity.pid for identity in found] for name, found in recorded(stack.folder).items()}
        stack.until_interrupted(up=json.dumps(pids))


if __name__ == "__main__":
    main()
