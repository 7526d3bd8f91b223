"""The shipped text-to-image model: its folder, and the scenes that it draws."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from fewstep import zoo
from fewstep.core.errors import InvalidInput

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
import fewstep as fs
from fewstep.zoo.scenes.assemble import GUIDANCE
from fewstep.zoo.scenes.check import adheres, read_picture
from fewstep.zoo.scenes.networks import SHIPPED, load_autoencoder
from fewstep.zoo.scenes.picture import picture
from fewstep.zoo.scenes.prompts import adherence, held_out_prompts
from fewstep.zoo.scenes.scene import COLOURS, draw_description, placed

FOLDER = zoo.shipped_path("scenes")


@pytest.fixture(scope="module")
def pipe() -> fs.Pipeline:
    return fs.load("scenes")


def test_the_folder_is_small_names_no_place_and_holds_the_autoencoder():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt", ".md"}
    assert not [path for path in files if path.suffix == ".json" and "_name_or_path" in path.read_text()]
    assert FOLDER / "vae" == SHIPPED
    with safe_open(FOLDER / "text_encoder" / "model.safetensors", "pt") as file:  # as releases before 5 name them
        assert all(name.startswith("text_model.") for name in file.keys())  # noqa: SIM118
    assert {"vocab.json", "merges.txt"} < {path.name for path in files}
    assert json.loads((FOLDER / "model_index.json").read_text())["_class_name"] == "StableDiffusionPipeline"


def test_it_is_loaded_by_name_and_is_no_single_network(pipe):
    assert (pipe.name, pipe.model.prediction) == ("scenes", "v_prediction")
    assert (pipe.pixel_shape(), pipe.state_shape()) == ((3, 64, 64), (8, 8, 8))
    assert fs.load(FOLDER).model.digest == pipe.model.digest
    with pytest.raises(InvalidInput, match=r"several networks: fewstep\.load\('scenes'\)"):
        zoo.load_shipped("scenes")
    with pytest.raises(InvalidInput, match="the shipped model 'scenes' knows its own"):
        fs.load("scenes", spec=fs.NetworkSpec(prediction="epsilon"))


def test_eight_steps_draw_what_unseen_prompts_say(pipe):
    prompts = held_out_prompts(100)
    images = pipe([prompt.text for prompt in prompts], sampler="unipc-2", steps=8, batch=50)
    assert images.nfe == 16
    assert images.drawing.guidance.scale == 2 == GUIDANCE  # what a folder that is trained anew recommends
    assert adherence(list(images.pixels), prompts) >= 0.8


def test_the_tuned_plan_draws_more_of_them_right_at_equal_evaluations(pipe):
    prompts = held_out_prompts(160)
    texts = [prompt.text for prompt in prompts]
    tuned = pipe(texts, sampler="tuned", steps=4, batch=32)
    usual = pipe(texts, sampler="dpmpp-2m", steps=4, batch=32)
    assert tuned.nfe == usual.nfe == 8
    assert adherence(list(tuned.pixels), prompts) > adherence(list(usual.pixels), prompts) + 0.02


def test_a_negative_prompt_takes_a_colour_away(pipe):
    texts = ["a star on a white background", "a circle on a black background"] * len(COLOURS) * 2
    colours = [colour for colour in COLOURS for _ in range(4)]
    seen = []
    for negative in (None, colours):
        images = pipe(texts, negative=negative, steps=12, batch=24)
        seen.append(
            sum(
                any(thing.colour == colour for thing in read_picture(pixels).things)
                for pixels, colour in zip(images.pixels, colours, strict=True)
            )
        )
    assert seen[0] >= 1
    assert seen[1] <= 1


def test_diffusers_alone_draws_the_same_latents(pipe):
    from diffusers import StableDiffusionPipeline

    peer = StableDiffusionPipeline.from_pretrained(FOLDER, low_cpu_mem_usage=False)
    peer.set_progress_bar_config(disable=True)
    plan = pipe.plan("ddim", steps=10)
    noise = torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    words = {"prompt": "a red circle left of a blue square", "negative_prompt": "green"}
    theirs = peer(**words, latents=noise, num_inference_steps=10, guidance_scale=5.0, output_type="latent").images
    denoiser = pipe.denoiser(words["prompt"], negative=words["negative_prompt"], guidance=5.0)
    ours = fs.sample(plan, denoiser, start=noise)
    assert float((ours - theirs).abs().max()) < 1e-4 * float(theirs.abs().max())


def test_pictures_of_one_prompt_differ_and_cost_one_encoding():
    pipe: Any = fs.load("scenes")
    images = pipe(["a large shape on pink"] * 8, steps=12, batch=8)
    again = pipe(["a large shape on pink"] * 8, steps=12, batch=8, seed=100)
    assert pipe.cache.encodes == 2  # the prompt and no words
    found = {
        (thing.colour, thing.shape)
        for pixels in [*images.pixels, *again.pixels]
        for thing in read_picture(np.asarray(pixels)).things
    }
    assert len(found) >= 5


def test_the_shipped_autoencoder_keeps_what_a_picture_shows():
    vae = load_autoencoder()
    rng = np.random.default_rng(4)
    descriptions = [draw_description(rng, held_out=True) for _ in range(100)]
    pixels = np.stack([picture(placed(description, rng)) for description in descriptions])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        latents = vae.encode(x).latent_dist.mean
        rebuilt = vae.decode(latents).sample
    assert float((latents * vae.config.scaling_factor).std()) == pytest.approx(1, rel=0.1)
    assert -10 * np.log10(float((rebuilt - x).square().mean()) / 4) > 34
    again = ((rebuilt.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    right = [adheres(read_picture(p), description) for p, description in zip(again, descriptions, strict=True)]
    assert np.mean(right) >= 0.95
