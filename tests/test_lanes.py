"""Vectors of eight numbers in compiled code, against numpy."""

from typing import Any, no_type_check

import numba
import numpy as np

from lyra.rendering.lanes import LANES, any_of, both, exp2, load, magnitude, ramp, repeat, select, store, total, totals


@numba.njit
@no_type_check
def _powers(numbers, results):
    for i in range(0, len(numbers), LANES):
        store(results, i, exp2(load(numbers, i)))


@numba.njit
@no_type_check
def _mixed(numbers, results):
    vector = load(numbers, 3)
    scaled = (vector * np.float32(2) - ramp()) / (magnitude(vector) + np.float32(1))
    condition = both(vector >= np.float32(-0.5), scaled <= np.float32(0.5))
    store(results, 5, select(condition, scaled, repeat(np.float32(7))))
    return total(vector), any_of(vector > np.float32(2)), any_of(vector > np.float32(1e9))


@numba.njit
@no_type_check
def _eight_totals(numbers, results):
    a, b, c, d = load(numbers, 0), load(numbers, 8), load(numbers, 16), load(numbers, 24)
    e, f, g, h = load(numbers, 32), load(numbers, 40), load(numbers, 48), load(numbers, 56)
    store(results, 0, totals(a, b, c, d, e, f, g, h))


def test_eight_sums_at_once():
    numbers = np.random.default_rng(0).normal(size=(8, LANES)).astype(np.float32)
    results = np.empty(8, np.float32)
    sums: Any = _eight_totals
    sums(numbers.ravel(), results)
    np.testing.assert_allclose(results, numbers.astype(np.float64).sum(1), atol=1e-5)


def test_powers_of_two():
    numbers = np.linspace(-120, 120, LANES * 100_000, dtype=np.float32)
    results = np.empty_like(numbers)
    _powers(numbers, results)
    assert np.abs(results / np.exp2(numbers.astype(np.float64)) - 1).max() < 3e-7


def test_arithmetic_and_masks():
    numbers = np.random.default_rng(0).normal(size=40).astype(np.float32) * 2
    results = np.full(40, -1, np.float32)
    mixed: Any = _mixed
    sum_of_them, some, none = mixed(numbers, results)
    vector = numbers[3 : 3 + LANES].astype(np.float64)
    scaled = (2 * vector - np.arange(LANES)) / (np.abs(vector) + 1)
    expected = np.where((vector >= -0.5) & (scaled <= 0.5), scaled, 7)
    np.testing.assert_allclose(results[5 : 5 + LANES], expected, atol=1e-5)
    assert (results[:5] == -1).all()
    assert (results[5 + LANES :] == -1).all()
    np.testing.assert_allclose(sum_of_them, vector.sum(), atol=1e-4)
    assert some == (vector > 2).any()
    assert not none
