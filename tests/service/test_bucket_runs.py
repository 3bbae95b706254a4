"""Runs whose files lie in a bucket: what API and worker share is three URLs and no directory."""

import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from service.artifacts import ArtifactStore
from service.artifacts.bucket import PART
from service.context import Context
from service.settings import Settings
from tests.faults.proxy import Proxy
from tests.support.attempts import House
from tests.support.installation import wait_until


@pytest.fixture
def settings(bucket_url, migrated_sqlite, tmp_path) -> Settings:
    database = tmp_path / "fairtune.db"
    database.write_bytes(migrated_sqlite.read_bytes())
    return Settings(
        data_dir=tmp_path / "data",
        database_url=f"sqlite:///{database}",
        artifacts_url=bucket_url,
        sweep_seconds=3600,
    )


@pytest.fixture
def house(context, run_id, tmp_path, monkeypatch) -> House:
    """A worker on another machine: another data directory, and a connection of its own."""
    elsewhere = context.settings.variables | {"FAIRTUNE_DATA_DIR": str(tmp_path / "elsewhere")}
    del elsewhere["FAIRTUNE_JOBS_DIR"], elsewhere["FAIRTUNE_MODELS_DIR"]
    given = {name.removeprefix("FAIRTUNE_").lower(): value for name, value in elsewhere.items()}
    return House(Context.make(Settings(**given)), run_id, tmp_path, monkeypatch)


def test_a_run_goes_on_from_a_bucket_on_another_worker(client, context, house):
    house.play("save(2)\nsave(4)\nsys.exit(1)")
    assert house.job.status == "queued"
    house.play(
        """
        log("secrets: " + ", ".join(name for name in os.environ if name.startswith("AWS")))
        log((directory / job["resume_from"] / "adapter.bin").read_text())
        log(str((directory / "dataset.parquet").stat().st_size > 0))
        """
    )
    assert house.job.status == "succeeded"
    assert not (context.settings.data_dir / "artifacts").exists()
    lines = client.get(f"/v1/runs/{house.run_id}/logs").text.splitlines()
    assert lines == ["secrets: ", "weights" * 4, "True"]
    (row,) = client.get(f"/v1/runs/{house.run_id}/checkpoints").json()["data"]
    url = f"/v1/runs/{house.run_id}/checkpoints/{row['step']}/download"
    assert client.get(url, params={"path": "adapter.bin"}).content == b"weights" * 4
    # Nothing but what rows name: the checkpoint, the log, the dataset.
    names = sorted(one.key.rpartition("/")[2] for one in context.store.entries())
    assert len(names) == 3
    assert {"adapter.bin", "training.log"} < set(names)


def test_nothing_is_visible_without_its_row(client, context, house, monkeypatch):
    """The files are in the bucket, and the database does not take their rows."""

    def broken(*_):
        raise RuntimeError("the row is not written")

    with monkeypatch.context() as patch:
        patch.setattr("service.store.program_events._put_checkpoint", broken)
        house.play("save(2)")
    assert client.get(f"/v1/runs/{house.run_id}/checkpoints").json()["data"] == []
    # And its own worker has tidied up.
    assert [one.key for one in context.store.entries("runs") if "adapter.bin" in one.key] == []


def test_a_bucket_that_is_away_is_waited_for(client, context, house, s3_server, monkeypatch):
    proxy = Proxy(lambda: socket.create_connection(("127.0.0.1", s3_server.port)))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{proxy.address}")
    object.__setattr__(house.context, "store", ArtifactStore(context.settings.artifacts_url))
    go_on = house.tmp_path / "go on"
    attempt = house.attempt(
        f"""
        log("begun")
        while not os.path.exists({str(go_on)!r}): time.sleep(0.01)
        save(2)
        """
    )
    thread = threading.Thread(target=attempt.run)
    thread.start()
    wait_until(lambda: house.job.phase and list(house.settings.jobs_dir.glob("*/training.log")))
    proxy.cut()
    go_on.touch()
    wait_until(lambda: not attempt.lease.lost.is_set() and attempt.shipper._pending)
    proxy.restore()
    thread.join(timeout=60)
    assert house.job.status == "succeeded"
    (row,) = client.get(f"/v1/runs/{house.run_id}/checkpoints").json()["data"]
    assert row["step"] == 2
    proxy.close()


SAVE_MANY = """
    log("begun")
    while not os.path.exists({go_on!r}): time.sleep(0.01)
    place = directory / "checkpoints" / "checkpoint-2"
    place.mkdir(parents=True)
    files = []
    for number in range({files}):
        content = bytes([number]) * {size}
        (place / str(number)).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        files.append({{"path": str(number), "size": len(content), "sha256": digest}})
    say("checkpoint", step=2, epoch=0, path="checkpoints/checkpoint-2", files=files, metrics={{}},
        best_step=None)
"""


@pytest.mark.parametrize(
    ("files", "size", "rate"),
    [(8, 10, 4000), (1, 4 * PART, PART)],
    ids=["many files", "many parts"],
)
def test_a_slow_bucket_is_waited_for_while_there_is_progress(
    client, context, house, s3_server, monkeypatch, files, size, rate
):
    """What is left to upload at the program's end takes longer than a bucket may be unreachable."""
    patience = 2.5
    proxy = Proxy(lambda: socket.create_connection(("127.0.0.1", s3_server.port)))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{proxy.address}")
    object.__setattr__(house.context, "store", ArtifactStore(context.settings.artifacts_url))
    go_on = house.tmp_path / "go on"
    attempt = house.attempt(
        SAVE_MANY.format(go_on=str(go_on), files=files, size=size),
        storage_patience_seconds=patience,
    )
    thread = threading.Thread(target=attempt.run)
    thread.start()
    wait_until(lambda: house.job.phase and list(house.settings.jobs_dir.glob("*/training.log")))
    proxy.slow(rate)
    go_on.touch()
    began = time.monotonic()
    thread.join(timeout=60)
    took = time.monotonic() - began
    proxy.close()
    assert (house.job.status, house.job.attempts) == ("succeeded", 1)
    assert took > 1.5 * patience  # else it shows nothing
    (row,) = client.get(f"/v1/runs/{house.run_id}/checkpoints").json()["data"]
    assert len(row["files"]) == files


def test_a_damaged_dataset_ends_a_run_with_what_is_wrong(client, context, house, tmp_path):
    (blob,) = (one.key for one in context.store.entries("datasets"))
    other = tmp_path / "other"
    other.write_bytes(b"other rows")
    context.store.put_file(other, blob)
    house.play("")
    failure = client.get(f"/v1/runs/{house.run_id}").json()["failure"]
    assert failure["reason"] == "internal"
    assert blob in failure["detail"]


def test_a_directory_needs_no_boto3(tmp_path):
    """It takes a third of a second to load."""
    code = "import service.artifacts, sys; service.artifacts.ArtifactStore(sys.argv[1]).check(); "
    code += "assert not {'boto3', 'botocore'} & set(sys.modules)"
    command = [sys.executable, "-c", code, tmp_path.as_uri()]
    subprocess.run(command, check=True, env=os.environ)
