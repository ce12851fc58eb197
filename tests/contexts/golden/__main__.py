"""`python -m tests.contexts.golden` records every fold anew: after each raised `version=`, and to be looked at before it is committed.

`python -m tests.contexts.golden decisions` records anew what decisions are made on: after a table got a line, or a message a field. It
takes a minute.
"""

from __future__ import annotations

import sys

from tests.contexts.golden.folds import FOLDER, FOLDS, record

if sys.argv[1:] == ["decisions"]:
    from backbone.operations.contracts.ablation import write_decisions
    from backbone.testing import recording
    from tests.fuzz.worlds import DECIDERS, WORLDS

    for name, world in WORLDS.items():
        print(write_decisions(FOLDER, name, recording.record(DECIDERS[name], world)))
elif sys.argv[1:]:
    sys.exit(f"{' '.join(sys.argv[1:])}: say decisions, or nothing")
else:
    for fold in FOLDS:
        print(record(fold))
