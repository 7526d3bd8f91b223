"""The scenes that the denoiser learns from: their latents, encoded once and kept in a file, and captions of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.training import Batch
from fewstep.training.draws import key_of
from fewstep.zoo import container
from fewstep.zoo.checkpoint import weights_digest
from fewstep.zoo.scenes.caption import caption, keyword
from fewstep.zoo.scenes.picture import picture
from fewstep.zoo.scenes.scene import Description, Scene, draw_description, placed
from fewstep.zoo.scenes.words import token_ids

SHORT = 0.05
"""Share of the captions that are a keyword."""
CAPTIONS = 16
"""Captions of a scene; a run that is longer than so many epochs meets them again."""
PART, MOST_BYTES = 256, 1 << 32


class Pool(NamedTuple):
    """Scaled latents (count, 8, 8, 8) of scenes, what these show, and facts that name them."""

    latents: Tensor
    descriptions: list[Description]
    facts: Mapping[str, Any]


def latent_pool(autoencoder: Any, count: int, seed: int, path: Path) -> Pool:
    """`count` scenes; their latents stay in a file at `path`. Raises `InvalidInput` where that holds other ones."""
    config = {name: value for name, value in autoencoder.config.items() if not name.startswith("_")}
    digest = weights_digest(autoencoder.state_dict(), json.dumps(config, sort_keys=True))
    facts = {"autoencoder": digest, "count": count, "seed": seed}
    ready: Tensor | None = None
    if path.exists():
        file = container.read(path, MOST_BYTES)
        if json.loads(file.metadata.get("pool", "null")) != facts:
            raise InvalidInput(
                f"{path} holds the latents of other scenes or of another autoencoder: remove it, or name another folder"
            )
        ready = file.tensors()["latents"]
    rng = np.random.default_rng((seed, 2))
    found: list[Description] = []
    latents: list[Tensor] = []
    for done in range(0, count, PART):
        scenes: list[Scene] = []
        for _ in range(min(PART, count - done)):
            found.append(draw_description(rng, held_out=False))
            scenes.append(placed(found[-1], rng))
        if ready is None:
            x = torch.from_numpy(np.stack([picture(scene) for scene in scenes]))
            with torch.no_grad():
                mean = autoencoder.encode(x.permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist.mean
            latents.append((mean * autoencoder.config.scaling_factor).half())
    if ready is None:
        ready = torch.cat(latents).contiguous()  # as it is read from the file, since networks round by the layout
        container.write(path, {"latents": ready}, {"pool": facts})
    return Pool(ready, found, facts)


@dataclass(frozen=True, eq=False)
class Captioned:
    """The latents of a pool with the tokens of a caption, `ids`; each scene is there `CAPTIONS` times.

    Sample n is scene n % scenes, and its caption depends on the seed and n alone. The empty condition is no words.
    """

    pool: Pool
    tokens: Any
    seed: int
    device: torch.device | str = "cpu"

    @property
    def count(self) -> int:
        """How many there are."""
        return CAPTIONS * len(self.pool.descriptions)

    @property
    def identity(self) -> Mapping[str, Any]:
        """Their name, and what names the scenes."""
        return {"name": "scenes", **self.pool.facts}

    def batch(self, numbers: Sequence[int]) -> Batch:
        """Some of them."""
        places = [number % len(self.pool.descriptions) for number in numbers]
        texts = [self.said(number) for number in numbers]
        ids = token_ids(self.tokens, [*texts, ""]).to(self.device)
        empty = ids[-1:].expand(len(numbers), -1)
        return Batch(self.pool.latents[places].float().to(self.device), None, {"ids": ids[:-1]}, {"ids": empty})

    def said(self, number: int) -> str:
        """What the network is told of a sample."""
        rng = np.random.default_rng(key_of(self.seed, "caption", number))
        description = self.pool.descriptions[number % len(self.pool.descriptions)]
        return keyword(description, rng) if rng.random() < SHORT else caption(description, rng)
