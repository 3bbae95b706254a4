"""The record of an imported adapter: what the upload says of it, beside its run's specification."""

from pydantic import BaseModel, ConfigDict

from service.domain.adapter_config import AdapterConfig


class ImportNote(BaseModel):
    """A warning of an import."""

    model_config = ConfigDict(frozen=True)

    code: str
    detail: str


class ImportedAdapter(BaseModel):
    """Facts of an adapter that was trained elsewhere; stored in its run's row."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    labels: list[str]
    """Labels that it distinguishes, sorted."""
    has_dataset: bool
    """False if the run's dataset is only the built-in texts for comparing merged models."""
    config: AdapterConfig
    tensors: int
    parameters: int
    dtypes: list[str]
    modules: list[str]
    """Last parts of the adapted layers' names."""
    ignored_files: list[str]
    ignored_count: int
    warnings: list[ImportNote]
