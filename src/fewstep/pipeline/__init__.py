"""From a model and labels to pictures, each of which knows how to be drawn again.

pipe = fewstep.load("digits")
images = pipe([3, 1, 4], steps=12, seed=7)
images.save("out/pi.png")
again = pipe.redraw(fewstep.pipeline.read("out/pi.png").recipe)  # the same pixels
"""

from fewstep.pipeline.images import Images, sheet_of
from fewstep.pipeline.pipeline import LostImages, Pipeline, load
from fewstep.pipeline.png import png_path, save_png
from fewstep.pipeline.recipe import Guidance, ImageRecipe, PlanSource
from fewstep.pipeline.stamp import Layout, Stamp, read

__all__ = [
    "Guidance",
    "ImageRecipe",
    "Images",
    "Layout",
    "LostImages",
    "Pipeline",
    "PlanSource",
    "Stamp",
    "load",
    "png_path",
    "read",
    "save_png",
    "sheet_of",
]
