"""Reasons why a text is not JSON, in words that say what to change."""

import json
import re

_WORD = re.compile(r"-?[A-Za-z_]+")
_PYTHON = {"None": "null", "True": "true", "False": "false"}
_MISSING = ("nan", "undefined", "NULL", "Null", "NA", "nil")
_SINGLE_QUOTES = "strings need double quotes, not single ones"
_CLOSING = {"}": "the brace that closes the object", "]": "the bracket that closes the list"}
_COMMA = "a comma stands before {}; remove the comma"
LAST_COMMA = _COMMA.format(_CLOSING["]"])
"""Reason for a list that ends with a comma."""


def json_reason(error: json.JSONDecodeError) -> str:
    """Return a clause with the remedy for `error`, such as "a colon is missing"."""
    message, rest = error.msg, error.doc[error.pos :]
    before = error.doc[: error.pos].rstrip()[-1:]
    if message == "Extra data":
        return _extra(rest)
    if rest[:1] in _CLOSING and (before == "," or message.startswith("Illegal trailing comma")):
        return _COMMA.format(_CLOSING[rest[0]])
    if message.startswith("Illegal trailing comma"):  # from Python 3.13 on, at the comma itself
        closing = rest.lstrip(", \t\r\n")[:1]
        return _COMMA.format(_CLOSING.get(closing, "the end"))
    if message.startswith("Expecting") and rest.startswith("'"):
        return _SINGLE_QUOTES
    if message == "Expecting value":
        return _no_value(rest)
    if message.startswith("Expecting property name"):
        return "a key in double quotes is expected" if rest else "the object is never closed"
    if message.startswith("Expecting ','"):
        if not rest:
            return "the object or list is never closed"
        return "a comma, or the end of the object or list, is expected"
    if message.startswith("Expecting ':'"):
        return "a colon is expected after the key"
    if message.startswith("Unterminated string"):
        return "a string is never closed"
    if message.startswith("Invalid control character"):
        return (
            "a string holds a line end, a tab or another control character; write an escape such "
            "as \\n"
        )
    if message.startswith("Invalid \\"):
        return "a backslash begins no escape of JSON; write a backslash twice"
    return message


def _extra(rest: str) -> str:
    if not rest.strip(", \t\r\n"):
        return "a comma follows the end; remove the comma"
    return "more text follows the end"


def _no_value(rest: str) -> str:
    if not rest:
        return "a value is missing at the end"
    word = _WORD.match(rest)
    if word and word[0] in _PYTHON:
        return f"{word[0]} is Python; write {_PYTHON[word[0]]}"
    if word and word[0].lstrip("-") in _MISSING:
        return f"{word[0]} is no value of JSON; write null"
    return "a value is expected"
