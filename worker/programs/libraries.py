"""The training libraries, loaded at once and as fast as they can be: most of a short run's time."""

import gc
import sys
from pathlib import Path

from service import logs


def load(model: Path, *, in_4bit: bool) -> None:
    """Import what training on the model in that directory needs.

    Once per process, before anything else imports peft.
    """
    if not in_4bit and b"bitsandbytes" not in (model / "config.json").read_bytes():
        # peft loads it wherever it is installed, and it compiles functions while it is loaded.
        # Marked like this it counts as not installed (importlib's reference, sys.modules).
        sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]
    # Importing makes a million objects that stay. The collector would walk through those that are
    # there again and again, a fifth of the time, and find nothing.
    gc.disable()
    try:
        import accelerate  # noqa: F401
        import peft  # noqa: F401
        from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel  # noqa: F401
    finally:
        gc.freeze()  # nor need it ever look at them later
        gc.enable()
    logs.adopt_libraries()
