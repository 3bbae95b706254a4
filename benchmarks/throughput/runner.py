"""Running measurement processes one after another."""

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
    "HF_HUB_OFFLINE": "1",  # all files are local; no start-up waits for a network
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PYTHONWARNINGS": "ignore",
    "TOKENIZERS_PARALLELISM": "true",
    "OMP_WAIT_POLICY": "PASSIVE",
}


class Runner:
    """Runs processes; their output and results are stored below `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0
        self._samples: dict[tuple[str, float, int, int], str] = {}

    def run(self, work: Work, label: str) -> dict[str, Any]:
        """Run one process and return its result. Exits with its last output lines if it fails.

        Also exits if a system trained on other rows, or in another order, than the systems before.
        """
        self._count += 1
        output_dir = self._directory / f"{self._count:03d}-{label}"
        output_dir.mkdir(parents=True)
        result = output_dir / "result.json"
        log = output_dir / "output.log"
        with log.open("wb") as output:
            started = time.monotonic()
            work.but(began=started).write(output_dir / "work.json")
            command = [sys.executable, "-m", "benchmarks.throughput.child"]
            process = subprocess.run(  # noqa: S603 - our own module, no shell
                [*command, str(output_dir / "work.json"), str(result)],
                cwd=ROOT,
                env=os.environ | _ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if process.returncode or not result.is_file():
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise SystemExit(f"{label} failed ({process.returncode}); {log} ends:\n{tail}")
        measurement: dict[str, Any] = json.loads(result.read_text())
        self._check_rows(work, label, measurement.pop("samples"))
        seconds = ", ".join(f"{step_seconds:.1f}" for step_seconds in measurement["seconds"])
        print(f"  {label}: steps {seconds} s; whole {time.monotonic() - started:.0f} s", flush=True)
        return measurement

    def _check_rows(self, work: Work, label: str, samples: Sequence[Sequence[int]]) -> None:
        digest = hashlib.sha256()
        for step in range(work.steps):
            batch = samples[step * work.batch : (step + 1) * work.batch]
            digest.update(json.dumps(batch).encode())
            key = (work.template, work.system_share, work.batch, step)
            if self._samples.setdefault(key, digest.hexdigest()) != digest.hexdigest():
                raise SystemExit(
                    f"{label} has different rows at step {step + 1}: results are not comparable."
                )
