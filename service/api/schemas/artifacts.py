"""Files of a run's result."""

from datetime import datetime

from pydantic import Field

from service.api.schemas.base import View


class ArtifactView(View):
    """A file of the run's result."""

    path: str = Field(description="Path for GET …/artifacts/{path}.")
    size: int = Field(description="Size in bytes.")
    sha256: str = Field(description="SHA-256 of the content.")
    created_at: datetime = Field(description="Time at which the file was stored.")


class ArtifactList(View):
    """Files of the run's result."""

    data: list[ArtifactView] = Field(description="Files by path.")
