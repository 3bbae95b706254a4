"""The cache of quantized weights: equal bits, and fallback for broken entries and directories."""

import fcntl
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tests.support.tiny_models import EACH_FAMILY
from tests.support.train_jobs import make_job, run_here, spec
from worker.modeling import load, quantized_cache
from worker.modeling.load import add_adapter, load_base

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("bfloat16")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(quantized_cache, "MIN_MODEL_BYTES", 1)


@pytest.fixture
def quantized(monkeypatch):
    """Record each quantization of a model."""
    calls = []
    config = load._bnb_config
    monkeypatch.setattr(load, "_bnb_config", lambda section: calls.append(1) or config(section))
    return calls


@pytest.fixture
def model(models_dir, tmp_path):
    return shutil.copytree(models_dir / "tiny-llama", tmp_path / "tiny-llama")


def entries(cache_dir):
    return [path for path in cache_dir.iterdir() if path.name != ".lock"]


def specification(**quantization):
    return spec(quantization={"load_in_4bit": True} | quantization, training={"bf16": True})


def bits(model):
    """Return all tensors of a model, with packed data and quantization state of 4-bit weights."""
    tensors = {}
    for name, parameter in model.named_parameters():
        tensors[name] = parameter.data
        if (state := getattr(parameter, "quant_state", None)) is not None:
            tensors |= {f"{name}.{key}": value for key, value in state.as_dict().items()}
    return tensors


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == second[name].dtype
            assert torch.equal(value, second[name]), name
        else:
            assert value == second[name], name


@pytest.mark.parametrize("family", EACH_FAMILY)
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("double", [True, False])
def test_what_is_kept_is_what_was_quantized(models_dir, tmp_path, quantized, family, kind, double):
    run_spec = specification(bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=double)
    directory = models_dir / f"tiny-{family}"
    plain = load_base(directory, run_spec, CPU)
    first = load_base(directory, run_spec, CPU, tmp_path)
    again = load_base(directory, run_spec, CPU, tmp_path)
    assert len(quantized) == 2
    assert_same(bits(plain.model), bits(first.model))
    assert_same(bits(plain.model), bits(again.model))
    assert again.coverage == plain.coverage
    ids = torch.tensor([[5, 6, 7, 8]])
    values = []
    for base in (plain, again):
        adapted = add_adapter(base.model, run_spec.lora, 1, "tiny").train()
        torch.manual_seed(1)
        adapted(input_ids=ids, labels=ids).loss.backward()
        values.append({n: p.grad for n, p in adapted.named_parameters() if p.grad is not None})
    assert len(values[0]) == 8
    assert_same(*values)


def test_other_settings_and_other_files_are_other_entries(model, tmp_path, quantized):
    cache_dir = tmp_path / "kept"
    for run_spec in (
        specification(),
        specification(bnb_4bit_quant_type="fp4"),
        specification(bnb_4bit_use_double_quant=False),
        specification(bnb_4bit_compute_dtype="float32"),
        spec(quantization={"load_in_4bit": True}),
    ):
        load_base(model, run_spec, CPU, cache_dir)
    assert len(entries(cache_dir)) == len(quantized) == 5
    # Replaced by another of the same size and time.
    weights = model / "model.safetensors"
    stat = weights.stat()
    shutil.copy(weights, model / "other")
    (model / "other").rename(weights)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    load_base(model, specification(), CPU, cache_dir)
    assert len(entries(cache_dir)) == len(quantized) == 6


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove", "add", "manifest", "empty"])
def test_a_broken_entry_is_made_anew(model, tmp_path, quantized, harm):
    cache_dir = tmp_path / "kept"
    expected = bits(load_base(model, specification(), CPU, cache_dir).model)
    [entry] = entries(cache_dir)
    weights = entry / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    if harm == "flip":
        weights.write_bytes(data)
    elif harm == "truncate":
        weights.write_bytes(data[:-1])
    elif harm == "remove":
        weights.unlink()
    elif harm == "add":
        (entry / "pytorch_model.bin").write_bytes(b"")
    elif harm == "manifest":
        (entry / "manifest.json").write_text("{")
    else:
        shutil.rmtree(entry)
        entry.mkdir()
    assert_same(bits(load_base(model, specification(), CPU, cache_dir).model), expected)
    assert_same(bits(load_base(model, specification(), CPU, cache_dir).model), expected)
    assert len(quantized) == 2


