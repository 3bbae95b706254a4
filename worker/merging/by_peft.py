"""Merging by peft with the whole model in memory, for weights that cannot be streamed."""

from pathlib import Path

import torch

from service.domain.job import Job
from worker.merging.streamed import QuantizedWeights, Write
from worker.modeling.pretrained import read_model
from worker.training.stored_adapter import add_stored_adapter


def write_merged_by_peft(
    base: Path,
    adapter: Path,
    target: Path,
    job: Job,
    quantized: QuantizedWeights | None,
    dtype: torch.dtype,
    max_shard_bytes: int,
    write: Write,
) -> None:
    """Write the files of `write_merged`, of at most `max_shard_bytes` each.

    Raises ProgramFailure, and ValueError if a merged weight is not finite.
    """
    model, _ = read_model(base, job.spec.base_model, dtype=dtype, device_map={"": "cpu"})
    if quantized is not None:
        for name, parameter in model.named_parameters():
            if name in quantized.names:
                parameter.data = quantized.round_trip_of(name, parameter.data).to(dtype)
    adapted = add_stored_adapter(model, job.spec, adapter, imported=job.imported, fused=False)
    merged = adapted.merge_and_unload(safe_merge=True)
    write(
        "the merged model", lambda: merged.save_pretrained(target, max_shard_size=max_shard_bytes)
    )
