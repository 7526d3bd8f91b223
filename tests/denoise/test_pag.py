"""Perturbed-attention guidance on tiny networks of diffusers."""

import threading

import pytest
import torch
from diffusers import DiTTransformer2DModel, FluxTransformer2DModel, UNet2DConditionModel, UNet2DModel
from diffusers.models.attention_processor import AttnProcessor, PAGIdentitySelfAttnProcessor2_0

import fewstep as fs
from fewstep.denoise.attention import self_attention
from proof.problems import SCHEDULES

SCHEDULE = SCHEDULES["scaled_linear"]
SHAPE = (3, 4, 8, 8)


def unet(seed=0):
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8, attention_head_dim=4, norm_num_groups=4,
    ).double().requires_grad_(requires_grad=False)  # fmt: skip


def random(*shape, seed=1):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


TEXT, EMPTY = {"encoder_hidden_states": random(3, 5, 8)}, {"encoder_hidden_states": random(1, 5, 8, seed=2)}
X = random(*SHAPE, seed=3)


class Identity:
    """An attention processor of the test's own: each place attends to itself alone, as a map that is written out."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        value = attn.to_v(hidden_states)
        identity = torch.eye(value.shape[1], dtype=value.dtype).expand(value.shape[0] * attn.heads, -1, -1)
        out = attn.batch_to_head_dim(torch.bmm(identity, attn.head_to_batch_dim(value)))
        return attn.to_out[1](attn.to_out[0](out)) / attn.rescale_output_factor


def perturbed(network, chosen):
    processors = {name: Identity() if chosen(name) else AttnProcessor() for name in network.attn_processors}
    network.set_attn_processor(processors)
    return network


def eps_of(network, x, t, condition):
    return network(x, torch.full((x.shape[0],), t, dtype=x.dtype), **condition).sample


def pag(network, scale=3.0, condition=TEXT, **options):
    return guided(fs.Network(network, SCHEDULE, "epsilon"), scale, condition, **options)


def guided(network, scale, condition=TEXT, *, layers="mid", guidance=1.0, negative=None, **options):
    return fs.Guided(network, condition, negative, guidance, method=fs.PAG(scale, layers), **options)


def data(x, t, eps):
    return (x - float(SCHEDULE.sigma(t)) * eps) / float(SCHEDULE.alpha(t))


@pytest.mark.parametrize(
    ("layers", "chosen"),
    [
        ("mid", lambda name: "mid_block" in name and "attn1" in name),
        (["down_blocks.0", "mid"], lambda name: not name.startswith("up") and "attn1" in name),
        ("attn1", lambda name: "attn1" in name),
    ],
)
def test_the_perturbed_branch_has_the_identity_for_the_attention_maps_of_the_named_layers(layers, chosen):
    yes = eps_of(unet(), X, 500.0, TEXT)
    broken = eps_of(perturbed(unet(), chosen), X, 500.0, TEXT)
    assert float((yes - broken).abs().max()) > 1e-4
    got = pag(unet(), 3.0, layers=layers)(X, 500.0)
    torch.testing.assert_close(got, data(X, 500.0, yes + 3.0 * (yes - broken)), rtol=0, atol=1e-10)


def test_it_adds_to_cfg_image_by_image_and_costs_what_each_image_needs():
    network, broken, calls = unet(), perturbed(unet(), lambda n: "mid" in n and "attn1" in n), []
    network.register_forward_pre_hook(lambda module, arguments: calls.append(arguments[0].shape[0]))
    times = torch.tensor([200.0, 500.0, 900.0], dtype=torch.float64)
    s, w = [0.0, 2.0, 3.0], [4.0, 1.0, 7.0]
    by_level = fs.GuidanceSchedule.table({float(SCHEDULE.ratio(t)) * 1.01: v for t, v in zip(times, s, strict=True)})
    got = pag(network, by_level, negative=EMPTY, guidance=w)(X, times)
    assert calls == [3 + 2 + 2]
    for i in range(3):
        text = {"encoder_hidden_states": TEXT["encoder_hidden_states"][i : i + 1]}
        x, t = X[i : i + 1], float(times[i])
        yes, no, bad = (eps_of(m, x, t, c) for m, c in ((unet(), text), (unet(), EMPTY), (broken, text)))
        eps = yes + (w[i] - 1) * (yes - no) + s[i] * (yes - bad)
        torch.testing.assert_close(got[i : i + 1], data(x, t, eps), rtol=0, atol=1e-10)


def test_diffusers_own_processor_gives_the_same_branch():
    network = unet()
    processors = {
        name: PAGIdentitySelfAttnProcessor2_0() if "mid" in name and "attn1" in name else AttnProcessor()
        for name in network.attn_processors
    }
    network.set_attn_processor(processors)
    both = eps_of(network, torch.cat([X, X]), 500.0, {k: torch.cat([v, v]) for k, v in TEXT.items()})
    yes, broken = both.chunk(2)
    got = pag(unet(), 2.0)(X, 500.0)
    torch.testing.assert_close(got, data(X, 500.0, yes + 2.0 * (yes - broken)), rtol=0, atol=1e-10)


def test_without_perturbation_it_is_bitwise_the_conditional_model_or_cfg():
    plan, network, calls = fs.compile("dpmpp-2m", schedule=SCHEDULE, steps=3), unet(), []
    network.register_forward_pre_hook(lambda module, arguments: calls.append(arguments[0].shape[0]))
    got = fs.sample(plan, pag(network, 0.0), noise=X)
    assert calls == [3] * 3
    plain = fs.Network(unet(), SCHEDULE, "epsilon", condition=TEXT)
    assert torch.equal(got, fs.sample(plan, plain, noise=X))
    cfg = fs.Guided(fs.Network(unet(), SCHEDULE, "epsilon"), TEXT, EMPTY, 4.0)
    both = pag(network, 0.0, negative=EMPTY, guidance=4.0)(X, 500.0)
    torch.testing.assert_close(both, cfg(X, 500.0), rtol=0, atol=1e-12)


def test_rows_outside_the_interval_and_scales_of_0_cost_one_evaluation():
    plan, network, calls = fs.compile("ddim", schedule=SCHEDULE, steps=6), unet(), []
    network.register_forward_pre_hook(lambda module, arguments: calls.append(arguments[0].shape[0]))
    fs.sample(plan, pag(network, fs.GuidanceSchedule.rows([0, 2, 0, 1, 1, 1]), interval=(0.5, 50)), noise=X)
    inside = [0.5 < row.sigma / row.alpha <= 50 for row in plan.rows]
    assert calls == [6 if on and s else 3 for on, s in zip(inside, [0, 2, 0, 1, 1, 1], strict=True)]
    assert 3 in calls
    assert 6 in calls


def test_the_network_is_left_as_it_was_for_everybody_else():
    network = unet()
    before, processors = eps_of(network, X, 500.0, TEXT), network.attn_processors
    guided = pag(network)
    for _ in range(3):
        pag(network)
    assert torch.equal(eps_of(network, X, 500.0, TEXT), before)
    guided(X, 500.0)
    assert torch.equal(eps_of(network, X, 500.0, TEXT), before)
    assert network.attn_processors == processors
    [layer] = [m for name, m in self_attention(network).items() if "mid" in name]
    assert len(layer._forward_hooks) == 1


def test_threads_may_share_the_network_with_and_without_perturbation():
    network = unet()
    mid, all_layers = pag(network, 2.0), pag(network, 5.0, layers="attn1")
    plain = fs.Network(network, SCHEDULE, "epsilon", condition=TEXT)
    expected = {d: d(X, 500.0) for d in (mid, all_layers, plain)}
    wrong, barrier = [], threading.Barrier(3)

    def work(denoiser):
        barrier.wait()
        for _ in range(10):
            with torch.no_grad():
                if not torch.equal(denoiser(X, 500.0), expected[denoiser]):
                    wrong.append(denoiser)

    threads = [threading.Thread(target=work, args=(d,)) for d in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_network_that_fails_leaves_no_perturbation_behind():
    network = unet()
    with pytest.raises(RuntimeError):
        pag(network, condition={"encoder_hidden_states": random(3, 5, 9)})(X, 500.0)
    assert torch.equal(eps_of(network, X, 500.0, TEXT), eps_of(unet(), X, 500.0, TEXT))


def test_unconditional_unets_and_transformers_are_guided_too():
    torch.manual_seed(0)
    plain = UNet2DModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("AttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "AttnUpBlock2D"),
        attention_head_dim=4, norm_num_groups=4,
    ).double()  # fmt: skip
    dit = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=4, num_layers=2, sample_size=8, norm_num_groups=4,
        num_embeds_ada_norm=10,
    ).double().eval()  # fmt: skip
    for network, layers, condition in (
        (plain, "mid", {}),
        (dit, "transformer_blocks.1", {"class_labels": torch.tensor([1, 2, 3])}),
    ):
        [layer] = [m for name, m in self_attention(network).items() if layers in name]
        with torch.no_grad():
            yes = fs.Network(network, SCHEDULE, "epsilon", condition=condition)(X, 500.0)
            guided = pag(network, 1.0, condition, layers=layers)(X, 500.0)
            layer.set_processor(WithNorm())
            broken = fs.Network(network, SCHEDULE, "epsilon", condition=condition)(X, 500.0)
        torch.testing.assert_close(guided, 2 * yes - broken, rtol=0, atol=1e-9)
        assert float((yes - broken).abs().max()) > 1e-6


class WithNorm:
    """As `Identity`, for layers that normalise, reshape and add their input themselves."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        shape, residual, h = hidden_states.shape, hidden_states, hidden_states
        if h.ndim == 4:
            h = h.reshape(*shape[:2], -1).transpose(1, 2)
        if attn.group_norm is not None:
            h = attn.group_norm(h.transpose(1, 2)).transpose(1, 2)
        h = Identity()(attn, h) * attn.rescale_output_factor
        if len(shape) == 4:
            h = h.transpose(1, 2).reshape(shape)
        return (h + residual if attn.residual_connection else h) / attn.rescale_output_factor


