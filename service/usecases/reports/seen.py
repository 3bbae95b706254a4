"""Evaluated rows that influenced a model: those of its run's training and validation splits."""

from service.artifacts import StoredFile
from service.context import Context
from service.datasets.rows import keyed_rows
from service.datasets.stats import DatasetStats
from service.domain.row_keys import SeenRows, seen_rows
from service.store.tables import Dataset, Evaluation
from service.usecases.reports.evaluation_data import RunData

_NONE = SeenRows(frozenset(), frozenset())


def seen_by(context: Context, data: RunData, evaluation: Evaluation) -> SeenRows | None:
    """Return which rows of an evaluation its model has seen, also in another dataset.

    The base model has learned from no dataset of this service. None: it is unknown, as for an
    imported adapter. Raises NotFound if the file of a
    dataset is missing.
    """
    if evaluation.target == "base":
        return _NONE
    if data.is_imported:
        return None
    learned, evaluated = data.dataset, data.datasets[evaluation.dataset_id]
    kinds = {DatasetStats.model_validate(row.stats).kind for row in (learned, evaluated)}
    with (
        context.store.local(learned.key, _file(learned)) as learned_path,
        context.store.local(evaluated.key, _file(evaluated)) as evaluated_path,
    ):
        return seen_rows(
            keyed_rows(evaluated_path),
            evaluation.split,
            keyed_rows(learned_path),
            same_kind=len(kinds) == 1,
        )


def _file(dataset: Dataset) -> StoredFile:
    return StoredFile(dataset.size, dataset.content_hash)
