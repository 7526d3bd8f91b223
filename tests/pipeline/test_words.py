"""Drawing from prompts: what is encoded and how often, sizes, warnings, recipes, decoding, and wrong arguments."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import fewstep as fs
from fewstep.models import NoEffect, TensorCache, TruncatedPrompt
from fewstep.pipeline import LostImages, Pipeline, load
from models.by_hand import encoder
from models.tiny_diffusers import Twins, enliven

Models = Callable[..., Twins]


def vae(pipe: Pipeline) -> Any:
    codec: Any = pipe.model.codec
    return codec.vae


QUICK: dict[str, Any] = {"steps": 2, "height": 16, "width": 16}


@pytest.fixture
def sd(models: Models) -> Pipeline:
    """A pipeline with a cache of its own."""
    return load(models("sd").folder)


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """One entry for each call of a text encoder; one with a projection calls one without."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel

    calls: list[str] = []
    for kind in (CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel):

        def forward(self: Any, *arguments: Any, inner: Any = kind.forward, **more: Any) -> Any:
            calls.append(type(self).__name__)
            return inner(self, *arguments, **more)

        monkeypatch.setattr(kind, "forward", forward)
    return calls


@pytest.mark.parametrize(("name", "encoders"), [("sd", 1), ("sdxl", 3), ("sd3", 5), ("flux", 2), ("pixart", 1)])
def test_the_second_call_encodes_nothing(models: Models, encodings: list[str], name: str, encoders: int) -> None:
    pipe = load(models(name).folder)
    prompts = ["a red circle", "blue square", "a red circle"]
    first = pipe(prompts, guidance=1.0, count=2, **QUICK)
    assert len(encodings) == 2 * encoders
    again = pipe(prompts, guidance=1.0, count=2, **QUICK)
    assert len(encodings) == 2 * encoders
    assert torch.equal(first.tensor, again.tensor)
    counts = pipe.cache
    assert (counts.hits, counts.misses, counts.encodes) == (2, 2, 2)
    assert counts.seconds_saved == pytest.approx(counts.seconds)


def test_a_negative_prompt_is_encoded_only_where_it_acts(models: Models, encodings: list[str]) -> None:
    sdxl = load(models("sdxl").folder)
    sdxl("lion", guidance=3.0, **QUICK)
    assert sdxl.cache.encodes == 1  # the empty condition of SDXL is zeros
    sdxl("lion", guidance=3.0, negative="blue", **QUICK)
    sdxl("lion", guidance=3.0, negative=["blue"], **QUICK)
    assert sdxl.cache.encodes == 2
    sd = load(models("sd").folder)
    sd("lion", guidance=3.0, **QUICK)
    assert sd.cache.encodes == 2  # that of Stable Diffusion is no words


def test_embeddings_on_disk_serve_the_same_encoder_alone(models: Models, tmp_path: Path, encodings: list[str]) -> None:
    folder = models("sd").folder
    load(folder, cache=TensorCache(folder=tmp_path / "cache"))("lion", **QUICK)
    encodings.clear()
    warm = load(folder, cache=TensorCache(folder=tmp_path / "cache"))
    images = warm("lion", **QUICK)
    assert (encodings, warm.cache.from_disk) == ([], 2)
    other = shutil.copytree(folder, tmp_path / "other")
    changed = encoder(load(folder)).readers["text_encoder"].model
    enliven(changed, 5)
    changed.save_pretrained(other / "text_encoder")
    different = load(other, cache=TensorCache(folder=tmp_path / "cache"))
    assert different.model.digest != warm.model.digest
    assert encoder(different).digest != encoder(warm).digest
    assert not torch.equal(different("lion", **QUICK).tensor, images.tensor)
    assert len(encodings) == 2


@pytest.mark.parametrize("part", ["unet/config.json", "vae/diffusion_pytorch_model.safetensors"])
def test_the_digest_is_over_every_file(models: Models, tmp_path: Path, part: str) -> None:
    folder = shutil.copytree(models("sd").folder, tmp_path / "copy")
    before = load(folder)
    content = (folder / part).read_bytes()
    (folder / part).write_bytes(
        content.replace(b'"_class_name"', b' "_class_name"') if "json" in part else content[:-1] + b"?"
    )
    after = load(folder)
    assert after.model.digest != before.model.digest == load(models("sd").folder).model.digest
    assert encoder(after).digest == encoder(before).digest
    assert load(models("sd").folder, dtype="bfloat16").model.digest != before.model.digest


