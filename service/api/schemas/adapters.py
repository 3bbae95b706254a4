"""Imported adapters."""

from datetime import datetime

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from service.api.schemas.base import View
from service.domain.adapter_config import AdapterConfig
from service.domain.imported_adapter import ImportedAdapter
from service.domain.spec import RunSpec
from service.store.tables import Artifact, Run

_EXAMPLE: JsonDict = {
    "id": "run_01jz8x0m3c9v5k2q7w4t6y8n1a",
    "name": "trained elsewhere",
    "base_model": "smollm2-135m-instruct",
    "dataset_id": None,
    "template": "hate_speech_simple",
    "labels": ["hate", "normal"],
    "positive_label": "hate",
    "peft": {
        "r": 16,
        "lora_alpha": 32.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "modules": ["q_proj", "v_proj"],
        "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "peft_version": "0.21.2",
    },
    "tensors": 120,
    "parameters": 921600,
    "dtypes": ["F32"],
    "size": 3700712,
    "sha256": "1433523cf7afa0997dcf114b74f1f09f6699c6c4151facc7783337adf391d8a5",
    "ignored_files": ["tokenizer.json"],
    "warnings": [],
    "promoted_as": [],
    "created_by": None,
    "created_at": "2026-11-29T02:40:19.120000Z",
}


class PeftView(View):
    """What adapter_config.json says of the adapter."""

    r: int = Field(description="Rank; single layers may have another (rank_pattern).")
    lora_alpha: float = Field(description="Scale of the update.")
    bias: str = Field(description="Bias parameters that the adapter replaces: none, all, …")
    use_rslora: bool = Field(description="True if the scale is lora_alpha / sqrt(r).")
    use_dora: bool = Field(description="True for weight-decomposed LoRA.")
    modules: list[str] = Field(description="Last parts of the names of the adapted layers.")
    base_model_name_or_path: str | None = Field(
        description="Base model that adapter_config.json names; it may be a path elsewhere."
    )
    peft_version: str | None = Field(description="Version of peft that wrote it; null if unknown.")

    @classmethod
    def of(cls, config: AdapterConfig, modules: list[str]) -> "PeftView":
        fields = config.model_dump(include=set(cls.model_fields))
        return cls(**fields, modules=modules)


class AdapterWarningView(View):
    """A reason why the adapter may not be what its user expects."""

    code: str = Field(description="Stable identifier of the warning, such as other_base_model.")
    detail: str = Field(description="The warning as a sentence.")


class AdapterView(View):
    """An adapter that was trained elsewhere. It is a run, too: GET /v1/runs/{id}."""

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})

    id: str = Field(description="Identifier, which is that of its run.")
    name: str = Field(description="Name from the import, or a generated one.")
    base_model: str = Field(description="Base model that it is loaded on.")
    dataset_id: str | None = Field(
        description="Dataset that its evaluations use unless they set another; null: none."
    )
    template: str = Field(description="Prompt template.")
    labels: list[str] = Field(description="Labels that it distinguishes, sorted.")
    positive_label: str = Field(description="Label that counts as positive.")
    peft: PeftView = Field(description="The adapter's own configuration.")
    tensors: int = Field(description="Number of tensors.")
    parameters: int = Field(description="Number of parameters.")
    dtypes: list[str] = Field(description="Types of the tensors, such as F32.")
    size: int = Field(description="Size of adapter_model.safetensors in bytes.")
    sha256: str = Field(description="SHA-256 of adapter_model.safetensors.")
    ignored_files: list[str] = Field(
        description="Files of the archive that are not used; at most 100 of them."
    )
    warnings: list[AdapterWarningView] = Field(
        description="Reasons why the adapter may not be what its user expects."
    )
    promoted_as: list[str] = Field(description="Current release names, as name@stage.")
    created_by: str | None = Field(
        description="Name of the API key of the request; null without authentication."
    )
    created_at: datetime = Field(description="Time of the import.")

    @classmethod
    def of(cls, run: Run, weights: Artifact | None, promoted_as: list[str]) -> "AdapterView":
        record = ImportedAdapter.model_validate(run.imported)
        spec = RunSpec.model_validate(run.spec)
        return cls(
            id=run.id,
            name=run.name,
            base_model=spec.base_model,
            dataset_id=spec.dataset_id if record.has_dataset else None,
            template=spec.template,
            labels=record.labels,
            positive_label=spec.fairness.positive_label,
            peft=PeftView.of(record.config, record.modules),
            tensors=record.tensors,
            parameters=record.parameters,
            dtypes=record.dtypes,
            size=0 if weights is None else weights.size,
            sha256="" if weights is None else weights.sha256,
            ignored_files=record.ignored_files,
            warnings=[AdapterWarningView(**note.model_dump()) for note in record.warnings],
            promoted_as=promoted_as,
            created_by=run.created_by,
            created_at=run.created_at,
        )
