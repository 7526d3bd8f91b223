"""A folder is known by its parts, whatever pipeline of diffusers they were saved from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

import fewstep as fs
from fewstep.models import recommended_by
from fewstep.models.families import PIXART_ALPHA, PIXART_SIGMA, TEXT_FAMILIES
from fewstep.models.kinds import kind_of
from fewstep.pipeline import load

from .tiny_diffusers import Twins

Models = Callable[..., Twins]
CLIP, T5 = ["transformers", "CLIPTextModel"], ["transformers", "T5EncoderModel"]
SD = {
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": CLIP,
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "safety_checker": [None, None],
    "requires_safety_checker": False,
}
PIXART = {
    "transformer": ["diffusers", "PixArtTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": T5,
    "tokenizer": ["transformers", "T5Tokenizer"],
    "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
}


def under(name: str, folder: Path, target: Path, **changes: Any) -> Path:
    """A copy of a folder whose index names another pipeline."""
    shutil.copytree(folder, target)
    index = target / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": name, **changes}))
    return target


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("sd", "StableDiffusionImg2ImgPipeline"),
        ("sd", "StableDiffusionPAGPipeline"),
        ("lcm", "LatentConsistencyModelImg2ImgPipeline"),
        ("sdxl", "StableDiffusionXLImg2ImgPipeline"),
        ("sd3", "StableDiffusion3InpaintPipeline"),
        ("flux", "FluxImg2ImgPipeline"),
        ("sana", "SanaPAGPipeline"),
        ("ddpm", "PNDMPipeline"),
    ],
)
def test_parts_are_loaded_under_the_name_of_another_pipeline(
    models: Models, tmp_path: Path, family: str, name: str
) -> None:
    whole, own, folder = models(family)
    if family == "sd":
        getattr(diffusers, name)(**own.components, requires_safety_checker=False)  # which diffusers builds of them
    found = load(under(name, folder, tmp_path / family))
    assert (found.model.digest, found.model.recommended) == (whole.model.digest, whole.model.recommended)
    assert found.model.conditioner.task == whole.model.conditioner.task


@pytest.mark.parametrize(
    ("name", "parts", "kind"),
    [
        ("StableDiffusionImg2ImgPipeline", SD, "StableDiffusionPipeline"),
        (
            "StableDiffusionImg2ImgPipeline",
            {**SD, "safety_checker": ["diffusers", "Checker"]},
            "StableDiffusionPipeline",
        ),
        ("StableDiffusionControlNetPipeline", {**SD, "controlnet": ["diffusers", "ControlNetModel"]}, None),
        ("StableDiffusionUpscalePipeline", {**SD, "low_res_scheduler": ["diffusers", "DDPMScheduler"]}, None),
        ("AltDiffusionPipeline", {**SD, "text_encoder": ["alt", "RobertaSeriesModel"]}, None),
        ("StableDiffusionXLImg2ImgPipeline", {**SD, "text_encoder_2": CLIP}, None),
        ("PixArtSigmaPAGPipeline", PIXART, "PixArtSigmaPipeline"),
        ("SomePixArtPipeline", PIXART, None),
        (["my_code", "Pipeline"], SD, None),
    ],
)
def test_a_kind_is_the_one_whose_parts_are_there_and_no_others(
    name: Any, parts: dict[str, Any], kind: str | None
) -> None:
    assert kind_of({"_class_name": name, **parts}) == kind
    assert TEXT_FAMILIES["PixArtAlphaPipeline"] is PIXART_ALPHA is not PIXART_SIGMA


def test_a_pipeline_of_other_parts_is_refused_by_name(models: Models, tmp_path: Path) -> None:
    folder = models("sd").folder
    net = ["diffusers", "ControlNetModel"]
    controlled = under("StableDiffusionControlNetPipeline", folder, tmp_path / "a", controlnet=net)
    with pytest.raises(
        fs.InvalidInput, match=r"StableDiffusionControlNetPipeline is not a pipeline that fewstep knows"
    ):
        load(controlled)
    with pytest.raises(fs.InvalidInput, match="unknown kind of model 'StableDiffusionImg2ImgPipelin'"):
        load(under("StableDiffusionImg2ImgPipelin", folder, tmp_path / "b"))
    assert recommended_by(str(controlled)) == {}


def test_a_refiner_which_is_told_a_score_is_refused(models: Models, tmp_path: Path) -> None:
    folder = under("StableDiffusionXLImg2ImgPipeline", models("sdxl").folder, tmp_path / "refiner")
    path = folder / "unet/config.json"
    config = json.loads(path.read_text())
    config["projection_class_embeddings_input_dim"] -= config["addition_time_embed_dim"]
    unet = diffusers.UNet2DConditionModel.from_config(config)
    unet.save_pretrained(folder / "unet")
    with pytest.raises(fs.InvalidInput, match="is told 5 numbers beside its text, such as an aesthetic score"):
        load(folder)


def test_a_part_without_a_variant_is_read_without_it(models: Models, tmp_path: Path) -> None:
    whole, own, _ = models("sd")
    folder = tmp_path / "half"
    own.save_pretrained(folder, variant="fp16")
    own.vae.save_pretrained(folder / "vae")
    (folder / "vae/diffusion_pytorch_model.fp16.safetensors").unlink()
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(folder, variant="fp16", safety_checker=None)
    assert torch.equal(theirs.vae.decoder.conv_in.weight, own.vae.decoder.conv_in.weight)
    found = load(folder, variant="fp16")
    assert torch.equal(found("lion", steps=2).tensor, whole("lion", steps=2).tensor)
    for wrong in ({}, {"variant": "fp61"}):
        with pytest.raises(fs.InvalidInput, match=r"holds no .*name the variant"):
            load(folder, **wrong)


def test_the_plain_weights_of_a_part_without_a_variant_are_fetched(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    own, folder = models("sd").own, tmp_path / "half"
    own.save_pretrained(folder, variant="fp16")
    own.vae.save_pretrained(folder / "vae")
    (folder / "vae/diffusion_pytorch_model.fp16.safetensors").unlink()
    asked: list[list[str]] = []

    def fetch(name: str, **options: Any) -> str:
        asked.append(options["allow_patterns"])
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    load("org/half", variant="fp16")
    assert "*diffusion_pytorch_model.fp16.safetensors" in asked[0]
    assert [pattern for pattern in asked[1] if "safetensors" in pattern and "of" not in pattern] == [
        "vae/*diffusion_pytorch_model.safetensors", "vae/*model.safetensors",
    ]  # fmt: skip
