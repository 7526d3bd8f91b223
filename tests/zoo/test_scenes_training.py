"""The parts of the text-to-image model are trained to the same bits whatever happens, and load as one pipeline."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from fewstep.core.errors import InvalidInput
from fewstep.zoo.scenes.training import LOG, STATE, Draws, Settings, train

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
from fewstep.zoo.scenes import autoencoder, diffusion
from fewstep.zoo.scenes.assemble import assemble
from fewstep.zoo.scenes.caption import caption, keyword
from fewstep.zoo.scenes.check import adheres, read_picture
from fewstep.zoo.scenes.optimiser import Optimiser
from fewstep.zoo.scenes.picture import picture
from fewstep.zoo.scenes.reading import CHOICES, answers, learn_to_read
from fewstep.zoo.scenes.scene import Description, Group, described, draw_description, placed
from fewstep.zoo.scenes.words import LENGTH, tokenizer

QUICK = Settings(seed=3, steps=30, batch=4, warmup=5, cooldown=10, state_every=10, threads=1)


def problem():
    """A small network and its loss: to double a number."""
    torch.manual_seed(0)
    model = nn.Linear(3, 3)

    def loss(draws: Draws):
        x = torch.randn(QUICK.batch, 3, generator=draws.noise) * float(draws.scenes.random())
        return (model(x) - 2 * x).square().mean()

    return model, loss


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Stop(Exception):
    pass


@pytest.mark.parametrize("at", [1, 2])
def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path, monkeypatch, at):
    model, loss = problem()
    whole = weights(train(model, loss, QUICK, tmp_path / "whole", {}))
    model, loss = problem()
    asked = iter(range(1000))

    def failing(draws):
        if next(asked) == 12 * at:
            raise Stop
        return loss(draws)

    with pytest.raises(Stop):
        train(model, failing, QUICK, tmp_path / "cut", {})
    again, loss = problem()
    assert torch.equal(weights(train(again, loss, QUICK, tmp_path / "cut", {})), whole)
    assert not torch.equal(whole, weights(problem()[0]))


class Mixed(nn.Module):
    """A kernel and a matrix for Muon; a table, a bias and the last layer for AdamW."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.linear = nn.Linear(4, 5)
        self.embedding = nn.Embedding(3, 5)
        self.conv_out = nn.Linear(5, 1)

    def forward(self, draws):
        x = torch.randn(6, 2, 3, 3, generator=draws.noise)
        label = torch.from_numpy(draws.scenes.integers(3, size=6))
        out = self.conv_out(torch.tanh(self.linear(self.conv(x)[:, :, 0, 0])) + self.embedding(label))
        return (out[:, 0] - x.mean((1, 2, 3)) - label).square().mean()


def mixed():
    torch.manual_seed(5)
    return Mixed()


def test_a_run_with_muon_that_was_stopped_ends_with_the_same_bits(tmp_path):
    how = Settings(**{**vars(QUICK), "muon": 0.01})
    model = mixed()
    whole = weights(train(model, model, how, tmp_path / "whole", {}))
    model = mixed()
    asked = iter(range(1000))

    def failing(draws):
        if next(asked) == 17:
            raise Stop
        return model(draws)

    with pytest.raises(Stop):
        train(model, failing, how, tmp_path / "cut", {})
    model = mixed()
    assert torch.equal(weights(train(model, model, how, tmp_path / "cut", {})), whole)
    with pytest.raises(InvalidInput, match=r"other settings \(muon\)"):
        train(mixed(), mixed(), QUICK, tmp_path / "cut", {})


def test_muon_moves_matrices_by_equal_singular_values_and_adamw_the_rest():
    model, same = mixed(), mixed()
    names = dict(model.named_parameters())
    optimiser = Optimiser(names, learning_rate=1e-3, muon=0.02, weight_decay=0.0)
    assert sorted(optimiser.matrices) == ["conv.weight", "linear.weight"]
    optimiser.step(model(Draws.of(0, 0)), share=0.5, clip=1e9)
    moved = {name: (p - q).detach() for (name, p), q in zip(names.items(), same.parameters(), strict=True)}
    for name in ("conv.weight", "linear.weight"):
        matrix = moved[name].reshape(len(moved[name]), -1)
        values = torch.linalg.svdvals(matrix) / (0.5 * 0.02 * 0.2 * max(matrix.shape) ** 0.5)
        assert 0.6 < float(values.min()) <= float(values.max()) < 1.3, name  # five Newton-Schulz steps
    for name in ("conv.bias", "conv_out.weight"):  # the first step of Adam is the sign of the gradient
        assert float(moved[name].abs().max()) == pytest.approx(0.5e-3, rel=1e-2)
    assert float(moved["embedding.weight"].abs().max()) == pytest.approx(0.5e-3, rel=1e-2)


def test_a_finished_run_is_only_read_and_one_with_other_settings_refused(tmp_path):
    model, loss = problem()
    done = weights(train(model, loss, QUICK, tmp_path, {"part": "a"}))
    before = (tmp_path / STATE).stat().st_mtime_ns
    model, loss = problem()
    assert torch.equal(weights(train(model, loss, QUICK, tmp_path, {"part": "a"})), done)
    assert (tmp_path / STATE).stat().st_mtime_ns == before
    with pytest.raises(InvalidInput, match=r"other settings \(learning_rate\)"):
        train(model, loss, Settings(**{**vars(QUICK), "learning_rate": 0.5}), tmp_path, {"part": "a"})
    with pytest.raises(InvalidInput, match=r"other settings \(part\)"):
        train(model, loss, QUICK, tmp_path, {"part": "b"})


