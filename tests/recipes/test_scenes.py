"""The parts of the text-to-image model are trained to the same bits whatever happens, and load as one pipeline."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fewstep.core.errors import InvalidInput
from fewstep.training import Progress

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
from fewstep.recipes import AUTOENCODER, SCENES, TextToImage, train_autoencoder, train_text_to_image
from fewstep.recipes.autoencoder import Autoencoding, Pictures
from fewstep.recipes.latents import CAPTIONS, Captioned, Pool
from fewstep.recipes.reading import CHOICES, answers, learn_to_read
from fewstep.zoo.scenes import networks
from fewstep.zoo.scenes.assemble import assemble
from fewstep.zoo.scenes.networks import load_autoencoder, new_text_encoder
from fewstep.zoo.scenes.scene import Description, Group, described, draw_description
from fewstep.zoo.scenes.words import tokenizer


class Stop(Exception):
    pass


def stop(now: Progress) -> None:
    if now.losses:
        raise Stop


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"]["student"] for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of a few channels."""
    monkeypatch.setitem(networks.AUTOENCODER, "block_out_channels", (8, 8, 8, 8))
    monkeypatch.setitem(networks.UNET, "block_out_channels", (16, 16))
    monkeypatch.setitem(networks.TEXT, "num_hidden_layers", 1)


@pytest.fixture(scope="module")
def words() -> Any:
    return tokenizer()


def test_the_autoencoder_learns_and_goes_on_to_the_same_bits(tmp_path: Path, small: None) -> None:
    quick = replace(AUTOENCODER, steps=18, batch=4, warmup=2, cooldown=5, state_every=5, log_every=6)
    whole = train_autoencoder(quick, tmp_path / "whole", threads=1)
    first, *_, last = losses(tmp_path / "whole")
    assert last < 0.8 * first
    with pytest.raises(Stop):
        train_autoencoder(quick, tmp_path / "cut", threads=1, watch=stop)
    again = train_autoencoder(quick, tmp_path / "cut", threads=1)
    assert torch.equal(weights(again), weights(whole))
    assert again.config.scaling_factor == whole.config.scaling_factor
    with torch.no_grad():
        latents = whole.encode(Pictures(99).batch(range(64)).data).latent_dist.mean
    assert float((latents * whole.config.scaling_factor).std()) == pytest.approx(1, rel=0.2)


def test_pixels_of_things_count_more_and_all_together_one_each() -> None:
    x = torch.full((1, 3, 8, 8), -1.0)
    x[0, :, 4, 4] = 1.0
    weight = Autoencoding(foreground=10.0).weights(x)
    assert float(weight.mean()) == pytest.approx(1.0)
    assert float(weight[0, 0, 3, 3] / weight[0, 0, 0, 0]) == pytest.approx(11.0)  # beside the thing, as on it
    assert int((weight[0, 0] > 1).sum()) == 9


def test_a_scene_has_one_answer_however_it_is_put():
    red, blue = Group(1, "red", "star", None), Group(1, "blue", None, "large")
    first = answers(Description((red, blue), "left of", "pink"))
    assert first == answers(Description((blue, red), "right of", "pink"))
    assert first != answers(Description((blue, red), "left of", "pink"))
    assert answers(Description((red, blue), None, None)) == answers(Description((blue, red), None, None))
    assert len(first) == len(CHOICES)
    rng = np.random.default_rng(1)
    for _ in range(500):
        assert all(0 <= right < n for right, n in zip(answers(described(rng)), CHOICES, strict=True))


def test_the_text_encoder_learns_to_read(tmp_path: Path, words: Any, small: None) -> None:
    how = replace(SCENES, steps=200, batch=32, rate=4e-3, muon=0.0, warmup=10, cooldown=50)
    untrained = new_text_encoder(0, words)
    assert learn_to_read(untrained, words, replace(how, steps=1), tmp_path / "none") < 0.05
    text_encoder = new_text_encoder(0, words)
    before = weights(text_encoder)
    share = learn_to_read(text_encoder, words, how, tmp_path / "read")
    assert share > 0.5
    assert not torch.equal(before, weights(text_encoder))
    again = new_text_encoder(0, words)
    assert learn_to_read(again, words, how, tmp_path / "read") == share
    assert torch.equal(weights(again), weights(text_encoder))


def pool(count: int) -> Pool:
    """Scenes whose latents say which they are."""
    rng = np.random.default_rng(0)
    latents = torch.arange(count)[:, None, None, None].expand(-1, 8, 8, 8).half()
    return Pool(latents, [draw_description(rng, held_out=False) for _ in range(count)], {"count": count})


def test_a_scene_has_several_captions_each_by_its_number_alone(words: Any) -> None:
    data = Captioned(pool(40), words, seed=1)
    assert data.count == CAPTIONS * 40
    batch = data.batch([3, 43, 83, 4])
    assert batch.data[:, 0, 0, 0].tolist() == [3, 3, 3, 4]
    assert batch.negative is not None
    said = [data.said(number) for number in (3, 43, 83)]
    assert len(set(said)) > 1
    assert torch.equal(batch.condition["ids"][1], data.batch([43]).condition["ids"][0])
    assert words.batch_decode(batch.negative["ids"], skip_special_tokens=True) == [""] * 4
    keywords = [text for text in map(data.said, range(data.count)) if len(text.split()) < 3]
    assert 0.02 < len(keywords) / data.count < 0.12


def test_the_parts_train_and_load_as_a_pipeline_of_diffusers(tmp_path: Path, words: Any, small: None) -> None:
    """The denoiser learns beside the text encoder, and an interrupted run goes on to the same bits."""
    few = replace(SCENES, seed=1, steps=24, batch=8, warmup=2, cooldown=4, state_every=5, log_every=8)
    vae = load_autoencoder()

    def trained(folder: str, **more: Any) -> TextToImage:
        return train_text_to_image(few, vae, tmp_path / folder, scenes=256, reading=2, threads=1, **more)

    model = trained("whole")
    first, *_, last = losses(tmp_path / "whole")
    assert last < 0.9 * first
    with pytest.raises(Stop):
        trained("cut", watch=lambda now: stop(now) if now.steps == few.steps else None)
    assert torch.equal(weights(trained("cut")), weights(model))
    with pytest.raises(InvalidInput, match=r"settings.steps is 2 there and 3 here"):
        train_text_to_image(few, vae, tmp_path / "cut", scenes=256, reading=3, threads=1)
    with torch.no_grad():
        next(vae.parameters()).add_(0.1)
    with pytest.raises(InvalidInput, match="latents of other scenes or of another autoencoder"):
        trained("cut")
    assemble(vae, model.unet, model.text_encoder, tmp_path / "model")
    with pytest.raises(InvalidInput, match="exists already"):
        assemble(vae, model.unet, model.text_encoder, tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut", "model", "whole"]

    from diffusers import StableDiffusionPipeline

    pipe: Any = StableDiffusionPipeline.from_pretrained(tmp_path / "model", low_cpu_mem_usage=False)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    images = pipe(["a red circle", "two stars"], num_inference_steps=2, output_type="np").images
    assert images.shape == (2, 64, 64, 3)
    assert np.abs(images[0] - images[1]).max() > 0