def test_the_call_is_encoding_sampling_and_decoding(sd: Pipeline) -> None:
    settings: dict[str, Any] = {"guidance": 5.0, "negative": "blue", "height": 16, "width": 24}
    images = sd("a red circle", sampler="unipc-3", steps=8, seed=7, **settings)
    plan = sd.plan("unipc-3", steps=8)
    latents = fs.sample(plan, sd.denoiser("a red circle", **settings), shape=(1, 4, 8, 12), seed=7)
    assert torch.equal(images.tensor, sd.decode(latents))
    assert images.tensor.shape == (1, 3, 16, 24)
    assert images.nfe == 16
    assert set(images.timings) == {"encode", "denoise", "decode"}
    assert 0 < sum(images.timings.values()) <= images.seconds * 1.01
    assert [picture.size for picture in images.pil()] == [(24, 16)]


def test_guidance_one_is_the_conditional_model_at_half_the_cost(sd: Pipeline) -> None:
    images = sd("lion", guidance=1.0, seed=3, **QUICK)
    assert images.nfe == 2
    condition = {"text": encoder(sd)("lion")["text"]}
    network = fs.Network(sd.model.network, sd.model.schedule, sd.model.prediction, condition=condition)
    latents = fs.sample(sd.plan(steps=2), network, shape=(1, 4, 8, 8), seed=3)
    assert torch.equal(images.tensor, sd.decode(latents))


def test_each_image_has_its_prompt_negative_and_seed(sd: Pipeline) -> None:
    prompts, negatives = ["red circle", "blue lion"], ["green", "square"]
    together = sd(prompts, negative=negatives, seed=[5, 6, 7, 8], count=2, batch=3, **QUICK)
    assert together.subjects == ("red circle", "red circle", "blue lion", "blue lion")
    alone = sd("blue lion", negative="square", seed=8, **QUICK)
    assert torch.allclose(together.tensor[3:], alone.tensor, atol=1e-5)
    assert not torch.allclose(together.tensor[2], together.tensor[3], atol=1e-3)


def test_a_prompt_too_long_says_what_was_cut(models: Models) -> None:
    words = ["red", "circle", "left", "of", "blue", "square"] * 3
    sd = models("sd").native
    with pytest.warns(TruncatedPrompt, match="16 tokens that text_encoder reads.*'of blue square'") as caught:
        images = sd(" ".join([*words[:14], "of", "blue", "square"]), guidance=1.0, **QUICK)
    assert len(caught) == 1
    assert torch.equal(images.tensor, sd(" ".join(words[:14]), guidance=1.0, **QUICK).tensor)
    with pytest.warns(TruncatedPrompt) as caught:
        models("sd3").native(" ".join(words), guidance=1.0, **QUICK)
    assert [str(w.message).split(" reads")[0].split()[-1] for w in caught] == ["text_encoder", "text_encoder_2"]
    reader = encoder(models("pixart").native).readers["text_encoder"]
    assert reader.cut("red " * 119) == ""
    assert reader.cut("red " * 119 + "lion") == "lion"
    assert reader.cut("red " * 119 + "zebra") == "words that its tokenizer does not know"


def test_a_negative_prompt_that_cannot_act_is_said(models: Models) -> None:
    with pytest.warns(NoEffect, match="the negative prompt has no effect: .* is not guided at scale 1"):
        models("sd").native("lion", negative="blue", guidance=1.0, **QUICK)
    flux = models("flux").native
    with pytest.warns(NoEffect, match="is told its guidance scale"):
        assert flux("lion", negative="blue", **QUICK).nfe == 2
    low, high = (flux("lion", guidance=g, **QUICK).tensor for g in (1.0, 6.0))
    assert not torch.allclose(low, high, atol=1e-3)


