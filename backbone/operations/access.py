"""The users and rights a platform needs against those a cluster has: what is missing, what is too much, and mending it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from backbone.errors import Unavailable
from backbone.ownership import Right, Surplus, rights, surplus, users
from backbone.passwords import forget_password, make_passwords, password_of
from backbone.topology import Topology

KNOWN_WITHIN_S = 10.0


class Admin(Protocol):
    """What is needed of a cluster to see to its users and rights."""

    @property
    def keeps_users(self) -> bool: ...
    def users(self) -> frozenset[str]: ...
    def set_passwords(self, passwords: Mapping[str, str]) -> None: ...
    def drop_users(self, users: Iterable[str]) -> None: ...
    def rights(self) -> frozenset[Right]: ...
    def grant(self, rights: Iterable[Right]) -> None: ...
    def revoke(self, rights: Iterable[Right]) -> None: ...


@dataclass(frozen=True, slots=True)
class Access:
    """What a cluster lacks, and what it allows that nobody declared.

    Attributes:
        users, rights: how many there should be.
        missing_users: users whom it does not know.
        missing_rights: rights they do not have.
        surplus: what is too much; taken away only if that is asked for.
    """

    users: int = 0
    rights: int = 0
    missing_users: tuple[str, ...] = ()
    missing_rights: tuple[Right, ...] = ()
    surplus: Surplus = field(default_factory=lambda: Surplus((), ()))

    @property
    def fits(self) -> bool:
        """Whether exactly what is declared is allowed."""
        return not (self.missing_users or self.missing_rights or self.surplus.rights or self.surplus.users)

    def lines(self) -> list[str]:
        """One line for everything that differs: `+` is what would be made, `-` what `--prune` would take away."""
        return [
            *(f"+ user {user}" for user in self.missing_users),
            *(f"+ {right}" for right in self.missing_rights),
            *(f"- user {user}: nobody declares it" for user in self.surplus.users),
            *(f"- {right}: nobody declares it" for right in self.surplus.rights),
        ]

    def __str__(self) -> str:
        words = [f"{self.users} users with {self.rights} rights"]
        words += [f"{len(self.missing_users)} users missing"] if self.missing_users else []
        words += [f"{len(self.missing_rights)} rights missing"] if self.missing_rights else []
        too_many = len(self.surplus.users) + len(self.surplus.rights)
        return ", ".join([*words, *([f"{too_many} that nobody declares"] if too_many else [])])

    def to_dict(self) -> dict[str, Any]:
        """All of it for programs."""
        return {
            "missing_users": list(self.missing_users),
            "missing_rights": list(map(str, self.missing_rights)),
            "surplus_users": list(self.surplus.users),
            "surplus_rights": list(map(str, self.surplus.rights)),
        }


def look(of: Topology, admin: Admin) -> Access:
    """What differs, without touching anything."""
    wanted, there, found = rights(of), admin.users(), admin.rights()
    return Access(
        users=len(users(of)),
        rights=len(wanted),
        missing_users=tuple(user for user in users(of) if user not in there) if admin.keeps_users else (),
        missing_rights=tuple(sorted(wanted - found)),
        surplus=surplus(of, found, there),
    )


def mend(of: Topology, admin: Admin, before: Access, secrets: str, *, prune: bool) -> Access:
    """Make the users and rights that are missing; can be repeated at will.

    Args:
        before: what differs.
        secrets: folder with a password per user; who has none there gets one.
        prune: also take away what nobody declares.

    Returns:
        What differs afterwards, once every broker that is asked knows of it.

    Raises:
        SettingsError: a user has no password, and none can be made.
        Unavailable: Kafka does not answer, or does not come to know what it was told.
    """
    if admin.keeps_users:
        fresh = {*make_passwords(secrets, users(of)), *before.missing_users}
        admin.set_passwords({user: password_of(secrets, user) for user in users(of) if user in fresh})
    admin.grant(before.missing_rights)
    if prune:
        admin.revoke(before.surplus.rights)
        admin.drop_users(before.surplus.users)
        for user in before.surplus.users:
            forget_password(secrets, user)
    return _settled(of, admin, prune=prune)


def _settled(of: Topology, admin: Admin, *, prune: bool) -> Access:
    """What a broker is told by the controller, it knows a moment later."""
    deadline = time.monotonic() + KNOWN_WITHIN_S
    while True:
        after = look(of, admin)
        if after.fits or (not after.missing_users and not after.missing_rights and not prune):
            return after
        if time.monotonic() > deadline:
            raise Unavailable(f"after {KNOWN_WITHIN_S:g} s a broker still does not know all users and rights: {after}")
        time.sleep(0.02)
