"""Table values computed from the processes' results. Pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, stdev
from typing import Any

from benchmarks.throughput.flops import Shape, StepTokens, needed_operations


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, minimum and maximum."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(median(values), min(values), max(values))

    def as_fields(self, name: str) -> dict[str, float]:
        return {name: self.middle, f"{name}_low": self.low, f"{name}_high": self.high}


def speeds(result: Mapping[str, Any], batch: int, warm_up: int) -> list[float]:
    """Return samples per second of each step after the warm-up."""
    return [batch / seconds for seconds in result["seconds"][warm_up:]]


def ratio(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> Spread:
    """Return the ratio of median speeds round by round, since a slow round affects both systems."""
    return Spread.of(
        [
            median(our_speeds) / median(their_speeds)
            for our_speeds, their_speeds in zip(ours, theirs, strict=False)
        ]
    )


def utilisation(
    results: Sequence[Mapping[str, Any]],
    steps: Sequence[StepTokens],
    shape: Shape,
    rank: int,
    peak: float,
    warm_up: int,
) -> Spread:
    """Return the needed operations per second of each step, divided by the peak: 0 to 1."""
    shares = []
    for result in results:
        timed = list(zip(result["seconds"], steps, strict=False))[warm_up:]
        shares += [needed_operations(shape, rank, step) / s / peak for s, step in timed]
    return Spread.of(shares)


def agreement(
    first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]
) -> dict[str, float | None]:
    """Compare two systems' loss curves, one curve per seed: differences of means and of seeds.

    `first_gap` is the difference of the means at the first step, where adapters are still zero, and
    so due to rounding alone; `largest_gap` is the maximum over all steps. `seed_spread` is the
    maximum standard deviation over seeds of either system at any step, null for one seed.
    """
    steps = min(len(curve) for curve in (*first, *second))
    means = [
        [sum(curve[step] for curve in curves) / len(curves) for step in range(steps)]
        for curves in (first, second)
    ]
    gaps = [abs(a - b) for a, b in zip(*means, strict=True)]
    spreads = [
        stdev([curve[step] for curve in curves])
        for curves in (first, second)
        if len(curves) > 1
        for step in range(steps)
    ]
    return {
        "first_gap": gaps[0],
        "largest_gap": max(gaps),
        "seed_spread": max(spreads, default=None),
    }


def row(
    name: tuple[str, str],
    work_fields: Mapping[str, Any],
    results_by_system: Mapping[str, Sequence[Mapping[str, Any]]],
    probes: Sequence[Mapping[str, Any]],
    warm_up: int,
) -> dict[str, Any]:
    """Return one line of the table.

    `name` is system and prompt, `work_fields` the system's settings (fields of Work),
    `results_by_system` and `probes` the results of all rounds. Sizes are in bytes, speeds per
    second, `loss` is that of the last step in nats per target token.
    """
    system, prompt = name
    results = results_by_system[system]
    batch = work_fields["batch"]
    steps = [
        StepTokens(**(step | {"suffixes": tuple(step["suffixes"])})) for step in probes[0]["steps"]
    ]
    shape = _shape(probes[0]["shape"])
    peak = median([result["peak"] for result in probes])
    speeds_by_round = [speeds(result, batch, warm_up) for result in results]
    tokens = [
        step.real / seconds
        for result in results
        for seconds, step in list(zip(result["seconds"], steps, strict=False))[warm_up:]
    ]
    on_device = results[0]["device_peak"] is not None
    memory = [result["device_peak"] if on_device else result["host_peak"] for result in results]
    above = [
        peak_bytes - (0 if on_device else result["host_imports"])
        for peak_bytes, result in zip(memory, results, strict=True)
    ]
    training = [
        memory[index] if on_device else result["host_peak_training"]
        for index, result in enumerate(results)
    ]
    line: dict[str, Any] = {
        "system": system,
        "prompt": prompt,
        "max_length": work_fields["max_length"],
        "micro_batch": work_fields["micro"],
        "gradient_checkpointing": work_fields["checkpointing"],
        "options": work_fields["options"],
        **Spread.of([speed for result in speeds_by_round for speed in result]).as_fields(
            "samples_per_second"
        ),
        "tokens_per_second": median(tokens),
        "peak_memory": median(memory),
        "peak_memory_above_imports": median(above),
        "peak_memory_training": median(training),
        "memory_of": "device" if on_device else "process",
        **utilisation(results, steps, shape, work_fields["rank"], peak, warm_up).as_fields("mfu"),
        **Spread.of([result["startup_seconds"] for result in results]).as_fields("startup_seconds"),
        "steps": len(results[0]["losses"]),
        "loss": median([result["losses"][-1] for result in results]),
        "losses": [result["losses"] for result in results],
        "notes": sorted({note for result in results for note in result["notes"]}),
    }
    for reference in ("original", "trl"):
        if reference in results_by_system:
            theirs = [speeds(result, batch, warm_up) for result in results_by_system[reference]]
            line |= ratio(speeds_by_round, theirs).as_fields(f"ratio_to_{reference}")
    return line


def _shape(fields: Mapping[str, Any]) -> Shape:
    """Return the Shape for JSON fields, in which tuples are lists."""
    return Shape(
        matrices=tuple((matrix[0], matrix[1], matrix[2]) for matrix in fields["matrices"]),
        adapted=tuple((matrix[0], matrix[1], matrix[2]) for matrix in fields["adapted"]),
        head=(fields["head"][0], fields["head"][1]),
        layers=fields["layers"],
        attention_channels=fields["attention_channels"],
    )
