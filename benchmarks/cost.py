"""What a rate costs, against what a user would pick instead. Both are timed in turns in one process.

Where two ways claim the same curve, curves that differ stop the benchmark.
"""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import tensorflow as tf
import torch
from ignite.handlers.param_scheduler import LinearCyclicalScheduler
from sklearn.datasets import load_digits

import clr
from benchmarks.formula import formula
from benchmarks.timing import Pair, alike, peer

lrsched = peer("lrsched")
transformers = peer("transformers")
pytorch_scheduler = peer("pytorch_scheduler")
catalyst = peer("catalyst.contrib.schedulers")

ARGUMENTS = {"base_lr": 0.01, "max_lr": 0.1, "step_size": 20.0, "gamma": 0.99994}
ROUNDS = 101
FLOAT32, FLOAT64 = 1e-5, 1e-9  # how near to each other the rates of the same curve must be
SPREAD = range(1, 100_000, 997)  # steps at which they are compared; at a restart itself, Keras may be a cycle off
# The other backend needs no compiler.
BACKEND = "inductor" if shutil.which("g++") else "aot_eager"


def pairs() -> Iterator[Pair]:
    """Everything that is compared."""
    step = tf.Variable(12_345, dtype=tf.int64, trainable=False)
    for mode in ("triangular", "triangular2", "exp_range"):
        rate = clr.cyclic_learning_rate(step, mode=mode)
        peers = partial(formula, step, mode, **ARGUMENTS)
        before = int(step)
        for number in range(0, 400, 7):
            step.assign(number)
            alike(f"eager, {mode}", [float(rate())], [float(peers())], FLOAT32)
        step.assign(before)
        yield Pair(f"eager, {mode}", rate, "formula in ops", peers, 20)
    for jit_compile in (False, True):
        how = "tf.function, XLA" if jit_compile else "tf.function"
        for mode in ("triangular", "triangular2", "exp_range"):
            ours = _advancing(step, clr.cyclic_learning_rate(step, mode=mode), jit_compile)
            constant = _advancing(step, lambda: tf.constant(0.01), jit_compile)
            yield Pair(f"{how}, {mode}, step += 1", ours, "a constant, step += 1", constant, 20)
        # What any rate that follows a variable costs at least.
        floor = _advancing(step, lambda: tf.cast(step, tf.float32), jit_compile)
        yield Pair(f"{how}, only the step as a float, step += 1", floor, "a constant, step += 1", constant, 20)
        mode = "triangular2"
        ours = _training(clr.cyclic_learning_rate, jit_compile)
        constant = _training(lambda step, mode: 0.01, jit_compile)
        yield Pair(f"{how}, training step, {mode}", ours, "at a constant rate", constant, 20)

    schedule = clr.triangular(0.01, 0.1, 2000)
    steps = np.arange(10_000)
    yield Pair(
        "host, 10,000 steps in one call",
        lambda: schedule(steps),
        "the same, step by step",
        lambda: [schedule(step) for step in range(10_000)],
        1,
    )
    yield from host_pairs(schedule)
    yield from keras_pairs(step)
    yield from torch_pairs()
    yield from compiled_pairs(schedule)
    yield from jax_pairs(schedule)


def host_pairs(schedule: clr.Schedule) -> Iterator[Pair]:
    """One rate, without a framework."""
    if lrsched is None:
        return
    # lrsched has the corners of fastai: its peak and its last rate are each a step after those of PyTorch.
    total, divisors = 10**6, {"initial_div": 25.0, "final_div": 25e4}
    earlier = (0.3 * total - 1) / (total - 1)
    policies: dict[str, tuple[Callable[[int], float], Callable[[int], float]]] = {
        "triangular": (schedule, lrsched.triangular(min_lr=0.01, max_lr=0.1, step_size=2000)),
        "one_cycle": (
            clr.one_cycle(0.1, total),
            lrsched.one_cycle(max_lr=0.1, total_steps=total - 1, pct_start=earlier, **divisors),
        ),
        "one_cycle_fastai": (
            clr.one_cycle_fastai(0.1, total, 0.3, div_final=25e4),
            lrsched.one_cycle(max_lr=0.1, total_steps=total, pct_start=0.3, **divisors),
        ),
        "warm_restarts, cycle_mult 2, 10 cycles on": (
            clr.warm_restarts(0.1, first_cycle=10, cycle_mult=2),
            lrsched.cosine_restarts(base_lr=0.1, min_lr=0.0, period=10, t_mult=2),
        ),
    }
    steps = [*range(0, total, 997), total]
    for what, (ours, other) in policies.items():
        alike(f"host, {what}", map(ours, steps), map(other, steps), FLOAT64)
        yield Pair(f"host, one step, {what}", partial(ours, 12_345), "lrsched", partial(other, 12_345), 500)


