"""Processes that the kernel killed because memory ran out."""

from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def oom_kills(root: Path = _ROOT, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Return how many processes of this control group were killed for memory; 0 if unknown.

    A container sees its own group at the root; otherwise /proc/self/cgroup names it (lines
    `0::/path` for version 2, `4:memory:/path` for version 1; cgroups(7)).
    """
    candidates = [root / "memory.events", root / "memory" / "memory.oom_control"]
    try:
        for line in membership.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                candidates.insert(0, root / path.lstrip("/") / "memory.events")
            elif "memory" in controllers.split(","):
                candidates.insert(0, root / "memory" / path.lstrip("/") / "memory.oom_control")
    except (OSError, ValueError):
        pass
    for file in candidates:
        try:
            counts = dict(line.split() for line in file.read_text().splitlines())
            return int(counts["oom_kill"])
        except (OSError, ValueError, KeyError):
            continue
    return 0
