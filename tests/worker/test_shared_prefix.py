"""Shared-prefix packing: the groups it finds, and its gradients against padded rows'."""

import random

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPTJConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3_5TextConfig,
    SeedOssConfig,
)

from service.domain.training_spec import LoraSection
from tests.support.tiny_models import EACH_FAMILY, SHAPE
from tests.support.train_jobs import make_trainer, spec, stop_at
from worker.data.tokenize import Example
from worker.modeling.fused_layers import fuse_layers
from worker.modeling.load import add_adapter, load_base, set_training
from worker.runtime.events import Stopped
from worker.training import checkpoints
from worker.training.padded import Padded
from worker.training.shared_prefix import packed_row
from worker.training.shared_prefix.equivalence_check import (
    choose_samples,
    unsupported_packing_reason,
)
from worker.training.shared_prefix.method import SharedPrefix
from worker.training.shared_prefix.packing import build_layout, find_groups, pack_samples, width

CPU = torch.device("cpu")


def samples(count=9, prefix=14, seed=3, answer=3):
    """Return rows with a common prefix and suffixes of several lengths."""
    draw = random.Random(seed)
    start = [draw.randrange(10, 400) for _ in range(prefix)]
    examples = []
    for number in range(count):
        suffix = [draw.randrange(10, 400) for _ in range(4 + 7 * number % 19 + answer)]
        examples.append(Example(start + suffix, prefix + len(suffix) - answer))
    return examples


def gradients(model):
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def both(model, rows, train_on, budget=10**6):
    """Loss and adapter gradients, of padded rows and of packed ones."""
    results = []
    padded = Padded(model, train_on, 0, CPU)
    packed = SharedPrefix(model, train_on, budget, CPU)
    for method in (padded, packed):
        model.zero_grad(set_to_none=True)
        total = 0.0
        with method.activated():
            for micro in method.micro_batches(rows, 1 if method is packed else len(rows)):
                loss = method.loss_sum(micro)
                loss.backward()
                total += loss.item()
        results.append((total, gradients(model)))
    return results


def distance(results):
    """The largest difference of a gradient, relative to the largest gradient of its kind."""
    (loss, plain), (other_loss, packed) = results
    assert plain.keys() == packed.keys()
    assert other_loss == pytest.approx(loss, rel=1e-5)
    return max(
        ((plain[name] - packed[name]).norm() / plain[name].norm()).item()
        for name in plain
        if plain[name].norm() > 0
    )


