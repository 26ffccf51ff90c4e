"""Every bad argument, its exception and its message, word for word."""

# mypy: disable-error-code="arg-type, list-item, call-overload, misc"
import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

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
EITHER = "step_size takes either `steps_per_epoch`, or `num_samples` and `batch_size`, or `total_steps`."
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
RAMP = clr.ramp(0.0, 1.0, 4)


def scaled(value: object, scale_mode: str = "cycle") -> Callable[[], clr.Schedule]:
    return lambda: clr.cyclic(0.0, 1.0, 10, scale_fn=lambda _: value, scale_mode=scale_mode)


def restarts(**arguments: Any) -> clr.Schedule:
    return clr.warm_restarts(1.0, **arguments)


def at_peak(size: Any, down: float) -> clr.Schedule:
    return clr.triangular(0.1, 1.0, size, step_size_down=down)


TABLE: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "base_lr negative": (lambda: clr.triangular(-0.1, 0.1, 10), ValueError, BASE.format("-0.1")),
    "base_lr nan": (lambda: clr.triangular(NAN, 0.1, 10), ValueError, BASE.format("nan")),
    "base_lr inf": (lambda: clr.triangular(INF, INF, 10), ValueError, BASE.format("inf")),
    "base_lr -inf": (lambda: clr.triangular(-INF, 0.1, 10), ValueError, BASE.format("-inf")),
    "base_lr str": (lambda: clr.triangular("0.1", 0.1, 10), TypeError, BASE.format("'0.1'")),
    "base_lr None": (lambda: clr.triangular(None, 0.1, 10), TypeError, BASE.format("None")),
    "base_lr bool": (lambda: clr.triangular(True, 1.0, 10), TypeError, BASE.format("True")),
    "base_lr list": (lambda: clr.triangular([0.1], 1.0, 10), TypeError, BASE.format("[0.1]")),
    "base_lr complex": (lambda: clr.triangular(1j, 1.0, 10), TypeError, BASE.format("1j")),
    "max_lr reversed": (
        lambda: clr.triangular2(0.1, 0.05, 10),
        ValueError,
        MAX.format("0.05 with `base_lr` 0.1"),
    ),
    "max_lr negative": (
        lambda: clr.triangular(0.0, -0.1, 10),
        ValueError,
        MAX.format("-0.1 with `base_lr` 0.0"),
    ),
    "max_lr nan": (lambda: clr.triangular(0.1, NAN, 10), ValueError, MAX.format("nan")),
    "max_lr inf": (lambda: clr.triangular(0.1, INF, 10), ValueError, MAX.format("inf")),
    "max_lr past float64": (lambda: clr.triangular(0, 10**309, 10), ValueError, MAX.format(f"1{'0' * 309}")),
    "max_lr str": (lambda: clr.triangular(0.1, "1", 10), TypeError, MAX.format("'1'")),
    "max_lr bool": (lambda: clr.triangular(0.1, True, 10), TypeError, MAX.format("True")),
    "max_lr None": (lambda: clr.triangular(0.1, None, 10), TypeError, MAX.format("None")),
    "step_size 0": (lambda: clr.triangular(0.1, 1.0, 0), ValueError, SIZE.format("0")),
    "step_size 0.0": (lambda: clr.exp_range(0.1, 1.0, 0.0), ValueError, SIZE.format("0.0")),
    "step_size tiny": (lambda: clr.triangular(0.1, 1.0, 0.0009), ValueError, LENGTH.format("0.0009")),
    "step_size huge": (lambda: clr.triangular(0.1, 1.0, 2**53 + 2), ValueError, LENGTH.format("9007199254740994")),
    "step_size negative": (lambda: clr.triangular2(0.1, 1.0, -20), ValueError, SIZE.format("-20")),
    "step_size nan": (lambda: clr.triangular(0.1, 1.0, NAN), ValueError, SIZE.format("nan")),
    "step_size inf": (lambda: clr.triangular(0.1, 1.0, INF), ValueError, SIZE.format("inf")),
    "step_size str": (lambda: clr.triangular(0.1, 1.0, "20"), TypeError, SIZE.format("'20'")),
    "step_size None": (lambda: clr.triangular(0.1, 1.0, None), TypeError, SIZE.format("None")),
    "step_size bool": (lambda: clr.triangular(0.1, 1.0, True), TypeError, SIZE.format("True")),
    "step_size array": (
        lambda: clr.triangular(0.1, 1.0, np.array([20])),
        TypeError,
        SIZE.format("array([20])"),
    ),
    "step_size_down 0": (lambda: clr.triangular(0.1, 1.0, 10, step_size_down=0), ValueError, DOWN.format("0")),
    "step_size_down negative": (lambda: clr.cyclic(0.1, 1.0, 10, step_size_down=-1.5), ValueError, DOWN.format("-1.5")),
    "step_size_down nan": (lambda: clr.triangular2(0.1, 1.0, 10, step_size_down=NAN), ValueError, DOWN.format("nan")),
    "step_size_down str": (lambda: clr.exp_range(0.1, 1.0, 10, step_size_down="5"), TypeError, DOWN.format("'5'")),
    "step_size_down bool": (
        lambda: clr.triangular(0.1, 1.0, 10, step_size_down=True),
        TypeError,
        DOWN.format("True"),
    ),
    "mode unknown": (lambda: clr.cyclic(0.1, 1.0, 10, mode="triangular3"), ValueError, MODE.format("'triangular3'")),
    "mode case": (lambda: clr.cyclic(0.1, 1.0, 10, mode="Triangular"), ValueError, MODE.format("'Triangular'")),
    "mode None": (lambda: clr.cyclic(0.1, 1.0, 10, mode=None), TypeError, MODE.format("None")),
    "mode list": (lambda: clr.cyclic(0.1, 1.0, 10, mode=[]), TypeError, MODE.format("[]")),
    "mode unknown beside scale_fn": (
        lambda: clr.cyclic(0.1, 1.0, 10, mode="x", scale_fn=lambda cycle: 1),
        ValueError,
        MODE.format("'x'"),
    ),
    "scale_mode unknown": (
        lambda: clr.cyclic(0.1, 1.0, 10, scale_mode="epochs"),
        ValueError,
        SCALE_MODE.format("'epochs'"),
    ),
    "scale_mode None": (
        lambda: clr.cyclic(0.1, 1.0, 10, scale_mode=None),
        TypeError,
        SCALE_MODE.format("None"),
    ),
    "gamma 0": (lambda: clr.exp_range(0.1, 1.0, 10, gamma=0), ValueError, GAMMA.format("0")),
    "gamma negative": (lambda: clr.exp_range(0.1, 1.0, 10, gamma=-0.5), ValueError, GAMMA.format("-0.5")),
    "gamma above 1": (lambda: clr.exp_range(0.1, 1.0, 10, gamma=1.0001), ValueError, GAMMA.format("1.0001")),
    "gamma nan": (lambda: clr.exp_range(0.1, 1.0, 10, gamma=NAN), ValueError, GAMMA.format("nan")),
    "gamma inf": (lambda: clr.exp_range(0.1, 1.0, 10, gamma=INF), ValueError, GAMMA.format("inf")),
    "gamma str": (lambda: clr.exp_range(0.1, 1.0, 10, gamma="1"), TypeError, GAMMA.format("'1'")),
    "gamma bool": (lambda: clr.exp_range(0.1, 1.0, 10, gamma=True), TypeError, GAMMA.format("True")),
    "gamma None": (lambda: clr.exp_range(0.1, 1.0, 10, gamma=None), TypeError, GAMMA.format("None")),
    "gamma bad without effect": (lambda: clr.cyclic(0.1, 1.0, 10, gamma=2.0), ValueError, GAMMA.format("2.0")),
    "scale_fn number": (lambda: clr.cyclic(0.1, 1.0, 10, scale_fn=0.5), TypeError, SCALE_FN.format("0.5")),
    "scale_fn str": (
        lambda: clr.cyclic(0.1, 1.0, 10, scale_fn="halving"),
        TypeError,
        SCALE_FN.format("'halving'"),
    ),
    "scale nan": (scaled(NAN), ValueError, SCALE.format("nan from scale_fn(1)")),
    "scale nan by step": (scaled(NAN, "iterations"), ValueError, SCALE.format("nan from scale_fn(0)")),
    "scale above 1": (scaled(1.5), ValueError, SCALE.format("1.5 from scale_fn(1)")),
    "scale below 0": (scaled(-0.5), ValueError, SCALE.format("-0.5 from scale_fn(1)")),
    "scale inf": (scaled(INF), ValueError, SCALE.format("inf from scale_fn(1)")),
    "scale past float64": (scaled(10**309), ValueError, SCALE.format(f"1{'0' * 309} from scale_fn(1)")),
    "scale None": (scaled(None), TypeError, SCALE.format("None from scale_fn(1)")),
    "scale complex": (scaled(0.5j), TypeError, SCALE.format("0.5j from scale_fn(1)")),
    "scale list": (scaled([0.5]), TypeError, SCALE.format("[0.5] from scale_fn(1)")),
    "scale str": (scaled("0.5"), TypeError, SCALE.format("'0.5' from scale_fn(1)")),
    "scale later bad": (lambda: BY_CYCLE(40), ValueError, SCALE.format("-1 from scale_fn(3)")),
    "scale later bad by step": (lambda: BY_STEP(3), ValueError, SCALE.format("2 from scale_fn(3)")),
    "scale later bad in an array": (
        lambda: BY_CYCLE(np.array([0, 40])),
        ValueError,
        SCALE.format("-1 from scale_fn(3)"),
    ),
    "step negative": (lambda: SCHEDULE(-1), ValueError, STEP.format("-1")),
    "step fraction": (lambda: SCHEDULE(2.5), ValueError, STEP.format("2.5")),
    "step Fraction": (lambda: SCHEDULE(Fraction(5, 2)), ValueError, STEP.format("Fraction(5, 2)")),
    "step negative fraction": (lambda: SCHEDULE(-0.5), ValueError, STEP.format("-0.5")),
    "step nan": (lambda: SCHEDULE(NAN), ValueError, STEP.format("nan")),
    "step inf": (lambda: SCHEDULE(INF), ValueError, STEP.format("inf")),
    "step bool": (lambda: SCHEDULE(True), TypeError, STEP.format("True")),
    "step str": (lambda: SCHEDULE("5"), TypeError, STEP.format("'5'")),
    "step None": (
        lambda: SCHEDULE(None),
        TypeError,
        STEP.format("None")
        + " A Keras optimizer gives no step to a function: give it clr.keras.LearningRateSchedule(schedule).",
    ),
    "step list": (lambda: SCHEDULE([0, 1]), TypeError, STEP.format("[0, 1]")),
    "step range": (lambda: SCHEDULE(range(3)), TypeError, STEP.format("range(0, 3)")),
    "step complex": (lambda: SCHEDULE(1j), TypeError, STEP.format("1j")),
    "step np negative": (lambda: SCHEDULE(np.int64(-1)), ValueError, STEP.format("np.int64(-1)")),
    "step np fraction": (lambda: SCHEDULE(np.float64(0.5)), ValueError, STEP.format("np.float64(0.5)")),
    "step np nan": (lambda: SCHEDULE(np.float32(NAN)), ValueError, STEP.format("np.float32(nan)")),
    "step np bool": (lambda: SCHEDULE(np.bool_(True)), TypeError, STEP.format("np.True_")),
    "steps negative": (lambda: SCHEDULE(np.array([0, -1])), ValueError, STEP.format("array([ 0, -1])")),
    "steps negative beside larger": (lambda: SCHEDULE(np.array([-1, 5])), ValueError, STEP.format("array([-1,  5])")),
    "steps fraction": (lambda: SCHEDULE(np.array([0.0, 0.5])), ValueError, STEP.format("array([0. , 0.5])")),
    "steps nan": (lambda: SCHEDULE(np.array([0.0, NAN])), ValueError, STEP.format("array([ 0., nan])")),
    "steps inf": (lambda: SCHEDULE(np.array([INF])), ValueError, STEP.format("array([inf])")),
    "steps bool": (lambda: SCHEDULE(np.array([True])), TypeError, STEP.format("array([ True])")),
    "steps str": (lambda: SCHEDULE(np.array(["5"])), TypeError, STEP.format("array(['5'], dtype='<U1')")),
    "steps object": (lambda: SCHEDULE(np.array([5], object)), TypeError, STEP.format("array([5], dtype=object)")),
    "steps complex": (lambda: SCHEDULE(np.array([1j])), TypeError, STEP.format("array([0.+1.j])")),
    "cycle of a negative step": (lambda: SCHEDULE.cycle(-1), ValueError, STEP.format("-1")),
    "cycle of a bool": (lambda: SCHEDULE.cycle(True), TypeError, STEP.format("True")),
    "is_cycle_end of a fraction": (lambda: SCHEDULE.is_cycle_end(0.5), ValueError, STEP.format("0.5")),
    "is_cycle_end of a str": (lambda: SCHEDULE.is_cycle_end("5"), TypeError, STEP.format("'5'")),
    "dtype of a single step": (lambda: SCHEDULE(5, dtype="float32"), TypeError, DTYPE.format("'float32'")),
    "steps_per_epoch 0": (lambda: clr.step_size(0), ValueError, COUNT.format("steps_per_epoch", "0")),
    "steps_per_epoch negative": (lambda: clr.step_size(-5), ValueError, COUNT.format("steps_per_epoch", "-5")),
    "steps_per_epoch float": (
        lambda: clr.step_size(10.0),
        TypeError,
        COUNT.format("steps_per_epoch", "10.0"),
    ),
    "steps_per_epoch str": (
        lambda: clr.step_size("10"),
        TypeError,
        COUNT.format("steps_per_epoch", "'10'"),
    ),
    "steps_per_epoch bool": (lambda: clr.step_size(True), TypeError, COUNT.format("steps_per_epoch", "True")),
    "epochs 0": (lambda: clr.step_size(10, 0), ValueError, EPOCHS.format("0")),
    "epochs negative": (lambda: clr.step_size(10, -4), ValueError, EPOCHS.format("-4")),
    "epochs nan": (lambda: clr.step_size(10, NAN), ValueError, EPOCHS.format("nan")),
    "epochs inf": (lambda: clr.step_size(10, INF), ValueError, EPOCHS.format("inf")),
    "epochs str": (lambda: clr.step_size(10, "4"), TypeError, EPOCHS.format("'4'")),
    "epochs bool": (lambda: clr.step_size(10, True), TypeError, EPOCHS.format("True")),
    "epochs None": (lambda: clr.step_size(10, None), TypeError, EPOCHS.format("None")),
    "num_samples 0": (
        lambda: clr.step_size(num_samples=0, batch_size=2),
        ValueError,
        COUNT.format("num_samples", "0"),
    ),
    "batch_size 0": (
        lambda: clr.step_size(num_samples=10, batch_size=0),
        ValueError,
        COUNT.format("batch_size", "0"),
    ),
    "batch_size float": (
        lambda: clr.step_size(num_samples=10, batch_size=2.0),
        TypeError,
        COUNT.format("batch_size", "2.0"),
    ),
    "step_size of nothing": (lambda: clr.step_size(), TypeError, EITHER),
    "step_size without batch_size": (lambda: clr.step_size(num_samples=10), TypeError, EITHER),
    "step_size without num_samples": (lambda: clr.step_size(batch_size=10), TypeError, EITHER),
    "step_size of everything": (lambda: clr.step_size(5, num_samples=10, batch_size=2), TypeError, EITHER),
    "step_size of two": (lambda: clr.step_size(5, batch_size=2), TypeError, EITHER),
    "step_size 0 and step_size_down 0": (
        lambda: at_peak(0, 0),
        ValueError,
        DOWN.format("0"),
    ),
    "step_size negative with step_size_down": (
        lambda: at_peak(-1, 5),
        ValueError,
        SIZE.format("-1"),
    ),
    "step_size str with step_size_down": (
        lambda: at_peak("0", 5),
        TypeError,
        SIZE.format("'0'"),
    ),
    "step_size bool with step_size_down": (
        lambda: at_peak(False, 5),
        TypeError,
        SIZE.format("False"),
    ),
    "shape unknown": (lambda: clr.triangular(0.1, 1.0, 5, shape="cos"), ValueError, SHAPE.format("'cos'")),
    "shape None": (lambda: clr.phases((0.1, 1.0), (5,), None), TypeError, SHAPE.format("None")),
    "cycle_mult 0": (lambda: clr.triangular2(0.1, 1.0, 5, cycle_mult=0), ValueError, MULT.format("0")),
    "cycle_mult negative": (
        lambda: restarts(first_cycle=5, cycle_mult=-2),
        ValueError,
        MULT.format("-2"),
    ),
    "cycle_mult near 1": (
        lambda: restarts(first_cycle=5, cycle_mult=1.0009),
        ValueError,
        MULT.format("1.0009"),
    ),
    "cycle_mult nearly 1": (lambda: clr.exp_range(0, 1.0, 5, cycle_mult=0.9995), ValueError, MULT.format("0.9995")),
    "cycle_mult huge": (lambda: clr.cyclic(0.1, 1.0, 5, cycle_mult=1001), ValueError, MULT.format("1001")),
    "cycle_mult tiny": (lambda: clr.cyclic(0.1, 1.0, 5, cycle_mult=0.0009), ValueError, MULT.format("0.0009")),
    "cycle_mult nan": (lambda: restarts(first_cycle=5, cycle_mult=NAN), ValueError, MULT.format("nan")),
    "cycle_mult inf": (lambda: restarts(first_cycle=5, cycle_mult=INF), ValueError, MULT.format("inf")),
    "cycle_mult bool": (lambda: restarts(first_cycle=5, cycle_mult=True), TypeError, MULT.format("True")),
    "cycle_mult str": (lambda: restarts(first_cycle=5, cycle_mult="2"), TypeError, MULT.format("'2'")),
    "first_cycle 0": (lambda: restarts(first_cycle=0), ValueError, STEPS.format("first_cycle", "0")),
    "first_cycle None": (
        lambda: restarts(first_cycle=None),
        TypeError,
        STEPS.format("first_cycle", "None"),
    ),
    "first_cycle tiny": (
        lambda: restarts(first_cycle=1e-4),
        ValueError,
        "`first_cycle` must be a number of steps from 0.001 to 2**53. Received: 0.0001.",
    ),
    "peak_decay 0": (
        lambda: restarts(first_cycle=5, peak_decay=0),
        ValueError,
        "`peak_decay` must be a number above 0 and at most 1. Received: 0.",
    ),
    "peak_decay above 1": (
        lambda: restarts(first_cycle=5, peak_decay=1.5),
        ValueError,
        "`peak_decay` must be a number above 0 and at most 1. Received: 1.5.",
    ),
    "warm_restarts reversed": (
        lambda: clr.warm_restarts(0.1, first_cycle=5, base_lr=0.2),
        ValueError,
        MAX.format("0.1 with `base_lr` 0.2"),
    ),
    "levels number": (lambda: clr.phases(0.1), TypeError, SEQUENCE.format("levels", "0.1")),
    "levels str": (lambda: clr.phases("01", (1,)), TypeError, SEQUENCE.format("levels", "'01'")),
    "levels set": (lambda: clr.phases({0.1}), TypeError, SEQUENCE.format("levels", "{0.1}")),
    "lengths number": (
        lambda: clr.phases((0.1, 0.2), 5),
        TypeError,
        SEQUENCE.format("lengths", "5"),
    ),
    "level negative": (lambda: clr.phases((0.1, -0.2), (5,)), ValueError, RATE.format("levels[1]", "-0.2")),
    "level nan": (lambda: clr.phases((NAN, 0.2), (5,)), ValueError, RATE.format("levels[0]", "nan")),
    "level str": (lambda: clr.phases(("0.1",)), TypeError, RATE.format("levels[0]", "'0.1'")),
    "length 0": (lambda: clr.phases((1.0, 2.0, 3.0), (5, 0)), ValueError, STEPS.format("lengths[1]", "0")),
    "length inf": (lambda: clr.phases((1.0, 2.0), (INF,)), ValueError, STEPS.format("lengths[0]", "inf")),
    "length tiny": (
        lambda: clr.phases((1.0, 2.0), (0.0005,)),
        ValueError,
        "`lengths[0]` must be a number of steps from 0.001 to 2**53. Received: 0.0005.",
    ),
    "no levels": (
        lambda: clr.phases(()),
        ValueError,
        "there must be one more of `levels` than of `lengths`. Received: 0 and 0.",
    ),
    "levels and lengths": (
        lambda: clr.phases((1.0, 2.0), (5, 5)),
        ValueError,
        "there must be one more of `levels` than of `lengths`. Received: 2 and 2.",
    ),
    "total_steps short": (
        lambda: clr.phases((1.0, 2.0), (5.5,), total_steps=5),
        ValueError,
        "`total_steps` must be 6 or more, the sum of `lengths`. Received: 5.",
    ),
    "total_steps 0": (
        lambda: clr.phases((1.0, 2.0), (5,), total_steps=0),
        ValueError,
        COUNT.format("total_steps", "0"),
    ),
    "total_steps float": (
        lambda: clr.phases((1.0, 2.0), (5,), total_steps=9.0),
        TypeError,
        COUNT.format("total_steps", "9.0"),
    ),
    "constant negative": (lambda: clr.constant(-0.1), ValueError, RATE.format("lr", "-0.1")),
    "constant bool": (lambda: clr.constant(True), TypeError, RATE.format("lr", "True")),
    "ramp start": (lambda: clr.ramp(NAN, 0.1, 5), ValueError, RATE.format("start", "nan")),
    "ramp end": (lambda: clr.ramp(0.1, "1", 5), TypeError, RATE.format("end", "'1'")),
    "ramp steps": (lambda: clr.ramp(0.1, 0.2, 0), ValueError, STEPS.format("steps", "0")),
    "wsd full": (
        lambda: clr.wsd(1.0, 10, warmup_steps=5, decay_steps=5),
        ValueError,
        "`total_steps` must be above `warmup_steps` + `decay_steps`, 5 + 5. Received: 10.",
    ),
    "wsd decay_steps": (lambda: clr.wsd(1.0, 10, decay_steps=-1), ValueError, COUNT.format("decay_steps", "-1")),
    "wsd decay": (
        lambda: clr.wsd(1.0, 10, decay_steps=5, decay="sqrt"),
        ValueError,
        "`decay` must be one of 'linear', 'cosine', '1-sqrt'. Received: 'sqrt'.",
    ),
    "cosine reversed": (
        lambda: clr.cosine(0.1, 10, min_lr=0.2),
        ValueError,
        "`max_lr` must be a finite number, `min_lr` or more. Received: 0.1 with `min_lr` 0.2.",
    ),
    "cosine total_steps": (
        lambda: clr.cosine(0.1, 10.5),
        TypeError,
        COUNT.format("total_steps", "10.5"),
    ),
    "linear warmup_steps": (
        lambda: clr.linear(1.0, 10, -1),
        ValueError,
        "`warmup_steps` must be a whole number, 0 or more. Received: -1.",
    ),
    "linear full": (
        lambda: clr.linear(1.0, 10, 9),
        ValueError,
        "`total_steps` must be above `warmup_steps` + 1, 9 + 1. Received: 10.",
    ),
    "total_steps of step_size": (
        lambda: clr.step_size(total_steps=0),
        ValueError,
        COUNT.format("total_steps", "0"),
    ),
    "cycles": (
        lambda: clr.step_size(total_steps=9, cycles=0),
        ValueError,
        "`cycles` must be a finite number above 0. Received: 0.",
    ),
    "total_steps and epochs": (lambda: clr.step_size(5, total_steps=9), TypeError, EITHER),
    "one_cycle max_lr": (lambda: clr.one_cycle(-1.0, 10), ValueError, RATE.format("max_lr", "-1.0")),
    "one_cycle total_steps": (lambda: clr.one_cycle(1.0, 0), ValueError, COUNT.format("total_steps", "0")),
    "one_cycle total_steps float": (
        lambda: clr.one_cycle(1.0, 100.0),
        TypeError,
        COUNT.format("total_steps", "100.0"),
    ),
    "pct_start negative": (lambda: clr.one_cycle(1.0, 10, -0.1), ValueError, PART.format("-0.1")),
    "pct_start above 1": (lambda: clr.one_cycle(1.0, 10, 1.1), ValueError, PART.format("1.1")),
    "pct_start nan": (lambda: clr.one_cycle_fastai(1.0, 10, NAN), ValueError, PART.format("nan")),
    "pct_start str": (lambda: clr.one_cycle_fastai(1.0, 10, "0.3"), TypeError, PART.format("'0.3'")),
    "pct_start past the middle": (
        lambda: clr.one_cycle(1.0, 10, 0.51, three_phase=True),
        ValueError,
        "`pct_start` must be at most 0.5 with `three_phase`. Received: 0.51.",
    ),
    "anneal_strategy unknown": (
        lambda: clr.one_cycle(1.0, 10, anneal_strategy="sine"),
        ValueError,
        "`anneal_strategy` must be one of 'cosine', 'linear', 'cos'. Received: 'sine'.",
    ),
    "div_factor below 1": (
        lambda: clr.one_cycle(1.0, 10, div_factor=0.5),
        ValueError,
        DIVISOR.format("div_factor", "0.5"),
    ),
    "div_factor inf": (
        lambda: clr.one_cycle(1.0, 10, div_factor=INF),
        ValueError,
        DIVISOR.format("div_factor", "inf"),
    ),
    "final_div_factor 0": (
        lambda: clr.one_cycle(1.0, 10, final_div_factor=0),
        ValueError,
        DIVISOR.format("final_div_factor", "0"),
    ),
    "div None": (
        lambda: clr.one_cycle_fastai(1.0, 10, div=None),
        TypeError,
        DIVISOR.format("div", "None"),
    ),
    "div_final nan": (
        lambda: clr.one_cycle_fastai(1.0, 10, div_final=NAN),
        ValueError,
        DIVISOR.format("div_final", "nan"),
    ),
    "join of nothing": (
        lambda: clr.join([]),
        ValueError,
        "`schedules` must be a list with at least one schedule. Received: [].",
    ),
    "join of one": (lambda: clr.join(RAMP), TypeError, SEQUENCE.format("schedules", repr(RAMP))),
    "join of a number": (
        lambda: clr.join([RAMP, 0.1]),
        TypeError,
        SCHEDULE_RULE.format("schedules[1]", "0.1"),
    ),
    "join without end": (
        lambda: clr.join([RAMP, SCHEDULE, RAMP]),
        ValueError,
        f"`boundaries` must be given, since schedules[1] has no end: {SCHEDULE!r}.",
    ),
    "boundaries number": (
        lambda: clr.join([RAMP, RAMP], 5),
        TypeError,
        SEQUENCE.format("boundaries", "5"),
    ),
    "boundaries few": (lambda: clr.join([RAMP, RAMP], []), ValueError, BOUNDARIES.format("[]")),
    "boundaries many": (lambda: clr.join([RAMP, RAMP], [3, 5]), ValueError, BOUNDARIES.format("[3, 5]")),
    "boundaries equal": (lambda: clr.join([RAMP] * 3, [5, 5]), ValueError, BOUNDARIES.format("[5, 5]")),
    "boundaries falling": (lambda: clr.join([RAMP] * 3, (5, 3)), ValueError, BOUNDARIES.format("(5, 3)")),
    "boundary 0": (lambda: clr.join([RAMP, RAMP], [0]), ValueError, COUNT.format("boundaries[0]", "0")),
    "boundary float": (
        lambda: clr.join([RAMP] * 3, [3, 5.0]),
        TypeError,
        COUNT.format("boundaries[1]", "5.0"),
    ),
    "warmup of a number": (
        lambda: clr.warmup(0.1, 5),
        TypeError,
        SCHEDULE_RULE.format("schedule", "0.1"),
    ),
    "warmup steps": (lambda: clr.warmup(RAMP, 0), ValueError, COUNT.format("steps", "0")),
    "warmup steps float": (lambda: clr.warmup(RAMP, 2.5), TypeError, COUNT.format("steps", "2.5")),
    "warmup start": (lambda: clr.warmup(RAMP, 5, start=-1), ValueError, RATE.format("start", "-1")),
    "warmup shape": (lambda: clr.warmup(RAMP, 5, shape="sine"), ValueError, SHAPE.format("'sine'")),
    "momentum of a number": (
        lambda: clr.momentum(0.9),
        TypeError,
        SCHEDULE_RULE.format("schedule", "0.9"),
    ),
    "momentum low": (lambda: clr.momentum(RAMP, -0.1), ValueError, MOMENTUM.format("low", "-0.1")),
    "momentum high": (lambda: clr.momentum(RAMP, 0.5, 1.0), ValueError, MOMENTUM.format("high", "1.0")),
    "momentum nan": (lambda: clr.momentum(RAMP, NAN), ValueError, MOMENTUM.format("low", "nan")),
    "momentum str": (lambda: clr.momentum(RAMP, 0.5, "1"), TypeError, MOMENTUM.format("high", "'1'")),
    "momentum reversed": (
        lambda: clr.momentum(RAMP, 0.9, 0.8),
        ValueError,
        "`high` must be a finite number, `low` or more. Received: 0.8 with `low` 0.9.",
    ),
    "factor negative": (lambda: RAMP * -1, ValueError, RATE.format("factor", "-1")),
    "factor nan": (lambda: NAN * RAMP, ValueError, RATE.format("factor", "nan")),
    "factor inf": (lambda: RAMP * INF, ValueError, RATE.format("factor", "inf")),
    "factor bool": (lambda: RAMP * True, TypeError, RATE.format("factor", "True")),
    "factor too large": (lambda: clr.constant(1e200) * 1e200, ValueError, RATE.format("schedule * factor", "inf")),
    "clip low": (lambda: RAMP.clip(-0.1), ValueError, RATE.format("low", "-0.1")),
    "clip low None": (lambda: RAMP.clip(None), TypeError, RATE.format("low", "None")),
    "clip high": (
        lambda: RAMP.clip(0.1, NAN),
        ValueError,
        "`high` must be a finite number, `low` or more. Received: nan.",
    ),
    "clip reversed": (
        lambda: RAMP.clip(0.5, 0.25),
        ValueError,
        "`high` must be a finite number, `low` or more. Received: 0.25 with `low` 0.5.",
    ),
    "rule unknown": (lambda: RAMP.after_end("stop"), ValueError, RULE.format("'stop'")),
    "rule None": (lambda: RAMP.after_end(None), TypeError, RULE.format("None")),
    "after_end without end": (
        lambda: SCHEDULE.after_end("repeat"),
        ValueError,
        f"`schedule` must be one that has an end, for `after_end`. Received: {SCHEDULE!r}.",
    ),
    "step beyond the end": (
        lambda: RAMP.after_end("error")(5),
        ValueError,
        "`step` must be below 5, where the schedule ends. Received: 5.",
    ),
    "step of phases": (lambda: RAMP(2.5), ValueError, STEP.format("2.5")),
    "step of a join": (lambda: clr.join([RAMP, RAMP])(-1), ValueError, STEP.format("-1")),
    "cycle of phases": (lambda: RAMP.cycle("5"), TypeError, STEP.format("'5'")),
    "is_cycle_end of a multiple": (lambda: (RAMP * 2).is_cycle_end(-1), ValueError, STEP.format("-1")),
}


@pytest.mark.parametrize("case", TABLE)
def test_bad_argument(case: str) -> None:
    call, error, message = TABLE[case]
    with pytest.raises(error, match=f"^{re.escape(message)}$") as caught:
        call()
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
        clr.cyclic(0.0, 1.0, 10, scale_fn=lambda: 1.0)
