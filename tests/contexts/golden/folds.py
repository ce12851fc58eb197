"""Recorded histories of every decider and view, and what they folded to: what a restored state or a kept row relies on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from backbone.contract import said_by
from backbone.declare import Decider, View
from backbone.testing.rows import rows_of
from backbone.testing.scenario import scenario
from contexts.fulfilment.stock import service as stock
from contexts.ordering.orders import service as orders
from contexts.ordering.pricing import service as pricing
from contexts.payments.payments import service as payments
from contexts.payments.risk import service as risk
from gateway import service as door
from tests import examples as say

FOLDER = Path(__file__).parent
History = Sequence[Message]


@dataclass(frozen=True)
class Fold:
    """A decider or view with histories worth recording.

    Attributes:
        name: of its file.
        version: what it calls its fold.
        fold: what a history folds to, as text.
        knows: classes of what it folds.
    """

    name: str
    version: int
    fold: Callable[[History], str]
    knows: Sequence[type[Message]]
    histories: Sequence[History]

    @property
    def file(self) -> Path:
        """Where it is recorded."""
        return FOLDER / f"{self.name}.json"


def of_decider(name: str, decider: Decider[Any, Any], *histories: History) -> Fold:
    """The states of a decider."""
    return Fold(name, decider.version, lambda history: repr(scenario(decider).given(*history).state()), said_by(decider), histories)


def of_view(name: str, view: View[Any], *histories: History) -> Fold:
    """The rows of a view."""

    def fold(history: History) -> str:
        return str({key: _shown(row) for key, row in sorted(rows_of(view, *history).items())})

    return Fold(name, view.version, fold, [line.hears for line in view.table], histories)


def _shown(row: Message) -> dict[str, Any]:
    """A row as text is made of it; the entries of a map have no order of their own."""
    shown = json_format.MessageToDict(row, preserving_proto_field_name=True)
    maps = [f.name for f in row.DESCRIPTOR.fields if f.message_type is not None and f.message_type.GetOptions().map_entry]
    return shown | {name: dict(sorted(shown[name].items())) for name in maps if name in shown}


FOLDS = [
    of_decider("ordering.pricing", pricing.decider, [say.price_listed()], [say.price_listed(), say.price_listed(unit_price=say.usd(5))]),
    of_decider(
        "ordering.orders",
        orders.decider,
        [say.order_validated()],
        [say.order_validated(), say.order_reserved()],
        [say.order_validated(), say.order_paid()],
        [say.order_validated(), say.order_reserved(), say.order_paid(), say.order_confirmed(), say.order_cancellation_refused()],
        [say.order_rejected()],
        [say.order_validated(), say.order_cancelled()],
        [say.order_cancellation_refused()],
    ),
    of_decider(
        "payments.payments",
        payments.decider,
        [say.payment_started(), say.assess_risk()],
        [say.payment_started(), say.payment_assessed(), say.authorize_card()],
        [say.payment_started(), say.payment_assessed(), say.payment_authorized(), say.capture_card(), say.payment_captured()],
        [say.payment_started(), say.payment_assessed(), say.payment_declined(), say.void_card()],
        [say.payment_started(), say.payment_abandoned(), say.payment_voided()],
    ),
    of_decider(
        "fulfilment.stock",
        stock.decider,
        [say.stock_received(), say.stock_level_changed()],
        [say.stock_received(), say.stock_received(sku="CD-2", receipt_id="note-1/2"), say.items_reserved()],
        [say.stock_received(), say.items_reserved(lines={"CD-1": 2}), say.reservation_released(lines={"CD-1": 2})],
        [say.stock_received(), say.reservation_refused()],
    ),
    of_view("ordering.orders.availability", orders.availability, [say.stock_level_changed(reserved=2)]),
    of_view("ordering.orders.price", orders.prices, [say.price_listed(), say.price_listed(sku="CD-0", unit_price=say.usd(0))]),
    of_view(
        "payments.risk.customer_history",
        risk.histories,
        [say.payment_authorized(), say.payment_captured(), say.payment_declined("order-2"), say.payment_voided("order-3")],
    ),
    of_view("gateway.door.request_row", door.requests, [say.order_requested(), say.order_requested(customer_id="customer-2")]),
    of_view(
        "gateway.door.order_row",
        door.orders,
        [say.order_validated(), say.order_reserved(), say.order_paid()],
        [say.order_validated(), say.order_confirmed(), say.order_cancellation_refused()],
        [say.order_rejected(skus=["CD-1"])],
        [say.order_validated(), say.order_cancelled()],
    ),
]


def record(fold: Fold) -> Path:
    """Write down what a fold gives now."""
    histories = [
        {
            "said": [{type(one).DESCRIPTOR.name: json_format.MessageToDict(one, preserving_proto_field_name=True)} for one in history],
            "gives": fold.fold(history),
        }
        for history in fold.histories
    ]
    fold.file.write_text(json.dumps({"version": fold.version, "histories": histories}, indent=1) + "\n")
    return fold.file


def recorded(fold: Fold) -> tuple[int, Sequence[tuple[History, str]]]:
    """The version that was recorded, and each history with what it gave."""
    classes = {one.DESCRIPTOR.name: one for one in fold.knows}
    found = json.loads(fold.file.read_text())
    histories = [
        ([json_format.ParseDict(said, classes[name]()) for one in history["said"] for name, said in one.items()], history["gives"])
        for history in found["histories"]
    ]
    return found["version"], histories
