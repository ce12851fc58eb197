"""The name of a headless Service has one address per pod; who asks a sibling under it takes turns among them."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections import Counter
from collections.abc import AsyncIterator
from typing import cast

import grpc
import pytest
from retail.payments.views.v1 import risk_pb2_grpc
from retail.payments.views.v1.risk_pb2 import CustomerHistory, GetCustomerHistoryRequest, GetCustomerHistoryResponse

from backbone.adapters.grpc import connect_sibling
from backbone.declare import sibling
from backbone.settings import Settings

NAME = "payments.payments.svc"
ADDRESSES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
A_RECORD = 1

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only on Linux is all of 127.0.0.0/8 this machine")


class Names(asyncio.DatagramProtocol):
    """A name server that knows one name, as a cluster's knows a headless Service."""

    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        end = data.index(b"\0", 12) + 5
        (kind,) = struct.unpack("!H", data[end - 4 : end - 2])
        known = data[12 : end - 4] == b"".join(bytes([len(part)]) + part.encode() for part in NAME.split(".")) + b"\0"
        found = ADDRESSES if known and kind == A_RECORD else ()
        head = data[:2] + struct.pack("!HHHHH", 0x8580, 1, len(found), 0, 0)
        answers = b"".join(struct.pack("!HHHIH", 0xC00C, 1, 1, 30, 4) + socket.inet_aton(one) for one in found)
        self.transport.sendto(head + data[12:end] + answers, addr)


class Replica(risk_pb2_grpc.RiskViewServiceServicer):
    """Says which of the replicas answers."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def GetCustomerHistory(  # noqa: N802 - the name of the RPC
        self, request: GetCustomerHistoryRequest, context: grpc.aio.ServicerContext[GetCustomerHistoryRequest, GetCustomerHistoryResponse]
    ) -> GetCustomerHistoryResponse:
        return GetCustomerHistoryResponse(row=CustomerHistory(customer_id=self._address))


@pytest.fixture
async def target() -> AsyncIterator[str]:
    """The name of three replicas, to be asked of a name server of our own."""
    servers: list[grpc.aio.Server] = []
    port = 0
    for address in ADDRESSES:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        risk_pb2_grpc.add_RiskViewServiceServicer_to_server(Replica(address), server)
        port = server.add_insecure_port(f"{address}:{port}")
        await server.start()
        servers.append(server)
    names, _ = await asyncio.get_running_loop().create_datagram_endpoint(Names, local_addr=("127.0.0.1", 0))
    try:
        yield f"dns://127.0.0.1:{names.get_extra_info('sockname')[1]}/{NAME}:{port}"
    finally:
        names.close()
        for server in servers:
            await server.stop(None)


async def test_three_replicas_share_the_calls(target: str) -> None:
    stub = sibling(risk_pb2_grpc.RiskViewServiceStub).stub
    answered: Counter[str] = Counter()
    async with asyncio.timeout(30), connect_sibling(Settings.read({"VIEWS_TARGET": target}), stub) as risk:
        # Whoever is connected first answers alone until the others are.
        while set(answered) != set(ADDRESSES):
            answered[(await risk.GetCustomerHistory(GetCustomerHistoryRequest(), wait_for_ready=True)).row.customer_id] += 1
        answered.clear()
        for _ in range(30):
            answered[(await risk.GetCustomerHistory(GetCustomerHistoryRequest())).row.customer_id] += 1
    assert answered == dict.fromkeys(ADDRESSES, 10)
