"""The lines of the shop's tables, by the function that does the work: where a mistake is planted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backbone.declare import On
from tests.simulation.shop import services


def decided_by(function: Any) -> On[Any, Any]:
    """The line of the shop's tables by which a function decides."""
    return lines_decided_by(function)[0]


def lines_decided_by(function: Any) -> Sequence[On[Any, Any]]:
    """Each of them, where it decides by several."""
    deciders = (service.decider for service in services() if service.decider is not None)
    lines = {id(one.line): one.line for decider in deciders for one in decider.reactions}
    return [line for line in lines.values() if line.function is function]


def folded_by(function: Any) -> On[Any, Any]:
    """The line of the shop's views by which a function folds."""
    return next(one.line for service in services() for shown in service.views for one in shown.reactions if one.line.function is function)
