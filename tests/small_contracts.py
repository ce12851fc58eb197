"""A platform of two contexts in forty lines of contract, compiled when a test runs; each test changes one thing of it."""

from __future__ import annotations

import importlib
import itertools
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Union

import grpc_tools
import pytest
from google.protobuf.message import Message
from grpc_tools import protoc

from backbone.declare import Context, Decider, Effect, Platform, Query, Service, View, on

PROTOS = Path(__file__).parents[1] / "protos"

_numbers = itertools.count(1)

HEAD = """
syntax = "proto3";
package {package};
import "backbone/v1/meta.proto";
import "backbone/v1/options.proto";
import "google/protobuf/timestamp.proto";
"""

FILES: Mapping[str, str] = {
    "ordering/v1/order": """
message OrderEvent {
  option (backbone.v1.topic) = {name: "ROOT.orders" key: "order_id" writer: "ordering.orders"};
  oneof event { OrderPlaced order_placed = 1; OrderClosed order_closed = 2; }
  backbone.v1.Meta meta = 15;
}
message OrderBySkuEvent {
  option (backbone.v1.topic) = {name: "ROOT.orders-by-sku" key: "sku" writer: "ordering.orders" copy_of: "ROOT.orders"};
  oneof event { OrderPlaced order_placed = 1; }
  backbone.v1.Meta meta = 15;
}
message OrderPlaced { string order_id = 1; string sku = 2; }
message OrderClosed { string order_id = 1; }
message Stray { string order_id = 1; }
""",
    "ordering/views/v1/rows": """
message OrderRow {
  option (backbone.v1.row) = {key: "order_id"};
  string order_id = 1;
}
service OrderViewService { rpc GetOrder(GetOrderRequest) returns (GetOrderResponse); }
message GetOrderRequest { string order_id = 1; }
message GetOrderResponse { OrderRow row = 1; }
""",
    "stocking/v1/stock": """
message StockEvent {
  option (backbone.v1.topic) = {name: "ROOT.stock" key: "sku" writer: "stocking.stock"};
  oneof event { StockMoved stock_moved = 1; }
  backbone.v1.Meta meta = 15;
}
message StockByOrderEvent {
  option (backbone.v1.topic) = {name: "ROOT.stock-by-order" key: "order_id" writer: "stocking.stock" copy_of: "ROOT.stock"};
  oneof event { StockMoved stock_moved = 1; }
  backbone.v1.Meta meta = 15;
}
message StockMoved { string sku = 1; string order_id = 2; }
""",
    "stocking/views/v1/rows": """
message StockRow {
  option (backbone.v1.row) = {key: "sku"};
  string sku = 1;
}
service StockViewService { rpc GetStock(GetStockRequest) returns (GetStockResponse); }
message GetStockRequest { string sku = 1; }
message GetStockResponse { StockRow row = 1; }
""",
    "stocking/effects/v1/stock": """
message StockCommand {
  option (backbone.v1.topic) = {name: "private.stocking.stock.commands" key: "sku" writer: "stocking.stock"};
  oneof command { FetchGoods fetch_goods = 1; }
  backbone.v1.Meta meta = 15;
}
message StockOutcome {
  option (backbone.v1.topic) = {name: "private.stocking.stock.outcomes" key: "sku" writer: "stocking.stock"};
  oneof outcome { GoodsFetched goods_fetched = 1; }
  backbone.v1.Meta meta = 15;
}
message FetchGoods { string sku = 1; google.protobuf.Timestamp answer_by = 2; }
message GoodsFetched { string sku = 1; }
""",
}


@dataclass(frozen=True)
class State:
    """Remembers nothing."""


def decide(state: State, came: Message, *found: object) -> Iterator[Any]:
    """Says nothing."""
    yield from ()


def fold(rows: object, came: Message) -> None:
    """Fills nothing."""


async def answer(rows: object, request: Message) -> Any:
    """Tells nothing."""


