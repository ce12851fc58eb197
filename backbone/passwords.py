"""A folder with one file per user: its name is the user's, its content the password, as Kubernetes mounts a Secret."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from backbone.errors import NoPassword, SettingsError

BYTES = 24
"""192 bits: nobody guesses it, so nothing depends on how slowly a broker hashes it."""


def new_password() -> str:
    """A password that nobody has."""
    return secrets.token_urlsafe(BYTES)


def password_of(folder: str | Path, user: str) -> str:
    """The password of a user.

    Raises:
        NoPassword: there is none.
        SettingsError: it cannot be read.
    """
    path = Path(folder) / user
    try:
        password = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        remedy = "`backbone topics apply` makes it, where it may write"
        raise NoPassword(f"{user} has no password: there is no file {path}. {remedy}") from None
    except OSError as error:
        raise SettingsError(f"the password of {user} cannot be read: {path}: {error.strerror}") from error
    if not password:
        raise SettingsError(f"the password of {user} is empty: {path}")
    return password


def has_password(folder: str | Path, user: str) -> bool:
    """Whether there is a file for a user."""
    return (Path(folder) / user).is_file()


def make_passwords(folder: str | Path, users: Iterable[str]) -> tuple[str, ...]:
    """Make a password for everybody who has none; only their owner may read them.

    Returns:
        Users that got one.

    Raises:
        SettingsError: the folder cannot be written to.
    """
    made = []
    for user in users:
        if has_password(folder, user):
            continue
        try:
            _write(Path(folder), user, new_password())
        except OSError as error:
            raise SettingsError(f"no password can be made for {user} in {folder}: {error.strerror}; put a file {user} there") from error
        made.append(user)
    return tuple(made)


def forget_password(folder: str | Path, user: str) -> None:
    """Delete the file of a user, if there is one that can be deleted."""
    with suppress(OSError):
        (Path(folder) / user).unlink()


def _write(folder: Path, user: str, password: str) -> None:
    """In one step, so that nobody ever reads half of it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = folder / f".{user}.{os.getpid()}"
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(password)
    fresh.replace(folder / user)
