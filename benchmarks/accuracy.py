"""How far the rate is from the exact one, from small steps to large."""

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import keras
import mpmath
import optax
import tensorflow as tf
import torch

import clr
from benchmarks.formula import formula
from benchmarks.timing import Line, peer, ratio

lrsched = peer("lrsched")

BASE_LR, MAX_LR, STEP_SIZE = 0.01, 0.1, 2000
STEPS = (1_005, 100_005, 10_000_005, 2_147_483_001)
FIRST_CYCLE = 10
LAST_STEPS = tuple(FIRST_CYCLE * (2**cycles - 1) - 1 for cycles in (7, 13, 20, 27))  # of doubling cycles
TOTAL = 2_147_483_640  # 0.3 of it is a whole number
CORNERS = (0.1 / 25, 0.1, 0.1 / 25e4)  # of the rate of one-cycle


class Case(NamedTuple):
    """The rate of a step by clr, by another package, and exactly."""

    name: str
    other_name: str
    step: int
    exactly: Callable[[int], Fraction]
    ours: Callable[[int], Any]
    other: Callable[[int], Any]


def exact(mode: str, step: int) -> Fraction:
    """The definition, in fractions."""
    cycle, offset = divmod(step, 2 * STEP_SIZE)
    height = Fraction(min(offset, 2 * STEP_SIZE - offset), STEP_SIZE)
    if mode == "triangular2":
        height /= 2 ** min(cycle, 2000)
    return Fraction(BASE_LR) + (Fraction(MAX_LR) - Fraction(BASE_LR)) * height


def _error(expected: Fraction, rate: Callable[[], Any]) -> float | str:
    """The relative error, or the name of what came instead of a rate."""
    try:
        value = float(rate())
    except OverflowError as problem:
        return type(problem).__name__
    return float(abs(Fraction(value) / expected - 1)) if math.isfinite(value) else str(value)


def torch_rate(mode: Literal["triangular", "triangular2"], step: int) -> float:
    """The rate of PyTorch's CyclicLR at ``step``."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=BASE_LR)
    scheduler = torch.optim.lr_scheduler.CyclicLR(
        optimizer, BASE_LR, MAX_LR, STEP_SIZE, mode=mode, cycle_momentum=False
    )
    optimizer.step()
    scheduler.last_epoch = step - 1
    scheduler.step()
    return float(optimizer.param_groups[0]["lr"])


def exact_restarts(step: int) -> Fraction:
    """SGDR by its definition: a first cycle of 10 steps, each twice as long as the one before, from 0.1 to 0."""
    start, length = 0, FIRST_CYCLE
    while step >= start + length:
        start, length = start + length, 2 * length
    return Fraction(0.1) * _half_wave(1 - Fraction(step - start, length))


def exact_one_cycle(step: int) -> Fraction:
    """One-cycle by fastai's definition: half a cosine wave up in 0.3 of the steps, and half a wave down."""
    first, peak, last = map(Fraction, CORNERS)
    top = TOTAL * 3 // 10
    if step < top:
        return first + (peak - first) * _half_wave(Fraction(step, top))
    return last + (peak - last) * _half_wave(Fraction(TOTAL - step, TOTAL - top))


def _half_wave(place: Fraction) -> Fraction:
    """The height of a rising half wave of a cosine, from 0 to 1."""
    with mpmath.workdps(60):
        height = mpmath.sin(mpmath.pi * place.numerator / place.denominator / 2) ** 2
        return Fraction(int(height.man)) * Fraction(2) ** int(height.exp)


