"""Everything that a range test changes in Keras, kept as it was."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state  # holds the seeds of layers that have none of their own

from clr import checks
from clr.finder.transaction import put_back, random_state, seed_of, seed_random
from clr.tensorflow.snapshot import cells, reseeded, stateful_random_state

BACKEND = keras.backend.backend()
SEEDS = "global_seed_generator"
RATE = "range_test"  # the variable that an optimizer gets for the test
# Attributes of a model, beside its variables, that training changes.
NOTES = ("train_function", "test_function", "predict_function", "stop_training", "_jax_state", "_jax_state_synced")


class Snapshot:
    """The model, its optimizer and all random state, as they were."""

    def __init__(
        self, model: keras.Model, optimizer: keras.optimizers.Optimizer, also: Sequence[object], data: object
    ) -> None:
        if hasattr(model, "jax_state_sync"):
            model.jax_state_sync()
        self._model = model
        self._notes = {name: vars(model)[name] for name in NOTES if name in vars(model)}
        self._generator = global_state.get_global_attribute(SEEDS)
        others = [variable for holder in also for variable in _variables_of(holder)]
        found = [*model.variables, *optimizer.variables, *model.metrics_variables, *others]
        if self._generator is not None:
            found.append(self._generator.state)
        variables = {id(variable): variable for variable in found}.values()
        self._copies = [(cell, _content(cell)) for variable in variables for cell in _cells(variable)]
        self._trainable = [
            (part, part.trainable) for part in (*model._flatten_layers(), *found) if hasattr(part, "trainable")
        ]
        self._modules: Any = None
        if BACKEND == "torch":
            from clr.torch.snapshot import Modules

            self._modules = Modules([model], list(model.parameters()))
        self._data = data
        self._random = randomness(data)

    def rewind(self, repeat: int = 0) -> None:
        """Puts back what training changes. In a repeat, everything random gets another seed.

        Compiled functions stay as they are, and so does the state of TensorFlow's stateful random operations.
        """
        modules = [] if self._modules is None else [self._modules.restore]
        put_back(*modules, *[partial(_assign, cell, reseeded(cell, array, repeat)) for cell, array in self._copies])
        if repeat:
            if "torch" in sys.modules:
                from clr.torch.snapshot import seed

                seed(seed_of(repeat), self._data)
            else:
                seed_random(seed_of(repeat))

    def restore(self) -> None:
        """Puts back everything but the gradients."""
        put_back(self.rewind, self._restore_notes, *self._random)

    def restore_gradients(self) -> None:
        """Puts back the gradients, which PyTorch keeps in the parameters."""
        if self._modules is not None:
            self._modules.restore_gradients()

    def _restore_notes(self) -> None:
        for part, trainable in self._trainable:
            if part.trainable != trainable:
                part.trainable = trainable
        vars(self._model).update(self._notes)
        global_state.set_global_attribute(SEEDS, self._generator)


class Rate:
    """The variable from which the optimizer takes its rate. An optimizer with a schedule gets one for the test."""

    def __init__(self, model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
        self._model, self._optimizer = model, optimizer
        self._own = optimizer._learning_rate
        self._is_own = isinstance(self._own, keras.Variable)
        self._variable: Any = self._own if self._is_own else None

    def settle(self) -> None:
        """Puts the variable where the schedule is."""
        if not self._is_own:
            self._variable = self._optimizer.add_variable(shape=(), initializer="zeros", name=RATE)
            vars(self._optimizer)["_learning_rate"] = self._variable  # `setattr` would make Keras track it
            self._model.train_function = None  # is made again, for the schedule is compiled into it

    def set(self, value: float) -> None:
        """Sets the rate of the next update."""
        if BACKEND == "tensorflow":
            self._variable.value.assign(value, read_value=False)  # does the same in a third of the time
        else:
            self._variable.assign(value)

    def kept(self) -> Callable[[], object]:
        """A function that sets the optimizer's own rate to what it is now; one that has a schedule keeps that."""
        return partial(self.set, float(_content(_cells(self._own)[0]))) if self._is_own else lambda: None

    def leave(self) -> None:
        """Gives the optimizer its schedule back."""
        if not self._is_own:
            vars(self._optimizer)["_learning_rate"] = self._own
            for variable in [one for one in self._optimizer.variables if one.name == RATE]:
                self._optimizer._untrack_variable(variable)


class Unbuilt:
    """The metrics and losses of a compiled model that are not built yet. ``fit`` draws a batch to build them."""

    def __init__(self, model: keras.Model) -> None:
        parts = [vars(model).get(name) for name in ("_compile_metrics", "_compile_loss")]
        self._parts = [part for part in parts if part is not None and not part.built]

    def restore(self) -> None:
        """Makes them unbuilt again."""
        for part in self._parts:
            for metric in [*part.metrics]:
                metric.reset_state()
                part._tracker.untrack(metric)  # a model of several losses gets their means when it is built
            part.built = False


def randomness(data: object) -> list[Callable[[], object]]:
    """Functions that put back all random state that is neither in the model nor in Keras."""
    found: list[Callable[[], object]] = [random_state()]
    if "torch" in sys.modules:
        from clr.torch.snapshot import generators

        found += generators(data)
    if "tensorflow" in sys.modules:
        found.append(stateful_random_state(sys.modules["tensorflow"]))
    return found


def count_of(variable: keras.Variable) -> int:
    """A whole number that a variable holds."""
    return int(_content(_cells(variable)[0]))


def _variables_of(holder: object) -> list[keras.Variable]:
    if isinstance(holder, keras.Variable):
        return [holder]
    if not hasattr(holder, "variables"):
        checks.fail(TypeError, "also", "Keras variables or objects with `variables`", holder)
    return [*holder.variables]


def _cells(variable: keras.Variable) -> list[Any]:
    """The variable; on TensorFlow its variables, one for each replica."""
    return cells(variable.value) if BACKEND == "tensorflow" else [variable]


def _assign(cell: Any, array: "np.ndarray[Any, Any]") -> None:
    cell.assign(array if BACKEND == "tensorflow" else keras.ops.copy(array))  # JAX would keep the array itself


def _content(cell: Any) -> "np.ndarray[Any, Any]":
    """A copy that no later step writes to."""
    return np.array(cell.numpy() if BACKEND == "tensorflow" else keras.ops.convert_to_numpy(cell.value))
