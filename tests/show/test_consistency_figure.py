"""Figure 7: a consistency function."""

import json

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.show.consistency import LEVELS, TEACHER, consistency
from fewstep.show.data import content
from fewstep.show.draw import picture
from fewstep.show.mixture import Mixture, ring
from fewstep.show.students import exact_of, noise_of, states_at, weights_file

TWO = Mixture([[-2.0, 0.0], [2.0, 0.0]], [0.6, 0.6])


@pytest.fixture(scope="module")
def found():
    return consistency(TWO, steps=200, count=2, seed=1)


def test_the_path_is_exact_and_ends_where_it_says(found):
    assert found.path.shape == (LEVELS, 2, 2)
    velocity = (found.path[1] - found.path[0]) / (found.times[1] - found.times[0])
    assert np.abs(velocity).max() < 5
    assert np.abs(found.path[-1] - found.ends).max() < 0.15  # the last point has a twentieth of noise


def test_an_exact_state_is_of_the_flow_schedule():
    noise = noise_of(3, 0)
    exact = exact_of(Mixture([[1.0, -1.0]], [0.5]), noise)
    [half] = states_at(exact, [0.5])
    centre, deviation = torch.tensor([1.0, -1.0]), (0.5**2 * 0.5**2 + 0.5**2) ** 0.5
    torch.testing.assert_close(half, 0.5 * centre.double() + deviation * noise, atol=1e-6, rtol=0)


def test_the_teacher_knows_the_mean_alone_at_noise_and_the_end_at_data(found):
    teacher = found.answers[0]
    assert (teacher.name, teacher.steps) == (TEACHER, None)
    assert np.abs(teacher.points[0]).max() < 0.1
    assert teacher.errors[0] == pytest.approx(float((4 + 2 * 0.6**2) ** 0.5), rel=0.05)
    assert teacher.errors[-1] < 0.1


def test_a_student_is_nearer_at_noise_and_gets_nearer_while_it_trains(found):
    teacher, *student = found.answers
    assert [each.steps for each in student] == [66, 132, 198]
    assert [each.name for each in student] == ["after 66 steps", "after 132 steps", "after 198 steps"]
    assert student[-1].errors[0] < 0.5 * teacher.errors[0]
    assert student[-1].errors[0] < student[0].errors[0]


def test_the_student_that_is_kept_is_the_last_one_that_was_measured(found):
    x, t = torch.tensor(found.path[0], dtype=torch.float32), float(found.times[0])
    with torch.no_grad():
        estimate = x - t * found.student.network(x, torch.full((2,), t))
    np.testing.assert_allclose(estimate, found.answers[-1].points[0], atol=1e-5)


def test_the_finding_says_where_the_student_is_nearer_and_where_the_teacher(found):
    teacher, last = found.answers[0], found.answers[-1]
    words = f"student is {last.errors[0]:.2g} from the end of the path, the teacher's estimate {teacher.errors[0]:.2g}"
    farther = [t for t, a, b in zip(found.times, last.errors, teacher.errors, strict=True) if a > b]
    assert farther
    assert found.finding.endswith(f"{words}; from t = {max(farther):.2g} on the teacher is nearer")
    everywhere = found._replace(answers=[teacher, teacher._replace(errors=teacher.errors / 2)])
    assert everywhere.finding.endswith("it is nearer at all levels")


def test_document_and_table_hold_the_same_numbers(found):
    document = json.loads(content(found))
    columns, rows = found.table()
    assert columns == ["what", "training steps", "time", "error"]
    assert len(rows) == 4 * LEVELS
    assert rows[-1] == ["after 198 steps", 198, document["times"][-1], document["answers"][-1]["errors"][-1]]


def test_the_same_seed_writes_the_same_bytes_and_another_does_not():
    first, again, other = (consistency(ring(2), steps=20, count=2, seed=seed) for seed in (4, 4, 5))
    assert content(first) == content(again) != content(other)
    assert weights_file(first.students) == weights_file(again.students)
    assert picture(first) == picture(again)


@pytest.mark.parametrize("steps", [19, 100_001, 20.0, True])
def test_other_numbers_of_steps_are_refused(steps):
    with pytest.raises(fs.InvalidInput, match="training steps must be a whole number from 20 to 100,000"):
        consistency(TWO, steps=steps)


def test_students_are_of_the_plane():
    with pytest.raises(fs.InvalidInput, match="in 3 dimensions"):
        consistency(Mixture([[0.0, 0.0, 0.0]], [1.0]), steps=20)
