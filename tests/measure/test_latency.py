"""What a run costs, by a clock that the test holds."""

import pytest
import torch

from fewstep.core.errors import InvalidInput
from fewstep.measure import compare, cost, latency


class Clock:
    """Seconds that pass while the work is done and not otherwise."""

    def __init__(self, *durations):
        self.now, self.runs, self.durations = 100.0, 0, durations

    def __call__(self):
        return self.now

    def run(self):
        self.now += self.durations[self.runs % len(self.durations)]
        self.runs += 1


def test_the_median_leaves_the_first_runs_out():
    clock = Clock(50.0, 40.0, 30.0, 1.0, 2.0, 3.0, 2.0, 90.0)
    found = cost(clock.run, repeats=5, warmup=2, clock=clock)
    assert found.times == (1.0, 2.0, 3.0, 2.0, 90.0)
    assert found.seconds.value == 2.0
    assert 1.0 <= found.seconds.low < found.seconds.high <= 90.0
    assert (clock.runs, found.seconds.n, found.seconds.settings) == (8, 5, "device=cpu")


def test_every_timed_run_waits_for_the_device_on_both_sides(monkeypatch):
    clock, events = Clock(1.0), []
    monkeypatch.setattr(latency, "synchronize", lambda device: events.append(str(device)))

    def read():
        events.append("clock")
        return clock()

    cost(lambda: events.append("run") or clock.run(), repeats=3, warmup=0, clock=read)
    assert events == ["run", *["cpu", "clock", "run", "cpu", "clock"] * 3]


def test_the_difference_of_two_latencies_is_sure_where_they_do_not_overlap():
    slow, fast = (Clock(base, base + 0.1, base + 0.2) for base in (2.0, 1.0))
    figures = [cost(clock.run, repeats=9, clock=clock).seconds for clock in (slow, fast)]
    assert compare(*figures).sure
    assert compare(*figures).value == pytest.approx(1.0)
    other = cost(fast.run, repeats=8, clock=fast).seconds
    with pytest.raises(InvalidInput, match="their n are 9 and 8"):
        compare(figures[0], other)


def test_the_peak_of_memory_holds_what_the_run_held():
    found = cost(lambda: torch.ones(32 << 20).sum(), repeats=3, warmup=0)
    if found.peak_bytes is None:
        pytest.skip("this system does not count the peak of a process")
    assert found.memory == "resident"
    assert 120e6 < found.peak_bytes < 200e6  # 134 MB of float32


def test_a_system_that_does_not_count_says_so(monkeypatch):
    monkeypatch.setattr(latency, "_reset_peak", lambda: False)
    assert cost(lambda: None, repeats=3).peak_bytes is None


@pytest.mark.parametrize("options", [{"repeats": 2}, {"warmup": -1}])
def test_too_few_runs_are_refused(options):
    with pytest.raises(InvalidInput, match="repeats of at least 3 and warmup of at least 0"):
        cost(lambda: None, **options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_memory_is_that_of_the_tensors():
    found = cost(lambda: torch.ones(32 << 20, device="cuda").sum(), device="cuda", repeats=3)
    assert found.memory == "cuda"
    assert found.peak_bytes == pytest.approx(4 * (32 << 20), rel=0.1)
