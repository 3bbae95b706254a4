"""Who may do what: roles, and the caller of a request."""

import ipaddress
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What an API key permits. Ordered by rank: each role may do what those below it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        return list(Role).index(self)

    # All four, since a string brings its own: by the alphabet an admin would rank lowest.
    def __lt__(self, other: str) -> bool:
        return self.rank < Role(other).rank

    def __le__(self, other: str) -> bool:
        return self.rank <= Role(other).rank

    def __gt__(self, other: str) -> bool:
        return self.rank > Role(other).rank

    def __ge__(self, other: str) -> bool:
        return self.rank >= Role(other).rank


class KeyState(StrEnum):
    """A key that was revoked stays revoked, whether or not it has also expired."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request: an API key, or nobody in particular where access is open."""

    key_id: str | None
    name: str | None
    role: Role


OPEN = Caller(None, None, Role.ADMIN)
"""Everybody, on a server that listens on loopback alone and never had a key."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`.

    A name other than localhost counts as reachable: what it resolves to may change.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