def torch_restarts(step: int) -> float:
    """The rate of PyTorch's CosineAnnealingWarmRestarts at ``step``."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, FIRST_CYCLE, T_mult=2)
    scheduler.step(step)
    return float(optimizer.param_groups[0]["lr"])


def line(case: Case) -> Line:
    """Both relative errors, and that of clr as a multiple of the other."""
    expected = case.exactly(case.step)
    found = [_error(expected, partial(way, case.step)) for way in (case.ours, case.other)]
    shown = [f"{error:.0e}" if isinstance(error, float) else error for error in found]
    both = [error for error in found if isinstance(error, float)]
    times = ratio(both[0] / both[1]) if len(both) == 2 and both[1] else "-"
    return Line(case.name, case.other_name, shown[0], shown[1], times)


def cases() -> Iterator[Case]:
    """One for each policy, implementation and step."""
    for mode in ("triangular", "triangular2"):
        schedule: clr.Schedule = clr.cyclic(BASE_LR, MAX_LR, STEP_SIZE, mode=mode)
        yield from _cases(
            f"{mode} in a tf.function, float32",
            partial(exact, mode),
            partial(_in_graph, tf.function(schedule)),
            "formula in TensorFlow's ops",
            partial(_formula, mode),
        )
        host = f"{mode} on the host"
        yield from _cases(host, partial(exact, mode), schedule, "CyclicLR", partial(torch_rate, mode))
        if lrsched:
            other = getattr(lrsched, mode)(min_lr=BASE_LR, max_lr=MAX_LR, step_size=STEP_SIZE)
            yield from _cases(host, partial(exact, mode), schedule, "lrsched", other)
    yield from _restarts()
    yield from _one_cycle()


def _restarts() -> Iterator[Case]:
    schedule = clr.warm_restarts(0.1, first_cycle=FIRST_CYCLE, cycle_mult=2)
    keras_restarts = keras.optimizers.schedules.CosineDecayRestarts(0.1, FIRST_CYCLE, t_mul=2.0)
    yield from _cases(
        "warm_restarts, doubling, in a tf.function, float32",
        exact_restarts,
        partial(_in_graph, tf.function(schedule)),
        "Keras CosineDecayRestarts",
        partial(_in_graph, keras_restarts),
    )
    cosine = {"init_value": 0.1, "peak_value": 0.1, "warmup_steps": 0, "end_value": 0.0}
    cycles = [cosine | {"decay_steps": FIRST_CYCLE * 2**cycle} for cycle in range(28)]
    yield from _cases(
        "warm_restarts, doubling, in a JAX jit, float32",
        exact_restarts,
        _in_jit(schedule),
        "optax.sgdr_schedule, 28 cycles",
        _in_jit(optax.sgdr_schedule(cycles)),
    )
    host = "warm_restarts, doubling, on the host"
    others: dict[str, Callable[[int], float]] = {"CosineAnnealingWarmRestarts": torch_restarts}
    if lrsched:
        others["lrsched"] = lrsched.cosine_restarts(base_lr=0.1, min_lr=0.0, period=FIRST_CYCLE, t_mult=2)
    for name, other in others.items():
        yield from _cases(host, exact_restarts, schedule, name, other)
        yield from _cases(f"{host}, last of a cycle", exact_restarts, schedule, name, other, LAST_STEPS)


def _one_cycle() -> Iterator[Case]:
    schedule = clr.one_cycle_fastai(0.1, TOTAL, 0.3, div_final=25e4)
    yield from _cases(
        "one_cycle_fastai in a JAX jit, float32",
        exact_one_cycle,
        _in_jit(schedule),
        "optax.cosine_onecycle_schedule",
        _in_jit(optax.cosine_onecycle_schedule(TOTAL, 0.1)),
    )
    if lrsched:
        other = lrsched.one_cycle(max_lr=0.1, total_steps=TOTAL, pct_start=0.3, initial_div=25.0, final_div=25e4)
        yield from _cases("one_cycle_fastai on the host", exact_one_cycle, schedule, "lrsched", other)


def _in_jit(schedule: Callable[[Any], Any]) -> Callable[[int], Any]:
    compiled = jax.jit(schedule)
    return lambda step: compiled(jnp.asarray(step, jnp.int32))


def _in_graph(rate: Callable[[Any], Any], step: int) -> Any:
    return rate(tf.constant(step, tf.int64))


def _formula(mode: str, step: int) -> Any:
    return formula(tf.constant(step, tf.int64), mode, BASE_LR, MAX_LR, STEP_SIZE, 1.0)


def _cases(
    name: str,
    exactly: Callable[[int], Fraction],
    ours: Callable[[int], Any],
    other_name: str,
    other: Callable[[int], Any],
    steps: tuple[int, ...] = STEPS,
) -> Iterator[Case]:
    for step in steps:
        yield Case(f"{name}, step {step:,}", other_name, step, exactly, ours, other)