def keras_pairs(step: tf.Variable) -> Iterator[Pair]:
    """A call of a schedule, and a training step that Keras compiles."""
    ours = clr.keras.LearningRateSchedule(clr.warm_restarts(0.1, first_cycle=2000, cycle_mult=2))
    name, other = "Keras CosineDecayRestarts", keras.optimizers.schedules.CosineDecayRestarts(0.1, 2000)
    alike(name, (float(ours(number)) for number in SPREAD), (float(other(number)) for number in SPREAD), FLOAT32)
    yield Pair("Keras schedule, eager, warm_restarts", partial(ours, step), name, partial(other, step), 20)
    for jit_compile in (False, True):
        what = f"Keras training step on {keras.backend.backend()}{', jit_compile' * jit_compile}, warm_restarts"
        for other_name, rate in ((name, other), ("at a constant rate", 0.1)):
            yield Pair(what, _keras_training(ours, jit_compile), other_name, _keras_training(rate, jit_compile), 20)


class Schedulers(NamedTuple):
    """A scheduler of ours, and one of PyTorch's kind that drives its optimizer along the same curve."""

    what: str
    ours: Any
    other_name: str
    other: Any


def torch_schedulers(total: int) -> Iterator[Schedulers]:
    """All pairs of schedulers, which can be stepped ``total`` - 1 times, a multiple of 2000."""
    peers = torch.optim.lr_scheduler
    triangular, restarts = clr.triangular(0.01, 0.1, 2000), clr.warm_restarts(0.1, first_cycle=2000)
    for groups in (1, 8):
        for momentum in (False, True):
            yield _schedulers(
                f"{groups} group{'s' * (groups > 1)}{', with momentum' * momentum}",
                triangular,
                clr.momentum(triangular, 0.8, 0.9) if momentum else None,
                "CyclicLR",
                partial(peers.CyclicLR, base_lr=0.01, max_lr=0.1, step_size_up=2000, cycle_momentum=momentum),
                groups,
            )
    # At both ends of its cycle OneCycleLR has its highest momentum: that is the mirror of a rate as low at both.
    even, one_cycle = clr.one_cycle(0.1, total, final_div_factor=1.0), clr.one_cycle(0.1, total)
    peer = partial(peers.OneCycleLR, max_lr=0.1, total_steps=total)
    what = "one_cycle, final_div_factor 1, with its mirror as momentum"
    yield _schedulers(what, even, clr.momentum(even), "OneCycleLR", partial(peer, final_div_factor=1.0))
    up_and_down = clr.phases((0.95, 0.85, 0.95), tuple(map(float, one_cycle.lengths)), "cosine", total)
    yield _schedulers("one_cycle, with momentum", one_cycle, up_and_down, "OneCycleLR", peer)
    yield _schedulers(
        "warm_restarts",
        restarts,
        None,
        "CosineAnnealingWarmRestarts",
        partial(peers.CosineAnnealingWarmRestarts, T_0=2000),
    )
    if transformers:
        make = partial(
            transformers.get_cosine_with_hard_restarts_schedule_with_warmup,
            num_warmup_steps=0,
            num_training_steps=total,
            num_cycles=total // 2000,
        )
        yield _schedulers("warm_restarts", restarts, None, "transformers' cosine with hard restarts", make)
    if pytorch_scheduler:
        make = partial(pytorch_scheduler.CosineAnnealingWarmupRestarts, first_cycle_steps=2000, min_lr=0.0)
        yield _schedulers("warm_restarts", restarts, None, "pytorch-scheduler's CosineAnnealingWarmupRestarts", make)
    yield _schedulers("triangular", triangular, None, "ignite LinearCyclicalScheduler", _Ignite)
    if catalyst:
        top = total // 4  # at which it stays for a step
        corners: Any = (0.004, 0.1, 0.1, 0.004), (top - 1, 1, total - top - 1)
        linear = clr.phases(*corners)
        make = partial(
            catalyst.OneCycleLRWithWarmup,
            num_steps=total,
            lr_range=(0.1, 0.004),
            init_lr=0.004,
            warmup_steps=top,
            momentum_range=(0.85, 0.95),
            init_momentum=0.95,
        )
        what = "linear one-cycle, with momentum"
        yield _schedulers(what, linear, clr.momentum(linear), "catalyst's OneCycleLRWithWarmup", make)


def _schedulers(
    what: str,
    schedule: clr.Schedule,
    momentum: clr.Schedule | None,
    other_name: str,
    make: Callable[[Any], Any],
    groups: int = 1,
) -> Schedulers:
    optimizer = _optimizer(groups)
    other = make(optimizer)
    optimizer.step()
    return Schedulers(what, clr.torch.LRScheduler(_optimizer(groups), schedule, momentum), other_name, other)


