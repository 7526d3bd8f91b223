"""Networks that take the guidance scale as an input: FLUX and LCM, on tiny networks of diffusers."""

import math

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel, LatentConsistencyModelPipeline, UNet2DConditionModel

import fewstep as fs
from fewstep.denoise.embedded import scale_embedding
from proof.problems import SCHEDULES

FLOW, SCHEDULE = SCHEDULES["flow"], SCHEDULES["scaled_linear"]


def flux(guidance_embeds=True):
    torch.manual_seed(0)
    return FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(2, 2, 4), guidance_embeds=guidance_embeds,
    ).requires_grad_(requires_grad=False)  # fmt: skip


def lcm(size=16):
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8,), layers_per_block=1,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), cross_attention_dim=8, attention_head_dim=4,
        norm_num_groups=4, time_cond_proj_dim=size,
    ).requires_grad_(requires_grad=False)  # fmt: skip


TOKENS = {
    "encoder_hidden_states": torch.ones(2, 3, 8),
    "pooled_projections": torch.ones(2, 8),
    "txt_ids": torch.zeros(3, 3),
    "img_ids": torch.zeros(6, 3),
}
X = torch.linspace(-1, 1, 48).reshape(2, 6, 4)
TEXT = {"encoder_hidden_states": torch.ones(2, 5, 8)}


class ByTime(torch.nn.Module):
    """A transformer whose second argument is not the time, as `fewstep.Network` calls it, with its configuration."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.config = inner, inner.config

    def forward(self, x, t, **condition):
        return self.inner(x, timestep=t, **condition)


def test_flux_is_told_the_scale_at_one_evaluation():
    network = flux()
    base = fs.Network(ByTime(network), FLOW, "flow", condition=TOKENS)
    for scale in (3.5, [3.5, 1.0]):
        denoiser = fs.embedded_guidance(base, scale)
        expected = network(
            hidden_states=X, timestep=torch.full((2,), 0.5), guidance=torch.tensor(scale).expand(2), **TOKENS
        ).sample
        torch.testing.assert_close(denoiser(X, 0.5), X - 0.5 * expected, rtol=0, atol=1e-6)
    one, two = (fs.embedded_guidance(base, s)(X, 0.5) for s in (1.0, 3.5))
    assert float((one - two).abs().max()) > 1e-4
    assert "guidance" not in base.condition


def test_lcm_is_told_an_embedding_of_the_scale_less_1_as_diffusers_does():
    network = lcm()
    denoiser = fs.embedded_guidance(fs.Network(network, SCHEDULE, condition=TEXT), [8.5, 1.0])
    pipe = LatentConsistencyModelPipeline.get_guidance_scale_embedding
    w = pipe(None, torch.tensor([7.5, 0.0]), embedding_dim=16)
    torch.testing.assert_close(denoiser.condition["timestep_cond"], w, rtol=0, atol=1e-3)  # of angles up to 7500
    x = torch.linspace(-1, 1, 512).reshape(2, 4, 8, 8)
    eps = network(x, torch.full((2,), 300.0), timestep_cond=denoiser.condition["timestep_cond"], **TEXT).sample
    expected = (x - float(SCHEDULE.sigma(300)) * eps) / float(SCHEDULE.alpha(300))
    torch.testing.assert_close(denoiser(x, 300.0), expected, rtol=0, atol=1e-6)
    other = fs.embedded_guidance(fs.Network(network, SCHEDULE, condition=TEXT), 3.0)(x, 300.0)
    assert float((other - expected).abs().max()) > 1e-4


@pytest.mark.parametrize("size", [4, 7, 256])
def test_the_embedding_is_its_formula(size):
    w = torch.tensor([0.0, 0.5, 7.5], dtype=torch.float64)
    half = size // 2
    angles = 1000 * w.numpy()[:, None] * 10000.0 ** (-np.arange(half) / (half - 1))
    expected = np.concatenate([np.sin(angles), np.cos(angles), np.zeros((3, size % 2))], axis=1)
    np.testing.assert_allclose(scale_embedding(w, size).numpy(), expected, atol=1e-9)


def test_true_guidance_may_be_put_around_it():
    calls, network = [], flux()
    network.register_forward_pre_hook(lambda module, a: calls.append(a[0].shape[0]))
    tokens = {k: v for k, v in TOKENS.items() if k.endswith(("states", "projections"))}

    def joined(x, t, **condition):
        ids = {k: v for k, v in TOKENS.items() if k.endswith("ids")}
        return network(x, timestep=t, **condition, **ids)

    base = fs.embedded_guidance(fs.Network(joined, FLOW, "flow", condition=tokens), 3.5, argument="guidance")
    negative = {**base.condition, "encoder_hidden_states": torch.zeros(2, 3, 8)}
    guided = fs.Guided(base, base.condition, negative, 2.0)
    yes, no = base(X, 0.5), base.given(negative)(X, 0.5)
    calls.clear()
    torch.testing.assert_close(guided(X, 0.5), no + 2 * (yes - no), rtol=0, atol=1e-5)
    assert calls == [4]


@pytest.mark.parametrize("network", [flux(False), lcm(None), lambda x, t: x], ids=["schnell", "unet", "function"])
def test_a_network_that_takes_no_scale_is_refused(network):
    with pytest.raises(fs.InvalidInput, match=r"takes no guidance scale: use fewstep\.Guided"):
        fs.embedded_guidance(fs.Network(network, SCHEDULE), 3.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": math.nan}, "a finite number, or one for each image"),
        ({"scale": "3"}, "a finite number, or one for each image"),
        ({"scale": []}, "a finite number, or one for each image"),
        ({"argument": "guidence"}, "did you mean 'guidance'"),
        ({"argument": "guidance", "size": 4}, "leave size= out"),
        ({"argument": "timestep_cond"}, "give its size="),
        ({"argument": "timestep_cond", "size": 2}, "4 values or more, got 2"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(fs.InvalidInput, match=message):
        fs.embedded_guidance(fs.Network(flux(), FLOW, "flow"), **{"scale": 3.0, **options})
