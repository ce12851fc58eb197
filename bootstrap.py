"""Makes `.venv`: hash-pinned packages, the checkout on the import path, a `backbone` command. Standard library only.

It must be readable by every Python 3.6 or later, so that an old one can say that it is too old: hence the quoted
annotations and no newer syntax.
"""

import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST = (3, 11)
PATIENCE_S = 900  # a slow line needs minutes for 250 MB; a hung one must end some day

COMMAND = """#!{python}
import sys

from backbone.cli import main

sys.exit(main())
"""


class SetupError(Exception):
    """A sentence that names what is missing and the remedy."""


def refusal(version: "tuple[int, ...]", system: str, libc: str, python: str = sys.executable) -> str:
    """Why this machine cannot run the checkout, or an empty text.

    Arguments: version of Python (3, 11, ...), `platform.system()`, `platform.libc_ver()[0]`, path of the interpreter.
    """
    if version[:2] < OLDEST:
        found = ".".join(str(part) for part in version[:3])
        return f"Python {found} ({python}) is too old: 3.11 or later is needed. Name a newer one: make PYTHON=python3.11 setup"
    if system not in ("Linux", "Darwin"):
        return f"{system} is not supported: the embedded Valkey has no wheels for it. Use Linux (glibc), macOS or WSL."
    if system == "Linux" and libc != "glibc":
        return (
            "This Linux has no glibc (musl, as in Alpine?): the embedded Valkey has no wheels for it. "
            "Use a glibc distribution such as Debian, Ubuntu or Fedora."
        )
    return ""


def stamp_text(root: Path) -> str:
    """What the finished environment was made from: the lock, this script, the interpreter and the place."""
    digest = hashlib.sha256()
    for name in ("requirements.lock", "bootstrap.py"):
        digest.update((root / name).read_bytes())
    return f"{digest.hexdigest()}\n{sys.version}\n{root}\n"


def is_ready(root: Path) -> bool:
    """Whether `.venv` is complete and made from what lies here now."""
    stamp = root / ".venv" / "stamp"
    try:
        return stamp.read_text(encoding="utf-8") == stamp_text(root) and (root / ".venv/bin/python").exists()
    except FileNotFoundError:
        return False


def locked_names(lock: str) -> "list[str]":
    """Names of the packages of a lock file, in its order."""
    return re.findall(r"^([A-Za-z0-9][\w.-]*)==", lock, flags=re.MULTILINE)


def make_venv(root: Path) -> None:
    """Creates `.venv`, anew if it was made elsewhere, by another Python, or not to its end."""
    place = root / ".venv"
    made_from = place / "made-from"
    want = f"{sys.version}\n{root}\n"
    if made_from.exists() and made_from.read_text(encoding="utf-8") == want:
        return
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        raise SetupError(
            f"{sys.executable} has no `{missing[0]}`, so it cannot make a virtual environment. "
            f"On Debian and Ubuntu: sudo apt-get install {package}"
        )
    import venv

    if place.exists():
        shutil.rmtree(str(place))
    venv.EnvBuilder(with_pip=True, symlinks=True).create(str(place))
    made_from.write_text(want, encoding="utf-8")


