"""Runs a Tiltfile without Tilt: every word it knows is a stub that records how it was called."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import starlark
import yaml

from tests.deploy.rendered import WORKLOADS, Manifest, of_kind

# What Tilt gives with dots, or calls back: a stub in Python could not.
PRELUDE = """
TRIGGER_MODE_MANUAL = "manual"
config = struct(
    define_string_list = lambda name, args = False, usage = "": _called("config.define_string_list", name = name, args = args),
    parse = lambda: _parsed(),
    set_enabled_resources = lambda names: _called("config.set_enabled_resources", names = names),
)

def workload_to_resource_function(name_of):
    for one in _workloads():
        id = struct(name = one["name"], kind = one["kind"], namespace = one["namespace"], group = one["group"])
        _called("resource_name", id = one, name = name_of(id))
"""


@dataclass
class Run:
    """What a Tiltfile asked for.

    Attributes:
        calls: every call in its order: the word, and its arguments by name.
    """

    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def of(self, word: str) -> list[dict[str, Any]]:
        """The arguments of every call of a word."""
        return [arguments for called, arguments in self.calls if called == word]

    def one(self, word: str) -> dict[str, Any]:
        """The arguments of the only call of a word."""
        (arguments,) = self.of(word)
        return arguments


SIGNATURES: Mapping[str, Sequence[str]] = {
    "version_settings": ("constraint",),
    "allow_k8s_contexts": ("contexts",),
    "update_settings": ("max_parallel_updates", "k8s_upsert_timeout_secs"),
    "docker_build": ("ref", "context", "dockerfile", "target", "build_args", "only", "live_update"),
    "k8s_yaml": ("yaml",),
    "k8s_resource": ("workload", "new_name", "objects", "resource_deps", "labels", "port_forwards"),
    "local_resource": ("name", "cmd", "resource_deps", "labels", "auto_init", "trigger_mode"),
}
RETURNING: Mapping[str, Sequence[str]] = {
    "sync": ("local_path", "remote_path"),
    "run": ("cmd", "trigger"),
    "fall_back_on": ("files",),
    "port_forward": ("local_port", "container_port", "name", "link_path"),
}


def run(tiltfile: Path, manifests: Sequence[Manifest], arguments: Sequence[str] = ()) -> Run:
    """Execute a Tiltfile.

    Args:
        manifests: what its `kustomize` gives.
        arguments: of `tilt up`.

    Raises:
        starlark.StarlarkError: it cannot be executed, or uses a word or an argument that is not stubbed.
    """
    done = Run()
    module = starlark.Module()
    for word, names in SIGNATURES.items():
        module.add_callable(word, _recording(done, word, names))
    for word, names in RETURNING.items():
        module.add_callable(word, _returning(word, names))
    module.add_callable("kustomize", lambda path: _kustomized(done, path, manifests))
    module.add_callable("decode_yaml_stream", lambda text: [_plain(one) for one in yaml.safe_load_all(text)])
    module.add_callable("_called", lambda word, **given: done.calls.append((word, given)))
    module.add_callable("_parsed", lambda: {"contexts": list(arguments)} if arguments else {})
    module.add_callable("_workloads", lambda: [_id(one) for one in of_kind(manifests, *WORKLOADS)])
    words = starlark.Globals.extended_by([starlark.LibraryExtension.StructType])
    for name, text in (("prelude", PRELUDE), (tiltfile.name, tiltfile.read_text())):
        starlark.eval(module, starlark.parse(name, text, starlark.Dialect.extended()), words)
    return done


def _recording(done: Run, word: str, names: Sequence[str]) -> Callable[..., None]:
    def called(*given: Any, **named: Any) -> None:
        done.calls.append((word, _bound(word, names, given, named)))

    return called


def _returning(word: str, names: Sequence[str]) -> Callable[..., dict[str, Any]]:
    return lambda *given, **named: {"word": word, **_bound(word, names, given, named)}


def _bound(word: str, names: Sequence[str], given: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    unknown = set(named) - set(names)
    if unknown or len(given) > len(names):
        raise TypeError(f"{word} has no argument {', '.join(unknown) or len(given)}")
    return {**dict(zip(names, given, strict=False)), **named}


def _kustomized(done: Run, path: str, manifests: Sequence[Manifest]) -> str:
    done.calls.append(("kustomize", {"path": path}))
    return yaml.safe_dump_all(manifests)


def _id(one: Manifest) -> dict[str, str]:
    metadata = one["metadata"]
    return {
        "name": metadata["name"],
        "kind": one["kind"],
        "namespace": metadata["namespace"],
        "group": one["apiVersion"].rpartition("/")[0],
    }


def _plain(one: Any) -> Any:
    """Only what Starlark knows."""
    return json.loads(json.dumps(one))
