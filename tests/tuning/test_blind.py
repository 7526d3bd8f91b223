"""A search without gradients: to the optimum of brute force, of an imperfect student whose pictures are known."""

import numpy as np
import pytest

import fewstep as fs
from fewstep.tuning import blind
from fewstep.tuning.blind import BlindSearch
from fewstep.tuning.family import PARTS, Family
from fewstep.tuning.renoised import renoised_of

from .gaussian_student import SCHEDULE, distance, in_two_rows, own

TIMES, SHARES = np.linspace(5, 995, 991)[:, None], np.linspace(0, 1, 101)[None, :]


def family_of(plan: fs.Plan, *free: str) -> Family:
    found = renoised_of(plan)
    assert found is not None
    return Family(found, SCHEDULE, frozenset(free))


def hunt(plan: fs.Plan, *free: str, most: int = 100, **more) -> BlindSearch:
    found = BlindSearch(family_of(plan, *free), plan, more.pop("score", distance), 64, most, **more)
    found.run()
    return found


@pytest.fixture(scope="module")
def by_force() -> np.ndarray:
    """(991, 101) distances of two rows, by times of the second and fresh noise before it."""
    return in_two_rows(*np.broadcast_arrays(TIMES, SHARES))


def test_the_distance_by_a_plans_table_is_the_one_by_hand() -> None:
    for sampler, fresh in (("consistency", 1.0), ("ddim", 0.0)):
        by_hand = in_two_rows(np.array([499.0]), np.array([fresh]))[0]
        assert distance(own(2, sampler)) == pytest.approx(by_hand, rel=1e-9)


def test_times_and_fresh_noise_reach_the_optimum_of_brute_force(by_force: np.ndarray) -> None:
    best = by_force.min()
    found = hunt(own(2), "gaps", "fresh", seed=1)
    assert distance(own(2)) > 15 * best
    assert by_force[:, [0, -1]].min() > 1.3 * best  # neither DDIM nor all noise anew is the best
    assert best * 0.98 < found.best[0].value < best * 1.03
    numbers = found.family.numbers(found.best[0].point)
    place = np.unravel_index(by_force.argmin(), by_force.shape)
    assert abs(numbers.times[1] - TIMES[place[0], 0]) < 15
    assert abs(numbers.fresh[0] - SHARES[0, place[1]]) < 0.05


def test_a_search_that_leaves_fresh_noise_as_it_is_does_not_reach_it(by_force: np.ndarray) -> None:
    found = hunt(own(2), "gaps")
    assert found.best[0].value == pytest.approx(by_force[:, -1].min(), rel=0.01)
    assert found.best[0].value > 5 * by_force.min()


def test_a_search_with_the_wrong_sign_ends_at_a_worse_plan(by_force: np.ndarray) -> None:
    found = hunt(own(2), "gaps", "fresh", score=lambda plan, images: -distance(plan))
    assert distance(found.best[0].plan) > distance(own(2)) > 15 * by_force.min()


@pytest.mark.parametrize("sampler", ["consistency", "ddim"])
def test_four_rows_gain_by_all_parts_together_and_the_own_plan_is_tried_first(sampler: str) -> None:
    tried: list[fs.Plan] = []

    def score(plan: fs.Plan, images: int) -> float:
        tried.append(plan)
        return distance(plan)

    found = hunt(own(4, sampler), *PARTS, most=120, score=score)
    assert tried[0] == own(4, sampler)
    assert found.best[0].value < 0.1 * distance(own(4, sampler))
    assert found.tried == len(tried) - 1


def test_the_same_seed_finds_the_same_plan_and_another_seed_another() -> None:
    found = [hunt(own(3), *PARTS, most=20, seed=seed).best[0].plan for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_the_time_ends_it_with_what_it_has() -> None:
    asked: list[float] = []

    def enough(part: float) -> bool:
        asked.append(part)
        return len(asked) > 6

    found = hunt(own(3), *PARTS, enough=enough)
    assert (found.tried, found.cut) == (6, True)
    none = hunt(own(3), *PARTS, enough=lambda part: True)
    assert (none.tried, none.cut, none.best[0].plan) == (0, True, own(3))


def test_an_own_plan_that_loses_pictures_is_refused() -> None:
    with pytest.raises(fs.InvalidInput, match="own plan gives images that are not finite"):
        hunt(own(2), "gaps", score=lambda plan, images: float("inf"))


def test_fewer_images_come_first_and_the_best_are_tried_on_all() -> None:
    seen: list[int] = []

    def score(plan: fs.Plan, images: int) -> float:
        seen.append(images)
        return distance(plan)

    hunt(own(2), "gaps", "fresh", most=0, score=score)
    few = blind.RANDOM + 5
    assert seen == [64, *[16] * few, *[64] * round(few / blind.KEPT)]


def test_the_evolution_is_told_of_points_that_are_none_and_leaves_other_draws_alone() -> None:
    """Down Rosenbrock's valley, which steps along the axes alone hardly go, though one point of each round is lost."""

    def valley(x: np.ndarray) -> float:
        return float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())

    def walked() -> np.ndarray:
        strategy, calls = blind.evolution(np.zeros(4), 0.5, 0), 0
        while not strategy.stop() and calls < 4000:
            points = strategy.ask()
            strategy.tell(points, [float("inf"), *map(valley, points[1:])])
            calls += len(points)
        return strategy.mean

    state = np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    found = walked()
    assert np.allclose(found, 1, atol=0.01)
    assert (walked() == found).all()
    assert (np.random.get_state()[1] == state).all()  # type: ignore[index]  # noqa: NPY002
