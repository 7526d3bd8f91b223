"""What a PlanScheduler promises beside equal pictures: arguments, memory, threads, files, errors."""

from __future__ import annotations

import copy
import inspect
import pickle
import threading
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.adapters.diffusers import PlanScheduler
from fewstep.core.plan import TunedFor
from fewstep.tuning.table import plan_of, table_of

from .pipelines import PIPELINES, draw
from .tiny import SD

CONFIG = {**SD, "prediction_type": "epsilon", "num_train_timesteps": 1000}
FLOW = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
DYNAMIC = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)


def ours(sampler: str | None = "ddim", config: Any = CONFIG, **more: Any) -> PlanScheduler:
    return PlanScheduler.from_config(config, sampler=sampler, **more)


def drive(scheduler: PlanScheduler, x: torch.Tensor, **more: Any) -> torch.Tensor:
    """Run all evaluations with a network that is no function of anything simple."""
    for t in scheduler.timesteps:
        x = scheduler.step(torch.tanh(x * 0.7 + float(t) / 1000), t, x, **more).prev_sample
    return x


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- grids and arguments --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_sigmas_of_a_pipeline_are_shifted_once(shift: float):
    given = np.linspace(1, 1 / 4, 4)
    once = shift * given / (1 + (shift - 1) * given)
    scheduler = ours("euler", diffusers.FlowMatchEulerDiscreteScheduler(shift=shift))
    scheduler.set_timesteps(sigmas=given)
    assert np.allclose(scheduler.sigmas, [*once, 0], atol=1e-7)
    assert np.allclose(scheduler.timesteps, once * 1000, atol=1e-4)


def test_mu_shifts_once_and_equals_diffusers():
    scheduler, given = ours("euler", DYNAMIC), [1.0, 0.8, 0.45, 0.2]
    scheduler.set_timesteps(sigmas=given, mu=0.9)
    DYNAMIC.set_timesteps(sigmas=given, mu=0.9)
    assert np.allclose(scheduler.sigmas, DYNAMIC.sigmas, atol=1e-7)
    with pytest.raises(fs.InvalidInput, match="needs mu"):
        scheduler.set_timesteps(4)


def test_sigmas_can_be_kept_from_the_shift():
    scheduler = ours("euler", FLOW, shift_sigmas=False)
    scheduler.set_timesteps(sigmas=[1.0, 0.7, 0.3])
    assert np.allclose(scheduler.sigmas, [1.0, 0.7, 0.3, 0.0])
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 4, 4))
    assert np.allclose(scheduler.sigmas, [1.0, 0.75, 0.5, 0.25, 0.0])


def test_a_named_grid_wins_over_the_sigmas_by_which_a_pipeline_means_a_number_of_steps():
    scheduler = ours("euler", DYNAMIC, grid="trailing")
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 4, 4), mu=np.log(2.0))
    assert np.allclose(scheduler.sigmas, [1, 0.857142857, 0.666666667, 0.4, 0], atol=1e-7)
    scheduler.set_timesteps(sigmas=[1.0, 0.5], mu=np.log(2.0))
    assert np.allclose(scheduler.sigmas, [1, 2 / 3, 0], atol=1e-7)


def test_times_and_sigmas_on_a_beta_schedule_are_verbatim():
    scheduler = ours("dpmpp-2m")
    scheduler.set_timesteps(timesteps=[999, 850, 24])
    assert scheduler.timesteps.tolist() == [999, 850, 24]
    assert scheduler.timesteps.dtype == torch.int64
    scheduler.set_timesteps(sigmas=[14.6, 3.9, 0.2, 0.0])
    assert np.allclose(scheduler.sigmas, [14.6, 3.9, 0.2, 0.0])
    assert scheduler.num_inference_steps == 3


