"""Random schedules give the same rates from NumPy, from TensorFlow's eager mode and from a graph."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.schedules.test_properties import Case, cases, steps_of

tf = pytest.importorskip("tensorflow")


@st.composite
def curves(draw: st.DrawFn) -> tuple[Case, list[int]]:
    case = draw(cases())
    return case, draw(st.lists(steps_of(case), min_size=1, max_size=20))


def rates(case: Case, steps: list[int], dtype: str) -> tuple[Any, Any, Any]:
    schedule = case.schedule
    tensor = tf.constant(steps, tf.int64)
    graph = tf.function(lambda step: schedule(step, dtype=dtype))
    return schedule(np.array(steps)), schedule(tensor, dtype=dtype).numpy(), graph(tensor).numpy()


@settings(max_examples=40)
@given(curves())
def test_numpy_eager_and_graph_agree_in_float64(curve: tuple[Case, list[int]]) -> None:
    host, eager, graph = rates(*curve, "float64")
    assert host.tolist() == eager.tolist()
    # TensorFlow takes a number below the smallest normal one as 0.
    np.testing.assert_allclose(graph, host, rtol=1e-14, atol=np.finfo(np.float64).tiny)


@settings(max_examples=40)
@given(curves())
def test_numpy_eager_and_graph_agree_in_float32(curve: tuple[Case, list[int]]) -> None:
    with np.errstate(over="ignore"):
        too_high = np.isinf(np.float32(curve[0].max_lr))
    if too_high:
        with pytest.raises(ValueError, match=r"the highest rate, .* is infinite in the dtype of the rates"):
            rates(*curve, "float32")
        return
    host, eager, graph = rates(*curve, "float32")
    smallest = float(np.finfo(np.float32).tiny)
    host = host.astype(np.float32)
    np.testing.assert_allclose(eager, host, rtol=0, atol=smallest)
    np.testing.assert_allclose(graph, host, rtol=1e-7, atol=smallest)
