"""What is drawn with where nobody says otherwise: not the caller, not a preset, not the model's own folder."""

from __future__ import annotations

from fewstep.drawing.overlay import Overlay

CLASSES: Overlay = {"sampling": {"sampler": "ipndm-3", "steps": 12, "grid": "quadratic"}}
"""For models of classes of which nothing is known: the pair that was nearest to the converged images, on average over
several models (`benchmarks/contenders.py`).
"""
EDM: Overlay = {"sampling": {"sampler": "dpmpp-2m", "steps": 20, "grid": "karras"}}
"""For those on an edm schedule, whose time is sigma: other grids have nearly all of their times in pure noise."""
SHIPPED: dict[str, Overlay] = {"digits": {"sampling": {"sampler": "deis-3", "steps": 12, "grid": "quadratic"}}}
"""For shipped models in one file: on the digits this has the least error in 6 to 16 steps."""
WORDS: Overlay = {"sampling": {"sampler": "dpmpp-2m", "steps": 20, "grid": "trailing"}}
"""For models that take prompts."""
INVERSION: Overlay = {"sampling": {"sampler": "ddim", "steps": 50, "grid": "trailing"}}
"""Over these, for the way from a picture to its noise and back."""
CLASS_GUIDANCE = 2.0
CLASS_BATCH, WORD_BATCH = 100, 4
"""Images that the network sees at once."""
STRENGTHS = {"img2img": 0.8, "inpaint": 1.0, "edit": 1.0}
"""How much of a picture is drawn anew, by task."""


def of_classes(kind: str) -> Overlay:
    """For a model of classes, by the kind of its noise schedule."""
    return EDM if kind == "edm" else CLASSES


def on_schedule(overlay: Overlay, kind: str) -> Overlay:
    """What was written for any model, on a kind of noise schedule: on edm the grid is that of `EDM`."""
    sampling = overlay.get("sampling", {})
    if kind != "edm" or "grid" not in sampling:
        return overlay
    return {**overlay, "sampling": {**sampling, "grid": EDM["sampling"]["grid"]}}
