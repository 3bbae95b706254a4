"""Process of one measurement: python -m benchmarks.throughput.child WORK RESULT."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.throughput.watch import Watch
from benchmarks.throughput.work import System, Work


def main(work_path: str, result_path: str) -> None:
    work = Work.read(Path(work_path))
    # As Fairtune's programs set it (worker.runtime.launch), but here for all systems.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    watch = Watch(work.began)
    result = Path(result_path)
    samples = _system(work.system)(work, result.parent, watch)
    result.write_text(json.dumps(watch.result(samples)))


def _system(name: System) -> Callable[[Work, Path, Watch], list[tuple[list[int], int]]]:
    """Import the system alone, so that others affect neither its time nor its memory."""
    if name == "fairtune":
        from benchmarks.throughput.fairtune import fairtune

        return fairtune
    if name == "probe":
        from benchmarks.throughput.probe import probe

        return probe
    _import_training()
    from benchmarks.throughput import systems

    return systems.trl if name == "trl" else systems.original


def _import_training() -> None:
    """Import what users of these systems import at the top of their scripts."""
    import accelerate  # noqa: F401
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
    import torch  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer  # noqa: F401


if __name__ == "__main__":
    main(*sys.argv[1:])
