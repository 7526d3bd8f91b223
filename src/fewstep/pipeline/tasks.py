"""What a text-to-image model does with pictures, as methods: each is a function of its own module."""

from __future__ import annotations

from fewstep.pipeline.imageto import img2img, inpaint


class Tasks:
    """The methods of `TextPipeline` that take pictures."""

    img2img, inpaint = img2img, inpaint