def test_given_times_and_sigmas_together_are_what_is_told_and_where_the_run_is():
    scheduler = ours("heun", FLOW)
    scheduler.set_timesteps(timesteps=[1000.0, 500.0], sigmas=[1.0, 0.5])
    assert scheduler.timesteps.tolist() == [1000.0, 500.0, 500.0]
    assert np.allclose(scheduler.sigmas, [1.0, 0.75, 0.75, 0.0])


def test_given_timesteps_of_a_flow_model_are_the_levels_themselves():
    scheduler = ours("euler", FLOW)
    scheduler.set_timesteps(timesteps=[1000.0, 600.0, 200.0])
    assert np.allclose(scheduler.sigmas, [1.0, 0.6, 0.2, 0.0])


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 50, 999])
def test_any_number_of_steps_runs(steps: int):
    scheduler = ours("unipc-3")
    scheduler.set_timesteps(steps)
    assert len(scheduler.timesteps) == steps
    assert torch.isfinite(drive(scheduler, noise(1, 2, 2))).all()


def test_strength_of_lcm_pipelines_takes_the_last_steps_of_a_longer_grid():
    scheduler = ours("ddim", grid="trailing")
    scheduler.set_timesteps(4, strength=0.5, original_inference_steps=50)
    assert scheduler.timesteps.tolist() == [499, 374, 249, 124]
    theirs, lcm = diffusers.LCMScheduler(), ours(None, diffusers.LCMScheduler())
    for scheduler in (theirs, lcm):
        scheduler.set_timesteps(4, strength=0.5, original_inference_steps=40)
    assert lcm.timesteps.tolist() == theirs.timesteps.tolist()


def test_the_scale_of_the_first_noise_is_the_hosts_or_the_first_sigma():
    schedule = fs.schedules.scaled_linear()
    assert ours("ddim").init_noise_sigma == 1.0
    for scheduler in (ours("ddim", init_noise="entry", grid="trailing"), ours("euler", timestep_spacing="trailing")):
        scheduler.set_timesteps(4)
        assert scheduler.init_noise_sigma == pytest.approx(float(schedule.sigma(999.0)), abs=1e-15)


# --- the state of a run ---------------------------------------------------------------------------------------


def test_the_sample_that_the_host_edited_is_the_one_that_goes_on():
    plan = fs.compile("dpmpp-2m", schedule=fs.schedules.scaled_linear(), steps=3)
    config = {**CONFIG, "prediction_type": "sample"}
    scheduler = PlanScheduler.from_plan(plan, config)
    scheduler.set_timesteps(3)
    x, d = noise(1, 2, 2), [noise(1, 2, 2, seed=s) for s in (1, 2, 3)]
    scheduler.step(d[0], 999, x)
    y = noise(1, 2, 2, seed=9)
    got = scheduler.step(d[1], 666, y).prev_sample
    r1 = plan.A[0, 1, 0] * x + plan.B[0, 1].sum() * d[0]
    want = plan.A[1, 0, 0] * y + plan.A[1, 0, 1] * r1 + plan.B[1, 0].sum() * d[1]
    assert float((got - want).abs().max()) < 1e-14


def test_memory_is_not_the_hosts_tensors():
    plain, harsh = ours("unipc-3"), ours("unipc-3")
    for scheduler in (plain, harsh):
        scheduler.set_timesteps(4)
    want, x = drive(plain, noise(1, 2, 2)), noise(1, 2, 2)
    for t in harsh.timesteps:
        output, before = torch.tanh(x * 0.7 + float(t) / 1000), x
        x = harsh.step(output, t, x).prev_sample
        output.fill_(float("nan"))
        before.fill_(float("nan"))
    assert torch.equal(x, want)


