"""Kafka's jars: fetched once, checked before every start."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from backbone.local.errors import JarError
from backbone.local.jars import Jar, classpath, damage, locked, main, maven_repository, shared_folder
from backbone.local.kafka import Kafka


@dataclass
class Repository:
    """A Maven repository of this test, over HTTP, that counts what it is asked for."""

    folder: Path
    asked: list[str] = field(default_factory=list)

    def keep(self, artifact: str, content: bytes) -> Jar:
        """Keeps a jar and returns its line of a lock file."""
        _, name, version = artifact.split(":")
        jar = Jar(artifact, f"{name}-{version}.jar", len(content), hashlib.sha256(content).hexdigest())
        (self.folder / jar.path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / jar.path).write_bytes(content)
        return jar


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """The repository that all jars come from during this test."""
    repository = Repository(tmp_path / "repository")
    repository.folder.mkdir()

    class Counting(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            repository.asked.append(self.path)
            super().do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Counting, directory=str(repository.folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("BACKBONE_MAVEN_REPOSITORY", f"http://127.0.0.1:{server.server_port}/")
    yield repository
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture
def jars(repository: Repository) -> tuple[Jar, Jar]:
    """Two small jars that the repository has."""
    return repository.keep("org.example:one:1", b"1" * 5_000), repository.keep("org.example.deep:two:2", b"2" * 7_000)


def test_missing_jars_are_fetched_once_and_then_found_offline(
    repository: Repository, jars: tuple[Jar, Jar], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "jars"
    first = classpath(folder, jars)
    assert first == f"{folder}/one-1.jar:{folder}/two-2.jar"
    assert sorted(repository.asked) == ["/org/example/deep/two/2/two-2.jar", "/org/example/one/1/one-1.jar"]
    monkeypatch.setenv("BACKBONE_MAVEN_REPOSITORY", "http://127.0.0.1:1")
    assert classpath(folder, jars) == first


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:8]), "has 8 bytes, the lock file says 5000"),
        (lambda path: path.write_bytes(b"x" * 5_000), "its SHA-256 is not that of the lock file"),
    ],
    ids=["truncated", "altered"],
)
def test_a_damaged_jar_is_named_and_fetched_again_once(
    spoil: Callable[[Path], object], words: str, repository: Repository, jars: tuple[Jar, Jar], tmp_path: Path
) -> None:
    classpath(tmp_path, jars)
    repository.asked.clear()
    spoil(tmp_path / "one-1.jar")
    lines: list[str] = []
    classpath(tmp_path, jars, lines.append)
    assert "one-1.jar" in lines[0]
    assert words in lines[0]
    assert repository.asked == ["/org/example/one/1/one-1.jar"]
    assert damage(jars[0], tmp_path) is None


def test_what_is_not_the_locked_jar_is_never_put_in_place(repository: Repository, jars: tuple[Jar, Jar], tmp_path: Path) -> None:
    (repository.folder / jars[1].path).write_bytes(b"<html>sign in</html>")
    with pytest.raises(JarError, match=r"two-2\.jar is not what the lock file names \(20 bytes, 7000 wanted\)"):
        classpath(tmp_path / "jars", jars)
    assert not (tmp_path / "jars" / "two-2.jar").exists()


@pytest.mark.parametrize("answer", ["nothing listens", "not found"])
def test_a_jar_that_cannot_be_fetched_is_named_with_a_remedy(
    answer: str, repository: Repository, jars: tuple[Jar, Jar], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if answer == "not found":
        (repository.folder / jars[0].path).unlink()
    else:
        monkeypatch.setenv("BACKBONE_MAVEN_REPOSITORY", "http://127.0.0.1:1")
    with pytest.raises(JarError, match=r"cannot fetch \w+-\d\.jar: .*; connect this machine to Maven Central once"):
        classpath(tmp_path / "jars", jars)


def test_two_checkouts_that_start_at_once_fetch_each_jar_once(repository: Repository, jars: tuple[Jar, Jar], tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(classpath, tmp_path / "jars", jars) for _ in range(4)]:
            future.result(timeout=30)
    assert len(repository.asked) == 2


def test_progress_without_a_terminal_is_plain_lines_with_sizes(repository: Repository, jars: tuple[Jar, Jar], tmp_path: Path) -> None:
    lines: list[str] = []
    classpath(tmp_path / "jars", jars, lines.append)
    assert "2 jars" in lines[0]
    assert lines[-1].endswith("2 of 2, 0.0 of 0.0 MB")


def test_the_lock_file_names_every_jar_with_its_digest_and_no_address() -> None:
    jars = locked()
    assert len({jar.file for jar in jars}) == len(jars) > 40
    assert all(len(jar.sha256) == 64 and jar.size > 0 and jar.artifact.count(":") == 2 for jar in jars)
    text = (Path(__file__).parents[2] / "backbone/local/kafka.lock.json").read_text()
    assert "//" not in text


def test_the_repository_is_maven_central_unless_a_variable_names_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BACKBONE_MAVEN_REPOSITORY", raising=False)
    assert "maven" in maven_repository()
    monkeypatch.setenv("BACKBONE_MAVEN_REPOSITORY", "https://repository.example/maven2/")
    assert maven_repository() == "https://repository.example/maven2"


def test_the_command_says_in_one_line_why_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("BACKBONE_MAVEN_REPOSITORY", "http://127.0.0.1:1")
    assert main([]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("cannot fetch ")


@pytest.mark.integration
def test_a_broker_starts_although_one_of_its_jars_was_truncated(
    kafka: Kafka,
    repository: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good = shared_folder()  # whole, since the broker of this run is up
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(good, shared_folder())
    victim = next(jar for jar in locked() if jar.artifact.startswith("org.apache.kafka:kafka-clients:"))
    (repository.folder / victim.path).parent.mkdir(parents=True)
    shutil.copy(good / victim.file, repository.folder / victim.path)
    with (shared_folder() / victim.file).open("r+b") as file:
        file.truncate(8)
    with Kafka(tmp_path / "broker"):
        pass
    assert f"{victim.file} is damaged: it has 8 bytes" in capsys.readouterr().err
    assert repository.asked == [f"/{victim.path}"]
