"""Model card of a merged model: README.md for the Hub, transformers and human readers."""

from collections.abc import Sequence

from service.domain.job import Job
from service.domain.merge import MergeComparison, MergeTask
from worker.merging.comparison import comparison_summary
from worker.training.model_card import escape_markdown, intended_use, one_line, prompt_section


def merged_model_card(
    job: Job, task: MergeTask, comparison: MergeComparison, prompt_notes: Sequence[str] = ()
) -> str:
    """Return the card's text. `prompt_notes` say how to send the trained prompt."""
    from huggingface_hub import ModelCardData

    spec = job.spec
    name = spec.name or job.run_id
    metadata = ModelCardData(
        base_model=spec.base_model,
        library_name="transformers",
        license="other",
        license_name="as-the-base-model",
        model_name=one_line(name),
        pipeline_tag="text-generation",
        tags=["merged", "fairtune"],
    )

    into = {
        "original": "the base model's own weights",
        "dequantized": "the base model's weights, quantized to 4 bits "
        f"({spec.quantization.bnb_4bit_quant_type}) and dequantized, as in training",
    }[task.base_weights]
    if job.imported:
        adapter = f"a LoRA adapter, imported into Fairtune as `{job.run_id}`,"
        report = ["Fairtune does not know on which rows the adapter was trained."]
    else:
        adapter = f"the LoRA adapter of Fairtune's run `{job.run_id}` (step {task.step})"
        report = [
            "The run's bias report, which is of the adapter, has the error rates by group.",
        ]
    lines = [
        "---",
        str(metadata.to_yaml()),
        "---",
        "",
        f"# {escape_markdown(name)}, merged",
        "",
        f"`{spec.base_model}` with {adapter} merged into",
        f"{into}, in {task.dtype}.",
        "It is a classifier: it answers with one of a few labels. The licences of the base model",
        "and of the data apply; Fairtune does not know them.",
        "",
        *intended_use(task.labels, job.template.name),
        "Decisions about people need human review.",
        *report,
        "",
        *prompt_section(prompt_notes),
        "## Comparison with the adapter",
        "",
        "Before publication the merged model was compared with the adapter:",
        f"{comparison_summary(comparison)}.",
        "",
        "## How to load it",
        "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'model = AutoModelForCausalLM.from_pretrained(".")  # the directory of this file',
        'tokenizer = AutoTokenizer.from_pretrained(".")  # the directory of this file',
        "```",
        "",
    ]
    return "\n".join(lines)
