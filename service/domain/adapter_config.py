"""adapter_config.json of a PEFT adapter: what it computes, and what Fairtune cannot honour of it.

Field names are those of peft's LoraConfig. A field that only describes the training is ignored; one
that changes what the adapter computes is honoured or refused by name, also one of a future peft.
"""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.domain.errors import FieldError, InvalidRequest, first_line, pointer_of
from service.domain.storable import check_storable
from service.domain.validation import MAX_ERRORS, field_errors, invalid_request

ADAPTER_CONFIG_FILE = "adapter_config.json"
MAX_RANK = 1024
_MAX_MODULES = 10_000
_MAX_NAME = 60

MERGE_FIRST = (
    "merge it into its base model with peft (merge_and_unload) and use the merged model as "
    "base_model"
)
"""Remedy for an adapter that Fairtune cannot load."""

UNSUPPORTED = {
    "alora_invocation_tokens": "an activated LoRA applies only after certain tokens",
    "arrow_config": "the adapter is a router of several adapters",
    "kasa_config": "KaSA changes the base model's weights",
    "layer_replication": "the adapter belongs to a base model with replicated layers",
    "lora_bias": "the adapter has biases of its own",
    "megatron_config": "the adapter belongs to Megatron's parallel layers",
    "modules_to_save": "the adapter replaces whole layers of the base model",
    "monteclora_config": "the adapter's weights are random variables",
    "trainable_token_indices": "the adapter replaces rows of the base model's embeddings",
    "use_bdlora": "the adapter's matrices are block-diagonal",
    "use_qalora": "the adapter pools the input of its layers",
    "velora_config": "the adapter was trained with VeLoRA's projections",
}
"""Fields whose value, unless empty, makes an adapter that is refused; the reason of each."""

_OF_TRAINING = frozenset(
    {
        "auto_mapping",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "fan_in_fan_out",
        "inference_mode",
        "init_lora_weights",
        "loftq_config",
        "lora_ga_config",
        "megatron_core",
        "peft_type",
        "qalora_group_size",
        "runtime_config",
        "task_type",
    }
)
"""Other fields of peft 0.21: they are checked elsewhere, or say nothing about a trained adapter."""

_PLAIN_INITIALISATIONS = (True, False, "eva", "gaussian", "orthogonal")
"""Values of init_lora_weights that leave the base model's weights as they are."""


