"""What a command finds where it is started: the declared platform, its contexts, and the stack that runs there.

`[tool.backbone]` of the nearest pyproject.toml says where the platform is declared; the environment overrules it.
"""

from __future__ import annotations

import importlib
import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from backbone.declare import Context, Platform
from backbone.errors import SettingsError
from backbone.local.locks import holder
from backbone.local.state import StackState, read_state
from backbone.settings import Settings

if TYPE_CHECKING:
    from backbone.topology import Topology

FOLDER = ".backbone"
FOLDER_VARIABLE = "BACKBONE_FOLDER"
PLATFORM_VARIABLE = "BACKBONE_PLATFORM"
CONTRACTS_VARIABLE = "BACKBONE_CONTRACTS"

Declared = TypeVar("Declared", bound=Platform | Context)


@dataclass(frozen=True)
class Checkout:
    """The folder a command works for.

    Attributes:
        root: where pyproject.toml lies, or where the command was started.
        declared: "module:attribute" of the platform; empty if nobody said.
        contracts: root package of the generated contracts; empty if nobody said.
        recorded: folder below the root with what every fold gave; empty if nothing was recorded.
        contexts: "module:attribute" of contexts that are not where the layout expects them, by name.
        outside: paths below the root of the files that stand for what is outside, by name.
        folder: where the local stack lies.
        variables: the environment.
    """

    root: Path
    declared: str = ""
    contracts: str = ""
    recorded: str = ""
    contexts: Mapping[str, str] = field(default_factory=dict)
    outside: Mapping[str, str] = field(default_factory=dict)
    folder: Path = Path(FOLDER)
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def system(self) -> str:
        """Name of the whole platform, as images and labels in a cluster carry it: that of the attribute that declares it."""
        return self.declared.rpartition(":")[2].replace("_", "-") or self.root.name

    def platform(self) -> Platform:
        """The declared platform; a context that is declared instead is all of it.

        Raises:
            SettingsError: nobody says where it is, or it cannot be imported from there.
        """
        found = self._declared()
        return Platform(found) if isinstance(found, Context) else found

    def topology(self) -> Topology:
        """What is derived from the declaration: a platform's held against every contract, a context's alone, since others write the rest.

        Raises:
            SettingsError: nobody says where the platform is, or it cannot be imported from there.
            ContractError: a table or contract lies.
        """
        from backbone.topology import topology

        return topology(self._declared(), self.contracts)

    def _declared(self) -> Platform | Context:
        if not self.declared:
            raise SettingsError(
                f'no platform is named: write [tool.backbone] platform = "module:attribute" into {self.root / "pyproject.toml"}, '
                f"or set {PLATFORM_VARIABLE}"
            )
        return self._imported(self.declared, Platform, Context)

    def context(self, name: str) -> Context:
        """One context, imported without the others.

        Raises:
            SettingsError: it is not where it should be.
        """
        places = [self.contexts[name]] if name in self.contexts else [f"contexts.{name}.context:{name}", f"{name}.context:{name}"]
        for place in places[:-1]:
            try:
                return self._imported(place, Context)
            except _NotThere:
                continue
        try:
            return self._imported(places[-1], Context)
        except _NotThere as error:
            known = sorted({path.parent.name for path in [*self.root.glob("contexts/*/context.py"), *self.root.glob("*/context.py")]})
            raise SettingsError(
                f"there is no context {name!r} at {' or '.join(places)}; here are {', '.join(known) or 'none'}. "
                f'Add a line {name} = "module:attribute" to [tool.backbone.contexts] if it is elsewhere'
            ) from error

    def files(self) -> dict[str, Path]:
        """Where each outside file comes from, by name.

        Raises:
            SettingsError: one of them does not exist.
        """
        found = {name: self.root / path for name, path in self.outside.items()}
        for name, path in found.items():
            if not path.is_file():
                raise SettingsError(f"[tool.backbone.outside] says that {name} is {path}, and there is no such file")
        return found

    def stack(self) -> StackState | None:
        """What the local stack wrote down, or None if there was never one."""
        return read_state(self.folder)

    @property
    def launcher(self) -> int | None:
        """Process id of whoever runs the local stack now, or None."""
        return holder(self.folder / "lock")

    @property
    def elsewhere(self) -> str:
        """Where else a stack runs, as the end of a sentence: a demonstration has a folder of its own in this one. Empty if none does."""
        running = [str(lock.parent) for lock in sorted(self.folder.glob("*/lock")) if holder(lock) is not None]
        return f"; one runs in {', '.join(running)}: name it by --folder or {FOLDER_VARIABLE}" if running else ""

    def settings(self) -> Settings:
        """Where the log is and what it must be: the environment's, else the local stack's.

        Raises:
            SettingsError: neither names a Kafka, or the local stack is stopped.
        """
        given = Settings.read(self.variables)
        if given.kafka:
            return given
        state = self.stack()
        if state is None or not state.kafka:
            what = f"no stack was ever started in {self.folder}"
            raise SettingsError(f"{what}: start it with `backbone up`, or set KAFKA_BOOTSTRAP_SERVERS{self.elsewhere}")
        if self.launcher is None:
            what = f"the stack in {self.folder} is stopped"
            raise SettingsError(f"{what}: start it with `backbone up`, or set KAFKA_BOOTSTRAP_SERVERS{self.elsewhere}")
        return Settings.read({**self.variables, **state.log()})

    def redis_url(self, context: str) -> str | None:
        """Where the rows of a context lie; None if nobody says."""
        from backbone.local.stack import redis_variable

        state = self.stack()
        return self.variables.get(redis_variable(context)) or (state.redis.get(context) if state else None)

    def _imported(self, place: str, *kinds: type[Declared]) -> Declared:
        module_name, _, attribute = place.partition(":")
        if str(self.root) not in sys.path:
            sys.path.insert(0, str(self.root))
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
                raise _NotThere(f"there is no module {module_name} below {self.root}") from error
            raise SettingsError(
                f"{module_name} cannot be imported: {error}. If it is generated from a contract, run `make protos`"
            ) from error
        found: Any = getattr(module, attribute, None)
        if not isinstance(found, kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise SettingsError(f"{place} is {type(found).__name__}, not a {wanted}: name it module:attribute")
        return found


class _NotThere(SettingsError):
    """There is no such module."""


def find_checkout(folder: Path | None = None, start: Path | None = None, variables: Mapping[str, str] | None = None) -> Checkout:
    """The checkout a command is started in.

    Args:
        folder: where the local stack lies; `$BACKBONE_FOLDER` or `.backbone` in the checkout if None.
        start: where to look from; the current folder if None.
        variables: the environment; the process's own if None.

    Raises:
        SettingsError: pyproject.toml cannot be understood.
    """
    environment = dict(os.environ if variables is None else variables)
    here = (start or Path.cwd()).resolve()
    root = next((parent for parent in (here, *here.parents) if (parent / "pyproject.toml").is_file()), here)
    written = _section(root / "pyproject.toml")
    named = folder or (Path(environment[FOLDER_VARIABLE]) if environment.get(FOLDER_VARIABLE) else None)
    return Checkout(
        root=root,
        declared=environment.get(PLATFORM_VARIABLE) or str(written.get("platform", "")),
        contracts=environment.get(CONTRACTS_VARIABLE) or str(written.get("contracts", "")),
        recorded=str(written.get("recorded", "")),
        contexts=dict(written.get("contexts", {})),
        outside=dict(written.get("outside", {})),
        folder=(named or root / FOLDER).resolve(),
        variables=environment,
    )


def _section(path: Path) -> Mapping[str, Any]:
    try:
        return dict(tomllib.loads(path.read_text()).get("tool", {}).get("backbone", {}))
    except FileNotFoundError:
        return {}
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} cannot be understood: {error}") from error