@pytest.fixture
def adapted(load):
    """A tiny model with an adapter whose every matrix has a gradient."""

    def make(family, *, checkpointing=False):
        model, _ = load(family)
        model.requires_grad_(requires_grad=False)
        lora = LoraSection(r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear")
        return filled(add_adapter(model, lora, 1, "tiny"), checkpointing=checkpointing)

    return make


def filled(model, *, checkpointing):
    fuse_layers(model)
    torch.manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    set_training(model, training=True)
    return model


CASES = {
    "one prefix": samples(),
    "two prefixes and a loner": samples(4) + samples(3, 20, 8) + samples(1, 5, 9),
    "nothing shared": [s for n in range(3) for s in samples(1, 6, n)],
    "one row": samples(1),
    "rows equal to each other": samples(3)[:1] * 3 + samples(3),
    "a row that another begins with": [
        Example(samples(9)[8].ids[:20], 17),
        *samples(9),
    ],
    "answers that begin alike": [Example([*s.ids[: s.start], 5, 6, 7], s.start) for s in samples()],
    "prompts alike, answers not": [
        Example([*samples()[0].ids[:12], *answer], 12) for answer in ([5, 6], [5, 9, 2], [8])
    ],
    "an answer from the first token on": [Example(s.ids, 0) for s in samples(3)],
}


@pytest.mark.parametrize("family", EACH_FAMILY)
@pytest.mark.parametrize("train_on", ["completion", "all"])
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_padded_rows(adapted, family, train_on, case):
    assert distance(both(adapted(family), CASES[case], train_on)) < 1e-5


@pytest.mark.parametrize("family", EACH_FAMILY)
def test_also_with_gradient_checkpointing_and_several_packs(adapted, family):
    rows = samples(20)
    model = adapted(family, checkpointing=True)
    assert len(SharedPrefix(model, "all", 120, CPU).micro_batches(rows, 1)) > 2
    assert distance(both(model, rows, "completion", 120)) < 1e-5


@pytest.mark.parametrize("family", EACH_FAMILY)
def test_also_over_4_bit_weights(models_dir, family):
    run_spec = spec(quantization={"load_in_4bit": True, "bnb_4bit_compute_dtype": "float32"})
    base = load_base(models_dir / f"tiny-{family}", run_spec, CPU)
    assert base.coverage.share > 0
    lora = LoraSection(r=4, lora_alpha=8, lora_dropout=0.0)
    model = filled(add_adapter(base.model, lora, 1, "tiny"), checkpointing=True)
    assert distance(both(model, samples(), "completion")) < 1e-5


EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


@pytest.mark.parametrize("targets", [EXPERTS[:1], EXPERTS, [*EXPERTS, "router.weight"]])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("in_4bit", [False, True])
def test_also_with_adapters_on_experts(models_dir, targets, checkpointing, in_4bit):
    run_spec = spec(
        lora={"lora_dropout": 0.0, "target_parameters": targets, "target_modules": "all-linear"},
        quantization={"load_in_4bit": in_4bit, "bnb_4bit_compute_dtype": "float32"},
    )
    base = load_base(models_dir / "tiny-gpt_oss", run_spec, CPU)
    adapted = add_adapter(base.model, run_spec.lora, 1, "tiny")
    results = both(filled(adapted, checkpointing=checkpointing), samples(), "completion")
    gradients = {name: value.norm() for name, value in results[1][1].items() if "mlp" in name}
    assert len(gradients) == 4 * len(targets)  # A and B in two layers
    # One expert a token: its share is 1 whatever the router says, which has no gradient then.
    assert all(norm > 0 for name, norm in gradients.items() if "experts" in name)
    assert distance(results) < 1e-5


def test_logits_in_chunks_change_nothing(adapted, monkeypatch):
    monkeypatch.setattr("worker.training.loss.LOGITS_CHUNK_SIZE", 5)
    monkeypatch.setattr("worker.training.loss.SOFTMAX_CHUNK_SIZE", 2)
    assert distance(both(adapted("llama"), samples(), "all")) < 1e-5


def test_an_output_layer_that_learns_gets_its_gradient(adapted):
    model = adapted("llama")
    head = model.get_base_model().get_output_embeddings()
    head.weight.requires_grad_()
    results = both(model, samples(), "completion")
    assert any("lm_head" in name for name in results[1][1])
    assert distance(results) < 1e-5


def test_few_scores_at_once_change_nothing(adapted, monkeypatch):
    monkeypatch.setattr(packed_row, "MAX_BLOCK_SCORES", 1)
    assert distance(both(adapted("gpt_oss"), samples(), "completion")) < 1e-5


def test_groups_store_the_fewest_tokens():
    first, second = samples(4, 30, 1), samples(4, 25, 2)
    groups = find_groups([row for pair in zip(first, second, strict=True) for row in pair])
    assert sorted(group.prefix for group in groups) == [25, 30]
    # Two of many share more than all do: apart they would store more.
    many = samples(8, 10, 3)
    many.append(Example([*many[0].ids[:12], 7, 7, 7], 13))
    assert [group.prefix for group in find_groups(many)] == [10]
    assert find_groups([]) == []


def test_groups_do_not_depend_on_the_order_of_rows():
    rows = samples(30)
    reversed_rows = rows[::-1]
    assert find_groups(rows) == find_groups(reversed_rows)


@pytest.mark.parametrize("budget", [1, 60, 100, 333, 10**6])
@pytest.mark.parametrize("parts", [1, 2, 5])
def test_packs_hold_every_row_once_within_the_budget(budget, parts):
    rows = samples(17) + samples(5, 22, 6)
    packs = pack_samples(rows, budget, parts)
    block_sizes = [tuple(s.ids) for pack in packs for group in pack for s in group.samples]
    assert sorted(block_sizes) == sorted(tuple(row.ids) for row in rows)
    assert len(packs) >= parts
    for pack in packs:
        alone = sum(len(group.samples) for group in pack) == 1
        assert width(pack) <= budget or alone
        assert len(build_layout(pack, "completion").ids) == width(pack)
    if budget == 333:
        widths = [width(pack) for pack in packs]
        assert min(widths) > 0.5 * max(widths)


def test_a_layout_gives_each_sample_its_own_positions():
    rows = samples(3)
    layout = build_layout(pack_samples(rows, 10**6)[0], "completion")
    [segment] = layout.segments
    for begin, length in segment.suffixes:
        assert layout.positions[begin : begin + length] == [*range(14, 14 + length)]


@pytest.mark.parametrize("family", EACH_FAMILY)
def test_the_check_passes_and_draws_nothing(adapted, family):
    model = adapted(family)
    packed, padded = (
        SharedPrefix(model, "completion", 512, CPU),
        Padded(model, "completion", 0, CPU),
    )
    before = torch.get_rng_state()
    assert unsupported_packing_reason(model, packed, padded, samples(), 2) is None
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training


def test_training_falls_back_with_a_warning_and_a_resumed_run_keeps_that(
    load, tmp_path, monkeypatch
):
    run_spec = spec(training={"packing": "shared_prefix", "num_train_epochs": 2, "max_steps": None})
    with monkeypatch.context() as patch:
        patch.setattr(
            packed_row.PackedRow, "mask", lambda *_: torch.zeros(1, 1)
        )  # what follows, too
        run = make_trainer(load, tmp_path / "a", run_spec, samples(10))
        stop_at(run, 2)
        with pytest.raises(Stopped):
            run.run()
        assert run.state.packing == "none"
    events = (tmp_path / "a" / "events.jsonl").read_text()
    assert "not_packed" in events
    assert "differ by" in events
    again = make_trainer(load, tmp_path / "b", run_spec, samples(10))
    [newest] = checkpoints.steps_in(tmp_path / "a" / "checkpoints")
    again.restore(checkpoints.read(tmp_path / "a" / "checkpoints" / f"checkpoint-{newest}"))
    again.run()
    assert again.state.packing == "none"
    assert "not_packed" not in (tmp_path / "b" / "events.jsonl").read_text()


def trial(model, rows=2, step=None):
    packed, padded = (
        SharedPrefix(model, "completion", 512, CPU),
        Padded(model, "completion", 0, CPU),
    )
    return unsupported_packing_reason(
        model, packed, padded, samples() if step is None else step, rows
    )


def of_config(config, dtype=torch.float32, **lora):
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(std=0.15)
    model.requires_grad_(requires_grad=False)
    section = LoraSection(
        **{"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear", **lora}
    )
    return filled(add_adapter(model, section, 1, "x"), checkpointing=False)


GPT = {"vocab_size": 400, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("config", "says"),
    [
        (GPTJConfig(**GPT, rotary_dim=8), "cannot be replaced"),
        (BloomConfig(vocab_size=400, hidden_size=64, n_layer=2, n_head=4), "cannot be replaced"),
        (SeedOssConfig(**SHAPE, residual_dropout=0.0), "dropout"),
        (Gemma2Config(**SHAPE, final_logit_softcapping=None), "softcap"),
        (GraniteConfig(**SHAPE, logits_scaling=8.0), "not those of the output layer alone"),
        (Qwen3_5TextConfig(**SHAPE, full_attention_interval=2), "linear_attention"),
    ],
    ids=["gptj", "bloom", "seed-oss", "gemma2", "granite", "qwen3.5"],
)
def test_models_that_cannot_be_packed_say_so_in_every_type(config, says, dtype):
    assert says in trial(of_config(config, dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SHAPE, tie_word_embeddings=True, attention_bias=True),
        MistralConfig(**SHAPE, sliding_window=9),
        Qwen2Config(**{k: v for k, v in SHAPE.items() if k != "head_dim"}),
        Gemma3TextConfig(**SHAPE, sliding_window=9),
        Phi3Config(**{k: v for k, v in SHAPE.items() if k != "head_dim"}),
    ],
    ids=["llama", "mistral", "qwen2", "gemma3", "phi3"],
)
def test_others_pass_and_have_the_gradients_of_padded_rows(config, dtype):
    model = of_config(config, dtype)
    assert trial(model) is None
    if dtype == torch.float32:
        set_training(model, training=True)
        assert distance(both(model, samples(), "completion")) < 2e-5


