"""Responses of calls that create a resource, or return the one that an earlier call created."""

from fastapi import Response


def set_created(response: Response, location: str, *, is_new: bool) -> None:
    """Set the Location header, and the status 200 instead of 201 if the resource existed."""
    response.headers["Location"] = location
    if not is_new:
        response.status_code = 200
