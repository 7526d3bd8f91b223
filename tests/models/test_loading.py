"""Loading: every kind of source, and files that are missing, damaged, hostile or of another kind."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import fewstep as fs
from fewstep.batch import Batch, PromptLine, draw_batch
from fewstep.pipeline import load

from . import tiny, tiny_diffusers
from .tiny_diffusers import Twins

Models = Callable[..., Twins]
UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture
def folder(models: Models, tmp_path: Path) -> Path:
    """A copy of a Stable Diffusion folder, to be damaged."""
    return shutil.copytree(models("sd").folder, tmp_path / "sd")


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


def test_a_callable_is_a_model_with_a_schedule(tmp_path: Path) -> None:
    schedule = fs.schedules.flow(shift=2.0)

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return x - t.reshape(-1, 1, 1, 1)

    pipe = load(network, spec=fs.NetworkSpec(schedule, "flow", (1, 4, 6)))
    images = pipe([None] * 3, sampler="euler", steps=4, seed=1)
    assert (images.tensor.shape, images.nfe, pipe.name) == ((3, 1, 4, 6), 4, "network")
    plan = fs.compile("euler", schedule=schedule, steps=4, grid="quadratic")
    assert torch.equal(
        images.tensor, fs.sample(plan, fs.Network(network, schedule, "flow"), shape=(3, 1, 4, 6), seed=1)
    )
    assert len(pipe(steps=2)) == 1
    classes = load(
        lambda x, t, label: x + label.reshape(-1, 1, 1, 1),
        spec=fs.NetworkSpec(schedule, "sample", (1, 2, 2), classes=3),
    )
    assert len(classes(steps=2)) == 3


def test_the_digest_of_a_module_is_over_its_weights() -> None:
    spec = fs.NetworkSpec(fs.schedules.edm(), "edm", (1, 2, 2))
    modules = [torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)]
    first, second = (load(module, spec=spec).model.digest for module in modules)
    assert first != second
    modules[1].load_state_dict(modules[0].state_dict())
    assert load(modules[1], spec=spec).model.digest == first
    assert load(modules[1], spec=replace(spec, classes=3)).model.digest != first
    assert not load(modules[1], spec=spec).model.identity.anonymous


def test_on_an_edm_schedule_the_usual_grid_is_that_of_karras(tmp_path: Path) -> None:
    net = tiny.network()
    spec = fs.zoo.Spec(net.config, "edm", fs.schedules.edm(), (-1.0, 1.0), {}, sigma_data=0.6)
    fs.zoo.save(tmp_path / "edm.safetensors", net, spec)
    pipe = load(tmp_path / "edm.safetensors")
    assert pipe.model.sigma_data == 0.6
    usual = {"sampler": "dpmpp-2m", "steps": 20, "grid": "karras"}
    assert pipe.model.recommended["sampling"] == fs.models.recommended_by(str(tmp_path / "edm.safetensors"))["sampling"]
    assert pipe.model.recommended["sampling"] == usual
    for given, grid in (({}, "karras"), ({"preset": "interactive"}, "karras"), ({"grid": "trailing"}, "trailing")):
        assert pipe.order([0], **given).drawing.sampling.grid == grid
    tiny.write(tmp_path / "linear.safetensors")
    assert load(tmp_path / "linear.safetensors").order([0], preset="interactive").drawing.sampling.grid == "trailing"


SPEC = fs.NetworkSpec(fs.schedules.linear(), "epsilon", (1, 2, 2))


class Scaled(torch.nn.Module):
    """A module without weights, which a number decides."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.factor * x


def closing_over(factor: float) -> Callable[..., Any]:
    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return factor * x

    return model