def test_generators_decide_all_noise_and_the_global_state_is_not_touched():
    scheduler = ours("euler-a")

    def run(generator: Any) -> torch.Tensor:
        scheduler.set_timesteps(4)
        return drive(scheduler, noise(2, 3, 2, 2), generator=generator)

    def seeded(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    state = torch.get_rng_state()
    both = run([seeded(1), seeded(2)])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(run([seeded(1), seeded(5)])[0], both[0])
    assert torch.equal(run([seeded(4), seeded(2)])[1], both[1])
    assert not torch.equal(run([seeded(1), seeded(5)])[1], both[1])


def test_repeated_times_are_counted_not_looked_up():
    scheduler = ours("heun")
    scheduler.set_timesteps(3)
    assert scheduler.timesteps.tolist()[1] == scheduler.timesteps.tolist()[2]
    x = noise(1, 2, 2)
    for i, t in enumerate(scheduler.timesteps):
        assert scheduler.step_index == (None if i == 0 else i)
        x = scheduler.step(x, t, x, return_dict=False)[0]
    assert scheduler.step_index == 5


def test_threads_on_one_pipeline_do_not_disturb_each_other():
    scheduler = ours("unipc-3")

    def run(steps: int, seed: int) -> torch.Tensor:
        scheduler.set_timesteps(steps)
        return drive(scheduler, noise(1, 3, 4, 4, seed=seed))

    alone = [run(3 + i, i) for i in range(4)]
    together: list[Any] = [None] * 4
    barrier = threading.Barrier(4)

    def work(i: int) -> None:
        scheduler.set_timesteps(3 + i)
        x = noise(1, 3, 4, 4, seed=i)
        for n in range(7):
            barrier.wait()
            if n < 3 + i:
                t = scheduler.timesteps[n]
                x = scheduler.step(torch.tanh(x * 0.7 + float(t) / 1000), t, x).prev_sample
        together[i] = x

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_a_copy_goes_on_by_itself(copied: Any):
    scheduler = ours("dpmpp-2m")
    scheduler.set_timesteps(4)
    x = noise(1, 2, 2)
    x = scheduler.step(torch.tanh(x), 999, x).prev_sample
    other = copied(scheduler)
    results = []
    for s in (scheduler, other):
        y = x
        for t in s.timesteps[1:]:
            y = s.step(torch.tanh(y), t, y).prev_sample
        results.append(y)
    assert torch.equal(*results)


@pytest.mark.parametrize("sampler", ["pndm", "restart", "midpoint", "heun", "belm", "rk4"])
@pytest.mark.parametrize("begin", range(1, 8))
def test_a_run_may_begin_anywhere(sampler: str, begin: int):
    """Also inside a step: data that is one point is then reached exactly."""
    scheduler = ours(sampler, {**CONFIG, "prediction_type": "sample"}, grid="trailing")
    scheduler.set_timesteps(5)
    if begin >= len(scheduler.timesteps):
        pytest.skip("the run is shorter")
    scheduler.set_begin_index(begin)
    data, eps = noise(1, 2, 2), noise(1, 2, 2, seed=1)
    left = scheduler.timesteps[begin:]
    x = scheduler.add_noise(data, eps, left[:1])
    for t in left:
        x = scheduler.step(data, t, x, generator=torch.Generator().manual_seed(0)).prev_sample
    assert float((x - data).abs().max()) < 1e-9


def test_a_host_that_says_only_the_time_begins_there():
    said, found = ours("heun"), ours("heun")
    results = []
    for scheduler in (said, found):
        scheduler.set_timesteps(4)
        if scheduler is said:
            scheduler.set_begin_index(4)
        x = noise(1, 2, 2)
        for t in scheduler.timesteps[4:]:
            x = scheduler.step(torch.tanh(x), t, x).prev_sample
        results.append(x)
    assert torch.equal(*results)


def test_half_precision_keeps_its_dtype_and_its_memory_in_float32():
    scheduler = ours("dpmpp-2m")
    scheduler.set_timesteps(3)
    x = noise(1, 2, 2).half()
    result = scheduler.step(x, 999, x)
    assert result.prev_sample.dtype == result.pred_original_sample.dtype == torch.float16
    assert torch.isfinite(drive_rest(scheduler, result.prev_sample)).all()


def drive_rest(scheduler: PlanScheduler, x: torch.Tensor) -> torch.Tensor:
    for t in scheduler.timesteps[1:]:
        x = scheduler.step(torch.tanh(x), t, x).prev_sample
    return x


def test_noise_and_velocity_are_those_of_diffusers():
    theirs, scheduler = diffusers.DDIMScheduler(**SD), ours("ddim")
    x, eps, t = noise(2, 3, 4).float(), noise(2, 3, 4, seed=1).float(), torch.tensor([10, 900])
    assert torch.allclose(scheduler.add_noise(x, eps, t), theirs.add_noise(x, eps, t), atol=1e-6)
    assert torch.allclose(scheduler.get_velocity(x, eps, t), theirs.get_velocity(x, eps, t), atol=1e-6)
    assert torch.allclose(scheduler.alphas_cumprod, theirs.alphas_cumprod, atol=1e-6)
    assert len(scheduler) == len(theirs) == 1000
    flow = ours("heun", FLOW)
    flow.set_timesteps(4)
    assert torch.allclose(flow.scale_noise(x, flow.timesteps[:1], eps), eps)


@pytest.mark.parametrize("kind", ["thresholding", "clip_sample"])
def test_thresholds_act_on_the_data_and_leave_the_raw_estimate(kind: str):
    theirs = diffusers.DDIMScheduler(**SD, **{"clip_sample": False} | {kind: True}, sample_max_value=1.5)
    scheduler = PlanScheduler.from_config(theirs)
    x = noise(2, 3, 4, 4).float()
    results = []
    for s in (theirs, scheduler):
        s.set_timesteps(4)
        y = x
        for t in s.timesteps:
            y = s.step(torch.tanh(y), t, y).prev_sample
        results.append(y)
    assert float((results[0] - results[1]).abs().max()) < 2e-6
    assert float(results[0].abs().max()) <= 1.0


def test_a_sampler_clips_where_its_own_class_does_and_where_it_is_told_to():
    pixels = diffusers.DDPMScheduler().config  # clip_sample by default
    assert ours("ddpm", pixels)._project is not None
    assert ours("dpmpp-2m", pixels)._project is None
    assert ours("dpmpp-2m", pixels, clip_sample=True)._project is not None


def test_zero_terminal_snr_takes_v_and_refuses_epsilon():
    zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "clip_sample": False}
    theirs = diffusers.DDIMScheduler(**SD, **zero, prediction_type="v_prediction")
    scheduler = PlanScheduler.from_config(theirs)
    results = []
    for s in (theirs, scheduler):
        s.set_timesteps(4)
        y = noise(1, 2, 2).float()
        for t in s.timesteps:
            y = s.step(torch.tanh(y), t, y).prev_sample
        results.append(y)
    assert float((results[0] - results[1]).abs().max()) < 2e-6
    with pytest.raises(fs.InvalidInput, match="zero terminal SNR"):
        ours("ddim", {**CONFIG, **zero}).set_timesteps(4)


