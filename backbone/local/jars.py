"""The jars of Apache Kafka: fetched once per user from Maven Central, checked against the lock file before every start.

`python -m backbone.local.jars` fetches them; with `--lock` it resolves the release anew and writes the lock file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

import httpx
import jgo
from jgo.constants import MAVEN_CENTRAL_URL
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from backbone.local.errors import JarError
from backbone.local.locks import file_lock

KAFKA_VERSION = "4.4.0"
LOCKED_ENDPOINTS = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.slf4j:slf4j-simple:1.7.36")
"""What is resolved into the lock file: the broker, and the logger without which it would say nothing."""

LOCK_FILE = "kafka.lock.json"
FETCHERS = 4
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Jar:
    """One line of the lock file: Maven coordinates (group:artifact:version), size in bytes, SHA-256 in hex."""

    artifact: str
    file: str
    size: int
    sha256: str

    @property
    def path(self) -> str:
        """Where any Maven repository keeps it."""
        group, name, version = self.artifact.split(":")
        return f"{group.replace('.', '/')}/{name}/{version}/{self.file}"


def locked() -> tuple[Jar, ...]:
    """The jars of the committed lock file."""
    text = (resources.files("backbone.local") / LOCK_FILE).read_text()
    return tuple(Jar(**entry) for entry in json.loads(text)["jars"])


def shared_folder() -> Path:
    """Where the jars lie, one copy per user: `$XDG_CACHE_HOME/backbone/kafka-<version>`."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "backbone" / f"kafka-{KAFKA_VERSION}"


def maven_repository() -> str:
    """The repository to fetch from: `$BACKBONE_MAVEN_REPOSITORY` (a company's mirror), else Maven Central."""
    return (os.environ.get("BACKBONE_MAVEN_REPOSITORY") or MAVEN_CENTRAL_URL).rstrip("/")


def damage(jar: Jar, folder: Path) -> str | None:
    """What is wrong with the jar in this folder, in words, or None when it is byte for byte the locked one."""
    path = folder / jar.file
    if not path.exists():
        return "is missing"
    size = path.stat().st_size
    if size != jar.size:
        return f"is damaged: it has {size} bytes, the lock file says {jar.size}"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return None if digest == jar.sha256 else "is damaged: its SHA-256 is not that of the lock file"


def classpath(folder: Path | None = None, jars: Sequence[Jar] | None = None, announce: Callable[[str], None] | None = None) -> str:
    """The class path of a broker; every jar on it was checked now, and fetched (once) if it was missing or damaged.

    Touches the network only to fetch; checkouts that share the folder wait for one another.

    Raises:
        JarError: a jar could not be fetched, or what came is not what the lock file names.
    """
    folder = shared_folder() if folder is None else folder
    jars = locked() if jars is None else jars
    announce = (lambda line: print(line, file=sys.stderr, flush=True)) if announce is None else announce
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JarError(f"cannot make {folder}: {error.strerror}", "set XDG_CACHE_HOME to a folder that can be written") from error
    with file_lock(folder / "lock", within=600.0):
        wanted = []
        for jar in jars:
            if problem := damage(jar, folder):
                wanted.append(jar)
                if problem != "is missing":
                    announce(f"{folder / jar.file} {problem}; fetching it again")
        if wanted:
            _fetch_all(wanted, folder, announce)
    return os.pathsep.join(str(folder / jar.file) for jar in jars)


def _fetch_all(jars: Sequence[Jar], folder: Path, announce: Callable[[str], None]) -> None:
    total = sum(jar.size for jar in jars)
    with (
        _progress(len(jars), total, announce) as progress,
        _client() as client,
        ThreadPoolExecutor(FETCHERS) as pool,
    ):
        for jar, got in zip(jars, pool.map(lambda jar: _fetch(client, jar, folder), jars), strict=True):
            progress(got, jar.file)


