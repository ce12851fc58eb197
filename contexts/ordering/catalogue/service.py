"""The catalogue: takes in what the catalogue file offers."""

from __future__ import annotations

from retail.ordering.v1.catalogue_pb2 import ItemCatalogued

from backbone.declare import Intake, Service
from contexts.ordering.catalogue import source

catalogue = Service("catalogue", Intake(ItemCatalogued, source=(source.connect, source.read)))
