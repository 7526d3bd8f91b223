"""The trained parts as one folder in the format of diffusers' StableDiffusionPipeline."""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from fewstep.core.errors import InvalidInput
from fewstep.zoo.scenes.diffusion import SCHEDULE
from fewstep.zoo.scenes.words import tokenizer


def assemble(autoencoder: Any, unet: Any, text_encoder: Any, folder: Path) -> None:
    """Write all parts in half precision to `folder`, which must not exist: it appears whole or not at all."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    if folder.exists():
        raise InvalidInput(f"{folder} exists already: give another folder, or remove it")
    parts: dict[str, Any] = {"vae": autoencoder, "text_encoder": text_encoder, "unet": unet}
    halved: dict[str, Any] = {name: copy.deepcopy(part).half() for name, part in parts.items()}
    pipe = StableDiffusionPipeline(
        **halved,
        tokenizer=tokenizer(),
        scheduler=DDIMScheduler(**SCHEDULE),  # type: ignore[arg-type]
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        pipe.save_pretrained(part, safe_serialization=True)
        config = part / "text_encoder" / "config.json"  # transformers runs in this dtype, diffusers in float32
        config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
        os.replace(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
