import copy
import math
import pickle
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import clr
from clr.arrays.base import Python
from clr.schedules.rounding import product_error
from tests import reference
from tests.reference import ulps

settings.register_profile("clr", deadline=None, derandomize=True, max_examples=300)
settings.load_profile("clr")

LAST = 2**53 - 1
SMALLEST = 2.0**-1022  # below it float64 has fewer than 53 bits


@dataclass(frozen=True)
class Case:
    """Arguments, and the exact lengths that they stand for."""

    base_lr: float
    max_lr: float
    up: Fraction
    down: Fraction
    mode: Any
    gamma: float

    @property
    def period(self) -> Fraction:
        return self.up + self.down

    @property
    def schedule(self) -> clr.Schedule:
        return clr.cyclic(
            self.base_lr,
            self.max_lr,
            float(self.up),
            step_size_down=float(self.down),
            mode=self.mode,
            gamma=self.gamma,
        )

    def exact(self, step: int) -> float:
        return reference.rate(step, self.base_lr, self.max_lr, self.up, self.down, self.mode, self.gamma)

    def exact_scale(self, step: int) -> Fraction:
        return reference.exact_scale(self.mode, step, step // self.period, self.gamma)


modes = st.sampled_from(["triangular", "triangular2", "exp_range"])
gammas = st.one_of(st.just(1.0), st.floats(0.9, 1.0), st.floats(1e-6, 1.0), st.floats(1, 53).map(lambda x: 1 - 2.0**-x))
whole = st.one_of(st.integers(1, 30), st.integers(1, 10**5), st.integers(1, 10**9), st.integers(1, LAST))
fractional = st.one_of(
    st.integers(1, 10**6).map(lambda tenths: Fraction(tenths, 10)),
    st.builds(Fraction, st.integers(1, 10**5), st.integers(1, 30)),
    st.integers(1, 10**5).map(lambda thousandths: Fraction(thousandths, 1000)),
)
lengths = st.one_of(whole.map(Fraction), fractional)
bounds = st.tuples(
    st.one_of(st.just(0.0), st.floats(1e-12, 10.0), st.floats(1e-100, 1e100)),
    st.one_of(st.just(0.0), st.floats(1e-12, 10.0), st.floats(1e-100, 1e100)),
).map(sorted)


@st.composite
def cases(draw: st.DrawFn, mode: st.SearchStrategy[str] = modes, equal: bool = False) -> Case:
    base_lr, max_lr = draw(bounds)
    if draw(st.booleans()):
        up, down = draw(whole.map(Fraction)), draw(whole.map(Fraction))
    else:
        up, down = draw(fractional), draw(fractional)
    return Case(base_lr, max_lr, up, up if equal else down, draw(mode), draw(gammas))


@st.composite
def steps_of(draw: st.DrawFn, case: Case) -> int:
    """Any step up to 2**53 - 1, a turn of the wave and its neighbours often among them."""
    if draw(st.booleans()):
        return draw(st.one_of(st.integers(0, 1000), st.integers(0, LAST)))
    cycle = draw(st.one_of(st.integers(0, 3), st.integers(0, 1100), st.integers(0, 2**52)))
    turn = cycle * case.period + draw(st.sampled_from([Fraction(0), case.up]))
    return max(0, min(LAST, math.floor(turn) + draw(st.integers(-2, 2))))


located = cases().flatmap(lambda case: st.tuples(st.just(case), steps_of(case)))


@given(located)
def test_rate_is_within_1_ulp_of_the_exact_one(located: tuple[Case, int]) -> None:
    case, step = located
    exact, rate = case.exact(step), case.schedule(step)
    if case.exact_scale(step) >= SMALLEST:
        assert ulps(rate, exact) <= 1
    else:  # the factor has lost digits, but is still within half of the smallest float64
        error = Fraction(case.max_lr) * Fraction(2) ** -1075
        assert abs(Fraction(rate) - Fraction(exact)) <= error + Fraction(math.ulp(exact))


@given(located)
def test_rate_stays_within_its_bounds(located: tuple[Case, int]) -> None:
    case, step = located
    assert case.base_lr <= case.schedule(step) <= case.max_lr


@given(cases(mode=st.just("triangular")), st.integers(0, 10**6), st.integers(1, 10**6))
def test_triangular_repeats_after_whole_periods(case: Case, step: int, cycles: int) -> None:
    whole_steps = cycles * case.period * case.period.denominator
    assert case.schedule(step + int(whole_steps)) == case.schedule(step)


@given(located)
def test_triangular2_has_half_the_height_a_cycle_later(located: tuple[Case, int]) -> None:
    case, step = located
    schedule = clr.triangular2(0.0, 1.0, float(case.up), step_size_down=float(case.down))
    cycles = case.period.denominator
    half = math.ldexp(schedule(step), -cycles)
    if half >= SMALLEST:
        assert schedule(step + int(case.period * cycles)) == half


@given(located)
def test_neighbours_differ_by_the_slope_at_most(located: tuple[Case, int]) -> None:
    case, step = located
    rise = Fraction(case.max_lr) - Fraction(case.base_lr)
    steepest = rise / min(case.up, case.down)
    if case.mode == "exp_range":
        steepest += rise * (1 - Fraction(case.gamma))
    rates = [case.schedule(at) for at in (step, step + 1)]
    rounding = sum(Fraction(math.ulp(rate)) for rate in rates)
    assert abs(Fraction(rates[1]) - Fraction(rates[0])) <= steepest + rounding


@given(cases(mode=st.just("triangular"), equal=True), st.data())
def test_equal_halves_are_symmetric(case: Case, data: st.DataObject) -> None:
    whole_steps = int(case.period * case.period.denominator)
    step = data.draw(st.integers(0, whole_steps))
    assert case.schedule(whole_steps - step) == case.schedule(step)


@given(cases(), st.data())
def test_an_array_gives_what_single_steps_give_bit_for_bit(case: Case, data: st.DataObject) -> None:
    steps = data.draw(st.lists(steps_of(case), max_size=20))
    rates = case.schedule(np.array(steps, np.int64))
    assert rates.tobytes() == np.array([case.schedule(step) for step in steps], np.float64).tobytes()


@given(located)
def test_cycle_and_its_end_are_exact(located: tuple[Case, int]) -> None:
    case, step = located
    assert case.schedule.cycle(step) == step // case.period + 1
    assert case.schedule.is_cycle_end(step) == ((step + 1) // case.period > step // case.period)


@given(cases())
def test_every_copy_is_equal(case: Case) -> None:
    schedule = case.schedule
    copies: list[Any] = [pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule), eval(repr(schedule))]
    for again in copies:
        assert again == schedule
        assert hash(again) == hash(schedule)
        assert again(10**6 + 7) == schedule(10**6 + 7)


moderate = st.floats(-1e100, 1e100, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-100)


@given(moderate, moderate)
def test_product_error_is_exact(a: float, b: float) -> None:
    assert Fraction(product_error(Python, a, b, a * b)) == Fraction(a) * Fraction(b) - Fraction(a * b)


@given(st.floats(0.0, allow_infinity=False), st.floats(0.0, 1.0))
def test_product_error_is_never_more_than_half_an_ulp(a: float, b: float) -> None:
    assert abs(product_error(Python, a, b, a * b)) <= math.ulp(a * b) / 2
