"""Adapters that were trained elsewhere: import, list, delete."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, File, Form, Path, Response, UploadFile
from pydantic import BeforeValidator
from sqlmodel import Session

from service.api import examples
from service.api.dependencies import (
    AfterRun,
    Ctx,
    KeyHeader,
    Limit,
    Who,
    decoded_field,
    idempotency_key,
    known_form,
    no_body,
)
from service.api.openapi import LOCATION, READS, UPLOADS, WRITES, busy, documented
from service.api.paths import ADAPTERS
from service.api.responses.created import set_created
from service.api.schemas.adapters import AdapterView
from service.api.schemas.base import Page, page
from service.context import Context
from service.domain.errors import QuotaExceeded
from service.domain.job import ADAPTER_WEIGHTS_FILE
from service.store import promotions
from service.store import runs as run_rows
from service.store.tables import Run
from service.usecases import adapter_plan, retention
from service.usecases import adapters as use_cases
from service.usecases.datasets import fingerprint

router = APIRouter(prefix=ADAPTERS, tags=["adapters"])

AdapterId = Annotated[str, Path(description="Identifier of the adapter, which is its run's.")]


def views(session: Session, runs: Sequence[Run]) -> list[AdapterView]:
    names = promotions.names_of(session, [run.id for run in runs])
    return [
        AdapterView.of(
            run,
            run_rows.find_artifact(session, run.id, ADAPTER_WEIGHTS_FILE),
            names.get(run.id, []),
        )
        for run in runs
    ]


def _current_view(context: Context, run: Run) -> AdapterView:
    with context.database.read() as session:
        return views(session, [run])[0]


@router.post(
    "",
    status_code=201,
    dependencies=[Depends(known_form)],
    responses={
        **UPLOADS,
        **documented(QuotaExceeded),
        **busy("two uploads are being read and six are waiting"),
        201: {"description": "The imported adapter.", "headers": LOCATION},
        200: {
            "model": AdapterView,
            "description": "The adapter imported by an earlier request with the same "
            "Idempotency-Key.",
        },
    },
    openapi_extra={
        "requestBody": {"content": {"multipart/form-data": {"examples": examples.ADAPTERS}}}
    },
    summary="Import an adapter",
)
def import_adapter(
    context: Ctx,
    who: Who,
    response: Response,
    file: Annotated[
        UploadFile,
        File(
            description="A tar of the adapter's directory, plain or compressed by gzip or "
            "Zstandard, with adapter_config.json and adapter_model.safetensors at its top or in "
            "one folder. Other files are ignored, except for README.md; pickles are never opened."
        ),
    ],
    options: Annotated[
        str,
        BeforeValidator(decoded_field),
        Form(
            description="JSON object with fields of POST /v1/runs, as far as scoring uses them: "
            f"{', '.join(adapter_plan.FIELDS)}; of training only max_seq_length, bf16 and "
            "per_device_eval_batch_size. Omitted fields take the value of the preset. "
            "`base_model` defaults to the one that adapter_config.json names, unless that is a "
            "path; `labels` to those of `dataset_id`, else of the template. Example: "
            '`{"base_model": "smollm2-135m-instruct", "quantization": {"load_in_4bit": false}}`.'
        ),
    ] = "{}",
    key: KeyHeader = None,
) -> AdapterView:
    """Import a LoRA adapter that peft saved, wherever it was trained.

    It becomes a run that has succeeded: evaluate it, merge it, predict with it, download and delete
    it through the endpoints of runs, under the same id. Which rows it was trained on is unknown,
    so that reports are exploratory and promotions need an override. With curl:

        tar -cf adapter.tar -C DIR .
        curl -F file=@adapter.tar -F options='{…}' http://127.0.0.1:8000/v1/adapters
    """
    parsed = adapter_plan.parse_options(options)
    request_key = None
    if key is not None:
        body_hash = fingerprint({"options": options}, {"file": file.file})
        request_key = idempotency_key(who, f"POST {ADAPTERS}", key, body_hash)
    run, _, is_new = use_cases.create(context, file.file, parsed, request_key, by=who.name)
    set_created(response, f"{ADAPTERS}/{run.id}", is_new=is_new)
    return _current_view(context, run)


@router.get("", responses=READS, summary="List imported adapters")
def list_adapters(context: Ctx, limit: Limit = 20, after: AfterRun = None) -> Page[AdapterView]:
    """List imported adapters, newest first."""
    with context.database.read() as session:
        rows, more = run_rows.list_imported(session, limit=limit, after=after)
        items = views(session, [run for run, _ in rows])
    return page(items, more=more)


@router.get("/{adapter_id}", responses=READS, summary="Get an imported adapter")
def get_adapter(context: Ctx, adapter_id: AdapterId) -> AdapterView:
    """Return what is known of an imported adapter. Its jobs are those of the run of this id."""
    with context.database.read() as session:
        run, _ = run_rows.get_imported(session, adapter_id)
        return views(session, [run])[0]


@router.delete(
    "/{adapter_id}",
    status_code=204,
    responses=WRITES,
    dependencies=[Depends(no_body)],
    summary="Delete an imported adapter",
)
def delete_adapter(context: Ctx, who: Who, adapter_id: AdapterId) -> None:
    """Delete an imported adapter with its files, evaluations, merged models and events permanently.

    The same as DELETE /v1/runs/{id}.
    """
    with context.database.read() as session:
        run_rows.check_imported(session, adapter_id)
    retention.delete_run(context.database, context.store, adapter_id, by=who.name)
