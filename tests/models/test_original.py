"""Original checkpoints: one file with all parts draws what the folder in diffusers' format draws."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from diffusers.loaders import single_file_utils
from safetensors.torch import save_file

import fewstep as fs
from fewstep.models.original import _diffusers_names, default_config
from fewstep.pipeline import load
from fewstep.zoo import container

from . import originals
from .test_families import PROMPTS, SIZE, apart, noise
from .tiny_diffusers import Twins

Models = Callable[..., Twins]


def bare(folder: Path, target: Path) -> Path:
    """A copy of a folder without any weights."""
    return shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors"))


def drawn(pipe: Any) -> torch.Tensor:
    plan = pipe.plan("unipc-3", steps=4, **SIZE)
    start = noise((2, *pipe.state_shape(**SIZE)))
    return fs.sample(plan, pipe.denoiser(PROMPTS, guidance=4.0, negative="blue", **SIZE), noise=start)


def same(found: Any, whole: Any) -> None:
    assert (found.model.prediction, found.model.schedule.spec) == (whole.model.prediction, whole.model.schedule.spec)
    assert apart(drawn(found), drawn(whole)) < 1e-5
    latents = noise((1, 4, 4, 6), 3)
    assert apart(found.decode(latents), whole.decode(latents)) < 1e-5


@pytest.fixture(scope="module")
def checkpoint(models: Models, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Stable Diffusion as one file, and its configurations."""
    place = tmp_path_factory.mktemp("original")
    _, own, folder = models("sd")
    return originals.write(place / "v1-5-pruned.safetensors", **originals.sd_parts(own)), bare(folder, place / "config")


@pytest.mark.parametrize("name", ["sd", "sd2"])
def test_stable_diffusion_as_one_file(models: Models, tmp_path: Path, name: str) -> None:
    whole, own, folder = models(name)
    parts = originals.sd_parts(own)
    if name == "sd2":  # its text encoder is OpenCLIP's
        del parts["cond_stage_model__transformer__"]
        parts["cond_stage_model__model__"] = originals.open_clip(own.text_encoder)
    path = originals.write(tmp_path / "one.safetensors", **parts, model_ema__={"decay": torch.ones(())})
    found: Any = load(path, config=bare(folder, tmp_path / "config"))
    same(found, whole)
    assert found.name == "one"


def test_sdxl_as_one_file(models: Models, tmp_path: Path) -> None:
    whole, own, folder = models("sdxl")
    path = originals.write(
        tmp_path / "xl.safetensors",
        model__diffusion_model__=originals.unet(own.unet),
        first_stage_model__=originals.vae(own.vae),
        conditioner__embedders__0__transformer__=originals.clip(own.text_encoder),
        conditioner__embedders__1__model__=originals.open_clip(own.text_encoder_2),
    )
    found: Any = load(path, config=bare(folder, tmp_path / "config"))
    assert found.model.conditioner.zero_negative
    same(found, whole)