class AdapterConfig(BaseModel):
    """The fields of a LoRA adapter that determine its updates, with peft's defaults."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)

    r: int = Field(8, ge=1, le=MAX_RANK)
    lora_alpha: float = 8
    lora_dropout: float = Field(0, ge=0, lt=1)
    """For display: adapters are never trained further."""
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    target_parameters: list[str] | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    bias: Literal["none", "all", "lora_only"] = "none"
    use_rslora: bool = False
    use_dora: bool = False
    rank_pattern: dict[str, int] = {}
    alpha_pattern: dict[str, float] = {}
    base_model_name_or_path: str | None = None
    revision: str | None = None
    peft_version: str | None = None

    @classmethod
    def parse(cls, content: bytes) -> "AdapterConfig":
        """Return the checked content of adapter_config.json.

        Raises InvalidRequest with pointers below ``/file/adapter_config.json``.
        """
        fields = _object(content)
        if (peft_type := fields.get("peft_type")) != "LORA":
            raise _refusal(
                "peft_type",
                f"is {_shown(peft_type)}, and only LORA adapters are supported: {MERGE_FIRST}",
            )
        if flaws := tuple(islice(_flaws(fields), MAX_ERRORS)):
            raise invalid_request(flaws)
        present = {
            name: value
            for name, value in fields.items()
            if name in cls.model_fields and value is not None
        }
        try:
            check_storable(present)
            config = cls.model_validate(present)
        except InvalidRequest as error:
            (flaw,) = error.errors
            pointer = pointer_of(["file", ADAPTER_CONFIG_FILE]) + flaw.pointer
            raise InvalidRequest.at(pointer, flaw.detail) from error
        except ValidationError as error:
            items = error.errors(include_url=False, include_input=False)
            raise invalid_request(field_errors(items, "file", ADAPTER_CONFIG_FILE)) from error
        config._check()
        return config

    def _check(self) -> None:
        if not self.target_modules and not self.target_parameters:
            raise _refusal("target_modules", "names no layer")
        for name, rank in self.rank_pattern.items():
            if not 1 <= rank <= MAX_RANK:
                raise _refusal(
                    "rank_pattern", f"{_shown(name)}: {rank} is not a rank from 1 to {MAX_RANK}"
                )
        if isinstance(self.target_modules, str) and (
            self.layers_to_transform is not None or self.layers_pattern
        ):
            raise _refusal(
                "layers_to_transform", "cannot be combined with a pattern in target_modules"
            )
        if self.layers_pattern and self.layers_to_transform is None:
            raise _refusal("layers_pattern", "requires layers_to_transform")
        for name in ("target_modules", "exclude_modules", "target_parameters"):
            if len(getattr(self, name) or ()) > _MAX_MODULES:
                raise _refusal(name, f"has more than {_MAX_MODULES:,} entries or characters")

    @property
    def ranks(self) -> set[int]:
        """Every rank that a layer of the adapter may have."""
        return {self.r, *self.rank_pattern.values()}

    def lora_options(self) -> dict[str, Any]:
        """Return the arguments of peft's LoraConfig that determine the adapter's updates."""
        names = set(type(self).model_fields) - {
            "base_model_name_or_path",
            "lora_dropout",
            "peft_version",
            "revision",
        }
        return self.model_dump(include=names)


def _object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError
        reason = "is nested too deeply" if isinstance(error, RecursionError) else first_line(error)
        raise _refusal(None, f"cannot be read as JSON: {reason}; save the adapter again") from error
    if not isinstance(value, dict):
        raise _refusal(None, "must be an object, as peft's save_pretrained writes it")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {_shown(twice)} occurs twice in an object")
    return fields


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _flaws(fields: dict[str, Any]) -> Iterator[FieldError]:
    """Yield an error for each field that cannot be honoured."""
    for name, value in fields.items():
        if _is_empty(value):
            continue
        if name in UNSUPPORTED:
            yield _error(name, f"{UNSUPPORTED[name]}, which is not supported: {MERGE_FIRST}")
        elif name not in AdapterConfig.model_fields and name not in _OF_TRAINING:
            yield _error(
                name,
                "is not known to this version of Fairtune, and may change what the adapter "
                f"computes: {MERGE_FIRST}",
            )
    task = fields.get("task_type")
    if task not in (None, "CAUSAL_LM"):
        yield _error(
            "task_type",
            f"is {_shown(task)}; only CAUSAL_LM adapters are supported, which answer with text",
        )
    start = fields.get("init_lora_weights")
    if start is not None and not any(
        type(start) is type(plain) and start == plain for plain in _PLAIN_INITIALISATIONS
    ):
        yield _error(
            "init_lora_weights",
            f"is {_shown(start)}, which changes the base model's weights: save the adapter with "
            "peft's path_initial_model_for_weight_conversion, which makes it an ordinary one",
        )


def _is_empty(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})


def _shown(value: Any) -> str:
    """Return a value in ASCII, shortened: it may hold anything."""
    text = ascii(value)
    return text if len(text) <= _MAX_NAME else f"{text[: _MAX_NAME - 1]}…"


def _error(name: str | None, detail: str) -> FieldError:
    location = ["file", ADAPTER_CONFIG_FILE]
    if name is not None:
        location.append(name if name.isascii() and name.isprintable() else _shown(name))
    return FieldError(pointer_of(location), detail)


def _refusal(name: str | None, detail: str) -> InvalidRequest:
    return invalid_request((_error(name, detail),))
