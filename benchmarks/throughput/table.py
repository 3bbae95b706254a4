"""Formatting of results as Markdown tables. Pure functions."""

from collections.abc import Mapping, Sequence
from typing import Any

GIB = 1 << 30

_HEAD = (
    "prompt",
    "system",
    "samples/s",
    "x original",
    "x TRL",
    "tokens/s",
    "MFU",
    "peak GiB",
    "above imports",
    "start-up s",
    "loss after",
    "checkpointing",
)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(row: Mapping[str, Any], name: str, digits: int) -> str:
    """Return median with minimum and maximum; a dash if not measured."""
    if name not in row:
        return "-"
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{row[name]:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def throughput(result: Mapping[str, Any]) -> str:
    """Return the side-by-side table with the notes needed to read it."""
    rows = [
        [
            f"{row['prompt']}, {row['max_length']}",
            row["system"],
            spread(row, "samples_per_second", 2),
            spread(row, "ratio_to_original", 2),
            spread(row, "ratio_to_trl", 2),
            f"{row['tokens_per_second']:,.0f}",
            f"{row['mfu']:.1%}",
            f"{row['peak_memory'] / GIB:.2f}",
            f"{row['peak_memory_above_imports'] / GIB:.2f}",
            f"{row['startup_seconds']:.1f}",
            f"{row['loss']:.3f} ({row['steps']})",
            "on" if row["gradient_checkpointing"] else "off",
        ]
        for row in result["rows"]
    ]
    paragraphs = [heading(result), markdown(_HEAD, rows)]
    for prompt, probe in result["probes"].items():
        paragraphs.append(
            f"{prompt}: {probe['needed']} needed of {probe['real']} tokens per step "
            f"(prefix {probe['prefix']}); MFU is relative to the peak of {result['dtype']} matrix "
            f"products, {probe['peak'] / 1e9:,.0f} GFLOP/s "
            f"({probe['peak_cached'] / 1e9:,.0f} with operands in the caches)."
        )
    for prompt, agreement in result["agreement"].items():
        seeds = agreement["seed_spread"]
        spread_text = "unknown for one seed" if seeds is None else f"{seeds:.4f} nats"
        paragraphs.append(
            f"{prompt}: loss curves of TRL and Fairtune differ by at most "
            f"{agreement['largest_gap']:.4f} nats ({agreement['first_gap']:.4f} at the first "
            f"step); spread of seeds: {spread_text}."
        )
    notes = sorted({note for row in result["rows"] for note in row["notes"]})
    if notes:
        paragraphs.append("Warnings of Fairtune: " + " · ".join(notes))
    return "\n\n".join(paragraphs) + "\n"


def heading(result: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return (
        f"{result['date']}, commit {result['commit']}. {result['machine']}. {result['model']}, "
        f"{result['about']}. {versions}."
    )
