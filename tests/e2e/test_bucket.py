"""API and worker with nothing shared but three URLs: PostgreSQL, Redis and a bucket."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import httpx
import pytest
from transformers import AutoModelForCausalLM

from tests.support.installation import Service, wait_until
from tests.support.ship_big import peak
from tests.support.tiny_runs import TINY, sample

BIG = int(os.environ.get("FAIRTUNE_BIG_BYTES", 192 << 20))
"""Of the artifact whose way is measured; docs/artifacts.md has the figures for 2 GiB."""

MEMORY = 128 << 20
"""Bytes by which moving it may raise the peak of API and supervisor: some parts of 16 MiB and, with
a bucket, boto3 itself; not the file of 192 MiB.
"""


@pytest.fixture
def service(make_settings, bucket_url, tmp_path):
    settings = make_settings(servers=True, artifacts_url=bucket_url)
    elsewhere = tmp_path / "elsewhere"
    models = shutil.copytree(settings.models_dir, elsewhere / "models")
    running = Service(settings, tmp_path / "service.log")
    try:
        running.start("api")
        running.start(
            "worker",
            FAIRTUNE_DATA_DIR=str(elsewhere),
            FAIRTUNE_JOBS_DIR=str(elsewhere / "jobs"),
            FAIRTUNE_MODELS_DIR=str(models),
        )
        yield running.ready()
    finally:
        running.stop()


def finished(service, url: str) -> dict:
    def done() -> dict | None:
        found = service.client.get(url).json()
        return found if found["status"] in ("succeeded", "failed", "cancelled") else None

    found = wait_until(done)
    assert found["status"] == "succeeded", found
    return found


def unpacked(answer: httpx.Response, into: Path) -> Path:
    """The folder of a downloaded tar, which is as long as was said."""
    assert answer.status_code == 200, answer.text
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        archive.extractall(into, filter="data")
    (folder,) = into.iterdir()
    return folder


def test_a_run_goes_from_post_to_download_and_away_again(service, s3_server, bucket_url, tmp_path):
    get = service.client.get
    run_id = service.submit(dataset_id=service.upload(sample()), **TINY)
    assert service.wait_for(run_id, "succeeded", "failed")["status"] == "succeeded"
    assert not list(tmp_path.rglob("artifacts"))  # neither of them keeps files of its own

    url = f"/v1/runs/{run_id}"
    assert get(f"{url}/bias-report").json()["data"]["rows"] == 30
    assert get(f"{url}/bias-report", params={"format": "html"}).status_code == 200
    files = {one["path"]: one["sha256"] for one in get(f"{url}/artifacts").json()["data"]}
    adapter = unpacked(get(f"{url}/adapter/download"), tmp_path / "adapter")
    for path in adapter.iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == files[path.name]
    exported = subprocess.run(
        [sys.executable, "-m", "service.cli.main", "export", run_id, "--to", tmp_path / "hub"],
        env=os.environ | service.settings.variables,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "bias_report.json" in exported.stdout.splitlines()
    weights = (tmp_path / "hub" / "adapter_model.safetensors").read_bytes()
    assert weights == (adapter / "adapter_model.safetensors").read_bytes()
    step = get(f"{url}/checkpoints").json()["data"][0]["step"]
    whole = unpacked(get(f"{url}/checkpoints/{step}/download"), tmp_path / "checkpoint")
    assert (whole / "adapter_model.safetensors").is_file()
    sent = get(f"{url}/artifacts/adapter_model.safetensors?redirect=true")
    assert sent.status_code == 307
    straight = httpx.get(sent.headers["Location"], trust_env=False).content
    assert hashlib.sha256(straight).hexdigest() == files["adapter_model.safetensors"]

    made = service.client.post(f"{url}/merged", json={"base_weights": "dequantized"})
    assert made.status_code == 201, made.text
    merged = finished(service, f"{url}/merged")
    folder = unpacked(get(f"{url}/merged/download"), tmp_path / "merged")
    AutoModelForCausalLM.from_pretrained(folder)
    texts = ["They are fine people.", "They are scum."]
    asked = service.client.post(f"{url}/predictions", json={"texts": texts})
    assert asked.status_code == 201, asked.text
    answered = finished(service, f"{url}/predictions/{asked.json()['id']}")
    assert len(answered["predictions"]) == 2
    command = [sys.executable, "-m", "service.cli.main", "predict", run_id, *texts]
    command += ["--target", "merged", "--timeout", "120", "--url", str(service.client.base_url)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert [json.loads(line)["text"] for line in said.splitlines()] == texts
    assert merged["id"] == get(f"{url}/merged").json()["id"]

    def left(place: str = "") -> int:
        bucket, _, prefix = bucket_url.removeprefix("s3://").partition("/")
        below = f"{prefix}/runs/{place}"
        return s3_server.client().list_objects_v2(Bucket=bucket, Prefix=below)["KeyCount"]

    assert left(f"{run_id}/{merged['job_id']}/") > 3
    assert service.client.delete(f"{url}/merged?merge_id={merged['id']}").status_code == 204
    assert left(f"{run_id}/{merged['job_id']}/") == 0
    of_merged, _ = get(f"{url}/predictions").json()["data"]
    assert (of_merged["merge_id"], of_merged["status"]) == (merged["id"], "succeeded")
    assert len(get(f"{url}/predictions/{of_merged['id']}").json()["predictions"]) == 2

    assert service.client.delete(url).status_code == 204
    assert get(url).status_code == 404
    assert left() == 0


@pytest.mark.extended
@pytest.mark.parametrize("bucket", [False, True], ids=["directory", "bucket"])
def test_a_big_file_moves_in_little_memory(make_settings, bucket, request, tmp_path):
    more = {"artifacts_url": request.getfixturevalue("bucket_url")} if bucket else {}
    settings = make_settings(servers=False, **more)
    service = Service(settings, tmp_path / "service.log")
    try:
        api = service.start("api")
        service.ready()
        run_id = service.submit(dataset_id=service.upload(sample()), **TINY)
        place = tmp_path / "supervisor"
        place.mkdir()
        script = Path(__file__).parents[1] / "support" / "ship_big.py"
        shipped = subprocess.run(
            [sys.executable, str(script), run_id, str(place), str(BIG)],
            env=os.environ | settings.variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert shipped.returncode == 0, shipped.stderr
        supervisor = json.loads(shipped.stdout.splitlines()[-1])
        before = peak(api.pid)
        (row,) = service.client.get(f"/v1/runs/{run_id}/checkpoints").json()["data"]
        (file,) = row["files"]
        url = f"/v1/runs/{run_id}/checkpoints/2/download"
        digest, length = hashlib.sha256(), 0
        with service.client.stream("GET", url, params={"path": "adapter.bin"}) as answer:
            for chunk in answer.iter_bytes():
                digest.update(chunk)
                length += len(chunk)
        assert (length, digest.hexdigest()) == (BIG, file["sha256"])
        with service.client.stream("GET", url) as answer:  # as a tar
            expected = int(answer.headers["Content-Length"])
            assert sum(map(len, answer.iter_bytes())) == expected > BIG
        after = peak(api.pid)
        print(f"{BIG:,} bytes: API {before:,} to {after:,}, supervisor {supervisor}")
        assert supervisor["after"] - supervisor["before"] < MEMORY
        assert after - before < MEMORY
    finally:
        service.stop()
