"""The error of a plan against the converged solution, on flows whose solution is known."""

import math

import pytest
import torch

import fewstep as fs
from fewstep.measure import Converged, compare, counted, trajectory_error

from .flows import gaussian, noise, plan, solution

SCHEDULE = fs.schedules.linear()
DENOISER = gaussian(SCHEDULE)


def solved(batch=6, **options):
    return Converged.solve(DENOISER, noise(batch, 5), schedule=SCHEDULE, **options)


@pytest.fixture(scope="module")
def reference():
    return solved(model="gaussian")


@pytest.mark.parametrize("schedule", [SCHEDULE, fs.schedules.edm(), fs.schedules.flow()], ids=lambda s: s.kind)
def test_the_reference_is_the_solution_and_bounds_its_own_error(schedule):
    z = noise(6, 5)
    known = Converged.solve(gaussian(schedule), z, schedule=schedule)
    exact = solution(schedule, z)
    actual = (known.solution - exact).square().mean(dim=1).sqrt()
    assert 1e-8 < float(known.error.max()) < 1e-2
    assert bool((actual <= known.error).all())


def test_rmse_and_psnr_are_those_to_the_exact_solution(reference):
    ours = plan("ddim", 20, SCHEDULE)
    found = trajectory_error(ours, DENOISER, reference)
    exact = solution(SCHEDULE, reference.noise)
    rmse = float((fs.sample(ours, DENOISER, noise=reference.noise) - exact).square().mean().sqrt())
    assert abs(found.rmse.value - rmse) < found.reference_error < rmse / 50
    assert found.resolved
    assert found.psnr.value == pytest.approx(20 * math.log10(2 / found.rmse.value))
    assert found.errors.square().mean().sqrt() == pytest.approx(found.rmse.value)
    wide = trajectory_error(ours, DENOISER, reference, value_range=(0.0, 20.0))
    assert wide.psnr.value == pytest.approx(found.psnr.value + 20)
    assert (found.rmse.better, found.psnr.better, found.nfe, found.rmse.n) == ("less", "more", 20, 6)


def test_the_intervals_are_those_of_drawing_images(reference):
    found = trajectory_error(plan("ddim", 20, SCHEDULE), DENOISER, reference)
    assert found.rmse.low < found.rmse.value < found.rmse.high
    assert found.psnr.low == pytest.approx(20 * math.log10(2 / found.rmse.high), abs=0.05)
    assert float(found.errors.min()) <= found.rmse.low < found.rmse.high <= float(found.errors.max())


def test_two_plans_from_the_same_noise_are_compared_in_pairs(reference):
    first, second = (trajectory_error(plan("ddim", n, SCHEDULE), DENOISER, reference).rmse for n in (20, 22))
    assert first.low < second.high  # apart, nothing could be said
    difference = compare(first, second)
    assert difference.sure
    assert 0 < difference.low < first.value - second.value < difference.high


def test_an_error_at_the_level_of_the_references_own_is_not_resolved():
    rough = solved(tolerance=1e-2)
    fine = trajectory_error(plan("rk4", 100, SCHEDULE, grid="exponential"), DENOISER, rough)
    assert not fine.resolved
    assert fine.rmse.value < fine.reference_error * 3


def test_a_reference_is_solved_from_the_noise_that_sample_draws():
    ours = plan("dpmpp-2m", 10, SCHEDULE)
    known = Converged.solve(DENOISER, (3, 4), schedule=SCHEDULE, seed=7)
    here = trajectory_error(ours, DENOISER, known)
    drawn = fs.sample(ours, DENOISER, shape=(3, 4), seed=7)
    assert float((drawn - known.solution).square().mean().sqrt()) == pytest.approx(here.rmse.value)


def test_batches_are_measured_as_one():
    ours, parts = plan("ddim", 10, SCHEDULE), noise(6, 5).split([2, 4])
    known = [Converged.solve(DENOISER, part, schedule=SCHEDULE) for part in parts]
    several = trajectory_error(ours, [DENOISER, DENOISER], known)
    whole = trajectory_error(ours, DENOISER, solved())
    assert several.rmse.n == 6
    assert several.nfe == 10
    assert several.rmse.value == pytest.approx(whole.rmse.value, rel=1e-3)
    with pytest.raises(fs.InvalidInput, match="one denoiser for each reference, got 1 for 2"):
        trajectory_error(ours, DENOISER, known)
    with pytest.raises(fs.InvalidInput, match="one denoiser for each reference, got 2 for 1"):
        trajectory_error(ours, [DENOISER, DENOISER], known[0])


