"""What the assistant says in a dataset of chats: each label's answer, and answers that are odd."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from service.datasets.rows import Split, batches
from service.datasets.stats import digest


@dataclass(slots=True)
class Answers:
    """`doubled_braces` and `invalid_json` count rows and exclude one another."""

    rows: int = 0
    doubled_braces: int = 0
    """Answers like ``{{"label": 1}}``: a format string's escape that was never undone."""
    invalid_json: int = 0
    """Other answers that start with a brace and are not JSON."""
    completions: dict[str, str] = field(default_factory=dict)
    """Label -> its most common answer in train; the first of them where several are."""
    variants: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """Label -> (different answers, rows with the most common one, rows), of train."""

    @property
    def shared_by(self) -> list[list[str]]:
        """Groups of labels that have the same completion, so that no score tells them apart."""
        by_answer: dict[str, list[str]] = {}
        for label, answer in self.completions.items():
            by_answer.setdefault(answer, []).append(label)
        return [labels for labels in by_answer.values() if len(labels) > 1]


def examine(path: Path) -> Answers:
    """Read a row file of chats. Memory grows by 100 bytes or so per different answer."""
    answers = Answers()
    counts: dict[str, Counter[int]] = {}
    for split, label, answer in _answers(path):
        answers.rows += 1
        stripped = answer.strip()
        if stripped.startswith("{{") and stripped.endswith("}}"):
            answers.doubled_braces += 1
        elif stripped.startswith("{") and not _is_json(stripped):
            answers.invalid_json += 1
        if label is not None and split == "train":
            counts.setdefault(label, Counter())[digest(answer)] += 1
    wanted = {}
    for label, counter in sorted(counts.items()):
        (key, rows) = counter.most_common(1)[0]
        wanted[label] = key
        answers.variants[label] = (len(counter), rows, counter.total())
    if wanted:
        found: dict[str, str] = {}
        for split, label, answer in _answers(path):
            if split == "train" and label in wanted and label not in found:
                if digest(answer) == wanted[label]:
                    found[label] = answer
                if len(found) == len(wanted):
                    break
        answers.completions = {label: found[label] for label in wanted}
    return answers


def _answers(path: Path) -> Iterator[tuple[Split, str | None, str]]:
    for batch in batches(path, ["messages", "label", "split"]):
        for chat, label, split in zip(*batch.values(), strict=True):
            yield split, label, json.loads(chat)[-1]["content"]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
