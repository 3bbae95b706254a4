"""Datasets: upload, look at."""

from typing import Annotated, BinaryIO

from fastapi import APIRouter, Depends, File, Form, Query, Response, UploadFile

from service.api.dependencies import (
    After,
    Ctx,
    KeyHeader,
    Limit,
    Who,
    idempotency_key,
    known_form,
)
from service.api.problems import READS, UPLOADS
from service.api.schemas.base import Page, page
from service.api.schemas.datasets import DatasetView, RowView
from service.artifacts import Stored
from service.datasets.formats import AUTO, FormatName, describe_formats
from service.datasets.mapping import parse_mapping
from service.datasets.problems import OnInvalid
from service.datasets.rows import Split, preview
from service.domain.errors import InvalidRequest
from service.store import datasets as dataset_store
from service.usecases import datasets

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])
Upload = UploadFile | None


@router.post(
    "",
    status_code=201,
    dependencies=[Depends(known_form)],
    responses={**UPLOADS, 200: {"model": DatasetView, "description": "Made before by this key."}},
)
def create_dataset(
    context: Ctx,
    who: Who,
    response: Response,
    name: Annotated[str, Form(min_length=1, max_length=200, examples=["my posts"])],
    train: Annotated[Upload, File(description="Rows to train on.")] = None,
    validation: Annotated[Upload, File(description="Rows to choose a checkpoint by.")] = None,
    test: Annotated[Upload, File(description="Rows for the report.")] = None,
    file: Annotated[
        Upload, File(description="All rows in one file, with a split column, instead of the three.")
    ] = None,
    format: Annotated[  # noqa: A002 - the API's name
        FormatName, Form(description=describe_formats())
    ] = AUTO,
    mapping: Annotated[
        str,
        Form(
            description="JSON: which column is what, and what the labels are. Columns are named "
            "text, label, group, id, source, detail, rationale, split; labels are hate and normal "
            "unless `labels` says otherwise. Such as "
            '`{"text": "comment", "label": "class", "labels": ["toxic", "fine"]}`.',
        ),
    ] = "{}",
    on_invalid: Annotated[
        OnInvalid, Form(description="refuse the upload for one bad row, or drop and list them.")
    ] = "refuse",
    key: KeyHeader = None,
) -> DatasetView:
    """Upload labelled texts or chats.

    One file per split (`train` alone is required), or one `file` whose split column says where
    each row belongs. JSON lines with `text`, `label`, `group`; JSON lines with chat `messages`;
    CSV with a header; or a JSON array of objects.
    """
    given = {"train": train, "validation": validation, "test": test, "file": file}
    files: dict[str, BinaryIO] = {part: upload.file for part, upload in given.items() if upload}
    if not name.strip() or not name.isprintable():
        raise InvalidRequest.at("/name", "the name is blank or holds characters nobody can read")
    fields = {"name": name, "format": format, "mapping": mapping, "on_invalid": on_invalid}
    request_key = None
    if key is not None:
        body_hash = datasets.fingerprint(fields, files)
        request_key = idempotency_key(who, "POST /v1/datasets", key, body_hash)
    dataset, made = datasets.create(
        context,
        name,
        files,
        file_format=format,
        mapping=parse_mapping(mapping),
        on_invalid=on_invalid,
        key=request_key,
    )
    response.headers["Location"] = f"/v1/datasets/{dataset.id}"
    if not made:
        response.status_code = 200
    return DatasetView.of(dataset)


@router.get("", responses=READS)
def list_datasets(context: Ctx, limit: Limit = 20, after: After = None) -> Page[DatasetView]:
    """The datasets, newest first."""
    with context.database.read() as session:
        found, more = dataset_store.list_datasets(session, limit=limit, after=after)
    views = [DatasetView.of(dataset) for dataset in found]
    return page(views, views[-1].id if views else None, more=more)


@router.get("/{dataset_id}", responses=READS)
def get_dataset(context: Ctx, dataset_id: str) -> DatasetView:
    with context.database.read() as session:
        return DatasetView.of(dataset_store.get_dataset(session, dataset_id))


@router.get("/{dataset_id}/preview", responses=READS)
def preview_dataset(
    context: Ctx,
    dataset_id: str,
    split: Split | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
) -> list[RowView]:
    """The first rows as Fairtune reads them."""
    with context.database.read() as session:
        dataset = dataset_store.get_dataset(session, dataset_id)
    with context.store.local(dataset.key, Stored(dataset.size, dataset.content_hash)) as path:
        found = preview(path, split, limit)
    return [RowView.model_validate(row, from_attributes=True) for row in found]
