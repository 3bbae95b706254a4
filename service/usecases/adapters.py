"""Use case: import an adapter that was trained elsewhere, as a run that has succeeded."""

from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import structlog
from sqlmodel import Session

from service.adapters.archive import Unpacked, unpack
from service.adapters.card import card_text
from service.adapters.weights import read_weights
from service.artifacts import StoredFile
from service.artifacts.temporary import UPLOADS, temporary_folder
from service.context import Context
from service.domain.adapter_config import ADAPTER_CONFIG_FILE, AdapterConfig
from service.domain.errors import InvalidRequest, NotFound
from service.domain.ids import new_id
from service.domain.imported_adapter import ImportedAdapter, ImportNote
from service.domain.job import ADAPTER_WEIGHTS_FILE, CARD_FILE
from service.domain.job_kinds import TRAIN
from service.store import datasets as dataset_store
from service.store import idempotency, jobs, program_events
from service.store import runs as rows
from service.store.idempotency import IdempotencyKey
from service.store.tables import DEFAULT_PROJECT, Artifact, Job, Run
from service.usecases import adapter_plan
from service.usecases.adapter_plan import ImportPlan
from service.usecases.create_once import create_once
from service.usecases.datasets import LIMITER
from service.usecases.reference_texts import reference_dataset
from service.usecases.retention import check_quota
from service.usecases.run_plan import missing_model

log = structlog.get_logger()

_TOKEN = 1
"""Fencing token of the files' prefix: that of the attempt which a trained run would have had."""


class _Checked(NamedTuple):
    """An upload whose files have been checked."""

    files: dict[str, Path]
    """By their names in the store."""
    plan: ImportPlan
    record: ImportedAdapter


def create(
    context: Context,
    file: BinaryIO,
    options: dict[str, Any],
    key: IdempotencyKey | None = None,
    *,
    by: str | None = None,
) -> tuple[Run, Job, bool]:
    """Check the archive and store its adapter as a run, whose job has succeeded.

    Returns the run, its job, and True if the run is new (False: the key was used before). Files are
    stored before their rows: a crash in between leaves files that `fairtune gc` removes. Raises
    InvalidRequest, QuotaExceeded and Busy; then nothing is left behind.
    """
    with context.database.read() as session:
        existing = idempotency.recall(session, key)
        if existing is not None:
            return *rows.get_run(session, existing), False
    with LIMITER.acquire(), temporary_folder(UPLOADS) as folder:
        check_quota(context)
        unpacked = unpack(file, folder, context.settings.max_upload_bytes)
        checked = _check(context, unpacked, options, folder)
        run_id, is_new = _store(context, checked, key, by)
    if is_new:
        log.info("adapter imported", run_id=run_id, by=by)
    with context.database.read() as session:
        return *rows.get_run(session, run_id), is_new


def _check(context: Context, unpacked: Unpacked, options: dict[str, Any], folder: Path) -> _Checked:
    """Check the files and the options against each other. Raises InvalidRequest."""
    config = AdapterConfig.parse(unpacked.config.read_bytes())
    weights = read_weights(unpacked.weights, config)
    with context.database.read() as session:
        plan = adapter_plan.resolve(context, session, options, config, weights)
    has_dataset = bool(plan.spec.dataset_id)
    if not has_dataset:
        dataset_id = reference_dataset(context, folder)
        plan = plan._replace(spec=plan.spec.model_copy(update={"dataset_id": dataset_id}))
    card = folder / "card"
    card.write_text(card_text(plan.spec, plan.labels, unpacked.card), "utf-8", newline="")
    record = ImportedAdapter(
        labels=plan.labels,
        has_dataset=has_dataset,
        config=config,
        **weights._asdict(),
        ignored_files=unpacked.ignored,
        ignored_count=unpacked.ignored_count,
        warnings=_warnings(context, plan, config, unpacked),
    )
    files = {
        ADAPTER_CONFIG_FILE: unpacked.config,
        ADAPTER_WEIGHTS_FILE: unpacked.weights,
        CARD_FILE: card,
    }
    return _Checked(files, plan, record)


def _warnings(
    context: Context, plan: ImportPlan, config: AdapterConfig, unpacked: Unpacked
) -> list[ImportNote]:
    warnings = [
        ImportNote(code=warning.code, detail=warning.detail)
        for warning in missing_model(context, plan.spec.base_model, "its jobs fail")
    ]
    named = config.base_model_name_or_path
    if named and named != plan.spec.base_model:
        warnings.append(
            ImportNote(
                code="other_base_model",
                detail=f"adapter_config.json names the base model {ascii(named)[1:-1][:200]}; the "
                f"adapter is used with {plan.spec.base_model}",
            )
        )
    if config.revision:
        warnings.append(
            ImportNote(
                code="revision_ignored",
                detail="adapter_config.json names a revision of the base model "
                f"({ascii(config.revision)[1:-1][:100]}), which is ignored: check that the files "
                "of the base model are those of that revision",
            )
        )
    if any(name.startswith(("tokenizer", "chat_template")) for name in unpacked.ignored):
        warnings.append(
            ImportNote(
                code="tokenizer_ignored",
                detail="the archive's tokenizer and chat template are ignored: the base model's "
                "own are used, so the adapter must have been trained with those",
            )
        )
    return warnings


def _store(
    context: Context, checked: _Checked, key: IdempotencyKey | None, by: str | None
) -> tuple[str, bool]:
    """Store the files, then the rows; return the run's id, and True if it is new."""
    run_id, job_id = new_id("run"), new_id("job")
    prefix = program_events.prefix(run_id, job_id, _TOKEN)
    is_new = False
    try:
        stored = {
            name: context.store.put_file(path, f"{prefix}/{name}")
            for name, path in checked.files.items()
        }

        def insert(session: Session) -> str:
            _insert(session, run_id, job_id, checked, stored, by)
            return run_id

        created_id, is_new = create_once(context.database, key, insert)
    finally:
        if not is_new:
            context.store.delete_tree(prefix)
    return created_id, is_new


def _insert(
    session: Session,
    run_id: str,
    job_id: str,
    checked: _Checked,
    stored: dict[str, StoredFile],
    by: str | None,
) -> None:
    spec = checked.plan.spec
    try:
        dataset_store.hold(session, spec.dataset_id)
    except NotFound as error:
        raise InvalidRequest.at("/options/dataset_id", error.detail) from error
    session.add(
        Run(
            id=run_id,
            project_id=DEFAULT_PROJECT,
            name=spec.name or "",
            preset=spec.preset,
            base_model=spec.base_model,
            dataset_id=spec.dataset_id,
            spec=spec.model_dump(mode="json"),
            tags=list(spec.tags),
            imported=checked.record.model_dump(mode="json"),
            created_by=by,
        )
    )
    session.flush()
    jobs.create_succeeded(session, run_id, TRAIN, job_id, by=by, why={"origin": "imported"})
    prefix = program_events.prefix(run_id, job_id, _TOKEN)
    for name, file in stored.items():
        session.add(
            Artifact(
                run_id=run_id,
                path=name,
                job_id=job_id,
                token=_TOKEN,
                key=f"{prefix}/{name}",
                size=file.size,
                sha256=file.sha256,
            )
        )
