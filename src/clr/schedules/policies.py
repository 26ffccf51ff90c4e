"""The public functions that make schedules, under their usual names.

The three policies of Smith (2017), sections 3.1 to 3.3, and `cyclic` behind them; SGDR (Loshchilov and Hutter 2017);
the schedules of one training, such as one-cycle (Smith and Topin 2018), cosine and linear; and `phases` behind those.
"""

import warnings
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal

from clr import checks
from clr.schedules.base import Schedule, policy
from clr.schedules.compose import Join, checked, join
from clr.schedules.cyclic import GAMMA, Cyclic
from clr.schedules.phases import Phases
from clr.schedules.shapes import SHAPES

Shape = Literal["linear", "cosine", "1-sqrt"]
Mode = Literal["triangular", "triangular2", "exp_range", "peak_decay"]


@policy
def triangular(
    base_lr: float,
    max_lr: float,
    step_size: float,
    *,
    step_size_down: float | None = None,
    shape: Shape = "linear",
    cycle_mult: float = 1,
) -> Cyclic:
    """The rate rises and falls in a straight line between two fixed bounds.

    Args:
        base_lr: The lower bound, the rate at the start of each cycle; per update.
        max_lr: The upper bound, the rate at the peak of each cycle; per update.
        step_size: Steps (optimizer updates) from ``base_lr`` to ``max_lr``: half a cycle, or the rising part of it.
            Need not be whole: it is taken as the nearest fraction with a denominator up to 1000. See `clr.step_size`.
        step_size_down: Steps from ``max_lr`` back to ``base_lr``; by default ``step_size``. If you give it,
            ``step_size`` may be 0: then each cycle starts at ``max_lr``.
        shape: ``"linear"``; ``"cosine"``, which turns smoothly at both bounds; or ``"1-sqrt"``, which is steep near
            ``max_lr``.
        cycle_mult: Each cycle is this many times as long as the one before: 1, or a number from 0.001 to 1000 that
            differs from 1 by at least 0.001. If it is below 1, the cycles end when the next one would be shorter than
            a step. After that, the rate stays at ``base_lr``.

    Raises:
        TypeError, ValueError: An argument is not a number, or is out of its range. The message says which.

    >>> import clr
    >>> schedule = clr.triangular(base_lr=0.001, max_lr=0.006, step_size=2000)
    >>> schedule(0), schedule(1000), schedule(2000), schedule(4000)
    (0.001, 0.0035, 0.006, 0.001)
    """
    return Cyclic(base_lr, max_lr, step_size, step_size_down, "triangular", shape=shape, cycle_mult=cycle_mult)


@policy
def triangular2(
    base_lr: float,
    max_lr: float,
    step_size: float,
    *,
    step_size_down: float | None = None,
    shape: Shape = "linear",
    cycle_mult: float = 1,
) -> Cyclic:
    """As `triangular`, and each cycle is half as high above ``base_lr`` as the one before.

    >>> import clr
    >>> schedule = clr.triangular2(base_lr=0.001, max_lr=0.005, step_size=2000)
    >>> schedule(2000), schedule(6000), schedule(10000)
    (0.005, 0.003, 0.002)
    """
    return Cyclic(base_lr, max_lr, step_size, step_size_down, "triangular2", shape=shape, cycle_mult=cycle_mult)


@policy
def exp_range(
    base_lr: float,
    max_lr: float,
    step_size: float,
    *,
    step_size_down: float | None = None,
    gamma: float = GAMMA,
    shape: Shape = "linear",
    cycle_mult: float = 1,
) -> Cyclic:
    """As `triangular`, and the height above ``base_lr`` is multiplied by ``gamma ** step``.

    ``gamma`` is above 0 and at most 1. By default it is the paper's, 0.99994. With 1, the rates are as in `triangular`.

    >>> import clr
    >>> schedule = clr.exp_range(base_lr=0.0, max_lr=1.0, step_size=4, gamma=0.5)
    >>> schedule(4), schedule(12)
    (0.0625, 0.000244140625)
    """
    return Cyclic(base_lr, max_lr, step_size, step_size_down, "exp_range", gamma, shape=shape, cycle_mult=cycle_mult)


