"""TensorBoard's event files, written without its package, which only workers have.

A file is a sequence of records (length, checksum, content, checksum), and a content is the protocol
buffer tensorflow.Event, of which these are needed: wall_time, step, file_version, summary,
session_log.
"""

import os
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

_PREFIX, _SUFFIX = "events.out.tfevents.", ".fairtune"
_SESSION_START = b"\x08\x01"
"""SessionLog with the status START: TensorBoard drops what it has of this step and later ones."""


def _crc_table() -> Iterator[int]:
    for value in range(256):
        remainder = value
        for _ in range(8):
            remainder = (remainder >> 1) ^ (0x82F63B78 if remainder & 1 else 0)
        yield remainder


_CRC_TABLE = tuple(_crc_table())  # CRC-32C (Castagnoli)


class EventFile:
    """Writes scalars under the names of transformers' callback: train/loss, eval/loss …"""

    def __init__(self, directory: Path, created_at: float) -> None:
        """Create a file in `directory`; those of earlier calls are removed."""
        directory.mkdir(parents=True, exist_ok=True)
        for earlier in directory.glob(f"{_PREFIX}*{_SUFFIX}"):
            earlier.unlink()
        name = f"{_PREFIX}{int(created_at):010d}.{socket.gethostname()}.{os.getpid()}{_SUFFIX}"
        self._file = (directory / name).open("wb")
        self._write(_double(1, created_at) + _bytes(3, b"brain.Event:2"))

    def write(self, values: Mapping[str, float], step: int, time: float) -> None:
        """Append metrics of an optimizer step; `time` is in seconds since 1970."""
        summary = b"".join(
            _bytes(1, _bytes(1, tag_of(name).encode()) + _float(2, value))
            for name, value in values.items()
        )
        self._write(_double(1, time) + _whole(2, step) + _bytes(5, summary))

    def rewind(self, step: int, time: float) -> None:
        """Supersede all metrics after `step`."""
        self._write(_double(1, time) + _whole(2, step + 1) + _bytes(7, _SESSION_START))

    def close(self) -> None:
        self._file.close()

    def _write(self, event: bytes) -> None:
        length = struct.pack("<Q", len(event))
        self._file.write(length + _checksum(length) + event + _checksum(event))
        self._file.flush()


def tag_of(metric: str) -> str:
    """Return TensorBoard's tag of a metric."""
    return f"eval/{metric[5:]}" if metric.startswith("eval_") else f"train/{metric}"


def _checksum(content: bytes) -> bytes:
    remainder = 0xFFFFFFFF
    for byte in content:
        remainder = _CRC_TABLE[(remainder ^ byte) & 0xFF] ^ (remainder >> 8)
    remainder ^= 0xFFFFFFFF
    masked = ((remainder >> 15) | (remainder << 17)) + 0xA282EAD8
    return struct.pack("<I", masked & 0xFFFFFFFF)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _whole(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)