def test_a_reference_reads_back_and_says_whose_it_is(reference, tmp_path):
    path = tmp_path / "reference.safetensors"
    reference.save(path)
    again = Converged.load(path)
    assert again.digest == reference.digest
    assert (again.model, again.solver, again.nfe, len(again)) == ("gaussian", reference.solver, reference.nfe, 6)
    ours = plan("ddim", 10, SCHEDULE)
    found = trajectory_error(ours, DENOISER, again, model="gaussian").rmse
    assert found == trajectory_error(ours, DENOISER, reference).rmse
    assert found.reference == reference.digest
    with pytest.raises(fs.InvalidInput, match="solved for the model 'gaussian', this is 'other'"):
        trajectory_error(ours, DENOISER, again, model="other")
    assert solved().digest != reference.digest  # it has no name


def test_a_damaged_reference_is_refused(reference, tmp_path):
    path = tmp_path / "reference.safetensors"
    reference.save(path)
    content = path.read_bytes()
    changed = bytearray(content)
    changed[-3] ^= 1
    for damaged in (bytes(changed), content[:-4], content.replace(b"gaussian", b"gaussiam")):
        path.write_bytes(damaged)
        with pytest.raises(fs.InvalidInput, match=r"reference\.safetensors"):
            Converged.load(path)


def test_plans_that_have_no_one_solution_are_refused(reference):
    for ours, message in (
        (plan("ddpm", 5, SCHEDULE), "ddpm draws noise on the way"),
        (plan("ddim", 5, fs.schedules.cosine()), "the reference was solved on"),
        (plan("ddim", 5, SCHEDULE, reverse=True), "from noise to clean data"),
    ):
        with pytest.raises(fs.InvalidInput, match=message):
            trajectory_error(ours, DENOISER, reference)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": (0, 3)}, "noise is a tensor, or its shape"),
        ({"noise": (3,)}, "noise is a tensor, or its shape"),
        ({"noise": torch.zeros(3)}, r"noise is a floating point tensor \(batch, \.\.\)"),
        ({"noise": (2, 3), "tolerance": 0.0}, "tolerance must be a finite number above zero"),
        ({"noise": (2, 3), "tolerance": 1e-9}, "still moved by .* doubled to .*: loosen the tolerance of 1e-09"),
        ({"noise": (2, 3), "most": 30}, "doubled once at least, so give at least 48, got 30"),
    ],
)
def test_references_that_cannot_be_solved_are_refused(options, message):
    with pytest.raises(fs.InvalidInput, match=message):
        Converged.solve(DENOISER, schedule=SCHEDULE, **options)
    with pytest.raises(fs.InvalidInput, match="give schedule="):
        Converged.solve(DENOISER, (2, 3))


def test_other_wrong_calls_say_what_to_do(reference):
    ours = plan("ddim", 5, SCHEDULE)
    with pytest.raises(fs.InvalidInput, match="value_range must be"):
        trajectory_error(ours, DENOISER, reference, value_range=(1.0, -1.0))
    with pytest.raises(fs.NonFinite):
        trajectory_error(ours, lambda x, t: x / 0, reference)


class Halved(fs.Denoiser):
    """A denoiser of the caller's own, without a network that can be seen."""

    schedule = SCHEDULE

    def output(self, x, level):
        return x / 2


def network(x, t, label):
    return x * 0.1 + label.reshape(-1, 1) * 0.01


BASE = fs.Network(network, SCHEDULE, "v_prediction")
CONDITION, EMPTY = {"label": torch.ones(4)}, {"label": torch.zeros(4)}


@pytest.mark.parametrize(
    ("denoiser", "evaluations"),
    [
        (DENOISER, 6),
        (Halved(), 6),
        (fs.clip(Halved()), 6),
        (BASE.given(CONDITION), 6),
        (fs.Guided(BASE, CONDITION, EMPTY, 3.0), 12),
        (fs.Guided(BASE, CONDITION, EMPTY, 1.0), 6),
        (fs.clip(fs.Guided(BASE, CONDITION, EMPTY, [1.0, 1.0, 1.0, 3.0])), 7.5),
        (
            fs.Guided(
                BASE, CONDITION, None, 2.0, method="autoguidance", weaker=fs.Network(network, SCHEDULE, condition=EMPTY)
            ),
            12,
        ),
        (fs.OnSchedule(fs.Guided(BASE, CONDITION, EMPTY, 2.0), SCHEDULE), 12),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, float | int) else str(value),
)
def test_evaluations_are_counted_at_the_networks_and_the_images_stay_the_same(denoiser, evaluations):
    ours, z = plan("dpmpp-2m", 6, SCHEDULE), torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    own, count = counted(denoiser)
    assert torch.equal(fs.sample(ours, own, noise=z), fs.sample(ours, denoiser, noise=z))
    assert count.images == 4 * evaluations
