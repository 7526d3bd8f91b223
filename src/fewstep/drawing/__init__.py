"""What somebody asks for, as values: a drawing, how it was made, and the text in a picture."""

from fewstep.drawing import names
from fewstep.drawing.drawing import Decode, Drawing, Estimate, Source
from fewstep.drawing.guidance import Guidance
from fewstep.drawing.lora import LoRA
from fewstep.drawing.made import Layout, Made, Stamp
from fewstep.drawing.overlay import PRESETS, Overlay, merged, preset
from fewstep.drawing.png import png_bytes, png_path, read, save_png
from fewstep.drawing.sampling import Sampling
from fewstep.drawing.value import Options

__all__ = [
    "PRESETS",
    "Decode",
    "Drawing",
    "Estimate",
    "Guidance",
    "Layout",
    "LoRA",
    "Made",
    "Options",
    "Overlay",
    "Sampling",
    "Source",
    "Stamp",
    "merged",
    "names",
    "png_bytes",
    "png_path",
    "preset",
    "read",
    "save_png",
]