def test_graph_agrees_with_the_loop():
    network = unet().float()
    text = {k: v.float() for k, v in TEXT.items()}
    plan, denoiser = fs.compile("ddim", schedule=SCHEDULE, steps=3), pag(network, 2.0, condition=text)
    graph = fs.Graph(plan, denoiser, SHAPE, mode="eager")
    assert torch.equal(graph(seed=3), fs.sample(plan, denoiser, shape=SHAPE, seed=3))


def test_networks_without_such_layers_and_names_of_none_are_refused():
    torch.manual_seed(0)
    flux = FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
    for network in (flux, torch.nn.Linear(2, 2), lambda x, t: x):
        with pytest.raises(fs.InvalidInput, match="perturbed attention needs a torch module with self-attention"):
            pag(network)
    for layers in ("middle", ["mid", "up_blocks.7"], "lock", "mid,up_blocks.7"):
        with pytest.raises(fs.InvalidInput, match=r"no self-attention layer is named .*mid_block\.attentions\.0"):
            pag(unet(), layers=layers)
    for layers in ([], "", ["mid", " "], 3):
        with pytest.raises(fs.InvalidInput, match="option layers is a name, several with commas between, or a list"):
            pag(unet(), layers=layers)


def test_a_wrapped_network_is_told_where_its_layers_are():
    inner = unet()

    def wrapped(**more):
        return fs.Network(
            lambda x, t, **condition: inner(x, t, **condition), SCHEDULE, "epsilon", dtype=torch.float64, **more
        )

    with pytest.raises(fs.InvalidInput, match="where it is wrapped"):
        guided(wrapped(), 2.0)
    got = guided(wrapped(module=inner), 2.0)(X, 500.0)
    torch.testing.assert_close(got, pag(unet(), 2.0)(X, 500.0), rtol=0, atol=1e-12)


def test_a_network_that_regroups_the_batch_is_told():
    class Frames(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = unet()

        def forward(self, x, t, encoder_hidden_states):
            return self.inner(x[:1], t[:1], encoder_hidden_states[:1]).sample.expand(x.shape)

    with pytest.raises(fs.InvalidInput, match="saw a batch of 1, while the network was given 6 images"):
        pag(Frames())(X, 500.0)


def test_a_negative_that_cannot_act_and_guidance_without_one_are_refused():
    with pytest.raises(fs.InvalidInput, match="a negative prompt cannot act at guidance scale 1"):
        pag(unet(), negative=EMPTY)
    with pytest.raises(fs.InvalidInput, match="guidance other than 1 needs a negative condition"):
        pag(unet(), guidance=3.0)
