"""Receiving: takes in the goods receipts that the ramp writes down."""

from __future__ import annotations

from retail.fulfilment.v1.receipt_pb2 import GoodsReceived

from backbone.declare import Intake, Service
from contexts.fulfilment.receiving import source

receiving = Service("receiving", Intake(GoodsReceived, source=(source.connect, source.read)))
