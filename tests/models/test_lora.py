"""LoRA: every layout there is gives what diffusers' own load_lora_weights gives; what does not fit is refused."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import fewstep as fs
from fewstep.models import Identity
from fewstep.models.families import call_sana
from fewstep.pipeline import Pipeline, load

from . import originals
from .test_families import PROMPTS, SIZE, apart, noise, pack
from .tiny_diffusers import Twins

Models = Callable[..., Twins]
Tensors = dict[str, Tensor]
RANK = 3
ATTENTION = ("attn1.to_q", "attn1.to_k", "attn2.to_v", "attn2.to_out.0")


def changes(module: Any, ends: Sequence[str], seed: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    """(down, up) of the linear layers and convolutions of a module whose names end so, by name."""
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for name, layer in module.named_modules():
        if name.endswith(tuple(ends)) and hasattr(layer, "weight"):
            out, *inner = layer.weight.shape
            up = (out, RANK, 1, 1) if len(inner) == 3 else (out, RANK)
            found[name] = tuple(0.3 * torch.randn(shape, generator=draw) for shape in ((RANK, *inner), up))
    assert found
    return found


def todays(part: str, found: dict[str, tuple[Tensor, Tensor]]) -> Tensors:
    """As peft and diffusers write them."""
    return {
        f"{part}.{name}.lora_{letter}.weight": t
        for name, two in found.items()
        for letter, t in zip("AB", two, strict=True)
    }


def kohyas(prefix: str, found: dict[str, tuple[Tensor, Tensor]], alpha: float | None = 1.5) -> Tensors:
    """As kohya's trainer writes them, with an alpha of their own."""
    result = {}
    for name, (down, up) in found.items():
        place = f"{prefix}_{name.replace('.', '_')}"
        result |= {f"{place}.lora_down.weight": down, f"{place}.lora_up.weight": up}
        result |= {} if alpha is None else {f"{place}.alpha": torch.tensor(alpha)}
    return result


def early(found: dict[str, tuple[Tensor, Tensor]]) -> Tensors:
    """As the first versions of diffusers wrote them, in processors of attention."""
    result = {}
    for name, (down, up) in found.items():
        start, _, end = name.removesuffix(".0").rpartition(".")
        for which, tensor in (("down", down), ("up", up)):
            result[f"unet.{start}.processor.{end}_lora.{which}.weight"] = tensor
    return result


def written(path: Path, tensors: Tensors, metadata: dict[str, Any] | None = None) -> Path:
    texts = None if metadata is None else {"format": "pt", "lora_adapter_metadata": json.dumps(metadata)}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=texts)
    return path


def theirs(twins: Twins, *loras: tuple[Path, float]) -> Any:
    """diffusers' pipeline with LoRAs, in its own way."""
    more = {"safety_checker": None} if twins.folder.name == "sd" else {}
    names = [f"number_{i}" for i in range(len(loras))]
    with warnings.catch_warnings(action="ignore"):
        own = type(twins.own).from_pretrained(twins.folder, **more)
        for name, (path, _) in zip(names, loras, strict=True):
            own.load_lora_weights(path.parent, weight_name=path.name, adapter_name=name)
        own.set_adapters(names, [scale for _, scale in loras])
    own.set_progress_bar_config(disable=True)
    return own


def drawn_by_diffusers(own: Any, family: str) -> Tensor:
    start = noise((2, 4, 8, 12))
    settings: dict[str, Any] = {"num_inference_steps": 3, "output_type": "latent", "guidance_scale": 3.0}
    if family == "sana":
        return own(
            PROMPTS,
            latents=noise((2, 4, 16, 32)),
            use_resolution_binning=False,
            complex_human_instruction=None,
            height=32,
            width=64,
            **settings,
        ).images
    return own(PROMPTS, latents=pack(start) if family == "flux" else start, **settings, **SIZE).images


