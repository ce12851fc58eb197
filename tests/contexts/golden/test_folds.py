"""A fold that gives something else for the same events has another `version=`: kept states and rows are made anew, not misread."""

from __future__ import annotations

import pytest

from backbone.contract import resolve_context
from contexts.fulfilment.context import fulfilment
from contexts.ordering.context import ordering
from contexts.payments.context import payments
from gateway.context import gateway
from tests.contexts.golden.folds import FOLDS, Fold, recorded

RECORD_ANEW = "raise its version= and record it anew: python -m tests.contexts.golden"


@pytest.mark.parametrize("fold", FOLDS, ids=lambda fold: fold.name)
def test_a_recorded_history_folds_to_what_it_did(fold: Fold) -> None:
    version, histories = recorded(fold)
    assert fold.version == version, f"{fold.name} was recorded as version {version}; if it folds otherwise now, {RECORD_ANEW}"
    for said, gives in histories:
        assert fold.fold(said) == gives, f"{fold.name} folds otherwise than version {version} did: {RECORD_ANEW}"


def test_every_decider_and_view_is_recorded() -> None:
    services = [service for context in (ordering, payments, fulfilment, gateway) for service in resolve_context(context)]
    names = {service.name for service in services if service.decider} | {view.name for service in services for view in service.views}
    assert {fold.name for fold in FOLDS} == names


@pytest.mark.parametrize("fold", FOLDS, ids=lambda fold: fold.name)
def test_everything_it_folds_is_in_a_history(fold: Fold) -> None:
    said = {type(one).DESCRIPTOR.name for history, _ in recorded(fold)[1] for one in history}
    assert said == {one.DESCRIPTOR.name for one in fold.knows}