# --- keeping --------------------------------------------------------------------------------------------------


def test_a_saved_scheduler_comes_back(tmp_path: Path):
    scheduler = ours(
        "ddim", PIPELINES["StableDiffusion"][0]().scheduler, grid="karras", grid_options={"rho": 5.0}, eta=0.5
    )
    scheduler.save_pretrained(tmp_path)
    back = PlanScheduler.from_pretrained(tmp_path)
    for s in (scheduler, back):
        s.set_timesteps(6)
    assert back.plan == scheduler.plan
    assert back.plan.recipe.options == {"eta": 0.5}
    assert {k: v for k, v in back.config.items() if not k.startswith("_")} == {
        k: v for k, v in scheduler.config.items() if not k.startswith("_")
    }
    assert back.config.steps_offset == 1


def test_a_saved_plan_comes_back(tmp_path: Path):
    plan = fs.compile("unipc-2", schedule=fs.schedules.scaled_linear(), times=[999, 600, 100, -1])
    plan.save(tmp_path / "plan.json")
    scheduler = PlanScheduler.from_plan(tmp_path / "plan.json", CONFIG)
    scheduler.save_pretrained(tmp_path)
    back = PlanScheduler.from_pretrained(tmp_path)
    back.set_timesteps(3)
    assert back.plan == plan
    assert back.timesteps.tolist() == [999, 600, 100]


