"""Warnings about rows that were shortened to fit, by what was cut."""

from collections import Counter
from collections.abc import Iterator


def truncation_warnings(
    counts: Counter[str], rows: int, split: str, max_length: int
) -> Iterator[tuple[str, str]]:
    """Yield code and text of a warning for each way in which rows of a split were shortened."""

    def warning(code: str, number: int, consequence: str) -> tuple[str, str]:
        return code, (
            f"{number} of {rows} rows of the {split} split are longer than max_seq_length "
            f"{max_length} tokens; {consequence}."
        )

    if texts := counts["truncated"] - counts["without_history"]:
        yield warning("rows_truncated", texts, "the ends of their texts were truncated")
    if histories := counts["without_history"]:
        yield warning("turns_truncated", histories, "their oldest turns were left out")
    if instructions := counts["without_instruction"]:
        yield warning(
            "instructions_truncated", instructions, "the ends of their system turns were truncated"
        )
    if left_out := counts["too_long"]:
        yield warning(
            "rows_too_long", left_out, "their answers alone leave no room, so they were left out"
        )
