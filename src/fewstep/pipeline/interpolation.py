"""Pictures on the way from one noise and one prompt to others.

Noise goes along the great circle, as a straight line between two draws would pass through states of too little norm:

    slerp(u) = (sin((1 - u) w) a + sin(u w) b) / sin w          with w the angle between a and b (Shoemake 1985)

Embeddings of prompts go along the straight line.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.drawing import Drawing, Layout, save_png
from fewstep.drawing.value import several
from fewstep.files import write_whole
from fewstep.models import Conditions, Model
from fewstep.pipeline.draw import draw
from fewstep.pipeline.images import pixels_of, sheet_of, tiles_of
from fewstep.pipeline.order import Origin, ordered
from fewstep.pipeline.stages import Encoded, check, encode
from fewstep.run.noise import START, unit_noise

MAX_FRAMES = 1000


@dataclass(frozen=True, eq=False)
class Frames:
    """The pictures of an interpolation, in order.

    Attributes:
        tensor: (N, 3, H, W), float32, in `value_range` up to what the model overshoots.
        shares: where on the way each frame is, from 0 to 1.
        ends: what the first and the last frame are drawn from.
        nfe: network evaluations per frame, counted; a guided one counts 2.
        seconds: that the drawing took; `timings`: of each stage.
    """

    tensor: Tensor
    value_range: tuple[float, float]
    shares: tuple[float, ...]
    ends: Drawing
    plan: Plan
    nfe: float
    seconds: float
    timings: Mapping[str, float]

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits over what the frames are drawn from, and how many they are."""
        return hashlib.sha256(f"{self.ends.text} {len(self)}".encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.tensor)

    @property
    def images(self) -> list[Image.Image]:
        """One picture for each frame."""
        return tiles_of(pixels_of(self.tensor, self.value_range))

    def save(self, path: str | os.PathLike[str], columns: int | None = None, milliseconds: int = 100) -> Path:
        """Write all frames: a .png has them side by side in rows of `columns`, a .gif one after the other, each shown
        for `milliseconds` (10 to 60,000), again and again.
        """
        target = Path(path)
        if target.suffix.lower() == ".png":
            layout = Layout.fitting(len(self), self.tensor.shape[-1], columns or min(len(self), 8))
            return save_png(sheet_of(self.tensor, self.value_range, layout), target)
        if target.suffix.lower() != ".gif":
            raise InvalidInput(f"frames are written as .png or .gif, got {os.fspath(path)!r}")
        if columns is not None:
            raise InvalidInput("a .gif shows one frame after the other and has no columns: leave them out")
        if type(milliseconds) is not int or not 10 <= milliseconds <= 60_000:
            raise InvalidInput(f"milliseconds must be a whole number from 10 to 60000, got {milliseconds!r}")
        buffer = io.BytesIO()
        first, *rest = self.images
        first.save(buffer, "GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, buffer.getvalue())
        return target


def interpolate(model: Model, prompts: Any, seeds: Any, frames: int, call: Mapping[str, Any]) -> Frames:
    """Draw the pictures between two prompts, two seeds, or both; see `Pipeline.interpolate`."""
    for name in ("seed", "count"):
        if call.get(name) is not None:
            raise InvalidInput(f"{name} means nothing here: give seeds and frames")
    if type(frames) is not int or not 2 <= frames <= MAX_FRAMES:
        raise InvalidInput(f"frames must be a whole number from 2 to {MAX_FRAMES}, got {frames!r}")
    first, last = _ends("prompt", (prompts,) if isinstance(prompts, str) else several(prompts))
    from_seed, to_seed = _ends("seed", (seeds,) if isinstance(seeds, int) else several(seeds))
    if (first, from_seed) == (last, to_seed):
        raise InvalidInput("the first and the last frame are the same: give two prompts, two seeds, or both")
    ends = ordered(model, (first, last), {**call, "seed": (from_seed, to_seed)})
    check(model, ends)
    began = time.perf_counter()
    a, b = encode(model, list(ends.drawing.each), ends.weaker, warn=True)
    shares = tuple(i / (frames - 1) for i in range(frames))
    between = [_encoded_between(a, b, u) for u in shares]
    encoding = time.perf_counter() - began
    shape = model.state_shape(ends.drawing.height, ends.drawing.width)
    begun, ended = (unit_noise([seed], START, torch.empty(1, *shape)) for seed in (from_seed, to_seed))
    states = torch.cat([slerp(begun, ended, u) for u in shares]).to(model.device) * ends.plan.entry[1]
    drawing = ends.drawing.but(prompts=(first,), negative=ends.drawing.negative[:1], count=frames, seed=from_seed)
    drawing = drawing.but(seed=(from_seed,) * frames)
    order = replace(ends, drawing=drawing, origin=Origin(states=(states,), seconds={"encode": encoding}))
    images = draw(model, order, encoded=between)
    timings = {**images.timings, "encode": encoding}
    return Frames(
        images.tensor, images.value_range, shares, ends.drawing, ends.plan, images.nfe, images.seconds, timings
    )


def slerp(a: Tensor, b: Tensor, u: float) -> Tensor:
    """The point at share `u` in [0, 1] of the great circle from `a` to `b`, each (1, ..); a line where they align."""
    x, y = a.double(), b.double()
    cosine = float((x * y).sum() / (x.norm() * y.norm()))
    angle = float(torch.tensor(cosine, dtype=torch.float64).clamp(-1, 1).arccos())
    sine = float(torch.tensor(angle, dtype=torch.float64).sin())
    if sine < 1e-6:
        return torch.lerp(a, b, u)
    weights = torch.tensor([(1 - u) * angle, u * angle], dtype=torch.float64).sin() / sine
    return (weights[0] * x + weights[1] * y).to(a.dtype)


def _encoded_between(a: Encoded, b: Encoded, u: float) -> Encoded:
    negative = None if a.negative is None or b.negative is None else _between(a.negative, b.negative, u)
    weak = None if a.weak is None or b.weak is None else _between(a.weak, b.weak, u)
    return Encoded(_between(a.positive, b.positive, u), negative, weak)


def _between(a: Conditions, b: Conditions, u: float) -> Conditions:
    """Conditions at share `u` of the line from `a` to `b`; between them, a token counts where it counts in either."""
    if u in (0, 1):
        return b if u else a
    return {
        name: (1 - u) * value + u * b[name] if value.is_floating_point() else torch.maximum(value, b[name])
        for name, value in a.items()
    }


def _ends(what: str, values: Any) -> tuple[Any, Any]:
    if not isinstance(values, tuple) or len(values) not in (1, 2):
        raise InvalidInput(f"give one {what}, or two for the two ends, got {values!r:.80}")
    return values[0], values[-1]
