"""Files and archives over HTTP, on both stores: byte for byte, in ranges, broken off if damaged."""

import hashlib
import io
import shutil
import subprocess
import tarfile
import zipfile

import httpx
import pytest

from service.artifacts.bucket import Bucket
from service.settings import Settings

WEIGHTS = bytes(range(256)) * 12_000  # three pieces
FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": WEIGHTS}


@pytest.fixture(params=["directory", "bucket"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def settings(kind, request, migrated_sqlite, tmp_path) -> Settings:
    url = request.getfixturevalue("bucket_url") if kind == "bucket" else ""
    database = tmp_path / "fairtune.db"
    database.write_bytes(migrated_sqlite.read_bytes())
    return Settings(
        data_dir=tmp_path / "data",
        database_url=f"sqlite:///{database}",
        artifacts_url=url,
        sweep_seconds=3600,
    )


@pytest.fixture
def shipped(worker, run_id) -> str:
    """A run with a checkpoint at step 6 and a final adapter."""
    files = []
    for name, content in FILES.items():
        files.append(worker.file(f"checkpoints/checkpoint-6/{name}", content) | {"path": name})
    worker.ship(
        worker.line(
            type="checkpoint",
            step=6,
            epoch=1.5,
            path="checkpoints/checkpoint-6",
            files=files,
            metrics={"eval_loss": 0.5},
            best_step=6,
        )
    )
    for name, content in (FILES | {"README.md": b"# Card\n", "empty.log": b""}).items():
        worker.ship(worker.line(type="artifact", file=worker.file(name, content)))
    return run_id


def test_a_checkpoint_says_what_it_holds(client, shipped):
    (row,) = client.get(f"/v1/runs/{shipped}/checkpoints").json()["data"]
    assert row.pop("created_at")
    assert row == {
        "step": 6,
        "epoch": 1.5,
        "is_best": True,
        "metrics": {"eval_loss": 0.5},
        "size": sum(map(len, FILES.values())),
        "files": [
            {
                "path": name,
                "size": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
            for name, content in FILES.items()
        ],
    }


def test_a_file_whole_in_ranges_and_not_at_all(client, shipped):
    url = f"/v1/runs/{shipped}/checkpoints/6/download"
    path = {"path": "adapter_model.safetensors"}
    whole = client.get(url, params=path)
    etag = f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    assert (whole.status_code, whole.content) == (200, WEIGHTS)
    assert (whole.headers["etag"], whole.headers["accept-ranges"]) == (etag, "bytes")
    assert whole.headers["content-length"] == str(len(WEIGHTS))
    head = client.head(url, params=path)
    assert (head.content, head.headers["content-length"]) == (b"", str(len(WEIGHTS)))
    size = len(WEIGHTS)
    for asked, start, end in (
        ("bytes=0-0", 0, 1),
        ("bytes=2000000-", 2_000_000, size),
        ("bytes=-5", size - 5, size),
        ("bytes=10-99999999999", 10, size),
        ("bytes=-99999999999", 0, size),
    ):
        part = client.get(url, params=path, headers={"range": asked})
        assert (part.status_code, part.content) == (206, WEIGHTS[start:end]), asked
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert part.headers["content-length"] == str(end - start)
    for condition, status in ((etag, 206), ('"another"', 200), (f"W/{etag}", 200)):
        headers = {"range": "bytes=4-", "if-range": condition}
        assert client.get(url, params=path, headers=headers).status_code == status
    several = client.get(url, params=path, headers={"range": "bytes=0-1,5-6"})
    assert (several.status_code, several.content) == (200, WEIGHTS)
    for asked in (f"bytes=0-1,{size}-", f"bytes={size}-, 0-1", f"bytes=-0,0-1,{size}-{size + 1}"):
        part = client.get(url, params=path, headers={"range": asked})
        assert (part.status_code, part.content) == (206, WEIGHTS[:2]), asked
        assert part.headers["content-range"] == f"bytes 0-1/{size}"
    for asked in (f"bytes={size}-", "bytes=-0", f"bytes={size}-,-0", "bytes=1-0", "bytes=0-1,6-5"):
        beyond = client.get(url, params=path, headers={"range": asked})
        assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    same = client.get(url, params=path, headers={"if-none-match": f'"x", {etag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    where = f"/v1/runs/{shipped}/artifacts/empty.log"
    for asked, status in (("bytes=0-", 200), ("bytes=-5", 200), ("bytes=0-1,9-", 416)):
        assert client.get(where, headers={"range": asked}).status_code == status, asked


@pytest.mark.parametrize("archive", ["tar", "zip"])
@pytest.mark.parametrize("what", ["checkpoint", "adapter"])
def test_an_archive_holds_every_file(client, shipped, archive, what):
    url, folder, files = f"/v1/runs/{shipped}/adapter/download", f"{shipped}-adapter", dict(FILES)
    if what == "checkpoint":
        url, folder = f"/v1/runs/{shipped}/checkpoints/6/download", f"{shipped}-checkpoint-6"
    else:
        files["README.md"] = b"# Card\n"
    answer = client.get(url, params={"format": archive})
    assert answer.status_code == 200
    assert f'filename="{folder}.{archive}"' in answer.headers["content-disposition"]
    head = client.head(url, params={"format": archive})
    assert (head.status_code, head.content) == (200, b"")
    if archive == "tar":
        assert answer.headers["content-type"] == "application/x-tar"
        for one in (answer, head):
            assert one.headers["content-length"] == str(len(answer.content))
        with tarfile.open(fileobj=io.BytesIO(answer.content)) as opened:
            found = {one.name: opened.extractfile(one).read() for one in opened}
        assert client.get(url).content == answer.content
    else:
        assert "content-length" not in answer.headers
        with zipfile.ZipFile(io.BytesIO(answer.content)) as opened:
            found = {name: opened.read(name) for name in opened.namelist()}
    assert found == {f"{folder}/{name}": content for name, content in files.items()}


def test_what_cannot_be_downloaded_says_why(client, shipped):
    checkpoint = f"/v1/runs/{shipped}/checkpoints/6/download"
    for parameters, status in (
        ({"path": "../../x"}, 404),
        ({"path": "adapter_config.json", "format": "tar"}, 422),
        ({"format": "rar"}, 422),
        ({"redirect": "true"}, 422),
    ):
        answer = client.get(checkpoint, params=parameters)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
    assert client.get(f"/v1/runs/{shipped}/checkpoints/7/download").status_code == 404


def test_a_run_without_an_adapter_refuses_to_pack_one(client, run_id, worker):
    answer = client.get(f"/v1/runs/{run_id}/adapter/download")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:fairtune:conflict")
    assert "running" in answer.json()["detail"]


def test_a_damaged_file_breaks_the_transfer_off(served, shipped, worker):
    # What nobody may do: another file under a key that a row names.
    worker.file("adapter_model.safetensors", WEIGHTS[:-1] + b"?")
    worker.file("checkpoints/checkpoint-6/adapter_model.safetensors", WEIGHTS[:-1])
    for url in (
        "artifacts/adapter_model.safetensors",
        "adapter/download",
        "adapter/download?format=zip",
        "checkpoints/6/download",
    ):
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{served}/v1/runs/{shipped}/{url}", trust_env=False)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_curl_goes_on_where_a_transfer_broke(served, shipped, tmp_path):
    target = tmp_path / "adapter_model.safetensors"
    url = f"{served}/v1/runs/{shipped}/artifacts/adapter_model.safetensors"
    for begun in (b"", WEIGHTS[:1_234_567], WEIGHTS[:-1]):
        target.write_bytes(begun)
        command = ["curl", "--silent", "--fail", "--noproxy", "*", "-C", "-", "-o", target, url]
        subprocess.run(command, check=True)
        assert target.read_bytes() == WEIGHTS


def test_a_file_that_is_gone_is_503_before_anything_is_sent(client, shipped, context):
    context.store.remove_tree(f"runs/{shipped}")
    for url in (
        "artifacts/adapter_model.safetensors",
        "adapter/download",
        "checkpoints/6/download",
    ):
        for ask in (client.get, client.head):
            assert ask(f"/v1/runs/{shipped}/{url}").status_code == 503


def test_a_bucket_hands_a_file_out_itself_when_asked(client, shipped, kind):
    url = f"/v1/runs/{shipped}/artifacts/adapter_model.safetensors"
    answer = client.get(url, params={"redirect": "true"}, follow_redirects=False)
    if kind == "directory":
        assert (answer.status_code, answer.content) == (200, WEIGHTS)
        return
    assert (answer.status_code, answer.headers["cache-control"]) == (307, "no-store")
    link = answer.headers["location"]
    assert "X-Amz-Signature" in link
    assert "X-Amz-Expires=900" in link
    assert "the-secret" not in link
    got = httpx.get(link, trust_env=False)
    assert (got.status_code, got.content) == (200, WEIGHTS)
    assert "adapter_model.safetensors" in got.headers["content-disposition"]
    part = httpx.get(link, headers={"range": "bytes=5-9"}, trust_env=False)
    assert (part.status_code, part.content) == (206, WEIGHTS[5:10])


def test_the_rows_of_a_dataset_are_read_from_either(client, dataset_id):
    rows = client.get(f"/v1/datasets/{dataset_id}/preview", params={"limit": 3}).json()
    assert len(rows) == 3
    assert client.get("/readyz").json()["parts"]["store"] == "ok"


def test_a_store_that_is_away_is_503_and_says_so(client, shipped, kind, s3_server, monkeypatch):
    if kind == "directory":
        pytest.skip("a directory has no server")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    context = client.app.state.context
    context.store._backend = Bucket(context.settings.artifacts_url)
    for url in ("artifacts/adapter_model.safetensors", "adapter/download"):
        answer = client.get(f"/v1/runs/{shipped}/{url}")
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:fairtune:unavailable")
        assert "127.0.0.1" not in answer.text
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["parts"]["store"]) == (
        503,
        "unreachable or not permitted",
    )
