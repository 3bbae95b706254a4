"""A full disk and an absent store are 503 with the reason; 404 is for what no row names."""

import errno
import os
import tempfile

import pytest

from service.artifacts.directory import MARKER
from service.datasets import build as dataset_build
from service.store import retention

ROWS = b'{"text": "a", "label": "hate"}\n{"text": "b", "label": "normal"}\n'


def upload(client, content: bytes = ROWS):
    return client.post("/v1/datasets", data={"name": "d"}, files={"train": content})


@pytest.fixture
def shipped(worker, run_id) -> str:
    """A run with a checkpoint, files and a log."""
    names = ("adapter_config.json", "adapter_model.safetensors")
    files = [
        worker.file(f"checkpoints/checkpoint-6/{name}", b"{}") | {"path": name} for name in names
    ]
    worker.ship(
        worker.line(
            type="checkpoint",
            step=6,
            epoch=1.5,
            path="checkpoints/checkpoint-6",
            files=files,
            metrics={},
            best_step=6,
        )
    )
    for name in (*names, "training.log"):
        worker.ship(worker.line(type="artifact", file=worker.file(name, b"{}")))
    return run_id


@pytest.fixture
def reads(shipped, dataset_id) -> list[str]:
    return [
        f"/v1/datasets/{dataset_id}/preview",
        f"/v1/runs/{shipped}/artifacts/adapter_model.safetensors",
        f"/v1/runs/{shipped}/logs",
        f"/v1/runs/{shipped}/checkpoints/6/download",
    ]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENXIO])
@pytest.mark.parametrize("place", ["store", "rows", "form"])
def test_an_upload_that_cannot_be_stored_is_unavailable(client, monkeypatch, code, place):
    def fail(*_args, **_options):
        raise OSError(code, os.strerror(code))

    content = ROWS
    match place:
        case "store":
            store = client.app.state.context.store
            monkeypatch.setattr(type(store), "put_file", fail)
        case "rows":
            monkeypatch.setattr(dataset_build, "RowWriter", fail)
        case "form":
            monkeypatch.setattr(tempfile.SpooledTemporaryFile, "write", fail)
    answer = upload(client, content)
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:fairtune:unavailable")
    reason = "full" if code in (errno.ENOSPC, errno.EDQUOT) else "cannot be used"
    assert reason in answer.json()["detail"]
    monkeypatch.undo()
    assert client.get("/v1/datasets").json()["data"] == []
    assert upload(client).status_code == 201


def test_reads_of_a_store_that_is_not_mounted_are_unavailable(client, context, reads):
    root = context.store.path_of("x").parent
    aside = root.with_name("aside")
    root.rename(aside)
    root.mkdir()
    for url in reads:
        answer = client.get(url)
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:fairtune:unavailable"), url
        assert "not mounted" in answer.json()["detail"]
    assert upload(client).status_code == 503
    root.rmdir()
    aside.rename(root)
    for url in reads:
        assert client.get(url).status_code == 200, url


def test_reads_of_files_that_a_row_names_and_the_store_lacks_are_unavailable(
    client, context, reads, shipped
):
    root = context.store.path_of("x").parent
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.name != MARKER:
            path.unlink()
    for url in reads[:3]:
        answer = client.get(url)
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:fairtune:unavailable"), url
        assert "not in the store" in answer.json()["detail"]
    for url in (
        "/v1/datasets/ds_none/preview",
        f"/v1/runs/{shipped}/artifacts/none",
        f"/v1/runs/{shipped}/checkpoints/7/download",
    ):
        assert client.get(url).status_code == 404, url


def test_rows_that_name_files_are_the_same_on_pages_of_any_length(context, reads, monkeypatch):
    def rows():
        with context.database.read() as session:
            return list(retention.file_rows(session))

    whole = rows()
    assert len(whole) == 5  # a checkpoint, three files, a dataset
    for length in (1, 2, 3):
        monkeypatch.setattr(retention, "_BATCH_SIZE", length)
        assert rows() == whole


def test_another_error_is_not_one_of_the_disk(client, monkeypatch):
    def fail(*_args, **_options):
        raise OSError("a fault of ours")

    monkeypatch.setattr(dataset_build, "RowWriter", fail)
    assert upload(client).status_code == 500