def test_what_a_killed_process_left_is_taken_away(model, tmp_path):
    cache_dir = tmp_path / "kept"
    torn = cache_dir / ".0123.77.tmp"
    torn.mkdir(parents=True)
    (torn / "model.safetensors").write_bytes(b"half")
    load_base(model, specification(), CPU, cache_dir)
    assert not torn.exists()
    assert len(entries(cache_dir)) == 1


def test_one_of_several_at_once_keeps_it(model, tmp_path, quantized):
    cache_dir = tmp_path / "kept"
    base = load_base(model, specification(), CPU)
    cache = quantized_cache.QuantizedCache.of(cache_dir, model, {})
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(cache.store, [base.model] * 8))
    assert entries(cache_dir) == [cache_dir / cache.key]
    values = cache.load(lambda entry: load._read_model(entry, specification(), CPU)[0])
    assert_same(bits(values), bits(base.model))


def test_nothing_is_waited_for(model, tmp_path):
    cache_dir = tmp_path / "kept"
    cache_dir.mkdir()
    with (cache_dir / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert load_base(model, specification(), CPU, cache_dir).coverage.share > 0
    assert entries(cache_dir) == []


def test_where_nothing_can_be_written_the_model_is_loaded_all_the_same(model, tmp_path):
    cache_dir = tmp_path / "kept"
    cache_dir.write_text("no directory")
    assert load_base(model, specification(), CPU, cache_dir).coverage.share > 0


def test_a_failed_write_leaves_nothing(model, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(quantized_cache, "sha256_of", fail)
    assert load_base(model, specification(), CPU, tmp_path / "kept").coverage.share > 0
    assert entries(tmp_path / "kept") == []


def test_the_entry_longest_unused_goes_first(model, tmp_path, monkeypatch):
    cache_dir = tmp_path / "kept"
    load_base(model, specification(), CPU, cache_dir)
    [first] = entries(cache_dir)
    size = sum(path.stat().st_size for path in first.iterdir())
    load_base(model, specification(bnb_4bit_quant_type="fp4"), CPU, cache_dir)
    [second] = set(entries(cache_dir)) - {first}
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    load_base(model, specification(), CPU, cache_dir)  # used
    monkeypatch.setattr(quantized_cache, "MAX_CACHE_BYTES", int(2.5 * size))
    load_base(model, specification(bnb_4bit_compute_dtype="float32"), CPU, cache_dir)
    assert first.exists()
    assert not second.exists()
    assert len(entries(cache_dir)) == 2


def test_what_is_larger_than_the_bound_is_not_kept(model, tmp_path, monkeypatch):
    monkeypatch.setattr(quantized_cache, "MAX_CACHE_BYTES", 1000)
    load_base(model, specification(), CPU, tmp_path / "kept")
    assert entries(tmp_path / "kept") == []


def test_small_models_and_full_disks_are_left_alone(model, tmp_path, monkeypatch):
    cache_dir = tmp_path / "kept"
    monkeypatch.setattr(quantized_cache, "MIN_MODEL_BYTES", 10**9)
    load_base(model, specification(), CPU, cache_dir)
    assert not cache_dir.exists()
    monkeypatch.setattr(quantized_cache, "MIN_MODEL_BYTES", 1)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    load_base(model, specification(), CPU, cache_dir)
    assert entries(cache_dir) == []


@pytest.mark.extended
def test_a_run_keeps_them_in_the_models_directory(model, tmp_path, quantized):
    weights = []
    for name in ("one", "two"):
        status, values = run_here(make_job(tmp_path / name, tmp_path, specification()))
        assert status == 0, values[-1]
        weights.append((tmp_path / name / "adapter_model.safetensors").read_bytes())
    assert len(quantized) == len(entries(tmp_path / ".quantized")) == 1
    assert weights[0] == weights[1]
