"""The benchmark: its figures against known ones, what it refuses, and that the page has its lines."""

import itertools
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import clr
from tests.frameworks import dynamo_may_warn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what the peers use
    from benchmarks import __main__ as benchmark
    from benchmarks import accuracy, cost, once, timing
    from benchmarks.timing import Pair, alike, ratio, timed

# What the extra `bench` brings beside `dev`, and the name of its lines.
EXTRA = {
    "lrsched": "lrsched",
    "transformers": "transformers",
    "pytorch_scheduler": "pytorch-scheduler",
    "catalyst": "catalyst",
    "lightning": "Lightning",
}
MEDIANS = [f"{title}, medians of {rounds} rounds" for title, (_, rounds) in benchmark.TIMED.items()]
HEADINGS = ["clr", "---", *(f"**{title}**" for title in (benchmark.EXACT, *MEDIANS))]
PAGE = Path(__file__).parents[2] / "docs" / "performance.md"


class Clock:
    """A time that passes only where a function says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def passing(self, durations: Iterator[float]) -> Callable[[], None]:
        def function() -> None:
            self.now += next(durations)

        return function


@pytest.fixture(scope="module")
def lines() -> list[tuple[str, str]]:
    """What all lines compare; those of the same curve are checked to do so as they are made."""
    cases = [(case.name, case.other_name) for case in accuracy.cases()]
    pairs = itertools.chain(cost.pairs(), once.pairs(), once.range_tests())
    return cases + [(pair.name, pair.other_name) for pair in pairs]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_a_line_has_the_medians_and_the_median_of_the_ratios_with_its_interval(clock: Clock) -> None:
    # The first calls are not timed. Ours are 1.5, 2.2, 6, 4.8, 9.5, 7.8, 12.6, 11.2, 15.3, 16. The ratios
    # are 1.1, 1.2, ..., 2.0 in another order.
    ratios = [1.5, 1.1, 2.0, 1.2, 1.9, 1.3, 1.8, 1.4, 1.7, 1.6]
    other = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]
    ours = [a * b for a, b in zip(ratios, other, strict=True)]
    pair = Pair("a", clock.passing(iter([99.0, *ours])), "b", clock.passing(iter([77.0, *other])))
    # Of 10 ratios, the second lowest and the second highest bound a 95% interval of the median (order statistics).
    assert timed(pair, 10) == ("a", "b", "8.65 s", "5.5 s", "1.55 (1.20, 1.90)")


def test_of_six_rounds_the_interval_is_the_lowest_and_the_highest(clock: Clock) -> None:
    pair = Pair("a", clock.passing(iter([9.0, 1, 2, 3, 4, 5, 6])), "b", clock.passing(itertools.repeat(2.0)))
    assert timed(pair, 6).ratio == "1.75 (0.50, 3.00)"


def test_each_time_is_that_of_one_call_and_of_the_amount_it_does(clock: Clock) -> None:
    # A call that comes before those of a round brings the caches back, and counts for nothing.
    ours = itertools.chain([99.0], itertools.cycle([50.0, 8e-3, 12e-3]))
    other = itertools.chain([99.0], itertools.cycle([50.0, 1e-6, 3e-6]))
    pair = Pair("a", clock.passing(ours), "b", clock.passing(other), calls=2, amount=5, other_amount=0.5)
    line = timed(pair, 6)
    assert (line.ours, line.other) == ("2 ms", "4 us")
    assert line.ratio == "500 : 1"


def test_now_one_goes_first_and_now_the_other() -> None:
    order: list[str] = []
    timed(Pair("a", lambda: order.append("a"), "b", lambda: order.append("b")), 6)
    assert "".join(order[2:]) == "baab" * 3


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1.234, "1.23"),
        (0.1, "0.10"),
        (0.099, "1 : 10"),
        (1e-4, "1 : 10,000"),
        (9.99, "9.99"),
        (12.4, "12 : 1"),
        (0.0, "-"),
        (math.inf, "-"),
        (math.nan, "-"),
    ],
)
def test_a_ratio_that_is_large_or_small_is_said_in_whole_times(value: float, said: str) -> None:
    assert ratio(value) == said


def test_curves_are_compared_to_a_tolerance_and_in_full() -> None:
    alike("the same", [0.1, 1e-13], [0.1 * (1 + 5e-10), 0.0], 1e-9)
    with pytest.raises(ValueError, match=r"^one_cycle: not the same curve, 4e-07 against 1e-05 as number 1$"):
        alike("one_cycle", [0.1, 4e-7], [0.1, 1e-5], 1e-9)
    with pytest.raises(ValueError, match="zip"):
        alike("longer", [0.1, 0.1], [0.1], 1e-9)


def test_errors_are_those_of_known_rates() -> None:
    exactly = partial(accuracy.exact, "triangular")
    assert math.isclose(exactly(1000), 0.055)  # half of the way up from 0.01 to 0.1
    case = accuracy.Case("a", "b", 1000, exactly, lambda step: 0.055 * 1.01, lambda step: 0.055 * 1.2)
    assert accuracy.line(case) == ("a", "b", "1e-02", "2e-01", "1 : 20")
    lost = case._replace(other=lambda step: math.pow(10.0, 1000.0))
    assert accuracy.line(lost)[3:] == ("OverflowError", "-")
    assert accuracy.line(case._replace(other=lambda step: math.inf))[3:] == ("inf", "-")


def test_the_exact_curves_are_those_of_the_papers() -> None:
    assert accuracy.exact("triangular2", 6000) == (Fraction(0.01) + Fraction(0.1)) / 2
    assert [float(accuracy.exact_restarts(step)) for step in (0, 5, 10, 20, 30)] == [0.1, 0.05, 0.1, 0.05, 0.1]
    first, peak, last = accuracy.CORNERS
    top, total = accuracy.TOTAL * 3 // 10, accuracy.TOTAL
    rates = [float(accuracy.exact_one_cycle(step)) for step in (0, top // 2, top, (top + total) // 2, total)]
    assert rates == pytest.approx([first, (first + peak) / 2, peak, (peak + last) / 2, last], rel=1e-15)


def test_ours_is_exact_wherever_the_table_says_so() -> None:
    host = [case for case in accuracy.cases() if "on the host" in case.name]
    assert len(host) >= 16
    for case in host:
        assert float(accuracy.line(case).ours) <= 2.0**-52, case.name


def test_a_peer_on_another_curve_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    one_cycle = torch.optim.lr_scheduler.OneCycleLR
    monkeypatch.setattr(torch.optim.lr_scheduler, "OneCycleLR", partial(one_cycle, base_momentum=0.8))
    with pytest.raises(ValueError, match=r"^one_cycle, .* OneCycleLR: not the same curve"):
        list(cost.torch_pairs())


def test_a_peer_that_is_not_installed_is_none() -> None:
    assert timing.peer("no_such_module.part") is None
    assert timing.peer("os.path") is os.path


@dynamo_may_warn
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_what_would_be_compiled_anew_is_an_error() -> None:
    schedule = clr.triangular(0.01, 0.1, 2000)
    for pair in cost.compiled_pairs(schedule, "eager"):
        for step in (pair.ours, pair.other):
            for _ in range(3):
                step()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)  # whose rate is no tensor
    step = cost.compiled_once(lambda: optimizer.param_groups[0]["lr"] * torch.ones(1), "eager")
    step()
    optimizer.param_groups[0]["lr"] = 0.2
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="it would be compiled anew"):
        step()


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "pairs", cost.torch_pairs)
    monkeypatch.setattr(benchmark, "TIMED", {"Time of a call": (cost.torch_pairs, cost.ROUNDS)})
    benchmark.main(markdown=True, only="1 group, with momentum, CyclicLR", rounds=6)
    *head, line = capsys.readouterr().out.splitlines()
    assert "torch " in head[0]
    assert head[-1] == "| **Time of a call, medians of 6 rounds** | | | | |"
    figures = r"\d[\d.]* (us|ms) \| \d[\d.]* (us|ms) \| .*\d.*"
    assert re.fullmatch(rf"\| torch scheduler, 1 group, with momentum \| CyclicLR \| {figures} \|", line)
    benchmark.main(only="1 group, with momentum, CyclicLR", rounds=6)
    assert "clr : other" in capsys.readouterr().out


def test_the_page_has_every_line_once(lines: list[tuple[str, str]]) -> None:
    rows = [tuple(map(str.strip, row.split("|")[1:3])) for row in PAGE.read_text().splitlines() if row.startswith("|")]
    shown = [(name.replace(f"({cost.BACKEND})", "(inductor)"), other) for name, other in lines]
    assert [line for line in shown if line not in rows] == []
    assert len(rows) == len(set(rows))
    if all(map(find_spec, EXTRA)):
        assert sorted(row[0] for row in rows if row not in shown) == sorted(HEADINGS)


def test_only_the_lines_of_what_is_not_installed_are_left_out(lines: list[tuple[str, str]]) -> None:
    own = {"CyclicLR", "formula in ops", "at a constant rate", "a plain loop", "optax.cosine_onecycle_schedule"}
    assert own <= {other for _, other in lines}
    for module, name in EXTRA.items():
        assert any(name in other for _, other in lines) == (find_spec(module) is not None)
