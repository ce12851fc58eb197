"""`python -m tests.contexts.golden` records every fold anew: after each raised `version=`, and to be looked at before it is committed."""

from __future__ import annotations

from tests.contexts.golden.folds import FOLDS, record

if __name__ == "__main__":
    for fold in FOLDS:
        print(record(fold))
