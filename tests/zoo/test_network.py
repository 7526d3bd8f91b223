"""The U-Net: shapes, conditions, initialisation, and configs that are refused."""

from __future__ import annotations

import pytest
import torch

from fewstep.core.errors import InvalidInput
from fewstep.zoo.network import UNet, UNetConfig, build, skeleton, time_features


def perturbed(config: UNetConfig, seed: int = 0) -> UNet:
    """A network whose zero-initialised weights are moved, so that every path matters."""
    network = build(config, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return network


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(),
        UNetConfig(channels=3, size=16, classes=2, widths=(8, 16, 24), blocks=2, embedding=16, heads=4),
        UNetConfig(channels=2, size=5, classes=1, widths=(10,), embedding=8, heads=1),
    ],
)
def test_every_size_gives_the_shape_of_its_input(config: UNetConfig) -> None:
    x = torch.zeros(3, *config.sample_shape)
    out = build(config, 0)(x, torch.tensor([0.0, 500.5, 999.0]), torch.zeros(3, dtype=torch.int64))
    assert out.shape == x.shape
    assert out.dtype == torch.float32


def test_the_default_config_is_small_enough_for_a_megabyte() -> None:
    count = sum(parameter.numel() for parameter in skeleton(UNetConfig()).parameters())
    assert 150_000 <= count <= 240_000


def test_a_fresh_network_is_zero_and_no_label_means_the_null_class() -> None:
    config = UNetConfig()
    x, t = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([3.0, 700.0])
    assert not build(config, 0)(x, t).any()
    network = perturbed(config)
    null = torch.full((2,), config.null_class)
    assert torch.equal(network(x, t), network(x, t, null))
    assert not torch.allclose(network(x, t, null), network(x, t, torch.tensor([1, 2])), atol=1e-3)


def test_time_is_continuous_and_matters() -> None:
    network = perturbed(UNetConfig())
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).expand(3, -1, -1, -1)
    at, near, far = network(x, torch.tensor([500.0, 500.01, 510.0])).unbind()
    assert 0 < (at - near).abs().max() < 0.01
    assert (at - far).abs().max() > 10 * (at - near).abs().max()


def test_time_features_are_unit_vectors_in_pairs() -> None:
    features = time_features(torch.tensor([0.0, 123.4]), 8)
    assert torch.equal(features[0], torch.tensor([1.0] * 4 + [0.0] * 4))
    assert torch.allclose(features[:, :4] ** 2 + features[:, 4:] ** 2, torch.ones(2, 4))


def test_a_higher_frequency_tells_edms_times_apart() -> None:
    assert torch.allclose(time_features(torch.tensor([0.7]), 8, 100.0), time_features(torch.tensor([70.0]), 8))
    x, near = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0.3, 0.33])
    plain, high = (perturbed(UNetConfig(frequency=frequency)) for frequency in (1.0, 100.0))
    told = near * 100
    assert torch.allclose(high(x, near), plain(x, told), atol=1e-6)


def test_each_image_of_a_batch_is_independent_of_the_others() -> None:
    network = perturbed(UNetConfig())
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    t, label = torch.linspace(0, 999, 5), torch.arange(5)
    together = network(x, t, label)
    alone = torch.cat([network(x[i : i + 1], t[i : i + 1], label[i : i + 1]) for i in range(5)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_building_depends_on_the_seed_alone_and_leaves_the_global_generator() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = build(UNetConfig(), 1).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    again, other = build(UNetConfig(), 1).state_dict(), build(UNetConfig(), 2).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["enter.weight"], other["enter.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 9}, "size is 9, which cannot be halved 1 times"),
        ({"widths": (32, 50)}, "heads is 4; it has to divide"),
        ({"widths": (32, 10**9)}, r"widths\[1\] is 1000000000; it has to be a whole number from 8 to 4096"),
        ({"widths": ()}, r"len\(widths\) is 0"),
        ({"widths": "32"}, "widths is '32'"),
        ({"embedding": 65}, "embedding is 65; it has to be even"),
        ({"classes": 0}, "classes is 0"),
        ({"blocks": True}, "blocks is True"),
        ({"channels": 1.0}, "channels is 1.0"),
        ({"frequency": 0.5}, "frequency is 0.5; it has to be a number from 1 to 10,000"),
        ({"frequency": "1"}, "frequency is '1'"),
    ],
)
def test_a_config_out_of_range_is_refused_by_name(change: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        UNetConfig(**{"heads": 4, **change})


def test_a_config_survives_json_and_refuses_other_fields() -> None:
    config = UNetConfig(widths=(16, 24))
    for one in (config, UNetConfig(guidance=True), UNetConfig(frequency=100.0)):
        assert UNetConfig.from_json(one.to_json()) == one
    values = config.to_json()
    values["depth"] = values.pop("blocks")
    with pytest.raises(InvalidInput, match=r"lacks \['blocks'\] and has unknown \['depth'\]"):
        UNetConfig.from_json(values)


def test_inputs_of_another_shape_are_refused() -> None:
    network = build(UNetConfig(), 0)
    with pytest.raises(InvalidInput, match=r"takes x \(B, 1, 8, 8\) and t \(B,\)"):
        network(torch.zeros(2, 1, 16, 16), torch.zeros(2))
    with pytest.raises(InvalidInput, match=r"t \(1,\)"):
        network(torch.zeros(2, 1, 8, 8), torch.zeros(1))
