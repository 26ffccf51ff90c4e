"""Other ways to smooth the curve of a range test: the usual moving average, and what SciPy has."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from clr.finder import curve

Smoother = Callable[[Sequence[float]], list[float]]


def _moving(keep: float) -> Smoother:
    """The exponential moving average of most range tests, its bias corrected."""

    def smooth(values: Sequence[float]) -> list[float]:
        smoothed, mean = [], 0.0
        for at, value in enumerate(values):
            mean = keep * mean + (1 - keep) * value
            smoothed.append(mean / (1 - keep ** (at + 1)))
        return smoothed

    return smooth


def _window(values: Sequence[float]) -> int:
    return 2 * curve._reach(len(values)) + 1


def _savgol(order: int) -> Smoother:
    def smooth(values: Sequence[float]) -> list[float]:
        from scipy import signal

        return list(map(float, signal.savgol_filter(curve.calm(values), min(_window(values), len(values)), order)))

    return smooth


def _median(values: Sequence[float]) -> list[float]:
    from scipy import ndimage

    return list(map(float, ndimage.median_filter(curve.calm(values), _window(values), mode="nearest")))


def _gaussian(values: Sequence[float]) -> list[float]:
    from scipy import ndimage

    return list(map(float, ndimage.gaussian_filter1d(curve.calm(values), _window(values) / 4, mode="nearest")))


def _spline(values: Sequence[float]) -> list[float]:
    from scipy import interpolate

    at = np.arange(len(values))
    return list(map(float, interpolate.make_smoothing_spline(at, curve.calm(values))(at)))


SMOOTHERS: Mapping[str, Smoother] = {
    "clr: local lines": curve.smooth,
    "moving average, 0.9": _moving(0.9),
    "moving average, 0.98": _moving(0.98),
    "SciPy, Savitzky-Golay of order 1": _savgol(1),
    "SciPy, Savitzky-Golay of order 2": _savgol(2),
    "SciPy, median": _median,
    "SciPy, Gaussian": _gaussian,
    "SciPy, smoothing spline": _spline,
}
