"""Reference values for utilisation: the model's shapes, a step's tokens, the machine's peak."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.throughput.flops import Matrix, Shape, StepTokens, step_tokens
from benchmarks.throughput.rows import examples, in_order
from benchmarks.throughput.watch import Watch
from benchmarks.throughput.work import Work

PRODUCT_SECONDS = 0.4
"""Seconds for each product; all products together take eight times as long."""


def probe(work: Work, _directory: Path, watch: Watch) -> list[tuple[list[int], int]]:
    """Measure `shape`, `steps` and two peaks (operations per second), without training."""
    import torch
    from transformers import AutoTokenizer

    watch.imported()
    directory = Path(work.models_dir) / work.model
    ordered = in_order(
        examples(work, AutoTokenizer.from_pretrained(directory, trust_remote_code=False)), work
    )
    samples = [(row.ids, row.start) for row in ordered]
    steps = [
        step_tokens(samples[first : first + work.batch])
        for first in range(0, len(samples), work.batch)
    ]
    shape = shape_of(directory)
    options = {
        "dtype": getattr(torch, work.dtype),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }
    watch.step_begins()
    watch.extra |= {
        "shape": asdict(shape),
        "steps": [asdict(step) for step in steps],
        "peak": peak(shape, steps[len(steps) // 2], options),
        "peak_cached": cached_peak(shape, steps[len(steps) // 2], options),
    }
    watch.step_ends()
    return samples


def shape_of(directory: Path) -> Shape:
    """Return the shape of the model, created on the meta device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    head = model.get_output_embeddings()
    matrices: Counter[tuple[int, int]] = Counter()
    adapted: Counter[tuple[int, int]] = Counter()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and module is not head:
            matrices[module.in_features, module.out_features] += 1
            if name.rpartition(".")[2] in ("q_proj", "v_proj"):
                adapted[module.in_features, module.out_features] += 1
    text = config.get_text_config()
    channels = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return Shape(
        matrices=tuple((*size, count) for size, count in sorted(matrices.items())),
        adapted=tuple((*size, count) for size, count in sorted(adapted.items())),
        head=(head.in_features, head.out_features),
        layers=text.num_hidden_layers,
        attention_channels=text.num_attention_heads * channels,
    )


def peak(shape: Shape, tokens: StepTokens, options: dict[str, Any]) -> float:
    """Return the operations per second of the model's matrix products alone.

    `options` are dtype and device of the matrices. The products are those of all frozen matrices,
    forward and backward, with all needed tokens of a step at once, and of the output layer with the
    targets. Every layer has its own matrix, so that weights come from memory as in the model. The
    fastest pass counts.
    """
    import torch

    products = []
    operations = 0.0
    for rows, (inputs, outputs, count) in _products(shape, tokens):
        x = torch.randn(rows, inputs, **options)
        dy = torch.randn(rows, outputs, **options)
        for _ in range(count):
            weight = torch.randn(outputs, inputs, **options)
            products.append((x, dy, weight))
            operations += 4.0 * rows * inputs * outputs

    def all_products() -> None:
        for x, dy, weight in products:
            torch.nn.functional.linear(x, weight)
            torch.mm(dy, weight)

    return operations / _best_time(all_products, 8 * PRODUCT_SECONDS)


def cached_peak(shape: Shape, tokens: StepTokens, options: dict[str, Any]) -> float:
    """Return the operations per second if each product is repeated on operands in the caches.

    No model reaches this, and it varies with the use of shared caches; it serves as a reference.
    """
    operations = seconds = 0.0
    for rows, (inputs, outputs, count) in _products(shape, tokens):
        operations += 4.0 * rows * inputs * outputs * count
        seconds += count * sum(_product_seconds(rows, inputs, outputs, options))
    return operations / seconds


def _products(shape: Shape, tokens: StepTokens) -> list[tuple[int, Matrix]]:
    """Return the number of activation rows for each kind of matrix."""
    return [
        *((tokens.needed, matrix) for matrix in shape.matrices),
        (tokens.targets, (*shape.head, 1)),
    ]


def _product_seconds(rows: int, inputs: int, outputs: int, options: dict[str, Any]) -> list[float]:
    """Return the best times of x Wᵀ and of dy W; W is [outputs, inputs], as in linear layers."""
    import torch

    x = torch.randn(rows, inputs, **options)
    dy = torch.randn(rows, outputs, **options)
    weight = torch.randn(outputs, inputs, **options)

    return [
        _best_time(lambda: torch.nn.functional.linear(x, weight), PRODUCT_SECONDS),
        _best_time(lambda: torch.mm(dy, weight), PRODUCT_SECONDS),
    ]


def _best_time(work: Callable[[], object], seconds: float) -> float:
    """Return the best time of a call within `seconds` of repeated calls."""
    import torch

    best, deadline = float("inf"), time.monotonic() + seconds
    while time.monotonic() < deadline:
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best
