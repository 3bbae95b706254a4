"""Rows of the result table from the processes' results, and their Markdown. Pure functions."""

from collections.abc import Mapping
from typing import Any

from benchmarks.throughput.table import GIB, heading, markdown

_HEAD = (
    "prompt",
    "system",
    "rows",
    "rows/s",
    "x generating",
    "peak GiB",
    "above imports",
    "same label",
    "outside the format",
    "tokens written",
)


def rows(
    template: str, scored: Mapping[str, Any], generated: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the lines for generation, scoring of the same rows, and scoring of all rows.

    Ratios are of rows per second.
    """
    speed = generated["rows"] / generated["seconds"]
    pairs = zip(generated["labels"], scored["labels"], strict=True)
    in_format = [
        (generated_label, scored_label)
        for generated_label, scored_label in pairs
        if generated_label is not None
    ]

    def row(system: str, count: int, seconds: float, result: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "template": template,
            "system": system,
            "rows": count,
            "seconds": seconds,
            "rows_per_second": count / seconds,
            "ratio_to_generating": count / seconds / speed,
            "peak_memory": result["host_peak"],
            "peak_memory_above_imports": result["host_peak"] - result["host_imports"],
        }

    generated_row = row(
        f"generate, batches of {generated['batch']}", generated["rows"], generated["seconds"],
        generated,
    )  # fmt: skip
    generated_row |= {
        "inside": len(in_format),
        "same_label": sum(
            generated_label == scored_label for generated_label, scored_label in in_format
        ),
        "outside": 1 - len(in_format) / generated["rows"],
        "written_tokens": generated["written_tokens"],
        "batch": generated["batch"],
        "tried": generated["tried"],
        "examples": generated["examples"],
    }
    sample_row = row(
        "fairtune, the same rows", scored["sample_rows"], scored["sample_seconds"], scored
    )
    all_rows = row("fairtune, all rows", scored["rows"], scored["seconds"], scored)
    all_rows |= {name: scored[name] for name in ("apart", "prompt_tokens", "notes")}
    return [generated_row, sample_row, all_rows]


def text(result: Mapping[str, Any]) -> str:
    lines = [
        [
            row["template"],
            row["system"],
            f"{row['rows']:,}",
            f"{row['rows_per_second']:.2f}",
            f"{row['ratio_to_generating']:.2f}",
            f"{row['peak_memory'] / GIB:.2f}",
            f"{row['peak_memory_above_imports'] / GIB:.2f}",
            f"{row['same_label']} of {row['inside']}" if "inside" in row else "",
            f"{row['outside']:.1%}" if "outside" in row else "",
            f"{row['written_tokens']:.1f}" if "written_tokens" in row else "",
        ]
        for row in result["rows"]
    ]
    paragraphs = [heading(result), markdown(_HEAD, lines)]
    for row in result["rows"]:
        if "tried" in row:
            tried = ", ".join(f"{size}: {speed:.2f}" for size, speed in row["tried"].items())
            paragraphs.append(
                f"{row['template']}: rows/s of generation for one batch of each size: {tried}."
            )
        if "apart" in row:
            paragraphs.append(
                f"{row['template']}: {row['prompt_tokens']:.0f} tokens per prompt; scored in the "
                f"sample and among all rows, a row's probabilities differ by at most "
                f"{row['apart']:.1g}."
            )
            paragraphs += row["notes"]
    return "\n\n".join(paragraphs) + "\n"
