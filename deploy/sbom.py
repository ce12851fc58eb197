"""`python sbom.py NAME VENV`: what an image's packages are, as CycloneDX 1.6 on standard output. Standard library only."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any


def bill(name: str, packages: Iterable[Distribution]) -> dict[str, Any]:
    """The bill of materials of an image.

    Args:
        name: of the image.
        packages: everything installed in it.
    """
    components = sorted((_component(one) for one in packages), key=lambda one: str(one["purl"]))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": name, "bom-ref": name}},
        "components": components,
    }


def _component(package: Distribution) -> dict[str, Any]:
    name = re.sub(r"[-_.]+", "-", package.metadata["Name"]).lower()
    purl = f"pkg:pypi/{name}@{package.version}"
    license_ = package.metadata.json.get("license_expression")
    said = {"licenses": [{"expression": license_}]} if license_ else {}
    return {"type": "library", "bom-ref": purl, "name": name, "version": package.version, "purl": purl, **said}


def main(name: str, venv: Path) -> None:
    """Print it."""
    folders = [str(folder) for folder in venv.glob("lib/python*/site-packages")]
    json.dump(bill(name, distributions(path=folders)), sys.stdout, indent=1)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
