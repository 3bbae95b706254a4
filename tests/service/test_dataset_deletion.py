"""Deleting datasets on each database: refused while used, safe when interrupted."""

import pytest
from sqlmodel import select

from service.domain.access import Role
from service.domain.errors import Unavailable
from service.store import retention as rows
from service.store.tables import Dataset, Idempotency
from service.usecases import datasets, retention
from tests.support.api_keys import bearer, make_keys

pytestmark = pytest.mark.both_databases

OLD = -60  # a file is older than that as soon as it is there


def upload(client, sample, name="again", **headers):
    answer = client.post("/v1/datasets", data={"name": name}, files=sample, headers=headers)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()["id"]


def files(context) -> list[str]:
    return [entry.key for entry in context.store.entries("datasets")]


def delete(client, dataset_id, **more):
    return client.delete(f"/v1/datasets/{dataset_id}", **more)


def is_gone(client, context, dataset_id) -> bool:
    with context.database.read() as session:
        remaining = session.get(Dataset, dataset_id)
        keys = session.exec(select(Idempotency).where(Idempotency.made_id == dataset_id)).all()
    hidden = client.get(f"/v1/datasets/{dataset_id}").status_code == 404
    listed = [row["id"] for row in client.get("/v1/datasets").json()["data"]]
    return remaining is None and not keys and hidden and dataset_id not in listed


def test_an_unused_dataset_goes_with_its_file(client, context, sample):
    dataset_id = upload(client, sample, **{"Idempotency-Key": "once"})
    assert len(files(context)) == 1
    assert delete(client, dataset_id).status_code == 204
    assert is_gone(client, context, dataset_id)
    assert files(context) == []
    assert delete(client, dataset_id).status_code == 404
    assert delete(client, "ds_never").status_code == 404
    again = upload(client, sample, **{"Idempotency-Key": "once"})
    assert client.get(f"/v1/datasets/{again}/preview").status_code == 200


def test_a_file_that_another_dataset_shares_stays(client, context, sample, dataset_id):
    other = upload(client, sample)
    assert len(files(context)) == 1
    assert delete(client, dataset_id).status_code == 204
    assert client.get(f"/v1/datasets/{other}/preview").status_code == 200
    assert delete(client, other).status_code == 204
    assert files(context) == []


def test_a_dataset_that_runs_use_is_refused_with_their_names(client, dataset_id):
    body = {"dataset_id": dataset_id, "base_model": "tiny"}
    runs = [client.post("/v1/runs", json=body).json()["id"] for _ in range(rows.MAX_NAMED + 2)]
    refused = delete(client, dataset_id)
    assert refused.status_code == 409
    detail = refused.json()["detail"]
    assert all(run in detail for run in runs[: rows.MAX_NAMED])
    assert "and 2 more" in detail
    assert client.get(f"/v1/datasets/{dataset_id}").status_code == 200
    for run in runs:
        assert client.delete(f"/v1/runs/{run}").status_code == 204
    assert delete(client, dataset_id).status_code == 204


def test_a_dataset_that_evaluations_use_is_refused(client, context, sample, run_id):
    """Also by one that waits: it has no row of its own yet."""
    other = upload(client, sample)
    body = {"target": "base", "dataset_id": other, "split": "test"}
    made = client.post(f"/v1/runs/{run_id}/evaluations", json=body).json()["id"]
    refused = delete(client, other)
    assert refused.status_code == 409
    assert f"{made} of {run_id}" in refused.json()["detail"]
    assert client.delete(f"/v1/runs/{run_id}").status_code == 204
    assert delete(client, other).status_code == 204


def test_deleting_needs_the_role_operator_and_no_body(client, context, dataset_id):
    assert delete(client, dataset_id, params={"force": "1"}).status_code == 422
    tokens = make_keys(context.database)
    assert delete(client, dataset_id, headers=bearer(tokens[Role.VIEWER])).status_code == 403
    assert delete(client, dataset_id, headers=bearer(tokens[Role.OPERATOR])).status_code == 204