@pytest.mark.parametrize(
    "make", [closing_over, Scaled, lambda factor: partial(lambda net, x, t: net(x, t), closing_over(factor))]
)
def test_nothing_is_claimed_of_a_callable_whose_outcome_is_not_to_be_seen(make: Callable[[float], Any]) -> None:
    first, second = (load(make(factor), spec=SPEC) for factor in (0.9, 0.3))
    assert first.model.digest != second.model.digest
    assert (
        load(first.model.network, spec=SPEC).model.digest != first.model.digest
    )  # what it closes over may have changed
    assert first.model.identity.anonymous
    assert len(bytes.fromhex(first.model.digest)) == 8
    picture = first([None], steps=2)
    assert torch.equal(first.redraw(picture).tensor, picture.tensor)
    with pytest.raises(fs.InvalidInput, match=r"give the model that drew it\. A function is another model each time"):
        second.redraw(picture)


def test_a_callable_is_known_by_the_digest_that_its_caller_gives() -> None:
    first, again, other = (load(closing_over(0.9), spec=replace(SPEC, digest=text)) for text in ("0.9", "0.9", "0.3"))
    assert (first.model.digest, first.model.identity.anonymous) == (again.model.digest, False)
    assert other.model.digest != first.model.digest
    wider = replace(SPEC, sample_shape=(1, 2, 3), digest="0.9")
    assert load(closing_over(0.9), spec=wider).model.digest != first.model.digest
    picture = first([None], steps=2)
    assert torch.equal(again.redraw(picture).tensor, picture.tensor)
    module = torch.nn.Linear(2, 2)
    named = load(module, spec=replace(SPEC, digest="mine"))
    assert named.model.digest != load(module, spec=SPEC).model.digest
    for wrong in ("", 7, "a" * 1001):
        with pytest.raises(fs.InvalidInput, match="digest must be a text of 1 to 1000 characters"):
            load(closing_over(0.9), spec=replace(SPEC, digest=wrong))  # type: ignore[arg-type]
    with pytest.raises(fs.InvalidInput, match="digest are for a callable"):
        load("digits", spec=fs.NetworkSpec(digest="mine"))


def test_a_batch_of_an_unknown_callable_is_not_continued_by_another(tmp_path: Path) -> None:
    def batch(factor: float, digest: str | None = None) -> Batch:
        pipe = load(closing_over(factor), spec=replace(SPEC, digest=digest))
        return Batch.of(pipe, [PromptLine(None)], call={"steps": 2}, size=1)

    draw_batch(batch(0.9), tmp_path / "job")
    with pytest.raises(fs.InvalidInput, match=r"model: .* begun with\. A function is another model each time"):
        draw_batch(batch(0.3), tmp_path / "job")
    draw_batch(batch(0.9, "0.9"), tmp_path / "known")
    assert draw_batch(batch(0.9, "0.9"), tmp_path / "known").drawn == 0


def test_a_module_is_converted_as_a_copy_and_other_callables_are_not() -> None:
    module = torch.nn.Linear(2, 2)
    whole, half = load(module, spec=SPEC).model, load(module, spec=SPEC, dtype="bfloat16").model
    assert module.weight.dtype is torch.float32
    assert (half.network.weight.dtype, half.dtype) == (torch.bfloat16, torch.bfloat16)  # type: ignore[attr-defined]
    assert (half.weights, whole.identity.weights) == (whole.digest, whole.digest)
    assert half.digest != whole.digest
    module.to(torch.bfloat16)
    assert load(module, spec=SPEC, dtype="bfloat16").model.network is module
    exact: Any = load(module, spec=SPEC, dtype="float32").model.network
    assert exact.weight.dtype is torch.float32
    with pytest.raises(fs.InvalidInput, match=r"dtype converts the weights of a torch\.nn\.Module, and a function"):
        load(closing_over(0.9), spec=SPEC, dtype="bfloat16")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"give schedule, prediction, sample_shape in fewstep\.NetworkSpec too"),
        ({"schedule": "linear"}, "schedule must be one of"),
        ({"prediction": "epsilom"}, "unknown prediction type 'epsilom': did you mean 'epsilon'"),
        ({"sample_shape": (3, 4)}, r"sample_shape must be \(C, H, W\)"),
        ({"sample_shape": (3, 10**6, 10**6)}, "at most 268,435,456 values"),
        ({"sample_shape": (3, 0, 4)}, "sample_shape must be"),
        ({"classes": -1}, "classes must be a whole number"),
    ],
)
def test_a_callable_without_its_facts_is_refused(given: dict[str, Any], message: str) -> None:
    spec = replace(SPEC, **given) if given else None
    with pytest.raises(fs.InvalidInput, match=message):
        load(lambda x, t: x, spec=spec)
    with pytest.raises(fs.InvalidInput, match="unknown dtype 'float8'"):
        load(lambda x, t: x, spec=SPEC, dtype="float8")


