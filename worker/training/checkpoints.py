"""Checkpoints: complete or absent, verified when read, and nothing in them is a pickle.

A checkpoint is a PEFT adapter directory with what resuming needs beside it:

    adapter_config.json  adapter_model.safetensors   as peft writes them
    optimizer.safetensors                            AdamW's moments, by parameter number
    best_adapter.safetensors                         the best adapter so far, where another one
    loop_state.json                                  where the loop stands (LoopState), scheduler
    trainer_state.json                               the same for readers, in transformers' layout
    manifest.json                                    size and SHA-256 of each, written last

No generator states (python's, numpy's, torch's, CUDA's): before each micro-batch all of them are
seeded by (seed, step, slot), and the order of rows by (seed, epoch), so that none outlives a step.
What is stored would be overwritten before its first use, in a pickle, and only on a machine with as
many devices.
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
from service.fairness.selection import CheckpointScore

MANIFEST = "manifest.json"

Tensors = dict[str, torch.Tensor]


class BrokenCheckpoint(Exception):
    """A checkpoint that is not what was written: torn, tampered with, or of another version."""


@dataclass(slots=True)
class LoopState:
    """Where training stands after `step` optimizer steps."""

    step: int = 0
    packing: str | None = None
    """How samples are laid out, once that is settled: the packing asked for, or none."""
    boundary_done: bool = True
    """Whether logging, evaluation and saving that fall on `step` are behind us."""
    window_loss: float = 0.0
    """Sum of the steps' losses since the last log, over `window_steps`."""
    window_steps: int = 0
    last_norm: float = 0.0
    last_rate: float = 0.0
    last_speed: float = 0.0
    """Of the last step: gradient norm, learning rate, samples per second."""
    total_loss: float = 0.0
    seconds: float = 0.0
    """Spent in training, interruptions left out."""
    stale: int = 0
    """Evaluations in a row without improvement, as early stopping counts them."""
    stopped_early: bool = False
    best_metric: float | None = None
    """The lowest validation loss."""
    best_step: int | None = None
    """Of the best weights: those of the lowest loss, or as `best_standing` has it."""
    best_standing: CheckpointScore | None = None
    """What the best weights do on validation; None unless they are chosen by that."""
    log_history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Restored:
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
    """Write the checkpoint `directory`; it appears with all its files or not at all.

    Where that fails nothing of it is left. Raises OSError, or SafetensorError with one's text.
    """
    aside = directory.with_name(f".{directory.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        _fill(aside, model, optimizer, scheduler, state, trainer_state, best_adapter)
        _put_in_place(aside, directory)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _fill(
    aside: Path,
    model: Any,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    state: LoopState,
    trainer_state: dict[str, Any],
    best_adapter: Tensors | None,
) -> None:
    """Write all files of a checkpoint, the manifest last, and have them on the disk."""
    save_adapter(model, aside)
    save_file(_optimizer_tensors(optimizer), aside / "optimizer.safetensors")
    if best_adapter is not None and state.best_step != state.step:
        save_file(best_adapter, aside / "best_adapter.safetensors")
    loop_state = {"version": 1, "state": asdict(state), "scheduler": scheduler.state_dict()}
    (aside / "loop_state.json").write_text(json.dumps(loop_state))
    (aside / "trainer_state.json").write_text(json.dumps(trainer_state, indent=2))
    manifest = {path.name: _fingerprint(path) for path in sorted(aside.iterdir())}
    for path in aside.iterdir():
        _sync(path)
    (aside / MANIFEST).write_text(json.dumps({"version": 1, "files": manifest}, indent=2))
    _sync(aside / MANIFEST)
    _sync(aside)


def _put_in_place(aside: Path, directory: Path) -> None:
    # The same step a second time: the run was stopped there, before what falls on it was done.
    replaced = directory.with_name(f".{directory.name}.old")
    shutil.rmtree(replaced, ignore_errors=True)
    if directory.exists():
        directory.rename(replaced)
    try:
        aside.rename(directory)
    except OSError:
        if replaced.exists():
            replaced.rename(directory)
        raise
    _sync(directory.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def tidy(checkpoints: Path) -> None:
    """Take away what a program that was killed while saving left; nothing complete is lost."""
    for replaced in checkpoints.glob(".checkpoint-*.old"):
        directory = checkpoints / replaced.name.removeprefix(".").removesuffix(".old")
        if not directory.exists():  # killed between two renames
            replaced.rename(directory)
    for left in checkpoints.glob(".checkpoint-*"):
        shutil.rmtree(left, ignore_errors=True)


def step_of(directory: Path) -> int:
    """The step in a checkpoint directory's name; -1 for any other name."""
    step = directory.name.removeprefix("checkpoint-")
    return int(step) if step.isdecimal() else -1


def steps_in(checkpoints: Path) -> list[int]:
    """The steps that have a directory there, whatever it holds, the newest first."""
    return sorted(map(step_of, checkpoints.glob("checkpoint-[0-9]*")), reverse=True)


def verify(directory: Path) -> None:
    """Raise BrokenCheckpoint unless the directory holds exactly what its manifest lists."""
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        files: dict[str, dict[str, Any]] = manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenCheckpoint(f"{directory.name} has no readable manifest") from error
    if manifest.get("version") != 1:
        raise BrokenCheckpoint(f"{directory.name} is of another version of Fairtune")
    present = {path.name for path in directory.iterdir()} - {MANIFEST}
    if present != set(files):
        raise BrokenCheckpoint(
            f"{directory.name} does not hold the files of its manifest: "
            f"{', '.join(sorted(present ^ set(files)))}"
        )
    for name, expected in files.items():
        if _fingerprint(directory / name) != expected:
            raise BrokenCheckpoint(f"{directory.name}/{name} is not what was written")


def read(directory: Path) -> Restored:
    """Verify the checkpoint and return its content. Raises BrokenCheckpoint."""
    verify(directory)
    best = directory / "best_adapter.safetensors"
    try:
        loop = json.loads((directory / "loop_state.json").read_bytes())
        state = LoopState(**loop["state"])
        if (standing := loop["state"].get("best_standing")) is not None:
            state.best_standing = CheckpointScore(**standing)
        return Restored(
            state=state,
            adapter=load_file(directory / "adapter_model.safetensors"),
            best_adapter=load_file(best) if best.exists() else None,
            optimizer=load_file(directory / "optimizer.safetensors"),
            scheduler=loop["scheduler"],
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise BrokenCheckpoint(f"{directory.name} cannot be read: {error}") from error


def adapter_tensors(model: Any) -> Tensors:
    """A copy of the adapter's weights, by peft's names, on the CPU."""
    from peft import get_peft_model_state_dict

    # Embeddings are never trained; peft would otherwise ask the hub whether they grew.
    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def load_adapter(model: Any, tensors: Tensors) -> None:
    """Put the weights into the model's adapter. Raises BrokenCheckpoint if they are not its."""
    from peft import set_peft_model_state_dict

    if {name: tensor.shape for name, tensor in adapter_tensors(model).items()} != {
        name: tensor.shape for name, tensor in tensors.items()
    }:
        raise BrokenCheckpoint("the adapter in the checkpoint has other layers or another rank")
    set_peft_model_state_dict(model, tensors)


def save_adapter(model: Any, directory: Path) -> None:
    """Write adapter_model.safetensors and adapter_config.json, as peft opens them."""
    save_file(
        adapter_tensors(model), directory / "adapter_model.safetensors", metadata={"format": "pt"}
    )
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
    """Restore what `write` saved; learning rates are the scheduler's to restore."""
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
