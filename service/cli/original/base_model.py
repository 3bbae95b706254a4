"""`model_name_or_path`: a name goes to the server; a directory only to a server started here."""

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from service.cli.errors import ExitStatus, refuse
from service.domain.spec import MODEL_NAME

if TYPE_CHECKING:
    from service.cli.original.specification import TrainingRequest


def local_model(request: "TrainingRequest") -> Path | None:
    """Return the directory of the request's base model; None for the name of a model.

    As in transformers, an existing directory comes before a name. Exits if it cannot be used.
    """
    name = request.specification.get("base_model")
    return None if name is None else model_directory(name, "model_name_or_path")


def model_directory(name: str, key: str) -> Path | None:
    """Return the directory if `name` is one, else None. Exits if it is the path of no model."""
    path = Path(name).expanduser()
    if (path / "config.json").is_file():
        path = path.resolve()
        if "/" in path.name or not MODEL_NAME.fullmatch(path.name):
            refuse(
                f"{key}: the directory {path} cannot be a model's name: rename it to letters, "
                "digits, dots, hyphens and underscores",
                status=ExitStatus.USAGE,
            )
        return path
    if not MODEL_NAME.fullmatch(name):
        refuse(
            f"{key}: {name} is neither a directory with a config.json nor the name of a model",
            status=ExitStatus.USAGE,
        )
    return None


def refuse_path(path: Path) -> NoReturn:
    """Exit: a running server reads no paths of its users."""
    refuse(
        f"model_name_or_path: {path} is a directory, and a running server takes names only: link "
        f"it below the server's models directory (ln -s {path} MODELS_DIR/) and use "
        f"--model_name_or_path {path.name}, or stop the server: the command then starts one that "
        "has this directory"
    )
