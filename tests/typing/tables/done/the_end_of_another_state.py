"""A decider whose state has an end."""

from __future__ import annotations

from backbone.declare import Decider
from tests.typing.tables import words

decider = Decider(words.Order, words.evolve, done=words.delivered)  # error
