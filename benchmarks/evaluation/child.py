"""Process of one measurement: python -m benchmarks.evaluation.child WORK RESULT."""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.evaluation.work import SIZES, Work, at_equal_distances
from benchmarks.throughput.watch import status_bytes
from service.datasets.templates import builtin_templates

if TYPE_CHECKING:
    from worker.data.rows import Row
    from worker.modeling.load import Base
    from worker.scoring.labels import Item

_STATUS = Path("/proc/self/status")


def main(work_path: str, result_path: str) -> None:
    work = Work.read(Path(work_path))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in all programs of Fairtune
    from worker.runtime import imports as libraries

    directory = Path(work.models_dir) / work.model
    spec = work.run_spec()
    libraries.load(directory, in_4bit=spec.quantization.load_in_4bit)
    import torch

    from worker.modeling.load import load_base
    from worker.scoring import generation, labels  # noqa: F401 - among the imports

    imports = status_bytes(_STATUS.read_text(), "VmRSS")
    base = load_base(directory, spec, torch.device("cpu"))
    rows = _rows(work)
    measure = _fairtune if work.system == "fairtune" else _generate
    result = measure(work, base, rows, at_equal_distances(rows, work.sample))
    result |= {
        "host_imports": imports,
        "host_peak": status_bytes(_STATUS.read_text(), "VmHWM"),
        "weights": str(base.model.dtype).removeprefix("torch."),
        "in_4bit": spec.quantization.load_in_4bit,
        "threads": torch.get_num_threads(),
    }
    Path(result_path).write_text(json.dumps(result))


def _rows(work: Work) -> "list[Row]":
    from worker.data.rows import Row

    return [
        Row(id=str(number), messages=None, split="test", **json.loads(line))
        for number, line in enumerate(Path(work.rows).read_text("utf-8").splitlines())
    ]


def _items(work: Work, base: "Base", rows: "Sequence[Row]") -> tuple[list[str], "list[Item]", Any]:
    """Return the labels, the items to score, and the tokenizer with its frames."""
    from worker.data.tokenize import Prompts, Tokens
    from worker.scoring.labels import Item

    tokens = Tokens(base.tokenizer, work.max_length)
    prompts = Prompts(tokens, builtin_templates()[work.template], None)
    labels = sorted(prompts.template.labels)
    items = []
    for row in rows:
        encoded = prompts.encode(row, labels)
        items.append(Item(encoded.prompt, encoded.answers))
    return labels, items, tokens


def _warm_up(base: "Base", items: "Sequence[Item]") -> None:
    """Run one forward pass: the first pass of a process is slower, in both systems."""
    import torch

    with torch.no_grad():
        base.model(input_ids=torch.tensor([items[0].prompt[:64]]), logits_to_keep=1)


def _fairtune(
    work: Work, base: "Base", rows: "Sequence[Row]", sample: "Sequence[Row]"
) -> dict[str, Any]:
    """Score the sample, then all rows, including tokenization."""
    import torch

    from worker.modeling.load import set_training
    from worker.scoring.labels import score
    from worker.scoring.predictions import predicted_label

    training = work.run_spec().training
    set_training(base.model, training=False)
    notes: list[str] = []

    def score_texts(texts: "Sequence[Row]") -> tuple[float, list[list[float]], list[str]]:
        started = time.monotonic()
        labels, items, tokens = _items(work, base, texts)
        values = score(
            base.model,
            items,
            pad=tokens.pad,
            token_budget=training.per_device_eval_batch_size * training.max_seq_length,
            device=torch.device("cpu"),
            on_fallback=notes.append,
        )
        return time.monotonic() - started, values, labels

    _warm_up(base, _items(work, base, sample[:1])[1])
    sample_seconds, values, labels = score_texts(sample)
    all_seconds, all_values, _ = score_texts(rows)
    sample_in_all = at_equal_distances(all_values, work.sample)
    _, items, _ = _items(work, base, rows)
    return {
        "sample_seconds": sample_seconds,
        "sample_rows": len(sample),
        "seconds": all_seconds,
        "rows": len(rows),
        "labels": [predicted_label(labels, row_values) for row_values in values],
        "apart": max(
            abs(a - b)
            for row_values, row_values_in_all in zip(values, sample_in_all, strict=True)
            for a, b in zip(row_values, row_values_in_all, strict=True)
        ),
        "prompt_tokens": sum(len(item.prompt) for item in items) / len(items),
        "notes": sorted(set(notes)),
    }