def short_sighted(mask, hidden):
    """Mask the first tokens of the prefix for the suffixes."""

    def masked(row, span, window, like):
        changed = mask(row, span, window, like).clone()
        if span.keys > span.first + span.queries:
            changed[:, hidden] = float("-inf")
        return changed

    return masked


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 2, 8])
def test_a_mask_that_hides_a_few_tokens_is_noticed(dtype, rows, monkeypatch):
    model = of_config(LlamaConfig(**SHAPE), dtype)
    monkeypatch.setattr(
        packed_row.PackedRow, "mask", short_sighted(packed_row.PackedRow.mask, slice(5, 10))
    )
    assert "differ by" in trial(model, rows)


def test_a_trial_has_long_rows_and_two_that_begin_alike():
    step = samples(40)
    longest = max(len(row.ids) for row in step)
    assert max(len(row.ids) for row in choose_samples(step)) == longest
    strangers = [row for n in range(4) for row in samples(1, 6, n)]
    assert max(len(group.samples) for group in find_groups(choose_samples(strangers))) == 2
    assert len(choose_samples(samples(1))) == 2


def test_a_trial_of_long_rows_is_of_few():
    step = [Example([7, *range(length)], length - 2) for length in (60, 50, 40, 30, 20)]
    assert len(choose_samples(step)) == 5
    lengths = (1100, 1050, 1000, 950, 900)
    long = [Example([7, *range(length)], length - 2) for length in lengths]
    assert [len(row.ids) - 1 for row in choose_samples(long)] == [1100, 1000, 900]


def test_long_rows_take_no_square_of_scores(monkeypatch):
    """A lone row of 3,000 tokens: 9 million scores a head, of which few are held at a time."""
    model = of_config(LlamaConfig(**SHAPE | {"max_position_embeddings": 4096}))
    block_sizes = []
    softmax = torch.softmax
    monkeypatch.setattr(
        torch,
        "softmax",
        lambda scores, dim: block_sizes.append(scores.numel()) or softmax(scores, dim),
    )
    [long] = samples(1, 3000)
    packed = SharedPrefix(model, "completion", 4096, CPU)
    with packed.activated():
        packed.loss_sum(packed.micro_batches([long], 1)[0]).backward()
    assert max(block_sizes) <= packed_row.MAX_BLOCK_SCORES * 4
