"""`python -m demo.plug_in`: a new service joins the running shop: it reads the whole history and serves, and nobody else notices.

Exit codes: 0 all that is claimed is so, 1 something is not, 2 it could not be shown.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from google.type.money_pb2 import Money

from backbone.adapters.kafka_admin import KafkaAdmin, TopicSpec
from backbone.errors import BackboneError
from backbone.local.platform import RunningPlatform
from backbone.operations import topics
from demo import newcomer
from demo.account import Account, changed, identities, shown
from demo.newcomer import Spent
from demo.placing import Progress, place_all
from demo.purchases import Purchase, read_purchases, scarce_stock
from demo.rest import Restless
from demo.stage import staged
from laws import log
from laws.__main__ import dollars
from shop import shop

FOLDER = Path(".backbone/plug-in")
ANSWERS_WITHIN_S = 60.0
AT_ONCE = 8
SHOWN = 3
HEARS = "retail.ordering.orders-by-customer.v1"
"""What the new service reads: a copy that lies there for whoever wants it."""
ITS_OWN = "private.insight.spending.quarantine"
NOT_OURS = ("__pycache__", "build", "dist")


@dataclass(frozen=True, slots=True)
class Options:
    """What is shown.

    Attributes:
        customers: how many there are; each orders twice before the new service comes, and once more afterwards.
        folder: where the log lies; emptied first.
    """

    customers: int = 20
    folder: Path = FOLDER


def main(arguments: Sequence[str] | None = None) -> int:
    """Show it; see the exit codes above."""
    options = _options(arguments)
    account = Account()
    try:
        plug_in(options, account)
    except KeyboardInterrupt:
        print("interrupted")
        return 2
    except grpc.RpcError as error:
        print(f"plug-in: no answer, {error.code().name}: {error.details()}", file=sys.stderr)
        return 2
    except (BackboneError, Restless, log.Unreadable) as error:
        print(f"plug-in: {error}", file=sys.stderr)
        return 2
    return account.end()


def plug_in(options: Options, account: Account) -> None:
    """Show it; what is not as claimed is in `account.wrong`."""
    earlier, later = _of_loyal_customers(options.customers)
    # Of some articles there is one too few, so that some orders are rejected: those must not count.
    with staged(options.folder, [*earlier, *later], scarce_stock([*earlier, *later]), account) as here:
        _place(here, earlier, account)
        files, processes, made = tree(newcomer.ROOT), identities(here), _topics(here)
        account.say(f"{len(files)} files in the checkout, {len(made)} topics, {len(processes)} processes (process id @ start time):")
        account.more(shown(processes))
        with tempfile.TemporaryDirectory(prefix="backbone-newcomer-") as name:
            _join(here, Path(name), later, account)
        account.heading("what the others noticed")
        touched = differences(files, tree(newcomer.ROOT))
        account.claim(f"no file of the checkout changed ({_digest(files)})", not touched, ", ".join(touched[:10]))
        restarted = changed(processes, identities(here))
        account.claim("no other process was restarted", not restarted, ", ".join(restarted))
        kept = {topic: spec for topic, spec in _topics(here).items() if topic in made}
        plan = topics.plan(shop, here.log)
        account.claim(f"the shop's topics are as they were ({plan})", kept == made and plan.fits, "; ".join(plan.lines()))
        account.claim("beside them is only where the new service sets aside", plan.foreign == (ITS_OWN,), ", ".join(plan.foreign))


def _join(here: RunningPlatform, folder: Path, later: Sequence[Purchase], account: Account) -> None:
    account.heading("a new service")
    for path in newcomer.generate(folder):
        account.say(f"{path}:")
        account.more(["", *path.read_text(encoding="utf-8").splitlines(), ""])
    account.say(f"its topics are made: {', '.join(newcomer.make_topics(folder, here.stack.state))}")
    began = time.monotonic()
    with newcomer.plugged_in(folder, here.stack.state) as address:
        account.say(f"it runs with a Valkey of its own, and is ready after {time.monotonic() - began:.1f} s at {address}")
        _claim_knows_all(here, address, "it has read the whole history, from before it existed", account)
        _place(here, later, account)
        _claim_knows_all(here, address, "it follows", account)


def _claim_knows_all(here: RunningPlatform, address: str, text: str, account: Account) -> None:
    """What the service says, against what the log says to somebody who reads another topic with other code."""
    kafka = here.kafka()
    ends = log.ends(kafka, [HEARS])
    began = time.monotonic()
    said = newcomer.best_customers(address, 1000, ends)
    took_ms = (time.monotonic() - began) * 1000
    told = fold(kafka)
    account.say(f"asked who spent most, knowing all that the log holds by now, it answers within {took_ms:.0f} ms:")
    account.more(f"{one.customer}  {one.orders} orders  {one.articles:>3} articles  {dollars(one.cents):>12}" for one in said[:SHOWN])
    account.more([f"... {len(said)} customers in all"])
    in_order = [one.cents for one in said] == sorted((one.cents for one in said), reverse=True)
    account.claim(
        f"{text}: {sum(one.orders for one in told)} confirmed orders of {len(told)} customers, {dollars(sum(one.cents for one in told))}",
        bool(said) and sorted(said) == sorted(told) and in_order,
        f"the log says {sorted(told)[-SHOWN:]}, it says {sorted(said)[-SHOWN:]}",
    )


def fold(kafka: Mapping[str, str]) -> list[Spent]:
    """Who bought how much, by the primary topic of orders and nothing of the new service.

    Args:
        kafka: options of librdkafka that say where the log is and as whom it is read.
    """
    found: dict[str, Spent] = {}
    for entry in log.read(kafka):
        if entry.name == "OrderConfirmed" and entry.place.topic == "retail.ordering.orders.v1":
            order = entry.event
            before = found.get(order.customer_id, Spent(0, order.customer_id, 0, 0))
            articles = before.articles + sum(line.quantity for line in order.lines)
            found[order.customer_id] = Spent(before.cents + _cents(order.total), order.customer_id, before.orders + 1, articles)
    return list(found.values())


def _cents(money: Money) -> int:
    return money.units * 100 + money.nanos // 10_000_000


def _place(here: RunningPlatform, purchases: Sequence[Purchase], account: Account) -> None:
    progress = Progress(len(purchases))
    asyncio.run(place_all(here.grpc, purchases, progress, AT_ONCE, ANSWERS_WITHIN_S))
    account.claim(
        f"{len(purchases)} orders are placed and answered: {progress.confirmed} confirmed, {progress.rejected} rejected",
        len(progress.answers) == len(purchases),
        "; ".join(f"{ref}: {why}" for ref, why in progress.defects.items()),
    )


def _of_loyal_customers(count: int) -> tuple[list[Purchase], list[Purchase]]:
    """The first two purchases of customers who came back at least twice, and their third."""
    of: dict[str, list[Purchase]] = {}
    for purchase in read_purchases():
        of.setdefault(purchase.customer, []).append(purchase)
    loyal = [purchases for purchases in of.values() if len(purchases) >= 3][:count]
    return [purchase for purchases in loyal for purchase in purchases[:2]], [purchases[2] for purchases in loyal]


def _topics(here: RunningPlatform) -> Mapping[str, TopicSpec]:
    return KafkaAdmin(here.log).describe()


def tree(root: Path) -> Mapping[str, str]:
    """SHA-256 of every file below a folder, by its path; what tools and runs leave in hidden folders and in caches is left out."""
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in _files(root)}


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in NOT_OURS:
            continue
        if path.is_dir():
            yield from _files(path)
        elif path.is_file():
            yield path


def _digest(files: Mapping[str, str]) -> str:
    return hashlib.sha256("".join(f"{name} {content}\n" for name, content in files.items()).encode()).hexdigest()[:16]


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """The files that changed, came or went."""
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


def _options(arguments: Sequence[str] | None) -> Options:
    default, environment = Options(), os.environ
    parser = argparse.ArgumentParser(prog="python -m demo.plug_in", description="A new service joins the running shop.")
    customers = int(environment.get("CUSTOMERS") or default.customers)
    parser.add_argument("--customers", type=int, default=customers, help="who order twice before it joins, once afterwards [CUSTOMERS, 20]")
    parser.add_argument("--folder", type=Path, default=default.folder, help=f"where its log lies; emptied first ({FOLDER})")
    given = parser.parse_args(arguments)
    if not 1 <= given.customers <= 500:
        parser.error(f"--customers is {given.customers}: a number from 1 to 500")
    return Options(given.customers, given.folder)


if __name__ == "__main__":
    sys.exit(main())
