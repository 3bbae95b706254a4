"""Which part may import what, proved in fresh interpreters."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TRAINING = {"torch", "transformers", "peft", "bitsandbytes", "accelerate", "worker"}
HTTP = {"fastapi", "starlette", "uvicorn"}
STORAGE = {"sqlmodel", "sqlalchemy", "celery", "kombu", "alembic"}
ROOT = Path(__file__).parents[2]


def modules_of(package: str) -> list[str]:
    files = sorted((ROOT / package.replace(".", "/")).rglob("*.py"))
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return [name.removesuffix(".__init__") for name in names]


def loaded_by(names: list[str]) -> set[str]:
    """Top-level packages that are loaded after importing these modules."""
    code = (
        "import importlib, json, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(json.loads(run.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("service", TRAINING),
        ("service.domain", TRAINING | HTTP | STORAGE),
        ("service.fairness", TRAINING | HTTP | STORAGE | {"sklearn", "scipy"}),
    ],
)
def test_a_package_does_not_load(package, forbidden):
    names = modules_of(package)
    assert len(names) > 3
    assert loaded_by(names) & forbidden == set()


def test_the_worker_serves_no_http_and_its_process_loads_no_torch():
    control = [
        "worker.tasks",
        "worker.supervision.supervisor",
        "worker.supervision.program_process",
        "worker.supervision.lease",
        "worker.supervision.stall_detector",
        "worker.supervision.event_shipper",
        "worker.supervision.job_directory",
    ]
    assert loaded_by(control) & (HTTP | TRAINING - {"worker"}) == set()


def test_programs_know_neither_database_nor_celery_nor_http():
    names = [
        name
        for package in ("worker.programs", "worker.training", "worker.scoring")
        for name in modules_of(package)
    ]
    assert "worker.programs.train" in names
    assert loaded_by(names) & (HTTP | STORAGE) == set()
