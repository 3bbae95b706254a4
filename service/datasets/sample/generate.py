"""Write the bundled sample dataset: `python -m service.datasets.sample.generate [--check]`.

Every row is assembled from frames with slots. The last third of every pool, of frames and of
fillers, is reserved for the test split. A test text has either a frame or fillers from that
part (chosen at random), and is drawn again if it shares too many words with a training text. Only
`Random.random` is used, the only method whose sequence Python guarantees, so that the files are
identical on every version.

Difficulty of the test split, as F1 for `hate`: always answering hate 0.578, the majority label of
the row's group in training 0.468, the presence of the best single word 0.525, logistic regression
on the presence of words (scikit-learn 1.9, default settings, fitted on the training split) 0.745.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

from service.datasets.sample.phrases import FILLERS, FRAMES, GROUPS

SEED = 2024
TOO_SIMILAR = 0.7  # Jaccard index of the sets of words
HERE = Path(__file__).parent

# Rows per split and group, as (hate, normal). Half of the training rows are hate, so that a short
# training favours neither label. The shares differ by group on purpose: a model that
# learns "this group means hate" is then visible in the per-group error rates.
COUNTS: dict[str, dict[str, tuple[int, int]]] = {
    "train": {"lgbtq": (58, 62), "mexican": (50, 70), "middle_east": (72, 48)},
    "validation": {"lgbtq": (15, 25), "mexican": (13, 27), "middle_east": (21, 19)},
    "test": {"lgbtq": (38, 62), "mexican": (32, 68), "middle_east": (52, 48)},
}

# How often each finer label occurs within its label.
WEIGHTS: dict[str, int] = {
    "hostile_direct": 9, "hostile_implicit": 3, "hostile_no_group_word": 5, "hostile_quoted": 1,
    "counter_speech": 3, "neutral_mention": 6, "positive": 6, "news": 3, "everyday": 4,
    "complaint_not_at_group": 2,
}  # fmt: skip


def pool(text: str) -> list[str]:
    """Return the items of a pool, which are separated by slashes."""
    return [" ".join(item.split()) for item in text.split("/")]


def pick(items: Sequence[str], rng: Random) -> str:
    return items[int(rng.random() * len(items))]


def training_part(items: list[str]) -> list[str]:
    """Return the part of a pool that all splits use."""
    return items[: len(items) - len(items) // 3]


def reserved_part(items: list[str]) -> list[str]:
    """Return the part of a pool that only the test split uses."""
    return items[len(items) - len(items) // 3 :]


def write_text(label: str, detail: str, group: str, split: str, rng: Random) -> str:
    """Return a frame with its slots filled, including the slots of the fillers."""
    frames = pool(FRAMES[label][detail])
    new_frame = split == "test" and rng.random() < 0.5
    new_fillers = split == "test" and not new_frame
    text = pick(reserved_part(frames) if new_frame else training_part(frames), rng)
    while slot := re.search(r"\{(\w+)\}", text):
        name = slot[1]
        if name in GROUPS[group]:
            choices = pool(GROUPS[group][name])
        else:
            fillers = pool(FILLERS[name])
            choices = reserved_part(fillers) if new_fillers else training_part(fillers)
        text = text[: slot.start()] + pick(choices, rng) + text[slot.end() :]
    return re.sub(r"(^|[.?] )([a-z])", lambda m: m[1] + m[2].upper(), text)


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z'-]+", text.lower()))


def similarity(a: frozenset[str], b: frozenset[str]) -> float:
    """Return the Jaccard index: 0 without common words, 1 with the same words."""
    return len(a & b) / len(a | b)


def generate() -> dict[str, list[dict[str, str]]]:
    """Return the rows of all splits. All texts are different, ignoring case."""
    rng = Random(SEED)  # noqa: S311 - reproducible texts, nothing secret
    used: set[str] = set()
    training_bags: list[frozenset[str]] = []
    splits: dict[str, list[dict[str, str]]] = {}
    for split, groups in COUNTS.items():
        rows: list[tuple[float, dict[str, str]]] = []
        for group, counts in groups.items():
            for label, count in zip(("hate", "normal"), counts, strict=True):
                details = [name for name in FRAMES[label] for _ in range(WEIGHTS[name])]
                row_count = 0
                while row_count < count:
                    detail = details[row_count % len(details)]
                    text = write_text(label, detail, group, split, rng)
                    if not 6 <= len(text.split()) <= 30 or text.lower() in used:
                        continue
                    bag = words(text)
                    if split == "test" and any(
                        similarity(bag, training_bag) > TOO_SIMILAR
                        for training_bag in training_bags
                    ):
                        continue
                    if split == "train":
                        training_bags.append(bag)
                    used.add(text.lower())
                    row_count += 1
                    row = {"text": text, "label": label, "group": group, "source": "template"}
                    rows.append((rng.random(), row | {"detail": detail}))
        rows.sort(key=lambda pair: pair[0])
        splits[split] = [
            {"id": f"{split}-{number:03}"} | row for number, (_, row) in enumerate(rows, start=1)
        ]
    return splits


def render(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the bundled sample dataset.")
    parser.add_argument(
        "--check", action="store_true", help="compare with the files instead of writing them"
    )
    check = parser.parse_args().check
    stale = []
    for split, rows in generate().items():
        path = HERE / f"{split}.jsonl"
        if not check:
            path.write_bytes(render(rows))
        elif not path.exists() or path.read_bytes() != render(rows):
            stale.append(path.name)
    if stale:
        sys.exit(f"differs from the output of the generator: {', '.join(stale)}")


if __name__ == "__main__":
    main()
