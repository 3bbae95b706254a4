"""Datasets: upload, list, preview."""

from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Depends, File, Form, Query, Response, UploadFile
from pydantic import BeforeValidator

from service.api import examples
from service.api.dependencies import (
    AfterDataset,
    Ctx,
    DatasetId,
    KeyHeader,
    Limit,
    Who,
    decoded_field,
    idempotency_key,
    known_form,
    no_body,
)
from service.api.openapi import LARGE_READ, READS, UPLOADS, WRITES, busy
from service.api.paths import DATASETS
from service.api.responses.created import set_created
from service.api.schemas.base import Page, page
from service.api.schemas.datasets import DatasetView, RowView
from service.api.schemas.summaries import (
    DatasetSummary,
    ListView,
    summary_content,
    summary_response,
)
from service.artifacts import StoredFile
from service.datasets.formats import AUTO, FormatName, describe_formats
from service.datasets.mapping import parse_mapping
from service.datasets.problems import OnInvalid
from service.datasets.rows import Split, preview
from service.domain.storable import NOT_BLANK
from service.store import datasets as dataset_rows
from service.usecases import datasets as use_cases
from service.usecases import retention
from service.usecases.large_reads import LARGE_READS

router = APIRouter(prefix=DATASETS, tags=["datasets"])
Upload = UploadFile | None


@router.post(
    "",
    status_code=201,
    dependencies=[Depends(known_form)],
    responses={
        **UPLOADS,
        **busy("two uploads are being read and six are waiting"),
        201: {"description": "The new dataset."},
        200: {
            "model": DatasetView,
            "description": "The dataset created by an earlier request with the same "
            "Idempotency-Key.",
        },
    },
    openapi_extra={
        "requestBody": {"content": {"multipart/form-data": {"examples": examples.DATASETS}}}
    },
    summary="Create a dataset",
)
def create_dataset(
    context: Ctx,
    who: Who,
    response: Response,
    name: Annotated[
        str,
        BeforeValidator(decoded_field),
        Form(
            min_length=1,
            max_length=200,
            description="Name of the dataset; need not be unique. Printable characters, not all "
            "of them blank.",
            examples=["my posts"],
            json_schema_extra={"pattern": NOT_BLANK},
        ),
    ],
    train: Annotated[
        Upload,
        File(description="Training rows. At least one file is required, whichever of the four."),
    ] = None,
    validation: Annotated[
        Upload, File(description="Validation rows, which the checkpoint is selected on.")
    ] = None,
    test: Annotated[Upload, File(description="Test rows, which the report is computed on.")] = None,
    file: Annotated[
        Upload, File(description="All rows in one file with a split column, instead of the three.")
    ] = None,
    format: Annotated[  # noqa: A002 - the API's name
        FormatName, Form(description=describe_formats())
    ] = AUTO,
    mapping: Annotated[
        str,
        BeforeValidator(decoded_field),
        Form(
            description="JSON object that maps columns and labels. Columns: text, label, group, "
            "id, source, detail, rationale, split, each with the name that it has in the files (1 "
            "to 200 characters) or, but for text and split, null; the labels are hate and normal "
            "unless `labels` sets others: 2 to 100, each once, of 1 to 200 characters, or an "
            'object from value to label. Example: `{"text": "comment", "label": "class", "labels": '
            '["toxic", "fine"]}`.',
        ),
    ] = "{}",
    on_invalid: Annotated[
        OnInvalid,
        Form(
            description="Handling of invalid rows: refuse the upload, or drop them and list them "
            "in `dropped`."
        ),
    ] = "refuse",
    key: KeyHeader = None,
) -> DatasetView:
    """Create a dataset from labelled texts or chats.

    Send one file per split, or one `file` with a split column. Without training rows the dataset
    serves evaluations of finished runs, and its rows may lack labels. Formats:
    JSON lines with `text`, `label`, `group`; JSON lines with chat `messages`; CSV with a header
    line; a JSON array of objects. Files are in UTF-8, UTF-16 or UTF-32, and may be compressed by
    gzip. Uploads take turns: 503 with Retry-After means that too many are waiting. With curl:

        curl -F name='my posts' -F train=@train.jsonl http://127.0.0.1:8000/v1/datasets
    """
    uploads = {"train": train, "validation": validation, "test": test, "file": file}
    files: dict[str, BinaryIO] = {part: upload.file for part, upload in uploads.items() if upload}
    fields = {"name": name, "format": format, "mapping": mapping, "on_invalid": on_invalid}
    request_key = None
    if key is not None:
        body_hash = use_cases.fingerprint(fields, files)
        request_key = idempotency_key(who, f"POST {DATASETS}", key, body_hash)
    dataset, is_new = use_cases.create(
        context,
        name,
        files,
        file_format=format,
        mapping=parse_mapping(mapping),
        on_invalid=on_invalid,
        key=request_key,
    )
    set_created(response, f"{DATASETS}/{dataset.id}", is_new=is_new)
    return DatasetView.of(dataset)


@router.get(
    "",
    response_model=Page[DatasetView],
    responses={**READS, 200: summary_content(DatasetSummary)},
    summary="List datasets",
)
def list_datasets(
    context: Ctx, limit: Limit = 20, after: AfterDataset = None, view: ListView = "full"
) -> Any:
    """List datasets, newest first, with their statistics or in short (`view=summary`)."""
    with context.database.read() as session:
        rows, more = dataset_rows.list_datasets(session, limit=limit, after=after)
    views = [DatasetView.of(row) for row in rows]
    whole = page(views, more=more)
    if view == "summary":
        return summary_response([DatasetSummary.of(item) for item in views], whole)
    return whole


@router.get("/{dataset_id}", responses=READS, summary="Get a dataset")
def get_dataset(context: Ctx, dataset_id: DatasetId) -> DatasetView:
    """Return a dataset's statistics, warnings and dropped rows."""
    with context.database.read() as session:
        return DatasetView.of(dataset_rows.get_dataset(session, dataset_id))


@router.delete(
    "/{dataset_id}",
    status_code=204,
    responses=WRITES,
    dependencies=[Depends(no_body)],
    summary="Delete a dataset",
)
def delete_dataset(context: Ctx, who: Who, dataset_id: DatasetId) -> None:
    """Delete a dataset and its rows permanently.

    Answers 409, with their ids, while runs were trained or evaluations computed on it. If the
    request is interrupted, repeat it; 404 then means that the deletion is complete.
    """
    retention.delete_dataset(context.database, context.store, dataset_id, by=who.name)


@router.get(
    "/{dataset_id}/preview",
    responses={**READS, **LARGE_READ},
    summary="Preview the rows of a dataset",
)
def preview_dataset(
    context: Ctx,
    dataset_id: DatasetId,
    split: Annotated[
        Split | None, Query(description="Return only rows of this split; by default of all.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Maximum number of rows.")] = 20,
) -> list[RowView]:
    """Return the first rows in canonical form."""
    with context.database.read() as session:
        dataset = dataset_rows.get_dataset(session, dataset_id)
    with (
        LARGE_READS.acquire(),
        context.store.local(dataset.key, StoredFile(dataset.size, dataset.content_hash)) as path,
    ):
        rows = preview(path, split, limit)
    return [RowView.model_validate(row, from_attributes=True) for row in rows]
