"""What a picture was made from where another picture went in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fewstep.core.errors import InvalidInput, one_of
from fewstep.pipeline.fields import Fields
from fewstep.pipeline.recipe import MAX_TEXT, ImageRecipe, PromptRecipe, recipe_from_json
from fewstep.pipeline.tail import MEANINGS

TASKS = ("img2img", "inpaint", "edit")


@dataclass(frozen=True)
class PictureRecipe(PromptRecipe):
    """What images were made from a picture. The picture itself is not kept: drawing again needs it.

    Attributes:
        task: one of `TASKS`.
        picture: digest of the picture's pixels, as they were after fitting; `mask`: of the mask's, for "inpaint".
        strength, strength_of: where it started; the plan holds the times.
        paste: whether the kept pixels are the picture's own, for "inpaint".
        source: the prompt that the picture was inverted with, for "edit".
    """

    task: str = ""
    picture: str = ""
    mask: str | None = None
    strength: float = 1.0
    strength_of: str = "steps"
    paste: bool = False
    source: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("task", self.task, TASKS)
        one_of("strength_of", self.strength_of, MEANINGS)
        if (self.mask is not None) != (self.task == "inpaint") or (self.source is not None) != (self.task == "edit"):
            raise InvalidInput("a mask belongs to inpaint and a source prompt to edit, and to nothing else")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**super().to_json(), **{name: getattr(self, name) for name in _OWN}}

    @staticmethod
    def from_json(value: Any) -> PictureRecipe:
        """The inverse of `to_json`. Raises `InvalidInput`, naming the field."""
        fields = Fields(value, "the recipe", PictureRecipe.__dataclass_fields__)
        shared = PromptRecipe.from_json({name: v for name, v in value.items() if name not in _OWN})
        if value["source"] is not None:
            fields = Fields({**value, "sources": [value["source"]]}, "the recipe", {*value, "sources"})
            fields.texts("sources", 1, 1, MAX_TEXT)
        return PictureRecipe(
            **vars(shared),
            task=fields.text("task"),
            picture=fields.digest("picture"),
            mask=fields.optional("mask", fields.digest),
            strength=fields.number("strength", 0, 1),
            strength_of=fields.text("strength_of"),
            paste=fields.flag("paste"),
            source=value["source"],
        )


_OWN = tuple(name for name in PictureRecipe.__dataclass_fields__ if name not in PromptRecipe.__dataclass_fields__)


def read_recipe(value: Any) -> ImageRecipe:
    """The recipe that `to_json` of any kind wrote. Raises `InvalidInput`, naming the field."""
    if isinstance(value, dict) and "picture" in value:
        return PictureRecipe.from_json(value)
    return recipe_from_json(value)
