"""Summaries of images, the features they are made of, and what figures say of them."""

import math

import pytest
import torch
from torch import nn

from fewstep.core.errors import InvalidInput
from fewstep.measure.features import FunctionFeatures, PixelFeatures
from fewstep.measure.figure import Bootstrap, Figure, compare, resampling
from fewstep.measure.frechet import frechet_distance
from fewstep.measure.summary import Summary

from .sets import gaussian, summed


def images(n, seed=0, size=3):
    return torch.randn(n, 1, size, size, generator=torch.Generator().manual_seed(seed)) / 2


PIXELS = PixelFeatures((1, 3, 3))


def of(x, *sizes, features=PIXELS, **options):
    summary = Summary(features, **options)
    for part in x.split(list(sizes) or len(x)):
        summary.update(part)
    return summary


def test_a_summary_names_its_images_whatever_their_batches_and_order():
    x = images(40)
    base = of(x)
    assert base.n == 40
    assert of(x, 1, 30, 9).digest == base.digest == of(x.flip(0)).digest
    assert of(x[:39]).digest != base.digest
    assert of(torch.cat([x, x[:1]])).digest != base.digest
    assert of(x, features=FunctionFeatures(lambda x: x.flatten(1), PIXELS.name, 9, "2")).digest != base.digest


def test_workers_merge_into_the_summary_of_one():
    x, y = images(60), images(50, 9)
    whole, first, second = of(x), of(x[:25]), of(x[25:], seed=1)
    first.merge(second)
    assert first.digest == whole.digest
    real = of(y)
    assert frechet_distance(first, real).value == pytest.approx(frechet_distance(whole, real).value, rel=1e-11)
    with pytest.raises(InvalidInput, match="two workers have drawn with seed 1"):
        first.merge(of(x, seed=1))
    assert first.n == 60
    with pytest.raises(InvalidInput, match=r"different features, 'pixels 1x3x3' .* and 'test'"):
        first.merge(summed(gaussian(20, 9, 0), seed=3))


def test_a_summary_reads_back_from_its_file(tmp_path):
    x, real = of(images(60), keep=30), of(images(50, 9))
    real.save(tmp_path / "real.safetensors")
    again = Summary.load(tmp_path / "real.safetensors")
    assert again.digest == real.digest
    assert frechet_distance(x, again) == frechet_distance(x, real)
    with pytest.raises(InvalidInput, match="not added to"):
        again.update_features(torch.zeros(1, 9))
    assert again.n == 50
    x.save(tmp_path / "x.safetensors")
    more = of(images(5), keep=30, seed=4)
    more.merge(Summary.load(tmp_path / "x.safetensors"))
    assert more.n == 65


def test_files_that_are_no_summary_are_refused(tmp_path):
    path = tmp_path / "real.safetensors"
    with pytest.raises(FileNotFoundError):
        Summary.load(path)
    of(images(20)).save(path)
    content = path.read_bytes()
    for damaged in (content[:-9], b"", b"{}", content.replace(b"feature summary", b"feature symmary")):
        path.write_bytes(damaged)
        with pytest.raises(InvalidInput, match=r"real\.safetensors"):
            Summary.load(path)


def test_values_beyond_the_range_count_as_its_ends():
    x = images(20) * 4
    assert of(x).digest == of(x.clamp(-1, 1)).digest
    assert float(of(x).rows.abs().max()) == 1


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 3, 3), "batch, channels, height, width"),
        (torch.zeros(2, 1, 3, 3, dtype=torch.uint8), "floating point"),
        (torch.full((2, 1, 3, 3), math.nan), "NaN or infinity have no features"),
        (torch.zeros(2, 3, 3, 3), r"given images of shape \(3, 3, 3\)"),
    ],
)
def test_what_is_no_image_is_refused(x, message):
    with pytest.raises(InvalidInput, match=message):
        Summary(PIXELS).update(x)