def whole_times(module: Any, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
    return call_sana(module, x, t.trunc(), **condition)


def drawn(pipe: Any, own: Any, family: str) -> Tensor:
    """What `drawn_by_diffusers` draws."""
    size = {"height": 32, "width": 64} if family == "sana" else SIZE
    start = noise((2, *pipe.state_shape(**size)))
    if family == "sd":
        sampling = {"times": [*own.scheduler.timesteps.tolist(), 0.0]}
        plan = pipe.plan("ddim", sampling=sampling, **size)
    elif family == "sdxl":
        plan = pipe.plan("euler", steps=3, **size)
        start = start * own.scheduler.init_noise_sigma * plan.rows[0].alpha
    else:
        sampling = {"sigmas": own.scheduler.sigmas.tolist()}
        plan = pipe.plan("dpmpp-2m" if family == "sana" else "euler", sampling=sampling, **size)
    if family == "sana":  # whole times, as diffusers' DPM-Solver tells them
        told = partial(whole_times, pipe.model.module)
        pipe = Pipeline(replace(pipe.model, network=told))
    found = fs.sample(plan, pipe.denoiser(PROMPTS, guidance=3.0, **size), start=start)
    return pack(found) if family == "flux" else found


def layouts(own: Any, family: str, layout: str) -> Tensors:
    """A LoRA of a family's network, and where it is usual of its text encoders."""
    if family == "flux":
        single = {"transformer": changes(own.transformer, ("attn.to_q", "attn.to_out.0", "proj_mlp"))}
        if layout == "kohya":  # query, key and value are one layer there
            width, draw = own.transformer.inner_dim, torch.Generator().manual_seed(2)
            names = {"double_blocks_0_img_attn_qkv": 3 * width, "double_blocks_0_txt_attn_proj": width}
            found = {
                name: (torch.randn(RANK, width, generator=draw), torch.randn(out, RANK, generator=draw))
                for name, out in names.items()
            }
            return kohyas("lora_unet", found) | kohyas(
                "lora_te1_text_model", changes(own.text_encoder, ("q_proj", "out_proj"))
            )
        return todays("transformer", single["transformer"]) | todays(
            "text_encoder", changes(own.text_encoder, ("q_proj", "fc1"), 1)
        )
    if family in ("sd3", "sana"):
        ends = ("attn.to_q", "attn.to_v", "ff.net.2") if family == "sd3" else ("attn1.to_q", "attn2.to_v")
        return todays("transformer", changes(own.transformer, ends))
    network = changes(own.unet, (*ATTENTION, "conv1", "proj_in") if layout != "early" else ATTENTION)
    words = changes(own.text_encoder, ("k_proj", "out_proj"), 1)
    if layout == "early":
        return early(network)
    if layout == "dora":  # with a length of each row of the weights
        network = changes(own.unet, ATTENTION)
        lengths = {
            f"unet.{name}.lora_magnitude_vector": own.unet.get_submodule(name).weight.norm(dim=1) * 1.5
            for name in network
        }
        return todays("unet", network) | lengths
    if layout == "kohya":
        number = "" if family == "sd" else "1"
        text = kohyas(f"lora_te{number}_text_model", words)
        if family == "sdxl":
            second = {
                name.removeprefix("text_model."): two for name, two in changes(own.text_encoder_2, ("fc2",)).items()
            }
            text |= kohyas("lora_te2_text_model", second)
        return kohyas("lora_unet", network) | text
    return todays("unet", network) | todays("text_encoder", words)


@pytest.mark.parametrize(
    ("family", "layout"),
    [
        ("sd", "today"),
        ("sd", "early"),
        ("sd", "kohya"),
        ("sd", "dora"),
        ("sdxl", "today"),
        ("sdxl", "kohya"),
        ("sd3", "today"),
        ("flux", "today"),
        ("flux", "kohya"),
        ("sana", "today"),
    ],
)
def test_a_lora_draws_what_diffusers_draws_with_it(models: Models, tmp_path: Path, family: str, layout: str) -> None:
    twins = models(family)
    path = written(tmp_path / "style.safetensors", layouts(twins.own, family, layout))
    own = theirs(twins, (path, 0.7))
    expected = drawn_by_diffusers(own, family)
    pipe = load(twins.folder, lora=(path, 0.7))
    assert apart(drawn(pipe, own, family), expected) < 1e-5
    assert apart(drawn(twins.native, own, family), expected) > 1e-3


def test_kohyas_names_of_the_original_blocks_of_sdxl_are_read(models: Models, tmp_path: Path) -> None:
    twins = models("sdxl")
    network = twins.own.unet
    originally = {tensor.data_ptr(): name for name, tensor in originals.unet(network).items()}
    found = {
        originally[network.get_submodule(name).weight.data_ptr()].removesuffix(".weight"): two
        for name, two in changes(network, ATTENTION).items()
    }
    assert any(name.startswith("input_blocks.") for name in found)
    path = written(tmp_path / "style.safetensors", kohyas("lora_unet", found))
    own, pipe = theirs(twins, (path, 0.7)), load(twins.folder, lora=(path, 0.7))
    assert apart(drawn(pipe, own, "sdxl"), drawn_by_diffusers(own, "sdxl")) < 1e-5
    other: Any = load(
        twins.folder, lora=(written(tmp_path / "b.safetensors", todays("unet", changes(network, ATTENTION))), 0.35)
    ).model.module
    merged: Any = pipe.model.module  # alpha is half the rank, so both are the same
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(merged.parameters(), other.parameters(), strict=True))


