"""Slots with everything mixed: samplers, steps, methods of guidance, scales and negatives in one batch."""

import itertools

import pytest
import torch
from diffusers import UNet2DConditionModel

import fewstep as fs
from fewstep.denoise.known import Known
from proof.problems import SCHEDULES

FLOW = SCHEDULES["flow"]
SHAPE, CAPACITY = (4, 8, 8), 8


def unet(seed):
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8, attention_head_dim=4, norm_num_groups=4,
    ).requires_grad_(requires_grad=False)  # fmt: skip


MODULE, WEAK = unet(0), unet(1)


def text(seed):
    return {"encoder_hidden_states": torch.randn(5, 8, generator=torch.Generator().manual_seed(seed))}


def clipped(denoiser):
    return fs.clip(denoiser, -2.0, 2.0)


def kept(denoiser):
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 4:] = 1
    return Known(denoiser, torch.full((1, *SHAPE), 0.25), mask)


METHODS = [
    {"scale": 1.0},
    {"scale": 5.0},
    {"scale": 3.0, "method": fs.CFG(0.7), "interval": (0.3, 5.0)},
    {"scale": fs.GuidanceSchedule.linear(1.0, 4.0), "method": fs.APG(norm_limit=4.0)},
    {"scale": 4.0, "method": fs.APG(eta=0.3, momentum=-0.5)},
    {"scale": 0.6, "method": "cfg++"},
    {"scale": 0.0, "method": "cfg++"},
    {"scale": 3.0, "method": "cfg-zero*"},
    {"scale": 1.0, "method": fs.PAG(2.0)},
    {"scale": 4.0, "method": fs.PAG(fs.GuidanceSchedule.linear(3.0, 1.0), ["mid", "up_blocks"])},
    {"scale": 2.0, "method": "autoguidance"},
    {"scale": 4.0, "around": clipped},
    {"scale": 0.6, "method": "cfg++", "around": kept},
]
SAMPLERS = {"cfg++": ["ddim", "tcd"], "cfg-zero*": ["euler"]}
ANY = itertools.cycle(["dpmpp-2m", "unipc-3", "heun", "sde-dpmpp-2m", "ddim", "euler-a"])


def images(count):
    """(plan, request) of so many images; every method is among them."""
    made = []
    for i, given in zip(range(count), itertools.cycle(METHODS)):
        names = SAMPLERS.get(given.get("method"), [])
        plan = fs.compile(names[i % len(names)] if names else next(ANY), schedule=FLOW, steps=3 + i % 4)
        negative = None if given.get("method") == "autoguidance" or given["scale"] == 1 else text(100 + i % 2)
        made.append((plan, fs.Request(seed=7 * i, condition=text(i), negative=negative, **given)))
    return made


def network(module, shapes=None):
    def called(x, t, **condition):
        if shapes is not None:
            shapes.append((tuple(x.shape), *(tuple(v.shape) for v in condition.values())))
        return module(x, t, **condition).sample

    return fs.Network(called, FLOW, "flow", time_scale=1000, module=module)


def made(shapes=None, pad=True, broken=False):
    def poisoned(x, t, **condition):
        output = MODULE(x, t, **condition).sample
        return torch.where((x > 40).any(dim=(1, 2, 3), keepdim=True), torch.nan, output) if broken else output

    strong = network(MODULE, shapes)
    if broken:
        strong.network = poisoned
    return fs.Slots(strong, SHAPE, CAPACITY, registers=5, pad=pad, weaker=network(WEAK, shapes))


def drawn(slots, waiting):
    """Each image's `Finished`, in the order of `waiting`, which go in as places become free."""
    left, tickets, done = list(waiting), [], {}
    while left or slots.tickets:
        while left and slots.free:
            tickets.append(slots.admit(*left.pop(0)))
        done |= {finished.ticket: finished for finished in slots.step()}
    return [done[ticket] for ticket in tickets]


def eager(plan, request):
    def batch(condition):
        return None if condition is None else {name: value[None] for name, value in condition.items()}

    weaker = network(WEAK).given(batch(request.condition))
    method = {"method": request.method, "interval": request.interval, "weaker": weaker}
    denoiser = fs.Guided(network(MODULE), batch(request.condition), batch(request.negative), request.scale, **method)
    denoiser = denoiser if request.around is None else request.around(denoiser)
    return fs.sample(plan, denoiser, shape=(1, *SHAPE), seed=request.seed)[0]


