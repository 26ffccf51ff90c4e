"""LightGBM takes a schedule as it is, and XGBoost a round ahead: the rate of each boosting round."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import clr

SCHEDULE = clr.triangular(0.25, 0.75, step_size=3)
ROUNDS = 12
TARGETS = np.array([1.0, 2.0, 3.0, 6.0])


def following(step: int) -> float:
    """The rate of the round after ``step``, at whose end XGBoost asks for it."""
    return SCHEDULE(step + 1)


def means(rates: list[float]) -> list[float]:
    """What boosting makes of the mean of the targets, 3, if no tree can tell the samples apart."""
    found, value = [], Fraction(0)
    for rate in rates:
        value += Fraction(rate) * (3 - value)
        found.append(float(value))
    return found


PLANNED = [SCHEDULE(step) for step in range(ROUNDS)]


@pytest.mark.parametrize(
    ("function", "rates"),
    [(following, PLANNED), (SCHEDULE, [PLANNED[0], *PLANNED[:-1]])],
    ids=["shifted", "the schedule itself is a round late"],
)
def test_xgboost_asks_for_the_rate_after_each_round(function: Any, rates: list[float]) -> None:
    xgboost = pytest.importorskip("xgboost")
    data = xgboost.DMatrix(np.zeros((4, 1)), TARGETS)
    options = {"learning_rate": SCHEDULE(0), "base_score": 0.0, "lambda": 0.0, "nthread": 1}
    callback = xgboost.callback.LearningRateScheduler(function)
    booster = xgboost.train(options, data, ROUNDS, callbacks=[callback])
    found = [booster.predict(data, iteration_range=(0, count))[0] for count in range(1, ROUNDS + 1)]
    assert found == pytest.approx(means(rates), rel=1e-6)


def test_lightgbm_takes_a_schedule() -> None:
    lightgbm = pytest.importorskip("lightgbm")
    images, labels = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    data = lightgbm.Dataset(images[:400], labels[:400] % 2)
    options = {"objective": "binary", "num_threads": 1, "verbosity": -1, "boost_from_average": False}
    callback = lightgbm.reset_parameter(learning_rate=SCHEDULE)
    booster = lightgbm.train(options, data, ROUNDS, callbacks=[callback])
    trees: list[dict[str, Any]] = booster.dump_model()["tree_info"]
    assert [tree["shrinkage"] for tree in trees] == pytest.approx(PLANNED, rel=1e-5)  # it gives six digits


def test_scikit_learns_interfaces_take_it_too() -> None:
    xgboost, lightgbm = pytest.importorskip("xgboost"), pytest.importorskip("lightgbm")
    callback = xgboost.callback.LearningRateScheduler(following)
    options = {"learning_rate": SCHEDULE(0), "base_score": 0.0, "reg_lambda": 0.0, "n_estimators": ROUNDS, "n_jobs": 1}
    model = xgboost.XGBRegressor(callbacks=[callback], **options).fit(np.zeros((4, 1)), TARGETS)
    assert model.predict(np.zeros((1, 1)))[0] == pytest.approx(means(PLANNED)[-1], rel=1e-6)
    images, labels = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    forest = lightgbm.LGBMClassifier(n_estimators=ROUNDS, n_jobs=1, verbosity=-1)
    forest.fit(images[:400], labels[:400] % 2, callbacks=[lightgbm.reset_parameter(learning_rate=SCHEDULE)])
    # The first tree also holds the mean of the labels, so LightGBM calls its own rate 1.
    shrinkages = [tree["shrinkage"] for tree in forest.booster_.dump_model()["tree_info"]]
    assert shrinkages[1:] == pytest.approx(PLANNED[1:], rel=1e-5)
