"""The training libraries, loaded at once and as fast as they can be: most of a short run's time."""

import gc
import sys
from pathlib import Path

from service.observability import logs


def load(model: Path, *, in_4bit: bool) -> None:
    """Import what training on the model in that directory needs.

    Once per process, before anything else imports peft.
    """
    quantizes = in_4bit or b"bitsandbytes" in (model / "config.json").read_bytes()
    if not quantizes:
        # peft loads it wherever it is installed, and it compiles functions while it is loaded.
        # Marked like this it counts as not installed (importlib's reference, sys.modules).
        sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]
    # Importing makes a million objects that stay. The collector would walk through those that are
    # there again and again, a fifth of the time, and find nothing.
    gc.disable()
    try:
        if quantizes:
            _import_bitsandbytes()
        import accelerate  # noqa: F401
        import peft  # noqa: F401
        from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel  # noqa: F401
    finally:
        gc.freeze()  # nor need it ever look at them later
        gc.enable()
    logs.adopt_libraries()


def _import_bitsandbytes() -> None:
    """Without the compiler of torch, which takes longer to load than all the rest of it.

    bitsandbytes (0.50) hands two functions to torch.compile while it is loaded. They stand in where
    a device has no kernels of its own for dequantizing: CPUs and NVIDIA's GPUs have. Where torch
    cannot compile it takes them as they are, and so it does here.
    """
    import torch

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("not while bitsandbytes is loaded")

    compiler = torch.compile
    torch.compile = refuse  # type: ignore[assignment]  # it has two forms
    try:
        import bitsandbytes  # noqa: F401
    finally:
        torch.compile = compiler
