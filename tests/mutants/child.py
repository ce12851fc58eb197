"""`python -m tests.mutants.child <mistake> run <context> ...`: a process of the shop with a mistake planted in it."""

from __future__ import annotations

import sys

from backbone.cli import main
from tests.mutants.gateway import MISTAKES
from tests.mutants.planting import planted

if __name__ == "__main__":
    mistake, *arguments = sys.argv[1:]
    with planted(MISTAKES[mistake].plant):
        main(arguments)