def torch_pairs() -> Iterator[Pair]:
    """One step of a scheduler, in PyTorch."""
    for short, long in zip(torch_schedulers(6000), torch_schedulers(10**6), strict=True):
        what, ours, other_name, other = long
        alike(f"{what}, {other_name}", _walked(short.ours, 5999), _walked(short.other, 5999), FLOAT64)
        yield Pair(f"torch scheduler, {what}", ours.step, other_name, other.step, 500)
        if other_name == "CyclicLR":
            optimizer = _optimizer(len(ours.optimizer.param_groups))
            constant = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0, 10)
            optimizer.step()
            yield Pair(f"torch scheduler, {what}", ours.step, "ConstantLR (no momentum)", constant.step, 500)


def _walked(scheduler: Any, steps: int) -> Iterator[float]:
    """The rates and momenta of the last group that a scheduler sets, step by step."""
    group = scheduler.optimizer.param_groups[-1]
    for step in range(1, steps + 1):
        scheduler.step()
        if step % 2000:  # at each restart, pytorch-scheduler sets the lowest rate
            yield from (group["lr"], group["momentum"])


def compiled_pairs(schedule: clr.Schedule, backend: str = BACKEND) -> Iterator[Pair]:
    """A training step in PyTorch, compiled but for the scheduler, and a rate inside of what is compiled."""
    how = f"torch.compile ({backend})"
    ours = _torch_training(lambda optimizer: clr.torch.LRScheduler(optimizer, schedule), backend)
    cyclic = partial(
        torch.optim.lr_scheduler.CyclicLR, base_lr=0.01, max_lr=0.1, step_size_up=2000, cycle_momentum=False
    )
    for other_name, make in (("CyclicLR", cyclic), ("at a constant rate", None)):
        other = _torch_training(make, backend)
        yield Pair(f"{how}, training step, LRScheduler, triangular", ours, other_name, other, 20)
    rate = _torch_advancing(schedule, backend)
    constant = _torch_advancing(lambda step: torch.tensor(0.01), backend)
    yield Pair(f"{how}, triangular, step += 1", rate, "a constant, step += 1", constant, 100)


