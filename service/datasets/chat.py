"""Assistant turns of a dataset of chats: each label's answer, and malformed answers."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from service.datasets.rows import SPLITS, Split, batches
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
    """Label -> (different answers, rows with the most common one, rows), of train.

    Answers of another label are left out; `contradictions` counts them.
    """
    contradictions: dict[Split, int] = field(default_factory=dict)
    """Split -> rows whose answer is another label's completion, up to surrounding white space."""

    @property
    def indistinguishable_labels(self) -> list[list[str]]:
        """Groups of labels with the same completion, which no score can distinguish."""
        by_answer: dict[str, list[str]] = {}
        for label, answer in self.completions.items():
            by_answer.setdefault(answer, []).append(label)
        return [labels for labels in by_answer.values() if len(labels) > 1]


def examine(path: Path) -> Answers:
    """Read a row file of chats. Memory grows by about 200 bytes per different answer."""
    answers = Answers()
    exact: dict[str, Counter[int]] = {}
    stripped_answers: dict[tuple[Split, str], Counter[int]] = {}
    for split, label, answer in _answers(path):
        answers.rows += 1
        stripped = answer.strip()
        if stripped.startswith("{{") and stripped.endswith("}}"):
            answers.doubled_braces += 1
        elif stripped.startswith("{") and not _is_json(stripped):
            answers.invalid_json += 1
        if label is not None:
            stripped_answers.setdefault((split, label), Counter())[digest(stripped)] += 1
            if split == "train":
                exact.setdefault(label, Counter())[digest(answer)] += 1
    digests = {label: counter.most_common(1)[0][0] for label, counter in sorted(exact.items())}
    for label, most_common in digests.items():
        own = exact[label]
        for other, completion in digests.items():
            if other != label and completion != most_common:
                del own[completion]
        answers.variants[label] = (len(own), own[most_common], own.total())
    answers.completions = _completions(path, digests)
    answers.contradictions = _contradictions(answers.completions, stripped_answers)
    return answers


def _completions(path: Path, digests: dict[str, int]) -> dict[str, str]:
    """Return label -> the first answer in train with the label's digest."""
    completions: dict[str, str] = {}
    for split, label, answer in _answers(path):
        if len(completions) == len(digests):
            break
        if split != "train" or label is None or label in completions:
            continue
        if digest(answer) == digests[label]:
            completions[label] = answer
    return {label: completions[label] for label in digests}


def _contradictions(
    completions: dict[str, str], stripped_answers: dict[tuple[Split, str], Counter[int]]
) -> dict[Split, int]:
    """Return split -> rows whose answer is the completion of another label and not of theirs."""
    labels: dict[int, set[str]] = {}
    for label, completion in completions.items():
        labels.setdefault(digest(completion.strip()), set()).add(label)
    rows: Counter[Split] = Counter()
    for (split, label), counter in stripped_answers.items():
        for answer, count in counter.items():
            if answer in labels and label not in labels[answer]:
                rows[split] += count
    return {split: rows[split] for split in SPLITS if rows[split]}


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
