"""Draws every picture of README and docs: ``make figures``."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from matplotlib import pyplot

import clr
from clr import plot
from clr.demo import report, tensorflow, training

FIGURES = Path(__file__).parent / "figures"
POLICIES = ("triangular", "triangular2", "exp_range")
STEPS, GAMMA = 250, 0.997
DEMO_STEPS, DEMO_SEEDS = 760, 5  # the command's defaults


def eager(mode: str) -> list[float]:
    """The rates from the eager callable."""
    step = tf.Variable(0, dtype=tf.int64, trainable=False)
    rate = clr.cyclic_learning_rate(step, gamma=GAMMA, mode=mode)
    rates = []
    for number in range(STEPS):
        step.assign(number)
        rates.append(float(rate()))
    return rates


def graph(mode: str) -> list[float]:
    """The rates from a session's graph."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        step = tf.compat.v1.Variable(0, dtype=tf.int64, trainable=False)
        rate = clr.cyclic_learning_rate(step, gamma=GAMMA, mode=mode)
        advance = step.assign_add(1)
        session.run(step.initializer)
        rates = []
        for _ in range(STEPS):
            rates.append(float(session.run(rate)))
            session.run(advance)
        return rates


def family(path: Path) -> None:
    """Six schedules of the same length."""
    schedules = {
        "triangular2": clr.triangular2(0.01, 0.1, 100),
        "triangular, cosine": clr.triangular(0.01, 0.1, 100, shape="cosine"),
        "triangular, cycle_mult=2": clr.triangular(0.01, 0.1, 43, cycle_mult=2),
        "warm_restarts": clr.warm_restarts(0.1, first_cycle=86, base_lr=0.01, cycle_mult=2, peak_decay=0.8),
        "one_cycle": clr.one_cycle(0.1, 600),
        "warmup, then exp_range": clr.warmup(clr.exp_range(0.01, 0.1, 50, gamma=0.995), 100),
    }
    _, axes = pyplot.subplots(2, 3, figsize=(9, 4), sharex=True, sharey=True, layout="constrained")
    for ax, (name, schedule) in zip(axes.flat, schedules.items(), strict=True):
        schedule.plot(steps=600, ax=ax)
        ax.set_title(name, fontsize="medium")
        ax.label_outer()
    plot.save(axes[0, 0], path)


def demo() -> None:
    """The pictures of ``clr demo``."""
    search = tensorflow.search(DEMO_STEPS)
    for name, result in (("range_test", search.range_test), ("search", search)):
        if result is not None:
            plot.save(result.plot(), FIGURES / f"{name}.png")
    rates = training.Rates.of(search, map(trained, training.tries("tensorflow", search)))
    runs = [
        trained(training.Planned("tensorflow", policy, seed, DEMO_STEPS, rates))
        for policy in (training.FIXED, *POLICIES, training.ONE_CYCLE)
        for seed in range(DEMO_SEEDS)
    ]
    report.draw(runs, report.summary(runs, rates), FIGURES / "demo_rates.png", FIGURES / "demo_accuracy.png")


def trained(plan: training.Planned) -> training.Run:
    """The run that is planned."""
    *_, run = tensorflow.train(*plan[1:])
    return run


def main() -> None:
    """Draws them all."""
    FIGURES.mkdir(exist_ok=True)
    demo()
    family(FIGURES / "family.png")
    for way in (eager, graph):
        for mode in POLICIES:
            ax = plot.new_axes()
            ax.plot(way(mode))
            plot.label(ax, "learning rate")
            ax.set_title(f"{mode}, {way.__name__} mode")
            plot.save(ax, FIGURES / f"{way.__name__}_{mode}.png")


if __name__ == "__main__":
    main()
