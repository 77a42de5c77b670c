"""A small OUTPUT_DIR such as the pipeline leaves, with a lesion whose side is known."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

from bids_app.config import TEMPLATES_DIR
from bids_app.outputs.spec import load_spec, output_path

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATE = 'MNI152NLin2009aSym'
SPACE = {'space': TEMPLATE, 'res': '2'}
LESION_RAS_MM = np.array([-38.0, 8.0, 28.0])
LESION_RADIUS_MM = 14.0

# Without a graphics card the browser draws WebGL by itself.
CHROMIUM_FLAGS = [
    '--no-sandbox', '--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader',
]  # fmt: skip

# A machine that does much else at the same time starts programs slowly.
LAUNCH_MS = 240_000

METRICS = {
    'leakage_rls_median': 2.41,
    'leakage_rls_p90': 11.9,
    'leakage_rvs_median': 3.02,
    'leakage_rvs_p90': 24.7,
    'leakage_patlak_ktrans_median': 0.00123,
    'leakage_patlak_ktrans_p90': 0.0215,
    'leakage_patlak_vp_median': 0.0231,
    'leakage_volume_mm3': 11264.0,
    'leakage_brain_volume_mm3': 1432018.0,
    'leakage_patlak_r2': 0.93,
    'leakage_arrival_s': 24.0,
    'leakage_motion_max_mm': 1.32,
}


def template(kind: str, step: int) -> tuple[np.ndarray, np.ndarray]:
    name = f'tpl-{TEMPLATE}_res-2_{kind}.nii.gz'
    image = nib.load(TEMPLATES_DIR / f'tpl-{TEMPLATE}' / name)
    affine = image.affine @ np.diag([step, step, step, 1.0])
    return np.asarray(image.dataobj, np.float32)[::step, ::step, ::step], affine


def reorient(data, affine, codes: str, tilt_deg: float):
    image = nib.Nifti1Image(data, affine)
    wanted = nib.orientations.axcodes2ornt(codes)
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(affine), wanted)
    )
    angle = np.deg2rad(tilt_deg)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return nib.Nifti1Image(np.asarray(turned.dataobj), turn @ turned.affine)


def save(path: Path, image: nib.Nifti1Image, sidecar: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)
    path.with_name(path.name.split('.')[0] + '.json').write_text(json.dumps(sidecar))


def volumes(step: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Plausible maps by the keys of the leakage spec, in RAS order."""
    t1w, affine = template('T1w', step)
    grey, _ = template('label-GM_probseg', step)
    white, _ = template('label-WM_probseg', step)
    brain = template('desc-brain_mask', step)[0] > 0.5
    rng = np.random.default_rng(3)
    index = np.indices(t1w.shape).reshape(3, -1).T
    place = nib.affines.apply_affine(affine, index).reshape(*t1w.shape, 3)
    distance = np.linalg.norm(place - LESION_RAS_MM, axis=-1)
    ring = np.exp(-(((distance - 0.7 * LESION_RADIUS_MM) / 4.0) ** 2)) * brain
    vessel = np.exp(-(place[..., 0] ** 2 / 12)) * (place[..., 1] < -50) * brain
    noise = rng.gamma(2.0, 0.5, t1w.shape) * brain
    leaking = (ring > 0.3) & brain
    maps = {
        'baseline': (0.4 + t1w / t1w.max()) * 900 * brain + rng.normal(0, 12, t1w.shape),
        'brain_mask': brain,
        'leakage_mask': leaking,
        'rls': 26 * ring + noise,
        'rvs': 55 * vessel + 6 * grey * brain + noise,
        'patlak_ktrans': 0.09 * ring + 0.0012 * noise,
        'patlak_vp': 0.15 * vessel + 0.04 * grey * brain + 0.02 * white * brain,
        't1map': (1.9 * grey + 1.1 * white + 0.5) * brain,
    }
    kinds = {'brain_mask': np.uint8, 'leakage_mask': np.uint8}
    return {key: value.astype(kinds.get(key, np.float32)) for key, value in maps.items()}, affine


def curves() -> str:
    times = np.arange(0, 240, 4.0)
    since = np.maximum(times - 24, 0)
    aif = 5 * since / 6 * np.exp(1 - since / 6) + 0.9 * (since > 0) * np.exp(-since / 300)
    vascular = 60 * aif / aif.max()
    leaking = 22 * (1 - np.exp(-since / 60))
    normal = 0.08 * vascular + 0.4
    rng = np.random.default_rng(5)
    columns = {
        'time': times,
        'leaking': leaking + rng.normal(0, 0.5, 60),
        'leaking_expected': leaking * 1.35 + 4 * (since > 0),
        'vascular': vascular + rng.normal(0, 0.5, 60),
        'vascular_expected': vascular * 0.6,
        'normal': normal + rng.normal(0, 0.15, 60),
        'normal_expected': normal,
        'aif': aif,
    }
    rows = np.stack(list(columns.values()), axis=1)
    lines = ['\t'.join(columns), *('\t'.join(f'{v:.5g}' for v in row) for row in rows)]
    return '\n'.join(lines) + '\n'


def motion() -> str:
    names = ['trans_x', 'trans_y', 'trans_z', 'rot_x', 'rot_y', 'rot_z']
    rng = np.random.default_rng(6)
    lines = ['\t'.join(['time', *names, 'displacement', 'corrected'])]
    for frame in range(60):
        move = rng.normal(0, 0.05, 6) * [1, 1, 1, 0.02, 0.02, 0.02]
        move[2] += 1.2 * (30 <= frame < 34)
        size = float(np.linalg.norm(move[:3]))
        cells = [4.0 * frame, *move, size, int(size > 0.5)]
        lines.append('\t'.join(f'{cell:.5g}' for cell in cells))
    return '\n'.join(lines) + '\n'


