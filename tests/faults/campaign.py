"""A campaign: faults of chosen kinds, one after the other, on a shop at work; and what the checker says of all of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from unittest.mock import patch

from redis.exceptions import RedisError

from backbone.local import platform
from backbone.local.ports import free_port
from backbone.local.stack import Stack
from tests.adapters.proxy import Proxy
from tests.checker.check import Judgement, judge
from tests.checker.reading import views, world
from tests.checker.world import Finding, Sample
from tests.e2e.running import HISTORY, TEST_ARTICLES, Shop, a_shop
from tests.faults.kinds import KINDS, Field, wait
from tests.faults.load import Load

LOST = ("acknowledged", "skipped", "law: answered", "law: done", "law: receipts", "complete")
DUPLICATED = ("one reaction", "one outcome", "unique ids", "idempotent", "law: one answer", "law: unique ids", "law: provider")
STALE = ("view", "fresh", "honest", "absence", "expiry")
"""Rules by what was done to an order when one is broken; all others tell of something torn."""

RECOVERS_S = 90.0
"""How long an order that is placed after a fault may take before it counts as lost time for good."""
CALM_S = 2.0
SAMPLES_EVERY_S = 3.0
MOST_SAMPLES = 400
PLENTY = [(sku, cents) for sku, cents in TEST_ARTICLES.items() if cents and sku not in ("T-FEW", "T-LAST", "T-PRICE")]


@dataclass(slots=True)
class Struck:
    """One fault that happened: when, by the clock of the machine, and what proves that it has bitten."""

    kind: str
    from_s: float
    until_s: float
    proof: str | None
    orders: int = 0
    recovery_s: float | None = None


@dataclass(slots=True)
class Line:
    """One line of the table."""

    fault: str
    times: int = 0
    bitten: int = 0
    orders: int = 0
    lost: int = 0
    duplicated: int = 0
    torn: int = 0
    stale: int = 0
    recovery_p50_s: float = 0.0
    recovery_p95_s: float = 0.0


@dataclass(slots=True)
class Report:
    """What a campaign showed."""

    seed: int
    minutes: float
    orders: int
    lines: list[Line]
    struck: list[Struck]
    findings: list[str]
    defects: list[str]
    judged: Judgement | None = field(default=None, repr=False)

    @property
    def well(self) -> bool:
        """Nothing lost, duplicated, torn or stale; everybody recovered."""
        return not self.findings and not self.defects and all(one.recovery_s is not None for one in self.struck)


@contextmanager
def shop_behind_proxy(folder: Path) -> Iterator[tuple[Shop, Proxy]]:
    """A shop all of whose clients reach Kafka through a proxy."""
    port = free_port()
    started: list[int] = []

    class Watched(Stack):
        """Notes where Kafka listens before it starts."""

        def port(self, name: str) -> int:
            chosen = super().port(name)
            if name == "kafka":
                started.append(chosen)
            return chosen

    behind = partial(Watched, kafka_settings={"advertised.listeners": f"CLIENT://127.0.0.1:{port}"})
    with Proxy(port, lambda: started[-1]) as proxy, patch.object(platform, "Stack", behind), a_shop(folder) as shop:
        yield shop, proxy


def campaign(
    folder: Path,
    kinds: Sequence[str],
    seed: int,
    minutes: float,
    say: Callable[[str], None],
    *,
    at_once: int = 8,
    rounds: int | None = None,
) -> Report:
    """Let faults come until the time is over, each kind at least once; then let all come to rest, and judge.

    Args:
        folder: where the stack lies.
        kinds: names of the kinds, drawn from again and again.
        rounds: how often each kind comes, whatever the time; as often as there is time if not given.
    """
    lot = Random(seed)
    with shop_behind_proxy(folder) as (shop, proxy):
        struck: list[Struck] = []
        with sampled(shop) as samples, Load(shop.here.grpc, shop.history, PLENTY, seed, at_once) as load:
            at = Field(shop, load, proxy, lot)
            wait(lambda: len(load.answered) >= at_once, RECOVERS_S)
            until = time.monotonic() + 60 * minutes
            for kind in _drawn(lot, kinds, until, rounds):
                struck.append(_strike(at, kind))
                last = struck[-1]
                recovered = "never" if last.recovery_s is None else f"after {last.recovery_s:.1f} s"
                say(f"{kind}: {last.proof or 'did not bite'}; answers again {recovered}, {len(load.answered)} orders so far")
                if last.recovery_s is None:
                    break
        shop.rest(180.0)
        judged = judge(world(folder / "stack", folder / "stack" / HISTORY, tuple(samples)))
        answered, defects = len(load.answered), list(load.defects)
    return Report(seed, minutes, answered, table(struck, judged), struck, [str(one) for one in judged.smallest()], defects, judged)


def _drawn(lot: Random, kinds: Sequence[str], until: float, rounds: int | None) -> Iterator[str]:
    done = 0
    while rounds is None or done < rounds:
        order = lot.sample(list(kinds), len(kinds))
        for kind in order:
            if rounds is None and done and time.monotonic() > until:
                return
            yield kind
        done += 1
        if rounds is None and time.monotonic() > until:
            return


def _strike(at: Field, kind: str) -> Struck:
    before, from_s, since_s = at.answered(), time.time(), time.monotonic()
    at.forget()
    proof = KINDS[kind](at)
    ended_s = time.monotonic()
    # What kills or cuts has bitten at once; from then on the shop has to recover, while the slot starts again.
    since_s = since_s if kind.startswith("kill") else ended_s
    wait(lambda: at.load.recovered_s(ended_s) is not None, RECOVERS_S)
    recovery_s = at.load.recovered_s(ended_s)
    time.sleep(CALM_S)
    until_s = time.time()
    at.shop.history.disturbed(kind, from_s, until_s)
    took_s = None if recovery_s is None else at.took_s or recovery_s + ended_s - since_s
    return Struck(kind, from_s, until_s, proof, at.answered() - before, took_s)


def table(struck: Sequence[Struck], judged: Judgement) -> list[Line]:
    """The faults by kind, with what was done to orders while they lasted."""
    lines: dict[str, Line] = {}
    for one in struck:
        line = lines.setdefault(one.kind, Line(one.kind))
        line.times += 1
        line.bitten += one.proof is not None
        line.orders += one.orders
    for kind, line in lines.items():
        took = sorted(one.recovery_s for one in struck if one.kind == kind and one.recovery_s is not None and one.proof is not None)
        if took:
            line.recovery_p50_s = took[len(took) // 2]
            line.recovery_p95_s = took[min(len(took) - 1, int(0.95 * len(took)))]
    for finding in judged.findings:
        line = lines.setdefault(_kind_at(finding, struck, judged), Line("in between"))
        if finding.rule in LOST:
            line.lost += 1
        elif finding.rule in DUPLICATED:
            line.duplicated += 1
        elif finding.rule in STALE:
            line.stale += 1
        else:
            line.torn += 1
    return list(lines.values())


def _kind_at(finding: Finding, struck: Sequence[Struck], judged: Judgement) -> str:
    """The fault that was at work when the last witness was appended."""
    at_s = max((judged.at_ms.get(place, 0) / 1000 for place in finding.witnesses), default=0.0)
    return next((one.kind for one in struck if one.from_s <= at_s <= one.until_s), "in between")


@contextmanager
def sampled(shop: Shop) -> Iterator[list[Sample]]:
    """Look at every view now and then, until the block is left; of many looks as many are kept as can be judged, from all of the time."""
    taken: list[Sample] = []
    lot = Random(MOST_SAMPLES)
    looks = 0
    stop = threading.Event()

    def look() -> None:
        nonlocal looks
        while not stop.wait(SAMPLES_EVERY_S):
            try:
                for one in views(shop.here.stack.state.redis, shop.here.stack.state.partitions, final=False):
                    looks += 1
                    if len(taken) < MOST_SAMPLES:
                        taken.append(one)
                    elif (instead := lot.randrange(looks)) < MOST_SAMPLES:
                        taken[instead] = one
            except RedisError:
                continue  # that is what happens to it here

    thread = threading.Thread(target=look, name="samples", daemon=True)
    thread.start()
    try:
        yield taken
    finally:
        stop.set()
        thread.join(30.0)


def written(report: Report) -> str:
    """A report as JSON."""
    return json.dumps(
        {
            "seed": report.seed,
            "minutes": report.minutes,
            "orders": report.orders,
            "table": [asdict(line) for line in report.lines],
            "struck": [asdict(one) for one in report.struck],
            "findings": report.findings,
            "defects": report.defects,
        },
        indent=1,
    )


def as_text(report: Report) -> str:
    """A report as a table."""
    head = f"{'fault':<32}{'times':>6}{'bit':>5}{'orders':>8}{'lost':>6}{'dupl.':>7}{'torn':>6}{'stale':>7}{'p50 s':>8}{'p95 s':>8}"
    rows = [
        f"{line.fault:<32}{line.times:>6}{line.bitten:>5}{line.orders:>8}{line.lost:>6}{line.duplicated:>7}{line.torn:>6}{line.stale:>7}"
        f"{line.recovery_p50_s:>8.1f}{line.recovery_p95_s:>8.1f}"
        for line in report.lines
    ]
    lines = [head, *rows, "", *(f"BROKEN  {text}" for text in report.findings), *(f"DEFECT  {text}" for text in report.defects[:10])]
    judged = report.judged
    if judged is not None:
        lines.append(
            f"{report.orders} orders answered, {judged.records} records, {judged.aborted} of them aborted, {judged.calls} calls, "
            f"{judged.samples} looks at a view, {judged.set_aside} records set aside; seed {report.seed}"
        )
    return "\n".join(lines)
