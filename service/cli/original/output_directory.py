"""The output directory of `fairtune train`: which run fills it, and one command at a time."""

import contextlib
import fcntl
import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from service.cli.errors import ExitStatus, refuse
from service.domain.digests import sha256_of

_STATE_FILE = "fairtune.json"


@dataclass(slots=True)
class State:
    """Content of fairtune.json: the run of the output directory and what it was started with."""

    run_id: str
    specification: dict[str, Any]
    digests: dict[str, str]
    """Split -> SHA-256 of its file."""
    checkpoints: list[int] = field(default_factory=list)
    """Steps of the checkpoint directories that were written here."""

    def differences(
        self, specification: Mapping[str, Any], digests: Mapping[str, str]
    ) -> list[str]:
        """Return the names of what differs from another call's specification and files."""
        own, other = _flat(self.specification), _flat(specification)
        names = [name for name in own | other if own.get(name) != other.get(name)]
        splits = {*self.digests, *digests}
        changed = [name for name in splits if self.digests.get(name) != digests.get(name)]
        return sorted(names) + [f"the {split} file" for split in sorted(changed)]


class OutputDirectory:
    """A directory that one command fills at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state_file = path / _STATE_FILE

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Create the directory and keep other commands out. Exits if one is working there."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / f".{_STATE_FILE}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                refuse(f"Another fairtune train is writing to {self.path}: wait, or stop it.")
            yield

    def read_state(self) -> State | None:
        """Return the recorded state; None if there is none. Exits if the file is damaged."""
        try:
            return State(**json.loads(self._state_file.read_text("utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            refuse(
                f"{self._state_file} is damaged: remove it, or choose another output_dir.",
                status=ExitStatus.USAGE,
            )

    def write_state(self, state: State) -> None:
        temporary = self._state_file.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(state), indent=2) + "\n", "utf-8")
        temporary.replace(self._state_file)

    def checkpoint(self, step: int) -> Path:
        """Return the directory of a step's checkpoint."""
        return self.path / f"checkpoint-{step}"

    def remove_checkpoints(self, state: State, kept: Collection[int]) -> None:
        """Remove the checkpoints that were written here, except for those of the steps `kept`."""
        for step in state.checkpoints:
            if step not in kept:
                shutil.rmtree(self.checkpoint(step), ignore_errors=True)
        state.checkpoints = [step for step in state.checkpoints if step in kept]
        self.write_state(state)


def digests_of(files: Mapping[str, Path]) -> dict[str, str]:
    """Return the SHA-256 of each file."""
    return {split: sha256_of(path) for split, path in files.items()}


def _flat(specification: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in specification.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{field}": entry for field, entry in value.items()}
        else:
            flat[name] = value
    return flat
