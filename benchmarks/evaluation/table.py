"""What the processes saw as rows of the table, and the table as Markdown. Pure functions."""

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
    """Generating, scoring the same rows, scoring all: ratios are of rows a second."""
    speed = generated["rows"] / generated["seconds"]
    pairs = zip(generated["labels"], scored["labels"], strict=True)
    inside = [(wrote, found) for wrote, found in pairs if wrote is not None]

    def row(system: str, count: int, seconds: float, seen: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "template": template,
            "system": system,
            "rows": count,
            "seconds": seconds,
            "rows_per_second": count / seconds,
            "ratio_to_generating": count / seconds / speed,
            "peak_memory": seen["host_peak"],
            "peak_memory_above_imports": seen["host_peak"] - seen["host_imports"],
        }

    written = row(
        f"generate, batches of {generated['batch']}", generated["rows"], generated["seconds"],
        generated,
    )  # fmt: skip
    written |= {
        "inside": len(inside),
        "same_label": sum(wrote == found for wrote, found in inside),
        "outside": 1 - len(inside) / generated["rows"],
        "written_tokens": generated["written_tokens"],
        "batch": generated["batch"],
        "tried": generated["tried"],
        "examples": generated["examples"],
    }
    alone = row("fairtune, the same rows", scored["sample_rows"], scored["sample_seconds"], scored)
    whole = row("fairtune, all rows", scored["rows"], scored["seconds"], scored)
    whole |= {name: scored[name] for name in ("apart", "prompt_tokens", "notes")}
    return [written, alone, whole]


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
    said = [heading(result), markdown(_HEAD, lines)]
    for row in result["rows"]:
        if "tried" in row:
            tried = ", ".join(f"{size}: {speed:.2f}" for size, speed in row["tried"].items())
            said.append(f"{row['template']}: rows/s of generating one batch of each size: {tried}.")
        if "apart" in row:
            said.append(
                f"{row['template']}: {row['prompt_tokens']:.0f} tokens a prompt; scored alone or "
                f"among all rows, a probability differs by {row['apart']:.1g} at most."
            )
            said += row["notes"]
    return "\n\n".join(said) + "\n"
