"""API and worker that share no directory: PostgreSQL, Redis and a bucket, by three URLs."""

import io
import os
import shutil
import subprocess
import sys
import tarfile

import pytest
from installation import Service
from tiny_runs import TINY, sample


@pytest.fixture
def apart(make_settings, bucket_url, tmp_path):
    """Each process has a data directory of its own."""
    settings = make_settings(servers=True, artifacts_url=bucket_url)
    running = Service(settings, tmp_path / "service.log")
    elsewhere = tmp_path / "elsewhere"
    try:
        running.start("api")
        running.start(
            "worker", FAIRTUNE_DATA_DIR=str(elsewhere), FAIRTUNE_JOBS_DIR=str(elsewhere / "jobs")
        )
        yield running.ready()
    finally:
        running.stop()
        shutil.rmtree(elsewhere, ignore_errors=True)


def test_a_run_through_a_bucket(apart, tmp_path):
    run_id = apart.submit(dataset_id=apart.upload(sample()), **TINY)
    run = apart.wait_for(run_id, "succeeded", "failed")
    assert run["status"] == "succeeded", run["failure"]
    assert apart.client.get(f"/v1/runs/{run_id}/bias-report").json()["data"]["rows"] == 30
    page = apart.client.get(f"/v1/runs/{run_id}/bias-report", params={"format": "html"})
    assert page.status_code == 200
    archive = apart.client.get(f"/v1/runs/{run_id}/adapter/download")
    assert len(archive.content) == int(archive.headers["content-length"])
    with tarfile.open(fileobj=io.BytesIO(archive.content)) as opened:
        opened.extractall(tmp_path / "adapter", filter="data")
    names = {path.name for path in (tmp_path / "adapter" / f"{run_id}-adapter").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    assert not (apart.settings.data_dir / "artifacts").exists()
    exported = subprocess.run(
        [sys.executable, "-m", "service.cli", "export", run_id, "--to", tmp_path / "hub"],
        env=os.environ | apart.settings.variables,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "bias_report.json" in exported.stdout.splitlines()
    weights = (tmp_path / "hub" / "adapter_model.safetensors").read_bytes()
    name = f"{run_id}-adapter"
    assert weights == (tmp_path / "adapter" / name / "adapter_model.safetensors").read_bytes()
    assert apart.client.delete(f"/v1/runs/{run_id}").status_code == 204
    assert apart.client.get("/v1/runs").json()["data"] == []
