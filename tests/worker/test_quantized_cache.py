"""Quantized weights kept between runs: the same bits, and no harm from a broken place."""

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
    """How often a model was quantized."""
    found = []
    config = load._bnb_config
    monkeypatch.setattr(load, "_bnb_config", lambda section: found.append(1) or config(section))
    return found


@pytest.fixture
def model(models_dir, tmp_path):
    return shutil.copytree(models_dir / "tiny-llama", tmp_path / "tiny-llama")


def entries(kept):
    return [path for path in kept.iterdir() if path.name != ".lock"]


def specification(**quantization):
    return spec(quantization={"load_in_4bit": True} | quantization, training={"bf16": True})


def bits(model):
    """Everything that a 4-bit weight is made of."""
    found = {}
    for name, parameter in model.named_parameters():
        found[name] = parameter.data
        if (state := getattr(parameter, "quant_state", None)) is not None:
            found |= {f"{name}.{key}": value for key, value in state.as_dict().items()}
    return found


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == other[name].dtype
            assert torch.equal(value, other[name]), name
        else:
            assert value == other[name], name


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
    found = []
    for base in (plain, again):
        adapted = add_adapter(base.model, run_spec.lora, 1, "tiny").train()
        torch.manual_seed(1)
        adapted(input_ids=ids, labels=ids).loss.backward()
        found.append({n: p.grad for n, p in adapted.named_parameters() if p.grad is not None})
    assert len(found[0]) == 8
    assert_same(*found)


def test_other_settings_and_other_files_are_other_entries(model, tmp_path, quantized):
    kept = tmp_path / "kept"
    for run_spec in (
        specification(),
        specification(bnb_4bit_quant_type="fp4"),
        specification(bnb_4bit_use_double_quant=False),
        specification(bnb_4bit_compute_dtype="float32"),
        spec(quantization={"load_in_4bit": True}),
    ):
        load_base(model, run_spec, CPU, kept)
    assert len(entries(kept)) == len(quantized) == 5
    # Replaced by another of the same size and time.
    weights = model / "model.safetensors"
    stat = weights.stat()
    shutil.copy(weights, model / "other")
    (model / "other").rename(weights)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    load_base(model, specification(), CPU, kept)
    assert len(entries(kept)) == len(quantized) == 6


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove", "add", "manifest", "empty"])
def test_a_broken_entry_is_made_anew(model, tmp_path, quantized, harm):
    kept = tmp_path / "kept"
    expected = bits(load_base(model, specification(), CPU, kept).model)
    [entry] = entries(kept)
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
    assert_same(bits(load_base(model, specification(), CPU, kept).model), expected)
    assert_same(bits(load_base(model, specification(), CPU, kept).model), expected)
    assert len(quantized) == 2


def test_what_a_killed_process_left_is_taken_away(model, tmp_path):
    kept = tmp_path / "kept"
    torn = kept / ".0123.77.tmp"
    torn.mkdir(parents=True)
    (torn / "model.safetensors").write_bytes(b"half")
    load_base(model, specification(), CPU, kept)
    assert not torn.exists()
    assert len(entries(kept)) == 1


def test_one_of_several_at_once_keeps_it(model, tmp_path, quantized):
    kept = tmp_path / "kept"
    base = load_base(model, specification(), CPU)
    cache = quantized_cache.QuantizedCache.of(kept, model, {})
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(cache.store, [base.model] * 8))
    assert entries(kept) == [kept / cache.key]
    found = cache.load(lambda entry: load._from_pretrained(entry, specification(), CPU))
    assert_same(bits(found), bits(base.model))


def test_nothing_is_waited_for(model, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    with (kept / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert load_base(model, specification(), CPU, kept).coverage.share > 0
    assert entries(kept) == []


def test_where_nothing_can_be_written_the_model_is_loaded_all_the_same(model, tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("no directory")
    assert load_base(model, specification(), CPU, kept).coverage.share > 0


def test_a_failed_write_leaves_nothing(model, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(quantized_cache, "sha256_of", fail)
    assert load_base(model, specification(), CPU, tmp_path / "kept").coverage.share > 0
    assert entries(tmp_path / "kept") == []


def test_the_entry_longest_unused_goes_first(model, tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    load_base(model, specification(), CPU, kept)
    [first] = entries(kept)
    size = sum(path.stat().st_size for path in first.iterdir())
    load_base(model, specification(bnb_4bit_quant_type="fp4"), CPU, kept)
    [second] = set(entries(kept)) - {first}
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    load_base(model, specification(), CPU, kept)  # used
    monkeypatch.setattr(quantized_cache, "MAX_CACHE_BYTES", int(2.5 * size))
    load_base(model, specification(bnb_4bit_compute_dtype="float32"), CPU, kept)
    assert first.exists()
    assert not second.exists()
    assert len(entries(kept)) == 2


def test_what_is_larger_than_the_bound_is_not_kept(model, tmp_path, monkeypatch):
    monkeypatch.setattr(quantized_cache, "MAX_CACHE_BYTES", 1000)
    load_base(model, specification(), CPU, tmp_path / "kept")
    assert entries(tmp_path / "kept") == []


def test_small_models_and_full_disks_are_left_alone(model, tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    monkeypatch.setattr(quantized_cache, "MIN_MODEL_BYTES", 10**9)
    load_base(model, specification(), CPU, kept)
    assert not kept.exists()
    monkeypatch.setattr(quantized_cache, "MIN_MODEL_BYTES", 1)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    load_base(model, specification(), CPU, kept)
    assert entries(kept) == []


def test_a_run_keeps_them_in_the_models_directory(model, tmp_path, quantized):
    weights = []
    for name in ("one", "two"):
        status, found = run_here(make_job(tmp_path / name, tmp_path, specification()))
        assert status == 0, found[-1]
        weights.append((tmp_path / name / "adapter_model.safetensors").read_bytes())
    assert len(quantized) == len(entries(tmp_path / ".quantized")) == 1
    assert weights[0] == weights[1]
