"""From a model and what somebody asks for to pictures, each of which knows how to be drawn again.

pipe = fewstep.load("digits")
images = pipe([3, 1, 4], steps=12, seed=7)
images.save("out/pi.png")
again = pipe.redraw(fewstep.drawing.read("out/pi.png"))  # the same pixels
"""

from fewstep.pipeline.difference import Difference, difference
from fewstep.pipeline.draw import LostImages
from fewstep.pipeline.images import Images, sheet_of
from fewstep.pipeline.interpolation import Frames
from fewstep.pipeline.inversion import Inversion
from fewstep.pipeline.masks import read_mask
from fewstep.pipeline.order import Order, Run
from fewstep.pipeline.pictures import read_picture
from fewstep.pipeline.pipeline import Pipeline, load
from fewstep.pipeline.slots import draw_in_slots

__all__ = [
    "Difference",
    "Frames",
    "Images",
    "Inversion",
    "LostImages",
    "Order",
    "Pipeline",
    "Run",
    "difference",
    "draw_in_slots",
    "load",
    "read_mask",
    "read_picture",
    "sheet_of",
]