def test_parts_that_the_file_does_not_hold_are_those_of_the_folder(models: Models, tmp_path: Path) -> None:
    whole, own, folder = models("sd3", t5=True)
    path = originals.write(tmp_path / "alone.safetensors", **{"": originals.sd3(own.transformer)})
    for part in ("transformer", "vae"):
        assert (folder / part / "diffusion_pytorch_model.safetensors").is_file()
    without = shutil.copytree(
        folder,
        tmp_path / "without",
        ignore=lambda place, names: [
            name for name in names if name.endswith(".safetensors") and Path(place).name == "transformer"
        ],
    )
    same(load(path, config=without), whole)
    (without / "vae/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(fs.InvalidInput, match=r"alone.safetensors holds no vae, and the configuration has none"):
        load(path, config=without)


def test_t5_of_sd3_is_in_the_file_or_left_out(models: Models, tmp_path: Path) -> None:
    whole, own, folder = models("sd3", t5=True)
    parts = {"model__diffusion_model__": originals.sd3(own.transformer), "first_stage_model__": originals.vae(own.vae)}
    config = shutil.copytree(
        folder,
        tmp_path / "config",
        ignore=lambda place, names: [
            name for name in names if name.endswith(".safetensors") and Path(place).name in ("text_encoder_3", "vae")
        ],
    )
    third = own.text_encoder_3.state_dict()
    third = {name: tensor for name, tensor in third.items() if name != "encoder.embed_tokens.weight"}
    path = originals.write(tmp_path / "t5.safetensors", **parts, text_encoders__t5xxl__transformer__=third)
    same(load(path, config=config), whole)
    found: Any = load(originals.write(tmp_path / "clips.safetensors", **parts), config=config)
    assert set(found.model.conditioner.encoder.readers) == {"text_encoder", "text_encoder_2"}


def flux_of_width(width: int) -> Any:
    """The converter of diffusers, which knows the width of the one FLUX there is, 3072, for a FLUX of another."""
    function = single_file_utils.convert_flux_transformer_checkpoint_to_diffusers
    consts = tuple(width if const == 3072 else const for const in function.__code__.co_consts)
    assert consts != function.__code__.co_consts
    return FunctionType(function.__code__.replace(co_consts=consts), function.__globals__)


@pytest.mark.parametrize(("prefix", "told"), [("", True), ("model.diffusion_model.", False)])
def test_flux_as_one_file(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str, told: bool
) -> None:
    whole, own, folder = models("flux") if told else models("flux", guidance=False)
    assert whole.model.conditioner.facts.distilled == told
    tensors = originals.flux(own.transformer)
    width = own.transformer.config.num_attention_heads * own.transformer.config.attention_head_dim
    name = "convert_flux_transformer_checkpoint_to_diffusers"
    monkeypatch.setattr(single_file_utils, name, flux_of_width(width))
    path = tmp_path / "flux.safetensors"
    save_file({prefix + name: tensor.clone() for name, tensor in tensors.items()}, path)
    without = shutil.copytree(folder, tmp_path / "without")
    for file in (without / "transformer").glob("*.safetensors"):
        file.unlink()
    found: Any = load(path, config=without)
    assert found.model.conditioner.facts.distilled == told
    plan, start = whole.plan("euler", steps=3, **SIZE), noise((2, *whole.state_shape(**SIZE)))
    a, b = (fs.sample(plan, p.denoiser(PROMPTS, **SIZE), noise=start) for p in (found, whole))
    assert apart(a, b) < 1e-5


def test_all_tensors_of_a_whole_flux_are_placed() -> None:
    """Of FLUX.1-dev, in its real size, without memory for it."""
    with torch.device("meta"):
        module = FluxTransformer2DModel(guidance_embeds=True)  # the defaults are those of FLUX.1
    tensors = originals.flux(module)
    assert len(tensors) == 780
    found = _diffusers_names("FluxTransformer2DModel", "", tensors, module)
    wanted = {name: tensor.shape for name, tensor in module.state_dict().items()}
    assert {name: tensor.shape for name, tensor in found.items()} == wanted


def test_clip_l_of_sd3_is_not_projected(models: Models, tmp_path: Path) -> None:
    _, own, folder = models("sd3", t5=True)
    path = originals.write(
        tmp_path / "clips.safetensors",
        model__diffusion_model__=originals.sd3(own.transformer),
        text_encoders__clip_l__transformer__=originals.clip(own.text_encoder),
        text_encoders__clip_g__transformer__=originals.clip(own.text_encoder_2),
    )
    found: Any = load(path, config=folder)
    readers = found.model.conditioner.encoder.readers
    assert torch.equal(readers["text_encoder"].model.text_projection.weight, torch.eye(32))
    weight = own.text_encoder_2.text_projection.weight
    assert torch.equal(readers["text_encoder_2"].model.text_projection.weight, weight)


def test_the_digest_is_over_the_file_and_the_configurations(checkpoint: tuple[Path, Path], tmp_path: Path) -> None:
    path, config = checkpoint
    first = load(path, config=config)
    moved = shutil.copy(path, tmp_path / "other.safetensors")
    assert load(moved, config=config).model.digest == first.model.digest
    other = shutil.copytree(config, tmp_path / "config")
    text = (other / "vae/config.json").read_text()
    (other / "vae/config.json").write_text(text.replace('"scaling_factor": 0.18215', '"scaling_factor": 0.2'))
    assert load(path, config=other).model.digest != first.model.digest
    half: Any = load(path, config=config, dtype="bfloat16")
    assert half.model.digest != first.model.digest
    assert next(half.model.module.parameters()).dtype is torch.bfloat16


def test_loading_draws_no_random_numbers(checkpoint: tuple[Path, Path]) -> None:
    path, config = checkpoint
    torch.manual_seed(5)
    before = torch.get_rng_state()
    load(path, config=config)
    assert torch.equal(torch.get_rng_state(), before)


def test_files_that_are_damaged_or_of_another_kind_are_refused(
    checkpoint: tuple[Path, Path], models: Models, tmp_path: Path
) -> None:
    path, config = checkpoint
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(fs.InvalidInput, match=r"cut.safetensors .*truncated or damaged"):
        load(cut, config=config)
    unknown = originals.write(tmp_path / "unknown.safetensors", net__={"layers.0.weight": torch.zeros(4)})
    with pytest.raises(fs.InvalidInput, match=r"config is for an original checkpoint.*unknown.safetensors is not one"):
        load(unknown, config=config)
    with pytest.raises(fs.InvalidInput, match=r"without a configuration beside it, of no layout that is known"):
        load(unknown)
    _, own, _ = models("sd")
    parts = originals.sd_parts(own)
    del parts["model__diffusion_model__"]["middle_block.0.in_layers.2.weight"]
    holed = originals.write(tmp_path / "holed.safetensors", **parts)
    with pytest.raises(fs.InvalidInput, match=r"holed.safetensors lacks 1 tensors of the UNet2DConditionModel"):
        load(holed, config=config)
    for name, message in (
        ("sdxl", "v1-5-pruned.safetensors: the tensors under .* cannot be read as the UNet2DConditionModel"),
        ("pixart", "no layout of an original PixArtTransformer2DModel is known"),
        ("ddpm", "describes a 'DDPMPipeline', and an original checkpoint is one of StableDiffusionPipeline"),
    ):
        with pytest.raises(fs.InvalidInput, match=message):
            load(path, config=models(name).folder)
    with pytest.raises(fs.InvalidInput, match="schedule are for a callable or one network alone"):
        load(path, config=config, spec=fs.NetworkSpec(fs.schedules.linear()))


def test_a_file_that_says_that_it_predicts_v_is_refused_with_epsilon(models: Models, tmp_path: Path) -> None:
    whole, own, folder = models("sd2")
    path = originals.write(tmp_path / "v.safetensors", **originals.sd_parts(own), **{"": {"v_pred": torch.zeros(1)}})
    assert load(path, config=folder).model.prediction == whole.model.prediction
    with pytest.raises(fs.InvalidInput, match=r"has a tensor v_pred.*says 'epsilon': give a config"):
        load(path, config=models("sd").folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (('"block_out_channels": [', '"block_out_channels": [8, '), "the tensors under|is of another model|lacks"),
        (('"cross_attention_dim": 32', '"cross_attention_dim": 40'), r"is of another model than .* is \(\d+, 40\)"),
        (('"layers_per_block": 1', '"layers_per_block": 10000'), "no model has more than 256"),
    ],
)
def test_a_configuration_of_another_model_is_refused(
    checkpoint: tuple[Path, Path], tmp_path: Path, changes: tuple[str, str], message: str
) -> None:
    path, config = checkpoint
    other = shutil.copytree(config, tmp_path / "config")
    text = (other / "unet/config.json").read_text()
    assert changes[0] in text
    (other / "unet/config.json").write_text(text.replace(*changes))
    with pytest.raises(fs.InvalidInput, match=message):
        load(path, config=other)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            None,
            r"by default those of 'stable-diffusion-v1-5/stable-diffusion-v1-5', cannot be had.*Give config= a folder",
        ),
        ("org/absent", r"'org/absent', cannot be had.*HF_HUB_OFFLINE is set"),
        ("no/such/folder", "neither a folder nor an id on the hub"),
        (7, "config must be a folder or an id on the hub, got 7"),
    ],
)
def test_without_configurations_it_is_said_what_to_give(
    checkpoint: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Any, message: str
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(fs.InvalidInput, match=message):
        load(checkpoint[0], config=config)
    with pytest.raises(fs.InvalidInput, match=r"has no model_index.json: give a folder"):
        load(checkpoint[0], config=tmp_path)


def test_configurations_are_fetched_without_weights(
    checkpoint: tuple[Path, Path], models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    path, config = checkpoint
    asked: list[tuple[str, list[str]]] = []

    def fetch(name: str, **options: Any) -> str:
        asked.append((name, options["allow_patterns"]))
        return str(config)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    same(load(path), models("sd").native)
    same(load(path, config="org/other"), models("sd").native)
    assert [name for name, _ in asked] == ["stable-diffusion-v1-5/stable-diffusion-v1-5", "org/other"]
    assert all(patterns == ["*.json", "*.txt", "*.model"] for _, patterns in asked)
    alone = originals.write(
        path.with_name("alone.safetensors"), model__diffusion_model__=originals.unet(models("sd").own.unet)
    )
    with pytest.raises(fs.InvalidInput, match="holds no text_encoder"):
        load(alone, config="org/other")
    assert "text_encoder/*model.safetensors" in asked[-1][1]
    assert not any(pattern.startswith("unet/") for pattern in asked[-1][1])


def test_the_kind_of_a_file_decides_whose_configurations_are_taken(tmp_path: Path) -> None:
    wide = {"input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(1, 1024)}
    path = originals.write(tmp_path / "two.safetensors", model__diffusion_model__=wide)
    assert default_config(container.inspect(path)) == "stabilityai/stable-diffusion-2-1"
    xl = {"embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias": torch.zeros(1)}
    path = originals.write(tmp_path / "xl.safetensors", conditioner__=xl)
    assert default_config(container.inspect(path)) == "stabilityai/stable-diffusion-xl-base-1.0"
