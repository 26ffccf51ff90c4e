"""Two replicas of TensorFlow, in a process of their own: Keras' training, and both range tests."""

from functools import cache
from typing import Any

import keras
import pytest
import tensorflow as tf

import clr
from tests.keras.models import LOG, MIRROR, MOMENTA, WARNS_OF_COPIES, Weight, by_definition, one_weight, sgd
from tests.keras.models import fit as fit_ones
from tests.keras.transactions import RANGE, TARGETS, Faults, X, Y, by_hand, fit, linear, start, trace
from tests.promises import ERRORS, STEPS, Failing, check_errors

pytestmark = WARNS_OF_COPIES

(CPU,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(CPU, [tf.config.LogicalDeviceConfiguration()] * 2)


@cache
def two_replicas() -> Any:
    """The one strategy of this process: another would number what its replicas exchange from the start again."""
    return tf.distribute.MirroredStrategy([device.name for device in tf.config.list_logical_devices("CPU")])


def test_the_momentum_is_cycled_on_each_replica() -> None:
    seen, log = Weight(), clr.keras.LogLearningRate()
    with two_replicas().scope():
        model = one_weight(sgd(momentum=0.9))
    fit_ones(model, 12, clr.keras.CycleMomentum(MIRROR), seen, log, size=2)
    # Each replica adds its gradient of 1.
    assert seen.values == pytest.approx([2 * weight for weight in by_definition("sgd")], rel=1e-6)
    assert log.history == LOG | {"momentum": MOMENTA}


@pytest.mark.parametrize("name", ["momentum", "schedule"])
def test_replicas(name: str) -> None:
    strategy = two_replicas()

    def mirrored() -> Any:
        with strategy.scope():
            return start(name, noise=False)  # Keras makes its global seeds within a step, where replicas can not

    assert strategy.num_replicas_in_sync == 2
    without = fit(mirrored(), 2)
    model = mirrored()
    clr.keras.range_test(model, X, Y, batch_size=8, **RANGE)
    before = trace(model)
    test = clr.keras.range_test(model, X, Y, batch_size=8, **RANGE)
    assert trace(model) == before
    assert len(test.losses) == STEPS
    assert fit(model, 2) == without
    with strategy.scope():
        simple = linear(keras.optimizers.SGD(0.1))
    for data in (X, tf.data.Dataset.from_tensor_slices((X, TARGETS)).batch(8)):
        own = {"batch_size": 8, "shuffle": False, "y": TARGETS} if data is X else {}
        test = clr.keras.range_test(simple, data, min_lr=1e-3, max_lr=0.1, num_steps=12, **own)
        assert list(test.losses) == pytest.approx(by_hand(simple, test.rates), rel=1e-4)
    distributed = strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensor_slices((X, TARGETS)).batch(8))
    test = clr.keras.range_test(simple, distributed, min_lr=1e-3, max_lr=0.1, num_steps=12)
    assert list(test.losses) == pytest.approx(by_hand(simple, test.rates), rel=1e-4)
    with pytest.raises(ValueError, match="a sample for each of the 2 replicas"):
        clr.keras.range_test(simple, X[:1], TARGETS[:1])


def test_all_is_as_before_after_an_error_on_replicas() -> None:
    strategy = two_replicas()
    with strategy.scope():
        model = start(noise=False)
        model._symbolic_build(data_batch=(X, Y))
    fail = Faults()
    fail.around_each_step(model)

    def evaluate() -> float:
        fail("evaluate")
        return 1.0

    def tested() -> clr.RangeTest:
        return clr.keras.range_test(model, fail, evaluate=evaluate, evaluate_every=1, **(RANGE | {"num_steps": 3}))

    tested()
    for place in ("batch", "before", "after", "evaluate"):
        fail.place = place
        failures = [(at, ERRORS[-at]("on purpose")) for at in (1, 2, 3)]
        check_errors(fail, tested, lambda: trace(model), failures, builds_first=place == "batch")


@pytest.mark.parametrize("replica", [0, 1])
def test_all_is_as_before_after_an_error_on_one_replica(replica: int) -> None:
    strategy = two_replicas()
    with strategy.scope():
        weight = tf.Variable(1.0)
        own = tf.Variable(
            0.0, synchronization=tf.VariableSynchronization.ON_READ, aggregation=tf.VariableAggregation.MEAN
        )
        generator = tf.random.Generator.from_seed(1)
    fail = Failing(str(replica))

    def on_a_replica() -> Any:
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        own.assign_add(1.0)
        noise = generator.normal(())
        fail(str(int(number)))
        return noise**2

    def train_step(rate: Any) -> Any:
        weight.assign(weight * (1 - rate))
        return strategy.run(on_a_replica)

    def contents() -> list[bytes]:
        holders = weight, own, generator.state
        return [part.numpy().tobytes() for holder in holders for part in strategy.experimental_local_results(holder)]

    def tested(**options: Any) -> clr.RangeTest:
        return clr.tensorflow.range_test(train_step, [weight, own, generator], **options, **RANGE)

    train_step(0.5)
    before = contents()
    assert len(before) == 6
    check_errors(fail, tested, contents)
    test = tested(repeats=3, diverge_at=1e9)
    assert len({loss for sweep in test.sweeps for loss in sweep.losses}) == 3 * STEPS
    assert contents() == before


def test_a_step_of_ones_own_on_replicas() -> None:
    strategy = two_replicas()
    with strategy.scope():
        weight = tf.Variable(1.0)
        own = tf.Variable(
            0.0, synchronization=tf.VariableSynchronization.ON_READ, aggregation=tf.VariableAggregation.MEAN
        )

    def replica(rate: Any) -> Any:
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        factor = tf.cast(number, tf.float32) + 1.0
        own.assign(factor)
        return (factor * weight) ** 2

    @tf.function
    def train_step(rate: Any) -> Any:
        losses = strategy.run(replica, args=(rate,))
        weight.assign(weight * (1 - rate))
        return losses

    test = clr.tensorflow.range_test(train_step, [weight, own], min_lr=0.25, max_lr=0.5, num_steps=2)
    assert test.losses == (2.5, 2.5 * 0.75**2)
    assert [float(part) for part in strategy.experimental_local_results(weight)] == [1.0, 1.0]
    assert [float(part) for part in strategy.experimental_local_results(own)] == [0.0, 0.0]
