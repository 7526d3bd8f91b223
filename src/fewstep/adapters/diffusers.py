"""Any sampler of fewstep as the scheduler of any diffusers pipeline.

    pipe.scheduler = PlanScheduler.from_config(pipe.scheduler.config, sampler="unipc-3", grid="karras")
    pipe.scheduler = PlanScheduler.from_plan("plan.json", pipe.scheduler.config)

States are shown in the coordinates of the pipeline's own scheduler: x / alpha where that is one of k-diffusion's family
(`EulerDiscreteScheduler` and its like), else those of the schedule, where `scale_model_input` is the identity but for
EDM networks. `timesteps` has one entry for each network evaluation.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
from diffusers.utils.outputs import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from fewstep.adapters import settings as reading
from fewstep.adapters.calls import check_clipped, eta_by_call, refuse
from fewstep.adapters.coordinates import COORDINATES, in_sigma_space
from fewstep.adapters.cuts import cuttable
from fewstep.adapters.hosts import check_host
from fewstep.adapters.levels import Levels
from fewstep.adapters.noise_schedule import config_of, schedule_of
from fewstep.adapters.peers import for_steps
from fewstep.adapters.prediction import Prediction, fitting, projection
from fewstep.adapters.rows import compiled, frozen
from fewstep.adapters.runs import HostRun, Runs
from fewstep.adapters.times import Times
from fewstep.core import BetaSchedule, InvalidInput, Plan, Schedule, one_of
from fewstep.solvers import SAMPLERS


@dataclass
class PlanSchedulerOutput(BaseOutput):
    """What `PlanScheduler.step` returns: the next network input, and the estimate of the data at this call."""

    prev_sample: Tensor
    pred_original_sample: Tensor


class PlanScheduler(SchedulerMixin, ConfigMixin):
    """A diffusers scheduler that runs plans of fewstep. Make one by `from_config` or `from_plan`.

    Runs are kept by thread: pipelines that share one scheduler in several threads do not disturb one another, as long
    as each of their calls stays in its thread. A copy or pickle holds the run of the thread that made it.

    Args:
        sampler: a name of `fewstep.SAMPLERS`; `options` are its own.
        grid: a name of `fewstep.GRIDS` with `grid_options`, or None for the times that diffusers' own scheduler of
            this sampler has under these settings.
        plan: JSON of a plan, in place of sampler and grid.
        init_noise: "diffusers", the scale of the first noise that diffusers' own scheduler has, which is often 1; or
            "entry", the sigma of the first time, for which networks were trained.
        round_times: tell the network integers, as the multistep schedulers of diffusers do; by default it is told
            the time that belongs to its noise.
        shift_sigmas: apply the shift of a flow model to `sigmas` given to a pipeline, as diffusers does; False takes
            them as they are.
        coordinates: "host" shows states as the pipeline's own scheduler does; "schedule" as the noise schedule has
            them, alpha x0 + sigma eps.
        settings: those of the host's scheduler, such as `prediction_type`; they are kept in `config`.

    Raises:
        InvalidInput: for unknown names, for settings that fewstep cannot honour, and for a plan of another noise
            schedule.
    """

    _compatibles: ClassVar[list[str]] = [kind.name for kind in KarrasDiffusionSchedulers]

    def __init__(
        self,
        sampler: str | None = None,
        options: Mapping[str, Any] | None = None,
        grid: str | None = None,
        grid_options: Mapping[str, Any] | None = None,
        plan: str | None = None,
        init_noise: str = "diffusers",
        round_times: bool = False,
        shift_sigmas: bool = True,
        coordinates: str = "host",
        host: str | None = None,
        defaulted: Sequence[str] = (),
        chosen: Sequence[str] = (),
        **settings: Any,
    ):
        check_host(host)
        reading.check_arguments(sampler, plan, grid, grid_options)
        one_of("init_noise", init_noise, ("diffusers", "entry"))
        one_of("coordinates", coordinates, COORDINATES)
        own: dict[str, Any] = {
            "sampler": sampler, "options": dict(options or {}), "grid": grid, "grid_options": dict(grid_options or {}),
            "plan": plan, "init_noise": init_noise, "round_times": bool(round_times),
            "shift_sigmas": bool(shift_sigmas), "coordinates": coordinates,
            "host": host, "defaulted": list(defaulted), "chosen": list(chosen),
        }  # fmt: skip
        settings = {"num_train_timesteps": 1000, **settings}
        # Other classes of diffusers put their own name in place of ours, and skip what were only defaults.
        memory = {"_class_name": reading.CLASS, "_use_default_values": list(defaulted)}
        self.register_to_config(**settings, **own, **memory)
        self._schedule: Schedule = schedule_of(settings, host)
        self._prediction = Prediction(settings, self._schedule, host)
        self._spacing, self._settings = host, settings
        if sampler is not None:
            peer = reading.as_peer(settings, sampler, host, self._schedule, defaulted, chosen)
            self._spacing, self._settings = peer
        self._project = projection(self._settings, self._spacing, chosen)
        self._shown = in_sigma_space(coordinates, host, self._schedule)
        self._levels = Levels(self._schedule, self._prediction, self._shown)
        self._plan = None if plan is None else Plan.from_json(plan)
        if self._plan is not None:
            reading.check_fit(self._plan, self._schedule)
        elif sampler is not None:  # unknown options and impossible values are found now, not in the middle of a call
            ends = (self._schedule.t_max, self._schedule.t_min)
            compiled(sampler, self._schedule, ends, frozen(own["options"]))
        self._times = Times(
            self._schedule, self._prediction, host, self._spacing, self._settings, grid, own["grid_options"],
            self._plan, own["round_times"], own["shift_sigmas"],
        )  # fmt: skip
        self._runs = Runs()

    # --- making and keeping ----------------------------------------------------------------------------------

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any] | SchedulerMixin | None = None,
        return_unused_kwargs: bool = False,
        *,
        sampler: str | None = None,
        grid: str | None = None,
        grid_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The scheduler for a pipeline whose scheduler has this `config`, or is given itself.

        Args:
            config: `pipe.scheduler.config`, or `pipe.scheduler`, which also says its class.
            sampler: None takes the sampler that the configuration's scheduler is, with its options.
            grid: None takes the spacing of diffusers' own scheduler of this sampler.
            kwargs: arguments of the class, settings of the configuration to change, and options of the sampler. A name
                that the sampler's class in diffusers has means what it means there; in `options` all are fewstep's own.
        """
        if isinstance(config, SchedulerMixin):
            config = {**config.config, "_class_name": type(config).__name__}  # type: ignore[attr-defined]
        if not isinstance(config, Mapping):
            raise InvalidInput(
                f"from_config takes pipe.scheduler.config or pipe.scheduler, got {type(config).__name__}; to read a "
                "folder use from_pretrained"
            )
        made = cls(**reading.arguments_of(config, sampler, grid, grid_options, kwargs))
        return (made, {}) if return_unused_kwargs else made

    @classmethod
    def from_plan(
        cls,
        plan: Plan | str | os.PathLike[str],
        config: Mapping[str, Any] | SchedulerMixin | None = None,
        **settings: Any,
    ) -> PlanScheduler:
        """A scheduler that runs one plan, or the file of one, and nothing else.

        Args:
            plan: a plan or the path of a file that `Plan.save` wrote.
            config: `pipe.scheduler`, or its configuration. None stands for the plan's noise schedule, and then
                `prediction_type` has to be given.
            settings: of the configuration, to change.

        Raises:
            InvalidInput: where the plan was compiled for another noise schedule than the configuration's, and where
                nothing says what the network predicts.
        """
        if not isinstance(plan, Plan):
            plan = Plan.load(plan)
        if plan.inputs != 1:
            raise InvalidInput(
                f"this plan of {plan.recipe.sampler} starts from a pair of states, pipelines have one: give another"
            )
        if config is None:
            config = config_of(plan.recipe.schedule, settings)
        return cls.from_config(config, plan=plan.to_json(), **settings)

    def to_json_string(self) -> str:
        """The configuration as JSON; functions among the settings of the host's scheduler cannot be kept."""
        broken = [name for name, value in self.config.items() if callable(value)]
        if broken:
            raise InvalidInput(f"settings {broken} are functions and cannot be saved: give them as None")
        return super().to_json_string()

    def __len__(self) -> int:
        return self.config.num_train_timesteps  # type: ignore[attr-defined]

    # --- what pipelines read ---------------------------------------------------------------------------------

    @property
    def order(self) -> int:
        """Network evaluations of a usual step: pipelines skip steps in this unit."""
        name = self._sampler
        return SAMPLERS[name].evaluations if name in SAMPLERS else 1  # a learned plan is in no registry

    @property
    def timesteps(self) -> Tensor:
        """(n,), what the network is told, for each evaluation: integers where all of them are, else float32."""
        run = self._runs.last
        if run is None:
            every = np.arange(self.config["num_train_timesteps"])[::-1].copy()
            return torch.from_numpy(every)
        return cuttable(run.timesteps, run.plan)

    @property
    def sigmas(self) -> Tensor:
        """(n + 1,), sigma of each evaluation and of the end, sigma / alpha on beta schedules: float32, on the CPU."""
        return self._levels.sigmas(self._runs.own.plan)

    @property
    def num_inference_steps(self) -> int | None:
        """Steps of the run of this thread, or None before `set_timesteps`."""
        run = self._runs.last
        return None if run is None else run.steps

    @property
    def begin_index(self) -> int | None:
        """The evaluation that the host begins with, where it said so."""
        return self._runs.own.begin

    @property
    def step_index(self) -> int | None:
        """The evaluation that comes next, or None before the first."""
        run = self._runs.own
        return None if run.calls is None else run.position

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """(T,), alpha^2 at the times of a beta schedule."""
        if not isinstance(self._schedule, BetaSchedule):
            raise AttributeError(f"a {self._schedule.kind} schedule has no alphas_cumprod")
        return torch.tensor(self._schedule.alphas_cumprod, dtype=torch.float32)

    @property
    def init_noise_sigma(self) -> float:
        """What a pipeline multiplies unit noise by before its first evaluation."""
        spaced = None if self.config["grid"] is not None else self._spacing
        own = None if self.config["init_noise"] == "entry" else (self.config["host"], spaced, self._settings)
        return self._levels.first(self._runs.last, own)

    @property
    def plan(self) -> Plan:
        """The plan of this thread's run."""
        return self._runs.own.plan

    # --- what pipelines call ---------------------------------------------------------------------------------

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
        original_inference_steps: int | None = None,
        strength: float = 1.0,
    ) -> None:
        """Compile the plan of a run of this thread.

        Args:
            num_inference_steps: steps of the grid. A sampler of two evaluations a step has nearly twice as many
                `timesteps`.
            device: where `timesteps` are needed.
            timesteps: what the network is to be told at the steps, decreasing and verbatim, clean data after them.
            sigmas: the levels of the steps. On flow N values, to which the shift is applied once as in diffusers
                (see `shift_sigmas`); the pipelines' own 1 .. 1/N means N steps, on the grid where one is named. On
                beta and EDM schedules N + 1 values of sigma / alpha, the end included, verbatim. With `timesteps`,
                they are the levels and `timesteps` what the network is told.
            mu: of dynamic shifting, log of the shift.
            original_inference_steps, strength: of LCM, as its pipelines give them. A strength below 1 takes the last
                steps of a longer grid.

        Raises:
            InvalidInput: for a grid that the schedule does not have, for a plan of another number of steps, and for a
                network whose output says nothing at the first time (epsilon at zero terminal SNR).
        """
        steps, points = self._times.points(
            num_inference_steps, timesteps, sigmas, mu, original_inference_steps, strength
        )
        if self._plan is not None:
            plan = self._plan
        else:
            options = for_steps(self.config["options"], self.config["host"], steps)
            key = frozen(options)
            plan = compiled(self.config["sampler"], self._schedule, tuple(map(float, points.times)), key)
        for row in plan.rows:
            self._prediction.coefficients(row.t, row.alpha, row.sigma)
        told = self._times.told(plan, points)
        whole = bool(np.all(told == np.round(told))) and isinstance(self._schedule, BetaSchedule)
        tensor = torch.from_numpy(told).to(torch.int64 if whole else torch.float32)
        self._runs.last = HostRun(plan, self._schedule, steps, tensor.double().numpy(), tensor.to(device), self._shown)

    def set_begin_index(self, begin_index: int = 0) -> None:
        """The evaluation that the host begins with: it has put a noised picture at that level."""
        run = self._runs.own
        if not 0 <= begin_index < len(run.told):
            raise InvalidInput(f"begin_index must lie in 0 .. {len(run.told) - 1}, got {begin_index}")
        run.begin, run.done, run.calls = int(begin_index), 0, None

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The network's input: `sample` itself, alpha times it where it is shown as x / alpha, or for EDM networks
        sample / sqrt(sigma^2 + sigma_data^2).
        """
        if not self._prediction.preconditioned and not self._shown:
            return sample
        run = self._runs.own.begun(timestep)
        return sample * (run.factor() if self._shown else self._prediction.scale(run.row.sigma))

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
        eta: float | None = None,
        use_clipped_model_output: bool = False,
        variance_noise: Tensor | None = None,
        **host: Any,
    ) -> PlanSchedulerOutput | tuple[Tensor, Tensor]:
        """One network evaluation's worth: from `sample`, as the host shows it, to the next network input.

        Args:
            model_output: the network's output, in the shape of `sample`; of twice as many channels where the network
                predicts a variance, too, which is not used.
            timestep: looked at in the first call, and only where the host did not call `set_begin_index`.
            sample: (B, ..), the state at this evaluation's level. It may have been edited since the last call.
            generator: one, or one for each image. None draws from PyTorch's global state.
            eta: of this step, for "ddim" and "tcd", as their classes in diffusers take it. Other samplers have it from
                the start; 0.0, which pipelines give unasked, asks nothing of them.
            use_clipped_model_output: of "ddim": the noise follows from the clipped estimate of the data.
            variance_noise: in the shape of `sample`, the unit noise of this step in place of a drawn one.
            host: arguments that some pipelines give to their own scheduler, at the values where they do nothing.

        Raises:
            InvalidInput: before `set_timesteps`, after the last evaluation, for shapes that do not fit, and for
                arguments that ask for what the sampler does not do.
        """
        options, name = self.config["options"], self._sampler
        refuse(host, name, options)
        check_clipped(use_clipped_model_output, name)
        wanted = eta_by_call(eta, name, options, fixed=self._plan is not None)
        run = self._runs.own.begun(timestep)
        call = run.call
        if wanted is not None:
            call = run.instead(
                compiled(name, self._schedule, run.plan.recipe.times, frozen({**options, "eta": wanted}))
            )
        output = fitting(model_output, sample, self.config)
        run.registers.check(sample)
        if variance_noise is not None and (generator is not None or variance_noise.shape != sample.shape):
            raise InvalidInput("variance_noise has the shape of the sample and takes the generator's place: give one")

        def noise() -> Tensor:
            if variance_noise is not None:
                return variance_noise.to(sample.device)
            return randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=sample.dtype)

        before, after = run.factor(), run.factor(1)
        state = sample if before == 1 else sample * before
        made, data = run.registers.advance(
            call, output, state, self._prediction.coefficients, self._project, noise, use_clipped_model_output
        )
        made = made if after == 1 else made / after
        run.done += 1
        return PlanSchedulerOutput(made, data) if return_dict else (made, data)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """alpha x0 + sigma noise in the host's coordinates at `timesteps` (B,) or (1,), as the network is told them."""
        return self._levels.noised(original_samples, noise, timesteps, self._runs.last)

    def scale_noise(self, sample: Tensor, timestep: Any, noise: Tensor | None = None) -> Tensor:
        """`add_noise` under the name and in the order of arguments that flow pipelines use."""
        if noise is None:
            raise InvalidInput("scale_noise needs the noise")
        return self.add_noise(sample, noise, torch.as_tensor(timestep))

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """alpha noise - sigma x0 at `timesteps`: the target of v-prediction."""
        return self._levels.velocity(sample, noise, timesteps, self._runs.last)

    # --- inside ----------------------------------------------------------------------------------------------

    @property
    def _sampler(self) -> str:
        return self._plan.recipe.sampler if self._plan else str(self.config["sampler"])