@policy
def cyclic(
    base_lr: float,
    max_lr: float,
    step_size: float,
    *,
    step_size_down: float | None = None,
    mode: Mode = "triangular",
    gamma: float = GAMMA,
    peak_decay: float = 1.0,
    scale_fn: Callable[[Any], Any] | None = None,
    scale_mode: Literal["cycle", "iterations"] = "cycle",
    shape: Shape = "linear",
    cycle_mult: float = 1,
) -> Cyclic:
    """Any of the policies by name, or one with a scaling function of your own.

    Args:
        base_lr: As in `triangular`.
        max_lr: As in `triangular`.
        step_size: As in `triangular`.
        step_size_down: As in `triangular`.
        mode: ``"triangular"``, ``"triangular2"``, ``"exp_range"``, or ``"peak_decay"``, under which each cycle is
            ``peak_decay`` times as high as the one before; without effect if there is a ``scale_fn``.
        gamma: The factor per step of ``"exp_range"``, above 0 and at most 1.
        peak_decay: The factor per cycle of ``"peak_decay"``, above 0 and at most 1.
        scale_fn: A function of one number that gives the height of the cycle, from 0 to 1. On the host it is given
            ints, one at a time, and a bad result is an error. A traced step gives it a float tensor. Then it must be
            made of operators or of the framework's own functions, and its result is cut to [0, 1] (a NaN stays).
        scale_mode: What ``scale_fn`` is a function of: ``"cycle"``, the number of the cycle counted from 1, or
            ``"iterations"``, the step counted from 0.
        shape: As in `triangular`.
        cycle_mult: As in `triangular`.

    >>> import clr
    >>> schedule = clr.cyclic(0.0, 1.0, step_size=4, scale_fn=lambda cycle: 1 / cycle)
    >>> schedule(4), schedule(12), schedule(28)
    (1.0, 0.5, 0.25)
    """
    own = (mode, gamma, peak_decay, scale_fn, scale_mode, shape, cycle_mult)
    return Cyclic(base_lr, max_lr, step_size, step_size_down, *own)


@policy
def warm_restarts(
    max_lr: float, *, first_cycle: float, base_lr: float = 0.0, cycle_mult: float = 1, peak_decay: float = 1.0
) -> Cyclic:
    """SGDR: the rate falls from ``max_lr`` to ``base_lr`` along a cosine, jumps back, and falls again.

    Args:
        max_lr: The rate at the first start; per update.
        first_cycle: Steps in the first cycle.
        base_lr: The lower bound, which each cycle approaches; per update.
        cycle_mult: Each cycle is this many times as long as the one before; see `triangular`.
        peak_decay: At each restart, the height above ``base_lr`` is multiplied by this: above 0, at most 1.

    Raises:
        TypeError, ValueError: An argument makes no sense.

    Loshchilov and Hutter 2017, arXiv:1608.03983, section 3. The same as PyTorch's ``CosineAnnealingWarmRestarts``
    (``T_0``, ``T_mult``, ``eta_min``) and Keras' ``CosineDecayRestarts`` (``first_decay_steps``, ``t_mul``, ``m_mul``;
    its ``alpha`` is ``base_lr / max_lr``).

    >>> import clr
    >>> schedule = clr.warm_restarts(max_lr=1.0, first_cycle=2, cycle_mult=2, peak_decay=0.5)
    >>> [round(schedule(step), 6) for step in range(7)]
    [1.0, 0.5, 0.5, 0.426777, 0.25, 0.073223, 0.25]
    """
    down = checks.steps("first_cycle", first_cycle)
    gamma = checks.gamma("peak_decay", peak_decay)
    mode = "triangular" if gamma == 1 else "peak_decay"
    return Cyclic(base_lr, max_lr, 0, down, mode, peak_decay=gamma, shape="cosine", cycle_mult=cycle_mult)