def install(root: Path, log: Path) -> None:
    """Installs exactly the lock, verified by hash, with one moving line of progress; removes what left the lock."""
    python = str(root / ".venv/bin/python")
    lock = root / "requirements.lock"
    total = len(locked_names(lock.read_text(encoding="utf-8")))
    # Isolated: a PYTHONPATH of the caller must not decide what counts as installed.
    pip = [python, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input"]
    # Without compiling all of it ahead: Python compiles what is imported, when it is.
    run_pip([*pip, "install", "--no-compile", "--progress-bar=off", "--require-hashes", "-r", str(lock)], total, log)
    listed = subprocess.run([*pip, "freeze"], stdout=subprocess.PIPE, check=True, timeout=60).stdout.decode()
    wanted = {normal(name) for name in locked_names(lock.read_text(encoding="utf-8"))}
    stale = [name for name in locked_names(listed) if normal(name) not in wanted]
    if stale:
        subprocess.run([*pip, "uninstall", "-q", "-y", *stale], check=True, timeout=60)


def normal(name: str) -> str:
    """A package's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def run_pip(command: "list[str]", total: int, log: Path) -> None:
    """Runs pip, its whole output in `log`, one short line of progress per step on the terminal."""
    live = sys.stdout.isatty()
    seen = 0
    megabytes = 0.0
    with log.open("w", encoding="utf-8") as kept:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, universal_newlines=True
        )
        assert process.stdout is not None
        watchdog = threading.Timer(PATIENCE_S, process.kill)
        watchdog.start()
        try:
            for line in process.stdout:
                kept.write(line)
                if line.startswith(("Collecting ", "Requirement already satisfied")):
                    seen += 1
                    if live or seen % 20 == 0:
                        show(f"  {seen}/{total} packages, {megabytes:.0f} MB fetched", live)
                elif "Downloading " in line:
                    megabytes += size_in_megabytes(line)
                elif line.startswith("Installing collected"):
                    show(f"  all verified by hash, {megabytes:.0f} MB fetched; installing", live)
            code = process.wait(timeout=60)
        finally:
            watchdog.cancel()
            if process.poll() is None:
                process.kill()
                process.wait(timeout=60)
    if live:
        print()
    if code != 0:
        last = "".join(log.read_text(encoding="utf-8").splitlines(keepends=True)[-12:])
        why = f"exit code {code}" if code > 0 else f"ended by signal {-code}; the limit is {PATIENCE_S} s"
        raise SetupError(f"pip could not install requirements.lock ({why}):\n{last}The whole output: {log}")


def size_in_megabytes(line: str) -> float:
    """The size that pip names at the end of a `Downloading` line, 0 if it names none."""
    found = re.search(r"\(([\d.]+) (kB|MB|GB|bytes)\)", line)
    if not found:
        return 0.0
    return float(found.group(1)) * {"bytes": 1e-6, "kB": 1e-3, "MB": 1.0, "GB": 1e3}[found.group(2)]


def show(text: str, live: bool) -> None:
    """Prints progress: over the last line in a terminal, else as a line of its own."""
    print(f"\r\x1b[K{text}" if live else text, end="" if live else "\n", flush=True)


def lay_paths(root: Path) -> None:
    """Puts the checkout and its generated code on the import path and a `backbone` command beside the interpreter.

    Done by hand, not by an editable install: that would have to fetch its build tools, and must work offline.
    """
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    packages = root / ".venv" / "lib" / f"python{version}" / "site-packages"
    (packages / "checkout.pth").write_text(f"{root}\n{root / 'generated'}\n", encoding="utf-8")
    (root / "generated").mkdir(exist_ok=True)
    command = root / ".venv" / "bin" / "backbone"
    command.write_text(COMMAND.format(python=root / ".venv/bin/python"), encoding="utf-8")
    command.chmod(0o755)


def hold(lock_file: int) -> None:
    """Waits until no other `make setup` works on this checkout."""
    import fcntl

    deadline = time.monotonic() + PATIENCE_S
    said = False
    while time.monotonic() < deadline:
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not said:
                print("Waiting for another `make setup` in this checkout ...", flush=True)
                said = True
            time.sleep(0.2)
    raise SetupError("Another `make setup` in this checkout does not end: stop it, then run this again.")


def setup(root: Path) -> None:
    """Makes `.venv` ready, or finds in a few milliseconds that it is."""
    if is_ready(root):
        return
    lock_file = os.open(str(root / "requirements.lock"), os.O_RDONLY)
    try:
        hold(lock_file)
        if is_ready(root):
            return
        started = time.monotonic()
        stamp = root / ".venv" / "stamp"
        if stamp.exists():
            print("Bringing .venv up to date", flush=True)
            stamp.unlink()
        else:
            print(f"Making .venv with Python {platform.python_version()} (once; fetches about 200 MB)", flush=True)
        make_venv(root)
        install(root, root / ".venv" / "pip.log")
        lay_paths(root)
        stamp.write_text(stamp_text(root), encoding="utf-8")
        print(f".venv is ready ({time.monotonic() - started:.0f} s)", flush=True)
    finally:
        os.close(lock_file)


def main() -> int:
    """Refuses what cannot work, then makes the environment; returns the exit code."""
    reason = refusal(sys.version_info[:3], platform.system(), platform.libc_ver()[0])
    if reason:
        print(f"setup: {reason}", file=sys.stderr)
        return 1
    try:
        setup(ROOT)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsetup: interrupted; the next run goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
