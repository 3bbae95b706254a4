"""Check that a model computes the same over packed rows as over padded ones.

Structure is checked first, since rounding cannot hide it: every layer used packed attention and got
its sliding window; the logits come from the output layer alone; no unsupported option appears in
training mode. Then numbers are compared: the log-likelihood of each target in a packed row with
that of the sample in a row of its own. The effect of rounding is measured on the same samples in
padded rows: packed rows may differ from single rows twice as much as padded rows do. (Sums of
losses are not compared, since errors of opposite sign would cancel.)
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from service.domain.errors import first_line
from worker.data.tokenize import Example
from worker.modeling.load import set_training
from worker.modeling.mask_support import unsupported_reason
from worker.runtime.out_of_memory import is_out_of_memory
from worker.training.padded import Padded
from worker.training.shared_prefix.method import SharedPrefix
from worker.training.shared_prefix.packing import find_groups

MAX_SAMPLES = 8
"""Samples of a check."""

MAX_TOKENS = 4096
"""Approximate limit for the samples' tokens, with at least `MIN_SAMPLES` samples: each sample is
computed three times, which with prompts of a thousand tokens took a minute of a run's start."""

MIN_SAMPLES = 3

NOISE_FACTOR = 2.0
"""Factor by which packed rows may differ more than padded rows do."""

MIN_TOLERANCE = 1e-4
"""Nats per target that are always attributed to rounding, or four times the dtype's eps if that is
more: another order of the same operations may differ where two batches of one kernel do not."""


def unsupported_packing_reason(
    model: Any, packed: SharedPrefix, padded: Padded, step_samples: Sequence[Example], rows: int
) -> str | None:
    """Return why the model cannot be trained on packed rows; None if it can.

    `step_samples` are the samples of an optimizer step, `rows` is as in Method.micro_batches. The
    generators' states are preserved, and the model is left in evaluation mode. Out-of-memory errors
    propagate.
    """
    samples = choose_samples(step_samples)
    try:
        with torch.no_grad():
            return (
                unsupported_reason(model)
                or _unsupported_head(model, packed, samples[0])
                or _numerical_difference(model, packed, padded, samples, rows)
                or _training_failure(model, packed, samples, rows)
            )
    except Exception as error:
        # A model's own code may raise anything on a row that it was not written for.
        if is_out_of_memory(error):
            raise
        return first_line(error)
    finally:
        set_training(model, training=False)


def choose_samples(step_samples: Sequence[Example]) -> list[Example]:
    """Return the longest, the shortest and some other samples of a step.

    At least two of them share a prefix; if necessary such a sample is added.
    """
    ordered = sorted(step_samples, key=lambda sample: -len(sample.ids))
    count = min(MAX_SAMPLES, max(MIN_SAMPLES, MAX_TOKENS // len(ordered[0].ids)))
    if len(ordered) > count:
        indices = [round(n * (len(ordered) - 1) / (count - 1)) for n in range(count)]
        ordered = [ordered[index] for index in indices]
    if all(len(group.samples) == 1 for group in find_groups(ordered)):
        longest = ordered[0]
        ordered.append(Example([*longest.ids[:-1], longest.ids[0]], longest.start))
    return ordered


def _unsupported_head(model: Any, packed: SharedPrefix, sample: Example) -> str | None:
    set_training(model, training=False)
    ids = torch.tensor([sample.ids], device=model.device)
    columns = min(len(sample.ids), 8)
    original = (
        model(input_ids=ids, use_cache=False, logits_to_keep=columns).logits[:, -columns:].float()
    )
    states = packed.decoder(input_ids=ids, use_cache=False).last_hidden_state[:, -columns:]
    recomputed = packed.causal.get_output_embeddings()(states).float()
    if (original - recomputed).abs().mean() > 1e-3 * original.abs().mean():
        return "its logits are not those of the output layer alone"
    return None


def _numerical_difference(
    model: Any, packed: SharedPrefix, padded: Padded, samples: Sequence[Example], rows: int
) -> str | None:
    config = model.config.get_text_config()
    single = _by_target([(sample, padded.losses([sample])) for sample in samples])
    padded_losses: dict[tuple[int, ...], float] = {}
    for micro in padded.micro_batches(samples, max(rows, 2)):
        counts = [padded.count(sample) for sample in micro]
        by_sample = torch.split(padded.losses(micro), counts)
        padded_losses |= _by_target(zip(micro, by_sample, strict=True))
    packed_losses = {}
    with packed.activated():
        for pack in packed.micro_batches(samples, rows):
            states, targets, row = packed.states(pack)
            layers = config.num_hidden_layers
            if row.calls != layers:
                return f"the attention of only {row.calls} of its {layers} layers can be replaced"
            window = getattr(config, "sliding_window", None)
            if getattr(config, "use_sliding_window", True) and window and not row.windows:
                return "its sliding window does not reach its attention"
            logits = packed.causal.get_output_embeddings()(states).float()
            tokens = torch.tensor(targets.tokens, device=logits.device)
            losses = cross_entropy(logits, tokens, reduction="none").tolist()
            for (sample, index), loss in zip(targets.origins, losses, strict=True):
                packed_losses[tuple(sample.ids[: index + 1])] = loss
    noise = _distance(padded_losses, single)
    difference = _distance(packed_losses, single)
    tolerance = max(MIN_TOLERANCE, 4 * torch.finfo(packed.causal.dtype).eps)
    if not difference <= max(NOISE_FACTOR * noise, tolerance):
        return (
            f"losses of targets differ by {difference:.3g} nats, while rounding explains "
            f"{noise:.3g}"
        )
    return None


def _by_target(losses: Iterable[tuple[Example, torch.Tensor]]) -> dict[tuple[int, ...], float]:
    """Return the losses keyed by the ids up to and including the target, which determine them."""
    by_target = {}
    for sample, values in losses:
        first = len(sample.ids) - len(values)
        for index, value in enumerate(values.tolist(), first):
            by_target[tuple(sample.ids[: index + 1])] = value
    return by_target


def _distance(first: dict[tuple[int, ...], float], second: dict[tuple[int, ...], float]) -> float:
    """Return the root mean square difference, in nats."""
    differences = torch.tensor([first[key] - second[key] for key in first], dtype=torch.float64)
    return differences.square().mean().sqrt().item()


def _training_failure(
    model: Any, packed: SharedPrefix, samples: Sequence[Example], rows: int
) -> str | None:
    """Run a forward pass in training mode.

    Attention dropout of some models is active in this mode only, and raises ValueError then.
    """
    device = model.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        set_training(model, training=True)
        with packed.activated():
            packed.loss_sum(packed.micro_batches(samples, rows)[0])
    return None
