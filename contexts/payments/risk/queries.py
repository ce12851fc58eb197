"""What risk answers."""

from __future__ import annotations

from retail.payments.views.v1.risk_pb2 import CustomerHistory, GetCustomerHistoryRequest, GetCustomerHistoryResponse

from backbone.declare import Reader


async def get_customer_history(histories: Reader[CustomerHistory], request: GetCustomerHistoryRequest) -> GetCustomerHistoryResponse:
    """A customer's history; nobody is unknown, some have none."""
    return GetCustomerHistoryResponse(row=await histories.get(request.customer_id))
