"""Population input functions and the detection of arteries among tissue, tumour and noise."""

import numpy as np
import pytest

from bids_app.analyses.leakage.model.aif import (
    detect_aif,
    georgiou_aif,
    mcgrath_aif,
    parker_aif,
)
from bids_app.analyses.leakage.model.tissue_models import extended_tofts


@pytest.mark.parametrize('function', [parker_aif, georgiou_aif, mcgrath_aif])
def test_population_functions_start_at_arrival_and_divide_by_plasma(function):
    times = np.arange(0.0, 300.0, 0.5)
    blood = function(times, 40.0, hematocrit=0.0)
    assert not blood[times < 40.0].any()
    assert blood.max() > 3.0
    np.testing.assert_allclose(function(times, 40.0, hematocrit=0.4), blood / 0.6)
    np.testing.assert_allclose(
        function(times, 40.0, hematocrit=0.0)[80:], function(times, 0.0, hematocrit=0.0)[:-80]
    )


def head(dt_s, n_times, arrival_frame, noise, seed):
    """Concentrations of arteries, veins, tissue, tumour and noise, and which are arteries."""
    rng = np.random.default_rng(seed)
    times = np.arange(n_times) * dt_s
    plasma = parker_aif(times, times[arrival_frame] - 1.0, hematocrit=0.0)
    late = parker_aif(times, times[arrival_frame] + 6.0, hematocrit=0.0)
    n_tissue, n_tumour, n_artery, n_vein = 4000, 500, 40, 60
    tissue = extended_tofts(
        plasma,
        times,
        rng.uniform(0.0, 0.005, n_tissue),
        rng.uniform(0.1, 0.3, n_tissue),
        rng.uniform(0.01, 0.05, n_tissue),
    )
    tumour = extended_tofts(
        plasma,
        times,
        rng.uniform(0.1, 0.6, n_tumour),
        rng.uniform(0.2, 0.6, n_tumour),
        rng.uniform(0.02, 0.12, n_tumour),
    )
    artery = rng.uniform(0.6, 1.0, (n_artery, 1)) * plasma
    vein = rng.uniform(0.6, 1.0, (n_vein, 1)) * late
    curves = np.concatenate([tissue, tumour, vein, artery])
    curves = curves + rng.normal(0.0, noise, curves.shape)
    spikes = rng.choice(n_tissue, 30, replace=False)
    curves[spikes, arrival_frame + 1] += 9.0
    is_artery = np.zeros(len(curves), dtype=bool)
    is_artery[-n_artery:] = True
    order = rng.permutation(len(curves))
    return curves[order], times, plasma, is_artery[order]


@pytest.mark.parametrize(
    ('dt_s', 'n_times', 'arrival', 'noise'),
    [(2.0, 130, 12, 0.1), (4.0, 60, 5, 0.05), (4.0, 60, 5, 0.15), (8.0, 40, 4, 0.05)],
)
def test_arteries_are_found_among_veins_tumour_and_spikes(dt_s, n_times, arrival, noise):
    curves, times, plasma, is_artery = head(dt_s, n_times, arrival, noise, seed=int(dt_s))
    found = detect_aif(curves, times, arrival, n_voxels=15)
    assert found.voxels.size == 15
    assert is_artery[found.voxels].mean() >= 0.9
    assert found.agreement > 0.9
    assert np.corrcoef(found.curve_blood, plasma)[0, 1] > 0.98
    assert 0.6 < found.curve_blood.max() / plasma.max() < 1.1


def test_nothing_arterial_gives_an_empty_answer():
    times = np.arange(60) * 4.0
    rising = np.linspace(0.0, 1.0, 60)[None] * np.ones((50, 1))
    for curves in (rising, np.zeros((50, 60)), np.full((50, 60), np.nan)):
        found = detect_aif(curves, times, 5)
        assert found.voxels.size == 0
        assert not found.curve_blood.any()
        assert found.agreement == 0.0


def test_big_endian_integers_and_nan_voxels_are_no_obstacle():
    curves, times, _, is_artery = head(4.0, 60, 5, 0.05, seed=3)
    curves[::7] = np.nan
    found = detect_aif(curves, times, 5, n_voxels=10)
    assert is_artery[found.voxels].mean() >= 0.9
    scaled = np.nan_to_num(curves * 1000.0).astype('>i2')
    assert is_artery[detect_aif(scaled, times, 5, n_voxels=10).voxels].mean() >= 0.9
