"""Prompt templates: the chat rendered from a row, and the word that stands for each label."""

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

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description="Name in `template`.")
    description: str = Field(description="Purpose of the template.")
    system: str | None = Field(description="System turn; null: none.")
    user: str = Field(description="User turn, with $text and optionally $group.")
    completion: str = Field(description="Assistant turn, with $label.")
    labels: dict[str, str] | None = Field(
        description="Word in the completion for each label of the data; null: the label itself."
    )

    @model_validator(mode="after")
    def _placeholders(self) -> Self:
        allowed = {"user": {"text", "group"}, "completion": {"label"}, "system": set[str]()}
        needed = {"user": "text", "completion": "label"}
        for field, names in allowed.items():
            placeholders = _PLACEHOLDER.findall(getattr(self, field) or "")
            if unknown := sorted(set(placeholders) - names):
                text = f"{field} contains the unknown placeholder ${unknown[0]}"
                raise PydanticCustomError("placeholder", "{text}", {"text": text})
            if field in needed and placeholders.count(needed[field]) != 1:
                text = f"{field} must contain ${needed[field]} exactly once"
                raise PydanticCustomError("placeholder", "{text}", {"text": text})
        if self.labels is not None and len(set(self.labels.values())) != len(self.labels):
            raise PydanticCustomError("labels", "two labels have the same word")
        return self

    @property
    def shows_group(self) -> bool:
        """True if the model sees the row's group: a choice that the report states."""
        return "$group" in self.user

    def completion_for(self, label: str) -> str:
        """Return the completion for `label`. Raises KeyError if the template has no word for it."""
        word = label if self.labels is None else self.labels[label]
        return self.completion.replace("$label", word)

    def split_user(self, group: str | None) -> tuple[str, str]:
        """Return the user's turn before and after the text, with the group (``unknown`` if none).

        The text itself is not inserted here: it is tokenized on its own, so that nothing in it is
        read as a placeholder or as a special token of the model.
        """
        before, after = self.user.split("$text")
        name = group if group is not None else "unknown"
        return before.replace("$group", name), after.replace("$group", name)
