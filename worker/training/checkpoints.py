"""Checkpoints: complete or absent, verified when read, and without pickles.

A checkpoint is a PEFT adapter directory with additional files for resuming:

    adapter_config.json  adapter_model.safetensors   as peft writes them
    optimizer.safetensors                            AdamW's moments, by parameter number
    best_adapter.safetensors                         the best adapter so far, if it is another one
    loop_state.json                                  state of the loop (LoopState) and scheduler
    trainer_state.json                               the same in transformers' layout
    manifest.json                                    size and SHA-256 of each file, written last

Generator states (python's, numpy's, torch's, CUDA's) are not stored: before each micro-batch all
generators are seeded by (seed, step, slot), and the order of rows by (seed, epoch), so that no
state outlives a step. Stored states would be overwritten before their first use, would need a
pickle, and could only be restored on a machine with as many devices.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from service.domain.digests import sha256_of
from service.domain.job import ADAPTER_WEIGHTS_FILE
from service.fairness.selection import CheckpointScore

MANIFEST = "manifest.json"

Tensors = dict[str, torch.Tensor]


class BrokenCheckpoint(Exception):
    """A checkpoint that differs from what was written: torn, modified, or of another version."""


@dataclass(slots=True)
class LoopState:
    """State of the training loop after `step` optimizer steps; its fields are keys of the file."""

    step: int = 0
    packing: str | None = None
    """The packing in use once it is decided: that of the specification, or none."""
    boundary_done: bool = True
    """True if the logging, evaluation and saving due at `step` are done."""
    window_loss: float = 0.0
    """Sum of the steps' losses since the last log, over `window_steps`."""
    window_steps: int = 0
    last_norm: float = 0.0
    last_rate: float = 0.0
    last_speed: float = 0.0
    """Gradient norm, learning rate and samples per second of the last step."""
    total_loss: float = 0.0
    seconds: float = 0.0
    """Time spent in training, without interruptions."""
    stale: int = 0
    """Consecutive evaluations without improvement, as early stopping counts them."""
    stopped_early: bool = False
    best_metric: float | None = None
    """The lowest validation loss."""
    best_step: int | None = None
    """Step of the best weights, by the lowest loss or by `best_standing`."""
    best_standing: CheckpointScore | None = None
    """Validation results of the best weights; None unless the best weights are chosen by them."""
    log_history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class CheckpointContent:
    """The content of a verified checkpoint."""

    state: LoopState
    adapter: Tensors
    best_adapter: Tensors | None
    optimizer: Tensors
    scheduler: dict[str, Any]


def write(
    directory: Path,
    *,
    model: Any,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    state: LoopState,
    trainer_state: dict[str, Any],
    best_adapter: Tensors | None,
) -> None:
    """Write the checkpoint `directory` atomically: with all its files or not at all.

    A failed write leaves no files. Raises OSError, or SafetensorError with an OSError's text.
    """
    staging = directory.with_name(f".{directory.name}.tmp")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        _fill(staging, model, optimizer, scheduler, state, trainer_state, best_adapter)
        _put_in_place(staging, directory)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _fill(
    staging: Path,
    model: Any,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    state: LoopState,
    trainer_state: dict[str, Any],
    best_adapter: Tensors | None,
) -> None:
    """Write and sync all files of a checkpoint, the manifest last."""
    save_adapter(model, staging)
    save_file(_optimizer_tensors(optimizer), staging / "optimizer.safetensors")
    if best_adapter is not None and state.best_step != state.step:
        save_file(best_adapter, staging / "best_adapter.safetensors")
    loop_state = {"version": 1, "state": asdict(state), "scheduler": scheduler.state_dict()}
    (staging / "loop_state.json").write_text(json.dumps(loop_state))
    (staging / "trainer_state.json").write_text(json.dumps(trainer_state, indent=2))
    manifest = {path.name: _fingerprint(path) for path in sorted(staging.iterdir())}
    for path in staging.iterdir():
        _sync(path)
    (staging / MANIFEST).write_text(json.dumps({"version": 1, "files": manifest}, indent=2))
    _sync(staging / MANIFEST)
    _sync(staging)


