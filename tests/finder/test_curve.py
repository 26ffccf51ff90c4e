"""From curves with known answers to bounds."""

import copy
import math
import pickle
import random
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from statistics import mean
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clr
from clr.finder.curve import RULES, smooth
from tests import curves
from tests.curves import measured

untimed = settings(deadline=None)
QUARTER = 0.25  # of a decade, by which bounds may be off where there is noise


# Where the loss has risen from its lowest by a tenth of its fall, or the curve ends, as powers of ten: the upper bound
# is two fifths of that, and the lower a tenth of the upper.
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
@pytest.mark.parametrize(
    ("curve", "turns"),
    [
        (curves.valley, -0.987),  # 1000 (x + 1) ** 2 = 0.18
        (curves.plateau, -0.487),
        (curves.nan_tail, -1),
        (curves.two_valleys, -3.425),  # 0.12 above the bottom of the first, which rises by 1.6 per decade
        (lambda x: curves.valley(x) - 30, -0.987),
        (lambda x: curves.valley(x) + 5 * (abs(x + 6) < 0.03), -0.987),
    ],
    ids=["valley", "plateau", "NaN tail", "two valleys", "negative", "early spike"],
)
def test_known_bounds(curve: Callable[[float], float], turns: float, noise: float) -> None:
    for seed in range(5):
        bounds = measured(curve, noise, seed).bounds()
        assert math.log10(bounds.max_lr) == pytest.approx(turns + math.log10(2 / 5), abs=QUARTER)
        assert bounds.base_lr == pytest.approx(bounds.max_lr / 10)
        assert 0 < bounds.confidence <= 1


def test_noise_on_a_flat_bottom_is_not_taken_for_the_turn() -> None:
    for seed in range(25):
        max_lr = measured(curves.plateau, noise=0.25, seed=seed).bounds().max_lr
        assert math.log10(max_lr) == pytest.approx(-0.487 + math.log10(2 / 5), abs=QUARTER)


def test_no_more_than_a_parabola_can_bear() -> None:
    weight = 1.0

    def train_step(lr: float) -> float:  # converges below 1, the faster the nearer to a half, and diverges above
        nonlocal weight
        loss = weight**2
        weight -= lr * 2 * weight
        return loss

    bounds = clr.range_test(train_step).bounds()
    assert 0.5 < bounds.max_lr < 1.1
    assert "where it begins to rise" in bounds.reason


def test_the_reason_says_where_the_loss_starts_to_fall_is_lowest_and_turns() -> None:
    found = [float(number) for number in re.findall(r"at ([\d.e-]+\d)", measured(curves.valley).bounds().reason)]
    starts, lowest, turns = map(math.log10, found)
    assert starts == pytest.approx(-3.8, abs=0.05)  # a tenth of the way from -4 to -2
    assert -2 < lowest < -1  # where it is flat
    assert turns == pytest.approx(-0.987, abs=QUARTER)


def test_a_lower_bound_that_was_not_tried_is_refused() -> None:
    test = measured(curves.sudden, min_lr=1e-3, num_steps=1000)  # falls and turns within a decade of its start
    with pytest.raises(clr.NoBoundsError, match=r"a tenth of .* is not within the test") as refusal:
        test.bounds()
    assert refusal.value.kind == "narrow"
    assert refusal.value.advice.startswith("Make `min_lr` smaller. Less sure than bounds")
    assert measured(curves.sudden, min_lr=1e-5, num_steps=1000).bounds().base_lr > 1e-5


def test_a_rate_that_was_not_tried_is_refused() -> None:
    # Lowest at 10**-2.4, so that a tenth of that is below the first rate.
    test = measured(curves.sudden, min_lr=1e-3, num_steps=1000)
    with pytest.raises(clr.NoBoundsError, match="The rule 'minimum' finds no rate within the test") as refusal:
        test.suggest("minimum")
    assert (refusal.value.kind, refusal.value.advice) == ("narrow", "Make `min_lr` smaller or `max_lr` larger.")
    with pytest.warns(UserWarning, match="less sure: The lower bound"):
        assert math.log10(test.suggest("steepest")) == pytest.approx(-2.6, abs=0.1)


