"""Adapters as they are loaded to be scored or merged: a run's own, or one trained elsewhere."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from service.domain.adapter_config import ADAPTER_CONFIG_FILE, AdapterConfig
from service.domain.errors import InvalidRequest, ProgramFailure
from service.domain.job import ADAPTER_WEIGHTS_FILE
from service.domain.spec import RunSpec
from service.domain.states import FailureReason
from worker.modeling.load import add_adapter, add_configured_adapter
from worker.training.checkpoints import BrokenCheckpoint, Tensors, adapter_tensors, load_adapter

_PREFIX = "base_model.model."


def add_stored_adapter(
    model: Any, spec: RunSpec, directory: Path, *, imported: bool, fused: bool
) -> Any:
    """Return `model` with the adapter in `directory`, its layers fused if `fused`.

    An `imported` adapter is described by its own adapter_config.json, one of a run by `spec`.
    Raises ProgramFailure: crashed if it is not the run's adapter, so that another attempt fetches
    it again, and invalid_spec if an imported one does not fit the base model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from worker.modeling.fused_layers import fuse_layers

    if imported:
        adapted = add_configured_adapter(model, _read_config(directory), spec.base_model)
    else:
        adapted = add_adapter(model, spec.lora, spec.seed, spec.base_model)
    if fused:
        fuse_layers(adapted)
    try:
        tensors = load_file(directory / ADAPTER_WEIGHTS_FILE)
        if imported:
            tensors = {_saved_name(name): tensor for name, tensor in tensors.items()}
            _check_fit(adapter_tensors(adapted), tensors, spec.base_model)
        load_adapter(adapted, tensors)
    except (OSError, SafetensorError, BrokenCheckpoint) as error:
        raise ProgramFailure(
            FailureReason.CRASHED, f"The adapter cannot be loaded: {error}."
        ) from error
    return adapted


def _read_config(directory: Path) -> AdapterConfig:
    """Read the adapter's configuration, which was checked when it was imported."""
    try:
        return AdapterConfig.parse((directory / ADAPTER_CONFIG_FILE).read_bytes())
    except OSError as error:
        raise ProgramFailure(
            FailureReason.CRASHED, f"The adapter's configuration cannot be read: {error}."
        ) from error
    except InvalidRequest as error:
        raise ProgramFailure(
            FailureReason.INVALID_SPEC, f"The adapter cannot be used: {error.detail}."
        ) from error


def _saved_name(name: str) -> str:
    """Return a tensor's name as peft saves it: magnitudes are modules, saved without `.weight`."""
    return name.removesuffix(".weight") if name.endswith("magnitude_vector.weight") else name


def _check_fit(expected: Tensors, stored: Tensors, base_model: str) -> None:
    """Raise ProgramFailure(invalid_spec) unless the tensors are those that the model's layers need.

    peft would skip what does not fit, and score or merge a model that was never trained.
    """
    if strange := sorted(stored.keys() - expected.keys()):
        layers = _layers(strange)
        raise _unfit(
            f"{base_model} has no place for {_count(layers, 'layer')} of the adapter, "
            f"{layers[0]} for one. The adapter was trained on another base model: import it again "
            "with the right base_model"
        )
    if missing := sorted(expected.keys() - stored.keys()):
        layers = _layers(missing)
        raise _unfit(
            f"the adapter has no weights for {_count(layers, 'layer')} of {base_model} that its "
            f"adapter_config.json adapts, {layers[0]} for one. It is incomplete, or was trained on "
            "another base model: import it again with the right base_model"
        )
    for name, tensor in stored.items():
        if tensor.shape != expected[name].shape:
            raise _unfit(
                f"{name.removeprefix(_PREFIX)} has the shape {tuple(tensor.shape)}, but "
                f"{base_model} needs {tuple(expected[name].shape)}. The adapter was trained on "
                "another base model: import it again with the right base_model"
            )
        if not torch.isfinite(tensor).all():
            raise _unfit(
                f"{name.removeprefix(_PREFIX)} contains values that are not finite (NaN or "
                "infinite): its training diverged"
            )


def _unfit(problem: str) -> ProgramFailure:
    return ProgramFailure(FailureReason.INVALID_SPEC, f"The adapter cannot be used: {problem}.")


def _layers(names: Iterable[str]) -> list[str]:
    """Return the names of the layers that tensors belong to, sorted."""
    return sorted({name.removeprefix(_PREFIX).partition(".lora_")[0] for name in names})


def _count(layers: list[str], noun: str) -> str:
    return f"{len(layers)} {noun}{'' if len(layers) == 1 else 's'}"
