"""The trainings of the demonstration are the same in every framework, with the rates of the schedule."""

from fractions import Fraction
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from clr.demo import report
from clr.demo.training import FIXED, FRAMEWORKS, Rates, Run, digits, start
from tests import curves
from tests.curves import measured
from tests.reference import exact_rate

STEPS = 40
RATES = Rates(fixed=0.02, base_lr=0.01, max_lr=0.1)
each_framework = pytest.mark.parametrize("framework", FRAMEWORKS)
# Where the rate changes, Keras' momentum differs from that of the others.
ALIKE = ("tensorflow", "torch", "jax")


@cache
def trained(framework: str, policy: str, seed: int = 0) -> Run:
    *_, run = import_module(f"clr.demo.{framework}").train(policy, seed, STEPS, RATES)
    return run  # type: ignore[no-any-return]


def logits(framework: str, images: Any) -> Any:
    module: Any = import_module(f"clr.demo.{framework}")
    weights, _ = start(0, STEPS)
    if framework in ("tensorflow", "jax"):
        return np.asarray(module.network(weights, images))
    if framework == "torch":
        return module.network(weights)(module.channels_first(images)).detach().numpy()
    return module.network(weights)(images).numpy()


def test_the_network_has_as_many_weights_as_it_says() -> None:
    weights, batches = start(0, STEPS)
    assert sum(part.size for part in weights) == 9930
    assert batches.shape == (STEPS, 32)
    assert len(set(batches[:37].ravel().tolist())) == 37 * 32  # an epoch sees no image twice


@each_framework
def test_the_networks_are_the_same(framework: str) -> None:
    images = digits()[0][:16]
    assert np.allclose(logits(framework, images), logits("keras", images), rtol=1e-4, atol=1e-5)


@each_framework
@pytest.mark.parametrize("policy", [FIXED, "triangular", "triangular2", "exp_range"])
def test_the_applied_rates_are_exact(framework: str, policy: str) -> None:
    run = trained(framework, policy)
    assert (run.framework, run.policy, run.seed, len(run.rates)) == (framework, policy, 0, STEPS)
    mode, base, top = ("triangular", 0.02, 0.02) if policy == FIXED else (policy, 0.01, 0.1)
    for step, rate in enumerate(run.rates):
        exact = exact_rate(step, base, top, 76, mode=mode, gamma=0.2 ** (1 / STEPS))  # two epochs of 38 batches
        assert abs(Fraction(rate) / exact - 1) < Fraction(2, 10**7)


@each_framework
def test_it_learns(framework: str) -> None:
    run = trained(framework, "triangular")
    assert run.losses[0] == pytest.approx(np.log(10), rel=0.1)  # no idea which of ten digits
    assert np.mean(run.losses[-5:]) < 0.7 * run.losses[0]
    assert len(run.accuracies) == STEPS // 10
    assert run.accuracies[-1] > 0.6


@each_framework
def test_the_same_seed_trains_alike(framework: str) -> None:
    first, other = trained(framework, FIXED), trained(framework, FIXED, seed=1)
    *_, again = import_module(f"clr.demo.{framework}").train(FIXED, 0, STEPS, RATES)
    assert np.allclose(again.losses, first.losses, rtol=1e-3)
    assert not np.allclose(other.losses, first.losses, rtol=1e-2)


@pytest.mark.parametrize("policy", [FIXED, "triangular"])
def test_the_frameworks_train_alike(policy: str) -> None:
    alike = FRAMEWORKS if policy == FIXED else ALIKE
    losses = [trained(framework, policy).losses[:20] for framework in alike]
    assert np.allclose(losses, losses[0], rtol=2e-3)


def test_the_rates_are_those_of_a_range_test() -> None:
    test = measured(curves.valley)
    rates = Rates.of(test)
    assert (rates.base_lr, rates.max_lr) == tuple(test.bounds())
    assert rates.fixed == test.suggest("valley")
    schedule = rates.schedule("triangular2", 100)
    assert schedule(0) == rates.base_lr
    assert schedule(76) == pytest.approx(rates.max_lr)  # two epochs of 38 batches
    assert rates.schedule(FIXED, 100)(50) == pytest.approx(rates.fixed)


def test_differences_of_the_rates_are_told() -> None:
    rates = [float(np.float32(RATES.schedule("triangular", 3)(step))) for step in range(3)]
    equal, near = Run("torch", "triangular", 0, rates=rates), Run("jax", "triangular", 0, rates=list(rates))
    near.rates[1] *= 1 + 2.0**-10
    assert report.rates_in_words([equal], RATES) == [
        "The 3 applied rates of each run equal those of the schedule, rounded to float32."
    ]
    first, second, both = report.rates_in_words([equal, near], RATES)
    assert first == "torch: the 3 applied rates of each run equal those of the schedule, rounded to float32."
    assert second == (
        "jax: the 3 applied rates of each run are within 1e-03 (relative) of those of the schedule, rounded to float32."
    )
    assert both == "The rates of torch and jax are within 1e-03 (relative) of each other."


def test_the_summary_finds_the_steps_to_the_best_of_the_fixed_rate() -> None:
    accuracies = {
        ("fixed", 0): [0.5, 0.8, 0.7],
        ("fixed", 1): [0.5, 0.6, 0.7],
        ("triangular", 0): [0.6, 0.9, 0.9],
        ("triangular", 1): [0.6, 0.7, 0.5],
        ("exp_range", 0): [0.1, 0.1, 0.69],
    }
    runs = [Run("torch", policy, seed, accuracies=values) for (policy, seed), values in accuracies.items()]
    fixed, triangular, exp_range = report.summary(runs, RATES)
    assert fixed["best_accuracy"] == pytest.approx(70)
    assert (fixed["steps_to_fixed_best"], triangular["steps_to_fixed_best"]) == (20, 20)
    assert exp_range["steps_to_fixed_best"] is None
    assert triangular["final_accuracy"] == pytest.approx(70)
    assert triangular["final_accuracy_range"] == pytest.approx([50, 90])
    assert [row["seeds"] for row in (fixed, triangular, exp_range)] == [2, 2, 1]
