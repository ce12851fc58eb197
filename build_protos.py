"""Generates Python and its type stubs from the contracts: `backbone/v1/` for the runtime, `generated/` for the rest.

Called by every make target and by the build of the wheel. Does nothing when neither the contracts, nor the tools, nor
this file have changed since the last time.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent
TOOLS = ("grpcio-tools", "mypy-protobuf")
BROWSER_TOOLS = ("protoc-gen-connectrpc",)
IMPORT_ROOTS = ("protos", "third_party")
STAMP = ".stamp.json"
PATIENCE_S = 120


class BuildError(Exception):
    """The contracts cannot be generated; the text names file, line and reason."""


@dataclass(frozen=True)
class Part:
    """One folder of generated code, wholly owned by this script: what is not generated into it is removed."""

    name: str
    sources: tuple[str, ...]
    """Folders of contracts to generate, relative to the checkout."""
    imports: tuple[str, ...]
    """Folders of contracts that these may import."""
    output: str
    """Folder that becomes the import root of the generated code."""
    owned: str
    """Folder below or equal to `output` that holds nothing else."""
    browsers: str = ""
    """Folder of contracts whose services are also served over Connect."""


# google/type is not generated: googleapis-common-protos brings it, and a file may be registered only once.
# buf/validate is: protovalidate keeps its own copy in another registry, and our contracts import the module.
BACKBONE = Part(
    "backbone",
    sources=("protos/backbone",),
    imports=("protos/backbone",),
    output=".",
    owned="backbone/v1",
)
SHOP = Part(
    "retail",
    sources=("protos/retail", "third_party/buf"),
    imports=("protos", "third_party"),
    output="generated",
    owned="generated",
    browsers="protos/retail/gateway/v1",
)
PARTS = (BACKBONE, SHOP)


def build(root: Path, parts: tuple[Part, ...] = PARTS) -> list[str]:
    """Brings the generated code up to date.

    Arguments: root of the checkout, parts to generate. Returns the names of the parts that were generated anew.
    Raises BuildError when a contract is wrong or a tool is missing.
    """
    digests = {part: digest_of(root, part) for part in parts}
    if all(is_current(root, part, digests[part]) for part in parts):
        return []
    with (root / "build_protos.py").open(encoding="utf-8") as turnstile:
        wait_for_turn(turnstile.fileno())
        stale = [part for part in parts if not is_current(root, part, digests[part])]
        for part in stale:
            generate(root, part, digests[part])
    return [part.name for part in stale]


def digest_of(root: Path, part: Part) -> str:
    """What the generated code depends on: every contract it may import, the versions of the tools, this script."""
    digest = hashlib.sha256((root / "build_protos.py").read_bytes())
    for tool in (*TOOLS, *(BROWSER_TOOLS if part.browsers else ())):
        try:
            digest.update(f"{tool} {importlib.metadata.version(tool)}\n".encode())
        except importlib.metadata.PackageNotFoundError as error:
            raise BuildError(f"{tool} is not installed for {sys.executable}: run `make setup` first") from error
    for folder in part.imports:
        for contract in sorted((root / folder).rglob("*.proto")):
            digest.update(f"{contract.relative_to(root)}\n".encode() + contract.read_bytes())
    return digest.hexdigest()


def is_current(root: Path, part: Part, digest: str) -> bool:
    """Whether the part was generated from exactly these inputs and all its files are still there."""
    try:
        stamp = json.loads((root / part.owned / STAMP).read_text(encoding="utf-8"))
        return stamp["digest"] == digest and all((root / part.owned / name).exists() for name in stamp["files"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def wait_for_turn(file: int) -> None:
    """Waits until no other process generates into this checkout."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(0.1)
    raise BuildError("another build_protos.py in this checkout does not end: stop it, then run this again")