def test_a_lora_is_merged_into_an_original_checkpoint_too(models: Models, tmp_path: Path) -> None:
    twins = models("sd")
    one = originals.write(tmp_path / "one.safetensors", **originals.sd_parts(twins.own))
    path = written(tmp_path / "style.safetensors", layouts(twins.own, "sd", "kohya"))
    of_one, of_folder = (
        load(source, lora=(path, 0.7), **more) for source, more in ((one, {"config": twins.folder}), (twins.folder, {}))
    )
    pictures = [pipe("red circle", steps=2).tensor for pipe in (of_one, of_folder)]
    assert apart(*pictures) < 1e-5
    assert of_one.model.lora == of_folder.model.lora


def test_several_are_added_each_at_its_scale(models: Models, tmp_path: Path) -> None:
    twins = models("sd")
    first = written(tmp_path / "a.safetensors", todays("unet", changes(twins.own.unet, ATTENTION)))
    second = written(tmp_path / "b.safetensors", kohyas("lora_unet", changes(twins.own.unet, ("conv1", *ATTENTION), 4)))
    own = theirs(twins, (first, 0.6), (second, -0.4))
    pipe = load(twins.folder, lora=[(first, 0.6), (second, -0.4)])
    expected = drawn_by_diffusers(own, "sd")
    assert apart(drawn(pipe, own, "sd"), expected) < 1e-5
    assert [one.scale for one in pipe.model.lora] == [0.6, -0.4]
    plain: Any = twins.native.model.module
    none: Any = load(twins.folder, lora=(first, 0.0)).model.module
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), none.parameters(), strict=True))


def test_settings_in_the_metadata_scale_it(models: Models, tmp_path: Path) -> None:
    twins = models("sd")
    tensors = todays("unet", changes(twins.own.unet, ATTENTION))
    names = list(changes(twins.own.unet, ATTENTION))
    settings = {"unet.r": RANK, "unet.lora_alpha": 6, "unet.target_modules": names}
    path = written(tmp_path / "a.safetensors", tensors, settings)
    own, pipe = theirs(twins, (path, 1.0)), load(twins.folder, lora=path)
    expected = drawn_by_diffusers(own, "sd")
    assert apart(drawn(pipe, own, "sd"), expected) < 1e-5
    twice: Any = load(twins.folder, lora=(written(tmp_path / "b.safetensors", tensors), 6 / RANK)).model.module
    merged: Any = pipe.model.module
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(merged.parameters(), twice.parameters(), strict=True))


