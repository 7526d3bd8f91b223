"""Features of known networks, tiny and random here, from folders on disk."""

import json
import socket
import sys
import types

import pytest
import torch

from fewstep.core.errors import InvalidInput
from fewstep.measure import Bootstrap, ClipScore, Summary, backbone, mean_score
from models.tiny_diffusers import clip_tokenizer, tiny_clip

transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*_args):
        raise AssertionError("a backbone opens a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def clip(folder, **scale):
    image = {**SMALL, "intermediate_size": 16, "image_size": 16, "patch_size": 8, "projection_dim": 12}
    text = {**SMALL, "intermediate_size": 16, "vocab_size": 40, "max_position_embeddings": 8, "eos_token_id": 2}
    torch.manual_seed(0)
    config = transformers.CLIPConfig(vision_config=image, text_config=text, projection_dim=12)
    transformers.CLIPModel(config).save_pretrained(folder)
    if scale:
        (folder / "preprocessor_config.json").write_text(json.dumps(scale))
    return folder


def dinov2(folder, **said):
    torch.manual_seed(0)
    config = transformers.Dinov2Config(**SMALL, image_size=28, patch_size=14)
    transformers.Dinov2Model(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return folder


def images(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_clip_gives_what_the_library_makes_of_the_image(tmp_path):
    features = backbone("clip", clip(tmp_path, image_mean=[0.5] * 3, image_std=[0.25] * 3))
    assert (features.name, features.width) == ("clip", 12)
    whole = transformers.CLIPModel.from_pretrained(tmp_path).eval()
    x = images(3, 3, 16, 16)  # of the network's own size, so that nothing is resized
    with torch.no_grad():
        vision = whole.vision_model(pixel_values=2 * x).pooler_output
        want = whole.visual_projection(vision)
    torch.testing.assert_close(features(x), want, rtol=1e-5, atol=1e-6)


def test_grey_images_of_another_size_are_brought_to_what_the_network_reads(tmp_path):
    features = backbone("dinov2", dinov2(tmp_path, crop_size={"height": 28, "width": 28}))
    summary = Summary(features)
    summary.update(images(5, 1, 9, 9))
    assert summary.rows.shape == (5, 16)
    flat = torch.full((1, 1, 9, 9), 0.25)
    torch.testing.assert_close(features(flat), features(torch.full((1, 3, 28, 28), 0.25)), rtol=1e-4, atol=1e-5)


def test_the_digest_is_of_the_weights_and_the_size(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    small = backbone("dinov2", dinov2(tmp_path / "a", crop_size=28))
    large = backbone("dinov2", dinov2(tmp_path / "b", crop_size=42))
    assert small.digest == backbone("dinov2", tmp_path / "a").digest
    assert small.digest != large.digest
    assert large(images(2, 3, 8, 8)).shape == (2, 16)


def test_what_is_no_such_folder_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="did you mean 'dinov2'"):
        backbone("dino", tmp_path)
    with pytest.raises(InvalidInput, match=r"needs config\.json and model\.safetensors"):
        backbone("clip", tmp_path / "none")
    clip(tmp_path)
    with pytest.raises(InvalidInput, match="holds a model of type 'clip', for dinov2 it is 'dinov2'"):
        backbone("dinov2", tmp_path)
    features = backbone("clip", tmp_path)
    with pytest.raises(InvalidInput, match=r"this network reads images \(batch, 3 or 1, H, W\), got \(2, 4, 8, 8\)"):
        features(images(2, 4, 8, 8))
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:-400])
    with pytest.raises(InvalidInput, match="cannot be read as CLIPVisionModelWithProjection"):
        backbone("clip", tmp_path)


def test_weights_that_are_missing_are_named(tmp_path):
    from safetensors.torch import load_file, save_file

    file = clip(tmp_path) / "model.safetensors"
    weights = {name: value for name, value in load_file(file).items() if name != "visual_projection.weight"}
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(InvalidInput, match=r"lacks 1 weights, \['visual_projection.weight'\]"):
        backbone("clip", tmp_path)


def test_inception_is_given_bytes_by_a_library_that_has_to_be_there(tmp_path, monkeypatch):
    file = tmp_path / "weights.pth"
    with pytest.raises(InvalidInput, match="never downloads"):
        backbone("inception", file)
    file.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    with pytest.raises(InvalidInput, match="pip install torchmetrics torch-fidelity"):
        backbone("inception", file)

    class Fake(torch.nn.Module):
        def __init__(self, name, features_list, path):
            super().__init__()
            assert (name, features_list, path) == ("inception-v3-compat", ["2048"], str(file))
            self.weight = torch.nn.Parameter(torch.ones(2048))

        def forward(self, x):
            assert x.dtype == torch.uint8
            return x.float().mean(dim=(1, 2, 3))[:, None] * self.weight

    for name in ("torchmetrics", "torchmetrics.image", "torchmetrics.image.fid"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(sys.modules["torchmetrics.image.fid"], "NoTrainInceptionV3", Fake, raising=False)
    features = backbone("inception", file)
    assert features(torch.full((1, 1, 8, 8), 3.0)).max() == 255
    assert features(torch.zeros(2, 3, 8, 8)).shape == (2, 2048)


def test_the_clip_score_is_the_cosine_of_image_and_prompt_times_100(tmp_path):
    folder, prompts = tiny_clip(tmp_path), ["a red circle", "a blue square"]
    score = ClipScore(folder)
    x = images(2, 3, 16, 16)
    found = score(x, prompts)
    whole = transformers.CLIPModel.from_pretrained(folder).eval()
    words = score.tokenizer(prompts, padding=True, return_tensors="pt")
    with torch.no_grad():
        out = whole(**words, pixel_values=((x + 1) / 2 - 0.5) / 0.25)
    cosines = (out.image_embeds * out.text_embeds).sum(dim=1)
    torch.testing.assert_close(found, 100 * cosines.clamp_min(0).double(), rtol=1e-4, atol=1e-4)
    figure = score.figure(torch.tensor([20.0, 30.0]), prompts)
    assert (figure.value, figure.n, figure.feature_digest) == (25.0, 2, score.digest)
    assert figure.reference != score.figure(torch.tensor([20.0, 30.0]), prompts[::-1]).reference


def test_a_prompt_that_is_cut_is_named_and_one_that_is_missing_refused(tmp_path):
    score = ClipScore(tiny_clip(tmp_path))
    with pytest.warns(UserWarning, match="1 prompts are longer than CLIP's 16 tokens and were cut"):
        score(images(1, 3, 16, 16), ["red " * 40])
    with pytest.raises(InvalidInput, match="got 1 for 2"):
        score(images(2, 3, 16, 16), ["red"])
    (tmp_path / "more").mkdir()
    tokenizer = clip_tokenizer(tmp_path / "more")
    tokenizer.add_tokens(["dodecahedron"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InvalidInput, match="they do not fit"):
        ClipScore(tmp_path)
    for name in ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(InvalidInput, match="no tokenizer of CLIP"):
        ClipScore(tmp_path)


def test_any_score_has_a_mean_with_an_interval():
    right = torch.tensor([1.0] * 90 + [0.0] * 10)
    figure = mean_score("prompt adherence", right, reference="prompts", bootstrap=Bootstrap(2000))
    assert figure.value == pytest.approx(0.9)
    assert figure.high - figure.low == pytest.approx(2 * 1.96 * 0.03, rel=0.15)
    for wrong in ([1.0], [[1.0, 2.0]], [1.0, float("nan")]):
        with pytest.raises(InvalidInput, match="2 or more finite numbers"):
            mean_score("prompt adherence", wrong)
