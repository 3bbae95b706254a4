"""The base model, loaded as the specification wants it, with what there is to say about that."""

import logging
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from worker.programs.program import Program
from worker.training import models

log = logging.getLogger("fairtune")


def load(program: Program, directory: Path) -> tuple[models.Base, Any]:
    """The base model, frozen, and the accelerator whose device it is on."""
    # The weights have their own precision (bfloat16, the adapter float32): no autocast on top.
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no")
    began = time.monotonic()
    kept = Path(program.job.models_dir) / ".quantized"
    base = models.load_base(directory, program.job.spec, accelerator.device, kept)
    log.info("base model loaded in %.1f s", time.monotonic() - began)
    if base.in_float32:
        program.reporter.warn(
            "no_bfloat16",
            "This machine's CPU has no instructions for bfloat16, in which PyTorch would be many "
            "times slower: all is computed in float32. What is not held in 4 bits takes twice the "
            "memory.",
        )
    if program.job.spec.quantization.load_in_4bit:
        program.reporter.log(base.coverage.summary())
        if base.coverage.left_out:
            program.reporter.warn("partly_quantized", base.coverage.warning())
    return base, accelerator
