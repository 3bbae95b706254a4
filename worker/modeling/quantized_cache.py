"""Quantized weights, kept from one run to the next.

On a CPU quantizing is most of what loading a model takes, and gives the same bits each time. An
entry is a directory as transformers saves a model, under a name that says all that decides its
content: the model's files, the settings, and the libraries' versions. It is written aside and
renamed, and verified against its manifest before use. Whatever is wrong with an entry, or with the
place, costs time and nothing else: the model is quantized as if there were no cache.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from service.domain.digests import sha256_of

log = logging.getLogger("fairtune")

LEAST_BYTES = 64_000_000
"""Of a model's files: what is smaller is quantized in a few tenths of a second."""
MOST_BYTES = 20_000_000_000
"""Of all entries together; the ones longest unused go first."""
MANIFEST = "manifest.json"
_VERSIONS = ("torch", "transformers", "bitsandbytes")


@dataclass(frozen=True, slots=True)
class QuantizedCache:
    root: Path
    key: str
    size: int
    """Bytes of the model's own files, more than those of an entry."""

    @classmethod
    def of(cls, root: Path, model: Path, settings: dict[str, Any]) -> "QuantizedCache | None":
        """The place for the model in that directory, or None where it is not worth one."""
        files = sorted([*model.glob("*.safetensors"), *model.glob("*.json")])
        found = [(path.name, os.path.realpath(path), path.stat()) for path in files]
        size = sum(stat.st_size for _, _, stat in found)
        if size < LEAST_BYTES:
            return None
        # Not a hash of their content, which takes half as long as quantizing it. The time of the
        # last change of the entry in the file system, unlike that of the content, cannot be set.
        identity = [
            (name, real, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
            for name, real, stat in found
        ]
        versions = [version(name) for name in _VERSIONS]
        text = json.dumps([identity, settings, versions], sort_keys=True)
        return cls(root, hashlib.sha256(text.encode()).hexdigest()[:32], size)

    def load(self, read: Callable[[Path], Any]) -> Any | None:
        """What `read` makes of the entry, or None if there is none; a broken one is removed."""
        entry = self.root / self.key
        if not entry.is_dir():
            return None
        try:
            _verify(entry)
            model = read(entry)
            os.utime(entry)
        except Exception as error:  # noqa: BLE001 - whatever it is, the model's own files are there
            log.warning("the kept quantized weights %s are of no use: %s", self.key, error)
            shutil.rmtree(entry, ignore_errors=True)
            return None
        log.info("quantized weights taken from %s", entry)
        return model

    def store(self, model: Any) -> None:
        """Keep the weights of `model`, just loaded; not where there is no room or no right to."""
        try:
            self.root.mkdir(exist_ok=True)
            if shutil.disk_usage(self.root).free < 3 * self.size:
                return
            with (self.root / ".lock").open("w") as lock:
                # Held: another process writes, perhaps the very same. One of them is enough.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._write(model)
                self._bound()
        except Exception as error:  # noqa: BLE001 - no space, no right, nothing that matters
            log.info("the quantized weights are not kept: %s", error)

    def _write(self, model: Any) -> None:
        for torn in self.root.glob(".*.tmp"):  # of processes that were killed
            shutil.rmtree(torn, ignore_errors=True)
        aside = self.root / f".{self.key}.{os.getpid()}.tmp"
        try:
            model.save_pretrained(aside)
            files = {path.name: sha256_of(path) for path in aside.iterdir()}
            # Not synced: what a crash of the machine tears does not match the manifest.
            (aside / MANIFEST).write_text(json.dumps(files))
            for path in aside.iterdir():
                path.chmod(0o644)
            aside.rename(self.root / self.key)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise

    def _bound(self) -> None:
        entries = [path for path in self.root.iterdir() if not path.name.startswith(".")]
        entries.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        total = 0
        for entry in entries:
            total += sum(path.stat().st_size for path in entry.iterdir())
            if total > MOST_BYTES:
                shutil.rmtree(entry, ignore_errors=True)


def _verify(entry: Path) -> None:
    """Raise ValueError, or OSError, unless the entry is what was written."""
    files: dict[str, str] = json.loads((entry / MANIFEST).read_bytes())
    if {path.name for path in entry.iterdir()} != {*files, MANIFEST}:
        raise ValueError("files are missing, or there are more")
    for name, digest in files.items():
        if sha256_of(entry / name) != digest:
            raise ValueError(f"{name} is not what was written")