def test_clip_skip_leaves_out_layers_of_the_prompt_as_in_diffusers(models: Models) -> None:
    native, own, _ = models("sdxl")
    expected = own.encode_prompt("a red circle", device="cpu", do_classifier_free_guidance=False, clip_skip=1)[0]
    assert torch.allclose(encoder(native)("a red circle", 1)["text"], expected, atol=1e-6)
    assert not torch.allclose(encoder(native)("a red circle")["text"], expected, atol=1e-3)
    reader = encoder(models("sd").native).readers["text_encoder"]
    with torch.no_grad():  # diffusers itself fails here with transformers 5
        states = reader.model.final_layer_norm(reader.clip("a red circle").hidden_states[-3])
    assert torch.equal(encoder(models("sd").native)("a red circle", 2)["text"], states)
    with pytest.raises(fs.InvalidInput, match="clip_skip must be a whole number from 1 to 2, got 3"):
        models("sd").native("lion", clip_skip=3, **QUICK)
    with pytest.raises(fs.InvalidInput, match="means nothing to this model"):
        models("flux").native("lion", clip_skip=1, **QUICK)


def test_slices_give_the_same_picture_and_tiles_leave_the_shared_vae_alone(models: Models) -> None:
    codec: Any = models("sd").native.model.codec
    latents = torch.randn(2, 4, 24, 24, generator=torch.Generator().manual_seed(1))
    whole = codec.decode(latents)
    assert torch.allclose(codec.decode(latents, fs.Decode(sliced=True)), whole, atol=1e-5)
    tiled = codec.decode(latents, fs.Decode(tiled=True))
    assert tiled.shape == whole.shape == (2, 3, 48, 48)
    assert float((tiled - whole).abs().max()) > 0
    assert codec.vae.use_tiling is False
    assert torch.equal(codec.decode(latents), whole)
    reference = models("sd").own.vae
    reference.enable_tiling()
    with torch.no_grad():
        expected = reference.decode(latents / reference.config.scaling_factor).sample
    reference.disable_tiling()
    assert torch.allclose(tiled, expected, atol=1e-5)


