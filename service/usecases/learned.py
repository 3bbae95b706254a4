"""The labels and the kind of rows that a run's model is for."""

from typing import NamedTuple

from sqlmodel import Session

from service.datasets.rows import Kind
from service.datasets.stats import DatasetStats
from service.domain.imported_adapter import ImportedAdapter
from service.store.tables import Dataset, Run


class Learned(NamedTuple):
    """What a run's model distinguishes, and in which rows."""

    labels: list[str]
    """Sorted; empty if the training rows have none."""
    kind: Kind
    stats: DatasetStats
    """Statistics of the run's dataset."""
    imported: ImportedAdapter | None
    """None for a run that was trained here."""

    @property
    def owner(self) -> str:
        """The subject of a refusal's sentence on the labels."""
        return "training row of the run has" if self.imported is None else "label of the adapter is"


def imported_adapter(run: Run) -> ImportedAdapter | None:
    """Return the record of an imported adapter; None for a run that was trained here."""
    return None if run.imported is None else ImportedAdapter.model_validate(run.imported)


def learned(session: Session, run: Run) -> Learned:
    """Return what the run's model has learned: from its training rows, or as its import says."""
    stats = DatasetStats.model_validate(session.get_one(Dataset, run.dataset_id).stats)
    imported = imported_adapter(run)
    labels = stats.splits["train"].labels if imported is None else imported.labels
    return Learned(sorted(labels), stats.kind, stats, imported)