def test_facts_that_a_model_says_itself_are_refused(folder: Path) -> None:
    for source in ("digits", folder):
        with pytest.raises(fs.InvalidInput, match="prediction are for a callable or one network alone"):
            load(source, spec=fs.NetworkSpec(prediction="epsilon"))


def test_one_network_is_loaded_with_the_schedule_beside_it(models: Models, tmp_path: Path) -> None:
    whole, _, folder = models("ddpm")
    part = load(folder / "unet")
    file = load(folder / UNET)
    alone = shutil.copytree(folder / "unet", tmp_path / "alone")
    with pytest.raises(
        fs.InvalidInput, match=r"is a network alone: give spec=fewstep\.NetworkSpec\(schedule, prediction\)"
    ):
        load(alone)
    given = load(alone, spec=fs.NetworkSpec(whole.model.schedule, "epsilon"))
    pictures = [pipe([None], steps=2).tensor for pipe in (whole, part, file, given)]
    assert all(torch.equal(pictures[0], picture) for picture in pictures)


def test_a_part_of_a_text_model_names_the_whole(folder: Path) -> None:
    with pytest.raises(fs.InvalidInput, match=rf"one part \(UNet2DConditionModel\).* the whole, {folder}"):
        load(folder / UNET)


def test_weights_of_an_unknown_layout_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({"model.diffusion_model.out.0.weight": torch.zeros(4)}, path)
    with pytest.raises(fs.InvalidInput, match=r"weights without a configuration beside it, of no layout that is known"):
        load(path)


@pytest.mark.parametrize(
    "part",
    ["unet", "vae", "text_encoder", "tokenizer", "scheduler", "model_index.json", "unet/config.json", UNET, TEXT],
)
def test_a_missing_part_is_named(folder: Path, part: str) -> None:
    path = folder / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(fs.InvalidInput, match=part.split("/")[0].replace("_index.json", "_index")):
        load(folder)


def test_a_tokenizer_without_its_words_is_refused_with_what_it_needs(folder: Path) -> None:
    tokenizer = folder / "tokenizer"
    (tokenizer / "tokenizer.json").unlink()
    (tokenizer / "vocab.json").write_text("{}")
    needed = r"it needs tokenizer.json, or vocab.json and merges.txt, and has .*vocab.json"
    with pytest.raises(fs.InvalidInput, match=f"lacks its words: {needed}"):
        load(folder)
    for file in tokenizer.iterdir():
        file.unlink()
    with pytest.raises(fs.InvalidInput, match=r"lacks its words: .* and has no files. Fetch it again"):
        load(folder)


@pytest.mark.parametrize("file", [UNET, TEXT, "vae/diffusion_pytorch_model.safetensors"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-10], r"truncated or damaged \(.*not fully covered\); fetch or train it again"),
        (lambda content: content[:100], "truncated or damaged"),
        (lambda content: b"", "is not a safetensors file"),
        (lambda content: b"PK\x03\x04" + content[4:], "is not a safetensors file"),
        (lambda content: b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (lambda content: (2**40).to_bytes(8, "little") + content[8:], r"\(.*header too large\)"),
    ],
)
def test_damaged_weights_are_refused(folder: Path, file: str, damage: Callable[[bytes], bytes], message: str) -> None:
    path = folder / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(fs.InvalidInput, match=f"{path.name}.*{message}"):
        load(folder)