def test_a_turn_as_soon_as_the_loss_falls_is_refused() -> None:
    def cliff(x: float) -> float:  # turns at less than two and a half times the rate at which it starts to fall
        return 2 - 1.8 * curves.rise(x, -2.05, -2) + curves.explosion(x, -2)

    with pytest.raises(clr.NoBoundsError, match=r"The loss turns at 0\.01.*, as soon as it falls") as refusal:
        measured(cliff, min_lr=1e-5, num_steps=1000).bounds()
    assert refusal.value.kind == "narrow"
    assert refusal.value.advice.startswith("Make `num_steps` larger. Less sure than bounds")


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
@pytest.mark.parametrize(
    ("curve", "kind", "advice"),
    [
        (
            curves.endless,
            "endless",
            "Make `max_lr` larger. If it still does not rise, the model has learned all before: make `num_steps`",
        ),
        (curves.rising, "rising", "Make `min_lr` smaller"),
        (curves.flat, "flat", "Make `max_lr` larger"),
        (curves.late, "narrow", "Make `min_lr` smaller."),
        (lambda x: math.nan, "few", "or `min_lr` smaller."),
    ],
    ids=["endless", "rising", "flat", "late", "NaN"],
)
def test_known_refusals(curve: Callable[[float], float], kind: str, advice: str, noise: float) -> None:
    for seed in range(5):
        test = measured(curve, noise, seed)
        asks: list[Callable[[], object]] = [test.bounds, partial(test.schedule, step_size=100)]
        if kind not in ("endless", "narrow"):  # in which the loss falls
            asks += [partial(test.suggest, rule) for rule in RULES]
        for ask in asks:
            with pytest.raises(clr.NoBoundsError) as refusal:
                ask()
            assert str(refusal.value).endswith(refusal.value.advice)
            if kind == "flat" and noise:  # is what it is for the noise, or by nature
                assert refusal.value.kind in ("flat", "noisy")
            else:
                assert refusal.value.kind == kind
                assert advice in refusal.value.advice


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize(
    ("curve", "fall", "finding"),
    [(curves.endless, (-3, 1), "Training never diverges"), (curves.late, (-7, -5), "The loss falls from 1e-07 on")],
    ids=["endless", "late"],
)
def test_a_single_rate_is_found_where_bounds_are_refused_and_said_to_be_less_sure(
    curve: Callable[[float], float], fall: tuple[float, float], finding: str, noise: float
) -> None:
    test = measured(curve, noise)
    for rule in ("steepest", "valley"):
        with pytest.warns(UserWarning, match=f"no bounds, and .* is less sure: {finding}"):
            assert fall[0] <= math.log10(test.suggest(rule)) <= fall[1]
    with pytest.warns(UserWarning, match="less sure"):
        rate = test.suggest()
    with pytest.raises(clr.NoBoundsError) as refusal:
        test.bounds()
    assert refusal.value.advice.endswith(f' Less sure than bounds is a single rate, `suggest("valley")`: {rate:.3g}.')
    assert refusal.value.advice in test.describe()


def test_a_single_rate_beside_bounds_needs_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    assert measured(curves.valley).suggest() > 0
    assert not recwarn


@pytest.mark.parametrize("curve", [curves.valley, curves.endless])
def test_noise_that_hides_the_fall_is_refused(curve: Callable[[float], float]) -> None:
    kinds = set()
    for seed in range(20):
        with pytest.raises(clr.NoBoundsError) as refusal:
            measured(curve, noise=3.0, seed=seed).bounds()
        kinds.add(refusal.value.kind)
        assert "repeats" in refusal.value.advice or refusal.value.kind == "flat"
    assert kinds <= {"noisy", "flat", "rising"}
    assert "rising" in kinds if curve is curves.valley else "noisy" in kinds


def test_a_test_that_ended_before_the_loss_rose_is_refused() -> None:
    for end in (-3.0, -2.0, -1.1):
        with pytest.raises(clr.NoBoundsError) as refusal:
            measured(curves.valley, max_lr=10**end).bounds()
        assert refusal.value.kind == "endless"


def test_a_handful_of_steps_is_refused() -> None:
    with pytest.raises(clr.NoBoundsError, match="and at least 20 are needed") as refusal:
        measured(curves.valley, num_steps=19).bounds()
    assert refusal.value.kind == "few"


def test_bounds_are_never_the_edge_of_the_range() -> None:
    found = set()
    for start in range(-8, 0):
        for end in range(start + 1, 2):
            test = measured(curves.valley, min_lr=10.0**start, max_lr=10.0**end)
            with suppress(clr.NoBoundsError):
                base_lr, max_lr = test.bounds()
                assert test.min_lr < base_lr < max_lr < test.rates[-1]
                found.add((start, end))
    # The loss falls from 10**-4 on and turns at 10**-0.987.
    assert found == {(start, end) for start in range(-8, -4) for end in (0, 1)}


