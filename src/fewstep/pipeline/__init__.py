"""From a model and labels to pictures, each of which knows how to be drawn again.

pipe = fewstep.load("digits")
images = pipe([3, 1, 4], steps=12, seed=7)
images.save("out/pi.png")
again = pipe.redraw(fewstep.pipeline.read("out/pi.png").recipe)  # the same pixels
"""

from fewstep.pipeline.bulk import JobReport, draw_job
from fewstep.pipeline.cache import CacheCounts, TensorCache
from fewstep.pipeline.choices import PRESETS, preset
from fewstep.pipeline.conditioning import NoEffect
from fewstep.pipeline.draw import LostImages
from fewstep.pipeline.encode import TruncatedPrompt
from fewstep.pipeline.guidance import Guidance
from fewstep.pipeline.images import Images, sheet_of
from fewstep.pipeline.input import read_mask, read_picture
from fewstep.pipeline.interpolate import Frames
from fewstep.pipeline.inversion import Inversion
from fewstep.pipeline.job import SETTINGS, Item, Job
from fewstep.pipeline.loading import load
from fewstep.pipeline.picturerecipe import PictureRecipe
from fewstep.pipeline.pipeline import Pipeline
from fewstep.pipeline.png import png_path, save_png
from fewstep.pipeline.promptfile import Line as PromptLine
from fewstep.pipeline.promptfile import read_prompts
from fewstep.pipeline.recipe import ImageRecipe, PlanSource, PromptRecipe
from fewstep.pipeline.stamp import Layout, Stamp, read
from fewstep.pipeline.text import TextPipeline

__all__ = [
    "PRESETS",
    "SETTINGS",
    "CacheCounts",
    "Frames",
    "Guidance",
    "ImageRecipe",
    "Images",
    "Inversion",
    "Item",
    "Job",
    "JobReport",
    "Layout",
    "LostImages",
    "NoEffect",
    "PictureRecipe",
    "Pipeline",
    "PlanSource",
    "PromptLine",
    "PromptRecipe",
    "Stamp",
    "TensorCache",
    "TextPipeline",
    "TruncatedPrompt",
    "draw_job",
    "load",
    "png_path",
    "preset",
    "read",
    "read_mask",
    "read_picture",
    "read_prompts",
    "save_png",
    "sheet_of",
]
