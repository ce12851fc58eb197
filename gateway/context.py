"""The gateway: it stands between clients and the log, and belongs to no context."""

from __future__ import annotations

from backbone.declare import Context
from gateway.service import door

gateway = Context("gateway", door)