def decider(said: tuple[type[Message], ...], *table: Any) -> Decider[Any, Any]:
    """A decider that may say these messages."""

    def evolve(state: State, one: Any) -> State:
        return state

    evolve.__annotations__["one"] = Union[said]  # noqa: UP007 - of a tuple that is known when the test runs
    return Decider(State, evolve, *table)


def effect(connect: Any, *table: Any) -> Effect[Any]:
    """An effect that gives up without a word."""
    return Effect(connect, *table, gave_up=lambda command, error: command)


@dataclass
class Small:
    """The compiled contracts of one test, each message as an attribute, and what a right platform says about them.

    Attributes:
        root: package of all of them; unique, so that tests do not disturb each other.
        messages: every message and stub by name.
    """

    root: str
    messages: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        return self.messages[name]

    def orders(self, *more: Any, without: type | None = None) -> Service:
        """The service ordering.orders: a view, its query and a decider; `without` leaves pieces of a class out."""
        rows = View(self.OrderRow, on(self.OrderPlaced, fold), on(self.OrderClosed, fold))
        pieces = [
            rows,
            Query(rows, on(self.GetOrderRequest, answer)),
            decider((self.OrderPlaced, self.OrderClosed), on(self.StockMoved, decide)),
        ]
        return Service("orders", *(piece for piece in pieces if without is None or not isinstance(piece, without)), *more)

    def stock(self, *more: Any, without: type | None = None) -> Service:
        """The service stocking.stock: a view, its query, a decider and an effect."""
        rows = View(self.StockRow, on(self.StockMoved, fold))
        pieces = [
            rows,
            Query(rows, on(self.GetStockRequest, answer)),
            decider((self.StockMoved, self.FetchGoods), on(self.OrderPlaced, decide), on(self.GoodsFetched, decide)),
            effect(connect, on(self.FetchGoods, answer)),
        ]
        return Service("stock", *(piece for piece in pieces if without is None or not isinstance(piece, without)), *more)

    def platform(self, orders: Service | None = None, stock: Service | None = None) -> Platform:
        """Both contexts."""
        return Platform(Context("ordering", orders or self.orders()), Context("stocking", stock or self.stock()))


def connect(settings: object) -> Any:
    """Opens nothing: tables of the small contracts are read, and never run."""
    raise AssertionError("a table was to be read, not run")


class Compile:
    """Compiles the small contracts into a folder that is on the path for one test."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._monkeypatch = monkeypatch

    def __call__(self, *changes: tuple[str, str, str]) -> Small:
        """Compile them with some changes.

        Args:
            changes: (file, old text, new text); the old text must be there.
        """
        small = Small(f"small{next(_numbers)}")
        texts = dict(FILES)
        for file, old, new in changes:
            assert old in texts[file], f"{old!r} is not in {file}"
            texts[file] = texts[file].replace(old, new)
        out = self._folder / small.root
        for file, text in texts.items():
            source = out / f"{file}.proto"
            source.parent.mkdir(parents=True, exist_ok=True)
            package = f"{small.root}.{file.rpartition('/')[0].replace('/', '.')}"
            source.write_text(HEAD.format(package=package) + text.replace("ROOT", small.root))
        for folder in [out, *(path for path in out.rglob("*") if path.is_dir())]:
            (folder / "__init__.py").touch()
        includes = [f"-I{self._folder}", f"-I{PROTOS}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}"]
        outputs = [f"--python_out={self._folder}", f"--grpc_python_out={self._folder}"]
        assert protoc.main(["protoc", *includes, *outputs, *(f"{small.root}/{file}.proto" for file in texts)]) == 0
        self._monkeypatch.syspath_prepend(str(self._folder))
        for file in texts:
            for kind in ("pb2", "pb2_grpc"):
                small.messages.update(_classes(importlib.import_module(f"{small.root}.{file.replace('/', '.')}_{kind}")))
        return small


def _classes(module: types.ModuleType) -> dict[str, Any]:
    return {name: one for name, one in vars(module).items() if isinstance(one, type)}