def _client() -> httpx.Client:
    """An HTTP client that trusts what the environment says: REQUESTS_CA_BUNDLE, else SSL_CERT_FILE, else certifi's."""
    bundle = os.environ.get("REQUESTS_CA_BUNDLE")
    verify = ssl.create_default_context(cafile=bundle) if bundle else True
    return httpx.Client(verify=verify, timeout=TIMEOUT_S, follow_redirects=True)


def _get(client: httpx.Client, jar: Jar) -> bytes:
    try:
        return client.get(f"{maven_repository()}/{jar.path}").raise_for_status().content
    except httpx.HTTPError as error:
        remedy = "connect this machine to Maven Central once (HTTPS_PROXY, REQUESTS_CA_BUNDLE are honoured) and try again"
        raise JarError(f"cannot fetch {jar.file}: {type(error).__name__}", remedy) from error


def _fetch(client: httpx.Client, jar: Jar, folder: Path) -> int:
    """Fetches one jar and puts it in place only when it is the locked one."""
    content = _get(client, jar)
    if len(content) != jar.size or hashlib.sha256(content).hexdigest() != jar.sha256:
        raise JarError(
            f"what came as {jar.file} is not what the lock file names ({len(content)} bytes, {jar.size} wanted)",
            "try again; if it stays so, the repository in between serves something else",
        )
    with tempfile.NamedTemporaryFile(dir=folder, prefix=jar.file, suffix=".part", delete=False) as part:
        part.write(content)
    Path(part.name).replace(folder / jar.file)
    return len(content)


@contextmanager
def _progress(count: int, total: int, announce: Callable[[str], None]) -> Iterator[Callable[[int, str], None]]:
    """A bar on a terminal, else a line at the start and at every quarter; yields what to call per jar."""
    title = f"Apache Kafka {KAFKA_VERSION}: {count} jars from Maven"
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn(title), BarColumn(), DownloadColumn(), TextColumn("{task.fields[file]}"))
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("jars", total=total, file="")
            yield lambda got, file: bar.update(task, advance=got, file=file)
        return
    announce(f"{title}, {total / 1e6:.1f} MB")
    done = [0, 0]

    def report(got: int, _: str) -> None:
        before = 4 * done[1] // total
        done[0], done[1] = done[0] + 1, done[1] + got
        if 4 * done[1] // total > before:
            announce(f"{title}: {done[0]} of {count}, {done[1] / 1e6:.1f} of {total / 1e6:.1f} MB")

    yield report


def resolve() -> tuple[Jar, ...]:
    """The jars of `LOCKED_ENDPOINTS` as Maven would choose them, fetched and measured; needs no Java."""
    coordinates: dict[str, str] = {}
    for endpoint in LOCKED_ENDPOINTS:
        for artifact in jgo.resolve(endpoint):
            coordinates.setdefault(f"{artifact.groupId}:{artifact.artifactId}", artifact.version)
    with _client() as client:
        return tuple(_measured(client, f"{name}:{version}") for name, version in coordinates.items())


def _measured(client: httpx.Client, artifact: str) -> Jar:
    _, name, version = artifact.split(":")
    jar = Jar(artifact, f"{name}-{version}.jar", 0, "")
    content = _get(client, jar)
    return Jar(artifact, jar.file, len(content), hashlib.sha256(content).hexdigest())


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetches what is missing, or writes the lock file anew with `--lock`."""
    parser = argparse.ArgumentParser(prog="python -m backbone.local.jars", description=__doc__)
    parser.add_argument("--lock", action="store_true", help="resolve the release anew and write the lock file")
    if parser.parse_args(arguments).lock:
        entries = [asdict(jar) for jar in resolve()]
        text = json.dumps({"kafka": KAFKA_VERSION, "jars": entries}, indent=1) + "\n"
        (Path(__file__).parent / LOCK_FILE).write_text(text)
        print(f"{LOCK_FILE}: {len(entries)} jars, {sum(entry['size'] for entry in entries) / 1e6:.1f} MB")
        return 0
    try:
        classpath()
    except JarError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Apache Kafka {KAFKA_VERSION}: {len(locked())} jars in {shared_folder()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
