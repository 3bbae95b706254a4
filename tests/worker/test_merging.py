"""Merging weight by weight: dtypes, copied weights, memory."""

import re
import subprocess
import sys
import textwrap

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from tests.support.train_jobs import environment
from worker.merging.base_files import BaseFiles
from worker.merging.streamed import QuantizedWeights, plan_shards, unstreamable_reason, write_merged
from worker.merging.updates import LowRank, Replaced, names_in_4bit, updates_of


def base(directory, weights, config="{}"):
    directory.mkdir(exist_ok=True)
    save_file(weights, directory / "model.safetensors")
    (directory / "config.json").write_text(config)
    return BaseFiles(directory)


def written(directory, files, updates, dtype, most=10**9):
    target = directory / "target"
    target.mkdir(exist_ok=True)
    write_merged(
        files, target, updates, None, dtype, most, lambda _name, write: write(), lambda: None
    )
    return load_file(target / "model.safetensors")


def test_names_stay_in_order_in_as_few_files_as_fit():
    sizes = [("a", 4), ("b", 6), ("c", 1), ("d", 30), ("e", 9), ("f", 2)]
    assert plan_shards(sizes, 10) == [["a", "b"], ["c"], ["d"], ["e"], ["f"]]
    assert plan_shards(sizes, 100) == [["a", "b", "c", "d", "e", "f"]]
    assert plan_shards([], 10) == []


def test_what_is_float32_beside_16_bits_stays_so(tmp_path):
    weights = {
        "a.weight": torch.randn(8, 8).bfloat16(),
        "b.weight": torch.randn(8, 8).bfloat16(),
        "router.bias": torch.randn(4),
        "ids": torch.arange(4),
    }
    update = LowRank(torch.randn(2, 8), torch.randn(8, 2), 2.0, None)
    with base(tmp_path / "base", weights) as files:
        tensors = written(tmp_path, files, {"a.weight": update}, torch.float16)
    assert {name: value.dtype for name, value in tensors.items()} == {
        "a.weight": torch.float16,
        "b.weight": torch.float16,
        "router.bias": torch.float32,
        "ids": torch.int64,
    }
    expected = weights["a.weight"].float() + 2 * update.b @ update.a
    assert torch.equal(tensors["a.weight"], expected.half())
    assert torch.equal(tensors["ids"], weights["ids"])


def test_a_model_all_in_float32_is_rounded(tmp_path):
    with base(tmp_path / "base", {"a": torch.randn(8, 8)}) as files:
        tensors = written(tmp_path, files, {}, torch.bfloat16)
    assert tensors["a"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "update", "message"),
    [
        ("c.weight", LowRank(torch.ones(2, 8), torch.ones(8, 2), 1.0, None), "no weight named c"),
        ("a.weight", LowRank(torch.ones(2, 8), torch.ones(4, 2), 1.0, None), "(4, 8)"),
        ("a.bias", Replaced(torch.ones(8)), "no weight named a.bias"),
    ],
)
def test_what_does_not_fit_is_seen_before(tmp_path, name, update, message):
    with base(tmp_path / "base", {"a.weight": torch.ones(8, 8)}) as files:
        assert unstreamable_reason(files, {}) is None
        assert message in unstreamable_reason(files, {name: update})


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(16, 12)

    def forward(self, x):
        return self.a(x)


@pytest.mark.parametrize("use_dora", [True, False])
@pytest.mark.parametrize("use_rslora", [True, False])
def test_an_update_is_what_peft_merges(use_dora, use_rslora):
    torch.manual_seed(1)
    plain = Net()
    before = plain.a.weight.detach().clone()
    config = LoraConfig(
        r=4, lora_alpha=6, target_modules=["a"], use_dora=use_dora, use_rslora=use_rslora
    )
    model = get_peft_model(plain, config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    (update,) = updates_of(model).values()
    assert list(updates_of(model)) == ["a.weight"]
    expected = model.merge_and_unload(safe_merge=True).a.weight
    assert torch.allclose(update.apply(before, torch.float32), expected, atol=1e-6)
    assert not torch.allclose(expected, before, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("double", [True, False])
def test_what_the_training_saw_is_what_its_layer_holds(dtype, double):
    import bitsandbytes as bnb

    from service.domain.training_spec import QuantizationSection

    torch.manual_seed(2)
    weight = torch.randn(48, 64, dtype=dtype)
    layer = bnb.nn.Linear4bit(64, 48, bias=False, quant_type="nf4", compress_statistics=double)
    layer.weight = bnb.nn.Params4bit(
        weight.clone(), requires_grad=False, quant_type="nf4", compress_statistics=double
    )
    layer = layer.to("cpu")
    dequantized = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    section = QuantizationSection(bnb_4bit_use_double_quant=double)
    round_trip = QuantizedWeights(
        frozenset(), section, dtype, torch.device("cpu")
    ).quantization_round_trip(weight)
    assert torch.equal(round_trip, dequantized)
    assert not torch.equal(round_trip, weight)
    model = nn.Module()
    model.add_module("one", layer)
    model.add_module("other", nn.Linear(4, 4))
    assert names_in_4bit(model) == {"one.weight"}


MEASURED = """
import resource, sys
from pathlib import Path

import torch
from worker.merging.base_files import BaseFiles
from worker.merging.streamed import write_merged
from worker.merging.updates import LowRank


def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) // 1024


(torch.ones(4, 1024).T @ torch.ones(4, 1024)).bfloat16()  # threads have memory of their own
base, target, most = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
peak = before = anonymous()


def look():
    global peak
    peak = max(peak, anonymous())


def write(name, action):
    look()
    action()
    look()


with BaseFiles(base) as files:
    updates = {
        name: LowRank(torch.ones(4, 1024), torch.ones(1024, 4), 1.0, None) for name in files.names
    }
    write_merged(files, target, updates, None, torch.bfloat16, most, write, look)
print(peak - before)
"""


@pytest.mark.extended
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_a_files_and_not_the_models(tmp_path):
    """128 MB in bfloat16, merged in files of 8 MB: beside these a weight or two in float32."""
    weights = {f"layer.{n}.weight": torch.zeros(1024, 1024).bfloat16() for n in range(64)}
    base(tmp_path / "base", weights)
    (tmp_path / "target").mkdir()
    (tmp_path / "measure.py").write_text(textwrap.dedent(MEASURED))
    grown = {}
    for most in (8 * 2**20, 10**9):
        ended = subprocess.run(
            [sys.executable, "measure.py", "base", "target", str(most)],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        grown[most] = int(re.fullmatch(r"(\d+)\n", ended.stdout)[1])
    assert grown[8 * 2**20] < 40
    assert grown[10**9] > 100  # what it would be: the measure sees it
