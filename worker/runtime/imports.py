"""Fast import of the training libraries, which takes most of the time of a short run."""

import gc
import sys
from pathlib import Path

from service.observability import logs


def load(model: Path, *, in_4bit: bool) -> None:
    """Import the libraries needed for the model in that directory.

    Once per process, before anything else imports peft.
    """
    uses_bitsandbytes = in_4bit or b"bitsandbytes" in (model / "config.json").read_bytes()
    if not uses_bitsandbytes:
        # peft imports it wherever it is installed, and its import compiles functions. Marked like
        # this it counts as not installed (importlib's reference, sys.modules).
        sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]
    # Importing creates a million objects that stay alive. The garbage collector would traverse them
    # again and again, a fifth of the time, and find nothing.
    gc.disable()
    try:
        if uses_bitsandbytes:
            _import_bitsandbytes()
        import accelerate  # noqa: F401
        import peft  # noqa: F401
        from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel  # noqa: F401
    finally:
        gc.freeze()  # later collections skip these objects as well
        gc.enable()
    logs.adopt_libraries()


def _import_bitsandbytes() -> None:
    """Import it without torch's compiler, which takes longer to load than the rest of it.

    bitsandbytes (0.50) passes two functions to torch.compile at import. They are the fallback for
    devices without dequantization kernels of their own; CPUs and NVIDIA GPUs have such kernels. If
    torch cannot compile, it uses the functions uncompiled, and so it does here.
    """
    import torch

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("torch.compile is disabled while bitsandbytes is imported")

    compiler = torch.compile
    torch.compile = refuse  # type: ignore[assignment]  # it is overloaded
    try:
        import bitsandbytes  # noqa: F401
    finally:
        torch.compile = compiler