def test_features_that_break_their_word_are_refused():
    x = images(4)
    for function, message in (
        (lambda x: x.flatten(1)[:, :5], "width 5 where 9 were expected"),
        (lambda x: x.flatten(1)[:2], "made 2 rows of 4 images"),
        (lambda x: x.flatten(1) / 0, "hold NaN or infinity"),
    ):
        with pytest.raises(InvalidInput, match=message):
            Summary(FunctionFeatures(function, "f", 9, "1")).update(x)
    with pytest.raises(InvalidInput, match="need digest="):
        FunctionFeatures(lambda x: x, "f", 9)
    with pytest.raises(InvalidInput, match="a function does not: wrap a callable in FunctionFeatures"):
        Summary(lambda x: x)
    with pytest.raises(InvalidInput, match="knows only the id"):
        summed(gaussian(5, 9, 0)).update(x)


def test_the_digest_of_a_module_is_that_of_its_weights():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(9, 4), nn.BatchNorm1d(4)).eval()
    first = FunctionFeatures(module, "net", 4)
    assert FunctionFeatures(module, "other name", 4).digest == first.digest
    assert of(images(6), features=first).rows.shape == (6, 4)
    with torch.no_grad():
        module[1].weight[0, 0] += 1e-6
    assert FunctionFeatures(module, "net", 4).digest != first.digest


def test_figures_of_unlike_things_refuse_to_be_compared():
    real, x = summed(gaussian(60, 4, 0)), gaussian(50, 4, 1, 1.2)
    base = frechet_distance(summed(x), real)
    assert compare(base, base) == (0, 0, 0, False)
    other = {
        r"their n are 50 and 49. .* equally many images": frechet_distance(summed(x[:49]), real),
        "other weights": frechet_distance(summed(x, digest="2"), summed(gaussian(60, 4, 0), digest="2")),
        "their features are 'test' and 'b'": frechet_distance(summed(x, "b"), summed(gaussian(60, 4, 0), "b")),
        "same reference": frechet_distance(summed(x), summed(gaussian(60, 4, 5))),
        "500 and 100 bootstrap replicates": frechet_distance(summed(x), real, bootstrap=Bootstrap(100)),
        "their confidence": frechet_distance(summed(x), real, bootstrap=Bootstrap(confidence=0.9)),
    }
    for message, figure in other.items():
        with pytest.raises(InvalidInput, match=message):
            compare(base, figure)


def test_the_difference_of_two_figures_is_sure_where_it_is_large():
    real = summed(gaussian(3000, 4, 0))
    good, alike, bad = (
        frechet_distance(summed(gaussian(800, 4, seed, scale)), real) for seed, scale in ((1, 1.0), (2, 1.0), (3, 1.4))
    )
    assert not compare(good, alike).sure
    worse = compare(bad, good)
    assert worse.sure
    assert worse.low < worse.value == bad.value - good.value < worse.high


def test_a_figure_reads_back_from_json_and_prints_itself():
    figure = frechet_distance(summed(gaussian(50, 4, 1)), summed(gaussian(60, 4, 0)))
    assert Figure.from_json(figure.to_json()) == figure
    assert str(figure).startswith(f"frechet distance {figure.value:.4g} [")
    with pytest.raises(InvalidInput, match=r"unknown \['more'\]"):
        Figure.from_json({**figure.to_json(), "more": 1})


def test_bootstrap_weights_are_seeded_shares():
    weights = resampling(50, 100, 3)
    assert torch.equal(weights, resampling(50, 100, 3))
    assert not torch.equal(weights, resampling(50, 100, 4))
    assert torch.allclose(weights.sum(1), torch.ones(100, dtype=torch.float64))
    assert float((weights * 50).var()) == pytest.approx(1 - 1 / 50, rel=0.1)
    for bad in ({"replicates": 19}, {"confidence": 1.0}, {"confidence": 0.2}):
        with pytest.raises(InvalidInput, match=next(iter(bad))):
            frechet_distance(summed(gaussian(50, 4, 1)), summed(gaussian(60, 4, 0)), bootstrap=Bootstrap(**bad))
