"""A set of keys of files that takes eight bytes for each."""

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable


class KeySet:
    """Invariant: `in` is true for every key added; for another one with probability n / 2**64."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = array("Q")
        self._is_sorted = True
        for key in keys:
            self.add(key)

    def add(self, key: str) -> None:
        self._digests.append(_digest(key))
        self._is_sorted = False

    def __len__(self) -> int:
        return len(self._digests)

    def __contains__(self, key: str) -> bool:
        if not self._is_sorted:
            import numpy as np  # slow to import, and sorts in place

            np.frombuffer(self._digests, dtype=np.uint64).sort()
            self._is_sorted = True
        digest = _digest(key)
        position = bisect_left(self._digests, digest)
        return position < len(self._digests) and self._digests[position] == digest


def _digest(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
