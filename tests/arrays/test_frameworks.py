"""A schedule called with the tensors of each framework: the same rates as on the host, eager and traced."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import clr
from tests.frameworks import (
    FLOAT64,
    JAX,
    LARGEST,
    TENSOR,
    TENSORFLOW,
    Way,
    check_rates,
    compiled,
    dynamo_may_warn,
    each_framework,
    each_jax,
    each_torch,
    each_way,
    eager,
    graph,
    jax,
    jnp,
    tensor_of,
    tf,
    torch,
)
from tests.reference import exact_rate


@pytest.fixture
def double() -> Iterator[None]:
    """JAX with its 64-bit types."""
    with jax.enable_x64(True):
        yield


# Lengths that are not whole


FRACTIONAL = {20.3: Fraction(203, 10), 977.5: Fraction(1955, 2), 7.125: Fraction(57, 8)}
SMALL_STEPS = [*range(70), 2**24 - 1, 2**24 + 1, 2**31 - 43, 2**31 - 2, 2**31 - 1]
LARGE_STEPS = [2**31, 2**32 + 7, 2**53 - 1, 2**53 + 1, 2**60 + 13, 2**63 - 42, 2**63 - 1]


@each_way
@pytest.mark.parametrize("length", FRACTIONAL)
@pytest.mark.parametrize("integer", ["int32", "int64"])
def test_fractional_lengths_are_exact_at_any_step(framework: str, way: Way, length: float, integer: str) -> None:
    steps = SMALL_STEPS + (LARGE_STEPS if integer == "int64" else [])
    expected = [exact_rate(step, 0.001, 0.006, FRACTIONAL[length]) for step in steps]
    schedule = clr.triangular(0.001, 0.006, length)
    with jax.enable_x64(True) if integer == "int64" else nullcontext():
        rates = way(schedule, tensor_of(framework, steps, integer))
        check_rates(rates, expected, "float64" if framework == "jax" and integer == "int64" else "float32")
        if framework in FLOAT64:
            dtype = FLOAT64[framework]
            rates = way(lambda step: schedule(step, dtype=dtype), tensor_of(framework, steps, integer))
            check_rates(rates, expected, "float64")


# A scaling function of the user's


def _inverse(cycle: Any) -> Any:
    return 1 / cycle


def _hyperbola(step: Any) -> Any:
    return 1 / (1 + step / 64)


@each_way
@pytest.mark.parametrize(("scale_fn", "scale_mode"), [(_inverse, "cycle"), (_hyperbola, "iterations")])
def test_a_scale_fn_made_of_operators_works_everywhere(
    framework: str, way: Way, scale_fn: Callable[[Any], Any], scale_mode: Any
) -> None:
    steps = [0, 1, 20, 39, 40, 60, 2020, 10**6 + 20, 2**31 - 7]
    schedule = clr.cyclic(0.01, 0.1, step_size=20, scale_fn=scale_fn, scale_mode=scale_mode)
    expected = []
    for step in steps:
        full = exact_rate(step, 0.01, 0.1, 20) - Fraction(0.01)
        argument = step // 40 + 1 if scale_mode == "cycle" else step
        expected.append(Fraction(0.01) + full * scale_fn(Fraction(argument)))
    check_rates(way(schedule, tensor_of(framework, steps, "int32")), expected, "float32")


@each_way
@pytest.mark.parametrize(
    ("scale_fn", "heights"), [(lambda cycle: cycle / 2, [0.5, 1.0, 1.0]), (lambda cycle: 2 - cycle, [1.0, 0.0, 0.0])]
)
def test_what_leaves_a_scale_fn_s_range_is_cut_where_traced_and_an_error_where_known(
    framework: str, way: Way, scale_fn: Callable[[Any], Any], heights: list[float]
) -> None:
    schedule = clr.cyclic(0.25, 0.75, step_size=4, scale_fn=scale_fn)
    steps = tensor_of(framework, [4, 12, 20], "int32")
    if framework == "tensorflow" and way is eager:
        with pytest.raises(ValueError, match="`scale_fn` must be a function that returns a number from 0 to 1"):
            way(schedule, steps)
    else:
        assert np.asarray(way(schedule, steps)).tolist() == [0.25 + 0.5 * height for height in heights]


# Cycles


# Kinds whose cycles end in each of the ways there are.
CYCLED = {
    "repeating": clr.triangular(0.001, 0.006, 20),
    "fractional": clr.triangular(0.001, 0.006, 20.3),
    "shorter than a step": clr.triangular(0.001, 0.006, 0.2),
    "growing": clr.warm_restarts(0.1, first_cycle=5, cycle_mult=1.5),
    "shrinking": clr.warm_restarts(0.1, first_cycle=50, cycle_mult=0.8),
    "ending": clr.wsd(0.1, 60, warmup_steps=7, decay_steps=20),
    "constant": clr.constant(0.1),
    "held": clr.join([clr.linear(0.1, 9), clr.triangular(0.0, 1.0, 3.5), clr.constant(0.1)], [20, 41]),
    "repeated": clr.join([clr.linear(0.1, 9), clr.triangular(0.0, 1.0, 4, cycle_mult=0.5)]).after_end("repeat"),
}


@each_way
@pytest.mark.parametrize("integer", ["int32", "uint32", "int64"])
def test_a_cycle_ends_where_the_next_step_is_in_another(framework: str, way: Way, integer: str) -> None:
    if integer == "uint32" and framework != "jax":
        pytest.skip("PyTorch and TensorFlow take them as int64")
    largest = LARGEST[integer]
    steps = [*range(110), 10**6, 10**6 + 1, *range(largest - 90, largest + 1)]

    cycled = dict(CYCLED)
    if framework == "tensorflow" and way is eager and integer == "int64":  # known steps, with too many cycles to count
        short = cycled.pop("shorter than a step")
        for method in (short.cycle, short.is_cycle_end):
            with pytest.raises(ValueError, match=r"`step` must be at most .* in an array, for its cycle to be counted"):
                way(method, tensor_of(framework, steps, integer))

    def asked(step: Any) -> Any:
        return tuple(
            [answer for schedule in cycled.values() for answer in (schedule.cycle(step), schedule.is_cycle_end(step))]
        )

    with jax.enable_x64(True) if integer == "int64" else nullcontext():
        answers = [np.asarray(answer) for answer in way(asked, tensor_of(framework, steps, integer))]
    for name, schedule in cycled.items():
        cycles, ends = answers.pop(0), answers.pop(0)
        expected = [schedule.cycle(step) for step in steps]
        assert cycles.dtype.kind == ("u" if integer == "uint32" else "i")
        assert ends.dtype == bool
        if expected[-1] <= largest:
            assert cycles.tolist() == expected, name
            changes = [schedule.cycle(step + 1) != cycle for step, cycle in zip(steps[:-1], expected, strict=False)]
            assert ends.tolist()[:-1] == changes, name
        if integer == "int64" or framework == "jax":
            assert not ends[-1], name  # the largest integer has no next step


def test_a_single_eager_step_has_the_cycle_and_its_end_in_tensorflows_types() -> None:
    schedule = clr.triangular(0.001, 0.006, 1)
    step = tf.constant(2**40 + 1, tf.int64)
    cycle, end = schedule.cycle(step), schedule.is_cycle_end(step)
    assert (int(cycle), bool(end)) == (2**39 + 1, True)
    assert (cycle.dtype, end.dtype) == (tf.int64, tf.bool)


# Shapes, types and dtypes


@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        (np.asarray, "int32"),
        (tf.constant, tf.int32),
        (torch.tensor, torch.int32),
        (jnp.array, jnp.int32),
    ],
    ids=["numpy", "tensorflow", "torch", "jax"],
)
@pytest.mark.parametrize("step", [3, [3]], ids=["one", "many"])
def test_rates_in_integers_are_refused(make: Any, dtype: Any, step: Any) -> None:
    with pytest.raises(TypeError, match="`dtype` must be a floating dtype"):
        clr.triangular(0.001, 0.006, 20)(make(step), dtype=dtype)


def test_torchs_lambda_scheduler_saves_the_step_alone_and_resumes() -> None:
    schedule = clr.triangular(0.25, 1.25, 4)

    def make() -> Any:
        return torch.optim.lr_scheduler.LambdaLR(torch.optim.SGD([torch.zeros(1)], lr=1.0), schedule)

    first, second = make(), make()
    for _ in range(3):
        first.optimizer.step()
        first.step()
    saved = first.state_dict()
    assert saved["lr_lambdas"] == [{}]
    second.load_state_dict(saved)
    second.optimizer.step()
    second.step()
    assert second.get_last_lr() == [1.25]


@each_way
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (2, 0), (2, 1, 2)])
@pytest.mark.parametrize("method", ["__call__", "cycle", "is_cycle_end"])
def test_the_shape_is_kept(framework: str, way: Way, shape: tuple[int, ...], method: str) -> None:
    if way in (JAX["vmap"], JAX["scan"]) and shape == ():
        pytest.skip("vmap and scan need an axis")
    steps = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    function = getattr(clr.triangular2(0.001, 0.006, 2), method)
    result = way(function, tensor_of(framework, steps, "int32"))
    assert isinstance(result, np.ndarray | np.generic if way is graph else TENSOR[framework])
    assert tuple(result.shape) == shape
    assert np.asarray(result).ravel().tolist() == pytest.approx([function(int(step)) for step in steps.ravel()])


@each_way
def test_a_step_not_known_yet_that_is_negative_counts_as_0(framework: str, way: Way) -> None:
    if framework == "tensorflow" and way is eager:
        pytest.skip("known: an error, as the next test shows")
    schedule = clr.exp_range(0.001, 0.006, 20, gamma=0.9)
    rates = way(schedule, tensor_of(framework, [-1, -41, -(2**31), 0], "int32"))
    assert np.asarray(rates).tolist() == [np.float32(0.001)] * 4


@pytest.mark.parametrize("step", [-1, [-1, 3], 1.5, [0.0, 0.5], float("nan"), float("inf")])
def test_tensorflow_refuses_a_step_known_to_be_bad(step: Any) -> None:
    with pytest.raises(ValueError, match=r"^`step` must be a whole number of steps, 0 or more\. Received: "):
        clr.triangular(0.001, 0.006, 20)(tf.constant(step))


@each_framework
@pytest.mark.parametrize("floating", ["float16", "float32", "float64"])
def test_floats_that_hold_whole_steps_are_taken(framework: str, floating: str) -> None:
    with jax.enable_x64(True):
        rates = clr.triangular(0.25, 0.75, 4)(tensor_of(framework, [0.0, 1.0, 4.0, 5.0], floating))
        assert np.asarray(rates).tolist() == [0.25, 0.375, 0.75, 0.625]


@each_way
@pytest.mark.parametrize("value", [True, 1j])
@pytest.mark.parametrize("method", ["__call__", "cycle", "is_cycle_end"])
def test_a_tensor_that_is_no_number_is_refused(framework: str, way: Way, value: Any, method: str) -> None:
    if way is compiled:
        pytest.skip("Dynamo wraps the error in its own")
    steps = tensor_of(framework, [value], np.asarray(value).dtype.name.replace("128", "64"))
    with pytest.raises(TypeError, match=r"`step` must be a whole number of steps, 0 or more\. Received: "):
        way(getattr(clr.triangular(0.001, 0.006, 20), method), steps)


@pytest.mark.parametrize("way", [TENSORFLOW["eager"], TENSORFLOW["function"]], ids=["eager", "function"])
@pytest.mark.parametrize("step", ["5", ["5", "6"]])
def test_a_tensor_of_strings_is_refused(step: Any, way: Way) -> None:
    with pytest.raises(TypeError, match="`step` must be a whole number of steps"):
        way(clr.triangular(0.001, 0.006, 20), tf.constant(step))


@pytest.mark.parametrize("step", [None, "5", b"5", [1, 2], (1,), {"step": 1}, object(), 1j, True, lambda: 1])
@pytest.mark.parametrize("method", ["__call__", "cycle", "is_cycle_end"])
def test_what_is_no_step_is_refused(step: Any, method: str) -> None:
    with pytest.raises(TypeError, match=r"^`step` must be a whole number of steps, 0 or more\. Received: "):
        getattr(clr.triangular(0.001, 0.006, 20), method)(step)


@pytest.mark.parametrize(
    "thing",
    [torch.optim.SGD([torch.zeros(1)]), torch.nn.Identity(), tf.Module(), np.random.default_rng(0)],
    ids=lambda thing: type(thing).__name__,
)
def test_what_is_no_array_of_a_framework_is_no_step(thing: Any) -> None:
    """DeepSpeed, for one, calls what it is given as a scheduler with the optimizer."""
    with pytest.raises(TypeError) as caught:
        clr.triangular(0.01, 0.1, 4)(thing)
    assert str(caught.value) == f"`step` must be a whole number of steps, 0 or more. Received: {thing!r}."


def test_ragged_and_sparse_tensors_are_refused() -> None:
    for step in (tf.ragged.constant([[1], [2, 3]]), tf.sparse.from_dense([[1]])):
        with pytest.raises(TypeError, match=r"^`step` must be a whole number of steps"):
            clr.triangular(0.001, 0.006, 20)(step)


def test_a_tensorflow_variable_and_a_keras_variable_are_steps() -> None:
    keras = pytest.importorskip("keras")
    schedule = clr.triangular(0.25, 0.75, 4)
    for step in (tf.Variable(3), tf.Variable(3, dtype=tf.int64), keras.Variable(3, dtype="int64")):
        assert isinstance(schedule(step), tf.Tensor)
        assert float(schedule(step)) == 0.625
        step.assign(5)
        assert float(schedule(step)) == 0.625
        step.assign(4)
        assert float(schedule(step)) == 0.75
        assert int(schedule.cycle(step)) == 1


@each_way
def test_the_default_dtype_is_the_framework_s(framework: str, way: Way) -> None:
    schedule = clr.triangular(0.001, 0.006, 20)
    for integer in ("int32", "int64") if framework != "jax" else ("int32",):
        assert np.asarray(way(schedule, tensor_of(framework, [3], integer))).dtype == "float32"


@dynamo_may_warn
@each_torch
def test_torch_follows_its_default_dtype(way: Way) -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert way(clr.triangular(0.001, 0.006, 20), torch.tensor(3)).dtype == torch.float64
    finally:
        torch.set_default_dtype(before)


@each_jax
def test_jax_gives_float64_where_it_is_enabled(way: Way, double: None) -> None:
    assert way(clr.triangular(0.001, 0.006, 20), jnp.arange(3, dtype=jnp.int32)).dtype == jnp.float64


@each_way
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_a_low_precision_dtype_rounds_only_the_result(framework: str, way: Way, name: str) -> None:
    steps = [0, 7, 1_000_007, 2**31 - 9]
    module = {"tensorflow": tf, "torch": torch, "jax": jnp}[framework]
    schedule = clr.triangular(0.01, 0.1, 20)
    rates = way(lambda step: schedule(step, dtype=getattr(module, name)), tensor_of(framework, steps, "int32"))
    exact = torch.tensor([float(exact_rate(step, 0.01, 0.1, 20)) for step in steps], dtype=torch.float64)
    expected = exact.to(getattr(torch, name)).to(torch.float64).tolist()
    values = rates.to(torch.float64).tolist() if framework == "torch" else np.asarray(rates).astype(float).tolist()
    assert values == expected


# torch.compile and jit as such


@dynamo_may_warn
@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
@pytest.mark.parametrize("length", [20, 20.3])
def test_torch_compiles_a_schedule_without_a_break(mode: Any, length: float) -> None:
    torch.compiler.reset()
    schedule = clr.cyclic(0.001, 0.006, length, mode=mode)
    compiled = torch.compile(lambda step: schedule(step), backend="aot_eager", fullgraph=True)
    assert compiled(torch.tensor(7)).item() == pytest.approx(schedule(7), rel=1e-6)


def test_torch_compile_says_nothing_of_the_schedule() -> None:
    """Any warning is an error here."""
    torch.compiler.reset()
    compiled = torch.compile(clr.triangular(0.25, 0.75, 4), backend="aot_eager", fullgraph=True)
    assert compiled(torch.tensor(3)).item() == 0.625


@dynamo_may_warn
def test_torch_compile_compiles_once_for_all_steps() -> None:
    torch.compiler.reset()
    compilations = []

    def backend(graph: Any, inputs: Any) -> Any:
        compilations.append(graph)
        return graph.forward

    schedule = clr.triangular2(0.25, 0.75, 4)
    compiled = torch.compile(lambda step: schedule(step), backend=backend, fullgraph=True)
    assert [compiled(torch.tensor(step)).item() for step in (0, 1, 4, 12, 2**40 + 4)] == [0.25, 0.375, 0.75, 0.5, 0.25]
    assert len(compilations) == 1


def test_jit_takes_the_schedule_itself_and_traces_it_once() -> None:
    schedule = clr.triangular(0.25, 0.75, 4)
    compiled = jax.jit(schedule)
    assert [float(compiled(step)) for step in range(6)] == [0.25, 0.375, 0.5, 0.625, 0.75, 0.625]
    assert compiled._cache_size() == 1


def test_a_schedule_is_an_optax_schedule() -> None:
    optax = pytest.importorskip("optax")
    optimizer = optax.sgd(clr.triangular(0.25, 0.75, step_size=4))
    weight = jnp.float32(1.0)
    state = optimizer.init(weight)

    @jax.jit
    def update(weight: Any, state: Any) -> Any:
        updates, state = optimizer.update(jnp.float32(0.5), state, weight)
        return optax.apply_updates(weight, updates), state

    expected = 1.0
    for rate in (0.25, 0.375, 0.5, 0.625, 0.75, 0.625):
        weight, state = update(weight, state)
        expected -= rate * 0.5
        assert float(weight) == expected


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_keras_iterations_are_steps_on_the_other_backends(backend: str) -> None:
    """Keras chooses its backend once per process, hence another process."""
    program = """if True:
        import keras, clr
        from fractions import Fraction
        schedule = clr.triangular(0.25, 0.75, 4)
        iterations = keras.optimizers.SGD().iterations
        assert float(schedule(iterations)) == 0.25
        iterations.assign(11)
        rate = schedule(iterations)
        assert float(rate) == 0.625 and int(schedule.cycle(iterations)) == 2, rate
        print(type(rate).__module__, keras.backend.backend())
    """
    environment = os.environ | {"KERAS_BACKEND": backend}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    module, used = done.stdout.split()
    assert used == backend
    assert module.startswith(backend)


@each_framework
def test_rates_that_the_dtype_cannot_hold_are_refused(framework: str) -> None:
    step = tensor_of(framework, [0, 4], "int32")
    largest = float(np.finfo("float32").max) * (1 + 2.0**-30)  # which is rounded to it
    assert np.asarray(clr.triangular(0.0, largest, 4)(step)).tolist() == [0.0, float(np.finfo("float32").max)]
    for highest in (float(np.finfo("float32").max) * (1 + 2.0**-24), 1e39, 1e300):
        with pytest.raises(ValueError, match=r"the highest rate, .* is infinite in the dtype of the rates"):
            clr.triangular(0.0, highest, 4)(step)
    half = {"tensorflow": tf.float16, "torch": torch.float16, "jax": jnp.float16}[framework]
    with pytest.raises(ValueError, match=r"the highest rate, 70000\.0, is infinite"):
        clr.triangular(0.0, 70000.0, 4)(step, dtype=half)
