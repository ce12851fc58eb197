"""`python -m tests.mutants.child <mistake> run <context> ...`: a process of the shop with a mistake planted in it."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from unittest.mock import patch

from backbone.cli import main
from tests.mutants.gateway import MISTAKES

if __name__ == "__main__":
    mistake, *arguments = sys.argv[1:]
    with ExitStack() as planted:
        for owner, name, instead in MISTAKES[mistake].plant():
            planted.enter_context(patch.object(owner, name, instead))
        main(arguments)
