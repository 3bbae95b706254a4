"""Merging by peft with the whole model in memory, for weights that cannot be streamed."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from service.domain.job import ADAPTER_WEIGHTS_FILE
from service.domain.spec import RunSpec
from worker.merging.streamed import QuantizedWeights, Write
from worker.modeling.load import add_adapter
from worker.modeling.pretrained import read_model
from worker.training.checkpoints import load_adapter


def write_merged_by_peft(
    base: Path,
    adapter: Path,
    target: Path,
    spec: RunSpec,
    quantized: QuantizedWeights | None,
    dtype: torch.dtype,
    max_shard_bytes: int,
    write: Write,
) -> None:
    """Write the files of `write_merged`, of at most `max_shard_bytes` each.

    Raises BrokenCheckpoint, and ValueError if a merged weight is not finite.
    """
    model, _ = read_model(base, spec.base_model, dtype=dtype, device_map={"": "cpu"})
    if quantized is not None:
        for name, parameter in model.named_parameters():
            if name in quantized.names:
                parameter.data = quantized.round_trip_of(name, parameter.data).to(dtype)
    adapted = add_adapter(model, spec.lora, spec.seed, spec.base_model)
    load_adapter(adapted, load_file(adapter / ADAPTER_WEIGHTS_FILE))
    merged = adapted.merge_and_unload(safe_merge=True)
    write(
        "the merged model", lambda: merged.save_pretrained(target, max_shard_size=max_shard_bytes)
    )
