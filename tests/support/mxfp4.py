"""tiny-gpt_oss with MXFP4 experts, as in the published gpt-oss: 4 bits, one scale per 32 values."""

import json
import shutil
from pathlib import Path

VALUES = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
"""Magnitudes of the 8 codes of E2M1; the fourth bit is the sign (OCP Microscaling, 2023)."""


def pack_experts(model: Path, directory: Path) -> dict[str, object]:
    """Copy the model to `directory` with packed random experts; return these in float32 by name."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, directory)
    weights = load_file(directory / "model.safetensors")
    generator = torch.Generator().manual_seed(3)
    table = torch.tensor(VALUES + [-value for value in VALUES])
    expected = {}
    for name in [name for name in weights if name.endswith(("experts.gate_up_proj", "down_proj"))]:
        experts, inputs, outputs = weights.pop(name).shape
        shape = (experts, outputs, inputs // 32)
        blocks = torch.randint(256, (*shape, 16), generator=generator).to(torch.uint8)
        scales = torch.randint(121, 126, shape, generator=generator).to(torch.uint8)
        codes = torch.stack([blocks & 15, blocks >> 4], -1).flatten(-2).long()  # low half first
        values = table[codes] * torch.exp2(scales.float() - 127).unsqueeze(-1)
        expected[name] = values.flatten(-2).transpose(1, 2)
        weights |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (directory / "config.json").write_text(json.dumps(config))
    return expected
