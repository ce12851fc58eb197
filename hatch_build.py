"""Generates the runtime's own contracts before its wheel is packed: a wheel has no protoc at hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class GeneratedContracts(BuildHookInterface):  # type: ignore[type-arg]  # generic only in its own annotations
    """The build step that makes `backbone/v1/`."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generates into the source tree, whence the wheel takes it as an artifact."""
        sys.path.insert(0, self.root)
        try:
            import build_protos  # here: it lies in the tree that is being built
        finally:
            sys.path.remove(self.root)
        build_protos.build(Path(self.root), (build_protos.BACKBONE,))
