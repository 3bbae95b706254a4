"""Access control: roles, states of API keys, and the caller of a request."""

import ipaddress
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """Permissions of an API key, ordered by rank: each role includes those below it."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        return list(Role).index(self)

    # All four, since str defines its own: alphabetically, an admin would rank lowest.
    def __lt__(self, other: str) -> bool:
        return self.rank < Role(other).rank

    def __le__(self, other: str) -> bool:
        return self.rank <= Role(other).rank

    def __gt__(self, other: str) -> bool:
        return self.rank > Role(other).rank

    def __ge__(self, other: str) -> bool:
        return self.rank >= Role(other).rank


class KeyState(StrEnum):
    """State of an API key; a revoked key stays revoked even after its expiry."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Caller:
    """Author of a request: an API key, or anybody if access is open."""

    key_id: str | None
    name: str | None
    role: Role


OPEN = Caller(None, None, Role.ADMIN)
"""The caller of a server that listens on loopback only and never had a key."""


def is_loopback(host: str) -> bool:
    """Return True if only this machine can reach a server that listens on `host`.

    A name other than localhost counts as reachable from outside: its address may change.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