def test_a_run_may_be_prolonged_and_is_logged(tmp_path):
    model, loss = problem()
    train(model, loss, Settings(**{**vars(QUICK), "steps": 100, "cooldown": 1}), tmp_path, {})
    train(model, loss, Settings(**{**vars(QUICK), "steps": 150}), tmp_path, {})
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [line["step"] for line in lines] == [50, 100, 150]
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    model, _ = problem()
    with pytest.raises(ArithmeticError, match="the loss is nan at step 1: lower the learning rate"):
        train(model, lambda draws: weights(model).sum() * float("nan"), QUICK, tmp_path, {})


def test_draws_depend_on_seed_and_step_alone():
    first, same, other = Draws.of(1, 5), Draws.of(1, 5), Draws.of(1, 6)
    assert first.scenes.random() == same.scenes.random() != other.scenes.random()
    numbers = [torch.rand(3, generator=d.noise) for d in (first, same, other)]
    assert torch.equal(numbers[0], numbers[1])
    assert not torch.equal(numbers[0], numbers[2])


@pytest.fixture(scope="module")
def words():
    return tokenizer()


def test_every_word_is_one_token_and_every_caption_fits(words):
    rng = np.random.default_rng(7)
    captions = [caption(described(rng), rng) for _ in range(2000)]
    for word in {word for text in captions for word in text.replace(",", " ").split()}:
        assert len(words.tokenize(word)) == 1, word
    assert max(len(ids) for ids in words(captions).input_ids) <= LENGTH
    assert words.decode(words("a purple dragon").input_ids, skip_special_tokens=True).strip() == "a purple dragon"


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


def test_a_keyword_names_a_part_of_what_there_is():
    rng = np.random.default_rng(2)
    description = Description((Group(2, "red", "star", None),), None, "white")
    assert {keyword(description, rng) for _ in range(100)} == {"red", "stars", "red stars"}
    pair = Description((Group(1, "blue", None, None), Group(1, None, "circle", None)), "above", None)
    assert {keyword(pair, rng) for _ in range(100)} == {"blue", "circle"}
    assert keyword(Description((Group(1, None, None, "small"),), None, "white"), rng) == ""


def test_the_text_encoder_learns_to_read(tmp_path, words, monkeypatch):
    monkeypatch.setitem(diffusion.TEXT, "num_hidden_layers", 1)
    how = Settings(seed=0, batch=32, learning_rate=4e-3, warmup=10, threads=1, decay=0.9)
    untrained = diffusion.networks(0, words)["text_encoder"]
    assert learn_to_read(untrained, words, how, 1, tmp_path / "none") < 0.05
    text_encoder = diffusion.networks(0, words)["text_encoder"]
    before = weights(text_encoder)
    share = learn_to_read(text_encoder, words, how, 200, tmp_path / "read")
    assert share > 0.5
    assert not torch.equal(before, weights(text_encoder))
    again = diffusion.networks(0, words)["text_encoder"]
    assert learn_to_read(again, words, how, 200, tmp_path / "read") == share
    assert torch.equal(weights(again), weights(text_encoder))


def test_the_parts_train_and_load_as_a_pipeline_of_diffusers(tmp_path, monkeypatch, words):
    monkeypatch.setitem(autoencoder.CONFIG, "block_out_channels", (8, 8, 8, 8))
    monkeypatch.setitem(diffusion.UNET, "block_out_channels", (16, 16))
    few = Settings(seed=1, steps=2, batch=4, warmup=1, cooldown=1, state_every=1, threads=1)
    vae = autoencoder.train_autoencoder(few, tmp_path / "autoencoder")
    with torch.no_grad():
        latents = vae.encode(autoencoder.pictures(64, np.random.default_rng(0))).latent_dist.mean
    assert float((latents * vae.config.scaling_factor).std()) == pytest.approx(1, rel=0.2)
    model = diffusion.train_text_to_image(few, vae, 256, 2, tmp_path / "scenes")
    again = diffusion.train_text_to_image(few, vae, 256, 2, tmp_path / "scenes")
    assert torch.equal(weights(model), weights(again))
    with pytest.raises(InvalidInput, match="latents of other scenes or of another autoencoder"):
        diffusion.train_text_to_image(few, autoencoder.load_autoencoder(), 256, 2, tmp_path / "scenes")
    assemble(vae, model["unet"], model["text_encoder"], tmp_path / "model")
    with pytest.raises(InvalidInput, match="exists already"):
        assemble(vae, model["unet"], model["text_encoder"], tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["autoencoder", "model", "scenes"]

    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "model", low_cpu_mem_usage=False)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    images = pipe(["a red circle", "two stars"], num_inference_steps=2, output_type="np").images
    assert images.shape == (2, 64, 64, 3)
    assert np.abs(images[0] - images[1]).max() > 0


def test_the_shipped_autoencoder_keeps_what_a_picture_shows():
    vae = autoencoder.load_autoencoder()
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