@policy
def phases(
    levels: Sequence[float], lengths: Sequence[float] = (), shape: Shape = "linear", total_steps: int | None = None
) -> Phases:
    """The rate goes from one level to the next, and stays at the last.

    Args:
        levels: The rates at the corners, the first of them at step 0; per update.
        lengths: The steps from each level to the next, one less than there are levels. Need not be whole.
        shape: How it goes: ``"linear"``; ``"cosine"`` for half a cosine wave; or ``"1-sqrt"``, which is steep at the
            higher end, for the decay of `wsd`.
        total_steps: The number of steps after which it counts as ended, for `clr.join` and `Schedule.after_end`. By
            default the sum of the lengths plus 1, so that the last corner is the last step.

    Raises:
        TypeError, ValueError: An argument makes no sense.

    >>> import clr
    >>> schedule = clr.phases(levels=(0.0, 1.0, 0.5), lengths=(2, 4))
    >>> [schedule(step) for step in range(8)]
    [0.0, 0.5, 1.0, 0.875, 0.75, 0.625, 0.5, 0.5]
    """
    steps = [checks.steps(f"lengths[{n}]", length) for n, length in enumerate(checks.sequence("lengths", lengths))]
    return Phases(levels, steps, shape, total_steps)  # type: ignore[arg-type]  # of which it makes tuples


@policy
def constant(lr: float) -> Phases:
    """The same rate at every step.

    >>> import clr
    >>> clr.constant(0.01)(1000)
    0.01
    """
    return Phases((checks.base_rate("lr", lr),))


@policy
def ramp(start: float, end: float, steps: float, shape: Shape = "linear") -> Phases:
    """The rate goes from ``start`` to ``end`` in ``steps`` steps, and stays there.

    >>> import clr
    >>> schedule = clr.ramp(0.0, 1.0, steps=4)
    >>> [schedule(step) for step in range(6)]
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """
    levels = checks.base_rate("start", start), checks.base_rate("end", end)
    return Phases(levels, (checks.steps("steps", steps),), shape)