def test_weights_under_another_name_are_refused(folder: Path) -> None:
    vae, unet = folder / "vae/diffusion_pytorch_model.safetensors", folder / UNET
    vae.write_bytes(unet.read_bytes())
    with pytest.raises(fs.InvalidInput, match="tensors of AutoencoderKL are missing, such as"):
        load(folder)
    (folder / "unet").joinpath("diffusion_pytorch_model.safetensors").write_bytes((folder / TEXT).read_bytes())
    with pytest.raises(fs.InvalidInput, match=r"config.json asks for [\d,]+ weights, the files hold [\d,]+"):
        load(folder)


def test_a_tensor_of_another_shape_is_refused(folder: Path) -> None:
    weights = safetensors.torch.load_file(folder / UNET)
    name = max(weights, key=lambda key: weights[key].numel())
    weights[name] = torch.zeros(weights[name].numel() + 1000)
    safetensors.torch.save_file(weights, folder / UNET)
    with pytest.raises(fs.InvalidInput, match="cannot be loaded as UNet2DConditionModel"):
        load(folder)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("unet/config.json", {"block_out_channels": [8, 10**12]}, "block_out_channels is 1000000000000"),
        ("unet/config.json", {"block_out_channels": [8, 4_000_000]}, "config.json asks for|cannot be loaded"),
        ("unet/config.json", {"layers_per_block": 10**6}, "layers_per_block is 1000000; no model has more than 256"),
        ("unet/config.json", {"down_block_types": ["DownBlock2D"] * 100}, "down_block_types has 100 entries"),
        ("unet/config.json", {"cross_attention_dim": 64}, "cannot be loaded|asks for"),
        ("unet/config.json", {"down_block_types": ["Evil"]}, "cannot be loaded as UNet2DConditionModel"),
        ("unet/config.json", {"in_channels": 9}, "cannot be loaded|asks for"),
        ("text_encoder/config.json", {"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ("text_encoder/config.json", {"vocab_size": 9_000_000}, "asks for 288,"),
        ("vae/config.json", {"latent_channels": 8}, "cannot be loaded|asks for"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "squared"}, "unknown beta_schedule 'squared'"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**7}, "num_train_timesteps must be"),
        ("scheduler/scheduler_config.json", {"beta_end": "x"}, "beta_end must be|no noise schedule"),
        ("scheduler/scheduler_config.json", {"prediction_type": "v"}, "unknown prediction_type 'v'"),
        ("scheduler/scheduler_config.json", {"shift_terminal": 0.1}, "shift_terminal"),
        ("model_index.json", {"_class_name": "StableDifusionPipeline"}, "did you mean 'StableDiffusionPipeline'"),
        ("model_index.json", {"_class_name": ["my_code", "Pipeline"]}, "unknown kind of model"),
        ("model_index.json", {"unet": [None, None]}, "names no unet"),
        ("model_index.json", {"tokenizer": ["my_code", "Tokenizer"]}, "unknown tokenizer 'Tokenizer'"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(folder: Path, file: str, changes: dict, message: str) -> None:
    edit(folder / file, **changes)
    with pytest.raises(fs.InvalidInput, match=message):
        load(folder)


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000, '{"a": ' * 50 + "1" + "}" * 50])
def test_a_configuration_that_is_no_json_object_is_refused(folder: Path, text: str) -> None:
    (folder / "unet/config.json").write_text(text)
    with pytest.raises(fs.InvalidInput, match=r"damaged|JSON object"):
        load(folder)


