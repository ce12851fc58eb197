"""`python -m tests.rpc` records anew what every method answers over gRPC; to be looked at before it is committed."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from tests.rpc import golden, test_contracts
from tests.rpc.door import METHODS

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        answers = asyncio.run(test_contracts.of_door("grpc", Path(folder)))
    for name, method in METHODS.items():
        print(golden.write(method, answers[name]))
    print(golden.write(test_contracts.HISTORY, asyncio.run(test_contracts.of_risk())))
