"""The README of the provider says what happens."""

from __future__ import annotations

import re
from typing import Any

from tests.outside.running import ROOT


def test_the_example_of_the_readme_runs(address: str) -> None:
    readme = (ROOT / "outside" / "provider" / "README.md").read_text()
    found = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert found
    names: dict[str, Any] = {}
    exec(found[1].replace("http://127.0.0.1:8444", address), names)
    assert (names["held"].status_code, names["taken"].status_code) == (201, 201)
    assert [entry["kind"] for entry in names["books"]] == ["authorized", "captured"]
