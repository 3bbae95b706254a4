"""Prompt templates: how a row becomes a chat, and what a label is called in the answer."""

import re
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

_PLACEHOLDER = re.compile(r"\$(\w+)")


class Template(BaseModel):
    """A chat of one turn. ``$text`` and ``$group`` in `user`, ``$label`` in `completion`.

    Invariant: `user` holds ``$text`` exactly once, `completion` holds ``$label`` exactly once, the
    label words differ, and no pattern names any other placeholder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    description: str
    system: str | None
    user: str
    completion: str
    labels: dict[str, str] | None = Field(
        description="Label of the data -> word in the answer; null: the label itself."
    )

    @model_validator(mode="after")
    def _placeholders(self) -> Self:
        allowed = {"user": {"text", "group"}, "completion": {"label"}, "system": set[str]()}
        needed = {"user": "text", "completion": "label"}
        for field, names in allowed.items():
            found = _PLACEHOLDER.findall(getattr(self, field) or "")
            if unknown := sorted(set(found) - names):
                raise PydanticCustomError(
                    "placeholder", "{text}", {"text": f"{field} names unknown ${unknown[0]}"}
                )
            if field in needed and found.count(needed[field]) != 1:
                text = f"{field} must hold ${needed[field]} exactly once"
                raise PydanticCustomError("placeholder", "{text}", {"text": text})
        if self.labels is not None and len(set(self.labels.values())) != len(self.labels):
            raise PydanticCustomError("labels", "two labels have the same word")
        return self

    @property
    def shows_group(self) -> bool:
        """Whether the model sees the row's group: a choice that the report states."""
        return "$group" in self.user

    def completion_for(self, label: str) -> str:
        """The whole answer for `label`. Raises KeyError where the template has no word for it."""
        word = label if self.labels is None else self.labels[label]
        return self.completion.replace("$label", word)

    def split_user(self, group: str | None) -> tuple[str, str]:
        """The user's turn before and after the text, the group filled in (``unknown`` if none).

        The text itself is not put in here: it is tokenised on its own, so that nothing in it is
        read as a placeholder or as a special token of the model.
        """
        before, after = self.user.split("$text")
        shown = group if group is not None else "unknown"
        return before.replace("$group", shown), after.replace("$group", shown)
