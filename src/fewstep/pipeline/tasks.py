"""What a text-to-image model does with pictures, as methods; each is a function of its own module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.pipeline.draw import Means
from fewstep.pipeline.images import Images
from fewstep.pipeline.imageto import drawn_img2img, drawn_inpaint, encoded, img2img, inpaint
from fewstep.pipeline.input import Picture, read_mask
from fewstep.pipeline.interpolate import interpolate
from fewstep.pipeline.inversion import drawn_edit, edit, invert
from fewstep.pipeline.picturerecipe import PictureRecipe
from fewstep.pipeline.vaecode import digest_of

if TYPE_CHECKING:
    from fewstep.pipeline.text import TextPipeline


class Tasks:
    """The methods of `TextPipeline` that take pictures."""

    img2img, inpaint = img2img, inpaint
    invert, edit = invert, edit
    interpolate = interpolate


def redraw(
    pipe: TextPipeline,
    recipe: PictureRecipe,
    plan: Plan,
    image: Picture | None,
    mask: Picture | None,
    fit: str,
    means: Means,
) -> Images:
    """Draw the images of a recipe again, whose picture and mask have to be given once more."""
    if image is None or (mask is None) != (recipe.mask is None):
        needed = "the picture and the mask" if recipe.mask is not None else "the picture, and no mask,"
        raise InvalidInput(f"this was drawn by {recipe.task}: give {needed} that it was drawn from")
    size = recipe.height, recipe.width
    picture = encoded(pipe, image, size, fit)
    _same("picture", digest_of(picture.pixels), recipe.picture)
    if recipe.task == "edit":
        return drawn_edit(pipe, recipe, plan, picture, means)
    if mask is None:
        return drawn_img2img(pipe, recipe, plan, picture, means)
    chosen = read_mask(mask, size, fit)
    _same("mask", digest_of(chosen), recipe.mask)
    return drawn_inpaint(pipe, recipe, plan, picture, chosen, means)


def _same(what: str, got: str, wanted: str | None) -> None:
    if got != wanted:
        raise InvalidInput(
            f"the {what} has the digest {got} after fitting, the recipe is of {wanted}: give the same {what} and fit"
        )
