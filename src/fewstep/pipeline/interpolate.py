"""Pictures on the way from one noise and one prompt to others.

Noise goes along the great circle, as a straight line between two draws would pass through states of too little norm:

    slerp(u) = (sin((1 - u) w) a + sin(u w) b) / sin w          with w the angle between a and b (Shoemake 1985)

Embeddings of prompts go along the straight line.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import torch
from PIL import Image
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.pipeline.asked import Drawing, Settings, asked
from fewstep.pipeline.choices import given_seeds, given_texts
from fewstep.pipeline.conditioning import Embedding, conditioned, embed
from fewstep.pipeline.draw import Canvas, check_cost, draw
from fewstep.pipeline.families import Conditions
from fewstep.pipeline.images import pixels_of, sheet_of, tiles_of
from fewstep.pipeline.png import save_png
from fewstep.pipeline.stamp import Layout
from fewstep.run.noise import START, unit_noise
from fewstep.zoo.container import write_bytes

if TYPE_CHECKING:
    from fewstep.pipeline.text import TextPipeline

MAX_FRAMES = 1000


@dataclass(frozen=True, eq=False)
class Frames:
    """The pictures of an interpolation, in order.

    Attributes:
        tensor: (N, 3, H, W), float32, in `value_range` up to what the model overshoots.
        shares: where on the way each frame is, from 0 to 1.
        nfe: network evaluations per frame, counted; a guided one counts 2.
        seconds: that the drawing took; `timings`: of each stage.
    """

    tensor: Tensor
    value_range: tuple[float, float]
    shares: tuple[float, ...]
    plan: Plan
    nfe: float
    seconds: float
    timings: Mapping[str, float]

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
            layout = Layout.of(len(self), self.tensor.shape[-1], columns or min(len(self), 8))
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
        write_bytes(target, buffer.getvalue())
        return target


def interpolate(
    pipe: TextPipeline,
    prompts: str | Sequence[str],
    *,
    seeds: int | Sequence[int] = 0,
    frames: int = 8,
    height: int | None = None,
    width: int | None = None,
    **settings: Unpack[Drawing],
) -> Frames:
    """Draw the pictures between two prompts, two seeds, or both.

    Args:
        prompts: of the first and the last frame; one for both.
        seeds: of the first and the last frame; one for both. A stochastic sampler's further noise is the first one's.
        frames: 2 to 1000, the two ends included. The ends are what `TextPipeline.__call__` draws.
        settings: as in `TextPipeline.__call__`.

    Raises:
        InvalidInput: the two ends are the same, and what drawing refuses.
        LostImages: some frames are not finite.
    """
    from fewstep.pipeline.text import usual_plan

    first, last = _ends("prompt", given_texts(prompts, "prompt"))
    numbers = given_seeds(seeds)
    from_seed, to_seed = _ends("seed", [numbers] if isinstance(numbers, int) else list(numbers))
    if (first, from_seed) == (last, to_seed):
        raise InvalidInput("the first and the last frame are the same: give two prompts, two seeds, or both")
    if type(frames) is not int or not 2 <= frames <= MAX_FRAMES:
        raise InvalidInput(f"frames must be a whole number from 2 to {MAX_FRAMES}, got {frames!r}")
    size = pipe._size(height, width)

    shown: Settings = {**settings, "count": frames, "seed": (from_seed,) * frames}
    wanted = asked(pipe, first, size, usual_plan, **shown)
    recipe, plan, shape = wanted.recipe, wanted.plan, pipe.latent_shape(*size)
    check_cost(plan, frames, shape, pipe.decoder.pixels(shape))
    shares = tuple(i / (frames - 1) for i in range(frames))
    began = time.perf_counter()
    ends = [(first, recipe.negative(0)), (last, recipe.negative(0))]
    weak = wanted.means.weak
    known = embed(pipe, ends, recipe.guidance, recipe.clip_skip, weak, warn=True)
    pairs: list[tuple[str, str | None]] = [(f"frame {i}", None) for i in range(frames)]
    embedded = {
        pair: Embedding(*(_between(a, b, u) for a, b in zip(known[ends[0]], known[ends[1]], strict=True)))
        for pair, u in zip(pairs, shares, strict=True)
    }
    encoding = time.perf_counter() - began
    a, b = (unit_noise([seed], START, torch.empty(1, *shape)) for seed in (from_seed, to_seed))

    def start(part: slice, _: Sequence[int]) -> Tensor:
        return torch.cat([slerp(a, b, u) for u in shares[part]]).to(pipe.device) * plan.entry[1]

    canvas = Canvas(
        shape=shape,
        pixels=pipe.decoder.pixels(shape),
        value_range=(-1.0, 1.0),
        denoiser=lambda counted, part: conditioned(
            pipe, embedded, pairs[part], recipe.guidance, size, weak=weak, counted=counted, plan=plan
        ),
        decode=lambda latents: pipe.decoder(latents, sliced=recipe.sliced, tiled=recipe.tiled),
        overlap=wanted.means.overlap,
        device=pipe.device,
        start=start,
    )
    images = draw(recipe, plan, canvas, wanted.means.on_row, {"encode": encoding})
    return Frames(images.tensor, images.value_range, shares, plan, images.nfe, images.seconds, images.timings)


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


def _between(a: Conditions, b: Conditions, u: float) -> Conditions:
    """Conditions at share `u` of the line from `a` to `b`; between them, a token counts where it counts in either."""
    if u in (0, 1):
        return b if u else a
    return {
        name: (1 - u) * value + u * b[name] if value.is_floating_point() else torch.maximum(value, b[name])
        for name, value in a.items()
    }


def _ends(what: str, values: list[Any]) -> tuple[Any, Any]:
    if len(values) not in (1, 2):
        raise InvalidInput(f"give one {what}, or two for the two ends, got {len(values)}")
    return values[0], values[-1]
