"""The rates of every schedule by their definitions, in exact arithmetic: slow, and with no code shared.

A schedule is described as plain data: the name of the function that makes it as "kind", beside that function's
arguments, as `clr.Schedule.to_dict` has it, but without those that have their default.
`exact` gives the rate before any rounding; cosines and powers are taken to 80 digits.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import mpmath

import clr

GOLDEN = Path(__file__).parent / "golden"
LAST = 2**53 - 1
FARTHEST = 2**63
NEGLIGIBLE = 4000  # a factor of 2 ** -4000 leaves nothing of any float64

Plain = dict[str, Any]

CYCLES = ("cyclic", "triangular", "triangular2", "exp_range", "warm_restarts")
TRAININGS = ("cosine", "linear", "wsd")
_LINES: Plain = {"base_lr": ..., "max_lr": ..., "step_size": ..., "step_size_down": None}
_WAYS: Plain = {"shape": "linear", "cycle_mult": 1}
_LENGTHS: Plain = {"max_lr": ..., "total_steps": ..., "warmup_steps": 0}
# The arguments of each kind in order, with their defaults.
ARGUMENTS: dict[str, Plain] = {
    "join": {"schedules": ..., "boundaries": None, "single_cycle": False},
    "momentum": {"schedule": ..., "low": 0.85, "high": 0.95},
    "multiple": {"schedule": ..., "factor": ...},
    "clip": {"schedule": ..., "low": 0.0, "high": None},
    "after_end": {"schedule": ..., "rule": ...},
    "triangular": _LINES | _WAYS,
    "triangular2": _LINES | _WAYS,
    "exp_range": _LINES | {"gamma": 0.99994} | _WAYS,
    "cyclic": _LINES
    | {"mode": "triangular", "gamma": 0.99994, "peak_decay": 1.0, "scale_fn": None, "scale_mode": "cycle"}
    | _WAYS,
    "warm_restarts": {"max_lr": ..., "first_cycle": ..., "base_lr": 0.0, "cycle_mult": 1, "peak_decay": 1.0},
    "phases": {"levels": ..., "lengths": [], "shape": "linear", "total_steps": None},
    "constant": {"lr": ...},
    "ramp": {"start": ..., "end": ..., "steps": ..., "shape": "linear"},
    "warmup": {"schedule": ..., "steps": ..., "start": 0.0, "shape": "linear"},
    "cosine": _LENGTHS | {"min_lr": 0.0},
    "linear": _LENGTHS | {"min_lr": 0.0},
    "wsd": _LENGTHS | {"decay_steps": ..., "min_lr": 0.0, "decay": "1-sqrt"},
    "one_cycle": {
        "max_lr": ...,
        "total_steps": ...,
        "pct_start": 0.3,
        "anneal_strategy": "cosine",
        "div_factor": 25.0,
        "final_div_factor": 1e4,
        "three_phase": False,
    },
    "one_cycle_fastai": {"max_lr": ..., "total_steps": ..., "pct_start": 0.25, "div": 25.0, "div_final": 1e5},
}


def whole_call(plain: Plain) -> Plain:
    """A description with the defaults, of its parts too, as it is saved: a value is written in one way there."""
    result = {"kind": plain["kind"], **ARGUMENTS[plain["kind"]], **plain}
    if result.get("anneal_strategy") == "cos":
        result["anneal_strategy"] = "cosine"
    for name in ("step_size", "step_size_down"):
        if isinstance(result.get(name), float) and result[name].is_integer():
            result[name] = int(result[name])
    for name in {"schedule"} & set(plain):
        result[name] = whole_call(plain[name])
    if "schedules" in plain:
        result["schedules"] = [whole_call(part) for part in plain["schedules"]]
    return result


def made(plain: Plain) -> clr.Schedule:
    """The schedule under test."""
    arguments = dict(plain)
    kind = arguments.pop("kind")
    if "schedules" in arguments:
        arguments["schedules"] = [made(part) for part in arguments["schedules"]]
    if "schedule" in arguments:
        arguments["schedule"] = made(arguments["schedule"])
    if kind in ("multiple", "clip", "after_end"):
        schedule: clr.Schedule = arguments.pop("schedule")
        if kind == "multiple":
            factor: float = arguments["factor"]
            return schedule * factor
        return schedule.clip(**arguments) if kind == "clip" else schedule.after_end(**arguments)
    result: clr.Schedule = getattr(clr, kind)(**arguments)
    return result


# What it is


@dataclass(frozen=True)
class Cycles:
    """Cycles that rise and fall, each a number of times as long as the one before."""

    low: Fraction
    high: Fraction
    up: Fraction
    down: Fraction
    mode: str
    gamma: float
    shape: str
    factor: Fraction


@dataclass(frozen=True)
class Corners:
    """Slopes through corners, and a number of steps after which it counts as ended."""

    at: tuple[tuple[Fraction, Fraction, Fraction, Fraction], ...]  # start, end, the rates there
    shape: str
    total: int


def nearest(number: float | Fraction, finest: int) -> Fraction:
    """What a number stands for that need not be whole."""
    return Fraction(number).limit_denominator(finest)


def cycles(plain: Plain) -> Cycles:
    """The cycles of one of `CYCLES`."""
    kind, plain = plain["kind"], ARGUMENTS[plain["kind"]] | plain
    if kind == "warm_restarts":
        up, down, mode, gamma, shape = 0, plain["first_cycle"], "peak_decay", plain["peak_decay"], "cosine"
    else:
        up, shape = plain["step_size"], plain["shape"]
        down = up if plain["step_size_down"] is None else plain["step_size_down"]
        mode = plain["mode"] if kind == "cyclic" else kind
        gamma = plain["peak_decay"] if mode == "peak_decay" else plain.get("gamma", 1.0)
    return Cycles(
        Fraction(plain["base_lr"]),
        Fraction(plain["max_lr"]),
        nearest(up, 1000),
        nearest(down, 1000),
        mode,
        gamma,
        shape,
        nearest(plain["cycle_mult"], 10**6),
    )


def corners(plain: Plain) -> Corners:
    """The corners of all others that are not made of schedules, nor `TRAININGS`."""
    plain = ARGUMENTS[plain["kind"]] | plain
    match plain["kind"]:
        case "constant":
            level = Fraction(plain["lr"])
            return Corners(((Fraction(0), Fraction(0), level, level),), "linear", 1)
        case "ramp":
            levels, lengths = [plain["start"], plain["end"]], [plain["steps"]]
        case "phases":
            levels, lengths = plain["levels"], plain["lengths"]
        case "one_cycle":
            return one_cycle(plain)
        case "one_cycle_fastai":
            total, peak = plain["total_steps"], Fraction(plain["max_lr"])
            first, last = (peak / Fraction(plain[name]) for name in ("div", "div_final"))
            places = [Fraction(0), nearest(plain["pct_start"], 10**6) * total, Fraction(total)]
            return Corners(slopes(places, [first, peak, last]), "cosine", total)
        case kind:
            raise ValueError(kind)
    if not lengths:
        return corners({"kind": "constant", "lr": levels[0]})
    places = list(accumulate((nearest(steps, 10**6) for steps in lengths), initial=Fraction(0)))
    total = plain.get("total_steps") or math.floor(places[-1]) + 1
    return Corners(slopes(places, list(map(Fraction, levels))), plain["shape"], total)


def one_cycle(plain: Plain) -> Corners:
    total, peak = plain["total_steps"], Fraction(plain["max_lr"])
    first = peak / Fraction(plain["div_factor"])
    last = first / Fraction(plain["final_div_factor"])
    up = max(nearest(plain["pct_start"], 10**6) * total - 1, Fraction(0))
    if plain["three_phase"]:
        places, levels = [Fraction(0), up, 2 * up, Fraction(total - 1)], [first, peak, first, last]
    else:
        places, levels = [Fraction(0), up, Fraction(total - 1)], [first, peak, last]
    return Corners(slopes(places, levels), "linear" if plain["anneal_strategy"] == "linear" else "cosine", total)


def slopes(places: list[Fraction], levels: list[Fraction]) -> tuple[tuple[Fraction, Fraction, Fraction, Fraction], ...]:
    """The slopes between corners; those of no length are left out."""
    ways = zip(pairwise(places), pairwise(levels), strict=True)
    return tuple((start, end, *rates) for (start, end), rates in ways if end > start)


# The cycle at a step


@cache
def starts(up: Fraction, down: Fraction, factor: Fraction) -> tuple[Fraction, ...]:
    """Where growing or shrinking cycles begin, and where the last one ends."""
    result, length = [Fraction(0)], up + down
    while result[-1] < FARTHEST and (factor > 1 or length >= 1 or len(result) == 1):
        result.append(result[-1] + length)
        length *= factor
    return tuple(result)


def place(wave: Cycles, step: int) -> tuple[int, Fraction, Fraction] | None:
    """The cycle at a step, how far into it the step is, and by how much it is longer than the first; or the end."""
    if wave.factor == 1:
        cycle, offset = divmod(Fraction(step), wave.up + wave.down)
        return cycle, offset, Fraction(1)
    turns = starts(wave.up, wave.down, wave.factor)
    for cycle, (start, end) in enumerate(pairwise(turns)):
        if start <= step < end:
            return cycle, step - start, wave.factor**cycle
    return None


# The rate


def climbed(shape: str, part: Fraction) -> Fraction:
    """How high a slope has come after a part of its length, of 1."""
    if shape == "linear":
        return part
    with mpmath.workdps(80):
        if shape == "1-sqrt":
            return fraction(1 - mpmath.sqrt(mpmath.mpf(part.denominator - part.numerator) / part.denominator))
        return fraction((1 - mpmath.cos(mpmath.pi * mpmath.mpf(part.numerator) / part.denominator)) / 2)


def between(before: Fraction, after: Fraction, shape: str, part: Fraction) -> Fraction:
    """The rate after a part of the way from one to another: a slope is climbed from its lower end."""
    low, high = sorted((before, after))
    return low + (high - low) * climbed(shape, part if before <= after else 1 - part)


def power(gamma: float, exponent: int) -> Fraction:
    with mpmath.workdps(80):
        result = mpmath.power(mpmath.mpf(gamma), exponent)
        return Fraction(0) if result < mpmath.mpf(2) ** -NEGLIGIBLE else fraction(result)


def fraction(number: Any) -> Fraction:
    if number == 0:
        return Fraction(0)
    return Fraction(int(number.man)) * (-1 if number < 0 else 1) * Fraction(2) ** int(number.exp)


def scale(wave: Cycles, step: int, cycle: int) -> Fraction:
    match wave.mode:
        case "triangular":
            return Fraction(1)
        case "triangular2":
            return Fraction(1, 2 ** min(cycle, NEGLIGIBLE))
        case "exp_range":
            return power(wave.gamma, step)
        case "peak_decay":
            return power(wave.gamma, cycle)
    raise ValueError(wave.mode)


def exact(plain: Plain, step: int) -> Fraction:
    """The rate at a step."""
    kind, plain = plain["kind"], ARGUMENTS[plain["kind"]] | plain
    match kind:
        case _ if kind in CYCLES:
            wave = cycles(plain)
            where = place(wave, step)
            if where is None:
                return wave.low
            cycle, offset, factor = where
            up, down = wave.up * factor, wave.down * factor
            height = climbed(wave.shape, offset / up if offset < up else (up + down - offset) / down)
            return wave.low + (wave.high - wave.low) * height * scale(wave, step, cycle)
        case _ if kind in TRAININGS:
            warm, begin, last = phases_of(plain)
            peak, lowest = Fraction(plain["max_lr"]), Fraction(plain["min_lr"])
            if step < warm:
                return peak * (step + 1) / (warm + 1)
            left = Fraction(max(last - max(step, begin), 0), last - begin)
            return lowest + (peak - lowest) * climbed(plain["decay"] if kind == "wsd" else kind, left)
        case "join":
            own, part = part_at(plain, step)
            return exact(part, own)
        case "warmup":
            count, start = plain["steps"], Fraction(plain["start"])
            if step >= count:
                return exact(plain["schedule"], step - count)
            return between(start, exact(plain["schedule"], 0), plain["shape"], Fraction(step, count))
        case "multiple":
            return exact(plain["schedule"], step) * Fraction(plain["factor"])
        case "clip":
            rate = max(exact(plain["schedule"], step), Fraction(plain["low"]))
            return rate if plain["high"] is None else min(rate, Fraction(plain["high"]))
        case "momentum":
            lowest, highest = limits(plain["schedule"])
            low, high = Fraction(plain["low"]), Fraction(plain["high"])
            if lowest == highest:
                return high
            return high - (high - low) * (exact(plain["schedule"], step) - lowest) / (highest - lowest)
        case "after_end":
            steps = total(plain["schedule"])
            assert steps is not None
            return exact(plain["schedule"], step % steps if plain["rule"] == "repeat" else step)
    through = corners(plain)
    for start, end, before, after in through.at:
        if start <= step < end:
            return between(before, after, through.shape, (step - start) / (end - start))
    return through.at[-1][-1]


def phases_of(plain: Plain) -> tuple[int, int, int]:
    """The steps at which a training has its highest rate, begins to decay and has its lowest rate."""
    warm, last = plain.get("warmup_steps", 0), plain["total_steps"] - 1
    return warm, last - plain["decay_steps"] if plain["kind"] == "wsd" else warm, last


def rate(plain: Plain, step: int) -> float:
    """The exact rate, rounded once to float64."""
    return float(exact(plain, step))


def part_at(plain: Plain, step: int) -> tuple[int, Plain]:
    """The step of its own, and the schedule of a join that is on."""
    begins = boundaries(plain)
    number = max(number for number, begin in enumerate(begins) if begin <= step)
    return step - begins[number], plain["schedules"][number]


def boundaries(plain: Plain) -> list[int]:
    """Where the schedules of a join begin."""
    if plain.get("boundaries") is not None:
        return [0, *plain["boundaries"]]
    return list(accumulate((total(part) or 0 for part in plain["schedules"][:-1]), initial=0))


def total(plain: Plain) -> int | None:
    """The number of steps after which it has come to its end."""
    match plain["kind"]:
        case "join":
            last = total(plain["schedules"][-1])
            return None if last is None else boundaries(plain)[-1] + last
        case "warmup":
            rest = total(plain["schedule"])
            return None if rest is None else int(plain["steps"]) + rest
        case "multiple" | "clip" | "momentum":
            return total(plain["schedule"])
        case "after_end":
            return None if plain["rule"] == "repeat" else total(plain["schedule"])
        case kind if kind in CYCLES:
            wave = cycles(plain)
            return None if wave.factor >= 1 else math.ceil(starts(wave.up, wave.down, wave.factor)[-1])
        case kind if kind in TRAININGS:
            return int(plain["total_steps"])
    return corners(plain).total


def limits(plain: Plain) -> tuple[Fraction, Fraction]:
    """A lower and an upper bound of the rates."""
    plain = ARGUMENTS[plain["kind"]] | plain
    match plain["kind"]:
        case "join":
            each = [limits(part) for part in plain["schedules"]]
            return min(low for low, _ in each), max(high for _, high in each)
        case "warmup":
            low, high = limits(plain["schedule"])
            start = Fraction(plain["start"])
            return min(low, start), max(high, start)
        case "multiple":
            low, high = limits(plain["schedule"])
            return low * Fraction(plain["factor"]), high * Fraction(plain["factor"])
        case "clip":
            low, high = (max(bound, Fraction(plain["low"])) for bound in limits(plain["schedule"]))
            top = high if plain["high"] is None else Fraction(plain["high"])
            return min(low, top), min(high, top)
        case "momentum":
            return Fraction(plain["low"]), Fraction(plain["high"])
        case "after_end":
            return limits(plain["schedule"])
        case kind if kind in CYCLES:
            wave = cycles(plain)
            return wave.low, wave.high
        case kind if kind in TRAININGS:
            peak = Fraction(plain["max_lr"])
            return min(peak / (plain["warmup_steps"] + 1), Fraction(plain["min_lr"])), peak
    levels = [level for *_, before, after in corners(plain).at for level in (before, after)]
    return min(levels), max(levels)


# The cycle


def marker(plain: Plain, step: int) -> Any:
    """What tells the cycle at a step from all others. The steps after the end are a cycle of their own."""
    match plain["kind"]:
        case "join" if plain.get("single_cycle"):
            end = total(plain)
            return end is not None and step >= end
        case "join":
            begins = boundaries(plain)
            number = sum(begin <= step for begin in begins) - 1
            return number, marker(plain["schedules"][number], step - begins[number])
        case "warmup":
            count = plain["steps"]
            return (0, 0) if step < count else (1, marker(plain["schedule"], step - count))
        case "after_end" if plain["rule"] == "repeat":
            lap, own = divmod(step, total(plain["schedule"]) or 0)
            return lap, marker(plain["schedule"], own)
        case "multiple" | "clip" | "momentum" | "after_end":
            return marker(plain["schedule"], step)
        case kind if kind in CYCLES:
            where = place(cycles(plain), step)
            return None if where is None else where[0]
        case kind if kind in TRAININGS:
            return step >= plain["total_steps"]
    is_constant = plain["kind"] == "constant" or not (ARGUMENTS[plain["kind"]] | plain).get("lengths", True)
    return not is_constant and step >= corners(plain).total


# Where something happens


def turns(plain: Plain) -> Iterator[Fraction]:
    """Some of the places where the rate turns or jumps."""
    match plain["kind"]:
        case "join":
            for begin, part in zip(boundaries(plain), plain["schedules"], strict=True):
                yield from (begin + turn for turn in turns(part))
        case "warmup":
            yield from (plain["steps"] + turn for turn in turns(plain["schedule"]))
        case "multiple" | "clip" | "momentum":
            yield from turns(plain["schedule"])
        case "after_end":
            steps = total(plain["schedule"]) or 0
            for turn in turns(plain["schedule"]):
                yield from (turn + lap * steps for lap in (0, 1, 7, 2**31 // steps, 10**12))
        case kind if kind in CYCLES:
            wave = cycles(plain)
            if wave.factor == 1:
                numbers = [0, 1, 2, 33, 1025, 2**31 // math.ceil(wave.up + wave.down), 10**12]
                found = [(cycle * (wave.up + wave.down), Fraction(1)) for cycle in numbers]
            else:
                every = starts(wave.up, wave.down, wave.factor)
                numbers = sorted(
                    {number for number in (0, 1, 2, 3, 4, 7, len(every) // 2, len(every) - 1) if number < len(every)}
                )
                found = [(every[number], wave.factor**number) for number in numbers]
            for start, factor in found:
                yield start
                if wave.up:
                    yield start + wave.up * factor
        case kind if kind in TRAININGS:
            yield from map(Fraction, (*phases_of(plain), plain["total_steps"]))
        case _:
            for start, end, *_ in corners(plain).at:
                yield from (start, end)


def far_steps(plain: Plain) -> list[int]:
    """The first steps, those at every turn, and large ones."""
    places = {Fraction(0), Fraction(5), *turns(plain)}
    near = {math.floor(turn) + shift for turn in places for shift in (-1, 0, 1, 2)}
    large = {2**24 - 1, 2**24 + 1, 2**31 - 1, 2**31, 2**40 + 3, LAST}
    return sorted(step for step in near | large if 0 <= step <= LAST)


@dataclass(frozen=True)
class Row:
    """One line of a golden file: a schedule, and its exact rates rounded once to float64."""

    schedule: Plain
    steps: tuple[int, ...]
    lrs: tuple[float, ...]

    def __str__(self) -> str:
        return name(self.schedule)


def name(plain: Plain) -> str:
    """A short text that tells schedules apart."""
    inner = "-".join(
        name(value) if isinstance(value, dict) else "".join(map(str, value)) if isinstance(value, list) else str(value)
        for key, value in plain.items()
        if key not in ("kind", "schedules")
    )
    return "-".join([plain["kind"], *(part["kind"] for part in plain.get("schedules", ())), inner])


@cache
def golden() -> tuple[Row, ...]:
    """The rows of the golden files; ``ids=str`` names them in a parametrized test."""
    files = sorted(GOLDEN.glob("*.jsonl"))
    rows = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return tuple(Row(row["schedule"], tuple(row["steps"]), tuple(row["lrs"])) for row in rows)