def test_a_saved_pipeline_comes_back_with_its_scheduler(tmp_path: Path):
    pipe = diffusers.DDPMPipeline(
        unet=PIPELINES["DDPM"][0]().unet, scheduler=ours("unipc-3", diffusers.DDPMScheduler())
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(tmp_path)
    back = diffusers.DDPMPipeline.from_pretrained(tmp_path)
    back.set_progress_bar_config(disable=True)
    assert isinstance(back.scheduler, PlanScheduler)
    images = [
        p(num_inference_steps=3, generator=torch.Generator().manual_seed(0), output_type="np").images
        for p in (pipe, back)
    ]
    assert back.scheduler.plan == pipe.scheduler.plan
    assert np.allclose(*images, atol=1e-3)


def test_a_scheduler_of_diffusers_can_be_made_from_ours():
    scheduler = ours("unipc-3", PIPELINES["StableDiffusion"][0]().scheduler)
    back = diffusers.DDIMScheduler.from_config(scheduler.config)
    assert back.config.beta_start == SD["beta_start"]
    assert back.config.steps_offset == 1


def test_another_sampler_can_be_chosen_from_our_configuration():
    config = PIPELINES["StableDiffusion"][0]().scheduler
    direct, twice = ours("dpmpp-2m", config), ours("dpmpp-2m", ours("ddim", config, eta=0.5).config)
    for s in (direct, twice):
        s.set_timesteps(5)
    assert direct.plan == twice.plan


def test_native_and_hosted_runs_are_the_same_run():
    schedule = fs.schedules.scaled_linear()
    plan = fs.compile("dpmpp-2m", schedule=schedule, steps=6, grid="karras")
    scheduler = PlanScheduler.from_plan(plan, CONFIG)
    scheduler.set_timesteps(6)
    x = noise(2, 3, 4).float()
    network = fs.Network(lambda u, t: torch.tanh(u * 0.7 + t.reshape(-1, 1, 1) / 1000), schedule)
    hosted = drive(scheduler, x * plan.entry[1])
    assert float((hosted - fs.sample(plan, network, noise=x)).abs().max()) < 2e-5 * float(hosted.abs().max())


def test_from_plan_without_a_configuration_has_the_plans_noise_schedule_and_asks_for_the_prediction():
    for schedule in (fs.schedules.linear(), fs.schedules.cosine(), fs.schedules.flow(3.0), fs.schedules.edm()):
        plan = fs.compile("dpmpp-2m", schedule=schedule, steps=3)
        with pytest.raises(fs.InvalidInput, match="does not say what the network predicts"):
            PlanScheduler.from_plan(plan)
        kind = "flow_prediction" if schedule.kind == "flow" else "epsilon"
        scheduler = PlanScheduler.from_plan(plan, prediction_type=kind)
        scheduler.set_timesteps(3)
        assert scheduler.plan == plan
    assert scheduler.scale_model_input(torch.ones(1, 1), scheduler.timesteps[0]) == pytest.approx(1 / np.hypot(80, 0.5))


def test_a_learned_plan_runs_in_a_pipeline_but_not_from_the_middle():
    schedule = fs.schedules.scaled_linear()
    table = table_of(fs.compile("unipc-3", schedule=schedule, steps=5, grid="karras"))
    plan = plan_of(table._replace(times=table.times * 0.999), schedule, TunedFor("0" * 16))
    scheduler = PlanScheduler.from_plan(plan, CONFIG)
    scheduler.set_timesteps(5)
    assert scheduler.order == 1
    assert np.allclose(scheduler.timesteps, table.times[:-1] * 0.999, atol=1e-3)
    x = noise(2, 3, 4).float()
    network = fs.Network(lambda u, t: torch.tanh(u * 0.7 + t.reshape(-1, 1, 1) / 1000), schedule)
    hosted = drive(scheduler, x * plan.entry[1])
    assert float((hosted - fs.sample(plan, network, noise=x)).abs().max()) < 2e-5 * float(hosted.abs().max())
    scheduler.set_timesteps(5)
    scheduler.set_begin_index(2)
    with pytest.raises(fs.InvalidInput, match="has no rows that begin in the middle"):
        drive(scheduler, x)


# --- what pipelines look for ----------------------------------------------------------------------------------


def test_pipelines_find_the_arguments_that_they_look_for():
    assert {"timesteps", "sigmas"} <= set(inspect.signature(PlanScheduler.set_timesteps).parameters)
    step = set(inspect.signature(PlanScheduler.step).parameters)
    assert {"generator", "eta", "use_clipped_model_output", "variance_noise"} <= step
    assert diffusers.DDIMScheduler in ours("ddim").compatibles
    assert ours("heun").order == 2
    assert ours("ddim").config.num_train_timesteps == 1000
    assert ours("ddim").config.get("base_shift", 0.5) == 0.5


def test_the_class_of_a_configuration_in_memory_is_known_by_its_settings():
    for kind, sampler in [
        (diffusers.DDIMScheduler, "ddim"),
        (diffusers.DDPMScheduler, "ddpm"),
        (diffusers.EulerDiscreteScheduler, "euler"),
        (diffusers.UniPCMultistepScheduler, "unipc-2"),
        (diffusers.DPMSolverMultistepScheduler, "dpmpp-2m"),
        (diffusers.FlowMatchEulerDiscreteScheduler, "euler"),
        (diffusers.PNDMScheduler, "pndm"),
        (diffusers.CMStochasticIterativeScheduler, "consistency"),
    ]:
        assert PlanScheduler.from_config(kind().config).config.sampler == sampler
    lcm = diffusers.LCMScheduler()  # has the settings of TCD
    assert PlanScheduler.from_config(lcm).config.sampler == "lcm"
    with pytest.raises(fs.InvalidInput, match="pass the scheduler itself"):
        PlanScheduler.from_config(lcm.config)


def test_the_image_pipelines_start_at_the_level_that_they_noised_to():
    """At strength s, DDIM from data that the network knows gives the data back."""
    pipe = PIPELINES["StableDiffusionImg2Img"][0]()
    config = {**pipe.scheduler.config, "prediction_type": "sample"}
    network = pipe.unet.forward
    latent = noise(1, 4, 8, 8, seed=2).float()
    pipe.unet.forward = lambda x, *a, **k: (latent.expand_as(x),)
    try:
        for sampler in ("dpmpp-2m", "heun", "rk4"):
            drawn = draw("StableDiffusionImg2Img", ours(sampler, config), guidance_scale=1.0, image=latent)
            assert float((drawn - latent).abs().max()) < 1e-4
    finally:
        pipe.unet.forward = network


# --- errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ours("dpmpp2m"), "did you mean 'dpmpp-2m'"),
        (lambda: ours("ddim", grid="karas"), "did you mean 'karras'"),
        (lambda: ours("ddim", etaa=1.0), "did you mean 'eta'"),
        (lambda: ours("ddim", grid_options={"rho": 3.0}), "need a grid"),
        (lambda: ours("ddim", init_noise="unit"), "init_noise"),
        (lambda: PlanScheduler.from_config(CONFIG), "does not say which scheduler"),
        (lambda: PlanScheduler.from_config("folder"), "from_pretrained"),
        (lambda: PlanScheduler.from_config(diffusers.DDPMScheduler(variance_type="learned")), "variance"),
        (lambda: PlanScheduler.from_config(diffusers.RePaintScheduler()), "does not know the times"),
        (lambda: PlanScheduler(), "either a sampler or a plan"),
        (lambda: ours().set_timesteps(), "give num_inference_steps"),
        (lambda: ours().set_timesteps(0), "at least 1"),
        (lambda: ours().set_timesteps(1001), r"1 \.\. 1000"),
        (lambda: ours().set_timesteps(timesteps=[10, 20]), "decrease"),
        (lambda: ours().set_timesteps(5, timesteps=[20, 10]), "does not fit"),
        (lambda: ours().set_timesteps(4, strength=0.0), "strength"),
        (lambda: ours("lcm").set_timesteps(60), "distilled at"),
        (lambda: ours().set_begin_index(0), "call set_timesteps first"),
        (lambda: ours().step(torch.zeros(1, 2), 999, torch.zeros(1, 2)), "call set_timesteps first"),
    ],
)
def test_a_wrong_call_says_what_to_do(call: Any, message: str):
    with pytest.raises(fs.InvalidInput, match=message):
        call()


