"""The graph driver gives what the eager loop gives, and says what it cannot do here."""

import shutil
import warnings

import pytest
import torch

import fewstep as fs
from proof.problems import SCHEDULES

SCHEDULE = SCHEDULES["scaled_linear"]
SHAPE = (2, 3, 8)
GPU = torch.cuda.is_available()
COMPILER = shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")


def network(x, t):
    return 0.5 * x - 0.01 * x * x * x + t.reshape(-1, 1, 1) / 1e4


def plan_of(name, steps=5):
    return fs.compile(name, schedule=SCHEDULE, steps=steps, grid="karras")


def denoiser(projected=False):
    inner = fs.Network(network, SCHEDULE, "v_prediction")
    return fs.clip(inner) if projected else inner


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("name", fs.SAMPLERS)
def test_a_graph_gives_what_the_eager_loop_gives(name, projected):
    plan = plan_of(name)
    graph = fs.Graph(plan, denoiser(projected), SHAPE, mode="eager")
    z = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    for given in ({"seed": 3}, {"seed": [5, 2]}, {"noise": z, "seed": 1}, {"start": z}):
        shape = {} if given.keys() & {"noise", "start"} else {"shape": SHAPE}
        assert torch.equal(graph(**given), fs.sample(plan, denoiser(projected), **given, **shape))


def test_a_graph_writes_to_no_start():
    graph = fs.Graph(plan_of("dpmpp-2m"), denoiser(), SHAPE, mode="eager")
    z = torch.ones(SHAPE)
    first = graph(start=z)
    assert torch.equal(z, torch.ones(SHAPE))
    assert torch.equal(graph(start=z), first)


def test_other_shapes_and_precisions_are_refused():
    graph = fs.Graph(plan_of("ddim"), denoiser(), SHAPE, mode="eager")
    for wrong in (torch.ones(3, 3, 8), torch.ones(SHAPE, dtype=torch.float64)):
        with pytest.raises(fs.InvalidInput, match="captured for float32 states of shape"):
            graph(start=wrong)
    with pytest.raises(fs.InvalidInput, match="exactly one"):
        graph(start=torch.ones(SHAPE), noise=torch.ones(SHAPE))


def test_a_plan_of_another_schedule_is_refused():
    plan = fs.compile("ddim", schedule=SCHEDULES["edm"], steps=2)
    with pytest.raises(fs.InvalidInput, match="was compiled for the noise schedule"):
        fs.Graph(plan, denoiser(), SHAPE, mode="eager")()


def test_modes_that_cannot_be_had_are_refused_with_what_is_missing():
    with pytest.raises(fs.InvalidInput, match="unknown graph mode 'cuda': did you mean 'cuda-graph'"):
        fs.Graph(plan_of("ddim"), denoiser(), SHAPE, mode="cuda")
    with pytest.raises(fs.InvalidInput, match="a CUDA graph needs a GPU"):
        fs.Graph(plan_of("ddim"), denoiser(), SHAPE, mode="cuda-graph")


def test_without_gpu_and_compiler_it_runs_eagerly_and_warns(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.warns(UserWarning, match=r"runs eagerly: no GPU on device cpu, and no C\+\+ compiler"):
        graph = fs.Graph(plan_of("ddim"), denoiser(), SHAPE)
    assert graph.mode == "eager"
    with pytest.raises(fs.InvalidInput, match=r"needs a C\+\+ compiler"):
        fs.Graph(plan_of("ddim"), denoiser(), SHAPE, mode="compile")


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="torch.compile on a CPU needs a C++ compiler")
def test_a_compiled_trajectory_is_the_eager_one_but_for_rounding():
    plan = plan_of("sde-dpmpp-2m", 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler's own
        graph = fs.Graph(plan, denoiser(), SHAPE)
        got = [graph(seed=3), graph(seed=4)]
    assert (graph.mode, "torch.compile" in graph.reason) == ("compile", not GPU)
    for seed, result in zip((3, 4), got, strict=True):
        torch.testing.assert_close(result, fs.sample(plan, denoiser(), shape=SHAPE, seed=seed), rtol=0, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="needs a CUDA device")
@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("name", ["ddim", "dpmpp-2m", "unipc-3", "heun", "sde-dpmpp-2m", "restart"])
def test_a_cuda_graph_is_the_eager_loop_on_the_same_device(name, projected):
    plan = plan_of(name)
    graph = fs.Graph(plan, denoiser(projected), SHAPE, device="cuda")
    assert graph.mode == "cuda-graph"
    z = torch.randn(SHAPE, device="cuda", generator=torch.Generator("cuda").manual_seed(1))
    for given in ({"seed": 3}, {"seed": [5, 2]}, {"noise": z, "seed": 1}, {"start": z}):
        shape = {} if given.keys() & {"noise", "start"} else {"shape": SHAPE, "device": "cuda"}
        got = graph(**given)
        torch.testing.assert_close(got, fs.sample(plan, denoiser(projected), **given, **shape), rtol=0, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="needs a CUDA device")
def test_the_noise_on_a_gpu_is_that_of_the_host():
    plan = plan_of("sde-dpmpp-2m")
    here, there = (fs.sample(plan, denoiser(), shape=SHAPE, seed=3, device=d) for d in ("cpu", "cuda"))
    torch.testing.assert_close(here, there.cpu(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["ddim", "dpmpp-2m", "heun"])
@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
def test_a_captured_network_may_return_its_input_or_the_same_memory_again(name, prediction):
    schedule, memory = fs.schedules.linear(), torch.empty(2, 3)
    plan = fs.compile(name, schedule=schedule, steps=5)
    for network, fresh in (
        (lambda x, t: x, lambda x, t: x.clone()),
        (lambda x, t: memory.copy_(torch.tanh(x)), lambda x, t: torch.tanh(x)),
    ):
        graph = fs.Graph(plan, fs.Network(network, schedule, prediction), (2, 3), mode="eager")
        assert torch.equal(
            graph(seed=1), fs.sample(plan, fs.Network(fresh, schedule, prediction), shape=(2, 3), seed=1)
        )
