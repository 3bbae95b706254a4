"""Collections of the API: datasets, runs, promotions, API keys.

Generated from fairtune/_async by tools/sync_client.py; do not edit.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Literal

from fairtune import _display as display
from fairtune import _protocol as protocol
from fairtune._archives import adapter_archive
from fairtune._sync.listing import pages
from fairtune._sync.run import Run
from fairtune._sync.transport import Transport
from fairtune.models import (
    AdapterView,
    DatasetView,
    EvaluationOptions,
    FairnessOptions,
    KeyView,
    LoraOptions,
    NewKeyView,
    PlanView,
    PromotionView,
    QuantizationOptions,
    ResourcesOptions,
    RowView,
    TrainingOptions,
)

Split = Literal["train", "validation", "test"]
Tags = Sequence[str]


class Dataset(DatasetView):
    """A dataset of labelled texts."""

    _transport: Transport

    @classmethod
    def _of(cls, transport: Transport, content: dict[str, Any]) -> "Dataset":
        dataset = cls.from_json(content)
        dataset._transport = transport
        return dataset

    def preview(self, split: Split | None = None, limit: int | None = None) -> list[RowView]:
        """Return the first rows of a split."""
        path = f"/v1/datasets/{self.id}/preview"
        content = self._transport.get(path, split=split, limit=limit)
        return [RowView.from_json(entry) for entry in content]

    def delete(self) -> None:
        """Delete the dataset permanently; refused while runs need it."""
        self._transport.delete(f"/v1/datasets/{self.id}")

    def _repr_html_(self) -> str:
        return display.dataset_table(self)


class Datasets:
    """The server's datasets."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        name: str,
        *,
        train: protocol.Source | None = None,
        validation: protocol.Source | None = None,
        test: protocol.Source | None = None,
        file: protocol.Source | None = None,
        format: str | None = None,
        mapping: Mapping[str, Any] | None = None,
        on_invalid: Literal["refuse", "drop"] | None = None,
    ) -> Dataset:
        """Upload a file for each split, or one `file` whose rows name their split.

        Each is a path, the content, an open binary file, or rows: mappings or a pandas frame.
        """
        fields = protocol.without_none(
            {
                "name": name,
                "format": format,
                "mapping": None if mapping is None else json.dumps(mapping),
                "on_invalid": on_invalid,
            }
        )
        sources = {"train": train, "validation": validation, "test": test, "file": file}
        with ExitStack() as opened:
            parts = {}
            for field, source in sources.items():
                if source is not None:
                    parts[field] = protocol.upload_part(source, field)
                    if not isinstance(source, bytes) and not hasattr(source, "read"):
                        opened.callback(getattr(parts[field][1], "close", lambda: None))
            content = self._transport.upload("/v1/datasets", fields, parts)
        return Dataset._of(self._transport, content)

    def get(self, dataset_id: str) -> Dataset:
        content = self._transport.get(f"/v1/datasets/{protocol.segment(dataset_id)}")
        return Dataset._of(self._transport, content)

    def delete(self, dataset_id: str) -> None:
        self._transport.delete(f"/v1/datasets/{protocol.segment(dataset_id)}")

    def list(self, limit: int | None = None) -> Iterator[Dataset]:
        """Yield datasets, newest first."""

        def read(content: dict[str, Any]) -> Dataset:
            return Dataset._of(self._transport, content)

        for dataset in pages(self._transport, "/v1/datasets", read, limit):
            yield dataset


