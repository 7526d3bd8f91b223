"""The tape: whatever a solver writes, the table that comes out computes the same numbers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep import schedules
from fewstep.core.check import levels
from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Recipe
from fewstep.core.tape import State, Tape
from proof.problems import played

EDM = schedules.edm()
TIMES = np.array([10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.0])


def recipe(tape):
    return Recipe(
        sampler="a test",
        options={},
        grid="times",
        grid_options={},
        steps=len(tape.points) - 1,
        times=tuple(p.t for p in tape.points),
        schedule=tape.schedule.spec,
        schedule_fingerprint=tape.schedule.fingerprint,
    )


def plan_of(solver, times=TIMES, schedule=EDM):
    tape = Tape(schedule, times)
    result = solver(tape)
    return tape.plan(result if isinstance(result, tuple) else (result,), recipe(tape))


def denoised(x, t):
    """Some denoiser that is not linear, so that a wrong input cannot give the right output."""
    return np.tanh(x + 0.3 * t) - 0.1 * t


def drawn(interval):
    seed = hash((interval.start, interval.end, interval.repeat)) % 2**32
    return np.random.default_rng(seed).standard_normal(3)


class Shadow:
    """A random solver: writes on the tape and computes with numbers side by side."""

    def __init__(self, data, tape):
        self.draw, self.tape = data.draw, tape
        self.start = np.random.default_rng(1).standard_normal(3)
        self.known = [(tape.start(), self.start)]
        self.inputs = []

    def combination(self):
        """A new state: some known ones with random factors, made in a random order of operations."""
        chosen = self.draw(st.lists(st.integers(0, len(self.known) - 1), max_size=4))
        state, value = State({}), np.zeros(3)
        for i in chosen:
            factor = self.draw(st.sampled_from([1.0, -1.0, 0.0, 0.5, -1.7, 3.0]))
            other, number = self.known[i]
            match self.draw(st.integers(0, 3)):
                case 0:
                    state, value = state + factor * other, value + factor * number
                case 1:
                    state, value = state - other * factor, value - number * factor
                case 2:
                    state, value = -(state - other / 4.0), -(value - number / 4.0)
                case _:
                    state, value = sum([state, other]), value + number
        self.known.append((state, value))
        return state, value

    def row(self, p, q):
        for _ in range(self.draw(st.integers(0, 2))):
            state, _ = self.combination()
            if self.draw(st.booleans()):
                assert self.tape.keep(state) is state
        x, number = self.draw(st.sampled_from(self.known)) if self.draw(st.booleans()) else self.combination()
        data, raw = self.tape.evaluate_raw(x, p)
        self.inputs.append(number)
        answer = denoised(number, p.t)
        self.known += [(data, answer), (raw, answer)]
        if self.draw(st.booleans()):
            z = self.tape.noise(p, q)
            self.known.append((z, drawn(next(reversed(self.tape._noise.values()))[1])))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_the_table_of_a_random_solver_computes_its_numbers(data):
    tape = Tape(EDM, TIMES[: data.draw(st.integers(2, len(TIMES)), label="points")])
    shadow = Shadow(data, tape)
    if data.draw(st.booleans(), label="noise before the first row"):
        z = tape.noise(tape.points[0], tape.points[1])
        shadow.known.append((z, drawn(tape._noise[-1][1])))
    for p, q in tape.steps():
        for _ in range(data.draw(st.integers(1, 2), label="rows")):
            if len(tape._rows) - 1 in tape._noise and data.draw(st.booleans()):
                break
            shadow.row(p, q)
    results = [shadow.combination() for _ in range(data.draw(st.integers(1, 2), label="results"))]
    if not shadow.inputs:
        return

    plan = tape.plan(tuple(state for state, _ in results), recipe(tape))

    seen = []

    def network(x, row):
        seen.append(x)
        return denoised(x, row.t)

    R = played(plan, shadow.start, network, drawn)
    assert plan.outputs == len(results)
    assert len(plan.rows) == len(shadow.inputs)
    for got, expected in zip([*seen, *R], [*shadow.inputs, *(number for _, number in results)], strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9 * max(1.0, float(np.abs(expected).max())))


def test_a_solver_as_in_the_docstring_is_eulers_method():
    def euler(tape):
        x = tape.start()
        for p, q in tape.steps():
            d = tape.evaluate(x, p)
            x = x + (q.sigma - p.sigma) * (x - d) / p.sigma
        return x

    plan = plan_of(euler, TIMES[:3])
    assert plan.registers == 1
    np.testing.assert_allclose(plan.A[:, 0, 0], [0.5, 0.4], rtol=1e-15)
    np.testing.assert_allclose(plan.B[:, 0, 0], [0.5, 0.6], rtol=1e-15)
    assert [row.label for row in plan.rows] == ["step 1", "step 2"]
    assert [row.t for row in plan.rows] == [10.0, 5.0]


def test_what_is_kept_takes_one_register_in_place_of_its_parts():
    def history(tape, keep):
        x, total = tape.start(), State({})
        for p, _ in tape.steps():
            total = total + tape.evaluate(x, p)
            if keep:
                tape.keep(total)
            x = 0.5 * x
        return x + total

    assert plan_of(lambda tape: history(tape, keep=True)).registers == 2
    assert plan_of(lambda tape: history(tape, keep=False)).registers == len(TIMES) - 1


def test_a_register_that_is_free_is_used_again():
    def solver(tape):
        x, old = tape.start(), None
        for p, q in tape.steps():
            data = tape.evaluate(x, p)
            x = q.sigma / p.sigma * x + 0.1 * data + (0.2 * old if old else State({}))
            old = data
        return x

    plan = plan_of(solver)
    assert plan.registers == 2
    assert len(plan.rows) == len(TIMES) - 1


def test_raw_and_projected_estimates_have_columns_of_their_own():
    def solver(tape):
        x = tape.start()
        for p, _ in tape.steps():
            data, raw = tape.evaluate_raw(x, p)
            x = x + 2.0 * data - 3.0 * raw
        return x

    plan = plan_of(solver, TIMES[:3])
    np.testing.assert_array_equal(plan.B[:, 0], [[2.0, -3.0]] * 2)
    assert plan.uses_raw
    assert not plan_of(lambda tape: tape.evaluate(tape.start(), tape.points[0]), TIMES[:2]).uses_raw


def test_noise_is_drawn_once_between_rows_and_only_where_it_is_used():
    def solver(tape):
        p, q, r = tape.points[:3]
        x = tape.start()
        x = tape.evaluate(x, p) + 2.0 * tape.noise(p, q)
        x = tape.evaluate(x, q) + 0.0 * tape.noise(q, r)
        with pytest.raises(InvalidInput, match="draws noise twice"):
            tape.noise(p, q)
        return x

    plan = plan_of(solver, TIMES[:3])
    assert [row.noise for row in plan.rows] == [(10.0, 5.0, 0), None]
    np.testing.assert_array_equal(plan.s, [[2.0], [0.0]])
    assert plan.stochastic


def test_noise_before_the_first_row_is_in_the_start():
    def solver(tape):
        p, q = tape.points[:2]
        x = tape.start() + 3.0 * tape.noise(q, p)
        return tape.evaluate(x, p)

    plan = plan_of(solver, TIMES[:2])
    assert plan.start_noise == (5.0, 10.0, 0)
    np.testing.assert_array_equal(plan.init, [[1.0, 3.0]])
    np.testing.assert_allclose(levels(plan)[1][0], math.hypot(10.0, 3.0))


def test_an_interval_that_is_crossed_again_has_noise_of_its_own():
    def solver(tape):
        p, q = tape.points[:2]
        x = tape.start()
        for _ in range(3):
            x = tape.evaluate(x, p) + tape.noise(p, q)
        return x

    assert [row.noise.repeat for row in plan_of(solver, TIMES[:2]).rows] == [0, 1, 2]


def test_labels_count_steps_and_stages_and_the_last_row_of_a_step_ends_it():
    def solver(tape):
        x = tape.start()
        for points in tape.steps([2, 1]):
            for p in points[:-1]:
                x = tape.evaluate(x, p)
        return x

    plan = plan_of(solver, TIMES[:4])
    assert [row.label for row in plan.rows] == ["step 1", "step 1 stage 2", "step 2"]
    assert [row.ends_step for row in plan.rows] == [False, True, True]


def test_a_pair_starts_from_two_states_and_ends_with_two():
    def solver(tape):
        x, y = tape.start(), tape.start()
        x, y = y, x + tape.evaluate(y, tape.points[1])
        return x, y

    plan = plan_of(solver, TIMES[:3])
    assert (plan.inputs, plan.outputs) == (2, 2)
    assert plan.companion == (1.0, 5.0)
    a, b = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    last, other = played(plan, (a, b), lambda x, row: 10 * x)
    np.testing.assert_array_equal(last, b)
    np.testing.assert_array_equal(other, a + 10 * b)


def test_one_state_can_be_both_results():
    def solver(tape):
        x = tape.evaluate(tape.start(), tape.points[0])
        return x, x

    plan = plan_of(solver, TIMES[:2])
    assert plan.outputs == 2
    last, other = played(plan, np.ones(1), lambda x, row: 7 * x)
    assert last[0] == other[0] == 7.0


def test_points_know_alpha_sigma_and_the_two_infinite_lambdas():
    tape = Tape(schedules.flow(), np.array([1.0, 0.5, 0.0]))
    assert [p.lam for p in tape.points] == [-math.inf, 0.0, math.inf]
    assert [p.ratio for p in tape.points] == [math.inf, 1.0, 0.0]
    assert tape.point_at_lambda(0.0).t == 0.5


def test_a_network_is_not_asked_where_there_is_no_noise():
    tape = Tape(EDM, TIMES)
    with pytest.raises(InvalidInput, match="sigma is 0"):
        tape.evaluate(tape.start(), tape.points[-1])


def test_a_solver_that_asks_for_nothing_is_refused():
    with pytest.raises(InvalidInput, match="made no network evaluation"):
        plan_of(lambda tape: tape.start())
