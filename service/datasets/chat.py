"""Assistant turns of a dataset of chats: each label's answer, and malformed answers."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from service.datasets.rows import Split, batches
from service.domain.row_keys import digest


@dataclass(slots=True)
class Answers:
    """Statistics of the answers. `doubled_braces` and `invalid_json` count disjoint rows."""

    rows: int = 0
    doubled_braces: int = 0
    """Answers like ``{{"label": 1}}``: braces escaped for a format string and never unescaped."""
    invalid_json: int = 0
    """Other answers that start with a brace and are not JSON."""
    completions: dict[str, str] = field(default_factory=dict)
    """Label -> its most common answer in train; the earliest of several equally common ones."""
    variants: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """Label -> (different answers, rows with the most common one, rows), of train."""

    @property
    def indistinguishable_labels(self) -> list[list[str]]:
        """Groups of labels with the same completion, which no score can distinguish."""
        by_answer: dict[str, list[str]] = {}
        for label, answer in self.completions.items():
            by_answer.setdefault(answer, []).append(label)
        return [labels for labels in by_answer.values() if len(labels) > 1]


def examine(path: Path) -> Answers:
    """Read a row file of chats. Memory grows by about 100 bytes per different answer."""
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
    digests = {}
    for label, counter in sorted(counts.items()):
        (most_common, rows) = counter.most_common(1)[0]
        digests[label] = most_common
        answers.variants[label] = (len(counter), rows, counter.total())
    if digests:
        completions: dict[str, str] = {}
        for split, label, answer in _answers(path):
            if split == "train" and label in digests and label not in completions:
                if digest(answer) == digests[label]:
                    completions[label] = answer
                if len(completions) == len(digests):
                    break
        answers.completions = {label: completions[label] for label in digests}
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
