"""Machine, library versions and commit of a result."""

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
    """Return the default dtype of all systems: bfloat16 if this machine supports it."""
    from worker.modeling.precision import has_bfloat16

    return "bfloat16" if has_cuda() or has_bfloat16() else "float32"


def describe() -> str:
    """Return processor, cores of this process, memory and GPU, but no host name."""
    cpu = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    flags = Path("/proc/cpuinfo").read_text()
    amx = " with AMX" if "amx_bf16" in flags else ""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    description = f"{len(os.sched_getaffinity(0))} cores of {cpu}{amx}, {memory:.0f} GiB"
    if has_cuda():
        import torch

        description += f", {torch.cuda.get_device_name()}"
    return description


def short_name(description: str) -> str:
    """Return the GPU or the processor in `description` as a file name: lower case and dashes."""
    last = description.rpartition(", ")[2]
    if last.endswith("GiB"):
        cores, _, cpu = description.partition(" cores of ")
        last = f"{cores} cores {re.sub(r'[(]R[)]|Processor|CPU|@.*|,.*| with AMX', '', cpu)}"
    return re.sub(r"[^a-z0-9]+", "-", last.lower()).strip("-")


def versions() -> dict[str, str]:
    installed = {}
    for name in _PACKAGES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def commit() -> str:
    """Return the short commit, marked as changed if the files differ from it."""

    def git(*arguments: str) -> str:
        process = subprocess.run(  # noqa: S603 - a fixed command
            ["git", *arguments],  # noqa: S607 - whichever git the user has
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        return process.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + (" changed" if changed else "")


def stamp(model: str) -> dict[str, Any]:
    """Return the fields common to all results."""
    description = describe()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": description,
        "commit": commit(),
        "model": model,
        "versions": versions(),
    }