def test_24_images_that_share_nothing_are_each_bitwise_as_if_alone_and_the_network_sees_one_shape():
    shapes, asked = [], images(26)
    together = drawn(made(shapes), asked)
    assert set(shapes) == {((CAPACITY, *SHAPE), (CAPACITY, 5, 8))}
    for (plan, request), finished in zip(asked, together, strict=True):
        [alone] = drawn(made(), [(plan, request)])
        assert finished.finite
        assert torch.equal(finished.sample, alone.sample), (plan.recipe.sampler, request)
        assert finished.nfe == alone.nfe
        expected = eager(plan, request)
        scale = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(finished.sample, expected, rtol=0, atol=1e-5 * scale, msg=str(request))


def test_an_image_is_counted_what_its_branches_cost():
    plan = fs.compile("ddim", schedule=FLOW, steps=4)
    asked = [fs.Request(condition=text(1), negative=text(2), scale=w, method=m) for m, w in (
        ("cfg", 3.0), ("cfg", 1.0), ("cfg++", 0.0), ("cfg++", 0.5), ("pag", 3.0),
    )]  # fmt: skip
    asked.append(fs.Request(condition=text(1), scale=1.0, method="pag"))
    asked.append(fs.Request(condition=text(1), scale=2.0, method="autoguidance"))
    done = drawn(made(), [(plan, request) for request in asked])
    assert [finished.nfe for finished in done] == [8, 4, 4, 8, 12, 8, 8]
    star = fs.Request(condition=text(1), negative=text(2), scale=3.0, method=fs.CFGZero(2))
    [finished] = drawn(made(), [(fs.compile("euler", schedule=FLOW, steps=4), star)])
    assert finished.nfe == 4


def test_without_padding_only_the_places_that_need_a_call_are_in_it():
    shapes, plan = [], fs.compile("ddim", schedule=FLOW, steps=1)
    slots = made(shapes, pad=False)
    asked = [fs.Request(condition=text(i), negative=text(9), scale=w) for i, w in enumerate([1.0, 3.0, 3.0])]
    asked += [fs.Request(condition=text(5), method=fs.PAG(2.0)), fs.Request(condition=text(6), method="autoguidance")]
    done = drawn(slots, [(plan, request) for request in asked])
    assert sorted(shape[0][0] for shape in shapes) == [1, 2, 5]
    for request, finished in zip(asked, done, strict=True):
        torch.testing.assert_close(finished.sample, eager(plan, request), rtol=0, atol=1e-5)


def test_nan_in_one_image_changes_none_of_the_others_whatever_guides_it():
    asked = images(13)
    plan = fs.compile("ddim", schedule=FLOW, steps=3)
    bad = (plan, fs.Request(start=torch.full(SHAPE, 50.0), condition=text(3), negative=text(4), scale=3.0))
    mixed = drawn(made(broken=True), [*asked[:5], bad, *asked[5:]])
    assert not mixed.pop(5).finite
    for good, finished in zip(drawn(made(), asked), mixed, strict=True):
        assert torch.equal(good.sample, finished.sample)


def test_what_an_image_cannot_be_guided_by_is_refused_and_takes_no_slot():
    slots, euler, heun = made(), *(fs.compile(name, schedule=FLOW, steps=4) for name in ("euler", "heun"))
    own, empty = {"condition": text(1)}, {"negative": text(2)}
    for plan, given, message in (
        (euler, own | {"scale": 2.0}, "guidance other than 1 needs a negative condition"),
        (heun, own | empty | {"scale": 0.6, "method": "cfg++"}, "heun has one estimate"),
        (euler, own | empty | {"scale": 3.0, "method": "cfg++"}, r"must lie in \[0, 1\]"),
        (heun, own | empty | {"scale": 3.0, "method": "cfg-zero"}, "heun remembers the data estimates"),
        (euler, own | {"method": fs.PAG(layers="middle")}, "no self-attention layer is named 'middle'"),
        (euler, own | empty | {"scale": [2.0, 3.0]}, "a guidance scale is a finite number"),
        (euler, own | empty | {"scale": 2.0, "method": "apgg"}, "unknown guidance method"),
        (euler, own | empty | {"scale": 2.0, "interval": (2.0, 1.0)}, "0 <= low < high"),
        (euler, own | {"around": lambda d: fs.OnSchedule(d, SCHEDULES["edm"])}, "knows its own noise schedule"),
    ):
        with pytest.raises(fs.InvalidInput, match=message):
            slots.admit(plan, fs.Request(**given))
        assert slots.free == CAPACITY
    without = fs.Slots(network(MODULE), SHAPE, 1)
    with pytest.raises(fs.InvalidInput, match="give weaker="):
        without.admit(euler, fs.Request(**own, scale=2.0, method="autoguidance"))
    unknown = fs.Slots(fs.Network(lambda x, t, **condition: x, FLOW, "flow"), SHAPE, 1)
    with pytest.raises(fs.InvalidInput, match="where it is wrapped"):
        unknown.admit(euler, fs.Request(**own, method="pag"))
