"""Every bad argument, its exception and its message, word for word."""

import math
import re
from collections.abc import Callable
from fractions import Fraction  # noqa: F401  # for the calls
from typing import Any, Literal

import numpy as np
import pytest

import clr

NAN, INF = math.nan, math.inf
SCHEDULE = clr.triangular(0.001, 0.006, 10)
BY_CYCLE = clr.cyclic(0.0, 1.0, 10, scale_fn=lambda cycle: 2 - cycle)
BY_STEP = clr.cyclic(0.0, 1.0, 10, scale_fn=lambda step: step - 1 if step > 1 else 1, scale_mode="iterations")

BASE = "`base_lr` must be a finite number, 0 or more. Received: {}."
MAX = "`max_lr` must be a finite number, `base_lr` or more. Received: {}."
SIZE = "`step_size` must be a positive number of steps. Received: {}."
LENGTH = "`step_size` must be a number of steps from 0.001 to 2**53. Received: {}."
DOWN = "`step_size_down` must be a positive number of steps. Received: {}."
MODE = "`mode` must be one of 'triangular', 'triangular2', 'exp_range', 'peak_decay'. Received: {}."
SCALE_MODE = "`scale_mode` must be one of 'cycle', 'iterations'. Received: {}."
GAMMA = "`gamma` must be a number above 0 and at most 1. Received: {}."
SCALE_FN = "`scale_fn` must be None or a function of one number. Received: {}."
SCALE = "`scale_fn` must be a function that returns a number from 0 to 1. Received: {}."
STEP = "`step` must be a whole number of steps, 0 or more. Received: {}."
COUNT = "`{}` must be a whole number, 1 or more. Received: {}."
EPOCHS = "`epochs` must be a finite number above 0. Received: {}."
EITHER = "step_size takes either `steps_per_epoch`, or `num_samples` and `batch_size`, or `total_steps`. Received: {}."
DTYPE = "`dtype` is for arrays and tensors, a single step gives a float. Received: {}."
SHAPE = "`shape` must be one of 'linear', 'cosine', '1-sqrt'. Received: {}."
MULT = "`cycle_mult` must be 1, or a number from 0.001 to 1000 at least 0.001 away from it. Received: {}."
RATE = "`{}` must be a finite number, 0 or more. Received: {}."
STEPS = "`{}` must be a positive number of steps. Received: {}."
PART = "`pct_start` must be a number from 0 to 1. Received: {}."
DIVISOR = "`{}` must be a finite number, 1 or more. Received: {}."
SEQUENCE = "`{}` must be a list or a tuple. Received: {}."
SCHEDULE_RULE = "`{}` must be a schedule. Received: {}."
BOUNDARIES = "`boundaries` must be growing steps, one for each schedule but the first. Received: {}."
MOMENTUM = "`{}` must be a number from 0 to below 1. Received: {}."
RULE = "`rule` must be one of 'hold', 'repeat', 'error'. Received: {}."
MOST = "`{}` must be at most 2**53 steps. Received: {}."
FLOATING = "`dtype` must be a floating dtype. Received: {}."
RAMP = clr.ramp(0.0, 1.0, 4)
NESTED = f"`schedule` must be made of less than 50 schedules within each other. Received: {RAMP!r}{' * 0.5' * 49}."
GROWING = clr.warm_restarts(1.0, first_cycle=5, cycle_mult=2)


