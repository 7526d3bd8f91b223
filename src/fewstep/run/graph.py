"""A whole trajectory as one object to replay: a CUDA graph, or one function compiled by torch.compile.

A CUDA graph removes the launch costs that dominate small networks; torch.compile fuses each row's arithmetic with its
neighbours. Both fix plan, denoiser, batch shape and device. Unlike the eager loop, which draws noise row by row, the
noise of a stochastic plan is drawn before the run: one state for each noisy row.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.core.plan import Plan
from fewstep.denoise.base import as_denoiser
from fewstep.run.eager import execute, initial_registers, levels_of, starting_states
from fewstep.run.lower import DATA, NOISE, RAW, SOURCES, lower
from fewstep.run.noise import key_of, unit_noise

MODES = ("auto", "cuda-graph", "compile", "eager")


class Graph:
    """`plan` with `denoiser` for states of `shape` (B, ..), captured once and called often.

    Args:
        mode: "cuda-graph" (needs a GPU), "compile" (needs a C++ compiler on a CPU), "eager" (the same function, not
            captured), or "auto": the first of these that can be had here.

    Attributes:
        mode: what was chosen; `reason` says why.

    Raises:
        InvalidInput: for a mode that cannot be had on this machine; it says what is missing.
    """

    def __init__(
        self,
        plan: Plan,
        denoiser: Any,
        shape: Sequence[int],
        *,
        device: torch.device | str | None = None,
        mode: str = "auto",
    ):
        if mode not in MODES:
            raise unknown_name("graph mode", mode, MODES)
        self.plan, self.denoiser = plan, as_denoiser(denoiser)
        self.shape, self.device = tuple(shape), torch.device(device or "cpu")
        self.mode, self.reason = _choose(mode, self.device)
        if self.mode != mode and mode == "auto" and self.mode == "eager":
            warnings.warn(f"fewstep.Graph runs eagerly: {self.reason}", stacklevel=2)
        self._levels = levels_of.__wrapped__(plan, self.shape[0], torch.float32, self.device)  # of its own
        self._folds = tuple(self.denoiser.coefficients(row.t, row.alpha, row.sigma) for row in plan.rows)
        self._program = lower(plan, self._folds if self.denoiser.affine else None)
        self._run: Callable[[list[Tensor], list[Tensor]], Tensor] = self._trajectory
        self._static: tuple[list[Tensor], list[Tensor], Tensor, Any] | None = None
        if self.mode == "compile":
            self._run = torch.compile(self._trajectory, dynamic=False)

    def __call__(
        self,
        *,
        noise: Tensor | None = None,
        start: Tensor | tuple[Tensor, Tensor] | None = None,
        seed: int | Sequence[int] = 0,
    ) -> Tensor:
        """As `fewstep.sample` with the captured shape; with neither noise nor start, from the noise of `seed`."""
        given: dict[str, Any] = {"noise": noise, "start": start}
        if noise is None and start is None:
            given = {"shape": self.shape, "device": self.device}
        states, seeds = starting_states(self.plan, self.denoiser, seed=seed, **given)
        if states[0].shape != self.shape or states[0].dtype != torch.float32:
            raise InvalidInput(
                f"this graph was captured for float32 states of shape {self.shape}, got {states[0].dtype} "
                f"{tuple(states[0].shape)}: make another Graph for it"
            )
        initial = initial_registers(self.plan, [state.to(self.device) for state in states], seeds)
        registers = [initial[r] for r in self._program.first]
        draws = [unit_noise(seeds, key_of(row.noise), registers[0]) for row in self.plan.rows if row.noise is not None]
        with torch.no_grad():
            return self._replay(registers, draws) if self.mode == "cuda-graph" else self._run(registers, draws)

    def _trajectory(self, registers: list[Tensor], draws: list[Tensor]) -> Tensor:
        """All rows, without a branch that depends on data."""
        buffers: list[Any] = [None] * (self._program.buffers + SOURCES)
        for register, state in zip(self._program.first, registers, strict=True):
            buffers[register] = state
        noises = iter(draws)
        denoiser = self.denoiser.begin()
        for i, row in enumerate(self.plan.rows):
            u = buffers[self._program.inputs[i]]
            if denoiser.affine:
                # A copy: the output may be the input, or memory that the network writes to again.
                buffers[DATA] = denoiser.output(u, self._levels[i]).clone()
            else:
                buffers[DATA], buffers[RAW] = (v.clone() for v in denoiser.estimate(u, self._levels[i]))
            if row.noise is not None:
                buffers[NOISE] = next(noises)
            execute(self._program.rows[i], buffers)
        buffer, factor = self._program.results[0]
        return buffers[buffer] * factor

    def _replay(self, registers: list[Tensor], draws: list[Tensor]) -> Tensor:
        """Copy the inputs to where the graph reads them, run it, and copy the result out."""
        if self._static is None:
            side = torch.cuda.Stream(self.device)
            side.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(side):  # warm up: lazy initialisation must not be captured
                for _ in range(2):
                    self._trajectory([r.clone() for r in registers], draws)
            torch.cuda.current_stream(self.device).wait_stream(side)
            inputs, noises = [r.clone() for r in registers], [z.clone() for z in draws]
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                result = self._trajectory([r.clone() for r in inputs], noises)
            self._static = (inputs, noises, result, graph)
        inputs, noises, result, graph = self._static
        for static, value in zip([*inputs, *noises], [*registers, *draws], strict=True):
            static.copy_(value)
        graph.replay()
        return result.clone()


def _choose(mode: str, device: torch.device) -> tuple[str, str]:
    """The mode to use and why; raises `InvalidInput` where the one asked for cannot be had."""
    gpu = device.type == "cuda" and torch.cuda.is_available()
    compiler = shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")
    if mode == "cuda-graph" and not gpu:
        raise InvalidInput(
            f"a CUDA graph needs a GPU; the device here is {device} and torch.cuda.is_available() is "
            f"{torch.cuda.is_available()}. Use mode='compile' or 'eager', or device='cuda' on a machine with a GPU"
        )
    if mode == "compile" and not gpu and compiler is None:
        raise InvalidInput(
            "torch.compile on a CPU needs a C++ compiler, and no g++ or clang++ is on the PATH: install one"
        )
    if mode != "auto":
        return mode, "asked for"
    if gpu:
        return "cuda-graph", "the device is a GPU"
    if compiler is not None:
        return "compile", f"no GPU on device {device}, so torch.compile instead of a CUDA graph"
    return "eager", f"no GPU on device {device}, and no C++ compiler for torch.compile"