def test_decoding_overlaps_with_the_next_batch_and_changes_nothing(
    sd: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    second, decoding = threading.Event(), vae(sd).decode

    def decode(*arguments: Any, **more: Any) -> Any:
        assert second.wait(20), "the second batch did not begin while the first was decoded"
        return decoding(*arguments, **more)

    plain = sd(["red", "blue"], batch=1, **QUICK)
    monkeypatch.setattr(vae(sd), "decode", decode)
    images = sd(
        ["red", "blue"], batch=1, overlap=True, on_row=lambda row: second.set() if row.index == 2 else None, **QUICK
    )
    assert torch.equal(images.tensor, plain.tensor)


def test_a_decoder_that_fails_beside_the_sampler_is_not_silent(sd: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(vae(sd), "decode", decode)
    with pytest.raises(RuntimeError, match="out of memory"):
        sd(["red", "blue"], batch=1, overlap=True, **QUICK)


def test_a_decoder_that_overflows_loses_its_image_alone(sd: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    decoding = vae(sd).decode

    def decode(z: torch.Tensor, **more: Any) -> Any:
        pictures = decoding(z, **more)[0].clone()
        pictures[1] = torch.inf
        return (pictures,)

    monkeypatch.setattr(vae(sd), "decode", decode)
    with pytest.raises(LostImages, match="1 of 3 images are NaN or infinite, first in the decoder") as caught:
        sd(["red", "blue", "green"], **QUICK)
    assert caught.value.finished is not None
    assert caught.value.finished.subjects == ("red", "green")


def test_threads_share_a_pipeline(models: Models, sd: Pipeline) -> None:
    from concurrent.futures import ThreadPoolExecutor

    prompts = ["red", "blue", "green lion", "red", "blue circle", "lion"]
    alone = [sd(prompt, seed=i, **QUICK).tensor for i, prompt in enumerate(prompts)]
    fresh = load(models("sd").folder)
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda job: fresh(job[1], seed=job[0], **QUICK).tensor, enumerate(prompts)))
    assert all(map(torch.equal, alone, together))


@pytest.mark.parametrize("name", ["realtime", "interactive", "batch", "best"])
def test_a_preset_is_nothing_but_an_overlay(sd: Pipeline, name: str) -> None:
    order = sd.order("lion", preset=name, steps=2, height=16, width=16)
    overlay, sampling = fs.preset(name), order.drawing.sampling
    assert (sampling.sampler, sampling.steps, sampling.grid) == (overlay["sampling"]["sampler"], 2, "trailing")
    assert (order.run.batch, order.run.overlap) == (overlay["run"]["batch"], name == "batch")
    assert order.drawing.decode.sliced == (name == "batch")
    assert sd.order("lion", preset=name, batch=3).run.batch == 3
    with pytest.raises(fs.InvalidInput, match="unknown preset 'bst': did you mean 'best'"):
        sd("lion", preset="bst")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near_to_single(models: Models, dtype: str) -> None:
    half = load(models("sd").folder, dtype=dtype)
    images, exact = (p("a red circle", steps=4, guidance=1.0) for p in (half, models("sd").native))
    assert next(half.model.module.parameters()).dtype == getattr(torch, dtype)
    assert next(vae(half).parameters()).dtype == (torch.float32 if dtype == "float16" else torch.bfloat16)
    distance = float((images.tensor - exact.tensor).abs().mean() / exact.tensor.abs().mean())
    assert 0 < distance < 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": []}, "there are no prompts: give at least one"),
        ({"prompts": 3}, r"prompts\.0 has to be a valid string, got 3"),
        ({"prompts": ["a", 3]}, r"prompts\.1 has to be a valid string, got 3"),
        ({"prompts": "x" * 20_001}, "at most 20000 characters"),
        ({"prompts": ["a"] * 10_001}, "at most 10000 items|1 to 10,000 images, got 10,001"),
        ({"negative": ["a", "b"]}, "one negative, or one for each of the 1 subjects, got 2"),
        ({"negative": 4}, "the negative of sd is words, got the label 4"),
        ({"count": 0}, "count has to be greater than or equal to 1, got 0"),
        ({"count": 10_001}, "count has to be less than or equal to 10000, got 10001"),
        ({"height": 17}, "height is 17; sd makes multiples of 2 up to 16384 pixels"),
        ({"width": 0}, "width is 0"),
        ({"width": -2}, "width is -2"),
        ({"width": 16.0}, "width is 16.0"),
        ({"height": 16386}, "height is 16386"),
        ({"height": 16384, "width": 16384}, "has more than 67,108,864: use fewer"),
        ({"height": 4096, "width": 4096, "count": 30}, "take more than 4 GiB"),
        ({"seed": [1, 2]}, "one for each of the 1 images, got 2"),
        ({"seed": "x"}, "seed has to be .*, got 'x'"),
        ({"guidance": float("nan")}, r"guidance\.scale.* finite number"),
        ({"guidance": {"interval": (3.0, 2.0)}}, r"guidance\.interval: it needs 0 <= low < high"),
        ({"guidance": {"rescale": 2}}, r"rescale must lie in \[0, 1\]"),
        ({"sampler": "unipc-9"}, "unknown sampler 'unipc-9'"),
        ({"batch": 0}, "batch must be a whole number from 1"),
        ({"steps": 100_001}, "steps has to be less than or equal to 10000, got 100001"),
    ],
)
def test_a_wrong_argument_is_named_before_anything_is_encoded(
    models: Models, encodings: list[str], arguments: dict[str, Any], message: str
) -> None:
    sd = models("sd").native
    settings = {"prompts": "lion", **QUICK, **arguments}
    with pytest.raises(fs.InvalidInput, match=message):
        sd(settings.pop("prompts"), **settings)
    assert encodings == []


def test_sizes_are_those_that_the_transformer_has_positions_for(models: Models) -> None:
    sd3 = models("sd3").native
    assert (sd3.model.sizes.height, sd3.model.sizes.multiple, sd3.state_shape(64, 8)) == (16, 4, (4, 32, 4))
    with pytest.raises(fs.InvalidInput, match=r"width is 68; .* makes multiples of 4 up to 64 pixels"):
        sd3("lion", width=68)
    assert models("flux").native.pixel_shape() == (3, 256, 256)


def test_a_drawing_can_be_cancelled(sd: Pipeline) -> None:
    with pytest.raises(fs.Cancelled, match="after 3 of 4"):
        sd(["lion", "red"], batch=1, on_row=lambda p: p.index == 2, **QUICK)
