"""The trainings of the demonstration are the same in every framework, with the rates of the schedule."""

from fractions import Fraction
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import clr
from clr.demo import report
from clr.demo.training import FIXED, FRAMEWORKS, ONE_CYCLE, Rates, Run, digits, search_data, start, tries
from tests import curves
from tests.curves import measured
from tests.reference import exact_rate

STEPS = 40
RATES = Rates(fixed=0.02, base_lr=0.01, max_lr=0.1)
each_framework = pytest.mark.parametrize("framework", FRAMEWORKS)
# Where the rate changes, Keras' momentum differs from that of the others.
ALIKE = ("tensorflow", "torch", "jax")


# A test of 300 steps and two trials of 150 updates.
SEARCH = clr.Search(
    measured(curves.endless),
    tuple(clr.Trial(1, rate, 150, (2.0,) * 150, score, "completed") for rate, score in ((0.1, 0.5), (0.3, 0.4))),
    2.0,
    total_steps=1200,
    budget=700,
)


@cache
def searched(framework: str) -> clr.Search:
    return import_module(f"clr.demo.{framework}").search(100)  # type: ignore[no-any-return]


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
def test_one_cycle_ends_with_the_training(framework: str) -> None:
    rates = trained(framework, ONE_CYCLE).rates
    # Half a cosine up from base_lr to max_lr in 30% of the steps, and one down to a ten thousandth of base_lr.
    up = 0.01 + 0.09 * (1 - np.cos(np.pi * np.arange(12) / 11)) / 2
    down = 1e-6 + (0.1 - 1e-6) * (1 + np.cos(np.pi * np.arange(29) / 28)) / 2
    assert np.allclose(rates, [*up, *down[1:]], rtol=1e-5, atol=1e-8)


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


def test_a_search_holds_out_a_fifth_of_the_digits_for_training() -> None:
    def digits_of(images: Any) -> set[bytes]:
        return {image.tobytes() for image in images}

    _, batches, (held_out, labels) = search_data()
    x, y, x_test, _ = digits()
    seen = digits_of(np.concatenate([images for images, _ in batches]))
    assert len(x) == 1200
    assert len(held_out) == len(labels) == 240
    assert len(seen) == 960
    assert digits_of(x) == seen | digits_of(held_out)
    assert not (seen | digits_of(held_out)) & digits_of(x_test)
    known = {image.tobytes(): label for image, label in zip(x, y, strict=True)}
    for images, own in [*batches[:40], (held_out, labels)]:
        assert [known[image.tobytes()] for image in images] == own.tolist()


@each_framework
def test_every_trial_of_a_search_begins_with_the_same_weights_and_batches(framework: str) -> None:
    search = searched(framework)
    assert search.total_steps == 100
    assert search.start == pytest.approx(np.log(10), rel=0.1)
    assert search.range_test is not None
    assert len(search.trials) >= 4
    for trial in search.trials:
        # The first rates of the test are too small to change the weights, and those of the trials begin near zero.
        assert trial.losses[0] == pytest.approx(search.range_test.losses[0], rel=1e-4)
        if trial.max_lr < 0.1:
            assert trial.losses[:3] == pytest.approx(search.range_test.losses[:3], rel=0.02)
    assert 0.01 < search.bounds().max_lr < 0.5


def test_the_frameworks_search_alike() -> None:
    own = {framework: searched(framework) for framework in FRAMEWORKS}
    losses = {name: search.range_test.losses for name, search in own.items() if search.range_test is not None}
    assert np.allclose([losses[name][:60] for name in ALIKE], losses["torch"][:60], rtol=1e-5)
    assert np.allclose(losses["keras"][:30], losses["torch"][:30], rtol=1e-4)
    assert [search.start for search in own.values()] == [pytest.approx(own["torch"].start, rel=1e-5)] * 4


def test_the_bounds_are_those_of_the_search_and_the_fixed_rate_is_the_best_of_the_usual_ones() -> None:
    own = [Run("torch", FIXED, 0, accuracies=values) for values in ([0.5, 0.6, 0.7], [0.6, 0.9, 0.5], [0.7, 0.8, 0.8])]
    rates = Rates.of(SEARCH, own)
    assert (rates.base_lr, rates.max_lr) == tuple(SEARCH.bounds())
    assert rates.fixed == 0.03, "the best is 0.9, and was reached at the second rate"
    assert Rates.of(SEARCH, own[::-1]).fixed == 0.03
    assert Rates.of(SEARCH, [own[1], *own[::2]]).fixed == 0.01
    with pytest.raises(ValueError, match="shorter"):
        Rates.of(SEARCH, own[:2])


def test_the_fixed_rate_costs_as_much_as_the_search() -> None:
    assert SEARCH.updates == 600
    planned = tries("torch", SEARCH)
    assert [(plan.framework, plan.policy, plan.seed, plan.total_steps) for plan in planned] == [
        ("torch", FIXED, 0, 200)
    ] * 3
    assert [plan.rates.schedule(FIXED, 200)(7) for plan in planned] == [0.01, 0.03, 0.1]


def test_what_the_rates_cost_is_told() -> None:
    bounds = SEARCH.bounds()
    assert report.search_in_words(SEARCH, "torch") == (
        f"Search in torch: it tried all that it wanted to try. base_lr {bounds.base_lr:.3g} and max_lr "
        f"{bounds.max_lr:.3g} (confidence {bounds.confidence:.2f}). It cost 600 updates, 0.5 times those of a run."
    )
    own = [Run("torch", FIXED, 0, [1.0] * 200, accuracies=[0.5, best]) for best in (0.9, 0.95678, 0.8)]
    assert report.fixed_in_words(own, Rates(0.03, 0.01, 0.1)) == (
        "Fixed rate: 0.03, the best of 0.01 (90.00%), 0.03 (95.68%) and 0.1 (80.00%) on the digits for testing, "
        "in a run of 200 updates each. They cost 600 updates."
    )


def test_a_schedule_has_the_bounds() -> None:
    rates = RATES
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