class Silent:
    """What cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


def within(schedule: clr.Schedule, count: int) -> clr.Schedule:
    for _ in range(count):
        schedule = schedule * 0.5
    return schedule


def scaled(value: object, scale_mode: Literal["cycle", "iterations"] = "cycle") -> clr.Schedule:
    return clr.cyclic(0.0, 1.0, 10, scale_fn=lambda _: value, scale_mode=scale_mode)


def restarts(**arguments: Any) -> clr.Schedule:
    return clr.warm_restarts(1.0, **arguments)


def at_peak(size: Any, down: float) -> clr.Schedule:
    return clr.triangular(0.1, 1.0, size, step_size_down=down)


TABLE: list[tuple[str, type[Exception], str]] = [
    ("clr.triangular(-0.1, 0.1, 10)", ValueError, BASE.format("-0.1")),
    ("clr.triangular(NAN, 0.1, 10)", ValueError, BASE.format("nan")),
    ("clr.triangular(INF, INF, 10)", ValueError, BASE.format("inf")),
    ("clr.triangular(-INF, 0.1, 10)", ValueError, BASE.format("-inf")),
    ("clr.triangular('0.1', 0.1, 10)", TypeError, BASE.format("'0.1'")),
    ("clr.triangular(None, 0.1, 10)", TypeError, BASE.format("None")),
    ("clr.triangular(True, 1.0, 10)", TypeError, BASE.format("True")),
    ("clr.triangular([0.1], 1.0, 10)", TypeError, BASE.format("[0.1]")),
    ("clr.triangular(1j, 1.0, 10)", TypeError, BASE.format("1j")),
    ("clr.triangular2(0.1, 0.05, 10)", ValueError, MAX.format("0.05 with `base_lr` 0.1")),
    ("clr.triangular(0.0, -0.1, 10)", ValueError, MAX.format("-0.1 with `base_lr` 0.0")),
    ("clr.triangular(0.1, NAN, 10)", ValueError, MAX.format("nan")),
    ("clr.triangular(0.1, INF, 10)", ValueError, MAX.format("inf")),
    ("clr.triangular(0, 10 ** 309, 10)", ValueError, MAX.format(f"1{'0' * 309}")),
    ("clr.triangular(0.1, '1', 10)", TypeError, MAX.format("'1'")),
    ("clr.triangular(0.1, True, 10)", TypeError, MAX.format("True")),
    ("clr.triangular(0.1, None, 10)", TypeError, MAX.format("None")),
    ("clr.triangular(0.1, 1.0, 0)", ValueError, SIZE.format("0")),
    ("clr.exp_range(0.1, 1.0, 0.0)", ValueError, SIZE.format("0.0")),
    ("clr.triangular(0.1, 1.0, 0.0009)", ValueError, LENGTH.format("0.0009")),
    ("clr.triangular(0.1, 1.0, 2 ** 53 + 2)", ValueError, LENGTH.format("9007199254740994")),
    ("clr.triangular2(0.1, 1.0, -20)", ValueError, SIZE.format("-20")),
    ("clr.triangular(0.1, 1.0, NAN)", ValueError, SIZE.format("nan")),
    ("clr.triangular(0.1, 1.0, INF)", ValueError, SIZE.format("inf")),
    ("clr.triangular(0.1, 1.0, '20')", TypeError, SIZE.format("'20'")),
    ("clr.triangular(0.1, 1.0, None)", TypeError, SIZE.format("None")),
    ("clr.triangular(0.1, 1.0, True)", TypeError, SIZE.format("True")),
    ("clr.triangular(0.1, 1.0, np.array([20]))", TypeError, SIZE.format("array([20])")),
    ("clr.triangular(0.1, 1.0, 10, step_size_down=0)", ValueError, DOWN.format("0")),
    ("clr.cyclic(0.1, 1.0, 10, step_size_down=-1.5)", ValueError, DOWN.format("-1.5")),
    ("clr.triangular2(0.1, 1.0, 10, step_size_down=NAN)", ValueError, DOWN.format("nan")),
    ("clr.exp_range(0.1, 1.0, 10, step_size_down='5')", TypeError, DOWN.format("'5'")),
    ("clr.triangular(0.1, 1.0, 10, step_size_down=True)", TypeError, DOWN.format("True")),
    ("clr.cyclic(0.1, 1.0, 10, mode='triangular3')", ValueError, MODE.format("'triangular3'")),
    ("clr.cyclic(0.1, 1.0, 10, mode='Triangular')", ValueError, MODE.format("'Triangular'")),
    ("clr.cyclic(0.1, 1.0, 10, mode=None)", TypeError, MODE.format("None")),
    ("clr.cyclic(0.1, 1.0, 10, mode=[])", TypeError, MODE.format("[]")),
    ("clr.cyclic(0.1, 1.0, 10, mode='x', scale_fn=lambda cycle: 1)", ValueError, MODE.format("'x'")),
    ("clr.cyclic(0.1, 1.0, 10, scale_mode='epochs')", ValueError, SCALE_MODE.format("'epochs'")),
    ("clr.cyclic(0.1, 1.0, 10, scale_mode=None)", TypeError, SCALE_MODE.format("None")),
    ("clr.exp_range(0.1, 1.0, 10, gamma=0)", ValueError, GAMMA.format("0")),
    ("clr.exp_range(0.1, 1.0, 10, gamma=-0.5)", ValueError, GAMMA.format("-0.5")),
    ("clr.exp_range(0.1, 1.0, 10, gamma=1.0001)", ValueError, GAMMA.format("1.0001")),
    ("clr.exp_range(0.1, 1.0, 10, gamma=NAN)", ValueError, GAMMA.format("nan")),
    ("clr.exp_range(0.1, 1.0, 10, gamma=INF)", ValueError, GAMMA.format("inf")),
    ("clr.exp_range(0.1, 1.0, 10, gamma='1')", TypeError, GAMMA.format("'1'")),
    ("clr.exp_range(0.1, 1.0, 10, gamma=True)", TypeError, GAMMA.format("True")),
    ("clr.exp_range(0.1, 1.0, 10, gamma=None)", TypeError, GAMMA.format("None")),
    ("clr.cyclic(0.1, 1.0, 10, gamma=2.0)", ValueError, GAMMA.format("2.0")),
    ("clr.cyclic(0.1, 1.0, 10, scale_fn=0.5)", TypeError, SCALE_FN.format("0.5")),
    ("clr.cyclic(0.1, 1.0, 10, scale_fn='halving')", TypeError, SCALE_FN.format("'halving'")),
    ("scaled(NAN)", ValueError, SCALE.format("nan from scale_fn(1)")),
    ("scaled(NAN, 'iterations')", ValueError, SCALE.format("nan from scale_fn(0)")),
    ("scaled(1.5)", ValueError, SCALE.format("1.5 from scale_fn(1)")),
    ("scaled(-0.5)", ValueError, SCALE.format("-0.5 from scale_fn(1)")),
    ("scaled(INF)", ValueError, SCALE.format("inf from scale_fn(1)")),
    ("scaled(10 ** 309)", ValueError, SCALE.format(f"1{'0' * 309} from scale_fn(1)")),
    ("scaled(None)", TypeError, SCALE.format("None from scale_fn(1)")),
    ("scaled(0.5j)", TypeError, SCALE.format("0.5j from scale_fn(1)")),
    ("scaled([0.5])", TypeError, SCALE.format("[0.5] from scale_fn(1)")),
    ("scaled('0.5')", TypeError, SCALE.format("'0.5' from scale_fn(1)")),
    ("BY_CYCLE(40)", ValueError, SCALE.format("-1 from scale_fn(3)")),
    ("BY_STEP(3)", ValueError, SCALE.format("2 from scale_fn(3)")),
    ("BY_CYCLE(np.array([0, 40]))", ValueError, SCALE.format("-1 from scale_fn(3)")),
    ("SCHEDULE(-1)", ValueError, STEP.format("-1")),
    ("SCHEDULE(2.5)", ValueError, STEP.format("2.5")),
    ("SCHEDULE(Fraction(5, 2))", ValueError, STEP.format("Fraction(5, 2)")),
    ("SCHEDULE(-0.5)", ValueError, STEP.format("-0.5")),
    ("SCHEDULE(NAN)", ValueError, STEP.format("nan")),
    ("SCHEDULE(INF)", ValueError, STEP.format("inf")),
    ("SCHEDULE(True)", TypeError, STEP.format("True")),
    ("SCHEDULE('5')", TypeError, STEP.format("'5'")),
    (
        "SCHEDULE(None)",
        TypeError,
        STEP.format("None")
        + " A Keras optimizer gives no step to a function: give it clr.keras.LearningRateSchedule(schedule).",
    ),
    ("SCHEDULE([0, 1])", TypeError, STEP.format("[0, 1]")),
    ("SCHEDULE(range(3))", TypeError, STEP.format("range(0, 3)")),
    ("SCHEDULE(1j)", TypeError, STEP.format("1j")),
    ("SCHEDULE(np.int64(-1))", ValueError, STEP.format("np.int64(-1)")),
    ("SCHEDULE(np.float64(0.5))", ValueError, STEP.format("np.float64(0.5)")),
    ("SCHEDULE(np.float32(NAN))", ValueError, STEP.format("np.float32(nan)")),
    ("SCHEDULE(np.bool_(True))", TypeError, STEP.format("np.True_")),
    ("SCHEDULE(np.array([0, -1]))", ValueError, STEP.format("array([ 0, -1])")),
    ("SCHEDULE(np.array([-1, 5]))", ValueError, STEP.format("array([-1,  5])")),
    ("SCHEDULE(np.array([0.0, 0.5]))", ValueError, STEP.format("array([0. , 0.5])")),
    ("SCHEDULE(np.array([0.0, NAN]))", ValueError, STEP.format("array([ 0., nan])")),
    ("SCHEDULE(np.array([INF]))", ValueError, STEP.format("array([inf])")),
    ("SCHEDULE(np.array([True]))", TypeError, STEP.format("array([ True])")),
    ("SCHEDULE(np.array(['5']))", TypeError, STEP.format("array(['5'], dtype='<U1')")),
    ("SCHEDULE(np.array([5], object))", TypeError, STEP.format("array([5], dtype=object)")),
    ("SCHEDULE(np.array([1j]))", TypeError, STEP.format("array([0.+1.j])")),
    ("SCHEDULE.cycle(-1)", ValueError, STEP.format("-1")),
    ("SCHEDULE.cycle(True)", TypeError, STEP.format("True")),
    ("SCHEDULE.is_cycle_end(0.5)", ValueError, STEP.format("0.5")),
    ("SCHEDULE.is_cycle_end('5')", TypeError, STEP.format("'5'")),
    ("SCHEDULE(5, dtype='float32')", TypeError, DTYPE.format("'float32'")),
    ("clr.step_size(0)", ValueError, COUNT.format("steps_per_epoch", "0")),
    ("clr.step_size(-5)", ValueError, COUNT.format("steps_per_epoch", "-5")),
    ("clr.step_size(10.0)", TypeError, COUNT.format("steps_per_epoch", "10.0")),
    ("clr.step_size('10')", TypeError, COUNT.format("steps_per_epoch", "'10'")),
    ("clr.step_size(True)", TypeError, COUNT.format("steps_per_epoch", "True")),
    ("clr.step_size(10, 0)", ValueError, EPOCHS.format("0")),
    ("clr.step_size(10, -4)", ValueError, EPOCHS.format("-4")),
    ("clr.step_size(10, NAN)", ValueError, EPOCHS.format("nan")),
    ("clr.step_size(10, INF)", ValueError, EPOCHS.format("inf")),
    ("clr.step_size(10, '4')", TypeError, EPOCHS.format("'4'")),
    ("clr.step_size(10, True)", TypeError, EPOCHS.format("True")),
    ("clr.step_size(10, None)", TypeError, EPOCHS.format("None")),
    ("clr.step_size(num_samples=0, batch_size=2)", ValueError, COUNT.format("num_samples", "0")),
    ("clr.step_size(num_samples=10, batch_size=0)", ValueError, COUNT.format("batch_size", "0")),
    ("clr.step_size(num_samples=10, batch_size=2.0)", TypeError, COUNT.format("batch_size", "2.0")),
    ("clr.step_size()", TypeError, EITHER.format("none of these")),
    ("clr.step_size(num_samples=10)", TypeError, EITHER.format("`num_samples`")),
    ("clr.step_size(batch_size=10)", TypeError, EITHER.format("`batch_size`")),
    (
        "clr.step_size(5, num_samples=10, batch_size=2)",
        TypeError,
        EITHER.format("`steps_per_epoch` and `num_samples` and `batch_size`"),
    ),
    ("clr.step_size(5, batch_size=2)", TypeError, EITHER.format("`steps_per_epoch` and `batch_size`")),
    ("at_peak(0, 0)", ValueError, DOWN.format("0")),
    ("at_peak(-1, 5)", ValueError, SIZE.format("-1")),
    ("at_peak('0', 5)", TypeError, SIZE.format("'0'")),
    ("at_peak(False, 5)", TypeError, SIZE.format("False")),
    ("clr.triangular(0.1, 1.0, 5, shape='cos')", ValueError, SHAPE.format("'cos'")),
    ("clr.phases((0.1, 1.0), (5,), None)", TypeError, SHAPE.format("None")),
    ("clr.triangular2(0.1, 1.0, 5, cycle_mult=0)", ValueError, MULT.format("0")),
    ("restarts(first_cycle=5, cycle_mult=-2)", ValueError, MULT.format("-2")),
    ("restarts(first_cycle=5, cycle_mult=1.0009)", ValueError, MULT.format("1.0009")),
    ("clr.exp_range(0, 1.0, 5, cycle_mult=0.9995)", ValueError, MULT.format("0.9995")),
    ("clr.cyclic(0.1, 1.0, 5, cycle_mult=1001)", ValueError, MULT.format("1001")),
    ("clr.cyclic(0.1, 1.0, 5, cycle_mult=0.0009)", ValueError, MULT.format("0.0009")),
    ("restarts(first_cycle=5, cycle_mult=NAN)", ValueError, MULT.format("nan")),
    ("restarts(first_cycle=5, cycle_mult=INF)", ValueError, MULT.format("inf")),
    ("restarts(first_cycle=5, cycle_mult=True)", TypeError, MULT.format("True")),
    ("restarts(first_cycle=5, cycle_mult='2')", TypeError, MULT.format("'2'")),
    ("restarts(first_cycle=0)", ValueError, STEPS.format("first_cycle", "0")),
    ("restarts(first_cycle=None)", TypeError, STEPS.format("first_cycle", "None")),
    (
        "restarts(first_cycle=0.0001)",
        ValueError,
        "`first_cycle` must be a number of steps from 0.001 to 2**53. Received: 0.0001.",
    ),
    (
        "restarts(first_cycle=5, peak_decay=0)",
        ValueError,
        "`peak_decay` must be a number above 0 and at most 1. Received: 0.",
    ),
    (
        "restarts(first_cycle=5, peak_decay=1.5)",
        ValueError,
        "`peak_decay` must be a number above 0 and at most 1. Received: 1.5.",
    ),
    ("clr.warm_restarts(0.1, first_cycle=5, base_lr=0.2)", ValueError, MAX.format("0.1 with `base_lr` 0.2")),
    ("clr.phases(0.1)", TypeError, SEQUENCE.format("levels", "0.1")),
    ("clr.phases('01', (1,))", TypeError, SEQUENCE.format("levels", "'01'")),
    ("clr.phases({0.1})", TypeError, SEQUENCE.format("levels", "{0.1}")),
    ("clr.phases((0.1, 0.2), 5)", TypeError, SEQUENCE.format("lengths", "5")),
    ("clr.phases((0.1, -0.2), (5,))", ValueError, RATE.format("levels[1]", "-0.2")),
    ("clr.phases((NAN, 0.2), (5,))", ValueError, RATE.format("levels[0]", "nan")),
    ("clr.phases(('0.1',))", TypeError, RATE.format("levels[0]", "'0.1'")),
    ("clr.phases((1.0, 2.0, 3.0), (5, 0))", ValueError, STEPS.format("lengths[1]", "0")),
    ("clr.phases((1.0, 2.0), (INF,))", ValueError, STEPS.format("lengths[0]", "inf")),
    (
        "clr.phases((1.0, 2.0), (0.0005,))",
        ValueError,
        "`lengths[0]` must be a number of steps from 0.001 to 2**53. Received: 0.0005.",
    ),
    ("clr.phases(())", ValueError, "there must be one more of `levels` than of `lengths`. Received: 0 and 0."),
    (
        "clr.phases((1.0, 2.0), (5, 5))",
        ValueError,
        "there must be one more of `levels` than of `lengths`. Received: 2 and 2.",
    ),
    (
        "clr.phases((1.0, 2.0), (5.5,), total_steps=5)",
        ValueError,
        "`total_steps` must be 6 or more, the sum of `lengths`. Received: 5.",
    ),
    ("clr.phases((1.0, 2.0), (5,), total_steps=0)", ValueError, COUNT.format("total_steps", "0")),
    ("clr.phases((1.0, 2.0), (5,), total_steps=9.0)", TypeError, COUNT.format("total_steps", "9.0")),
    ("clr.constant(-0.1)", ValueError, RATE.format("lr", "-0.1")),
    ("clr.constant(True)", TypeError, RATE.format("lr", "True")),
    ("clr.ramp(NAN, 0.1, 5)", ValueError, RATE.format("start", "nan")),
    ("clr.ramp(0.1, '1', 5)", TypeError, RATE.format("end", "'1'")),
    ("clr.ramp(0.1, 0.2, 0)", ValueError, STEPS.format("steps", "0")),
    (
        "clr.wsd(1.0, 10, warmup_steps=5, decay_steps=5)",
        ValueError,
        "`total_steps` must be above `warmup_steps` + `decay_steps`, 5 + 5. Received: 10.",
    ),
    ("clr.wsd(1.0, 10, decay_steps=-1)", ValueError, COUNT.format("decay_steps", "-1")),
    (
        "clr.wsd(1.0, 10, decay_steps=5, decay='sqrt')",
        ValueError,
        "`decay` must be one of 'linear', 'cosine', '1-sqrt'. Received: 'sqrt'.",
    ),
    (
        "clr.cosine(0.1, 10, min_lr=0.2)",
        ValueError,
        "`max_lr` must be a finite number, `min_lr` or more. Received: 0.1 with `min_lr` 0.2.",
    ),
    ("clr.cosine(0.1, 10.5)", TypeError, COUNT.format("total_steps", "10.5")),
    ("clr.linear(1.0, 10, -1)", ValueError, "`warmup_steps` must be a whole number, 0 or more. Received: -1."),
    ("clr.linear(1.0, 10, 9)", ValueError, "`total_steps` must be above `warmup_steps` + 1, 9 + 1. Received: 10."),
    ("clr.step_size(total_steps=0)", ValueError, COUNT.format("total_steps", "0")),
    ("clr.step_size(total_steps=9, cycles=0)", ValueError, "`cycles` must be a finite number above 0. Received: 0."),
    ("clr.step_size(5, total_steps=9)", TypeError, EITHER.format("`steps_per_epoch` and `total_steps`")),
    ("clr.one_cycle(-1.0, 10)", ValueError, RATE.format("max_lr", "-1.0")),
    ("clr.one_cycle(1.0, 0)", ValueError, COUNT.format("total_steps", "0")),
    ("clr.one_cycle(1.0, 100.0)", TypeError, COUNT.format("total_steps", "100.0")),
    ("clr.one_cycle(1.0, 10, -0.1)", ValueError, PART.format("-0.1")),
    ("clr.one_cycle(1.0, 10, 1.1)", ValueError, PART.format("1.1")),
    ("clr.one_cycle_fastai(1.0, 10, NAN)", ValueError, PART.format("nan")),
    ("clr.one_cycle_fastai(1.0, 10, '0.3')", TypeError, PART.format("'0.3'")),
    (
        "clr.one_cycle(1.0, 10, 0.51, three_phase=True)",
        ValueError,
        "`pct_start` must be at most 0.5 with `three_phase`. Received: 0.51.",
    ),
    (
        "clr.one_cycle(1.0, 10, anneal_strategy='sine')",
        ValueError,
        "`anneal_strategy` must be one of 'cosine', 'linear', 'cos'. Received: 'sine'.",
    ),
    ("clr.one_cycle(1.0, 10, div_factor=0.5)", ValueError, DIVISOR.format("div_factor", "0.5")),
    ("clr.one_cycle(1.0, 10, div_factor=INF)", ValueError, DIVISOR.format("div_factor", "inf")),
    ("clr.one_cycle(1.0, 10, final_div_factor=0)", ValueError, DIVISOR.format("final_div_factor", "0")),
    ("clr.one_cycle_fastai(1.0, 10, div=None)", TypeError, DIVISOR.format("div", "None")),
    ("clr.one_cycle_fastai(1.0, 10, div_final=NAN)", ValueError, DIVISOR.format("div_final", "nan")),
    ("clr.join([])", ValueError, "`schedules` must be a list with at least one schedule. Received: []."),
    ("clr.join(RAMP)", TypeError, SEQUENCE.format("schedules", repr(RAMP))),
    ("clr.join([RAMP, 0.1])", TypeError, SCHEDULE_RULE.format("schedules[1]", "0.1")),
    (
        "clr.join([RAMP, SCHEDULE, RAMP])",
        ValueError,
        f"`boundaries` must be given, since schedules[1] has no end: {SCHEDULE!r}.",
    ),
    ("clr.join([RAMP, RAMP], 5)", TypeError, SEQUENCE.format("boundaries", "5")),
    ("clr.join([RAMP, RAMP], [])", ValueError, BOUNDARIES.format("[]")),
    ("clr.join([RAMP, RAMP], [3, 5])", ValueError, BOUNDARIES.format("[3, 5]")),
    ("clr.join([RAMP] * 3, [5, 5])", ValueError, BOUNDARIES.format("[5, 5]")),
    ("clr.join([RAMP] * 3, (5, 3))", ValueError, BOUNDARIES.format("(5, 3)")),
    ("clr.join([RAMP, RAMP], [0])", ValueError, COUNT.format("boundaries[0]", "0")),
    ("clr.join([RAMP] * 3, [3, 5.0])", TypeError, COUNT.format("boundaries[1]", "5.0")),
    ("clr.warmup(0.1, 5)", TypeError, SCHEDULE_RULE.format("schedule", "0.1")),
    ("clr.warmup(RAMP, 0)", ValueError, COUNT.format("steps", "0")),
    ("clr.warmup(RAMP, 2.5)", TypeError, COUNT.format("steps", "2.5")),
    ("clr.warmup(RAMP, 5, start=-1)", ValueError, RATE.format("start", "-1")),
    ("clr.warmup(RAMP, 5, shape='sine')", ValueError, SHAPE.format("'sine'")),
    ("clr.momentum(0.9)", TypeError, SCHEDULE_RULE.format("schedule", "0.9")),
    ("clr.momentum(RAMP, -0.1)", ValueError, MOMENTUM.format("low", "-0.1")),
    ("clr.momentum(RAMP, 0.5, 1.0)", ValueError, MOMENTUM.format("high", "1.0")),
    ("clr.momentum(RAMP, NAN)", ValueError, MOMENTUM.format("low", "nan")),
    ("clr.momentum(RAMP, 0.5, '1')", TypeError, MOMENTUM.format("high", "'1'")),
    (
        "clr.momentum(RAMP, 0.9, 0.8)",
        ValueError,
        "`high` must be a finite number, `low` or more. Received: 0.8 with `low` 0.9.",
    ),
    ("RAMP * -1", ValueError, RATE.format("factor", "-1")),
    ("NAN * RAMP", ValueError, RATE.format("factor", "nan")),
    ("RAMP * INF", ValueError, RATE.format("factor", "inf")),
    ("RAMP * True", TypeError, RATE.format("factor", "True")),
    ("clr.constant(1e+200) * 1e+200", ValueError, RATE.format("schedule * factor", "inf")),
    ("RAMP.clip(-0.1)", ValueError, RATE.format("low", "-0.1")),
    ("RAMP.clip(None)", TypeError, RATE.format("low", "None")),
    ("RAMP.clip(0.1, NAN)", ValueError, "`high` must be a finite number, `low` or more. Received: nan."),
    (
        "RAMP.clip(0.5, 0.25)",
        ValueError,
        "`high` must be a finite number, `low` or more. Received: 0.25 with `low` 0.5.",
    ),
    ("RAMP.after_end('stop')", ValueError, RULE.format("'stop'")),
    ("RAMP.after_end(None)", TypeError, RULE.format("None")),
    (
        "SCHEDULE.after_end('repeat')",
        ValueError,
        f"`schedule` must be one that has an end, for `after_end`. Received: {SCHEDULE!r}.",
    ),
    ("RAMP.after_end('error')(5)", ValueError, "`step` must be below 5, where the schedule ends. Received: 5."),
    ("RAMP(2.5)", ValueError, STEP.format("2.5")),
    ("clr.join([RAMP, RAMP])(-1)", ValueError, STEP.format("-1")),
    ("RAMP.cycle('5')", TypeError, STEP.format("'5'")),
    ("(RAMP * 2).is_cycle_end(-1)", ValueError, STEP.format("-1")),
    (
        "clr.step_size(total_steps=9, epochs=2)",
        TypeError,
        "step_size takes `cycles` with `total_steps`, and `epochs` without. Received: `epochs` 2.",
    ),
    ("clr.step_size(9, cycles='x')", TypeError, "`cycles` must be a finite number above 0. Received: 'x'."),
    # Spans of time, which NumPy counts among the integers.
    ("SCHEDULE(np.timedelta64(5))", TypeError, STEP.format("np.timedelta64(5)")),
    ("SCHEDULE(np.array([5], 'm8[s]'))", TypeError, STEP.format("array([5], dtype='timedelta64[s]')")),
    ("SCHEDULE(np.datetime64('2020'))", TypeError, STEP.format("np.datetime64('2020')")),
    ("clr.constant(np.timedelta64(5))", TypeError, RATE.format("lr", "np.timedelta64(5)")),
    ("clr.triangular(0.1, 1.0, np.timedelta64(5))", TypeError, SIZE.format("np.timedelta64(5)")),
    ("clr.one_cycle(1.0, np.timedelta64(5))", TypeError, COUNT.format("total_steps", "np.timedelta64(5)")),
    # More than can be counted.
    ("clr.one_cycle(1.0, 2**62)", ValueError, MOST.format("total_steps", 2**62)),
    ("clr.one_cycle_fastai(1.0, 2**62)", ValueError, MOST.format("total_steps", 2**62)),
    ("clr.linear(1.0, 2**62)", ValueError, MOST.format("total_steps", 2**62)),
    ("clr.cosine(1.0, 10, 2**62)", ValueError, MOST.format("warmup_steps", 2**62)),
    ("clr.wsd(1.0, 2**53, decay_steps=2**54)", ValueError, MOST.format("decay_steps", 2**54)),
    ("clr.warmup(RAMP, 2**62)", ValueError, MOST.format("steps", 2**62)),
    ("clr.phases((0.1, 0.2), (5,), total_steps=2**62)", ValueError, MOST.format("total_steps", 2**62)),
    ("clr.step_size(2**63)", ValueError, f"`steps_per_epoch` must be below 2**63. Received: {2**63}."),
    ("GROWING(2**70)", ValueError, f"`step` must be a number of steps below 2**63. Received: {2**70}."),
    ("GROWING.cycle(2**70)", ValueError, f"`step` must be a number of steps below 2**63. Received: {2**70}."),
    (
        "clr.triangular2(0.1, 1.0, 0.1)(np.array([2**62]))",
        ValueError,
        f"`step` must be at most {2**63 // 5} in an array, for its cycle to be counted. Received: array([{2**62}]).",
    ),
    ("clr.constant(10**5000)", ValueError, RATE.format("lr", "<int of 16610 bits>")),
    ("clr.phases([0.1, 10**5000], [1])", ValueError, RATE.format("levels[1]", "<int of 16610 bits>")),
    # What cannot be shown, or is too long.
    ("clr.constant(Silent())", TypeError, RATE.format("lr", "<Silent>")),
    ("SCHEDULE([Silent()])", TypeError, STEP.format("<list>")),
    ("clr.constant('x' * 10**6)", TypeError, RATE.format("lr", f"'{'x' * 399}...{'x' * 49}' (1000002 characters)")),
    (
        "clr.triangular(0.1, 1, 5, shape='x' * 600)",
        ValueError,
        SHAPE.format(f"'{'x' * 399}...{'x' * 49}' (602 characters)"),
    ),
    # Dtypes.
    ("SCHEDULE(np.arange(3), dtype='abc')", TypeError, FLOATING.format("'abc'")),
    ("SCHEDULE(np.arange(3), dtype=bool)", TypeError, FLOATING.format("<class 'bool'>")),
    ("SCHEDULE(np.arange(3), dtype=complex)", TypeError, FLOATING.format("<class 'complex'>")),
    ("SCHEDULE(np.arange(3), dtype='S5')", TypeError, FLOATING.format("'S5'")),
    (
        "clr.constant(1e300)(np.arange(3), dtype='float32')",
        ValueError,
        "the highest rate, 1e+300, is infinite in the dtype of the rates: give a wider `dtype`. Received: 'float32'.",
    ),
    # Others.
    ("clr.one_cycle(1.0, 10, three_phase='no')", TypeError, "`three_phase` must be True or False. Received: 'no'."),
    ("clr.advise(b'ab', 10)", TypeError, "`bounds` must be a range test, a search, or two rates. Received: b'ab'."),
    ("within(RAMP, 50)", ValueError, NESTED),
    ("clr.warmup(within(RAMP, 49), 5)", ValueError, NESTED),
    ("clr.join([RAMP, within(RAMP, 49)])", ValueError, NESTED.replace("schedule", "schedules[1]", 1)),
]


def _train(schedule: Any, seed: int, total_steps: int) -> Any:
    yield total_steps, {f"metric {number}": 1.0 for number in range(2000)}


MANY = {f"schedule {number}": clr.constant(0.1) for number in range(1000)}
SHORT: dict[str, Callable[[], object]] = {
    "a name among 1,000": lambda: clr.compare(_train, MANY, before={"other": 3}, total_steps=1, workers=0),
    "a metric among 2,000": lambda: clr.compare(_train, {"a": 0}, metric="b", seeds=1, total_steps=1, workers=0),
    "a long name of a class": lambda: clr.constant(type("Long" * 10_000, (Silent,), {})()),
}


@pytest.mark.parametrize("case", SHORT)
def test_a_message_is_short_and_says_what_came(case: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        SHORT[case]()
    message = str(caught.value)
    assert len(message) < 1000
    assert re.match("`(before|metric|lr)` must be ", message)
    assert re.search(r"Received: ('other'|'b'|<Long.* \(40002 characters\))\.$", message)


@pytest.mark.parametrize(("call", "error", "message"), TABLE)
def test_bad_argument(call: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$") as caught:
        eval(call)
    assert caught.type is error


def test_steps_that_int64_cannot_hold_are_refused_not_wrapped() -> None:
    for steps in (np.array([2**63], np.uint64), np.array([2.0**63]), np.array([2.0**64])):
        with pytest.raises(ValueError, match=r"^`step` must be "):
            SCHEDULE(steps)


def test_a_step_size_past_float64_is_refused() -> None:
    for steps_per_epoch in (10**308, 10**400):
        with pytest.raises(ValueError, match="epoch"):
            clr.step_size(steps_per_epoch, 4)


def test_a_scale_fn_that_raises_does_so_at_construction() -> None:
    def by_zero(step: int) -> float:
        return 1 / step

    assert clr.cyclic(0.0, 1.0, 10, scale_fn=by_zero)(10) == 1.0
    with pytest.raises(ZeroDivisionError):
        clr.cyclic(0.0, 1.0, 10, scale_fn=by_zero, scale_mode="iterations")


def test_a_scale_fn_of_no_argument_is_refused_at_construction() -> None:
    with pytest.raises(TypeError):
        clr.cyclic(0.0, 1.0, 10, scale_fn=lambda: 1.0)  # type: ignore[arg-type,misc]
