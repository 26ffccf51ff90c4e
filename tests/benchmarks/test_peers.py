"""The rates of the peers, run step by step, and their known faults, which are ours to avoid."""

import math
import warnings
from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np
import optax
import pytest
import torch

import clr

schedulers: Any = torch.optim.lr_scheduler

STEPS = 500
Anneal = Literal["cos", "linear"]


def run(make: Callable[[torch.optim.Optimizer], Any], steps: int, key: str = "lr", **arguments: Any) -> list[float]:
    """What one of PyTorch's schedulers sets for every step below ``steps``."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0, momentum=0.9, **arguments)
    scheduler = make(optimizer)
    values = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of steps not taken by the optimizer
        for _ in range(steps):
            values.append(float(optimizer.param_groups[0][key]))
            if len(values) < steps:
                scheduler.step()
    return values


def check(schedule: clr.Schedule, expected: list[float], tolerance: float = 1e-12, least: float = 0.0) -> None:
    assert expected
    for step, wanted in enumerate(expected):
        assert math.isclose(schedule(step), wanted, rel_tol=tolerance, abs_tol=least), step


# PyTorch


@pytest.mark.parametrize("anneal_strategy", ["cos", "linear"])
@pytest.mark.parametrize(
    ("part", "three_phase"),
    [(0.11, False), (0.237, False), (0.3, False), (0.5, False), (0.9, False), (0.11, True), (0.237, True), (0.5, True)],
)
@pytest.mark.parametrize(("div_factor", "final_div_factor"), [(25.0, 1e4), (1.0, 1.0), (3.0, 7.5)])
@pytest.mark.parametrize("total_steps", [10, 97, 500])
def test_one_cycle_is_torchs(
    anneal_strategy: Anneal,
    part: float,
    three_phase: bool,
    div_factor: float,
    final_div_factor: float,
    total_steps: int,
) -> None:
    arguments: dict[str, Any] = {
        "pct_start": part,
        "anneal_strategy": anneal_strategy,
        "div_factor": div_factor,
        "final_div_factor": final_div_factor,
        "three_phase": three_phase,
    }
    schedule = clr.one_cycle(0.1, total_steps, **arguments)
    peer = run(
        lambda optimizer: schedulers.OneCycleLR(optimizer, 0.1, total_steps, cycle_momentum=False, **arguments),
        total_steps,
    )
    # Near to the lowest rate the peer takes the difference of nearly equal numbers, each rounded to 2**-57.
    check(schedule, peer, least=2.0**-55)


def test_a_one_cycle_that_only_rises_is_torchs() -> None:
    peer = run(
        lambda optimizer: schedulers.OneCycleLR(optimizer, 0.1, 50, pct_start=1.0, cycle_momentum=False),
        50,
    )
    check(clr.one_cycle(0.1, 50, pct_start=1.0), peer)


@pytest.mark.parametrize("anneal_strategy", ["cos", "linear"])
def test_a_rise_of_one_step_divides_torch_by_zero_and_starts_ours_at_the_peak(anneal_strategy: Anneal) -> None:
    with pytest.raises(ZeroDivisionError):
        run(
            lambda optimizer: schedulers.OneCycleLR(
                optimizer, 0.1, 10, pct_start=0.1, anneal_strategy=anneal_strategy, cycle_momentum=False
            ),
            10,
        )
    schedule = clr.one_cycle(0.1, 10, pct_start=0.1, anneal_strategy=anneal_strategy)
    assert schedule(0) == 0.1
    rates = [schedule(step) for step in range(10)]
    assert rates == sorted(rates, reverse=True)
    assert math.isclose(rates[-1], 0.1 / 25 / 1e4)


def test_the_linear_one_cycle_is_negative_in_torch_at_its_end_and_ours_stays() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    peer = schedulers.OneCycleLR(optimizer, 1.0, 100, anneal_strategy="linear", cycle_momentum=False)
    for _ in range(100):
        optimizer.step()
        peer.step()
    assert peer.get_last_lr()[0] < -0.01
    schedule = clr.one_cycle(1.0, 100, anneal_strategy="linear")
    assert schedule(100) == schedule(99) == schedule(10**9) > 0


def test_three_phases_with_a_rise_past_the_middle_are_refused() -> None:
    def make(optimizer: torch.optim.Optimizer) -> Any:
        return schedulers.OneCycleLR(
            optimizer, 1.0, 100, pct_start=0.7, cycle_momentum=False, three_phase=True, anneal_strategy="linear"
        )

    peer = run(make, 100)
    assert peer[-1] > 0.5  # it has not come to its end
    with pytest.raises(ValueError, match=r"`pct_start` must be at most 0\.5 with `three_phase`"):
        clr.one_cycle(1.0, 100, pct_start=0.7, three_phase=True)


@pytest.mark.parametrize("first_cycle", [1, 10, 37])
@pytest.mark.parametrize("cycle_mult", [1, 2, 3])
@pytest.mark.parametrize("base_lr", [0.0, 0.01])
def test_warm_restarts_are_torchs(first_cycle: int, cycle_mult: int, base_lr: float) -> None:
    peer = run(
        lambda optimizer: schedulers.CosineAnnealingWarmRestarts(optimizer, first_cycle, cycle_mult, base_lr), STEPS
    )
    ours = clr.warm_restarts(1.0, first_cycle=first_cycle, base_lr=base_lr, cycle_mult=cycle_mult)
    check(ours, peer, least=1e-15)


def test_the_fifth_restart_is_missed_by_torch_and_not_by_ours() -> None:
    start = 10 * (3**5 - 1) // 2
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    peer = schedulers.CosineAnnealingWarmRestarts(optimizer, 10, 3)
    schedule = clr.warm_restarts(1.0, first_cycle=10, cycle_mult=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        peer.step(start)
    assert peer.get_last_lr()[0] < 1e-9
    assert schedule(start) == 1.0
    for number in range(36):
        start = 10 * (3**number - 1) // 2
        assert schedule(start) == 1.0
        assert schedule.cycle(start) == number + 1


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
@pytest.mark.parametrize(("up", "down"), [(20, None), (10, 35), (1, 1)])
def test_momentum_is_torchs(mode: Literal["triangular", "triangular2", "exp_range"], up: int, down: int | None) -> None:
    def make(optimizer: torch.optim.Optimizer) -> Any:
        return schedulers.CyclicLR(
            optimizer, 0.001, 0.006, up, down, mode, gamma=0.99, base_momentum=0.8, max_momentum=0.9
        )

    schedule = clr.cyclic(0.001, 0.006, up, step_size_down=down, mode=mode, gamma=0.99)
    check(schedule, run(make, STEPS))
    check(clr.momentum(schedule, 0.8, 0.9), run(make, STEPS, "momentum"))


@pytest.mark.parametrize("anneal_strategy", ["cos", "linear"])
def test_the_momentum_of_one_cycle_is_torchs_up_to_the_fall_to_almost_nothing(anneal_strategy: Anneal) -> None:
    # The peer's momentum is back at its highest where the rate is at its lowest, along the same way from the peak.
    def make(optimizer: torch.optim.Optimizer) -> Any:
        return schedulers.OneCycleLR(
            optimizer, 0.1, 100, anneal_strategy=anneal_strategy, final_div_factor=1.0, max_momentum=0.95
        )

    schedule = clr.momentum(clr.one_cycle(0.1, 100, anneal_strategy=anneal_strategy, final_div_factor=1.0))
    check(schedule, run(make, 100, "momentum"))


def test_triangular2_overflows_in_torch_in_cycle_1025_and_ours_goes_on() -> None:
    def make(optimizer: torch.optim.Optimizer) -> Any:
        return schedulers.CyclicLR(optimizer, 0.001, 0.006, 1, 1, "triangular2", cycle_momentum=False)

    with pytest.raises(OverflowError):
        run(make, 2 * 1025 + 2)
    schedule = clr.triangular2(0.001, 0.006, 1)
    assert [schedule(2 * cycle + 1) for cycle in (1024, 1025, 1026, 2**40)] == [0.001] * 4
    assert clr.triangular2(0.0, 2.0**1000, 1)(2 * 1030 + 1) == 2.0**-30


def test_a_saved_scheduler_is_not_changed_by_loading_it() -> None:
    schedule = clr.one_cycle(0.1, 100)
    data = schedule.to_dict()
    assert [clr.from_dict(data) for _ in range(2)] == [schedule] * 2


# fastai


def combined_cos(part: float, start: float, middle: float, end: float) -> Callable[[float], float]:
    """fastai's schedule of the same name: two half waves of a cosine, of a position from 0 to 1."""

    def half_wave(before: float, after: float, place: float) -> float:
        return before + (1 + math.cos(math.pi * (1 - place))) * (after - before) / 2

    def at(position: float) -> float:
        if position < part:
            return half_wave(start, middle, position / part)
        return half_wave(middle, end, (position - part) / (1 - part))

    return at


