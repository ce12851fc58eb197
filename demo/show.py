"""Live progress: a table on a terminal, a line every two seconds elsewhere."""

from __future__ import annotations

import asyncio
import time

from rich.console import Console
from rich.live import Live
from rich.table import Table

from demo.placing import Progress

LINE_EVERY_S = 2.0
TABLE_EVERY_S = 0.25


async def show(progress: Progress, console: Console, done: asyncio.Event) -> None:
    """Show progress until `done`, and the last state of it."""
    began = time.monotonic()
    if not console.is_terminal:
        while not await _within(done, LINE_EVERY_S):
            console.print(line(progress, time.monotonic() - began))
        console.print(line(progress, time.monotonic() - began))
        return
    with Live(table(progress, 0.0), console=console, auto_refresh=False) as live:
        while not await _within(done, TABLE_EVERY_S):
            live.update(table(progress, time.monotonic() - began), refresh=True)
        live.update(table(progress, time.monotonic() - began), refresh=True)


async def _within(done: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(done.wait(), seconds)
    except TimeoutError:
        return False
    return True


def figures(progress: Progress, seconds: float) -> list[tuple[str, str]]:
    """What there is to tell, by name."""
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(progress.reasons().items()))
    return [
        ("placed", f"{progress.placed:,} of {progress.wanted:,}"),
        ("confirmed", f"{progress.confirmed:,}"),
        ("rejected", f"{progress.rejected:,}" + (f" ({reasons})" if reasons else "")),
        ("waiting", f"{progress.waiting:,}"),
        ("p50", f"{progress.quantile(0.5) * 1000:.0f} ms"),
        ("p99", f"{progress.quantile(0.99) * 1000:.0f} ms"),
        ("answers/s", f"{len(progress.answers) / seconds if seconds else 0:.0f}"),
    ]


def line(progress: Progress, seconds: float) -> str:
    """Progress in one line."""
    return f"{seconds:5.1f} s  " + "  ".join(f"{name} {value}" for name, value in figures(progress, seconds))


def table(progress: Progress, seconds: float) -> Table:
    """Progress as a table."""
    grid = Table(title=f"orders, {seconds:.1f} s", title_justify="left", show_header=False, min_width=48)
    for name, value in figures(progress, seconds):
        grid.add_row(name, value)
    return grid
