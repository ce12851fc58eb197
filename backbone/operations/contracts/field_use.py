"""May I remove this field? Who reads it, by evidence, and the page that says so of every field."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from backbone.contract import resolve_context
from backbone.errors import SettingsError
from backbone.operations.contracts import buf, expectations
from backbone.operations.contracts.ablation import ANY, Use, leaves, shown_path, uses
from backbone.operations.contracts.expectations import Expectations, expected, fields_on_way, kind_of
from backbone.operations.contracts.gate import Law
from backbone.operations.contracts.image import Image, type_of

UNRECORDED = "nothing is recorded of it, so it may read anything"


@dataclass(frozen=True)
class FieldUse:
    """What is known of who reads what.

    Attributes:
        uses: by the recordings of this checkout.
        own: the same as a file for the gate.
        others: what other repositories say that they read.
    """

    image: Image
    uses: Sequence[Use]
    own: Expectations
    others: Sequence[Expectations] = ()

    def of(self, event: str, path: str) -> list[Use]:
        """What the recordings of each consumer tell of a field."""
        return [one for one in self.uses if one.event == event and one.path in (path, ANY)]

    def elsewhere(self, event: str, path: str) -> list[tuple[str, str]]:
        """Consumers of other repositories that read a field, each with the file that says so."""
        return sorted({(read.consumer, one.file) for one in self.others for read, of, at in one.paths() if (of, at) == (event, path)})

    def readers(self, event: str, path: str) -> list[str]:
        """Whoever cannot be said to do without a field."""
        here = {one.consumer for one in self.of(event, path) if one.reads}
        return sorted(here | {consumer for consumer, _ in self.elsewhere(event, path)})

    @property
    def events(self) -> list[str]:
        """Full names of the public events."""
        return sorted({event for one in self.image.wrappers.values() if not one.private for event in one.events.values()})

    def named(self, what: str) -> list[tuple[str, str]]:
        """The events and paths that a name means.

        Args:
            what: <event>.<field>, <event>.<field>.<field> or <message>.<field>, each message by its full name or the end of it.

        Raises:
            SettingsError: no public event has such a field.
        """
        found = [(event, shown_path(path)) for event in self.events for path in leaves(self.image.messages[event])]
        direct = [(event, path) for event, path in found if _ends(f"{event}.{path}", what)]
        inside = [
            (event, path) for event, path in found if any(_ends(one.full_name, what) for one in fields_on_way(self.image, event, path))
        ]
        if not direct and not inside:
            near = sorted({event for event in self.events if _ends(event, what.partition(".")[0])})
            fields = sorted(path for event, path in found if event in near)
            raise SettingsError(f"no public event has a field {what}" + (f"; {near[0]} has {', '.join(fields)}" if near else ""))
        return direct or inside


def field_use(law: Law) -> FieldUse:
    """Run the recordings of a checkout without each field.

    Raises:
        SettingsError: no platform is declared, or nothing is recorded.
        DeclarationError: contracts, recordings or expectations cannot be read.
    """
    if law.platform is None or not law.recorded:
        raise SettingsError('recordings show who reads what: write [tool.backbone] platform = "module:attribute" and recorded = "folder"')
    image = Image.of(buf.build(law.root))
    services = [one for context in law.platform.contexts for one in resolve_context(context)]
    found = uses(services, law.root / law.recorded)
    here = {service.name for service in services}
    others = [one for one in expectations.read_all(law.root, law.expectations) if not here & {read.consumer for read in one.reads}]
    return FieldUse(image, found, expected(services, found, image), others)


def lines(of: FieldUse, what: str) -> Iterator[str]:
    """Who reads a field and who does not, with the evidence."""
    for event, path in of.named(what):
        field = fields_on_way(of.image, event, path)[-1]
        yield f"{event}.{path} ({kind_of(field)}, {field.full_name})"
        known = of.of(event, path)
        for one in known:
            yield f"  {_told(one)}"
        for consumer, file in of.elsewhere(event, path):
            yield f"  {consumer} reads it: {file}"
        readers = of.readers(event, path)
        if readers:
            yield f"  no: {', '.join(readers)} would break"
        else:
            yield "  yes, once every release that has it may be forgotten: nobody is known to read it; reserve its number and name"


def _told(one: Use) -> str:
    if one.path == ANY:
        return f"{one.consumer} hears it; {UNRECORDED}"
    if one.changed:
        return f"{one.consumer} {_verb(one)}: {one.changed} of {one.tried} recordings give something else without it ({one.shown})"
    return f"{one.consumer} does without: {one.tried} recordings give the same"


def _verb(one: Use) -> str:
    return {"decides": "decides by it", "folds": "folds it"}.get(one.does, one.does)


def page(of: FieldUse) -> str:
    """Every field of every public event, and who reads it."""
    said = [
        "# Who reads which field",
        "",
        "Generated by `make catalogue`: each field is cleared in every recorded history and decision in turn, and all is folded and",
        "decided again. A consumer whose result changes reads it; in brackets, in how many of the recordings that fill it. `key`: its",
        "records or rows are keyed by it. One change is proof; that nothing changes is worth what the recordings are worth.",
        "",
    ]
    for event in of.events:
        rows = [_row(of, event, shown_path(path)) for path in leaves(of.image.messages[event])]
        name = event.rpartition(".")[2]
        said += [f"## [{name}](events/{event}.md)", "", "| field | type | read by | heard, not read |", "|---|---|---|---|", *rows, ""]
    return "\n".join(said).rstrip() + "\n"


def _row(of: FieldUse, event: str, path: str) -> str:
    kind = type_of(fields_on_way(of.image, event, path)[-1])
    known = of.of(event, path)
    reading = {one.consumer for one in known if one.reads}
    read = [_cell(one) for one in known if one.reads]
    read += [f"{consumer} (`{file}`)" for consumer, file in of.elsewhere(event, path)]
    without = sorted({f"{one.consumer} ({one.tried})" for one in known if one.consumer not in reading})
    return f"| `{path}` | `{kind}` | {', '.join(read) or 'nobody'} | {', '.join(without)} |"


def _cell(one: Use) -> str:
    if one.path == ANY:
        return f"{one.consumer} (not recorded)"
    how = {"decides": "", "folds": "folds "}.get(one.does, "key ")
    return f"{one.consumer} ({how}{one.changed}/{one.tried})"


def _ends(full: str, what: str) -> bool:
    return full == what or full.endswith(f".{what}")


def own_file(law: Law, of: FieldUse) -> Path | None:
    """Where it is kept for the gate what this checkout reads itself; None if nobody keeps it."""
    here = {read.consumer for read in of.own.reads}
    files = sorted((law.root / law.expectations).glob("*.json"))
    return next((file for file in files if here & {read.consumer for read in expectations.read(file, file.name).reads}), None)


def is_read(of: FieldUse, named: Iterable[tuple[str, str]]) -> bool:
    """Whether somebody would break if these fields went."""
    return any(of.readers(event, path) for event, path in named)