def test_nothing_of_the_merging_is_left(models: Models, tmp_path: Path) -> None:
    twins = models("sd")
    before = (twins.folder / "unet/diffusion_pytorch_model.safetensors").read_bytes()
    path = written(tmp_path / "a.safetensors", layouts(twins.own, "sd", "today"))
    for dtype in ("float32", "bfloat16"):
        merged: Any = load(twins.folder, lora=path, dtype=dtype).model.module
        plain: Any = load(twins.folder, dtype=dtype).model.module
        assert {name: type(m) for name, m in merged.named_modules()} == {
            name: type(m) for name, m in plain.named_modules()
        }
        assert {p.dtype for p in merged.parameters()} == {getattr(torch, dtype)}
        assert not any(p.requires_grad for p in merged.parameters())
    # B and A in the dtype of the model, as in diffusers; their product and the sum are rounded once
    name = next(name for name in changes(twins.own.unet, ATTENTION))
    down, up = load_file(path)[f"unet.{name}.lora_A.weight"], load_file(path)[f"unet.{name}.lora_B.weight"]
    exact = plain.get_submodule(name).weight.float() + up.bfloat16().float() @ down.bfloat16().float()
    assert torch.equal(merged.get_submodule(name).weight, exact.to(torch.bfloat16))
    assert (twins.folder / "unet/diffusion_pytorch_model.safetensors").read_bytes() == before


def test_a_lora_is_part_of_the_identity_and_of_what_a_picture_keeps(models: Models, tmp_path: Path) -> None:
    twins = models("sd")
    path = written(tmp_path / "a.safetensors", layouts(twins.own, "sd", "today"))
    moved = written(tmp_path / "other name.safetensors", load_file(path))
    other = written(tmp_path / "b.safetensors", todays("unet", changes(twins.own.unet, ATTENTION, 9)))
    plain, pipe, same = twins.native, load(twins.folder, lora=(path, 0.5)), load(twins.folder, lora=(moved, 0.5))
    identity = pipe.model.identity
    assert (identity.weights, identity.digest) == (plain.model.weights, same.model.digest)
    assert (
        len({m.model.digest for m in (plain, pipe, load(twins.folder, lora=path), load(twins.folder, lora=other))}) == 4
    )
    half = load(twins.folder, lora=(path, 0.5), dtype="bfloat16").model.identity
    assert (half.merged == identity.merged, half.digest == identity.digest) == (True, False)
    assert identity.merged != identity.weights == Identity("x", identity.weights, {"dtype": "float16"}).merged
    images = pipe("red circle", steps=2)
    stamp = fs.drawing.read(images.save(tmp_path / "a.png"))
    (kept,) = stamp.drawing.lora
    assert (kept.file, kept.scale) == (pipe.model.lora[0].file, 0.5)
    assert torch.equal(same.redraw(stamp).tensor, images.tensor)
    for wrong in (plain, load(twins.folder, lora=path), load(twins.folder, lora=(other, 0.5))):
        with pytest.raises(fs.InvalidInput, match=rf"drawn with the LoRA {kept.file} at scale 0.5, and the model is"):
            wrong.redraw(stamp)
    with pytest.raises(fs.InvalidInput, match=r"drawn with no LoRA, and the model is loaded with .*: leave lora out"):
        pipe.redraw(plain("red circle", steps=1))
    assert not torch.equal(plain("red circle", steps=2).tensor, images.tensor)


def test_embeddings_that_a_lora_changes_are_not_those_of_the_plain_model(models: Models, tmp_path: Path) -> None:
    twins, cache = models("sd"), fs.TensorCache()
    path = written(tmp_path / "a.safetensors", todays("text_encoder", changes(twins.own.text_encoder, ("q_proj",), 1)))
    plain, pipe = load(twins.folder, cache=cache), load(twins.folder, cache=cache, lora=path)
    first, second = (one.model.conditioner.encoder("lion")["text"] for one in (plain, pipe))  # type: ignore[attr-defined]
    assert not torch.equal(first, second)
    assert cache.counts.encodes == 2


