"""
Every DCE case of OSIPI's code collection, within OSIPI's own tolerances.

The tolerances are those of test/*/..._data.py of OSIPI/DCE-DSC-MRI_CodeCollection at the
revision whose files lie in the shared data. An earlier revision of OSIPI's tests, whose
two-compartment curves were free of noise, was up to ten times stricter; whatever is not
limited by the noise of the data meets that one too, and is held to it here.
"""

import csv
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from bids_app.analyses.leakage.model.aif import georgiou_aif, mcgrath_aif, parker_aif
from bids_app.analyses.leakage.model.kinetics import (
    fit_2cum,
    fit_2cxm,
    fit_extended_tofts,
    fit_extended_tofts_linear,
    fit_patlak,
    fit_tofts,
    fit_tofts_linear,
    fit_with_delay,
)
from bids_app.analyses.leakage.model.relaxation import (
    fit_t1_vfa_linear,
    fit_t1_vfa_nonlinear,
    signal_to_concentration,
)

pytestmark = pytest.mark.realdata

# Absolute and relative tolerance, units as in the data: 1/min, mL/100mL/min, s.
CURRENT = {
    'ktrans': (0.005, 0.1),
    'ps': (0.005, 0.1),
    've': (0.05, 0.0),
    'vp': (0.025, 0.0),
    'fp': (5.0, 0.1),
    'delay': (1.0, 0.0),
}
STRICT = CURRENT | {
    'ktrans': (0.005, 0.01),
    'ps': (0.005, 0.01),
    'vp': (0.0025, 0.0),
    'fp': (5.0, 0.01),
    'delay': (0.2, 0.0),
}
DELAY_RANGE_S = (0.0, 10.0)


class Model(NamedTuple):
    file: str
    n_cases: int
    fit: Callable[..., Any]
    parameters: tuple[str, ...]
    delay_samples: int | None
    tolerances: dict[str, tuple[float, float]]


MODELS = {
    'tofts': Model('dce_DRO_data_tofts', 25, fit_tofts, ('ktrans', 've'), 0, STRICT),
    'tofts linear': Model('dce_DRO_data_tofts', 25, fit_tofts_linear, ('ktrans', 've'), 0, STRICT),
    'tofts delayed': Model('dce_DRO_data_tofts', 25, fit_tofts, ('ktrans', 've'), 10, CURRENT),
    'extended tofts': Model(
        'dce_DRO_data_extended_tofts', 15, fit_extended_tofts, ('ktrans', 've', 'vp'), 0, STRICT
    ),
    'extended tofts linear': Model(
        'dce_DRO_data_extended_tofts',
        15,
        fit_extended_tofts_linear,
        ('ktrans', 've', 'vp'),
        0,
        STRICT,
    ),
    'extended tofts delayed': Model(
        'dce_DRO_data_extended_tofts', 15, fit_extended_tofts, ('ktrans', 've', 'vp'), 5, CURRENT
    ),
    'patlak': Model('patlak_sd_0.02_delay_0', 9, fit_patlak, ('ps', 'vp'), 0, STRICT),
    'patlak delayed': Model('patlak_sd_0.02_delay_5', 9, fit_patlak, ('ps', 'vp'), None, STRICT),
    '2CUM': Model('2cum_sd_0.0025_delay_0', 27, fit_2cum, ('ps', 'vp', 'fp'), 0, STRICT),
    '2CUM delayed': Model(
        '2cum_sd_0.0025_delay_5', 27, fit_2cum, ('ps', 'vp', 'fp'), None, CURRENT
    ),
    '2CXM': Model('2cxm_sd_0.001_delay_0', 24, fit_2cxm, ('ps', 'vp', 've', 'fp'), 0, CURRENT),
    '2CXM delayed': Model(
        '2cxm_sd_0.001_delay_5', 24, fit_2cxm, ('ps', 'vp', 've', 'fp'), None, CURRENT
    ),
}


def read_rows(path: Path) -> list[dict[str, str]]:
    csv.field_size_limit(10**8)
    with path.open(encoding='utf-8-sig', newline='') as lines:
        return list(csv.DictReader(lines))


def numbers(text: str) -> np.ndarray:
    return np.array(text.split(), dtype=np.float64)


def within(measured: float, reference: float, tolerance: tuple[float, float]) -> bool:
    return abs(measured - reference) <= tolerance[0] + tolerance[1] * abs(reference)


