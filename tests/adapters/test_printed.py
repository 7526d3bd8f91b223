"""The lines for diffusers that `fewstep choose` prints run as printed, with the plan that was measured."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest

import fewstep as fs
from benchmark.made_up import row
from fewstep.adapters.byrow import GuidanceByRow
from fewstep.adapters.diffusers import PlanScheduler
from fewstep.benchmark import Measured
from fewstep.benchmark.commands import lines_of
from fewstep.tuning.table import plan_of, table_of

from .pipelines import PIPELINES
from .tiny import SD, words

V = {**SD, "prediction_type": "v_prediction"}
HOSTS = [
    diffusers.DDIMScheduler(**V, clip_sample=False),
    diffusers.EulerDiscreteScheduler(**V),
    diffusers.DPMSolverMultistepScheduler(**V, lower_order_final=False, solver_type="heun"),
    diffusers.UniPCMultistepScheduler(**V, lower_order_final=False, disable_corrector=[0]),
]


def printed(one: Measured, source: str, prompted: bool = True) -> str:
    line = lines_of(replace(one, model=replace(one.model, source=source)), prompted).diffusers
    assert line is not None
    return line


def run(line: str, host: Any) -> dict[str, Any]:
    """The names after a line, typed where a pipeline `pipe` is; words go in as embeddings, as no encoder is there."""
    pipe = PIPELINES["StableDiffusion"][0]()
    own, drawn = pipe.scheduler, functools.partial(type(pipe).__call__, pipe)
    asked: list[Any] = []

    class Typed:
        scheduler = host

        def __call__(self, prompt: str, callback_on_step_end: Any = None, **more: Any) -> Any:
            asked.append(prompt)
            pipe.scheduler = self.scheduler
            embedded = {"prompt_embeds": words(), "negative_prompt_embeds": words(seed=4)}
            size = {"height": 16, "width": 16, "output_type": "np"}
            return drawn(**embedded, **size, **more, callback_on_step_end=callback_on_step_end)

    names: dict[str, Any] = {"pipe": Typed(), "PlanScheduler": PlanScheduler, "GuidanceByRow": GuidanceByRow}
    try:
        exec(compile(line, "printed", "exec"), names)
    finally:
        pipe.scheduler = own
    assert asked == ["PROMPT"]
    return names


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: type(host).__name__)
@pytest.mark.parametrize(
    ("sampler", "options"),
    [
        ("unipc-2", {}),
        ("sde-dpmpp-2m", {}),
        ("dpmpp-2m", {"lower_order_final": True}),
        ("heun", {}),
        ("ddim", {"eta": 0.5}),
    ],
)
def test_a_sampler_is_hosted_with_the_plan_that_was_measured(sampler: str, options: dict[str, Any], host: Any) -> None:
    line = printed(row(sampler, 4, options=options), "models/mine")
    names = run(line, host)
    want = fs.compile(
        sampler,
        schedule=fs.schedules.from_diffusers(V),
        steps=4,
        grid="quadratic",
        grid_options={"bias": 0.5},
        **options,
    )
    found = names["pipe"].scheduler.plan
    for table in ("A", "B", "s", "init"):
        assert np.array_equal(getattr(found, table), getattr(want, table))
    assert names["pipe"].scheduler.config["prediction_type"] == "v_prediction"
    assert np.isfinite(names["images"]).all()


@pytest.mark.parametrize("factors", [None, [1.0, 0.5, 1.0]])
@pytest.mark.parametrize("host", HOSTS[:2], ids=lambda host: type(host).__name__)
def test_a_plan_file_is_hosted_for_what_the_network_of_the_pipeline_predicts(
    tmp_path: Path, host: Any, factors: list[float] | None
) -> None:
    schedule = fs.schedules.from_diffusers(V)
    plan = plan_of(table_of(fs.compile("unipc-2", schedule=schedule, steps=3)), schedule, factors=factors)
    plan.save(tmp_path / "plan.json")
    facts = {} if factors is None else {"guidance_factors": tuple(factors)}
    one = row("learned", 3, kind="tuned", file=str(tmp_path / "plan.json"), **facts)
    names = run(printed(one, "models/mine"), host)
    scheduler = names["pipe"].scheduler
    assert scheduler.config["prediction_type"] == "v_prediction"
    assert np.array_equal(scheduler.plan.A, plan.A)
    x0_of_v = scheduler._prediction.coefficients(*plan.rows[0][:3])
    assert x0_of_v == pytest.approx((plan.rows[0].alpha, -plan.rows[0].sigma))
    assert np.isfinite(names["images"]).all()


def test_a_model_of_labels_is_called_by_a_label() -> None:
    assert printed(row("ddim", 4), "models/mine", prompted=False).endswith(
        "images = pipe(class_labels=[0], num_inference_steps=4, guidance_scale=2).images"
    )
    assert printed(row("ddim", 4, guidance=None), "models/mine", prompted=False).endswith(
        "images = pipe(num_inference_steps=4).images"
    )
