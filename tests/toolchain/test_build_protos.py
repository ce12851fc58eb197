"""Generated code follows the contracts: made when they change, removed when they go, kept when they are wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import build_protos

ROOT = Path(__file__).resolve().parents[2]
PARTS = (build_protos.Part("law", sources=("protos/law",), imports=("protos/law",), output="generated", owned="generated"),)
GOOD = 'syntax = "proto3";\npackage law.v1;\nmessage Said { string id = 1; }\n'
SERVICE = 'syntax = "proto3";\npackage law.v1;\nimport "law/v1/said.proto";\nservice Ear { rpc Hear(Said) returns (Said); }\n'


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with two contracts, generated."""
    write(tmp_path, "protos/law/v1/said.proto", GOOD)
    write(tmp_path, "protos/law/v1/ear.proto", SERVICE)
    write(tmp_path, "build_protos.py", "# stands for the script in the digest\n")
    assert build_protos.build(tmp_path, PARTS) == ["law"]
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    """Lays one file."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")


def generated(root: Path) -> set[str]:
    """Names of the generated files of package law.v1."""
    return {path.name for path in (root / "generated/law/v1").iterdir()}


def test_contracts_become_importable_code_with_stubs(checkout: Path) -> None:
    """Messages, services and the types of both."""
    names = {"__init__.py", "said_pb2.py", "said_pb2.pyi", "ear_pb2.py", "ear_pb2.pyi"}
    assert generated(checkout) == names | {"ear_pb2_grpc.py", "ear_pb2_grpc.pyi"}
    code = "from law.v1 import ear_pb2_grpc, said_pb2; print(said_pb2.Said(id='x').id, ear_pb2_grpc.EarStub.__name__)"
    environment = {**os.environ, "PYTHONPATH": str(checkout / "generated")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "x EarStub\n"


def test_nothing_is_generated_when_nothing_changed(checkout: Path) -> None:
    """The files keep their times, so that caches stay warm."""
    before = (checkout / "generated/law/v1/said_pb2.py").stat().st_mtime_ns
    assert build_protos.build(checkout, PARTS) == []
    assert (checkout / "generated/law/v1/said_pb2.py").stat().st_mtime_ns == before


def test_a_changed_contract_is_generated_anew_and_untouched_files_stay(checkout: Path) -> None:
    """Only what differs is replaced."""
    before = (checkout / "generated/law/v1/ear_pb2_grpc.py").stat().st_mtime_ns
    write(checkout, "protos/law/v1/said.proto", GOOD.replace("string id = 1;", "string id = 1; string more = 2;"))
    assert build_protos.build(checkout, PARTS) == ["law"]
    assert "more" in (checkout / "generated/law/v1/said_pb2.pyi").read_text(encoding="utf-8")
    assert (checkout / "generated/law/v1/ear_pb2_grpc.py").stat().st_mtime_ns == before


def test_a_changed_script_generates_anew(checkout: Path) -> None:
    """The script is an input like the contracts."""
    write(checkout, "build_protos.py", "# another\n")
    assert build_protos.build(checkout, PARTS) == ["law"]


def test_code_of_a_deleted_contract_is_removed(checkout: Path) -> None:
    """A stale module would register its file in a process and still be imported."""
    (checkout / "protos/law/v1/ear.proto").unlink()
    write(checkout, "generated/law/v1/stranger.py", "")
    write(checkout, "generated/gone/v1/__init__.py", "")
    build_protos.build(checkout, PARTS)
    assert generated(checkout) == {"__init__.py", "said_pb2.py", "said_pb2.pyi"}
    assert not (checkout / "generated/gone").exists()


def test_a_deleted_output_comes_back(checkout: Path) -> None:
    """The stamp lists what must be there."""
    (checkout / "generated/law/v1/said_pb2.py").unlink()
    assert build_protos.build(checkout, PARTS) == ["law"]
    assert "said_pb2.py" in generated(checkout)


def test_a_broken_contract_is_named_with_file_and_line_and_changes_nothing(checkout: Path) -> None:
    """An editor can jump there, and running processes keep their code."""
    before = (checkout / "generated/law/v1/said_pb2.py").read_bytes()
    write(checkout, "protos/law/v1/said.proto", GOOD.replace("string id = 1;", "strin id = 1;"))
    with pytest.raises(build_protos.BuildError, match=r'(?m)^protos/law/v1/said\.proto:3:\d+: "strin"'):
        build_protos.build(checkout, PARTS)
    assert (checkout / "generated/law/v1/said_pb2.py").read_bytes() == before


def test_a_missing_tool_is_named_with_the_remedy(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout without set-up."""
    monkeypatch.setattr(build_protos, "TOOLS", ("no-such-generator",))
    with pytest.raises(build_protos.BuildError, match=r"no-such-generator is not installed.*make setup"):
        build_protos.build(checkout, PARTS)


def test_a_folder_without_contracts_is_refused(tmp_path: Path) -> None:
    """Half a checkout must not delete the code of the other half."""
    write(tmp_path, "build_protos.py", "")
    with pytest.raises(build_protos.BuildError, match="no contract in protos/law"):
        build_protos.build(tmp_path, PARTS)


def test_generated_code_of_this_checkout_is_current() -> None:
    """`make test` generates before it tests."""
    stale = [part.name for part in build_protos.PARTS if not build_protos.is_current(ROOT, part, build_protos.digest_of(ROOT, part))]
    assert stale == [], "run `make protos`"
