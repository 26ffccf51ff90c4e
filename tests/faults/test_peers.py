"""What the test suites of other packages hold to be right, in own words: the same must be right here."""

import inspect
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import clr
from tests import curves
from tests.reference import ulps

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
jnp = jax.numpy


def test_a_restart_with_a_factor_of_1_5_comes_at_the_exact_step_as_composers() -> None:
    schedule = clr.warm_restarts(1.0, first_cycle=3000, cycle_mult=1.5)
    # Cycles of 3000, 4500, 6750 and 10125 steps.
    for start, end in ((0, 3000), (3000, 7500), (7500, 14250), (14250, 24375)):
        assert schedule(start) == schedule(end) == 1.0
        assert schedule(end - 1) < 1e-6
        assert schedule.is_cycle_end(end - 1)
        assert schedule(start + (end - start) // 3) == pytest.approx(0.75, abs=1e-3)


def test_a_timm_cycle_decay_at_a_lower_bound_above_0_multiplies_the_rate() -> None:
    lowest, highest, decay, steps = 0.02, 0.1, 0.5, 50
    peaks = [max(highest * decay**cycle, lowest) for cycle in range(4)]
    joined = clr.join([clr.warm_restarts(peak, base_lr=lowest, first_cycle=steps) for peak in peaks], [50, 100, 150])
    for step in range(200):
        cycle, at = divmod(step, steps)
        expected = lowest + 0.5 * (peaks[cycle] - lowest) * (1 + math.cos(math.pi * at / steps))
        assert joined(step) == pytest.approx(expected, rel=1e-12)
    own = clr.warm_restarts(highest, base_lr=lowest, first_cycle=steps, peak_decay=decay)  # multiplies the height
    assert [own(step) for step in (0, 50, 100)] == pytest.approx([0.1, 0.06, 0.04])


def test_an_ignite_multiplier_of_the_end_value_at_a_start_value_above_0_multiplies_the_rate() -> None:
    lowest, highest, multiplier, size = 0.002, 0.01, 0.5, 20
    peaks = [highest * multiplier**cycle for cycle in range(3)]  # the last is above the start value still
    parts = [clr.triangular(lowest, peak, size // 2) for peak in peaks]
    joined = clr.join(parts, boundaries=[size, 2 * size])
    for step in range(3 * size):
        cycle, at = divmod(step, size)
        expected = peaks[cycle] + (lowest - peaks[cycle]) * abs(1 - 2 * at / size)
        assert joined(step) == pytest.approx(expected, rel=1e-12)
    own = clr.cyclic(lowest, highest, size // 2, mode="peak_decay", peak_decay=multiplier)  # multiplies the height
    assert [own(step) for step in (10, 30, 50)] == pytest.approx([0.01, 0.006, 0.004])


def test_a_reset_of_bckenstlers_callback_with_new_bounds_is_a_join() -> None:
    def rate(iteration: int, base_lr: float, max_lr: float, step_size: int) -> float:
        cycle = math.floor(1 + iteration / (2 * step_size))
        x = abs(iteration / step_size - 2 * cycle + 1)
        return base_lr + (max_lr - base_lr) * max(0, 1 - x)

    joined = clr.join([clr.triangular(0.001, 0.006, 20), clr.triangular(0.002, 0.004, 7)], boundaries=[33])
    expected = [rate(at, 0.001, 0.006, 20) for at in range(33)] + [rate(at, 0.002, 0.004, 7) for at in range(60)]
    assert [joined(step) for step in range(93)] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("last", [math.nan, math.inf])
def test_a_last_loss_that_is_not_finite_moves_no_bounds(last: float) -> None:
    rates = [10 ** (at / 50 - 6) for at in range(301)]
    losses = [curves.valley(math.log10(rate)) for rate in rates]
    plain = clr.RangeTest.from_losses(rates, losses)
    kept = len(plain.losses)
    spoiled = clr.RangeTest.from_losses(rates[:kept], [*losses[: kept - 1], last])
    assert spoiled.stop == "non-finite"
    assert tuple(spoiled.bounds()) == tuple(plain.bounds())


@pytest.mark.parametrize("part", [0.123457, 0.300001, 0.999999, 0.000123])
@pytest.mark.parametrize("total", [10007, 99991, 10**6 + 3, 123_456_789])
@pytest.mark.parametrize("shape", ["linear", "cosine"])
@pytest.mark.parametrize("three_phase", [False, True])
def test_the_last_rate_of_a_one_cycle_is_exact_whatever_its_pct_start(
    part: float, total: int, shape: Any, three_phase: bool
) -> None:
    if three_phase and part > 0.5:
        part /= 2
    schedule = clr.one_cycle(1.0, total, part, shape, three_phase=three_phase)
    last = 1.0 / 25.0 / 1e4
    assert schedule(total - 1) == schedule(total) == last
    assert schedule(total - 2) > last
    assert schedule(0) == 0.04 or part * total < 1.001
    rise = Fraction(part).limit_denominator(10**6) * total - 1
    if shape == "linear" and not three_phase and rise > 1:
        step = total - 1 - (total - 1 - math.ceil(rise)) // 3
        first, length = Fraction(1.0) - Fraction(last), total - 1 - rise
        assert ulps(schedule(step), float(Fraction(last) + first * (total - 1 - step) / length)) <= 1


# In JAX


def test_a_schedule_of_ten_billion_steps_follows_int32() -> None:
    schedule = clr.cosine(1.0, total_steps=10**10)
    steps = [0, 10, 2**31 - 1]
    expected = [0.5 * (1 + math.cos(math.pi * step / (10**10 - 1))) for step in steps]
    assert np.asarray(schedule(jnp.asarray(steps, jnp.int32))) == pytest.approx(expected, rel=1e-6)
    optimizer = optax.sgd(schedule)
    state = optimizer.init(jnp.zeros(()))
    for _ in range(2):
        updates, state = optimizer.update(jnp.ones(()), state)
        assert float(updates) == -1.0


RATES = (0.25, 0.375, 0.5, 0.375, 0.25, 0.375)
OTHER = {"lbfgs"}  # which asks for more than a gradient


def with_a_rate() -> list[str]:
    """The optimizers of Optax that take a schedule."""
    names = []
    for name, function in sorted(vars(optax).items()):
        if inspect.isfunction(function) and not name.startswith("_") and name not in OTHER:
            parameter = inspect.signature(function).parameters.get("learning_rate")
            if parameter is not None and "Callable" in str(parameter.annotation):
                names.append(name)
    return names


def test_optax_has_many_optimizers() -> None:
    assert {"adam", "adamw", "sgd", "lion", "rmsprop", "lamb", "adagrad"} <= set(with_a_rate())


@pytest.mark.filterwarnings("ignore:Specifying a key will be required:UserWarning")
@pytest.mark.parametrize("name", with_a_rate())
def test_every_optimizer_of_optax_follows_a_schedule(name: str) -> None:
    def trained(schedule: Any) -> Any:
        optimizer = getattr(optax, name)(learning_rate=schedule)
        weights = {"a": jnp.asarray([0.5, -1.0]), "b": jnp.asarray([[1.5]])}
        state = optimizer.init(weights)

        @jax.jit
        def update(weights: Any, state: Any) -> Any:
            gradients = jax.tree.map(lambda weight: 2 * weight, weights)
            updates, state = optimizer.update(gradients, state, weights)
            return optax.apply_updates(weights, updates), state

        for _ in RATES:
            weights, state = update(weights, state)
        return weights

    expected = trained(lambda count: jnp.asarray(RATES)[count])
    found = trained(clr.triangular(0.25, 0.5, step_size=2))
    for key in expected:
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-5)
        assert np.isfinite(expected[key]).all()


@pytest.mark.parametrize("factor", [0.1, 0.3, 0.7, 1.1, 3.3])
def test_a_multiple_stays_within_its_limits_in_float32(factor: float) -> None:
    for rate in (0.1, 0.2, 0.3, 0.7, 1e-3):
        for schedule in (clr.constant(rate) * factor, clr.triangular(rate / 3, rate, 7) * factor * factor):
            low, high = (np.float32(limit) for limit in schedule.limits)
            rates = np.asarray(schedule(jnp.arange(15)))
            assert low <= rates.min() <= rates.max() <= high
