"""The import contracts of pyproject.toml catch what they are there for, in new modules too."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    copy = tmp_path_factory.mktemp("checkout")
    for package in ("fairtune", "service", "worker"):
        shutil.copytree(
            ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def broken_contracts(checkout: Path) -> list[str]:
    """The names of the contracts that `lint-imports` reports as broken."""
    run = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=checkout,
        env={"PYTHONPATH": str(checkout), "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    names = [line.removesuffix(" BROKEN") for line in run.stdout.splitlines() if "BROKEN" in line]
    assert "Contracts: " in run.stdout, run.stdout + run.stderr
    assert (run.returncode == 0) == (not names)
    return names


def test_the_contracts_hold(checkout):
    assert broken_contracts(checkout) == []


SHARED = "the worker shares these packages with the API, and no others"
CONTROL = "the control plane: dependencies point down"
DATA = "the data plane: dependencies point down"


@pytest.mark.parametrize(
    ("module", "imports", "contract"),
    [
        ("worker/supervision/supervisor.py", "service.usecases.run_checks", SHARED),
        ("worker/programs/train.py", "service.settings", SHARED),
        ("worker/runtime/launch.py", "fastapi", SHARED),
        ("worker/data/rows.py", "service.store.jobs", "programs know neither the database nor"),
        ("worker/runtime/launch.py", "worker.training.loop", DATA),
        ("service/store/jobs.py", "service.usecases.runs", CONTROL),
        ("service/store/jobs.py", "service.artifacts.store", CONTROL),
        ("service/domain/states.py", "service.settings", CONTROL),
        ("service/domain/states.py", "sqlmodel", "the domain knows only pydantic"),
        ("service/domain/states.py", "structlog", "the domain knows only pydantic"),
        ("service/datasets/build.py", "sqlmodel", "adapters, datasets, statistics and presets"),
        ("service/usecases/runs.py", "tokenizers", "the control plane needs no worker"),
        ("worker/programs/train.py", "redis", "programs know neither the database nor"),
        ("service/usecases/runs.py", "service.api.schemas.runs", CONTROL),
        ("service/fairness/report.py", "torch", "the control plane needs no worker"),
        ("service/queue/sweep.py", "worker.tasks", "the control plane needs no worker"),
        # Modules that no contract has heard of.
        ("service/loose.py", "service.domain.ids", CONTROL),
        ("service/newroom/__init__.py", "service.domain.ids", CONTROL),
        ("worker/loose.py", "worker.runtime.launch", DATA),
        ("worker/newroom/__init__.py", "service.usecases.runs", SHARED),
        ("worker/newroom/__init__.py", "sqlmodel", "programs know neither the database nor"),
        ("service/usecases/brandnew.py", "worker.tasks", "the control plane needs no worker"),
    ],
)
def test_an_import_against_the_contracts_is_reported(checkout, module, imports, contract):
    file = checkout / module
    before = file.read_text() if file.exists() else None
    is_new_package = not file.parent.exists()
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"{before or ''}\nimport {imports}\n")
    try:
        assert any(name.startswith(contract) for name in broken_contracts(checkout))
    finally:
        if before is not None:
            file.write_text(before)
        elif is_new_package:
            shutil.rmtree(file.parent)
        else:
            file.unlink()