@functools.cache
def fitted_cases(name: str, folder: Path) -> list[tuple[str, dict[str, tuple[float, float]]]]:
    """Label, and (measured, reference) of each parameter, of every case of a model."""
    model = MODELS[name]
    rows = read_rows(folder / f'{model.file}.csv')
    shift = model.delay_samples or 0
    groups: dict[bytes, list[int]] = {}
    plasma = [numbers(row.get('ca') or row['cp_aif']) for row in rows]
    for index, curve in enumerate(plasma):
        groups.setdefault(curve.tobytes(), []).append(index)
    out: list[tuple[str, dict[str, tuple[float, float]]]] = [('', {})] * len(rows)
    for members in groups.values():
        times = numbers(rows[members[0]]['t'])
        tissue = np.stack([numbers(rows[i].get('C') or rows[i]['C_t']) for i in members])
        if shift:
            tissue = np.concatenate([np.zeros((len(members), shift)), tissue[:, :-shift]], axis=1)
        delay = np.zeros(len(members))
        if model.delay_samples == 0:
            fit = model.fit(tissue, plasma[members[0]], times)
        else:
            fit, delay = fit_with_delay(
                model.fit, tissue, plasma[members[0]], times, DELAY_RANGE_S
            )
        for row, index in enumerate(members):
            reference = {key.lower(): value for key, value in rows[index].items()}
            values = {}
            for parameter in model.parameters:
                field = 'ktrans' if parameter == 'ps' and model.fit is fit_patlak else parameter
                values[parameter] = (
                    float(getattr(fit, field)[row]),
                    float(reference[parameter]),
                )
            expected = float(reference.get('arterial_delay') or reference['arterialdelay'])
            values['delay'] = (float(delay[row]), expected + times[shift] - times[0])
            out[index] = (rows[index]['label'], values)
    return out


def worst(
    values: dict[str, tuple[float, float]], tolerances: dict[str, tuple[float, float]]
) -> float:
    return max(
        abs(measured - reference) / (tolerances[name][0] + tolerances[name][1] * abs(reference))
        for name, (measured, reference) in values.items()
    )


@pytest.fixture(scope='module')
def table(request):
    """Lines printed after the tests of this file, past pytest's capturing."""
    lines: dict[str, str] = {}
    yield lines
    reporter = request.config.pluginmanager.getplugin('terminalreporter')
    capture = request.config.pluginmanager.getplugin('capturemanager')
    if reporter is not None and capture is not None:
        with capture.global_and_fixture_disabled():
            reporter.write_line('\nOSIPI case: error as a fraction of the tolerance, worst case')
            for line in lines.values():
                reporter.write_line(line)


@pytest.mark.parametrize(
    ('name', 'case'),
    [(name, case) for name, model in MODELS.items() for case in range(model.n_cases)],
)
def test_kinetic_model_recovers_osipi_reference(name, case, shared_data, table):
    cases = fitted_cases(name, shared_data / 'dce/osipi/DCEmodels/data')
    assert len(cases) == MODELS[name].n_cases
    tolerances = MODELS[name].tolerances
    label, values = cases[case]
    fractions = [worst(one, tolerances) for _, one in cases]
    table[name] = (
        f'{name:24s} {len(cases):3d} cases  worst {max(fractions):.2f} of '
        f'{"the stricter, earlier" if tolerances is STRICT else "the current"} tolerance'
    )
    for parameter, (measured, reference) in values.items():
        assert within(measured, reference, tolerances[parameter]), (
            f'{label}: {parameter} is {measured:.5g}, reference {reference:.5g}'
        )


T1_FILES = {'t1_brain_data': 76, 't1_quiba_data': 45, 't1_prostate_data': 50}
# All OSIPI contributions expect their linear fit to fail here: the reference is a nonlinear fit
# of a voxel whose noise the linear equation weighs differently.
LINEAR_EXPECTED_FAILURE = 'Pat5_voxel5_prostaat'