class _Ignite:
    """Ignite's scheduler with a `step`. It is called with an engine, but does not use it."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        scheduler: Any = LinearCyclicalScheduler(optimizer, "lr", 0.01, 0.1, 4000)
        self.optimizer = optimizer
        self.step: Callable[[], Any] = lambda: scheduler(None)
        self.step()  # which sets the first rate


def _optimizer(groups: int) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [torch.zeros(1)]} for _ in range(groups)], lr=0.1, momentum=0.9)


def _torch_training(make: Callable[[Any], Any] | None, backend: str) -> Callable[[], None]:
    """A compiled training step of a small classifier of handwritten digits, batch 64, and a step of its scheduler."""
    data = load_digits()
    x, y = torch.tensor(data.data[:64] / 16, dtype=torch.float32), torch.tensor(data.target[:64])
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.01), momentum=0.9)
    advance = make(optimizer).step if make else None

    def update() -> None:
        optimizer.zero_grad(set_to_none=False)
        torch.nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    update()  # makes the gradients and momenta, which are there then when it is compiled
    compiled = compiled_once(update, backend)

    def step() -> None:
        compiled()
        if advance:
            advance()

    return step


def _torch_advancing(rate: Callable[[Any], Any], backend: str) -> Callable[[], Any]:
    """A compiled function that counts a step, and returns the rate."""
    step = torch.tensor(0)

    def function() -> Any:
        value = rate(step)
        step.add_(1)
        return value

    function()  # the framework of the first tensor is looked up, which is kept and would be compiled in
    return compiled_once(function, backend)


def compiled_once(function: Callable[[], Any], backend: str) -> Callable[[], Any]:
    """The function, compiled in its first call. Compiling it again is an error, as for a rate that is no tensor."""
    from torch._dynamo import lookup_backend

    called = False

    def compile_once(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        if called:
            raise RuntimeError("it would be compiled anew")
        return lookup_backend(backend)(graph, inputs)

    compiled = torch.compile(function, backend=compile_once)

    def call() -> Any:
        nonlocal called
        result = compiled()
        called = True
        return result

    return call


def jax_pairs(schedule: clr.Schedule) -> Iterator[Pair]:
    """A call of a schedule, and a training step, both compiled by JAX."""
    count = jnp.asarray(12_345)
    constant = jax.jit(optax.constant_schedule(0.01))
    policies: dict[str, clr.Schedule] = {
        "triangular": schedule,
        "exp_range": clr.exp_range(0.01, 0.1, 2000),
        "one_cycle": clr.one_cycle(0.1, 100_000),
        "warm_restarts, cycle_mult 2": clr.warm_restarts(0.1, first_cycle=2000, cycle_mult=2),
    }
    for name, policy in policies.items():
        ours = jax.jit(policy)
        yield Pair(f"JAX jit, {name}", partial(_done, ours, count), "a constant", partial(_done, constant, count), 100)
    cosine = {"init_value": 0.1, "peak_value": 0.1, "warmup_steps": 0, "end_value": 0.0}
    cycles = [cosine | {"decay_steps": 2000 * 2**cycle} for cycle in range(8)]
    theirs: dict[str, tuple[Any, str, Any]] = {
        "one_cycle_fastai": (  # whose corners are where Optax has them
            clr.one_cycle_fastai(0.1, 100_000, 0.3, div_final=25e4),
            "optax.cosine_onecycle_schedule",
            optax.cosine_onecycle_schedule(100_000, 0.1),
        ),
        "warm_restarts, cycle_mult 2": (
            policies["warm_restarts, cycle_mult 2"],
            "optax.sgdr_schedule, 8 cycles",
            optax.sgdr_schedule(cycles),
        ),
    }
    for name, (policy, other_name, other) in theirs.items():
        pair = jax.jit(policy), jax.jit(other)
        own, others = ([float(rate(number)) for number in SPREAD] for rate in pair)
        alike(f"JAX jit, {name}", own, others, FLOAT32)
        yield Pair(f"JAX jit, {name}", partial(_done, pair[0], count), other_name, partial(_done, pair[1], count), 100)
    for name, policy in policies.items():
        yield Pair(
            f"JAX jit, training step, {name}", _jax_training(policy), "at a constant rate", _jax_training(0.01), 20
        )


def _done(function: Callable[..., jax.Array], *arguments: jax.Array) -> jax.Array:
    return jax.block_until_ready(function(*arguments))


def _jax_training(rate: float | clr.Schedule) -> Callable[[], Any]:
    """A compiled training step of a small classifier of handwritten digits, batch 128."""
    data = load_digits()
    x, y = jnp.asarray(data.data[:128] / 16, jnp.float32), jnp.asarray(data.target[:128])
    keys = jax.random.split(jax.random.key(0))
    weights = (0.1 * jax.random.normal(keys[0], (64, 512)), 0.1 * jax.random.normal(keys[1], (512, 10)))
    optimizer = optax.sgd(rate)

    def loss(weights: tuple[jax.Array, jax.Array]) -> jax.Array:
        logits = jax.nn.relu(x @ weights[0]) @ weights[1]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def update(weights: tuple[jax.Array, jax.Array], state: optax.OptState) -> Any:
        updates, state = optimizer.update(jax.grad(loss)(weights), state)
        return optax.apply_updates(weights, updates), state

    current = weights, optimizer.init(weights)

    def step() -> None:
        nonlocal current
        current = jax.block_until_ready(update(*current))

    return step


def _keras_training(
    rate: float | keras.optimizers.schedules.LearningRateSchedule, jit_compile: bool
) -> Callable[[], Any]:
    """A training step of a small classifier of handwritten digits, batch 64, as Keras compiles it."""
    data = load_digits()
    x, y = data.data[:64].astype("float32") / 16, data.target[:64]
    model = keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(128, activation="relu"), keras.layers.Dense(10, activation="softmax")]
    )
    model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy", jit_compile=jit_compile)
    return partial(model.train_on_batch, x, y)


def _advancing(step: tf.Variable, rate: Callable[[], Any], jit_compile: bool) -> Callable[[], Any]:
    """A compiled function that does what every training step does to the step, and returns the rate."""

    @tf.function(jit_compile=jit_compile)
    def function() -> Any:
        value = tf.identity(rate())
        step.assign_add(1)
        return value

    return function  # type: ignore[no-any-return]


def _training(make_rate: Callable[..., Any], jit_compile: bool) -> Callable[[], Any]:
    """A compiled training step of a small classifier of handwritten digits, batch 64."""
    data = load_digits()
    x, y = tf.constant(data.data[:64] / 16, tf.float32), tf.constant(data.target[:64])
    random = tf.random.Generator.from_seed(0)
    hidden = tf.Variable(random.normal([64, 128], stddev=0.1))
    output = tf.Variable(random.normal([128, 10], stddev=0.1))
    step = tf.Variable(0, dtype=tf.int64, trainable=False)
    rate = make_rate(step, mode="triangular2")

    @tf.function(jit_compile=jit_compile)
    def function() -> Any:
        with tf.GradientTape() as tape:
            logits = tf.nn.relu(x @ hidden) @ output
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
        now = rate() if callable(rate) else rate
        for weights, gradient in zip((hidden, output), tape.gradient(loss, (hidden, output)), strict=True):
            weights.assign_sub(now * gradient)
        step.assign_add(1)
        return loss

    return function  # type: ignore[no-any-return]
