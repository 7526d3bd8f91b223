"""Models of a few hundred weights, made here, for the tests of the pipeline and of the command line."""

from pathlib import Path

import torch
from PIL import Image

from fewstep import schedules
from fewstep.zoo import Spec, UNet, UNetConfig, build, save

CLASSES = 3
LOST = 2
"""The label for which a network of `broken` overflows."""


def network(seed: int = 0, channels: int = 1, size: int = 4) -> UNet:
    """A network whose output depends on everything: no weight is zero."""
    net = build(UNetConfig(channels=channels, size=size, classes=CLASSES, widths=(8,), embedding=8, heads=1), seed)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))
    return net


def write(path: Path, seed: int = 0, channels: int = 1, size: int = 4) -> Path:
    """A model file."""
    return _saved(path, network(seed, channels, size))


def broken(path: Path, everything: bool = False) -> Path:
    """A model file with finite weights whose output is not, for the label `LOST` or for every one."""
    net = network()
    with torch.no_grad():
        if everything:
            net.leave.bias.fill_(3e38)
        net.label.weight[LOST] = 3e38
    return _saved(path, net)


def text_of(picture: Path) -> str:
    """The recipe in a PNG, as another program sees it."""
    with Image.open(picture) as image:
        return image.info["fewstep"]


def _saved(path: Path, net: UNet) -> Path:
    save(path, net, Spec(net.config, "v_prediction", schedules.linear(), (-1.0, 1.0), {}))
    return path