class Adapters:
    """Adapters that were trained elsewhere. Each is a run, too: `client.runs.get(adapter.id)`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, source: protocol.Source, **options: Any) -> AdapterView:
        """Import a LoRA adapter that peft saved: its directory, or a tar of it.

        `options` are fields of a run's specification as far as scoring uses them, and `labels`.
        Raises OSError if a file of the directory is missing.
        """
        fields = {"options": json.dumps(protocol.without_none(options))}
        with adapter_archive(source) as archive:
            parts = {"file": protocol.upload_part(archive, "adapter.tar")}
            content = self._transport.upload("/v1/adapters", fields, parts)
        return AdapterView.from_json(content)

    def get(self, adapter_id: str) -> AdapterView:
        return AdapterView.from_json(self._transport.get(f"/v1/adapters/{adapter_id}"))

    def delete(self, adapter_id: str) -> None:
        """Delete an adapter with its evaluations, merges and predictions permanently."""
        self._transport.delete(f"/v1/adapters/{adapter_id}")

    def list(self, limit: int | None = None) -> Iterator[AdapterView]:
        """Yield imported adapters, newest first."""
        for adapter in pages(self._transport, "/v1/adapters", AdapterView.from_json, limit):
            yield adapter


class Runs:
    """The server's runs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        dataset: Dataset | str | None = None,
        *,
        spec: Mapping[str, Any] | None = None,
        name: str | None = None,
        preset: str | None = None,
        base_model: str | None = None,
        template: str | None = None,
        seed: int | None = None,
        tags: Tags | None = None,
        lora: LoraOptions | None = None,
        quantization: QuantizationOptions | None = None,
        training: TrainingOptions | None = None,
        fairness: FairnessOptions | None = None,
        evaluation: EvaluationOptions | None = None,
        resources: ResourcesOptions | None = None,
    ) -> Run:
        """Queue a run on a dataset. Each section overrides the preset's, field by field.

        `spec` is a specification as a mapping, which the other arguments override as a whole.
        """
        arguments = {name: value for name, value in locals().items() if name in _SPEC_FIELDS}
        body = _spec(dataset, spec, arguments)
        return self._run(self._transport.post("/v1/runs", body, creates=True))

    def plan(
        self,
        dataset: Dataset | str | None = None,
        *,
        spec: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> PlanView:
        """Return the resolved specification, the steps and warnings of a run without creating it.

        Takes the arguments of `create`.
        """
        body = _spec(dataset, spec, fields)
        return PlanView.from_json(self._transport.post("/v1/runs", body, dry_run=True))

    def get(self, run_id: str) -> Run:
        return self._run(self._transport.get(f"/v1/runs/{protocol.segment(run_id)}"))

    def list(
        self,
        limit: int | None = None,
        *,
        status: str | None = None,
        name: str | None = None,
        dataset: Dataset | str | None = None,
        tag: str | None = None,
    ) -> Iterator[Run]:
        """Yield runs, newest first, optionally only those with these values."""
        params = {
            "status": status,
            "name": name,
            "dataset_id": getattr(dataset, "id", dataset),
            "tag": tag,
        }
        for run in pages(self._transport, "/v1/runs", self._run, limit, **params):
            yield run

    def _run(self, content: dict[str, Any]) -> Run:
        return Run._of(self._transport, f"/v1/runs/{content['id']}", content)


class Promotions:
    """Release names of runs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, name: str, stage: str) -> PromotionView:
        """Return the current promotion under `name@stage`."""
        return PromotionView.from_json(self._transport.get(_release_path(name, stage)))

    def withdraw(self, name: str, stage: str) -> PromotionView:
        """Withdraw the current promotion; it stays on record."""
        answer = self._transport.delete(_release_path(name, stage))
        return PromotionView.from_json(answer.json())

    def list(
        self, limit: int | None = None, *, name: str | None = None, stage: str | None = None
    ) -> Iterator[PromotionView]:
        """Yield promotions, newest first."""
        read = PromotionView.from_json
        for row in pages(self._transport, "/v1/promotions", read, limit, name=name, stage=stage):
            yield row


class Keys:
    """API keys; for admins only."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        name: str,
        role: Literal["viewer", "operator", "admin"],
        expires_in_seconds: int | None = None,
    ) -> NewKeyView:
        """Create a key; only this answer has its token."""
        body = {"name": name, "role": role, "expires_in_seconds": expires_in_seconds}
        # Repeating the request could create a second key.
        response = self._transport.request(
            "POST", "/v1/keys", json=protocol.without_none(body), can_repeat=False
        )
        return NewKeyView.from_json(response.json())

    def revoke(self, key_id: str) -> KeyView:
        """Revoke a key permanently."""
        answer = self._transport.delete(f"/v1/keys/{protocol.segment(key_id)}")
        return KeyView.from_json(answer.json())

    def list(self, limit: int | None = None) -> Iterator[KeyView]:
        """Yield keys, newest first."""
        for key in pages(self._transport, "/v1/keys", KeyView.from_json, limit):
            yield key


_SPEC_FIELDS = (
    "name",
    "preset",
    "base_model",
    "template",
    "seed",
    "tags",
    "lora",
    "quantization",
    "training",
    "fairness",
    "evaluation",
    "resources",
)


def _release_path(name: str, stage: str) -> str:
    return f"/v1/promotions/{protocol.segment(name)}/{protocol.segment(stage)}"


def _spec(
    dataset: Dataset | str | None,
    spec: Mapping[str, Any] | None,
    arguments: Mapping[str, Any],
) -> dict[str, Any]:
    fields = protocol.without_none(arguments)
    if dataset is not None:
        fields["dataset_id"] = getattr(dataset, "id", dataset)
    return {**(spec or {}), **fields}
