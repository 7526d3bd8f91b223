"""Drawing: what is counted, what is refused, and that the same recipe gives the same pixels."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.drawing import read
from fewstep.pipeline import LostImages, Pipeline, load
from models.by_hand import base, fitted
from models.tiny import CLASSES, LOST, broken, write


def test_without_labels_one_image_of_each_class_is_drawn(pipe: Pipeline) -> None:
    images = pipe(steps=2)
    assert images.subjects == (0, 1, 2)
    assert images.tensor.shape == (3, 1, 4, 4)
    assert images.tensor.dtype == torch.float32


def test_the_result_is_that_of_the_core_api(pipe: Pipeline) -> None:
    images = pipe([0, 2], sampler="ddim", steps=5, grid="karras", guidance=3.0, seed=11)
    plan = fs.compile("ddim", schedule=pipe.model.schedule, steps=5, grid="karras")
    network, null = base(pipe), torch.full((2,), CLASSES)
    denoiser = fs.Guided(network, {"label": torch.tensor([0, 2])}, {"label": null}, 3.0)
    assert torch.equal(images.tensor, fs.sample(plan, denoiser, shape=(2, 1, 4, 4), seed=11))


def test_the_denoiser_of_the_pipeline_is_what_it_draws_with(pipe: Pipeline) -> None:
    guidance = fs.Guidance(2.5, interval=(0.2, 5.0), rescale=0.5)
    settings: dict[str, Any] = {"guidance": guidance, "negative": 1, "estimate": fs.Estimate(clip=True)}
    plan = pipe.plan("dpmpp-2m", steps=4)
    by_hand = fs.sample(plan, pipe.denoiser([0, None], plan=plan, **settings), shape=(2, 1, 4, 4), seed=3)
    assert torch.equal(pipe([0, None], sampler=plan, seed=3, **settings).tensor, by_hand)


@pytest.mark.parametrize(
    ("settings", "nfe"),
    [
        ({"sampler": "ddim", "guidance": 1.0}, 6),
        ({"sampler": "ddim", "guidance": 2.0}, 12),
        ({"sampler": "heun", "guidance": 1.0}, 11),
        ({"sampler": "ddim", "guidance": 2.0, "negative": 0}, 10),  # one of three images is its own negative
        ({"sampler": "ddim", "guidance": 2.0, "batch": 2}, 12),
    ],
)
def test_network_evaluations_are_counted(pipe: Pipeline, settings: dict, nfe: float) -> None:
    assert pipe([0, 1, 2], steps=6, **settings).nfe == pytest.approx(nfe)


def test_an_image_depends_on_its_own_seed_and_label_alone(pipe: Pipeline) -> None:
    together = pipe([0, 1, 2, 1], seed=[5, 9, 5, 7], steps=4)
    alone = pipe(1, seed=9, steps=4)
    assert torch.allclose(together.tensor[1:2], alone.tensor, atol=1e-5)
    assert not torch.allclose(together.tensor[0], together.tensor[2], atol=1e-2)
    counted = pipe([0, 1, 2], seed=20, steps=4)
    listed = pipe([0, 1, 2], seed=[20, 21, 22], steps=4)
    assert torch.equal(counted.tensor, listed.tensor)


def test_labels_may_be_a_tensor(pipe: Pipeline) -> None:
    assert torch.equal(pipe(torch.tensor([2, 0]), steps=2).tensor, pipe([2, 0], steps=2).tensor)


def test_guidance_that_acts_in_no_row_is_told(pipe: Pipeline) -> None:
    with pytest.warns(UserWarning, match="act in no row of this plan"):
        images = pipe([0, 1, 2], sampler="ddim", steps=6, guidance=fs.Guidance(2.0, interval=(0.0, 1e-9)))
    assert images.nfe == 6


def test_a_negative_label_changes_the_image_and_is_refused_where_it_cannot(pipe: Pipeline) -> None:
    plain, against = pipe([0], steps=4), pipe([0], steps=4, negative=1)
    assert not torch.allclose(plain.tensor, against.tensor, atol=1e-3)
    with pytest.raises(fs.InvalidInput, match="cannot act at guidance scale 1"):
        pipe([0], steps=4, guidance=1.0, negative=1)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"sampling": fs.Sampling("ddim", steps=5, grid="karras", eta=1.0), "guidance": 1.0},
        {"sampler": "edm", "steps": 3, "grid": "karras", "sampling": {"grid_options": {"rho": 5.0, "bias": 0.5}}},
        {"negative": 1, "guidance": {"interval": (0.3, 4.0), "rescale": 0.4}, "estimate": {"clip": True}},
        {"sampling": {"times": [999.0, 400.5, -1.0]}},
        {"sampling": {"sigmas": [100.0, 1.0, 0.0]}},
        {"seed": [4, 2**63, 0, 4, 5], "batch": 2},
    ],
)
def test_a_saved_picture_is_drawn_again_to_the_same_pixels(pipe: Pipeline, tmp_path: Path, settings: dict) -> None:
    images = pipe([0, 1, None, 2, 0], **settings)
    stamp = read(images.save(tmp_path / "x.png"))
    again = pipe.redraw(stamp)
    assert torch.equal(again.tensor, images.tensor)
    assert again.digest == stamp.made.pixels == images.digest
    assert again.drawing == images.drawing == stamp.drawing
    assert again.made == images.made == stamp.made.but(pixels=None)


def test_an_image_of_its_own_is_drawn_again_with_the_batch_it_came_from(pipe: Pipeline, tmp_path: Path) -> None:
    images = pipe([0, 1, 2, 0, 1], batch=2, seed=8, steps=3)
    paths = images.save_each(tmp_path / "each", scale=2)
    assert [path.name for path in paths][:2] == ["0000-label0.png", "0001-label1.png"]
    for i in (0, 3, 4):
        again = pipe.redraw(read(paths[i]))
        assert torch.equal(again.tensor, images.tensor[i : i + 1])
        assert again.subjects == (images.subjects[i],)


def test_only_the_batches_that_are_needed_are_drawn_again(pipe: Pipeline) -> None:
    rows = []
    one = pipe([0, 1, 2, 0, 1], batch=2, steps=3)[3]
    pipe.redraw(one, on_row=lambda p: rows.append((p.index, p.rows)))
    assert rows == [(0, 3), (1, 3), (2, 3)]


def test_a_plan_that_its_recipe_does_not_give_is_kept_as_a_whole(pipe: Pipeline, tmp_path: Path) -> None:
    plan = fitted(pipe.plan("dpmpp-2m", steps=4))
    images = pipe([1, 2], sampler=plan)
    assert not torch.allclose(images.tensor, pipe([1, 2], sampler="dpmpp-2m", steps=4).tensor, atol=1e-4)
    stamp = read(images.save(tmp_path / "x.png"))
    assert stamp.drawing.sampling.compile(pipe.model.schedule) == plan
    assert torch.equal(pipe.redraw(stamp).tensor, images.tensor)


def test_a_plan_too_long_to_keep_is_asked_for(pipe: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewstep.drawing.sampling.TABLE_LIMIT", 10)
    plan = fitted(pipe.plan("dpmpp-2m", steps=4))
    images = pipe([1], sampler=plan)
    stamp = read(images.save(tmp_path / "x.png"))
    assert stamp.drawing.sampling == fs.Sampling(plan=plan.digest)
    with pytest.raises(fs.InvalidInput, match=rf"{plan.digest} was too long to be kept.*give its file"):
        pipe.redraw(stamp)
    with pytest.raises(fs.InvalidInput, match=f"drawn with the plan {plan.digest}, the given one is"):
        pipe.redraw(stamp, plan=fitted(pipe.plan("dpmpp-2m", steps=4), 1.02))
    assert torch.equal(pipe.redraw(stamp, plan=plan).tensor, images.tensor)


def test_another_model_refuses_the_recipe_and_names_both_digests(pipe: Pipeline, tmp_path: Path) -> None:
    other = load(write(tmp_path / "other.safetensors", seed=1))
    picture = pipe([0], steps=2)
    with pytest.raises(
        fs.InvalidInput, match=f"'tiny' with digest {pipe.model.digest}, this is 'other' with .*{other.model.digest}"
    ):
        other.redraw(picture)


def test_finished_images_survive_when_others_are_not_finite(tmp_path: Path) -> None:
    pipe = load(broken(tmp_path / "broken.safetensors"))
    with pytest.raises(
        LostImages, match=r"2 of 5 images are NaN or infinite, first at row 0 of 3 \(step 1\)"
    ) as caught:
        pipe([0, LOST, 1, LOST, 0], steps=3, batch=2, seed=4)
    error = caught.value
    assert (error.images, error.row, error.label) == ([1, 3], 0, "step 1")
    assert isinstance(error, fs.NonFinite)
    assert error.finished is not None
    assert error.finished.subjects == (0, 1, 0)
    assert torch.isfinite(error.finished.tensor).all()
    assert torch.equal(error.finished.tensor, error.result[[0, 2, 4]])
    again = pipe.redraw(read(error.finished.save(tmp_path / "x.png")))
    assert torch.equal(again.tensor, error.finished.tensor)


def test_a_failed_run_does_not_count_the_search_for_its_row(tmp_path: Path) -> None:
    pipe = load(broken(tmp_path / "broken.safetensors"))
    with pytest.raises(LostImages) as caught:
        pipe([0, LOST], steps=3, guidance=1.0)
    assert caught.value.everything.nfe == 3


def test_all_images_lost_leaves_nothing_finished(tmp_path: Path) -> None:
    pipe = load(broken(tmp_path / "broken.safetensors", everything=True))
    with pytest.raises(LostImages, match="2 of 2 images") as caught:
        pipe([0, 1], steps=3)
    assert caught.value.finished is None


def test_progress_counts_over_all_batches_and_can_cancel(pipe: Pipeline) -> None:
    seen = []
    pipe([0] * 5, batch=2, steps=4, on_row=lambda p: seen.append((p.index, p.rows)))
    assert seen == [(i, 12) for i in range(12)]
    with pytest.raises(fs.Cancelled, match="after 6 of 12") as caught:
        pipe([0] * 5, batch=2, steps=4, on_row=lambda p: p.index == 5)
    assert caught.value.preview.shape == (2, 1, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subjects": [3]}, "tiny has no label 3: known are 0 to 2"),
        ({"subjects": [True]}, r"labels\.0 has to be a valid integer, got True"),
        ({"subjects": ["1"]}, r"labels\.0 has to be a valid integer, got '1'"),
        ({"subjects": []}, "there are no labels: give at least one"),
        ({"negative": -1}, r"negative\.0 has to be greater than or equal to 0, got -1"),
        ({"seed": [1, 2]}, "one for each of the 3 images, got 2"),
        ({"seed": -1}, "seed has to be greater than or equal to 0, got -1"),
        ({"seed": 1.5}, "seed has to be a valid integer, got 1.5"),
        ({"batch": 0}, "batch must be a whole number from 1 to 1024, got 0"),
        ({"guidance": math.nan}, r"guidance\.scale has to be a finite number, got nan"),
        ({"guidance": "2"}, r"guidance\.scale has to be a valid number, got '2'"),
        ({"guidance": {"rescale": 1.5}}, r"rescale must lie in \[0, 1\]"),
        ({"guidance": {"interval": (3.0, 2.0)}}, r"guidance\.interval: it needs 0 <= low < high"),
        ({"sampler": "dimm"}, "unknown sampler 'dimm': did you mean 'ddim'"),
        ({"grid": "karas"}, "did you mean 'karras'"),
        ({"steps": 0}, "steps has to be greater than or equal to 1, got 0"),
        (
            {"steps": 4, "sampling": {"times": [999.0, -1.0]}},
            "exactly one of steps, times and sigmas, got steps and times",
        ),
        ({"grid": "karras", "sampling": {"times": [999.0, -1.0]}}, "leave out the grid and its options"),
        ({"sampler": "ddim", "sampling": {"options": {"eta": "x"}}}, "eta must be of type float, got 'x'"),
        ({"sampler": "ddim", "sampling": {"options": {"et": 1}}}, "did you mean 'eta'"),
        (
            {"sampler": "ddim", "sampling": {"options": {"steps": 3}}},
            "steps is not an option of ddim, but a field of its own",
        ),
        ({"decode": {"tiled": True}}, "tiny draws pixels, which no VAE decodes in tiles: leave tiled out"),
        ({"subjects": [0] * 10_001}, "labels has to have at most 10000 items"),
    ],
)
def test_a_wrong_argument_is_named(pipe: Pipeline, arguments: dict, message: str) -> None:
    with pytest.raises(fs.InvalidInput, match=message):
        pipe(**{"subjects": [0, 1, 2], **arguments})


def test_a_plan_decides_steps_and_grid(pipe: Pipeline) -> None:
    with pytest.raises(fs.InvalidInput, match="the plan already decides steps, grid"):
        pipe([0], sampler=pipe.plan(steps=3), steps=3, grid="karras")


def test_a_plan_for_another_schedule_is_refused(pipe: Pipeline) -> None:
    with pytest.raises(fs.InvalidInput, match="compiled for the noise schedule 'cosine'"):
        pipe([0], sampler=fs.compile("ddim", schedule=fs.schedules.cosine(), steps=3))


def test_an_unknown_model_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(fs.InvalidInput, match=r"unknown model 'digit': did you mean 'digits'.*path of a \.safetensors"):
        load("digit")
    with pytest.raises(FileNotFoundError, match="no file at"):
        load(tmp_path / "absent.safetensors")


def test_the_shipped_model_loads_by_name_and_draws_digits() -> None:
    pipe = load("digits")
    assert (len(pipe.model.conditioner.subjects), pipe.state_shape(), pipe.model.prediction) == (
        10,
        (1, 8, 8),
        "v_prediction",
    )
    images = pipe()
    ink = images.pixels.reshape(10, 8, 8).astype(float)
    # The middle column of a handwritten 1 is full of ink, and that of a 0 is empty in the middle.
    assert ink[1][:, 3:5].mean() > 2 * np.delete(ink[1], [3, 4], axis=1).mean()
    assert ink[0][3:5, 3:5].mean() < 0.5 * ink[0].max()


def test_the_default_sampler_is_near_the_converged_digits() -> None:
    pipe = load("digits")
    labels = list(range(10))
    default, converged = pipe(labels), pipe(labels, sampler="rk4", grid="karras", steps=50)
    assert float((default.tensor - converged.tensor).square().mean().sqrt()) < 0.04


def test_threads_share_a_pipeline(pipe: Pipeline) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def work(seed: int) -> tuple[torch.Tensor, float]:
        images = pipe([0, 1], seed=seed, steps=4)
        return images.tensor, images.nfe

    serial = [work(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(work, range(8)))
    assert all(torch.equal(a, b) and n == m == 8 for (a, n), (b, m) in zip(serial, parallel, strict=True))


def test_a_plan_tuned_with_guidance_by_row_is_drawn_with_it(pipe: Pipeline) -> None:
    plan = fitted(pipe.plan("unipc-2", steps=3), factors=[0.5, 1.0, 1.5])
    images = pipe([0, 2], sampler=plan, guidance=3.0, seed=11)
    network = base(pipe)
    by_row = fs.GuidanceSchedule.rows([2.0, 3.0, 4.0])
    null = {"label": torch.full((2,), CLASSES)}
    denoiser = fs.Guided(network, {"label": torch.tensor([0, 2])}, null, by_row)
    assert torch.equal(images.tensor, fs.sample(plan, denoiser, shape=(2, 1, 4, 4), seed=11))
    own = pipe.denoiser([0, 2], guidance=3.0, plan=plan)
    assert torch.equal(images.tensor, fs.sample(plan, own, shape=(2, 1, 4, 4), seed=11))
    assert torch.equal(pipe.redraw(images).tensor, images.tensor)
    with pytest.raises(fs.InvalidInput, match="was tuned with guidance by row"):
        pipe([0], sampler=plan, guidance={"method": "apg"})
