"""Tiny models, one set for all tests of the worker; and disks with room for little."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before torch is loaded: see worker.runtime.launch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest

from tests.support.tiny_models import make_models


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory with tiny-llama, tiny-qwen3 and tiny-gpt_oss, float32."""
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def load(models_dir: Path) -> Callable[[str], tuple[Any, Any]]:
    """A fresh float32 model of a family, in evaluation mode, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def loaded(family: str) -> tuple[Any, Any]:
        directory = models_dir / f"tiny-{family}"
        model = AutoModelForCausalLM.from_pretrained(directory)
        return model.eval(), AutoTokenizer.from_pretrained(directory)

    return loaded


@pytest.fixture
def bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use bfloat16 wherever it is specified, even on a CPU that is slow at it: models are tiny."""
    from worker.modeling import precision

    monkeypatch.setattr(precision, "has_bfloat16", lambda: True)


@dataclass(frozen=True)
class SmallDisk:
    """A file system with room for little. `path` leads there from any process of this user."""

    path: Path

    def fill(self) -> None:
        """Leave no page of it free. A file can still grow within its last page."""
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)

    @property
    def _filler(self) -> Path:
        return self.path / "filler"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """4 MiB in memory, mounted in a namespace of a helper process's own.

    So it takes no rights here and is gone with the helper. Where no namespace of users can be made,
    as in some containers, root can still make one of mounts.
    """
    directory = tmp_path / "disk"
    directory.mkdir()
    script = 'mount -t tmpfs -o size=4m none "$1" && echo mounted && read -r _'
    refused = []
    for unshare in (["unshare", "-Urm"], ["unshare", "-m"]):
        with subprocess.Popen(
            [*unshare, "sh", "-c", script, "sh", str(directory)],
            stdin=subprocess.PIPE,  # its end is the helper's
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as helper:
            assert helper.stdout is not None
            assert helper.stderr is not None
            if helper.stdout.readline() == b"mounted\n":
                yield SmallDisk(Path(f"/proc/{helper.pid}/root{directory}"))
                return
            refused.append(f"{' '.join(unshare)}: {helper.stderr.read().decode().strip()}")
    pytest.fail(f"a test of full disks needs a small tmpfs, and none can be mounted: {refused}")