@pytest.mark.parametrize("total_steps", [4, 77, 1000])
@pytest.mark.parametrize("part", [0.1, 0.25, 0.3, 0.75])
@pytest.mark.parametrize(("div", "div_final"), [(25.0, 1e5), (10.0, 1e3)])
def test_one_cycle_fastai_is_fastais(total_steps: int, part: float, div: float, div_final: float) -> None:
    schedule = clr.one_cycle_fastai(0.1, total_steps, part, div, div_final)
    peer = combined_cos(part, 0.1 / div, 0.1, 0.1 / div_final)
    check(schedule, [peer(step / total_steps) for step in range(total_steps)], 1e-11)


# Optax


def optax_rates(schedule: optax.Schedule, steps: int) -> list[float]:
    return [float(schedule(step)) for step in range(steps)]


def test_join_is_optaxs() -> None:
    peer = optax.join_schedules(
        [optax.linear_schedule(0.0, 0.1, 10), optax.constant_schedule(0.05), optax.linear_schedule(0.2, 0.1, 20)],
        [15, 40],
    )
    ours = clr.join([clr.ramp(0.0, 0.1, 10), clr.constant(0.05), clr.ramp(0.2, 0.1, 20)], boundaries=[15, 40])
    check(ours, optax_rates(peer, 80), 1e-6)


