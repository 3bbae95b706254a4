"""Loading of the model that is trained or scored, with the warnings that belong to it."""

import logging
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from service.domain.job import Job
from service.domain.spec import RunSpec
from worker.modeling import load as models
from worker.modeling.load import Base
from worker.modeling.pretrained import read_config
from worker.runtime.events import Reporter

log = logging.getLogger("fairtune")


def make_accelerator() -> Any:
    """Return accelerate's Accelerator for this machine's GPU, or else its CPU."""
    # The weights have their own precision (bfloat16, the adapter float32): no autocast on top.
    return Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no")


def load_base(directory: Path, spec: RunSpec, models_dir: Path, reporter: Reporter) -> Base:
    """Load the base model, frozen, in the precision of the specification."""
    started = time.monotonic()
    cache_dir = models_dir / ".quantized"
    base = models.load_base(directory, spec, make_accelerator().device, cache_dir)
    log.info("base model loaded in %.1f s", time.monotonic() - started)
    _warn_of_float32(base, reporter)
    if base.ignored_weights:
        reporter.warn(
            "ignored_weights",
            f"{spec.base_model}: its config.json has no place for {len(base.ignored_weights)} of "
            f"the weights in its files, {base.ignored_weights[0]} for one. Check that the two "
            "belong together.",
        )
    if spec.quantization.load_in_4bit:
        reporter.log(base.coverage.summary())
        if base.coverage.left_out:
            reporter.warn("partly_quantized", base.coverage.warning())
    return base


def load_merged(
    directory: Path, spec: RunSpec, reporter: Reporter, device: torch.device | None = None
) -> Base:
    """Load a merged model: in bfloat16 if it is stored so, else in float32.

    On the accelerator's device, unless another `device` is given.
    """
    started = time.monotonic()
    merged_spec = _spec_of_merged(spec, directory)
    merged = models.load_base(directory, merged_spec, device or make_accelerator().device)
    log.info("merged model loaded in %.1f s", time.monotonic() - started)
    _warn_of_float32(merged, reporter)
    return merged


def load_scored_model(
    job: Job, job_directory: Path, model_directory: Path, reporter: Reporter
) -> tuple[Any, Any]:
    """Load the model that the job scores with: base, base with adapter, or merged.

    Returns the model and its tokenizer.
    """
    if job.merged is not None:
        base = load_merged(model_directory, job.spec, reporter)
    else:
        base = load_base(model_directory, job.spec, Path(job.models_dir), reporter)
    if job.adapter is None:
        return base.model, base.tokenizer
    return add_job_adapter(base.model, job, job_directory / job.adapter), base.tokenizer


def add_job_adapter(model: Any, job: Job, directory: Path) -> Any:
    """Return `model` with the job's adapter, which is in `directory`. Raises ProgramFailure."""
    from worker.training.stored_adapter import add_stored_adapter

    return add_stored_adapter(model, job.spec, directory, imported=job.imported, fused=True)


def _spec_of_merged(spec: RunSpec, directory: Path) -> RunSpec:
    """Return the specification for loading a merged model: unquantized, in its own type."""
    config = read_config(directory, "the merged model")
    quantization = spec.quantization.model_copy(
        update={"load_in_4bit": False, "bnb_4bit_compute_dtype": "float32"}
    )
    training = spec.training.model_copy(
        update={"bf16": config.get_text_config().dtype == torch.bfloat16}
    )
    return spec.model_copy(
        update={
            "base_model": "the merged model",
            "quantization": quantization,
            "training": training,
        }
    )


def _warn_of_float32(base: Base, reporter: Reporter) -> None:
    if base.in_float32:
        reporter.warn(
            "no_bfloat16",
            "This machine's CPU has no bfloat16 instructions, and PyTorch would emulate them many "
            "times more slowly: everything is computed in float32. Weights that are not held in 4 "
            "bits take twice the memory.",
        )
