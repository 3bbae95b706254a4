"""Collections of the API: datasets, runs, promotions, API keys."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Literal

from fairtune import _display as display
from fairtune import _protocol as protocol
from fairtune._archives import adapter_archive
from fairtune._async.listing import pages
from fairtune._async.run import AsyncRun
from fairtune._async.transport import AsyncTransport
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


class AsyncDataset(DatasetView):
    """A dataset of labelled texts."""

    _transport: AsyncTransport

    @classmethod
    def _of(cls, transport: AsyncTransport, content: dict[str, Any]) -> "AsyncDataset":
        dataset = cls.from_json(content)
        dataset._transport = transport
        return dataset

    async def preview(self, split: Split | None = None, limit: int | None = None) -> list[RowView]:
        """Return the first rows of a split."""
        path = f"/v1/datasets/{self.id}/preview"
        content = await self._transport.get(path, split=split, limit=limit)
        return [RowView.from_json(entry) for entry in content]

    async def delete(self) -> None:
        """Delete the dataset permanently; refused while runs need it."""
        await self._transport.delete(f"/v1/datasets/{self.id}")

    def _repr_html_(self) -> str:
        return display.dataset_table(self)


class AsyncDatasets:
    """The server's datasets."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
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
    ) -> AsyncDataset:
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
            content = await self._transport.upload("/v1/datasets", fields, parts)
        return AsyncDataset._of(self._transport, content)

    async def get(self, dataset_id: str) -> AsyncDataset:
        content = await self._transport.get(f"/v1/datasets/{protocol.segment(dataset_id)}")
        return AsyncDataset._of(self._transport, content)

    async def delete(self, dataset_id: str) -> None:
        await self._transport.delete(f"/v1/datasets/{protocol.segment(dataset_id)}")

    async def list(self, limit: int | None = None) -> AsyncIterator[AsyncDataset]:
        """Yield datasets, newest first."""

        def read(content: dict[str, Any]) -> AsyncDataset:
            return AsyncDataset._of(self._transport, content)

        async for dataset in pages(self._transport, "/v1/datasets", read, limit):
            yield dataset


class AsyncAdapters:
    """Adapters that were trained elsewhere. Each is a run, too: `client.runs.get(adapter.id)`."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(self, source: protocol.Source, **options: Any) -> AdapterView:
        """Import a LoRA adapter that peft saved: its directory, or a tar of it.

        `options` are fields of a run's specification as far as scoring uses them, and `labels`.
        Raises OSError if a file of the directory is missing.
        """
        fields = {"options": json.dumps(protocol.without_none(options))}
        with adapter_archive(source) as archive:
            parts = {"file": protocol.upload_part(archive, "adapter.tar")}
            content = await self._transport.upload("/v1/adapters", fields, parts)
        return AdapterView.from_json(content)

    async def get(self, adapter_id: str) -> AdapterView:
        return AdapterView.from_json(await self._transport.get(f"/v1/adapters/{adapter_id}"))

    async def delete(self, adapter_id: str) -> None:
        """Delete an adapter with its evaluations, merges and predictions permanently."""
        await self._transport.delete(f"/v1/adapters/{adapter_id}")

    async def list(self, limit: int | None = None) -> AsyncIterator[AdapterView]:
        """Yield imported adapters, newest first."""
        async for adapter in pages(self._transport, "/v1/adapters", AdapterView.from_json, limit):
            yield adapter


class AsyncRuns:
    """The server's runs."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        dataset: AsyncDataset | str | None = None,
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
    ) -> AsyncRun:
        """Queue a run on a dataset. Each section overrides the preset's, field by field.

        `spec` is a specification as a mapping, which the other arguments override as a whole.
        """
        arguments = {name: value for name, value in locals().items() if name in _SPEC_FIELDS}
        body = _spec(dataset, spec, arguments)
        return self._run(await self._transport.post("/v1/runs", body, creates=True))

    async def plan(
        self,
        dataset: AsyncDataset | str | None = None,
        *,
        spec: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> PlanView:
        """Return the resolved specification, the steps and warnings of a run without creating it.

        Takes the arguments of `create`.
        """
        body = _spec(dataset, spec, fields)
        return PlanView.from_json(await self._transport.post("/v1/runs", body, dry_run=True))

    async def get(self, run_id: str) -> AsyncRun:
        return self._run(await self._transport.get(f"/v1/runs/{protocol.segment(run_id)}"))

    async def list(
        self,
        limit: int | None = None,
        *,
        status: str | None = None,
        name: str | None = None,
        dataset: AsyncDataset | str | None = None,
        tag: str | None = None,
    ) -> AsyncIterator[AsyncRun]:
        """Yield runs, newest first, optionally only those with these values."""
        params = {
            "status": status,
            "name": name,
            "dataset_id": getattr(dataset, "id", dataset),
            "tag": tag,
        }
        async for run in pages(self._transport, "/v1/runs", self._run, limit, **params):
            yield run

    def _run(self, content: dict[str, Any]) -> AsyncRun:
        return AsyncRun._of(self._transport, f"/v1/runs/{content['id']}", content)


class AsyncPromotions:
    """Release names of runs."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def get(self, name: str, stage: str) -> PromotionView:
        """Return the current promotion under `name@stage`."""
        return PromotionView.from_json(await self._transport.get(_release_path(name, stage)))

    async def withdraw(self, name: str, stage: str) -> PromotionView:
        """Withdraw the current promotion; it stays on record."""
        answer = await self._transport.delete(_release_path(name, stage))
        return PromotionView.from_json(answer.json())

    async def list(
        self, limit: int | None = None, *, name: str | None = None, stage: str | None = None
    ) -> AsyncIterator[PromotionView]:
        """Yield promotions, newest first."""
        read = PromotionView.from_json
        async for row in pages(
            self._transport, "/v1/promotions", read, limit, name=name, stage=stage
        ):
            yield row


class AsyncKeys:
    """API keys; for admins only."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        name: str,
        role: Literal["viewer", "operator", "admin"],
        expires_in_seconds: int | None = None,
    ) -> NewKeyView:
        """Create a key; only this answer has its token."""
        body = {"name": name, "role": role, "expires_in_seconds": expires_in_seconds}
        # Repeating the request could create a second key.
        response = await self._transport.request(
            "POST", "/v1/keys", json=protocol.without_none(body), can_repeat=False
        )
        return NewKeyView.from_json(response.json())

    async def revoke(self, key_id: str) -> KeyView:
        """Revoke a key permanently."""
        answer = await self._transport.delete(f"/v1/keys/{protocol.segment(key_id)}")
        return KeyView.from_json(answer.json())

    async def list(self, limit: int | None = None) -> AsyncIterator[KeyView]:
        """Yield keys, newest first."""
        async for key in pages(self._transport, "/v1/keys", KeyView.from_json, limit):
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
    dataset: AsyncDataset | str | None,
    spec: Mapping[str, Any] | None,
    arguments: Mapping[str, Any],
) -> dict[str, Any]:
    fields = protocol.without_none(arguments)
    if dataset is not None:
        fields["dataset_id"] = getattr(dataset, "id", dataset)
    return {**(spec or {}), **fields}
