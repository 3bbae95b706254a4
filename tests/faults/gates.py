"""Gates: places where a process of the service waits until the harness lets it go on.

inject/sitecustomize.py is the other side and says what the files mean and where the points lie.
"""

import itertools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.installation import wait_until

INJECT = Path(__file__).with_name("inject")


@dataclass(frozen=True)
class Gate:
    """One armed gate. It holds the first process that comes by, and only that one."""

    stem: Path
    together_with: tuple["Gate", ...] = ()
    """Gates that open when this one does."""

    def reached(self, seconds: float = 60) -> int:
        """Wait until a process stands at the gate; return its process id."""
        mark = self.stem.with_suffix(".reached")
        wait_until(mark.exists, seconds)
        return int(mark.read_text())

    @property
    def is_reached(self) -> bool:
        return self.stem.with_suffix(".reached").exists()

    def holds(self, point: str) -> bool:
        """Whether it stands at that point."""
        return self.stem.name.startswith(f"{point}@")

    @property
    def is_open(self) -> bool:
        return self.stem.with_suffix(".go").exists()

    def open(self) -> None:
        for gate in (self, *self.together_with):
            gate.stem.with_suffix(".armed").unlink(missing_ok=True)
            gate.stem.with_suffix(".go").touch()


class Gates:
    """The gates of one installation, and what its processes have recorded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count(1)
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def variables(self) -> dict[str, str]:
        """For the processes of the service; what is on PYTHONPATH already comes after."""
        path = [str(INJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"GATES_DIR": str(self.folder), "PYTHONPATH": os.pathsep.join(path)}

    def arm(self, point: str, *together_with: Gate, **conditions: Any) -> Gate:
        """Hold the next process that gets to `point` where the conditions are so."""
        gate = Gate(self.folder / f"{point}@{next(self._numbers)}", together_with)
        aside = gate.stem.with_suffix(".new")
        aside.write_text(json.dumps(conditions))
        aside.rename(gate.stem.with_suffix(".armed"))
        return gate

    def seen(self, fact: str, seconds: float = 30) -> None:
        """Wait until a process notes `fact`."""
        wait_until((self.folder / f"{fact}.seen").exists, seconds)

    def limit_memory(self, **most: int) -> None:
        """Let micro-batches of more cases run out of memory: train=…, eval=…"""
        (self.folder / "memory.json").write_text(json.dumps(most))

    def clear(self) -> None:
        """Let every process go on, and hold none from now on."""
        for path in self.folder.glob("*.armed"):
            path.unlink(missing_ok=True)
        for path in self.folder.glob("*.reached"):
            path.with_suffix(".go").touch()
        for pattern in ("*.seen", "memory.json"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)