def test_a_table_of_positions_is_bounded(models: Models, tmp_path: Path) -> None:
    folder = shutil.copytree(models("sd3").folder, tmp_path / "sd3")
    edit(folder / "transformer/config.json", pos_embed_max_size=9_000_000)
    with pytest.raises(fs.InvalidInput, match=r"asks for a table of .* positions"):
        load(folder)


class Bomb:
    """A pickle that would make a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_pickle_is_refused_unless_allowed_and_then_runs_no_code(folder: Path, tmp_path: Path) -> None:
    expected = load(folder)("lion", steps=2).tensor
    path = folder / "unet/diffusion_pytorch_model.bin"
    torch.save(safetensors.torch.load_file(folder / UNET), path)
    (folder / UNET).unlink()
    with pytest.raises(fs.InvalidInput, match=r"only as a pickle, diffusion_pytorch_model.bin.*allow_pickle=True"):
        load(folder)
    pipe = load(folder, allow_pickle=True)
    assert torch.equal(pipe("lion", steps=2).tensor, expected)
    path.write_bytes(pickle.dumps({"conv_in.weight": Bomb(tmp_path / "ran")}))
    with pytest.raises(fs.InvalidInput, match="cannot be loaded as UNet2DConditionModel"):
        load(folder, allow_pickle=True)
    assert not (tmp_path / "ran").exists()
    for name in ("model.ckpt", "model.bin"):
        (tmp_path / name).write_bytes(b"\x80\x04")
        with pytest.raises(fs.InvalidInput, match="is a pickle by its name"):
            load(tmp_path / name, allow_pickle=True)


def test_code_that_a_folder_brings_is_not_run(folder: Path, tmp_path: Path) -> None:
    line = f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    for part in ("", "unet", "text_encoder", "tokenizer"):
        (folder / part / "evil.py").write_text(line)
    edit(folder / "text_encoder/config.json", auto_map={"AutoModel": "evil.Model", "AutoConfig": "evil.Config"})
    edit(folder / "tokenizer/tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", None]})
    load(folder)("lion", steps=1)
    assert not (tmp_path / "ran").exists()


def test_shards_and_variants(folder: Path, models: Models) -> None:
    expected = load(folder)("lion", steps=2).tensor
    models("sd").own.unet.save_pretrained(folder / "unet", max_shard_size="40KB")
    (folder / UNET).unlink()
    shards = sorted((folder / "unet").glob("*-of-*.safetensors"))
    assert len(shards) > 1
    assert torch.equal(load(folder)("lion", steps=2).tensor, expected)
    shards[0].rename(shards[0].with_suffix(".gone"))
    with pytest.raises(fs.InvalidInput, match=f"lacks {shards[0].name}"):
        load(folder)
    edit(folder / "unet/diffusion_pytorch_model.safetensors.index.json", weight_map={"a": "../../x.safetensors"})
    with pytest.raises(fs.InvalidInput, match="no sound weight_map"):
        load(folder)
    models("sd").own.save_pretrained(folder.with_name("half"), variant="fp16")
    with pytest.raises(fs.InvalidInput, match=r"\.fp16\.safetensors.*name the variant"):
        load(folder.with_name("half"))
    assert torch.equal(load(folder.with_name("half"), variant="fp16")("lion", steps=2).tensor, expected)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, offline."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_hub_id_that_is_cached_is_loaded_offline(models: Models, hub: Path) -> None:
    snapshot = hub / "models--org--tiny-sd" / "snapshots" / ("a" * 40)
    shutil.copytree(models("sd").folder, snapshot)
    (hub / "models--org--tiny-sd" / "refs").mkdir()
    (hub / "models--org--tiny-sd" / "refs" / "main").write_text("a" * 40)
    pipe = load("org/tiny-sd")
    assert (pipe.name, pipe.model.digest) == ("tiny-sd", models("sd").native.model.digest)


def test_a_hub_id_that_is_not_cached_says_why_it_cannot_be_had(hub: Path) -> None:
    with pytest.raises(fs.InvalidInput, match=r"'org/absent' is neither in the local cache.*HF_HUB_OFFLINE is set"):
        load("org/absent")
    assert not hub.exists()


def test_only_weights_and_configurations_are_fetched(monkeypatch: pytest.MonkeyPatch, models: Models) -> None:
    import fnmatch

    import huggingface_hub

    asked: dict[str, Any] = {}

    def fetch(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(models("sd").folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    load("org/tiny-sd", variant=None)

    def wanted(path: str) -> bool:
        return any(fnmatch.fnmatch(path, pattern) for pattern in asked["allow_patterns"])

    assert (asked["name"], asked["local_files_only"]) == ("org/tiny-sd", False)
    assert all(
        map(wanted, [UNET, TEXT, "tokenizer/merges.txt", "model_index.json", "vae/config.json", "t/spiece.model"])
    )
    assert wanted("unet/diffusion_pytorch_model-00001-of-00002.safetensors")
    for path in (
        "unet/diffusion_pytorch_model.bin",
        "unet/x.py",
        "sd.ckpt",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "v1-5.safetensors",
    ):
        assert not wanted(path)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(fs.InvalidInput, match=r"is a folder without model_index.json"):
        load(tmp_path)


def test_a_folder_may_recommend_how_it_is_drawn_with(tmp_path: Path) -> None:
    tiny_diffusers.write("sd", tmp_path / "sd")
    assert load(tmp_path / "sd").model.recommended["guidance"] == {"scale": 7.5}
    overlay = {"guidance": {"scale": 2.5}, "sampling": {"sampler": "unipc-2", "steps": 3}, "clip_skip": 1}
    (tmp_path / "sd/fewstep.json").write_text(json.dumps(overlay))
    pipe = load(tmp_path / "sd")
    drawing = pipe("a lion").drawing
    assert (drawing.guidance.scale, drawing.clip_skip) == (2.5, 1)
    assert (drawing.sampling.sampler, drawing.sampling.steps, drawing.sampling.grid) == ("unipc-2", 3, "trailing")
    assert pipe.order("a lion", guidance=1.0, clip_skip=2).drawing.guidance.scale == 1.0


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ({"guidance": {"scale": True}}, "scale"),
        ({"guidance": {"scale": "3"}}, "scale"),
        ({"guidance": {"scale": float("nan")}}, "scale|NaN"),
        ({"guidance": 2.5}, "it may hold sampling, guidance"),
        ({"guidance": {"scal": 2.5}}, "scal"),
        ({"guidance": {"method": "apq"}}, "did you mean 'apg'"),
        ({"sampling": {"sampler": "unipc-99"}}, "unknown sampler 'unipc-99'"),
        ({"sampling": {"steps": 0}}, "steps"),
        ({"sampling": {"plan": {"format": 9}}}, "plan"),
        ({"clip_skip": 99}, "clip_skip"),
        ({"clip_skip": "1"}, "clip_skip"),
        ({"decode": {"tiled": 1}}, "tiled"),
        ({"decode": {"tilde": True}}, "tilde"),
        ({"prompts": ["lion"]}, "it may hold sampling, guidance"),
        ({"height": 10**9}, "it may hold sampling, guidance"),
        ({"run": {"batch": 10**6}}, "it may hold sampling, guidance"),
    ],
)
def test_a_recommendation_that_cannot_be_followed_is_refused_where_it_is_read(
    folder: Path, overlay: dict[str, Any], message: str
) -> None:
    (folder / "fewstep.json").write_text(json.dumps(overlay))
    with pytest.raises(fs.InvalidInput, match=rf"fewstep\.json.*({message})"):
        load(folder)


def test_a_recommendation_that_is_a_pipe_is_refused_and_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "fewstep.json")
    with pytest.raises(OSError, match=r"a named pipe, and only regular files are read: .*fewstep\.json"):
        load(folder)
