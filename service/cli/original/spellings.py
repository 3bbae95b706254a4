"""Spellings of the scripts' options."""

NO_EFFECT = "Accepted from the scripts; has no effect."


def spellings(*names: str) -> list[str]:
    """Return the flags of an option, with underscores and dashes.

    >>> spellings("max_samples", "data")
    ['--max_samples', '--max-samples', '--data']
    """
    flags = [flag for name in names for flag in (f"--{name}", f"--{name.replace('_', '-')}")]
    return list(dict.fromkeys(flags))
