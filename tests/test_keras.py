"""The Keras adapter on each backend; what is run is in keras_run.py, what to expect is here."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clr
from tests.reference import exact_rate

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
keras = pytest.importorskip("keras")

SCHEDULE = clr.triangular(0.25, 1.25, 4)
STEPS = 12
BACKENDS = ("tensorflow", "jax", "torch")


def rate(step: int) -> float:
    return float(exact_rate(step, 0.25, 1.25, 4))


def momentum(step: int) -> float:
    return float(Fraction(3, 4) - (Fraction(rate(step)) - Fraction(1, 4)) / 4)


RATES = [rate(step) for step in range(STEPS)]
MOMENTA = [momentum(step) for step in range(STEPS)]


def sums(rates: list[float]) -> list[float]:
    """The weight after each update with a gradient of 1, exactly: all are binary fractions."""
    return [-sum(rates[: count + 1]) for count in range(len(rates))]


@pytest.fixture(scope="module", params=BACKENDS)
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Everything that a backend does, in one process, and then in another that loads what the first has saved."""
    folder = tmp_path_factory.mktemp(request.param)
    environment = os.environ | {"KERAS_BACKEND": request.param, "TF_CPP_MIN_LOG_LEVEL": "3"}
    results: dict[str, Any] = {"backend": request.param}
    for scenario in ("everything", "resume"):
        command = [sys.executable, str(Path(__file__).parent / "keras_run.py"), scenario, str(folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        results |= json.loads(done.stdout.splitlines()[-1])
    return results


# The rate


@pytest.mark.parametrize("way", ["plain", "jit", "eager", "callable"])
def test_the_rate_follows_the_optimizer(seen: dict[str, Any], way: str) -> None:
    found = seen["rates"][way]
    assert found["weights"] == sums(RATES)
    assert found["log"] == {"step": list(range(STEPS)), "learning_rate": RATES}


def test_several_steps_in_one_execution(seen: dict[str, Any]) -> None:
    if seen["backend"] == "torch":
        pytest.skip("Keras makes one step at a time on PyTorch")
    found = seen["rates"]["several"]
    assert found["weights"] == sums(RATES)[3::4]
    assert found["log"] == {"step": list(range(STEPS)), "learning_rate": RATES}


def test_a_fixed_rate_is_logged_too(seen: dict[str, Any]) -> None:
    found = seen["rates"]["float"]
    assert found["log"] == {"step": list(range(STEPS)), "learning_rate": [0.5] * STEPS}


def test_accumulated_gradients_are_one_update(seen: dict[str, Any]) -> None:
    found = seen["accumulation"]["rate"]
    assert found["weights"][2::3] == sums(RATES)
    assert found["weights"][0::3] == [0.0, *sums(RATES)[:-1]]
    assert found["log"] == {"step": list(range(STEPS)), "learning_rate": RATES}
    both = seen["accumulation"]["momentum"]
    assert both["weights"][2::3] == pytest.approx(list(weights("sgd")), rel=1e-6)
    assert both["log"] == {"step": list(range(STEPS)), "learning_rate": RATES, "momentum": MOMENTA}


def test_an_update_that_loss_scaling_skips_does_not_count(seen: dict[str, Any]) -> None:
    found = seen["mixed"]["skipped"]
    expected = sums(RATES[:-1])
    assert found["weights"] == [*expected[:3], expected[2], *expected[3:]]
    assert found["log"] == {"step": list(range(STEPS - 1)), "learning_rate": RATES[:-1]}


def test_mixed_precision(seen: dict[str, Any]) -> None:
    found = seen["mixed"]["float16"]
    assert found["weights"] == sums(RATES)
    assert found["log"]["learning_rate"] == RATES


def test_counts_of_any_integer_type(seen: dict[str, Any]) -> None:
    found = seen["integers"]
    assert found
    for rates in found.values():
        assert rates == [float(exact_rate(step, 0.25, 0.75, 4)) for step in (11, 13)]


def test_the_rate_has_the_precision_of_keras(seen: dict[str, Any]) -> None:
    exact = float(exact_rate(3, 0.001, 0.006, 7))
    for name, (dtype, found) in seen["precision"].items():
        if (seen["backend"], name) == ("jax", "float64"):  # which JAX has only where it is enabled
            continue
        assert dtype == name
        rounded = np.dtype(name).type(exact)
        # JAX computes in float32 itself.
        assert abs(found - float(rounded)) <= (np.spacing(rounded) if seen["backend"] == "jax" else 0)


# The momentum


def weights(optimizer: str) -> Any:
    """The weight after each update with a gradient of 1, by the optimizer's definition with a changing momentum."""
    weight = first = second = 0.0
    product = 1.0
    for step, (lr, beta) in enumerate(zip(RATES, MOMENTA, strict=True), start=1):
        match optimizer:
            case "sgd":
                first = beta * first - lr
                weight += first
            case "nesterov":
                first = beta * first - lr
                weight += beta * first - lr
            case "rmsprop":
                second = 0.9 * second + 0.1
                first = beta * first + lr / (second + 1e-7) ** 0.5
                weight -= first
            case "adam" | "adamw":
                first += (1 - first) * (1 - beta)
                second += (1 - second) * 0.25
                alpha = lr * (1 - 0.75**step) ** 0.5 / (1 - beta**step)
                weight -= first * alpha / (second**0.5 + 1e-7)
            case "nadam":
                now, later = (beta * (1 - 0.5 * 0.96**count) for count in (step, step + 1))
                product *= now
                first += (1 - first) * (1 - beta)
                second += (1 - second) * 0.25
                corrected = later * first / (1 - product * later) + (1 - now) / (1 - product)
                weight -= lr * corrected / ((second / (1 - 0.75**step)) ** 0.5 + 1e-7)
            case "adamax":
                first += (1 - first) * (1 - beta)
                second = max(0.75 * second, 1.0)
                weight -= lr / (1 - beta**step) * first / (second + 1e-7)
        yield weight


OPTIMIZERS = ("sgd", "nesterov", "rmsprop", "adam", "adamw", "nadam", "adamax")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_momentum_is_cycled_inside_of_the_step(seen: dict[str, Any], optimizer: str) -> None:
    found = seen["momentum"][optimizer]
    assert found["weights"] == pytest.approx(list(weights(optimizer)), rel=2e-6)
    assert found["log"] == {"step": list(range(STEPS)), "learning_rate": RATES, "momentum": MOMENTA}
    assert found["restored"]


def test_the_expected_weights_depend_on_the_momentum(monkeypatch: pytest.MonkeyPatch) -> None:
    cycled = {optimizer: list(weights(optimizer))[-1] for optimizer in OPTIMIZERS}
    monkeypatch.setattr(sys.modules[__name__], "MOMENTA", [0.75] * STEPS)
    for optimizer in OPTIMIZERS:
        assert abs(list(weights(optimizer))[-1] / cycled[optimizer] - 1) > 0.01


@pytest.mark.parametrize("way", ["several", "eager", "jit"])
def test_the_momentum_in_other_steps(seen: dict[str, Any], way: str) -> None:
    if (seen["backend"], way) == ("torch", "several"):
        pytest.skip("Keras makes one step at a time on PyTorch")
    found = seen["momentum"][way]
    every = list(weights("sgd"))
    assert found["weights"] == pytest.approx(every[3::4] if way == "several" else every, rel=1e-6)
    assert found["log"]["momentum"] == MOMENTA


def test_a_momentum_of_zero_is_still_a_momentum(seen: dict[str, Any]) -> None:
    """What was summed before a momentum of 0 must not come back after it."""
    found = seen["momentum"]["zero"]
    weight = total = 0.0
    momenta = [float((Fraction(5, 4) - Fraction(lr)) / 2) for lr in RATES]
    expected = []
    for lr, beta in zip(RATES, momenta, strict=True):
        total = beta * total - lr
        weight += total
        expected.append(weight)
    assert 0 in momenta
    assert found["log"]["momentum"] == momenta
    assert found["weights"] == pytest.approx(expected, rel=1e-6)


def test_the_optimizer_s_own_momentum_is_what_is_saved_and_what_comes_back(seen: dict[str, Any]) -> None:
    found = seen["momentum"]["stopped"]
    assert found["configs"] == [0.75, 0.75]
    # Gradients of 1 at a rate of 1: the sums are 1, 1 + 0.5 * 1, and 1 + 0.75 * 1.5.
    assert found["weights"] == [-(1 + 1.5 + 2.125)]


def test_after_the_fit_the_optimizer_has_its_own_momentum(seen: dict[str, Any]) -> None:
    first, weight = 0.0, 0.0
    expected = []
    for beta in (0.5, 0.5, 0.9, 0.9):
        first = beta * first - 0.5
        weight += first
        expected.append(weight)
    assert seen["momentum"]["after"]["weights"] == pytest.approx(expected[2:], rel=1e-6)


def test_a_momentum_that_is_off_or_missing_is_refused(seen: dict[str, Any]) -> None:
    found = seen["momentum"]
    assert found["off"] == "`CycleMomentum` needs a momentum that is on. Received: momentum 0.0."
    assert found["none"] == "`CycleMomentum` needs an optimizer with a momentum. Received: 'adagrad'."


def test_mirrored_replicas_are_driven_alike(seen: dict[str, Any]) -> None:
    if seen["backend"] != "tensorflow":
        pytest.skip("the strategy is TensorFlow's")
    found = seen["mirrored"]
    assert found["replicas"] == 2
    # Each replica adds its gradient of 1.
    assert found["weights"] == pytest.approx([2 * weight for weight in weights("sgd")], rel=1e-6)
    assert found["log"] == {"step": list(range(STEPS)), "learning_rate": RATES, "momentum": MOMENTA}


# Keras' other callbacks, and saving


def test_other_callbacks_show_what_is_logged(seen: dict[str, Any]) -> None:
    found = seen["callbacks"]
    last = [3, 7, 11]  # of each epoch
    assert found["history"] == [[rate(step) for step in last], [momentum(step) for step in last]]
    assert found["csv"] == [[rate(step), momentum(step)] for step in last]
    if seen["backend"] == "tensorflow":
        by_tag = {"batch_learning_rate": rate, "batch_momentum": momentum}
        assert found["boards"] == [
            [tag, step + 1, value(step)] for tag, value in by_tag.items() for step in range(STEPS)
        ]


def test_a_saved_model_goes_on_in_another_process_at_any_step(seen: dict[str, Any]) -> None:
    climb = [Fraction(step, 2) * Fraction(0.01) for step in range(2)]
    cycles = [exact_rate(step, 0.01, 0.1, Fraction(5, 2), 3, "triangular2") for step in range(STEPS - 2)]
    assert seen["save"]["rates"][0] == pytest.approx([float(value) for value in climb + cycles], rel=1e-6)
    assert seen["same"] == [True] * STEPS


def test_a_schedule_from_its_config() -> None:
    schedule = clr.keras.LearningRateSchedule(clr.warmup(SCHEDULE, 3) * 0.5, gradient_accumulation_steps=2)
    config = json.loads(json.dumps(schedule.get_config()))
    again = clr.keras.LearningRateSchedule.from_config(config)
    assert again.schedule == schedule.schedule
    assert again.get_config() == schedule.get_config()
    assert [float(again(step)) for step in (6, 7, 8)] == [rate(0) / 2, rate(0) / 2, rate(1) / 2]
    whole = keras.saving.serialize_keras_object(keras.optimizers.SGD(schedule))
    assert keras.saving.deserialize_keras_object(whole)._learning_rate.schedule == schedule.schedule


@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize(("step", "error"), [(True, TypeError), (None, TypeError), (3.5, ValueError), (-1, ValueError)])
def test_what_is_no_step_is_refused(each: int, step: Any, error: type[Exception]) -> None:
    schedule = clr.keras.LearningRateSchedule(SCHEDULE, each)
    with pytest.raises(error, match=r"^`step` must be a whole number of steps, 0 or more\. Received: "):
        schedule(step)


def test_it_shows_what_it_is() -> None:
    schedule = clr.keras.LearningRateSchedule(SCHEDULE, gradient_accumulation_steps=2)
    assert repr(schedule) == f"clr.keras.LearningRateSchedule({SCHEDULE!r}, gradient_accumulation_steps=2)"
    assert schedule.schedule == SCHEDULE
    assert schedule.gradient_accumulation_steps == 2


def test_a_scaling_function_needs_a_name_to_be_saved() -> None:
    schedule = clr.keras.LearningRateSchedule(clr.cyclic(0.0, 1.0, 4, scale_fn=lambda cycle: 1 / cycle))
    with pytest.raises(ValueError, match=r"^only a scaling function that clr\.register_scale has named can be saved\."):
        schedule.get_config()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: clr.keras.LearningRateSchedule(0.1), TypeError, r"`schedule` must be a schedule\. Received: 0\.1\."),
        (
            lambda: clr.keras.LearningRateSchedule(SCHEDULE, 0),
            ValueError,
            r"`gradient_accumulation_steps` must be a whole number, 1 or more\. Received: 0\.",
        ),
        (lambda: clr.keras.CycleMomentum(0.9), TypeError, r"`schedule` must be a schedule\. Received: 0\.9\."),
        (
            lambda: clr.keras.CycleMomentum(SCHEDULE),
            ValueError,
            r"`schedule` must be a number from 0 to below 1\. Received: clr\.triangular\(.*\)\.",
        ),
    ],
)
def test_bad_arguments(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        make()
