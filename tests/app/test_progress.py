"""Time left, with a clock that is set by hand, and what a bar shows."""

import pytest

from invsr.app.progress import Bar, TimeLeft, share_of_solving, time_in_words


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_time_left_of_equal_steps(clock):
    left = TimeLeft(clock)
    left.tell(0.0)
    assert left.seconds() is None
    for n in range(1, 11):
        clock.now += 3.0
        left.tell(n / 10)
        assert left.seconds() == pytest.approx(3.0 * (10 - n), abs=1e-6)
    assert left.seconds() == 0


def test_time_left_is_counted_down_between_steps(clock):
    left = TimeLeft(clock)
    left.tell(0.0)
    clock.now += 10
    left.tell(0.2)
    clock.now += 4
    assert left.seconds() == pytest.approx(36)
    left.tell(0.2)  # nothing new
    assert left.seconds() == pytest.approx(36)
    clock.now += 100
    assert left.seconds() == 0


def test_a_slower_stage_is_noticed(clock):
    left = TimeLeft(clock)
    for n in range(11):
        left.tell(0.05 * n)
        clock.now += 1
    for n in range(1, 11):
        clock.now += 5
        left.tell(0.5 + 0.02 * n)
    assert left.seconds() == pytest.approx(5 / 0.02 * 0.3, rel=0.05)


def test_time_in_words():
    assert [time_in_words(s) for s in (None, 0.2, 59.5, 61, 3600)] == [
        "",
        "0:01 left",
        "1:00 left",
        "1:01 left",
        "1:00:00 left",
    ]


def test_a_bar_names_its_parts_keeps_the_last_figures_and_never_goes_back():
    seen = []
    bar = Bar(lambda figures: f"chi2 {figures['chi2']}", lambda *one: seen.append(one))
    first = bar.part("tv", 0.0, 0.5)
    first(0.5, {"chi2": 2})
    first(0.4, {})
    bar.part("report", 0.5)
    assert seen == [("tv", 0.0), ("tv  chi2 2", 0.25), ("tv  chi2 2", 0.25), ("report", 0.5)]
    assert Bar(str).part("tv") is None


@pytest.mark.parametrize("method", ["cubic", "unrolled", "a method of one's own"])
def test_a_report_is_part_of_a_command(method):
    assert 0 < share_of_solving(method, report=True) < share_of_solving(method, report=False) < 1
