"""Keys by which rows with the same text are recognised within and across datasets."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

Turns = Sequence[Mapping[str, str]]
"""Messages of a chat, each with `role` and `content`."""


class KeyedRow(NamedTuple):
    """A row as far as its text identifies it. Exactly one of `text` and `turns` is set."""

    id: str
    split: str
    text: str | None
    turns: Turns | None


class SeenRows(NamedTuple):
    """Ids of evaluated rows whose text influenced the model under report."""

    in_training: frozenset[str]
    """Rows whose text is among the rows that the model was trained on."""
    in_validation: frozenset[str]
    """Other rows whose text is among those that the checkpoint and the threshold are chosen on."""


def digest(text: str) -> int:
    """Return a 64-bit hash of a text. A million texts have a collision with probability 3e-8."""
    raw = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(raw, "little", signed=True)


def text_key(text: str) -> int:
    """Return the key of a text, without its surrounding white space."""
    return digest(text.strip())


def prompt_key(turns: Turns) -> int:
    """Return the key of a chat: of all its messages but the last, which is the answer."""
    parts = (part for turn in turns[:-1] for part in (turn["role"], turn["content"].strip()))
    return digest("\0".join(parts))


def last_user_turn(turns: Turns) -> str:
    """Return the last message of a chat's user; empty if there is none."""
    return next((turn["content"] for turn in reversed(turns) if turn["role"] == "user"), "")


def seen_rows(
    evaluated: Iterable[KeyedRow], split: str, learned: Iterable[KeyedRow], *, same_kind: bool
) -> SeenRows:
    """Return which rows of `split` have a text that also occurs in the run's dataset `learned`.

    Texts are compared without surrounding white space, chats without their last message. If the
    datasets are of different kinds (texts and chats), a chat counts as its last user message.
    """

    def key(row: KeyedRow) -> int:
        if row.turns is None:
            return text_key(row.text or "")
        return prompt_key(row.turns) if same_kind else text_key(last_user_turn(row.turns))

    trained: set[int] = set()
    validated: set[int] = set()
    for row in learned:
        if row.split == "train":
            trained.add(key(row))
        elif row.split == "validation":
            validated.add(key(row))
    keys = {row.id: key(row) for row in evaluated if row.split == split}
    in_training = frozenset(row_id for row_id, value in keys.items() if value in trained)
    in_validation = frozenset(row_id for row_id, value in keys.items() if value in validated)
    return SeenRows(in_training, in_validation - in_training)