@pytest.mark.parametrize("at", [0, -1])
def test_a_rule_that_ends_at_the_edge_finds_nothing(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    test = measured(curves.valley)
    monkeypatch.setitem(RULES, "valley", lambda curve: test.rates[at])
    with pytest.raises(clr.NoBoundsError, match="The rule 'valley' finds no rate within the test"):
        test.suggest("valley")


def found_inside(
    levels: list[float], noise: float, seed: int, start: float, width: float, num_steps: int
) -> list[tuple[float, ...]]:
    """What is found on a curve that goes from level to level in straight lines and then explodes, all of it inside."""
    knots = [1.0, 1.0, *levels]
    inner = [start + width * at / len(knots) for at in range(len(knots))]

    def curve(x: float) -> float:
        return float(np.interp(x, inner, knots)) + curves.explosion(x, inner[-1])

    low, high = 10**start, 10 ** (start + width)
    test = measured(curve, noise, seed, min_lr=low, max_lr=high, num_steps=num_steps)
    found: list[tuple[float, ...]] = []
    with suppress(clr.NoBoundsError):
        base_lr, max_lr = test.bounds()
        assert low < base_lr < max_lr < test.rates[-1]
        found.append((base_lr, max_lr))
    for rule in RULES:
        with suppress(clr.NoBoundsError):
            found.append((test.curve.suggest(rule),))
            assert low < found[-1][0] < test.rates[-1]
    return found


@untimed
@given(
    levels=st.lists(st.floats(-1, 1), min_size=1, max_size=6),
    noise=st.sampled_from([0.0, 0.01, 0.1]),
    seed=st.integers(0, 1000),
    start=st.floats(-8, -1),
    width=st.floats(1, 8),
    num_steps=st.integers(20, 300),
)
def test_on_no_curve_is_anything_found_at_the_edge(
    levels: list[float], noise: float, seed: int, start: float, width: float, num_steps: int
) -> None:
    found_inside(levels, noise, seed, start, width, num_steps)


def test_on_curves_that_fall_all_is_found() -> None:
    generator = random.Random(0)
    found = [
        found_inside(
            [generator.uniform(-1, 0) for _ in range(generator.randint(1, 6))],
            generator.choice([0.0, 0.01, 0.1]),
            seed,
            generator.uniform(-8, -1),
            generator.uniform(4, 8),
            generator.randint(100, 300),
        )
        for seed in range(100)
    ]
    assert {len(rates) for rates in found} == {1 + len(RULES)}


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
def test_rules_on_an_asymmetric_fall(noise: float) -> None:
    test = measured(curves.asymmetric, noise)
    found = {rule: math.log10(test.suggest(rule)) for rule in ("steepest", "minimum", "valley")}
    assert found == pytest.approx({"steepest": -5.9, "minimum": -3.1, "valley": -4.1}, abs=0.3)


LAWS = [curves.valley, curves.asymmetric, curves.plateau, curves.two_valleys]


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("curve", LAWS)
def test_the_valley_is_that_of_the_longest_falling_subsequence(curve: Callable[[float], float], noise: float) -> None:
    test = measured(curve, noise)
    losses = test.smoothed
    lengths: list[int] = []  # of the longest that ends at each loss, by trying all that may come before it
    for at, loss in enumerate(losses):
        lengths.append(1 + max((lengths[before] for before in range(at) if losses[before] > loss), default=0))
    longest = max(lengths)
    first = lengths.index(longest) - longest
    # The middle of its middle third, as in fastai.
    assert test.suggest("valley") == test.rates[first + int(longest / 3) + int(longest / 3 / 2)]


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("curve", LAWS)
def test_the_slide_is_that_of_two_gradients_that_come_down_together(
    curve: Callable[[float], float], noise: float
) -> None:
    # As in fastai: two points at a fixed distance move left until their gradients hardly differ, and the rate is that
    # of the left one. They start at the steepest rise after the lowest loss, and "hardly" is a tenth of the steepest.
    test = measured(curve, noise)
    losses = np.array(test.smoothed)
    gradient = np.gradient(losses)
    gradient[[0, -1]] = 0  # one-sided, unlike the others
    lowest = int(np.argmin(losses))
    right = lowest + int(np.argmax(gradient[lowest:]))
    left = right - max(2, len(losses) // 20)
    while abs(gradient[right] - gradient[left]) > 0.1 * np.abs(gradient).max():
        right, left = right - 1, left - 1
    assert test.suggest("slide") == test.rates[left]


@pytest.mark.parametrize("rule", RULES)
def test_rules_on_a_parabola(rule: str) -> None:
    # Over the logarithm of the rate, steepest half way down a cosine, lowest at 0.01.
    def curve(x: float) -> float:
        return 1 + math.cos(math.pi * curves.rise(x, -6, -2)) + curves.explosion(x, -2)

    rate = math.log10(measured(curve).suggest(rule))
    expected = {"steepest": -4.0, "minimum": -3.0, "valley": -4.0, "slide": -2.3}[rule]
    assert abs(rate - expected) < 0.5  # of a decade


def test_steps_that_grow_evenly_have_bounds_too() -> None:
    def curve(x: float) -> float:
        rate = 10**x
        return 2 - curves.rise(rate, 0.1, 0.5) + 100 * max(0.0, rate - 0.8)

    base_lr, max_lr = measured(curve, min_lr=0.001, max_lr=1.0, growth="linear").bounds()
    # It has risen by a tenth of its fall, which is 1, at 0.801.
    assert max_lr == pytest.approx(0.801 * 2 / 5, abs=0.02)
    assert base_lr == pytest.approx(max_lr / 10)


SHAPES = [curves.valley, curves.plateau, curves.nan_tail, curves.two_valleys]


@untimed
@given(
    curve=st.sampled_from(SHAPES),
    noise=st.floats(0.001, 0.2),
    seed=st.integers(0, 1000),
    factor=st.floats(1e-6, 1e6),
    offset=st.floats(-100, 100),
)
def test_neither_a_factor_nor_an_offset_changes_what_is_found(
    curve: Callable[[float], float], noise: float, seed: int, factor: float, offset: float
) -> None:
    def found(factor: float, offset: float) -> object:
        try:
            return tuple(measured(curve, noise, seed, factor, offset * factor).bounds())
        except clr.NoBoundsError as refusal:
            return refusal.kind

    assert found(factor, offset) == found(1.0, 0.0)


def confidence(curve: Callable[[float], float], noise: float, seed: int) -> float:
    try:
        return measured(curve, noise, seed).bounds().confidence
    except clr.NoBoundsError:
        return 0.0


@pytest.mark.parametrize("curve", SHAPES)
def test_more_noise_never_raises_the_confidence_on_average(curve: Callable[[float], float]) -> None:
    levels = [0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6]
    means = [mean(confidence(curve, noise, seed) for seed in range(20)) for noise in levels]
    assert means == sorted(means, reverse=True)
    assert means[0] > 0.6
    assert means[-1] < 0.1


@untimed
@given(curve=st.sampled_from(SHAPES), noise=st.floats(0.05, 0.2), seed=st.integers(0, 1000))
def test_the_same_noise_three_times_as_loud_never_raises_the_confidence(
    curve: Callable[[float], float], noise: float, seed: int
) -> None:
    assert confidence(curve, 3 * noise, seed) <= confidence(curve, noise, seed)


def test_noise_that_grows_with_the_rate_lowers_the_confidence() -> None:
    def found(loudness: float, seed: int) -> clr.Bounds:
        return measured(curves.plateau, lambda x: 0.02 if x < -2 else loudness, seed).bounds()

    for seed in range(10):
        calm, ragged, raging = (found(loudness, seed) for loudness in (0.02, 0.3, 1.0))
        assert ragged.confidence < calm.confidence - 0.05
        # Where it rages, that may be taken for the turn.
        assert raging.max_lr < 10**-1.9 or raging.confidence < calm.confidence - 0.1
        assert raging.confidence < ragged.confidence or raging.max_lr < ragged.max_lr


def test_a_single_spike_leaves_the_confidence() -> None:
    spiked = measured(lambda x: curves.valley(x) + 1000 * (round((x + 7) / 8 * 299) == 150), 0.05)
    assert [at for at, loss in enumerate(spiked.losses) if loss > 900] == [150]
    assert spiked.bounds().confidence == pytest.approx(measured(curves.valley, 0.05).bounds().confidence, abs=0.02)


@pytest.mark.parametrize("size", [1e100, 1e305, 1e307, 1.7e308])
def test_a_loss_of_no_size_is_as_bad_as_none(size: float) -> None:
    def ending(tail: float) -> clr.RangeTest:
        losses = iter([2.0] * 100 + [2 - 1.8 * at / 60 for at in range(60)] + [tail] * 8)
        return clr.range_test(lambda lr: next(losses))

    expected = ending(math.nan)
    for tail in (size, -size):
        test = ending(tail)
        assert test.losses[-1] == tail
        assert test.smoothed == expected.smoothed
        assert test.bounds() == expected.bounds()


FAR = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([-1.7e308, -1e305, 0.0, 5e-324, 1.7e308])


@untimed
@given(losses=st.lists(FAR, max_size=20) | st.lists(FAR, min_size=30, max_size=60), repeats=st.integers(1, 2))
def test_no_finite_loss_is_too_much(losses: list[float], repeats: int) -> None:
    left = iter(losses)
    test = clr.range_test(lambda lr: next(left), lambda repeat: None, repeats=repeats)
    assert all(map(math.isfinite, test.smoothed))
    asks: list[Callable[[], object]] = [test.bounds, *(partial(test.suggest, rule) for rule in RULES)]
    for ask in asks:
        with suppress(clr.NoBoundsError):
            ask()


def test_rules_that_agree_raise_the_confidence(monkeypatch: pytest.MonkeyPatch) -> None:
    test = measured(curves.valley, noise=0.05)
    _, max_lr = test.bounds()

    def agreeing(count: int) -> clr.Bounds:
        near = [max_lr / 2] * count + [test.rates[1]] * (4 - count)  # within the fall, and before it
        rules = {f"rule {at}": lambda curve, rate=rate: rate for at, rate in enumerate(near)}
        monkeypatch.setattr("clr.finder.curve.RULES", rules)
        return test.bounds()

    none, half, every = agreeing(0), agreeing(2), agreeing(4)
    assert none.confidence == pytest.approx(every.confidence * 3 / 4)
    assert half.confidence == pytest.approx(every.confidence * 7 / 8)
    assert "none of the single-rate rules agrees" in none.reason
    assert every.reason.endswith("rule 0, rule 1, rule 2, rule 3 agree.")


@given(values=st.lists(st.floats(-1e6, 1e6), max_size=60))
def test_the_smoothed_curve_is_finite_and_as_long(values: list[float]) -> None:
    smoothed = smooth(values)
    assert len(smoothed) == len(values)
    assert all(map(math.isfinite, smoothed))


@pytest.mark.parametrize("count", [1, 2, 4, 5, 30, 49, 50, 400])
@pytest.mark.parametrize("size", [1.0, 1e-300, 1e99])
def test_the_smoothed_curve_is_that_of_lines_fitted_one_by_one(count: int, size: float) -> None:
    random_numbers = np.random.default_rng(count)
    values = random_numbers.normal(size=count) * 10 ** random_numbers.uniform(-12, 0, size=count) * size
    start = np.median(values[: max(5, count // 10)])
    capped = np.minimum(values, start + (start - values.min()))
    calmed = np.array([np.median(capped[max(at - 2, 0) : at + 3]) for at in range(count)]) / size
    reach, expected = max(2, count // 25), []
    for at in range(count):
        near = np.arange(max(at - reach, 0), min(at + reach, count - 1) + 1)
        weights = np.sqrt(reach + 1.0 - np.abs(near - at))  # of the distances, whose squares are summed
        lines = np.stack([np.ones(len(near)), near - at], axis=1) * weights[:, None]
        expected.append(np.linalg.lstsq(lines, calmed[near] * weights)[0][0])
    assert np.array(smooth(list(map(float, values)))) / size == pytest.approx(np.array(expected), abs=1e-13)


def test_the_work_of_smoothing_grows_with_the_length_alone() -> None:
    products = 0

    class Counted(float):
        def __mul__(self, other: Any) -> Any:
            nonlocal products
            products += 1
            return float(self) * other

        __rmul__ = __mul__

    for count in (100, 2000):
        products = 0
        smooth([Counted(at % 7) for at in range(count)])
        assert products <= 10 * count


@given(trend=st.floats(-10, 0), level=st.floats(-10, 10), count=st.integers(3, 200))
def test_a_straight_line_stays_as_it_is(trend: float, level: float, count: int) -> None:
    line = [level + trend * at / count for at in range(count)]
    # The running median is flat for two points at each end.
    assert smooth(line)[count // 4 : -count // 4 or None] == pytest.approx(
        line[count // 4 : -count // 4 or None], abs=abs(trend) / count * 2 + 1e-9
    )


def test_bounds_unpack_to_the_pair() -> None:
    bounds = clr.Bounds(0.1, 0.2, 0.5, "so")
    base_lr, max_lr = bounds
    assert (base_lr, max_lr) == (0.1, 0.2)
    assert clr.triangular(base_lr, max_lr, step_size=10)(10) == 0.2


def test_a_refusal_can_be_copied_and_sent() -> None:
    refusal = clr.NoBoundsError("flat", "It is flat.", "Do more.")
    for other in (copy.copy(refusal), pickle.loads(pickle.dumps(refusal))):
        assert (str(other), other.kind, other.advice) == ("It is flat. Do more.", "flat", "Do more.")
