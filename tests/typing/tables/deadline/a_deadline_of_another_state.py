"""A decider with a deadline."""

from __future__ import annotations

from backbone.declare import Decider, on_deadline
from tests.typing.tables import words

decider = Decider(words.Order, words.evolve, on_deadline(words.sent, words.expire))  # error
