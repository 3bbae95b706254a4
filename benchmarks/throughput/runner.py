"""Starts one measuring process after another and keeps what they saw."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.throughput.machine import ROOT
from benchmarks.throughput.work import Work

_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",  # everything is here; nobody's start-up waits for a network
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PYTHONWARNINGS": "ignore",
    "TOKENIZERS_PARALLELISM": "true",
    "OMP_WAIT_POLICY": "PASSIVE",
}


class Runner:
    """Runs works in `directory`; each process's output is kept there beside its result."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0
        self._samples: dict[tuple[str, float, int, int], str] = {}

    def run(self, work: Work, label: str) -> dict[str, Any]:
        """One process to its end. Exits with its last lines where it fails.

        The same rows in the same order for all: exits where a system trained on others.
        """
        self._count += 1
        place = self._directory / f"{self._count:03d}-{label}"
        place.mkdir(parents=True)
        result = place / "result.json"
        log = place / "output.log"
        with log.open("wb") as output:
            began = time.monotonic()
            work.but(began=began).write(place / "work.json")
            command = [sys.executable, "-m", "benchmarks.throughput.child"]
            done = subprocess.run(  # noqa: S603 - our own module, no shell
                [*command, str(place / "work.json"), str(result)],
                cwd=ROOT,
                env=os.environ | _ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode or not result.is_file():
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise SystemExit(f"{label} failed ({done.returncode}); {log} ends:\n{tail}")
        found: dict[str, Any] = json.loads(result.read_text())
        self._check_rows(work, label, found.pop("samples"))
        seconds = ", ".join(f"{one:.1f}" for one in found["seconds"])
        print(f"  {label}: steps {seconds} s; whole {time.monotonic() - began:.0f} s", flush=True)
        return found

    def _check_rows(self, work: Work, label: str, samples: Sequence[Sequence[int]]) -> None:
        seen = hashlib.sha256()
        for step in range(work.steps):
            batch = samples[step * work.batch : (step + 1) * work.batch]
            seen.update(json.dumps(batch).encode())
            key = (work.template, work.system_share, work.batch, step)
            if self._samples.setdefault(key, seen.hexdigest()) != seen.hexdigest():
                raise SystemExit(f"{label} has other rows at step {step + 1}: nothing to compare.")
