"""The model that is trained or scored, loaded as the specification wants it, with what there is to
say about that.
"""

import logging
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from service.domain.errors import ProgramFailure
from service.domain.spec import RunSpec
from service.domain.states import FailureReason
from worker.modeling import load as models
from worker.runtime.launch import Program

log = logging.getLogger("fairtune")


def load(program: Program, directory: Path) -> tuple[models.Base, Any]:
    """The base model, frozen, and the accelerator whose device it is on."""
    accelerator = _accelerator()
    began = time.monotonic()
    kept = Path(program.job.models_dir) / ".quantized"
    base = models.load_base(directory, program.job.spec, accelerator.device, kept)
    log.info("base model loaded in %.1f s", time.monotonic() - began)
    _warn_of_float32(program, base)
    if program.job.spec.quantization.load_in_4bit:
        program.reporter.log(base.coverage.summary())
        if base.coverage.left_out:
            program.reporter.warn("partly_quantized", base.coverage.warning())
    return base, accelerator


def load_merged(
    program: Program, directory: Path, on: torch.device | None = None
) -> tuple[models.Base, Any]:
    """The same for a merged model: in its own type if that is bfloat16, and else in float32. It is
    `on` another device than the accelerator's, where one is named.
    """
    accelerator = _accelerator()
    began = time.monotonic()
    spec = _of_merged(program.job.spec, directory)
    merged = models.load_base(directory, spec, on or accelerator.device)
    log.info("merged model loaded in %.1f s", time.monotonic() - began)
    _warn_of_float32(program, merged)
    return merged, accelerator


def _of_merged(spec: RunSpec, directory: Path) -> RunSpec:
    """How a run's merged model is loaded: nothing is quantized, and it has a type of its own."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(directory, local_files_only=True)
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


def adapted(program: Program, base: Any, place: str) -> Any:
    """`base` with the adapter in the directory `place`, as it was when the run scored with it.

    Raises ProgramFailure(crashed) for one that is not the run's: another attempt gets it anew.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from worker.modeling.fused_layers import fuse_layers
    from worker.training.checkpoints import BrokenCheckpoint, load_adapter

    spec = program.job.spec
    model = models.add_adapter(base, spec.lora, spec.seed, spec.base_model)
    fuse_layers(model)
    try:
        load_adapter(model, load_file(program.directory / place / "adapter_model.safetensors"))
    except (OSError, SafetensorError, BrokenCheckpoint) as error:
        raise ProgramFailure(
            FailureReason.CRASHED, f"The adapter cannot be loaded: {error}."
        ) from error
    return model


def _accelerator() -> Any:
    # The weights have their own precision (bfloat16, the adapter float32): no autocast on top.
    return Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no")


def _warn_of_float32(program: Program, base: models.Base) -> None:
    if base.in_float32:
        program.reporter.warn(
            "no_bfloat16",
            "This machine's CPU has no instructions for bfloat16, in which PyTorch would be many "
            "times slower: all is computed in float32. What is not held in 4 bits takes twice the "
            "memory.",
        )
