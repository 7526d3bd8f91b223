"""The trained parts as one folder in the format of diffusers' StableDiffusionPipeline."""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from fewstep.core.errors import InvalidInput
from fewstep.zoo.scenes.networks import SCHEDULE
from fewstep.zoo.scenes.words import tokenizer

GUIDANCE = 2.0
"""The guidance scale that the folder recommends, as the shipped one does."""


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
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as around:
        part = Path(around) / folder.name
        pipe.save_pretrained(part, safe_serialization=True)
        _tidy(part)
        os.replace(part, folder)


def _tidy(folder: Path) -> None:
    """Make what the libraries wrote the same wherever it was written, and readable for older releases of them."""
    for config in folder.glob("*/config.json"):
        facts = json.loads(config.read_text())
        facts.pop("_name_or_path", None)  # where the part was loaded from
        if config.parent.name == "text_encoder":
            facts["dtype"] = "float32"  # transformers runs in this dtype, diffusers in float32
        config.write_text(json.dumps(facts, indent=2) + "\n")
        for weights in config.parent.glob("*.safetensors"):
            shutil.copymode(config, weights)
    weights = folder / "text_encoder" / "model.safetensors"
    tensors = {f"text_model.{name.removeprefix('text_model.')}": t for name, t in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})  # the names of Stable Diffusion's, known to every release
    shutil.copymode(folder / "text_encoder" / "config.json", weights)
    (folder / "fewstep.json").write_text(json.dumps({"guidance": {"scale": GUIDANCE}}) + "\n")
    model = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())["model"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False) + "\n")
    (folder / "tokenizer" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