def _generate(
    work: Work, base: "Base", _rows: "Sequence[Row]", sample: "Sequence[Row]"
) -> dict[str, Any]:
    """Generate greedy answers to the sample with the fastest of `SIZES`, each tried on one batch.

    Batches are sorted by length and padded on the left; generation ends with the JSON object.
    """
    base.model.eval()
    labels, items, tokens = _items(work, base, sample)
    generator = _Generator(base, items, tokens)
    _warm_up(base, items)

    def generate(indices: Sequence[int], size: int) -> tuple[float, dict[int, list[int]]]:
        started = time.monotonic()
        order = sorted(indices, key=lambda index: -len(items[index].prompt))
        generated: dict[int, list[int]] = {}
        for first in range(0, len(order), size):
            batch = order[first : first + size]
            generated |= zip(batch, generator.batch([items[index] for index in batch]), strict=True)
        return time.monotonic() - started, generated

    all_indices = range(len(items))
    sizes = sorted({min(size, len(items)) for size in SIZES})
    trials = {size: generate(at_equal_distances(all_indices, size), size) for size in sizes}
    rows_per_second = {size: size / seconds for size, (seconds, _) in trials.items()}
    best = max(rows_per_second, key=lambda size: rows_per_second[size])
    seconds, token_ids = trials[best] if best == len(items) else generate(all_indices, best)

    predicted: list[str | None] = []
    for index, item in enumerate(items):
        texts = [generator.text(label_answer) for label_answer in item.answers]
        text = generator.text(token_ids[index])
        predicted.append(labels[texts.index(text)] if text in texts else None)
    return {
        "seconds": seconds,
        "rows": len(items),
        "batch": best,
        "tried": rows_per_second,
        "labels": predicted,
        "written_tokens": sum(map(len, token_ids.values())) / len(token_ids),
        "examples": [generator.text(token_ids[index])[:80] for index in range(min(3, len(items)))],
    }


class _Generator:
    """Batched generation by transformers' `generate`, as in its documentation."""

    def __init__(self, base: "Base", items: "Sequence[Item]", tokens: Any) -> None:
        from worker.scoring.generation import EXTRA_TOKENS

        self._base, self._pad, self._eos = base, tokens.pad, tokens.eos
        self._limit = EXTRA_TOKENS + max(len(answer) for answer in items[0].answers)
        self._stopping_criteria = self._end_of_json_criteria(items[0].answers)

    def batch(self, items: "Sequence[Item]") -> list[list[int]]:
        """Return the generated ids of each item, up to its end."""
        import torch

        width = max(len(item.prompt) for item in items)
        ids = torch.tensor([[self._pad] * (width - len(i.prompt)) + i.prompt for i in items])
        attention_mask = torch.tensor(
            [[0] * (width - len(i.prompt)) + [1] * len(i.prompt) for i in items]
        )
        output = self._base.model.generate(
            input_ids=ids,
            attention_mask=attention_mask,
            do_sample=False,
            max_new_tokens=self._limit,
            eos_token_id=self._eos,
            pad_token_id=self._pad,
            stopping_criteria=self._stopping_criteria,
        )
        return [self._until_end(row) for row in output[:, width:].tolist()]

    def text(self, ids: list[int]) -> str:
        content = ids[: ids.index(self._eos)] if self._eos in ids else ids
        text: str = self._base.tokenizer.decode(content)
        return text.strip()

    def _until_end(self, ids: list[int]) -> list[int]:
        """Return the ids up to the end of turn or of JSON; what follows is padding."""
        for end, token in enumerate(ids, 1):
            if token == self._eos or self._closing[token]:
                return ids[:end]
        return ids

    def _end_of_json_criteria(self, answers: list[list[int]]) -> Any:
        import torch
        from transformers import StoppingCriteria, StoppingCriteriaList

        vocabulary = self._base.model.get_output_embeddings().out_features
        words = self._base.tokenizer.batch_decode([[token] for token in range(vocabulary)])
        is_json = all("}" in self.text(answer) for answer in answers)
        self._closing = torch.tensor([is_json and "}" in word for word in words])
        closing = self._closing

        class EndOfJson(StoppingCriteria):  # type: ignore[misc]  # transformers has no types here
            def __call__(self, input_ids: Any, _scores: Any, **_: Any) -> Any:
                return closing[input_ids[:, -1]]

        return StoppingCriteriaList([EndOfJson()])


if __name__ == "__main__":
    main(*sys.argv[1:])