def test_warm_restarts_are_optaxs_sgdr() -> None:
    cycles = [{"init_value": 0.0, "peak_value": 1.0, "decay_steps": 10 * 2**n, "warmup_steps": 0} for n in range(4)]
    peer = optax.sgdr_schedule(cycles)
    ours = clr.warm_restarts(1.0, first_cycle=10, cycle_mult=2)
    check(ours, optax_rates(peer, 150), 1e-5, least=1e-6)


def test_corners_that_share_a_whole_step_lose_the_peak_in_optax_and_not_in_ours() -> None:
    peer = optax.linear_onecycle_schedule(transition_steps=2, peak_value=1.0, pct_start=0.6, pct_final=0.85)
    assert max(optax_rates(peer, 3)) < 0.99
    ours = clr.phases((0.04, 1.0, 0.04, 0.0), lengths=(1, 0.5, 0.5))
    assert [ours(step) for step in range(3)] == [0.04, 1.0, 0.0]


def test_an_array_of_steps_is_taken_where_optax_gives_wrong_rates() -> None:
    steps = np.array([25, 75])
    peer = optax.cosine_onecycle_schedule(100, 1.0)
    assert np.asarray(peer(steps)).tolist() != [float(peer(25)), float(peer(75))]
    with pytest.raises(TypeError):
        optax.linear_onecycle_schedule(100, 1.0)(steps)
    schedule = clr.one_cycle(1.0, 100)
    assert schedule(steps).tolist() == [schedule(25), schedule(75)]


# Keras


@pytest.mark.parametrize(
    ("cycle_mult", "decay", "alpha"), [(1.0, 1.0, 0.0), (2.0, 1.0, 0.1), (2.0, 0.8, 0.0), (1.5, 0.9, 0.0)]
)
def test_warm_restarts_are_those_of_keras(cycle_mult: float, decay: float, alpha: float) -> None:
    peer = keras.optimizers.schedules.CosineDecayRestarts(0.1, 20, cycle_mult, decay, alpha)
    ours = clr.warm_restarts(0.1, first_cycle=20, base_lr=alpha * 0.1, cycle_mult=cycle_mult, peak_decay=decay)
    restarts = {20 * sum(cycle_mult**n for n in range(number)) for number in range(20)}
    for step in range(200):
        if step in restarts and cycle_mult != 1:
            continue  # where a logarithm in float32 may fall on either side
        assert math.isclose(ours(step), float(peer(step)), rel_tol=1e-5, abs_tol=1e-7), step


def test_a_large_step_is_rounded_by_keras_and_exact_in_ours() -> None:
    peer = keras.optimizers.schedules.CosineDecayRestarts(0.1, 20, 1.0)
    step = 2**24 + 1
    assert float(peer(step)) == float(peer(step - 1))
    ours = clr.warm_restarts(0.1, first_cycle=20)
    assert math.isclose(ours(step), 0.05 * (1 + math.cos(math.pi * (step % 20) / 20)), rel_tol=1e-12)


@pytest.mark.parametrize("step", [500, 1000, 10**9, 2**53])
def test_past_the_end_of_a_cosine_nothing_climbs_back(step: int) -> None:
    assert clr.ramp(0.1, 0.0, 500, shape="cosine")(step) == 0.0