@pytest.mark.parametrize("step", ["before the file", "after the file"])
@pytest.mark.parametrize("finish", ["again", "garbage"])
def test_an_interrupted_deletion_is_hidden_and_completed(
    client, context, sample, monkeypatch, step, finish
):
    dataset_id = upload(client, sample)

    def interrupt(*_arguments):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        if step == "before the file":
            patch.setattr(retention, "_remove_file", interrupt)
        else:
            patch.setattr(rows, "finish_delete_dataset", interrupt)
        with pytest.raises(RuntimeError):
            retention.delete_dataset(context.database, context.store, dataset_id)
    assert client.get(f"/v1/datasets/{dataset_id}").status_code == 404
    body = {"dataset_id": dataset_id, "base_model": "tiny"}
    assert client.post("/v1/runs", json=body).json()["errors"][0]["pointer"] == "/dataset_id"
    other = upload(client, sample)  # the same rows, while their file is being removed
    if finish == "again":
        assert delete(client, dataset_id).status_code == 204
    else:
        garbage = retention.look(context.database, context.store, OLD)
        assert [row.id for row in garbage.half_deleted_datasets] == [dataset_id]
        assert (garbage.unknown, garbage.lost) == ([], [])
        retention.collect(context.database, context.store, garbage)
    assert is_gone(client, context, dataset_id)
    assert len(client.get(f"/v1/datasets/{other}/preview").json()) == 20
    assert len(files(context)) == 1
    assert not retention.look(context.database, context.store, OLD)


@pytest.mark.parametrize("moment", ["stored", "inserted"])
def test_an_upload_of_the_same_rows_during_a_deletion_keeps_its_file(
    client, context, sample, monkeypatch, moment
):
    dataset_id = upload(client, sample)
    begun, deletions = [], []

    def delete_meanwhile():
        if not begun:  # the deletion itself calls the replaced functions, too
            begun.append(True)
            deletions.append(delete(client, dataset_id).status_code)

    if moment == "stored":
        real = datasets.dataset_store.blob_of

        def found(session, content_hash):
            shared = real(session, content_hash)
            delete_meanwhile()
            return shared

        monkeypatch.setattr(datasets.dataset_store, "blob_of", found)
    else:
        real_create = datasets.create_once

        def create(*arguments):
            delete_meanwhile()
            return real_create(*arguments)

        monkeypatch.setattr(datasets, "create_once", create)
    other = upload(client, sample)
    assert deletions == [204]
    assert len(client.get(f"/v1/datasets/{other}/preview").json()) == 20
    assert len(files(context)) == 1


def test_a_deletion_that_stalls_removes_no_file_of_a_later_upload(
    client, context, sample, monkeypatch
):
    """Two processes delete one dataset; when one has finished, the same rows are uploaded."""
    dataset_id = upload(client, sample)
    others, real = [], retention._remove_file

    def stall(store, key):
        monkeypatch.setattr(retention, "_remove_file", real)
        assert delete(client, dataset_id).status_code == 204
        others.append(upload(client, sample))
        real(store, key)

    monkeypatch.setattr(retention, "_remove_file", stall)
    retention.delete_dataset(context.database, context.store, dataset_id)
    assert len(client.get(f"/v1/datasets/{others[0]}/preview").json()) == 20
    assert len(files(context)) == 1
    assert not retention.look(context.database, context.store, OLD)


def test_a_store_that_is_away_keeps_the_row(client, context, sample, monkeypatch):
    dataset_id = upload(client, sample)
    (key,) = files(context)

    def unreachable():
        raise OSError("away")

    with monkeypatch.context() as patch:
        patch.setattr(context.store, "check", unreachable)
        with pytest.raises(Unavailable):
            retention.delete_dataset(context.database, context.store, dataset_id)
    assert client.get(f"/v1/datasets/{dataset_id}").status_code == 404
    assert files(context) == [key]
    assert delete(client, dataset_id).status_code == 204
    assert files(context) == []
