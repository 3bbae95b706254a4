"""A run as a worker leaves it, said by hand: checkpoints, an adapter, an end."""

from typing import Any

from service.domain.states import JobStatus
from service.store import jobs
from tests.support.fake_worker import Worker


def finish(worker: Worker, to: JobStatus = JobStatus.SUCCEEDED, **values: Any) -> None:
    with worker.context.database.write() as session:
        job = jobs.get(session, worker.job_id)
        assert jobs.switch_status(session, job, to, expected_token=worker.current.token, **values)


def save(worker: Worker, step: int, best_step: int | None = None) -> None:
    files = []
    for name in ("adapter_config.json", "adapter_model.safetensors", "optimizer.safetensors"):
        file = worker.file(f"checkpoints/checkpoint-{step}/{name}", f"{name} {step}".encode())
        files.append(file | {"path": name})
    worker.ship(
        worker.line(
            type="checkpoint",
            step=step,
            epoch=step / 10,
            path=f"checkpoints/checkpoint-{step}",
            files=files,
            metrics={},
            best_step=best_step,
        )
    )


def leave_adapter(worker: Worker, content: bytes = b"weights") -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        worker.ship(worker.line(type="artifact", file=worker.file(name, content)))
