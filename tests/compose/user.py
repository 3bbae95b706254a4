"""What a user of the published port does, with one API key or none."""

import hashlib
from pathlib import Path
from typing import Any

import httpx
from stack import ROOT, Failed, wait_until

SAMPLE = ROOT / "service" / "datasets" / "sample"
ROWS = {"train": 200, "validation": 40, "test": 90}
STEPS, SAVE_STEPS = 100, 5
# Steps of about a second and a checkpoint every few, so that there is always a middle to break.
RUN: dict[str, Any] = {
    "name": "compose test",
    "preset": "quick_test",
    "base_model": "smollm2-135m-instruct",
    "training": {
        "max_steps": STEPS,
        "learning_rate": 2e-3,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "per_device_eval_batch_size": 16,
        "warmup_steps": 4,
        "max_seq_length": 256,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": SAVE_STEPS,
        "eval_strategy": "no",
        "load_best_model_at_end": False,
        "gradient_checkpointing": False,
    },
}
RUN_SECONDS = 1800


def rows_of(split: str) -> bytes:
    lines = Path(SAMPLE / f"{split}.jsonl").read_bytes().splitlines(keepends=True)
    return b"".join(lines[: ROWS[split]])


class User:
    """Every answer that is an error is Failed, unless `status` names it."""

    def __init__(self, port: int, token: str | None) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60, trust_env=False
        )

    def answer(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        return self._client.request(method, path, **arguments)

    def get(self, path: str, **parameters: str | int) -> httpx.Response:
        response = self._client.get(path, params=parameters)
        if response.is_error:
            raise Failed(f"GET {path}: {response.status_code} {response.text}")
        return response

    def post(self, path: str, **arguments: Any) -> Any:
        response = self._client.post(path, **arguments)
        if response.is_error:
            raise Failed(f"POST {path}: {response.status_code} {response.text}")
        return response.json()

    def ready(self, seconds: float) -> None:
        def answers() -> bool:
            try:
                return self._client.get("/readyz", timeout=10).status_code == 200
            except httpx.TransportError:
                return False

        wait_until("GET /readyz answers 200", answers, seconds)

    def upload(self) -> str:
        files = {split: (f"{split}.jsonl", rows_of(split)) for split in ROWS}
        dataset_id: str = self.post("/v1/datasets", data={"name": "sample"}, files=files)["id"]
        return dataset_id

    def run(self, run_id: str) -> dict[str, Any]:
        """As it stands; waits while the API or its database is being restarted."""

        def answers() -> dict[str, Any] | None:
            try:
                response = self._client.get(f"/v1/runs/{run_id}")
            except httpx.TransportError:
                return None
            if response.status_code == 503:
                return None
            if response.is_error:
                raise Failed(f"GET /v1/runs/{run_id}: {response.status_code} {response.text}")
            run: dict[str, Any] = response.json()
            if run["status"] in ("failed", "cancelled"):
                raise Failed(f"the run {run['status']}: {run['failure']}")
            return run

        found: dict[str, Any] = wait_until(f"GET /v1/runs/{run_id} answers", answers, 120)
        return found

    def trains_past(self, run_id: str, step: int) -> dict[str, Any]:
        """The run once it trains beyond `step`. Failed where it ended before anybody looked."""

        def there() -> dict[str, Any] | None:
            run = self.run(run_id)
            if run["status"] == "succeeded":
                raise Failed(f"the run ended before it was seen training past step {step}")
            return run if run["status"] == "running" and run["step"] > step else None

        found: dict[str, Any] = wait_until(f"the run trains past {step}", there, RUN_SECONDS)
        return found

    def checkpoints(self, run_id: str) -> list[int]:
        found = self.get(f"/v1/runs/{run_id}/checkpoints").json()["data"]
        return [checkpoint["step"] for checkpoint in found]

    def download(self, run_id: str, path: str) -> str:
        """SHA-256 of a file of the result, which is the one that the service states."""
        listed = self.get(f"/v1/runs/{run_id}/artifacts").json()["data"]
        promised = {file["path"]: file["sha256"] for file in listed}[path]
        content = self.get(f"/v1/runs/{run_id}/artifacts/{path}").content
        found = hashlib.sha256(content).hexdigest()
        if found != promised:
            raise Failed(f"{path} has SHA-256 {found}; the service says {promised}")
        return found
