"""`make bench`: every bench, its table, and .backbone/bench.json."""

from __future__ import annotations

from pathlib import Path

from benchmarks import decide_loop
from benchmarks.side_by_side import report

if __name__ == "__main__":
    report(decide_loop.run(), Path(".backbone/bench.json"))