@policy
def warmup(schedule: Schedule, steps: int, *, start: float = 0.0, shape: Shape = "linear") -> Join:
    """A schedule that begins after a climb from ``start`` to its first rate in ``steps`` steps.

    Args:
        schedule: What follows; its step 0 is step ``steps`` of the result.
        steps: The length of the climb, a whole number of steps.
        start: The rate at step 0; per update.
        shape: ``"linear"``, ``"cosine"`` or ``"1-sqrt"``, as in `phases`.

    Raises:
        TypeError, ValueError: An argument makes no sense.

    >>> import clr
    >>> schedule = clr.warmup(clr.warm_restarts(max_lr=1.0, first_cycle=10), steps=4)
    >>> [schedule(step) for step in range(5)]
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    count = checks.total("steps", steps)
    return join([ramp(start, checked("schedule", schedule)(0), count, shape), schedule], [count])


@policy
def cosine(max_lr: float, total_steps: int, warmup_steps: int = 0, min_lr: float = 0.0) -> Schedule:
    """Up in a straight line to ``max_lr``, and down along half a cosine wave to ``min_lr`` at the last step.

    Args:
        max_lr: The highest rate, at step ``warmup_steps``; per update.
        total_steps: The steps in all.
        warmup_steps: The steps before the highest rate. The first has the rate ``max_lr / (warmup_steps + 1)``, since
            an update at rate 0 would be wasted.
        min_lr: The rate of the last step; per update.

    Raises:
        TypeError, ValueError: An argument makes no sense, or the warm-up leaves no step for the fall.

    Transformers' ``get_cosine_schedule_with_warmup`` and Optax's ``warmup_cosine_decay_schedule`` differ in two ways:
    they begin at rate 0, and they would reach the lowest rate one step after the end.

    >>> import clr
    >>> schedule = clr.cosine(max_lr=1.0, total_steps=8, warmup_steps=3)
    >>> [round(schedule(step), 6) for step in range(8)]
    [0.25, 0.5, 0.75, 1.0, 0.853553, 0.5, 0.146447, 0.0]
    """
    return _up_and_down(max_lr, total_steps, warmup_steps, min_lr, "cosine")


@policy
def linear(max_lr: float, total_steps: int, warmup_steps: int = 0, min_lr: float = 0.0) -> Schedule:
    """Up in a straight line to ``max_lr``, and down in a straight line to ``min_lr`` at the last step.

    Args:
        max_lr: As in `cosine`.
        total_steps: As in `cosine`.
        warmup_steps: As in `cosine`.
        min_lr: As in `cosine`.

    Raises:
        TypeError, ValueError: As in `cosine`.

    Defazio et al. 2023, arXiv:2310.07831; Bergsma et al. 2025, arXiv:2502.15938.

    >>> import clr
    >>> schedule = clr.linear(max_lr=1.0, total_steps=8, warmup_steps=3)
    >>> [schedule(step) for step in range(8)]
    [0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    return _up_and_down(max_lr, total_steps, warmup_steps, min_lr, "linear")


@policy
def wsd(
    max_lr: float,
    total_steps: int,
    *,
    warmup_steps: int = 0,
    decay_steps: int,
    min_lr: float = 0.0,
    decay: Shape = "1-sqrt",
) -> Schedule:
    """Warm-up, stable, decay: up to ``max_lr``, straight on, and down to ``min_lr`` at the last step.

    Args:
        max_lr: As in `cosine`.
        total_steps: As in `cosine`.
        warmup_steps: As in `cosine`.
        decay_steps: The steps down, as far as the last.
        min_lr: As in `cosine`.
        decay: How the rate falls: ``"1-sqrt"``, ``"linear"`` or ``"cosine"``.

    Raises:
        TypeError, ValueError: An argument makes no sense, or the steps up and down are more than there are.

    Hu et al. 2024, arXiv:2404.06395, section 4; the decay is that of Hägele et al. 2024, arXiv:2405.18392, section 4.

    >>> import clr
    >>> schedule = clr.wsd(max_lr=1.0, total_steps=9, warmup_steps=1, decay_steps=4)
    >>> [schedule(step) for step in range(4)], schedule(5), schedule(8)
    ([0.5, 1.0, 1.0, 1.0], 0.5, 0.0)
    """
    first, peak, lowest, up, total = _training(max_lr, total_steps, warmup_steps, min_lr)
    down = checks.total("decay_steps", decay_steps)
    checks.choice("decay", decay, SHAPES)
    start = total - 1 - down  # of the decay
    if start < up:
        checks.fail(ValueError, "total_steps", f"above `warmup_steps` + `decay_steps`, {up} + {down}", total)
    legs = [(first, up), (peak, start - up), (peak, down)]
    kept = [leg for leg in legs if leg[1]][:-1]
    fall = phases((peak, lowest), (down,), decay, down + 1)
    if not kept:
        return fall
    rise = phases((*(level for level, _ in kept), peak), tuple(steps for _, steps in kept))
    return join((rise, fall), (start,), single_cycle=True)


def _up_and_down(max_lr: float, total_steps: int, warmup_steps: int, min_lr: float, shape: Shape) -> Schedule:
    first, peak, lowest, up, total = _training(max_lr, total_steps, warmup_steps, min_lr)
    down = total - 1 - up
    if down < 1:
        checks.fail(ValueError, "total_steps", f"above `warmup_steps` + 1, {up} + 1", total)
    if not up:
        return phases((peak, lowest), (down,), shape, total)
    if shape == "linear":
        return phases((first, peak, lowest), (up, down), shape, total)
    stages = phases((first, peak), (up,)), phases((peak, lowest), (down,), shape, down + 1)
    return join(stages, (up,), single_cycle=True)


def _training(
    max_lr: float, total_steps: int, warmup_steps: int, min_lr: float
) -> tuple[float, float, float, int, int]:
    """The rates of the first step, the peak and the last step, the steps up and those in all."""
    lowest = checks.base_rate("min_lr", min_lr)
    peak = checks.max_rate("max_lr", max_lr, "min_lr", lowest)
    up = checks.part("warmup_steps", warmup_steps)
    return peak / (up + 1), peak, lowest, up, checks.total("total_steps", total_steps)


@policy
def one_cycle(
    max_lr: float,
    total_steps: int,
    pct_start: float = 0.3,
    anneal_strategy: Literal["cosine", "cos", "linear"] = "cosine",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> Phases:
    """The one-cycle policy: one cycle up and down over the whole training, and down to almost nothing.

    Args:
        max_lr: The rate at the peak; per update.
        total_steps: The steps in all; the last of them has the lowest rate.
        pct_start: The fraction of the steps in which the rate rises, from 0 to 1. If this is one step or less, the
            rate starts at the peak.
        anneal_strategy: ``"cosine"`` or ``"linear"``; PyTorch's ``"cos"`` is taken too.
        div_factor: The first rate is ``max_lr / div_factor``; 1 or more.
        final_div_factor: The last rate is the first one, divided by this; 1 or more.
        three_phase: Whether the rate falls back to the first rate in as many steps as it rose, and then goes on to
            the last rate. This is the policy of the paper. ``pct_start`` is then at most 0.5.

    Raises:
        TypeError, ValueError: An argument makes no sense.

    Smith and Topin 2018, arXiv:1708.07120, section 3, with the names, defaults and rates of PyTorch's ``OneCycleLR``.
    For its momentum too, see the guide; `one_cycle_fastai` is fastai's.

    >>> import clr
    >>> schedule = clr.one_cycle(max_lr=1.0, total_steps=100)
    >>> schedule(0), schedule(29), schedule(99) < 1e-5
    (0.04, 1.0, True)
    """
    peak = checks.base_rate("max_lr", max_lr)
    total = checks.total("total_steps", total_steps)
    part = checks.fraction("pct_start", pct_start)
    shape = checks.choice("anneal_strategy", anneal_strategy, ("cosine", "linear", "cos"))
    shape = "cosine" if shape == "cos" else shape
    first = peak / checks.divisor("div_factor", div_factor)
    last = first / checks.divisor("final_div_factor", final_div_factor)
    up = max(part * total - 1, Fraction(0))
    if checks.flag("three_phase", three_phase):
        if part > Fraction(1, 2):
            checks.fail(ValueError, "pct_start", "at most 0.5 with `three_phase`", pct_start)
        corners = [(Fraction(0), first), (up, peak), (2 * up, first), (Fraction(total - 1), last)]
    else:
        corners = [(Fraction(0), first), (up, peak), (Fraction(total - 1), last)]
    return _through(corners, shape, total)


@policy
def one_cycle_fastai(
    max_lr: float, total_steps: int, pct_start: float = 0.25, div: float = 25.0, div_final: float = 1e5
) -> Phases:
    """The one-cycle policy as fastai's ``fit_one_cycle`` has it, with its names and defaults.

    It differs from `one_cycle` in three ways: the last rate is ``max_lr / div_final``; the peak is at ``pct_start`` of
    ``total_steps``, not a step earlier; and the lowest rate falls on the step after the end, so it is never used.

    >>> import clr
    >>> schedule = clr.one_cycle_fastai(max_lr=1.0, total_steps=100)
    >>> schedule(0), schedule(25)
    (0.04, 1.0)
    """
    peak = checks.base_rate("max_lr", max_lr)
    total = checks.total("total_steps", total_steps)
    part = checks.fraction("pct_start", pct_start)
    first, last = peak / checks.divisor("div", div), peak / checks.divisor("div_final", div_final)
    return _through([(Fraction(0), first), (part * total, peak), (Fraction(total), last)], "cosine", total)


def _through(corners: list[tuple[Fraction, float]], shape: str, total_steps: int) -> Phases:
    """The phases between corners. Without a rise it starts at the peak, without a fall it ends there."""
    kept = corners[:1]
    for corner in corners[1:]:
        if corner[0] - kept[-1][0] >= Fraction(1, 1000):
            kept.append(corner)
        elif len(kept) == 1:
            kept = [corner]
    lengths = tuple(end - start for (start, _), (end, _) in pairwise(kept))
    return Phases(tuple(level for _, level in kept), lengths, shape, total_steps)


def step_size(
    steps_per_epoch: int | None = None,
    epochs: float = 4,
    *,
    num_samples: int | None = None,
    batch_size: int | None = None,
    total_steps: int | None = None,
    cycles: float = 4,
) -> float:
    """The step size in steps: half a cycle that lasts ``epochs`` passes over the data, or fits a training.

    The paper advises 2 to 10 epochs (Smith 2017, section 3.2). Other numbers of epochs cause a warning.

    Args:
        steps_per_epoch: Optimizer updates in one pass, such as ``len(loader)``.
        epochs: Passes in half a cycle, by default 4.
        num_samples: Instead of ``steps_per_epoch``, the size of the data.
        batch_size: Goes with ``num_samples``. A last, smaller batch counts as an update.
        total_steps: Instead of epochs, the updates of the whole training. It is divided into ``cycles`` cycles.
        cycles: Goes with ``total_steps``, from 0.01 to 500, by default 4. With a whole number, the training ends at
            the end of a cycle.

    Returns:
        The steps, an int if they are whole.

    Raises:
        TypeError, ValueError: An argument is missing, or is not a positive number.

    >>> import clr
    >>> clr.step_size(steps_per_epoch=500)
    2000
    >>> clr.step_size(num_samples=1797, batch_size=64, epochs=2.5)
    72.5
    >>> clr.step_size(total_steps=10_000, cycles=4)
    1250
    """
    lengths = {
        "steps_per_epoch": steps_per_epoch,
        "num_samples": num_samples,
        "batch_size": batch_size,
        "total_steps": total_steps,
    }
    given = [f"`{name}`" for name, value in lengths.items() if value is not None]
    if given not in (["`steps_per_epoch`"], ["`num_samples`", "`batch_size`"], ["`total_steps`"]):
        raise TypeError(
            "step_size takes either `steps_per_epoch`, or `num_samples` and `batch_size`, or `total_steps`. "
            f"Received: {' and '.join(given) or 'none of these'}."
        )
    unused = ("cycles", cycles) if total_steps is None else ("epochs", epochs)
    if checks.positive(*unused) != 4:  # it would be ignored
        raise TypeError(
            "step_size takes `cycles` with `total_steps`, and `epochs` without. "
            f"Received: `{unused[0]}` {checks.shown(unused[1])}."
        )
    if total_steps is not None:
        count = checks.positive("cycles", cycles)
        if not 0.01 <= count <= 500:
            checks.fail(ValueError, "cycles", "a number from 0.01 to 500", cycles)
        halves = 2 * Fraction(count).limit_denominator(500)
        return checks.steps("total_steps / cycles / 2", checks.count("total_steps", total_steps) / halves)
    if num_samples is not None:
        # Floor division of the negative number rounds up, exactly.
        updates = -(-checks.count("num_samples", num_samples) // checks.count("batch_size", batch_size))
    else:
        updates = checks.count("steps_per_epoch", steps_per_epoch)
    checks.positive("epochs", epochs)
    if not 2 <= epochs <= 10:
        warnings.warn(
            f"half a cycle of {epochs!r} epochs is outside of the 2 to 10 that Smith (2017) advises", stacklevel=2
        )
    # As for a step size, 4.1 stands for 41/10, not for the float nearest to it.
    return checks.steps("steps_per_epoch * epochs", updates * Fraction(float(epochs)).limit_denominator(1000))
