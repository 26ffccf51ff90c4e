"""The rate follows the optimizer's count of updates, on the backend of the process, also in a model that was saved."""

import json
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import clr
from tests.keras import resume_run
from tests.keras.models import (
    BACKEND,
    LOG,
    MIRROR,
    MOMENTA,
    RATES,
    SCHEDULE,
    STEPS,
    WARNS_OF_COPIES,
    Weight,
    by_definition,
    one_weight,
    rate,
    sgd,
    sums,
    trained,
)
from tests.reference import exact_rate

pytestmark = WARNS_OF_COPIES


@pytest.mark.parametrize("way", ["plain", "jit", "eager", "callable"])
def test_the_rate_follows_the_optimizer(way: str) -> None:
    optimizer = sgd()
    if way == "callable":
        optimizer = keras.optimizers.SGD()
        optimizer.learning_rate = lambda: SCHEDULE(optimizer.iterations)
    options = {"jit": {"jit_compile": BACKEND != "torch"}, "eager": {"run_eagerly": True}}.get(way, {})
    assert trained(optimizer, **options) == (sums(), LOG)


@pytest.mark.skipif(BACKEND == "torch", reason="Keras makes one step at a time on PyTorch")
def test_several_steps_in_one_execution() -> None:
    assert trained(sgd(), steps_per_execution=4) == (sums()[3::4], LOG)


def test_a_fixed_rate_is_logged_too() -> None:
    assert trained(keras.optimizers.SGD(0.5)) == (sums([0.5] * STEPS), LOG | {"learning_rate": [0.5] * STEPS})


def test_accumulated_gradients_are_one_update() -> None:
    weights, log = trained(sgd(3, gradient_accumulation_steps=3), steps=3 * STEPS)
    assert weights[2::3] == sums()
    assert weights[0::3] == [0.0, *sums()[:-1]]
    assert log == LOG
    cycled = sgd(3, momentum=0.9, gradient_accumulation_steps=3)
    weights, log = trained(cycled, clr.keras.CycleMomentum(MIRROR), steps=3 * STEPS)
    assert weights[2::3] == pytest.approx(by_definition("sgd"), rel=1e-6)
    assert log == LOG | {"momentum": MOMENTA}


def test_an_update_that_loss_scaling_skips_does_not_count() -> None:
    """The gradient of the fourth batch is infinite."""
    optimizer = keras.optimizers.LossScaleOptimizer(sgd(), initial_scale=2.0**4)
    seen, log = Weight(), clr.keras.LogLearningRate()
    x = np.ones((STEPS, 1), np.float32)
    x[3] = np.inf
    model = one_weight(optimizer, jit_compile=False)
    model.fit(x, x, batch_size=1, shuffle=False, verbose=0, callbacks=[seen, log])
    expected = sums(RATES[:-1])
    assert seen.values == [*expected[:3], expected[2], *expected[3:]]
    assert log.history == {"step": list(range(STEPS - 1)), "learning_rate": RATES[:-1]}


def test_mixed_precision() -> None:
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        assert trained(sgd(), jit_compile=False) == (sums(), LOG)
    finally:
        keras.mixed_precision.set_global_policy("float32")


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64:UserWarning")  # JAX has it where it is enabled
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_counts_of_any_integer_type(dtype: str) -> None:
    schedule = clr.keras.LearningRateSchedule(clr.triangular(0.25, 0.75, 4))
    counts = keras.Variable(11, dtype=dtype, trainable=False), keras.ops.convert_to_tensor(13, dtype)
    expected = [float(exact_rate(step, 0.25, 0.75, 4)) for step in (11, 13)]
    assert [float(schedule(count)) for count in counts] == expected


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_the_rate_has_the_precision_of_keras(name: str) -> None:
    if (BACKEND, name) == ("jax", "float64"):
        pytest.skip("JAX has it only where it is enabled")
    before = keras.config.floatx()
    keras.config.set_floatx(name)
    try:
        optimizer = keras.optimizers.SGD(clr.keras.LearningRateSchedule(clr.triangular(0.001, 0.006, 7)))
        optimizer.iterations.assign(3)
        found = optimizer.learning_rate
    finally:
        keras.config.set_floatx(before)
    assert keras.backend.standardize_dtype(found.dtype) == name
    rounded = np.dtype(name).type(float(exact_rate(3, 0.001, 0.006, 7)))
    # JAX computes in float32 itself.
    assert abs(float(found) - float(rounded)) <= (np.spacing(rounded) if BACKEND == "jax" else 0)