def write_subject(
    output_dir: Path,
    subject: str,
    session: str = '',
    run: str = '',
    codes: str = 'RAS',
    tilt_deg: float = 0.0,
    step: int = 2,
    single_slice: bool = False,
) -> None:
    spec = load_spec('leakage')
    entities = [f'sub-{subject}', *([f'ses-{session}'] if session else [])]
    entities += [f'run-{run}'] if run else []
    source = '_'.join([*entities, 'dce.nii.gz'])
    folder = '/'.join(part for part in entities if part[:3] != 'run')
    sidecar = {
        'Sources': [f'bids:raw:{folder}/perf/{source}'],
        'ModelName': 'Residual autoencoder',
        'ModelVersion': '1.0',
        'WeightsSHA256': '3f' * 32,
        'Device': 'cpu',
        'BolusArrivalTime': 24.0,
        'TimeBase': 'used as acquired: 60 frames, 4 s apart, bolus at frame 6',
        'T10Source': 'population value 1.3 s',
        'AIFSource': 'detected from 24 voxels',
        'MotionCorrected': True,
        'Warnings': ['No T1 map and no VFA series: T10 is the population value.'],
    }
    maps, affine = volumes(step)
    for key, data in maps.items():
        if single_slice:
            height = data.shape[2] // 2 + 4 // step
            shown, grid = data[:, :, height : height + 1], affine.copy()
            grid[:3, 3] = nib.affines.apply_affine(affine, [0, 0, height])
        else:
            shown, grid = data, affine
        image = reorient(shown, grid, codes, tilt_deg)
        path = output_dir / output_path(spec.outputs[key], source)
        save(path, image, {**spec.outputs[key].sidecar, **sidecar})
        if key in {'baseline', 'rls'} and not single_slice:
            place = output_dir / output_path(spec.outputs[key], source, SPACE)
            save(place, nib.Nifti1Image(data, affine), spec.outputs[key].sidecar)
    for key, text in (('curves', curves()), ('motion', motion())):
        path = output_dir / output_path(spec.outputs[key], source)
        path.write_text(text)
        path.with_suffix('.json').write_text(json.dumps(spec.outputs[key].sidecar))
    write_scans(output_dir, source, METRICS)


def write_scans(output_dir: Path, source: str, metrics: dict[str, float]) -> None:
    spec = load_spec('leakage')
    image = output_path(spec.outputs['rls'], source)
    folder = image.parent.parent
    table = output_dir / folder / (folder.as_posix().replace('/', '_') + '_scans.tsv')
    names = list(spec.metrics)
    old = table.read_text().splitlines()[1:] if table.exists() else []
    cells = [f'{metrics[name]:.6g}' if name in metrics else 'n/a' for name in names]
    row = '\t'.join([f'perf/{image.name}', *cells])
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text('\n'.join(['\t'.join(['filename', *names]), *old, row]) + '\n')


def write_log(output_dir: Path, run_id: str, **fields) -> None:
    log = {
        'run_id': run_id,
        'version': '0.1.0',
        'command': 'neurolesion /data/bids /data/out participant --analyses leakage',
        'started': '2026-11-20T10:00:00+00:00',
        'finished': '2026-11-20T10:03:21+00:00',
        'seconds': 201.4,
        'device': 'cpu',
        'nprocs': 2,
        'mem_gb': 8.0,
        'analyses': ['leakage'],
        'failures': [],
        'warnings': [],
        'steps': [],
        **fields,
    }
    (output_dir / 'logs').mkdir(parents=True, exist_ok=True)
    (output_dir / 'logs' / f'{run_id}.json').write_text(json.dumps(log))
    (output_dir / 'logs' / f'{run_id}.toml').write_text('[leakage]\nmoco = true\n')


def step(subject: str, name: str, seconds: float = 12.5) -> dict:
    return {
        'subject': subject, 'session': None, 'room': 'leakage', 'step': name,
        'seconds': seconds, 'cached': False,
    }  # fmt: skip


@pytest.fixture
def build():
    """The writers, for tests that need a folder of their own."""

    class Build:
        subject = staticmethod(write_subject)
        log = staticmethod(write_log)
        scans = staticmethod(write_scans)
        step = staticmethod(step)
        metrics = METRICS

    return Build


@pytest.fixture(scope='session')
def browser():
    """Chromium without a window; skips where it or Playwright is absent."""
    program = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    chromium = shutil.which('chromium') or shutil.which('chromium-browser')
    if chromium is None:
        pytest.skip('there is no Chromium on this machine')
    with program.sync_playwright() as started:
        found = started.chromium.launch(
            executable_path=chromium, args=CHROMIUM_FLAGS, timeout=LAUNCH_MS
        )
        yield found
        found.close()


@pytest.fixture(scope='session')
def report_dir(tmp_path_factory) -> Path:
    """Subject 01 in LAS order with its page; the lesion is on the patient's left."""
    from bids_app.reports.citation import render_citation
    from bids_app.reports.subject import write_subject_report

    root = tmp_path_factory.mktemp('out')
    write_subject(root, '01', codes='LAS')
    (root / 'CITATION.md').write_text(render_citation(['Fits follow Patlak [@patlak1983].']))
    write_log(root, 'run-a', steps=[step('01', 'fit_kinetics')])
    write_subject_report(root, '01')
    return root