def broken(models: Models) -> dict[str, Tensors]:
    """Files that are no LoRA for Stable Diffusion, by what is wrong."""
    own = models("sd").own
    fine = todays("unet", changes(own.unet, ATTENTION))
    name = next(iter(fine))
    return {
        "another model": todays("transformer", changes(models("sd3").own.transformer, ("attn.to_q",))),
        "no place": {**fine, **{f"unet.nowhere.to_q.lora_{letter}.weight": torch.zeros(3, 3) for letter in "AB"}},
        "shape": {**fine, name: torch.zeros(3, 999)},
        "nan": {**fine, name: fine[name] * float("nan")},
        "dora": {**fine, "unet.a.dora_scale": torch.zeros(3)},
        "lokr": {"lora_unet_a.lokr_w1": torch.zeros(3)},
        "integers": {**fine, name: torch.zeros(3, 8, dtype=torch.int8)},
        "plain": {"unet.conv_in.weight": torch.zeros(3)},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("another model", r"has \d+ tensors for no part of this model that takes a LoRA, such as 'transformer"),
        ("no place", "does not fit this model|of them have a place in it"),
        ("shape", "does not fit this model, of the kind sd"),
        ("nan", "does not fit this model, of the kind sd"),
        ("dora", "holds a DoRA in kohya's layout"),
        ("lokr", "holds a LoKr"),
        ("integers", "holds 'unet.* in I8, and a LoRA is in F16, BF16, F32, F64: convert it"),
        ("plain", "holds no LoRA: no name of its 1 tensors has 'lora' in it"),
    ],
)
def test_what_does_not_fit_is_refused(models: Models, tmp_path: Path, wrong: str, message: str) -> None:
    path = written(tmp_path / "wrong.safetensors", broken(models)[wrong])
    with pytest.raises(fs.InvalidInput, match=message) as caught:
        load(models("sd").folder, lora=path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "settings",
    [
        {"unet.r": 10**9},
        {"unet.rank_pattern": {"conv_in": 10**9}},
        {"unet.rank_pattern": {"(a+)+$": RANK}},
        {"unet.target_modules": "(a+)+$"},
        {"unet.megatron_config": {"a": 1}},
        {"unet.megatron_core": "antigravity"},
        {"unet.layer_replication": [[0, 10**6]]},
        {"unet.init_lora_weights": "pissa"},
        {"unet.unheard_of": 1},
        [],
    ],
)
def test_settings_that_would_do_more_are_refused(models: Models, tmp_path: Path, settings: Any) -> None:
    path = written(tmp_path / "a.safetensors", todays("unet", changes(models("sd").own.unet, ATTENTION)), settings)
    with pytest.raises(fs.InvalidInput, match=r"which fewstep does not know|not an object"):
        load(models("sd").folder, lora=path)


def test_what_is_no_file_of_weights_is_refused(models: Models, tmp_path: Path) -> None:
    folder = models("sd").folder
    (tmp_path / "a.safetensors").write_bytes(b"\x80\x04pickled")
    os.mkfifo(tmp_path / "pipe.safetensors")
    for source, message in (
        (tmp_path / "a.safetensors", "is a Python pickle"),
        (tmp_path / "pipe.safetensors", "is not a regular file"),
        (tmp_path, "is not a regular file"),
        ((tmp_path / "a.safetensors", float("nan")), "the scale of a LoRA is a number from -100 to 100, got nan"),
        ((tmp_path / "a.safetensors", True), "the scale of a LoRA is a number from -100 to 100, got True"),
        ((tmp_path / "a.safetensors", 10**5000), "from -100 to 100, got a larger one"),
        (7, r"lora is a path, a pair \(path, scale\), or a list of these, got 7"),
        (["a"] * 17, "at most 16 LoRAs"),
    ):
        with pytest.raises(fs.InvalidInput, match=message):
            load(folder, lora=source)
    with pytest.raises(FileNotFoundError):
        load(folder, lora=tmp_path / "absent.safetensors")


def test_models_that_take_no_lora_say_so(models: Models, tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors", todays("unet", changes(models("sd").own.unet, ATTENTION)))
    spec = fs.NetworkSpec(fs.schedules.linear(), "epsilon", (1, 2, 2))
    for source, more in ((models("ddpm").folder, {}), ("digits", {}), (lambda x, t: x, {"spec": spec})):
        with pytest.raises(fs.InvalidInput, match="takes no LoRA, which changes text-to-image models of diffusers"):
            load(source, lora=path, **more)
    with pytest.raises(fs.InvalidInput, match="a model of the kind pixart takes no LoRA in diffusers, nor here"):
        load(models("pixart").folder, lora=path)
