"""Small disks that can be filled: a tmpfs each, mounted as root, here or in a user namespace."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MEGABYTES = 24


@dataclass(frozen=True)
class Disk:
    root: Path

    def fill(self) -> None:
        """Leave no room at all."""
        with (self.root / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass

    def free(self) -> None:
        (self.root / "ballast").unlink()


@contextlib.contextmanager
def small_disk(root: Path) -> Iterator[Disk]:
    root.mkdir(parents=True, exist_ok=True)
    options = f"size={MEGABYTES}m,mode=755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(root)], check=True)
    try:
        yield Disk(root)
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=True)


def can_mount() -> bool:
    return os.geteuid() == 0


def run_where_mounting_is_allowed(test: str, *options: str) -> None:
    """Run one test in a user and mount namespace of its own, where this user counts as root.

    Raises AssertionError where it fails, or where the system allows no such namespace: then only
    root can scenario this case.
    """
    assert shutil.which("unshare"), "mounting a small disk needs root, or unshare of util-linux"
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-m", "pytest"]
    variables = {key: text for key, text in os.environ.items() if "PYTEST" not in key}
    done = subprocess.run(
        [*command, test, *options],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"in a namespace of its own:\n{done.stdout}"
