"""Spaces around the quotes of CSV, which RFC 4180 does not know but many programs write."""

import re

_SPACED = re.compile(r'[ \t]"|"[ \t]')
_OPENING = re.compile(r'[ \t]*"')
_CLOSING = re.compile(r'[^"]*(?:""[^"]*)*"(?!")')
_END = re.compile(r"[ \t]*(?=,|[\r\n]|\Z)")


def without_outer_spaces(line: str, *, in_quotes: bool) -> str:
    """Return a line of CSV without the spaces between quoted fields and the commas around them.

    `in_quotes`: the line begins within a quoted field. Unquoted fields keep their spaces, also if
    they have quotes inside, as in `a, "b" c`.
    """
    if not _SPACED.search(line):
        return line
    parts: list[str] = []
    position = 0
    while position < len(line):
        opening = None if in_quotes else _OPENING.match(line, position)
        if not in_quotes and opening is None:
            end = line.find(",", position) + 1 or len(line)
            parts.append(line[position:end])
            position = end
            continue
        start = position if opening is None else opening.end()
        quote = "" if in_quotes else '"'
        closing = _CLOSING.match(line, start)
        if closing is None:  # the field continues on the next line
            parts.append(quote + line[start:])
            break
        end_of_field = _END.match(line, closing.end())
        if end_of_field is None:
            end = len(line) if in_quotes else line.find(",", position) + 1 or len(line)
            parts.append(line[position:end])
            position = end
            continue
        end = end_of_field.end()
        separator = line[end : end + 1]
        parts.append(quote + line[start : closing.end()] + separator)
        position, in_quotes = end + len(separator), False
    return "".join(parts)