def generate(root: Path, part: Part, digest: str) -> None:
    """Generates one part into a folder of its own, then swaps the files in, so that a failure changes nothing."""
    contracts = sorted(contract for source in part.sources for contract in (root / source).rglob("*.proto"))
    if not contracts:
        raise BuildError(f"no contract in {', '.join(part.sources)}: is this a whole checkout?")
    serving = [contract for contract in contracts if re.search(r"(?m)^service\s", contract.read_text("utf-8"))]
    browsing = [contract for contract in serving if part.browsers and (root / part.browsers) in contract.parents]
    with tempfile.TemporaryDirectory(prefix="build-protos-") as folder:
        fresh = Path(folder)
        protoc(root, [f"--python_out={fresh}", f"--mypy_out=quiet:{fresh}"], contracts)
        protoc(root, [f"--grpc_python_out={fresh}", f"--mypy_grpc_out=quiet:{fresh}"], serving)
        protoc(root, [f"--connectrpc_out={fresh}", "--connectrpc_opt=protobuf=google"], browsing)
        owned = fresh / Path(part.owned).relative_to(part.output)
        for package in {file.parent for file in owned.rglob("*.py*")} | set(folders_below(owned)):
            if package != fresh:
                (package / "__init__.py").touch()
        swap_in(owned, root / part.owned, digest)


def folders_below(folder: Path) -> list[Path]:
    """Every folder below, the first one left out."""
    return [path for path in folder.rglob("*") if path.is_dir()]


def protoc(root: Path, outputs: list[str], contracts: list[Path]) -> None:
    """Runs the protoc inside grpcio-tools with the generators that lie beside this interpreter."""
    if not contracts:
        return
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}"}
    roots = [f"-I{name}" for name in IMPORT_ROOTS if (root / name).is_dir()]
    command = [sys.executable, "-m", "grpc_tools.protoc", *roots, f"-I{standard_contracts()}", *outputs]
    done = subprocess.run(
        [*command, *(str(contract.relative_to(root)) for contract in contracts)],
        check=False,  # a wrong contract is told in protoc's own words
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    if done.returncode != 0:
        raise BuildError(located(root, done.stderr or done.stdout).strip())


def standard_contracts() -> Path:
    """The folder of google/protobuf/*.proto inside grpcio-tools."""
    import grpc_tools  # here: 30 ms that an unchanged checkout does not need to spend

    return Path(grpc_tools.__file__).parent / "_proto"


def located(root: Path, text: str) -> str:
    """The words of protoc with every contract named by its path from the checkout, so that an editor finds it."""
    lines = []
    for line in text.splitlines():
        name = line.split(":", 1)[0]
        found = [folder for folder in IMPORT_ROOTS if name and (root / folder / name).is_file()]
        lines.append(f"{found[0]}/{line}" if found else line)
    return "\n".join(lines)


def swap_in(fresh: Path, place: Path, digest: str) -> None:
    """Moves new and changed files in, removes those of deleted contracts, writes the stamp last."""
    place.mkdir(parents=True, exist_ok=True)
    (place / STAMP).unlink(missing_ok=True)
    files = sorted(str(file.relative_to(fresh)) for file in fresh.rglob("*") if file.is_file())
    for name in files:
        old = place / name
        if not old.is_file() or old.read_bytes() != (fresh / name).read_bytes():
            old.parent.mkdir(parents=True, exist_ok=True)
            # Beside its place first: a process that imports right now sees the old file or the new one.
            beside = old.with_name(f".{old.name}.new")
            shutil.copyfile(fresh / name, beside)
            beside.replace(old)
    keep = {place / name for name in files}
    for old in sorted(place.rglob("*"), reverse=True):
        if old.is_file() and old not in keep and "__pycache__" not in old.parts:
            old.unlink()
        elif old.is_dir() and not any(old in kept.parents for kept in keep) and old.name != "__pycache__":
            shutil.rmtree(old)
    (place / STAMP).write_text(json.dumps({"digest": digest, "files": files}), encoding="utf-8")


def main() -> int:
    """Generates what is out of date and says so; returns the exit code."""
    try:
        for name in build(ROOT):
            print(f"protos: generated {name}")
    except (BuildError, subprocess.TimeoutExpired) as error:
        print(f"protos: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
