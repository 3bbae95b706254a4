"""Where and with what a result was measured."""

import os
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "trl")


def has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def dtype() -> str:
    """What all systems compute in by default: bfloat16 where this machine can."""
    from worker.modeling.precision import has_bfloat16

    return "bfloat16" if has_cuda() or has_bfloat16() else "float32"


def describe() -> str:
    """Processor, cores of this process, memory, GPU: no host name."""
    cpu = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    flags = Path("/proc/cpuinfo").read_text()
    amx = " with AMX" if "amx_bf16" in flags else ""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    said = f"{len(os.sched_getaffinity(0))} cores of {cpu}{amx}, {memory:.0f} GiB"
    if has_cuda():
        import torch

        said += f", {torch.cuda.get_device_name()}"
    return said


def short_name(said: str) -> str:
    """Lower-case letters, digits and dashes for a file's name: what stands out of `describe`."""
    last = said.rpartition(", ")[2]
    if last.endswith("GiB"):
        cores, _, cpu = said.partition(" cores of ")
        last = f"{cores} cores {re.sub(r'[(]R[)]|Processor|CPU|@.*|,.*| with AMX', '', cpu)}"
    return re.sub(r"[^a-z0-9]+", "-", last.lower()).strip("-")


def versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The short commit; marked where the files are not those of the commit."""

    def git(*arguments: str) -> str:
        done = subprocess.run(  # noqa: S603 - a fixed command
            ["git", *arguments],  # noqa: S607 - whichever git the user has
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + (" changed" if changed else "")


def stamp(model: str) -> dict[str, Any]:
    """What every result begins with."""
    said = describe()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": said,
        "commit": commit(),
        "model": model,
        "versions": versions(),
    }