def test_a_saved_model_goes_on_in_another_process_at_any_step(tmp_path: Path) -> None:
    rates = resume_run.save(tmp_path)
    climb = [Fraction(step, 2) * Fraction(0.01) for step in range(2)]
    cycles = [exact_rate(step, 0.01, 0.1, Fraction(5, 2), 3, "triangular2") for step in range(STEPS - 2)]
    assert rates == pytest.approx([float(value) for value in climb + cycles], rel=1e-6)
    command = [sys.executable, "-m", "tests.keras.resume_run", str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [True] * STEPS


def test_a_schedule_from_its_config() -> None:
    schedule = clr.keras.LearningRateSchedule(clr.warmup(SCHEDULE, 3) * 0.5, gradient_accumulation_steps=2)
    config = json.loads(json.dumps(schedule.get_config()))
    again = clr.keras.LearningRateSchedule.from_config(config)
    assert again.schedule == schedule.schedule
    assert again.get_config() == schedule.get_config()
    assert [float(again(step)) for step in (6, 7, 8)] == [rate(0) / 2, rate(0) / 2, rate(1) / 2]
    whole = keras.saving.serialize_keras_object(keras.optimizers.SGD(schedule))
    assert keras.saving.deserialize_keras_object(whole)._learning_rate.schedule == schedule.schedule


@pytest.mark.parametrize(("config", "received"), [({}, "none"), ({"schedule": {}}, "'schedule'"), (5, "5")])
def test_a_config_says_what_it_must_have(config: Any, received: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        clr.keras.LearningRateSchedule.from_config(config)
    rule = "the config of a schedule must have the keys 'schedule', 'gradient_accumulation_steps'"
    if config == 5:
        rule = "`config` must be a dict with the data that was saved"
    assert str(caught.value) == f"{rule}. Received: {received}."


@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize(("step", "error"), [(True, TypeError), (None, TypeError), (3.5, ValueError), (-1, ValueError)])
def test_what_is_no_step_is_refused(each: int, step: Any, error: type[Exception]) -> None:
    schedule = clr.keras.LearningRateSchedule(SCHEDULE, each)
    with pytest.raises(error, match=r"^`step` must be a whole number of steps, 0 or more\. Received: "):
        schedule(step)


def test_a_schedule_in_an_optimizer_needs_its_wrapper() -> None:
    with pytest.raises(TypeError, match=r"give it clr\.keras\.LearningRateSchedule\(schedule\)\.$"):
        trained(keras.optimizers.Adam(SCHEDULE))


@pytest.mark.parametrize("schedule", [SCHEDULE, clr.keras.LearningRateSchedule(SCHEDULE)], ids=["bare", "wrapped"])
def test_the_epoch_is_not_taken_for_the_step(schedule: Any) -> None:
    message = (
        r"^a schedule takes one argument, the step\. Received: \(0, 0\.5\)\. .*keras\.callbacks\.LearningRateScheduler"
    )
    with pytest.raises(ValueError, match=message):
        trained(keras.optimizers.SGD(0.5), keras.callbacks.LearningRateScheduler(schedule))
    on_purpose = keras.callbacks.LearningRateScheduler(lambda epoch: SCHEDULE(epoch))
    assert trained(keras.optimizers.SGD(0.5), on_purpose)[1]["learning_rate"] == [rate(0)] * STEPS


LOADS = """
import sys, keras
keras.saving.load_model(sys.argv[1])
"""


def test_a_model_tells_what_to_import_before_it_is_loaded(tmp_path: Path) -> None:
    file = str(tmp_path / "model.keras")
    model = one_weight(sgd())
    model.compile(sgd(), "mse")  # a loss of Keras' own
    model.save(file)
    for first, is_loaded in (("", False), ("import clr.keras", True)):
        done = subprocess.run([sys.executable, "-c", first + LOADS, file], capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == is_loaded
        assert done.stderr.strip().endswith("'import clr.keras>LearningRateSchedule'}") == (not is_loaded)


def test_a_schedule_that_was_saved_by_its_name_from_before_0_2() -> None:
    config = keras.saving.serialize_keras_object(clr.keras.LearningRateSchedule(SCHEDULE))
    config["registered_name"] = "clr>LearningRateSchedule"
    assert keras.saving.deserialize_keras_object(config).schedule == SCHEDULE


def test_it_shows_what_it_is() -> None:
    schedule = clr.keras.LearningRateSchedule(SCHEDULE, gradient_accumulation_steps=2)
    assert repr(schedule) == f"clr.keras.LearningRateSchedule({SCHEDULE!r}, gradient_accumulation_steps=2)"
    assert schedule.schedule == SCHEDULE
    assert schedule.gradient_accumulation_steps == 2


def test_a_scaling_function_needs_a_name_to_be_saved() -> None:
    schedule = clr.keras.LearningRateSchedule(clr.cyclic(0.0, 1.0, 4, scale_fn=lambda cycle: 1 / cycle))
    with pytest.raises(ValueError, match=r"^only a scaling function that clr\.register_scale has named can be saved\."):
        schedule.get_config()


no_schedule: Any = 0.1


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: clr.keras.LearningRateSchedule(no_schedule),
            TypeError,
            r"`schedule` must be a schedule\. Received: 0\.1\.",
        ),
        (
            lambda: clr.keras.LearningRateSchedule(SCHEDULE, 0),
            ValueError,
            r"`gradient_accumulation_steps` must be a whole number, 1 or more\. Received: 0\.",
        ),
        (lambda: clr.keras.CycleMomentum(no_schedule), TypeError, r"`schedule` must be a schedule\. Received: 0\.1\."),
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
