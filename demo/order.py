"""`python -m demo.order --sku CD-01466 --qty 2`: one order to the platform that runs here, and where to read its story."""

from __future__ import annotations

import argparse
import os
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import grpc
from retail.gateway.v1.order_service_pb2 import Order, OrderRejectionReason, OrderStatus
from retail.gateway.v1.order_service_pb2_grpc import OrderServiceStub

from backbone.errors import BackboneError
from backbone.local.locks import holder
from backbone.local.state import read_state
from backbone.operations.checkout import FOLDER_VARIABLE
from demo.__main__ import FOLDER as OF_DEMO
from demo.placing import WAIT_S, asked
from demo.purchases import CATALOGUE, Line, read_prices, zone_of
from laws.__main__ import dollars

OF_UP = Path(".backbone")


def main(arguments: Sequence[str] | None = None) -> int:
    """Place it; 0 if it was answered, 1 if not, 2 if it could not be placed."""
    options = _options(arguments)
    prices = read_prices(options.catalogue)
    if options.sku not in prices and options.cents is None:
        print(
            f"order: {options.catalogue} has no {options.sku}; it has {', '.join(list(prices)[:3])}, ...; or name a price in --cents",
            file=sys.stderr,
        )
        return 2
    line = Line(options.sku, options.qty, prices[options.sku] if options.cents is None else options.cents)
    zone = options.zone or zone_of(options.customer)
    try:
        folder, address = (None, options.gateway) if options.gateway else _gateway(options.folder)
        began = time.monotonic()
        with grpc.insecure_channel(address) as channel:
            caller = (("x-principal", options.customer), ("idempotency-key", options.key or uuid.uuid4().hex))
            order = OrderServiceStub(channel).PlaceOrder(asked([line], zone), metadata=caller, timeout=WAIT_S + 5).order
    except BackboneError as error:
        print(f"order: {error}", file=sys.stderr)
        return 2
    except grpc.RpcError as error:
        print(f"order: {error.code().name}: {error.details()}", file=sys.stderr)
        return 2
    took_ms = round((time.monotonic() - began) * 1000)
    print(f"{line.quantity} x {line.sku} at {dollars(line.cents)} for {options.customer} in {zone}: {said(order)}, after {took_ms} ms")
    print(f"its story: {f'BACKBONE_FOLDER={folder} .venv/bin/' if folder else ''}backbone story {order.order_id}")
    return 1 if order.status == OrderStatus.ORDER_STATUS_PENDING else 0


def said(order: Order) -> str:
    """Where an order stands, in words."""
    if order.status == OrderStatus.ORDER_STATUS_PENDING:
        return "no answer yet"
    status = OrderStatus.Name(order.status).removeprefix("ORDER_STATUS_").lower()
    if order.status != OrderStatus.ORDER_STATUS_REJECTED:
        return status
    reason = OrderRejectionReason.Name(order.rejection_reason).removeprefix("ORDER_REJECTION_REASON_").lower().replace("_", " ")
    return f"{status}: {reason}" + (f" ({', '.join(order.rejected_skus)})" if order.rejected_skus else "")


def _gateway(folder: Path | None) -> tuple[Path, str]:
    """The folder of the stack that runs here, and its gateway.

    Raises:
        NothingRuns: none does.
    """
    for candidate in (folder,) if folder else (OF_UP, OF_DEMO):
        state = read_state(candidate)
        if state is not None and holder(candidate / "lock") is not None and "gateway.grpc" in state.ports:
            return candidate, f"127.0.0.1:{state.ports['gateway.grpc']}"
    raise NothingRuns(f"no platform runs in {folder or f'{OF_UP} or {OF_DEMO}'}: start one with `make up` or `make demo`")


class NothingRuns(BackboneError):
    """There is no platform to order from."""


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.order", description="One order to the platform that runs here.")
    parser.add_argument("--sku", required=True, help="what")
    parser.add_argument("--qty", type=int, default=1, help="how many (1)")
    parser.add_argument("--zone", default="", help="where to; by the customer if not given")
    parser.add_argument("--customer", default="C0001", help="who (C0001)")
    parser.add_argument("--cents", type=int, help="the price that was shown; the catalogue's if not given")
    parser.add_argument("--key", default="", help="idempotency key; a new one if not given")
    parser.add_argument("--catalogue", type=Path, default=CATALOGUE, help="where the price is looked up")
    parser.add_argument("--gateway", default="", help="host:port of a gateway elsewhere; the platform that runs here if not given")
    given = os.environ.get(FOLDER_VARIABLE)
    parser.add_argument("--folder", type=Path, default=Path(given) if given else None, help=f"where the platform lies [{FOLDER_VARIABLE}]")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
