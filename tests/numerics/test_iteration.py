"""How much of a computation is done: steps whose number is a guess, loops inside them, convergence foreseen."""

import pytest
import torch

from invsr.app.progress import TimeLeft
from invsr.numerics.iteration import Steps, each, growing, split, steps_left, tell, whole, within
from invsr.numerics.linear import conjugate_gradient


class Told:
    def __init__(self):
        self.shares, self.figures = [], []

    def __call__(self, done, figures):
        self.shares.append(done)
        self.figures.append(figures)


def test_loops_inside_a_step_are_parts_of_it():
    told = Told()
    steps = Steps(told)
    for n in range(2):
        with steps.step(left=2 - n):
            for _ in each([0, 1]):
                for _ in each(range(2)):
                    pass
            with within(1.0, 1.0):
                tell(0.3)
        steps.tell({"n": n})
    distinct = sorted(set(told.shares))
    assert told.shares == sorted(told.shares) and distinct == [n / 8 for n in range(1, 9)]
    assert [one for one in told.figures if one] == [{"n": 0}, {"n": 1}]


def test_a_number_of_steps_that_changes_never_takes_back_what_is_done():
    told = Told()
    steps = Steps(told)
    for left in (4, 3, 9, 8, 2, 1):
        with steps.step(left):
            pass
        steps.tell({})
    assert told.shares == sorted(told.shares)
    assert told.shares[:2] == [0.25, 0.5] and told.shares[2] == pytest.approx(0.5 + 0.5 / 9) and told.shares[-1] == 1


def test_who_is_not_told_hears_nothing_of_what_is_inside():
    told = Told()
    with Steps(told).step(), Steps(None).step():
        for _ in each([0, 1, 2]):
            pass
    assert told.shares == []
    tell(0.5)  # nobody is there
    assert list(each([3, 4])) == [3, 4]


def test_an_error_inside_a_loop_leaves_nobody_behind():
    told = Told()
    kept = None
    with pytest.raises(ValueError, match="inside"), Steps(told).step():
        kept = each([0, 1])
        next(kept)
        raise ValueError("inside")
    kept.close()
    before = len(told.shares)
    tell(0.9)
    assert len(told.shares) == before


def test_a_whole_begins_at_nothing_ends_at_all_and_its_parts_grow():
    told = Told()
    with whole(told) as progress:
        first, second = split(progress, 0.25)
        first(1.0, {})
        second(0.0, {})
        second(0.5, {})
        second(0.1, {})
    assert told.shares == [0.0, 0.25, 0.25, 0.625, 0.625, 1.0]
    assert split(None, 0.5) == (None, None)
    growing(told)(2.0, {})
    assert told.shares[-1] == 1.0


@pytest.mark.parametrize(
    ("change", "usual"),
    [
        (lambda n: 0.3 * 0.5**n, 12),
        (lambda n: 0.3 * 0.8**n, 20),
        (lambda n: 0.3 * 0.9**n, 40),
        (lambda n: 0.02 / (n + 1), 15),
    ],
)
def test_time_left_of_an_iteration_that_converges(change, usual):
    """Each step takes a second and the change falls steadily: the estimate is near the truth from half the time on."""
    now, goal = 0.0, 1e-3
    left = TimeLeft(lambda: now)
    steps, changes = Steps(lambda done, _: left.tell(done)), []
    left.tell(0.0)
    estimates = []
    while not changes or changes[-1] > goal:
        with steps.step(steps_left(changes, goal, usual, most=200)):
            now += 1.0
            changes.append(change(len(changes)))
        steps.tell({})
        estimates.append(left.seconds())
    steps.finish()
    total = len(changes)
    assert 5 < total < 200 / 3  # far from the limit, which says nothing
    for n in range(total // 2, total):
        assert abs(estimates[n - 1] - (total - n)) <= 0.3 * (total - n) + 1.0
    assert left.seconds() == 0


def test_what_does_not_converge_takes_what_is_allowed():
    assert 16 < steps_left([1.0, 1.1, 1.2, 1.3], 1e-3, usual=20, most=50) < 46
    assert steps_left([1.0] * 30, 1e-3, usual=20, most=50) == 20
    assert steps_left([], 1e-3, usual=20, most=10) == 10
    assert steps_left([0.5, 0.0, float("inf")], 1e-3, usual=5, most=50) == 2
    assert steps_left([1.0] * 20, 1e-3, usual=20, most=50) == 30


def test_conjugate_gradients_tell_from_inside():
    told = Told()
    matrix = torch.diag(torch.linspace(1, 30, 30, dtype=torch.float64))
    with Steps(told).step():
        found = conjugate_gradient(lambda x: matrix @ x, torch.ones(30, dtype=torch.float64), rtol=1e-8)
    assert len(told.shares) == found.n_iter - 1 and told.shares == sorted(told.shares) and told.shares[-1] < 1
    assert told.shares[len(told.shares) // 2] > 0.25
