"""README.md of a merged model, as the Hub, transformers and people read it."""

from service.domain.job import Job
from service.domain.merge import MergeComparison, MergeTask
from worker.merging.comparison import stated
from worker.training.model_card import one_line, plain


def merged_card(job: Job, task: MergeTask, found: MergeComparison) -> str:
    """The whole file."""
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
    answers = ", ".join(f"`{plain(label)}`" for label in task.labels) or "labels"
    into = {
        "original": "the base model's own weights",
        "dequantized": "the base model's weights after a way through 4 bits "
        f"({spec.quantization.bnb_4bit_quant_type}), which is what the training saw",
    }[task.base_weights]
    lines = [
        "---",
        str(metadata.to_yaml()),
        "---",
        "",
        f"# {plain(name)}, merged",
        "",
        f"`{spec.base_model}` with the LoRA adapter of Fairtune's run `{job.run_id}` (step",
        f"{task.step}) merged into {into}, in {task.dtype}.",
        "It is a classifier: it answers with one of a few labels. Its licence is that of the base",
        "model and of the data, which Fairtune does not know.",
        "",
        "## Intended use",
        "",
        f"Classifying short texts into {answers} under the prompt template `{job.template.name}`.",
        "The probability of a label is that of its whole answer against the other labels' answers.",
        "Not for decisions about people without a person who looks at them. Whom it gets wrong is",
        "in the run's bias report, which is of the adapter.",
        "",
        "## Against the adapter",
        "",
        f"Before it was published it was compared with the adapter: {stated(found)}.",
        "",
        "## How to load it",
        "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'model = AutoModelForCausalLM.from_pretrained("this directory")',
        'tokenizer = AutoTokenizer.from_pretrained("this directory")',
        "```",
        "",
    ]
    return "\n".join(lines)
