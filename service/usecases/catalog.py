"""Use case: list the base models that are available without a model hub."""

import importlib.util
from pathlib import Path
from typing import Literal, NamedTuple

from service.domain.base_models import BUNDLED_MODEL, BUNDLED_PACKAGE


class LocalModel(NamedTuple):
    name: str
    source: Literal["directory", "bundled"]


def local_models(models_dir: Path) -> list[LocalModel]:
    """Return the models in `models_dir` by name, then the bundled one unless it is there too."""
    config_files = [*models_dir.glob("*/config.json"), *models_dir.glob("*/*/config.json")]
    names = {path.parent.relative_to(models_dir).as_posix() for path in config_files}
    models = [LocalModel(name, "directory") for name in sorted(names) if not name.startswith(".")]
    if BUNDLED_MODEL not in names and importlib.util.find_spec(BUNDLED_PACKAGE) is not None:
        models.append(LocalModel(BUNDLED_MODEL, "bundled"))
    return models
