"""From what the processes saw to the figures of the table. Pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, stdev
from typing import Any

from benchmarks.throughput.flops import Shape, StepTokens, needed_operations


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and the least and greatest of what it is the median of."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(median(values), min(values), max(values))

    def named(self, name: str) -> dict[str, float]:
        return {name: self.middle, f"{name}_low": self.low, f"{name}_high": self.high}


def speeds(result: Mapping[str, Any], batch: int, warm_up: int) -> list[float]:
    """Samples a second of each step after the warm-up."""
    return [batch / seconds for seconds in result["seconds"][warm_up:]]


def ratio(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> Spread:
    """Median speed against median speed, round by round: what slows a round slows both."""
    return Spread.of(
        [median(one) / median(other) for one, other in zip(ours, theirs, strict=False)]
    )


def utilisation(
    results: Sequence[Mapping[str, Any]],
    steps: Sequence[StepTokens],
    shape: Shape,
    rank: int,
    peak: float,
    warm_up: int,
) -> Spread:
    """Needed operations of each step a second, over the peak: 0 to 1."""
    shares = []
    for result in results:
        timed = list(zip(result["seconds"], steps, strict=False))[warm_up:]
        shares += [needed_operations(shape, rank, step) / s / peak for s, step in timed]
    return Spread.of(shares)


def agreement(
    one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]
) -> dict[str, float | None]:
    """Two systems' loss curves, one a seed: how far their means part, and how far seeds do.

    `first_gap` at the first step, where every adapter is zero still: rounding alone.
    `largest_gap` is the greatest difference of the means over all steps; `seed_spread` the greatest
    standard deviation over seeds of either at any step, null for one seed.
    """
    steps = min(len(curve) for curve in (*one, *other))
    means = [
        [sum(curve[step] for curve in curves) / len(curves) for step in range(steps)]
        for curves in (one, other)
    ]
    gaps = [abs(a - b) for a, b in zip(*means, strict=True)]
    spreads = [
        stdev([curve[step] for curve in curves])
        for curves in (one, other)
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
    works: Mapping[str, Any],
    measured: Mapping[str, Sequence[Mapping[str, Any]]],
    probed: Sequence[Mapping[str, Any]],
    warm_up: int,
) -> dict[str, Any]:
    """One line of the table: `name` is system and prompt, `measured` the rounds by system.

    `works` is what the system was told (fields of Work), `probed` the probe's rounds. Sizes are
    bytes, speeds per second, `loss` that of the last step in nats a target token.
    """
    system, prompt = name
    results = measured[system]
    batch = works["batch"]
    steps = [StepTokens(**(step | {"rests": tuple(step["rests"])})) for step in probed[0]["steps"]]
    shape = _shape(probed[0]["shape"])
    peak = median([one["peak"] for one in probed])
    pace = [speeds(result, batch, warm_up) for result in results]
    tokens = [
        step.real / seconds
        for result in results
        for seconds, step in list(zip(result["seconds"], steps, strict=False))[warm_up:]
    ]
    on_device = results[0]["device_peak"] is not None
    memory = [one["device_peak"] if on_device else one["host_peak"] for one in results]
    above = [
        held - (0 if on_device else one["host_imports"])
        for held, one in zip(memory, results, strict=True)
    ]
    training = [
        memory[at] if on_device else one["host_peak_training"] for at, one in enumerate(results)
    ]
    made: dict[str, Any] = {
        "system": system,
        "prompt": prompt,
        "max_length": works["max_length"],
        "micro_batch": works["micro"],
        "gradient_checkpointing": works["checkpointing"],
        "options": works["options"],
        **Spread.of([speed for one in pace for speed in one]).named("samples_per_second"),
        "tokens_per_second": median(tokens),
        "peak_memory": median(memory),
        "peak_memory_above_imports": median(above),
        "peak_memory_training": median(training),
        "memory_of": "device" if on_device else "process",
        **utilisation(results, steps, shape, works["rank"], peak, warm_up).named("mfu"),
        **Spread.of([one["startup_seconds"] for one in results]).named("startup_seconds"),
        "steps": len(results[0]["losses"]),
        "loss": median([one["losses"][-1] for one in results]),
        "losses": [one["losses"] for one in results],
        "notes": sorted({note for one in results for note in one["notes"]}),
    }
    for reference in ("original", "trl"):
        if reference in measured:
            theirs = [speeds(result, batch, warm_up) for result in measured[reference]]
            made |= ratio(pace, theirs).named(f"ratio_to_{reference}")
    return made


def _shape(found: Mapping[str, Any]) -> Shape:
    """Out of JSON, where tuples are lists."""
    return Shape(
        matrices=tuple((one[0], one[1], one[2]) for one in found["matrices"]),
        adapted=tuple((one[0], one[1], one[2]) for one in found["adapted"]),
        head=(found["head"][0], found["head"][1]),
        layers=found["layers"],
        attention_channels=found["attention_channels"],
    )