@functools.cache
def t1_cases(method: str, folder: Path) -> list[tuple[str, float, float]]:
    fit = fit_t1_vfa_linear if method == 'linear' else fit_t1_vfa_nonlinear
    out = []
    for name in T1_FILES:
        for row in read_rows(folder / f'{name}.csv'):
            milliseconds = name == 't1_prostate_data'
            tr_s = numbers(row['TR'])[0] / (1000.0 if milliseconds else 1.0)
            t1, _ = fit(numbers(row['s'])[None], numbers(row['FA']), float(tr_s))
            if milliseconds:
                reference = 1000.0 / float(row[' T1 nonlinear'])
            else:
                reference = float(row['R1']) * (1000.0 if name == 't1_quiba_data' else 1.0)
            out.append((row['label'], 1.0 / t1[0], reference))
    return out


@pytest.mark.parametrize('case', range(sum(T1_FILES.values())))
@pytest.mark.parametrize('method', ['linear', 'nonlinear'])
def test_t1_mapping_recovers_osipi_reference(method, case, shared_data, table):
    cases = t1_cases(method, shared_data / 'dce/osipi/T1_mapping/data')
    assert len(cases) == sum(T1_FILES.values())
    label, measured, reference = cases[case]
    fractions = [
        abs(one - expected) / (0.05 + 0.05 * expected)
        for name, one, expected in cases
        if method == 'nonlinear' or name != LINEAR_EXPECTED_FAILURE
    ]
    table[method] = f'T1 {method:21s} {len(cases):3d} cases  worst {max(fractions):.2f}'
    if method == 'linear' and label == LINEAR_EXPECTED_FAILURE:
        pytest.xfail('every linear fit in OSIPI fails this low-SNR voxel and is marked so there')
    assert within(measured, reference, (0.05, 0.05)), f'{label}: R1 {measured:.4g} {reference:.4g}'


@pytest.mark.parametrize('kind', [np.float64, np.float32, '>i2'])
@pytest.mark.parametrize('case', range(5))
def test_signal_to_concentration_matches_osipi(case, kind, shared_data, table):
    row = read_rows(shared_data / 'dce/osipi/SI_to_Conc/data/SI2Conc_data.csv')[case]
    signal = numbers(row['s'])[None].astype(kind)
    # OSIPI leaves the first sample out of the baseline and of the comparison.
    baseline = signal[:, 1 : int(row['numbaselinepts'])].mean(axis=1)
    measured = signal_to_concentration(
        signal,
        baseline,
        float(row['T1base']),
        float(row['TR']),
        float(row['FA']),
        float(row['r1']),
    )
    reference = numbers(row['conc'])
    error = np.abs(measured[0, 1:] - reference[1:]) / (1e-5 + 1e-5 * np.abs(reference[1:]))
    name = f'{np.dtype(kind).name} {row["label"]}'
    table[name] = f'signal to mM {name:26s} worst {error.max():.3f}'
    assert error.max() <= 1.0


AIF_FILES = {
    'GeorgiouAIF_ref': (georgiou_aif, 7, 60.0),
    'ParkerAIF_ref': (parker_aif, 11, 60.0),
    'ParkerAIF_ref_with_delay': (parker_aif, 9, 60.0),
    'preclinicalAIF_ref': (mcgrath_aif, 10, 1.0),
    'preclinicalAIF_ref_delay': (mcgrath_aif, 8, 1.0),
}


@functools.cache
def aif_cases(folder: Path, name: str) -> dict[str, list[dict[str, str]]]:
    groups: dict[str, list[dict[str, str]]] = {}
    for row in read_rows(folder / f'{name}.csv'):
        groups.setdefault(row['label'], []).append(row)
    return groups


@pytest.mark.parametrize(
    ('name', 'case'),
    [(name, case) for name, entry in AIF_FILES.items() for case in range(entry[1])],
)
def test_population_aif_matches_osipi(name, case, shared_data, table):
    function, n_cases, seconds = AIF_FILES[name]
    groups = aif_cases(shared_data / 'dce/osipi/PopulationAIF_DCE/data', name)
    assert len(groups) == n_cases
    label, rows = list(groups.items())[case]
    times = np.array([float(row['time']) for row in rows]) * seconds
    reference = np.array([float(row['Cb']) for row in rows])
    delay = float(rows[0].get('delay') or 0.0)
    measured = function(times, delay, hematocrit=0.0)
    error = np.abs(measured - reference) / (1e-4 + 0.01 * np.abs(reference))
    table[f'{name} {label}'] = f'{name:24s} {label:16s} worst {error.max():.3f}'
    assert error.max() <= 1.0