def _put_in_place(staging: Path, directory: Path) -> None:
    # The same step a second time: the run was stopped there before its evaluation and saving.
    replaced = directory.with_name(f".{directory.name}.old")
    shutil.rmtree(replaced, ignore_errors=True)
    if directory.exists():
        directory.rename(replaced)
    try:
        staging.rename(directory)
    except OSError:
        if replaced.exists():
            replaced.rename(directory)
        raise
    _sync(directory.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def remove_leftovers(checkpoints: Path) -> None:
    """Remove what a program killed while saving left; complete checkpoints are preserved."""
    for replaced in checkpoints.glob(".checkpoint-*.old"):
        directory = checkpoints / replaced.name.removeprefix(".").removesuffix(".old")
        if not directory.exists():  # killed between two renames
            replaced.rename(directory)
    for leftover in checkpoints.glob(".checkpoint-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def step_of(directory: Path) -> int:
    """Return the step in a checkpoint directory's name; -1 for any other name."""
    step = directory.name.removeprefix("checkpoint-")
    return int(step) if step.isdecimal() else -1


def steps_in(checkpoints: Path) -> list[int]:
    """Return the steps that have a directory, valid or not, the newest first."""
    return sorted(map(step_of, checkpoints.glob("checkpoint-[0-9]*")), reverse=True)


def verify(directory: Path) -> None:
    """Raise BrokenCheckpoint unless the directory holds exactly what its manifest lists."""
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        files: dict[str, dict[str, Any]] = manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenCheckpoint(f"{directory.name} has no readable manifest") from error
    if manifest.get("version") != 1:
        raise BrokenCheckpoint(f"{directory.name} was written by another version of Fairtune")
    present = {path.name for path in directory.iterdir()} - {MANIFEST}
    if present != set(files):
        raise BrokenCheckpoint(
            f"the files of {directory.name} are not those of its manifest: "
            f"{', '.join(sorted(present ^ set(files)))}"
        )
    for name, expected in files.items():
        if _fingerprint(directory / name) != expected:
            raise BrokenCheckpoint(f"{directory.name}/{name} does not match the manifest")


def read(directory: Path) -> CheckpointContent:
    """Verify the checkpoint and return its content. Raises BrokenCheckpoint."""
    verify(directory)
    best = directory / "best_adapter.safetensors"
    try:
        loop = json.loads((directory / "loop_state.json").read_bytes())
        state = LoopState(**loop["state"])
        if (standing := loop["state"].get("best_standing")) is not None:
            state.best_standing = CheckpointScore(**standing)
        return CheckpointContent(
            state=state,
            adapter=load_file(directory / ADAPTER_WEIGHTS_FILE),
            best_adapter=load_file(best) if best.exists() else None,
            optimizer=load_file(directory / "optimizer.safetensors"),
            scheduler=loop["scheduler"],
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise BrokenCheckpoint(f"{directory.name} cannot be read: {error}") from error


def adapter_tensors(model: Any) -> Tensors:
    """Return a copy of the adapter's weights, by peft's names, on the CPU."""
    from peft import get_peft_model_state_dict

    # Embeddings are never trained; without this, peft would query the hub for resized ones.
    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def load_adapter(model: Any, tensors: Tensors) -> None:
    """Load the weights into the model's adapter. Raises BrokenCheckpoint if they do not fit it."""
    from peft import set_peft_model_state_dict

    if {name: tensor.shape for name, tensor in adapter_tensors(model).items()} != {
        name: tensor.shape for name, tensor in tensors.items()
    }:
        raise BrokenCheckpoint("the adapter in the checkpoint has different layers or rank")
    set_peft_model_state_dict(model, tensors)


def save_adapter(model: Any, directory: Path) -> None:
    """Write adapter_model.safetensors and adapter_config.json, for PeftModel.from_pretrained."""
    save_file(adapter_tensors(model), directory / ADAPTER_WEIGHTS_FILE, metadata={"format": "pt"})
    config = model.peft_config["default"]
    training, config.inference_mode = config.inference_mode, True
    try:
        config.save_pretrained(str(directory))
    finally:
        config.inference_mode = training


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    return {
        f"{number}.{name}": value.detach().contiguous()
        for number, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Restore the moments that `write` saved; the scheduler restores learning rates."""
    layout = optimizer.state_dict()
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict(layout | {"state": state})


def _fingerprint(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": sha256_of(path)}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
