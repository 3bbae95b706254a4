"""Values as text for people: times, sizes, counts."""

from datetime import datetime

_UNITS = ("B", "kB", "MB", "GB", "TB")


def time_text(value: datetime | None) -> str:
    """Return a time in UTC to the second, or a dash."""
    return "-" if value is None else value.strftime("%Y-%m-%dT%H:%M:%SZ")


def size_text(size: float) -> str:
    """Return a number of bytes with a decimal unit, such as 1.2 MB."""
    for unit in _UNITS[:-1]:
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} {_UNITS[-1]}"


def duration_text(seconds: float) -> str:
    """Return a duration such as 42 s, 3 min 20 s or 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def number_text(value: float | None) -> str:
    """Return a metric with up to four significant digits, or a dash."""
    return "-" if value is None else f"{value:.4g}"


def counts_text(counts: dict[str, int]) -> str:
    """Return the rows of each label or group, such as `hate 12, normal 36`."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "-"


def printable(text: str) -> str:
    """Return the text on one line without characters that could control a terminal."""
    line = text.replace("\r\n", "\n").replace("\n", "⏎ ").replace("\t", " ")
    return "".join(char if char.isprintable() else "�" for char in line)
