"""A small v-prediction UNet on cosine betas, trained on the digits in minutes: a model unlike the shipped ones.

python benchmarks/vpred.py out/vpred.safetensors [--seconds 180] [--seed 0] [--threads 1]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import fewstep as fs
from fewstep.denoise.convert import Network
from fewstep.tuning import Problem

SHAPE = (1, 8, 8)


def unet() -> torch.nn.Module:
    """About 0.5 million weights, float32."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=16,
    )


def train(seconds: float, seed: int) -> torch.nn.Module:
    """So many seconds of processor time of AdamW on |v - v_theta|^2 (Salimans & Ho 2022, arXiv 2202.00512)."""
    from fewstep.zoo import digits

    torch.manual_seed(seed)
    network, images = unet(), digits.load().images
    schedule, times = fs.schedules.cosine(), np.arange(1000.0)
    alphas, sigmas = (torch.from_numpy(of(times)).float() for of in (schedule.alpha, schedule.sigma))
    averaged = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    )
    steps = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-4)
    began = time.process_time()
    while (spent := time.process_time() - began) < seconds:
        steps.param_groups[0]["lr"] = 1e-3 * max(0.02, 1 - spent / seconds)
        x0 = images[torch.randint(len(images), (128,))]
        t, noise = torch.randint(1000, (128,)), torch.randn(128, *SHAPE)
        alpha, sigma = alphas[t][:, None, None, None], sigmas[t][:, None, None, None]
        loss = (network(alpha * x0 + sigma * noise, t).sample - (alpha * noise - sigma * x0)).square().mean()
        steps.zero_grad()
        loss.backward()
        steps.step()
        averaged.update_parameters(network)
    return averaged.module


def vpred(path: Path, seconds: float = 180, seed: int = 0) -> Problem:
    """What plans are measured on, with the weights in a file, which is trained and written where there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(train(seconds, seed).state_dict(), path)
    network = unet()
    network.load_state_dict(load_file(path))
    network.eval().requires_grad_(False)

    def call(x: Tensor, t: Tensor) -> Tensor:
        return network(x, t).sample

    known = Network(call, fs.schedules.cosine(), "v_prediction", module=network)
    return Problem.of(known, SHAPE, name="v-prediction UNet", batch=64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(vpred(given.path, given.seconds, given.seed).name)


if __name__ == "__main__":
    main()