def test_a_plan_of_another_schedule_or_length_is_refused():
    plan = fs.compile("ddim", schedule=fs.schedules.linear(), steps=4)
    with pytest.raises(fs.InvalidInput, match="compiled for the noise schedule"):
        PlanScheduler.from_plan(plan, CONFIG)
    scheduler = PlanScheduler.from_plan(plan, prediction_type="epsilon")
    for asked in ({"num_inference_steps": 5}, {"timesteps": [900, 500, 300, 100]}):
        with pytest.raises(fs.InvalidInput, match="num_inference_steps=4"):
            scheduler.set_timesteps(**asked)
    pair = fs.compile("belm", schedule=fs.schedules.linear(), steps=4, reverse=True)
    if pair.inputs == 2:
        with pytest.raises(fs.InvalidInput, match="pair"):
            PlanScheduler.from_plan(pair)


def test_wrong_steps_are_refused_and_leave_the_run_as_it_was():
    scheduler = ours("dpmpp-2m")
    scheduler.set_timesteps(2)
    x = torch.zeros(1, 3, 4)
    with pytest.raises(fs.InvalidInput, match="no evaluation at time 123"):
        scheduler.step(x, 123, x)
    with pytest.raises(fs.InvalidInput, match="shape"):
        scheduler.step(torch.zeros(1, 3, 5), 999, x)
    with pytest.raises(fs.InvalidInput, match="unknown argument of step"):
        scheduler.step(x, 999, x, generators=None)
    with pytest.raises(fs.InvalidInput, match=r"step does not take eta=1\.0"):
        scheduler.step(x, 999, x, eta=1.0)
    x = scheduler.step(x, scheduler.timesteps[0], x, eta=0.0).prev_sample
    with pytest.raises(fs.InvalidInput, match="the run began with"):
        scheduler.step(torch.zeros(2, 3, 4), scheduler.timesteps[1], torch.zeros(2, 3, 4))
    scheduler.step(x, scheduler.timesteps[1], x)
    with pytest.raises(fs.InvalidInput, match="all 2 evaluations"):
        scheduler.step(x, scheduler.timesteps[1], x)
    with pytest.raises(fs.InvalidInput, match=r"0 \.\. 1"):
        scheduler.set_begin_index(2)


def test_a_plan_with_guidance_by_row_is_refused_as_a_scheduler_cannot_guide():
    from fewstep.tuning.table import plan_of, table_of

    schedule = fs.schedules.from_diffusers(CONFIG)
    plan = plan_of(table_of(fs.compile("unipc-2", schedule=schedule, steps=3)), schedule, factors=[1.0, 0.5, 1.0])
    with pytest.raises(fs.InvalidInput, match="fewstep tune --constant-guidance"):
        PlanScheduler.from_plan(plan, CONFIG)
