"""What is loaded for a run, with stand-ins for the libraries: the real ones take seconds."""

import subprocess
import sys

import pytest

from tests.support.train_jobs import ROOT

STAND_INS = {
    "accelerate": "import gc\nassert not gc.isenabled()",
    # As the real one does (0.50, backends.default.ops).
    "bitsandbytes": "import torch\n"
    "try:\n    compiled = torch.compile()\nexcept RuntimeError:\n    compiled = None\n"
    "assert compiled is None",
    # As the real one does (0.21, peft.helpers).
    "peft": "try:\n    import bitsandbytes\nexcept ImportError:\n    bitsandbytes = None",
    "torch": "def compile():\n    return 'compiled'",
    "transformers": "AutoModelForCausalLM = AutoTokenizer = PreTrainedModel = None",
}

PROGRAM = """
import gc, sys
from pathlib import Path
from worker.runtime import imports

imports.load(Path(sys.argv[1]), in_4bit=sys.argv[2] == "4bit")
assert {"accelerate", "peft", "transformers"} <= set(sys.modules)
assert gc.isenabled() and gc.get_freeze_count()
import torch
assert torch.compile() == "compiled"
print(sys.modules["bitsandbytes"] is not None)
"""


@pytest.mark.parametrize(
    ("config", "precision", "loaded"),
    [
        ('{"model_type": "llama"}', "32bit", False),
        ('{"model_type": "llama"}', "4bit", True),
        ('{"quantization_config": {"quant_method": "bitsandbytes"}}', "32bit", True),
    ],
)
def test_bitsandbytes_is_loaded_where_weights_are_its(tmp_path, config, precision, loaded):
    (tmp_path / "config.json").write_text(config)
    for name, content in STAND_INS.items():
        (tmp_path / f"{name}.py").write_text(content)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), precision],
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == (str(loaded), "")
