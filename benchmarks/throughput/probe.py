"""What utilisation is measured against: the model's shapes, a step's tokens, the machine's peak."""

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

SECONDS = 0.4
"""Spent on each product; eight times that on all of them together."""


def probe(work: Work, _directory: Path, watch: Watch) -> list[tuple[list[int], int]]:
    """No training: leaves `shape`, `steps` and two peaks (operations a second) in the result."""
    import torch
    from transformers import AutoTokenizer

    watch.imported()
    directory = Path(work.models_dir) / work.model
    drawn = in_order(examples(work, AutoTokenizer.from_pretrained(directory)), work)
    samples = [(row.ids, row.start) for row in drawn]
    steps = [
        step_tokens(samples[at : at + work.batch]) for at in range(0, len(samples), work.batch)
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
    """Read off the model's modules, made without their weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(directory)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    found: Counter[tuple[int, int]] = Counter()
    adapted: Counter[tuple[int, int]] = Counter()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and module is not head:
            found[module.in_features, module.out_features] += 1
            if name.rpartition(".")[2] in ("q_proj", "v_proj"):
                adapted[module.in_features, module.out_features] += 1
    text = config.get_text_config()
    channels = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return Shape(
        matrices=tuple((*size, count) for size, count in sorted(found.items())),
        adapted=tuple((*size, count) for size, count in sorted(adapted.items())),
        head=(head.in_features, head.out_features),
        layers=text.num_hidden_layers,
        attention_channels=text.num_attention_heads * channels,
    )


def peak(shape: Shape, tokens: StepTokens, options: dict[str, Any]) -> float:
    """Operations a second of the model's matrix products and nothing else.

    `options`: the type and the device of the matrices.

    All frozen matrices forward and backward, all needed tokens of a step in one product, the output
    layer with the targets; every layer has a matrix of its own, so that weights come from memory as
    in the model. The best pass counts. What a step adds to it is what utilisation shows.
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

    return operations / _settled(all_products, 8 * SECONDS)


def cached_peak(shape: Shape, tokens: StepTokens, options: dict[str, Any]) -> float:
    """The same with each product repeated on operands that stay in the caches.

    Beyond any model, and as unsteady as the caches are shared: given to be compared with.
    """
    operations = seconds = 0.0
    for rows, (inputs, outputs, count) in _products(shape, tokens):
        operations += 4.0 * rows * inputs * outputs * count
        seconds += count * sum(_product_seconds(rows, inputs, outputs, options))
    return operations / seconds


def _products(shape: Shape, tokens: StepTokens) -> list[tuple[int, Matrix]]:
    """Rows of the activations, and the matrices that they go through."""
    return [
        *((tokens.needed, matrix) for matrix in shape.matrices),
        (tokens.targets, (*shape.head, 1)),
    ]


def _product_seconds(rows: int, inputs: int, outputs: int, options: dict[str, Any]) -> list[float]:
    """Best times of x Wᵀ and of dy W; W is [outputs, inputs], as linear layers hold it."""
    import torch

    x = torch.randn(rows, inputs, **options)
    dy = torch.randn(rows, outputs, **options)
    weight = torch.randn(outputs, inputs, **options)

    return [
        _settled(lambda: torch.nn.functional.linear(x, weight), SECONDS),
        _settled(lambda: torch.mm(dy, weight), SECONDS),
    ]


def _settled(work: Callable[[], object], seconds: float) -> float:
    """The best time of as many calls as take that long."""
    import torch

    best, until = float("inf"), time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return best
