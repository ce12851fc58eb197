"""A service nobody planned for: generated into a folder of its own, and run on a log that exists."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import build_protos
from backbone.errors import BackboneError
from backbone.local.ports import free_port
from backbone.local.processes import Process, ProcessSpec
from backbone.local.state import StackState
from backbone.local.valkey import Valkey
from backbone.positions import Vector, encode

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
CONTEXT = "insight"
RPC_SERVICE = "guest.insight.views.v1.SpendingViewService"
TOPICS_WITHIN_S = 60.0
ANSWERS_WITHIN_S = 20.0

CONTRACT = """\
syntax = "proto3";

// What insight knows of customers.
package guest.insight.views.v1;

import "backbone/v1/options.proto";

// SpendingViewService answers who bought how much.
service SpendingViewService {
  // ListBestCustomers gives those who spent most, the best first.
  rpc ListBestCustomers(ListBestCustomersRequest) returns (ListBestCustomersResponse);
}

// Customer is what one customer bought.
message Customer {
  option (backbone.v1.row) = {key: "customer_id"};
  // Who.
  string customer_id = 1;
  // How many orders were confirmed.
  int32 orders = 2;
  // How many articles were in them.
  int32 articles = 3;
  // What they cost, in cents.
  int64 spent_cents = 4;
}

// ListBestCustomersRequest says how many are wanted.
message ListBestCustomersRequest {
  // At most so many.
  int32 limit = 1;
}

// ListBestCustomersResponse names them.
message ListBestCustomersResponse {
  // The best first.
  repeated Customer customers = 1;
}
"""

SERVICE = '''\
"""Insight: who bought how much, told by the orders that were confirmed."""

from guest.insight.views.v1.spending_pb2 import Customer, ListBestCustomersRequest, ListBestCustomersResponse
from retail.ordering.v1.order_pb2 import OrderConfirmed

from backbone.declare import Context, Index, Platform, Query, Reader, Service, Table, View, on
from backbone.money import minor_units


def bought(rows: Table[Customer], order: OrderConfirmed) -> None:
    customer = rows[order.customer_id]
    customer.orders += 1
    customer.articles += sum(line.quantity for line in order.lines)
    customer.spent_cents += minor_units(order.total)


async def best(customers: Reader[Customer], request: ListBestCustomersRequest) -> ListBestCustomersResponse:
    return ListBestCustomersResponse(customers=await customers.newest("spent", "everybody", request.limit))


customers = View(Customer, on(OrderConfirmed, bought), indexes=[Index("spent", lambda row: ("everybody", row.spent_cents))])
insight = Context("insight", Service("spending", customers, Query(customers, on(ListBestCustomersRequest, best))))
alone = Platform(insight)
'''

PART = build_protos.Part("guest", sources=("protos/guest",), imports=("protos",), output=".", owned="guest")


class NotPlugged(BackboneError):
    """The new service could not be made or asked."""


@dataclass(frozen=True, slots=True, order=True)
class Spent:
    """What one customer bought; by the service, or by whoever reads the log for himself."""

    cents: int
    customer: str
    orders: int
    articles: int


def generate(folder: Path) -> list[Path]:
    """Write the service and its contract, and the code of the contract.

    Returns:
        What a person would have written of it.

    Raises:
        NotPlugged: the contract cannot be compiled.
    """
    contract, service = folder / "protos/guest/insight/views/v1/spending.proto", folder / CONTEXT / "context.py"
    options = Path("protos/backbone/v1/options.proto")
    for path, text in ((contract, CONTRACT), (service, SERVICE), (folder / options, (ROOT / options).read_text(encoding="utf-8"))):
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    (service.parent / "__init__.py").touch()
    try:
        build_protos.generate(folder, PART, digest="")
    except build_protos.BuildError as error:
        raise NotPlugged(f"the contract of the new service cannot be compiled: {error}") from error
    return [contract, service]


def make_topics(folder: Path, log: StackState) -> list[str]:
    """Make the topics of the new service, by its own declaration alone; gives their names.

    Raises:
        NotPlugged: they cannot be made.
    """
    command = [sys.executable, "-m", "backbone", "--platform", f"{CONTEXT}.context:alone", "topics", "apply", "--json"]
    environment = {**os.environ, **log.log(), **_importable(folder)}
    done = subprocess.run(command, env=environment, cwd=ROOT, check=False, capture_output=True, text=True, timeout=TOPICS_WITHIN_S)
    if done.returncode:
        raise NotPlugged(f"the topics of the new service cannot be made: {done.stderr or done.stdout}")
    made: list[str] = json.loads(done.stdout)["made"]
    return made


@contextmanager
def plugged_in(folder: Path, log: StackState) -> Iterator[str]:
    """Run the service with a Valkey of its own; ready once it has read the whole history.

    Yields:
        The address of its gRPC server, host:port.

    Raises:
        StartError: it ended or was not ready in time; with its last lines.
    """
    health, answers = free_port(), free_port()
    with Valkey(folder, name=f"valkey.{CONTEXT}") as valkey:
        environment = {
            **log.log(),
            **_importable(folder),
            "REDIS_URL": valkey.url,
            "BACKBONE_HEALTH_PORT": str(health),
            "GRPC_PORT": str(answers),
        }
        argv = (sys.executable, "-m", "backbone", "run", CONTEXT)
        process = Process(ProcessSpec(CONTEXT, argv, environment, ready=f"http://{HOST}:{health}/readyz"), folder)
        process.start()
        try:
            process.await_ready()
            yield f"{HOST}:{answers}"
        finally:
            process.stop()


def best_customers(address: str, limit: int, at_least: Vector) -> list[Spent]:
    """Ask the service, as any gRPC client can that has no code of its contract: what it answers it tells by reflection.

    Args:
        limit: how many, at most.
        at_least: positions in the log that the answer must know.

    Raises:
        grpc.RpcError: it does not answer.
    """
    with grpc.insecure_channel(address) as channel:
        # A pool of its own, so that a second service of this name can be asked by the same program.
        pool: Any = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        method = pool.FindServiceByName(RPC_SERVICE).methods_by_name["ListBestCustomers"]
        ask: Any = channel.unary_unary(
            f"/{RPC_SERVICE}/{method.name}",
            request_serializer=_encoded,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        request: Any = GetMessageClass(method.input_type)(limit=limit)
        answer = ask(request, timeout=ANSWERS_WITHIN_S, metadata=(("backbone-at-least", encode(at_least)),))
        return [Spent(row.spent_cents, row.customer_id, row.orders, row.articles) for row in answer.customers]


def _encoded(request: Any) -> bytes:
    return bytes(request.SerializeToString())


def _importable(folder: Path) -> Mapping[str, str]:
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH", ""))))}
