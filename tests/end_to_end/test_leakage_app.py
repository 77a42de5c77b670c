"""The app on a dataset so small that a run takes seconds: what it writes, resumes and refuses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from .app import files_of

EXPECTED = Path(__file__).parent / 'expected'
APP = [sys.executable, '-m', 'bids_app']


def run(*arguments, prefix=(), **options):
    return subprocess.run(
        [*prefix, *APP, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        **options,
    )


def participant(slab, *flags, **options):
    out, work = slab.root.parent / 'out', slab.root.parent / 'work'
    done = run(slab.root, out, 'participant', '-w', work, '--nprocs', 2, *flags, **options)
    assert 'Traceback' not in done.stdout + done.stderr
    return done, out


def checksums(folder, pattern='sub-*/**/*.nii.gz'):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob(pattern))
        if path.is_file()
    }


def test_first_run_second_run_and_group(slab, validate):
    before = checksums(slab.root, '**/*')
    first, out = participant(slab)
    assert first.returncode == 0, first.stderr
    assert files_of(out) == (EXPECTED / 'leakage.txt').read_text().split()
    assert validate(slab.root) == []
    assert checksums(slab.root, '**/*') == before

    rls = nib.load(out / 'sub-01/perf/sub-01_param-RLS_dcemap.nii.gz').get_fdata()
    rvs = nib.load(out / 'sub-01/perf/sub-01_param-RVS_dcemap.nii.gz').get_fdata()
    assert rls[22, 16].min() > 3 * rls[16, 6:26].max()
    assert rvs[8, 18].min() > 3 * rvs[16, 6:26].max()
    ktrans = nib.load(out / 'sub-01/perf/sub-01_model-patlak_param-Ktrans_dcemap.nii.gz')
    assert np.median(ktrans.get_fdata()[20:25, 14:19]) > 0.03

    maps = checksums(out)
    shutil.rmtree(out)
    second, _ = participant(slab)
    assert second.returncode == 0
    assert '(2 cached), 0 failed' in second.stdout
    assert checksums(out) == maps

    third, _ = participant(slab, '--clean-workdir')
    assert '(0 cached), 0 failed' in third.stdout
    assert checksums(out) == maps

    group = run(slab.root, out, 'group')
    assert group.returncode == 0, group.stderr
    assert validate(out) == []
    table = pd.read_csv(out / 'phenotype/neurolesion.tsv', sep='\t')
    scans = pd.read_csv(out / 'sub-01/sub-01_scans.tsv', sep='\t')
    assert table.loc[0, 'participant_id'] == 'sub-01'
    assert table.loc[0, 'leakage_rls_p90'] == pytest.approx(scans.loc[0, 'leakage_rls_p90'])
    page = (out / 'sub-01.html').read_text()
    assert 'Residual leakage signal' in page


def test_sidecar_tells_every_default(slab):
    _, out = participant(slab, '--leakage-models', 'patlak', 'tofts', '--leakage-aif', 'parker')
    sidecar = json.loads((out / 'sub-01/perf/sub-01_param-RLS_dcemap.json').read_text())
    assert sidecar['T10Source'] == 'assumed 1.3 s everywhere'
    assert sidecar['AIFSource'] == 'population function of Parker'
    assert sidecar['TimingSource'] == 'TemporalResolution'
    assert sidecar['MaskSource'] == 'intensity of the baseline'
    assert sidecar['Sources'] == ['bids:raw:sub-01/perf/sub-01_dce.nii.gz']
    assert len(sidecar['WeightsSHA256']) == 64
    assert any('brain mask rests on intensity' in text for text in sidecar['Warnings'])
    assert (out / 'sub-01/perf/sub-01_model-tofts_param-ve_dcemap.nii.gz').exists()
    assert not (out / 'sub-01/perf/sub-01_model-etofts_param-ve_dcemap.nii.gz').exists()


def test_user_masks_are_used(slab):
    image = nib.load(slab.dce)
    shape = image.shape[:3]
    x, y, _ = np.indices(shape)
    masks = {
        'desc-brain': (x - 16) ** 2 + (y - 16) ** 2 < 12**2,
        'label-AIF': (x - 8) ** 2 + (y - 18) ** 2 < 2**2,
        'label-tumor': (x - 22) ** 2 + (y - 16) ** 2 < 4**2,
    }
    mine = slab.root.parent / 'mine' / 'sub-01' / 'perf'
    mine.mkdir(parents=True)
    for name, mask in masks.items():
        path = mine / f'sub-01_{name}_mask.nii.gz'
        nib.Nifti1Image(mask.astype(np.uint8), image.affine).to_filename(path)
    done, out = participant(slab, '--derivatives', mine.parents[1])
    assert done.returncode == 0, done.stderr
    sidecar = json.loads((out / 'sub-01/perf/sub-01_param-RLS_dcemap.json').read_text())
    assert sidecar['MaskSource'] == 'user'
    assert sidecar['AIFVoxels'] == int(masks['label-AIF'].sum())
    scans = pd.read_csv(out / 'sub-01/sub-01_scans.tsv', sep='\t')
    voxel_mm3 = 45.0
    assert scans.loc[0, 'leakage_brain_volume_mm3'] == masks['label-tumor'].sum() * voxel_mm3
    written = nib.load(out / 'sub-01/perf/sub-01_desc-brain_mask.nii.gz').get_fdata() > 0
    assert not (written & ~masks['desc-brain']).any()


def test_killed_child_leaves_nothing_partial_and_the_next_run_completes(slab):
    out, work = slab.root.parent / 'out', slab.root.parent / 'work'
    command = [*APP, str(slab.root), str(out), 'participant', '-w', str(work), '--nprocs', '2']
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    victim = _wait_for_child(work, 'fit_leakage', process)
    os.kill(victim, signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 1, stdout + stderr
    assert 'killed, most likely for memory: needs about' in stderr
    assert 'Traceback' not in stdout + stderr
    assert not list((out / 'sub-01').rglob('*.nii.gz'))
    assert not list(out.rglob('.*.nii.gz'))
    assert 'killed, most likely for memory' in (out / 'sub-01.html').read_text()
    again, _ = participant(slab)
    assert again.returncode == 0, again.stderr
    assert '(1 cached), 0 failed' in again.stdout
    assert files_of(out) == (EXPECTED / 'leakage.txt').read_text().split()


def _wait_for_child(work, step, process):
    """Process id of the child program that works in a node's folder."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        for entry in Path('/proc').iterdir():
            if entry.name.isdigit():
                try:
                    here = (entry / 'cwd').readlink()
                    program = b'leakage.command' in (entry / 'cmdline').read_bytes()
                except OSError:
                    continue
                if program and here.name == step and here.is_relative_to(work):
                    return int(entry.name)
        time.sleep(0.02)  # the process table has no event to wait for
    raise AssertionError('the child program never started')


@pytest.mark.skipif(shutil.which('unshare') is None, reason='unshare is not installed')
def test_no_network_and_strange_home_are_fine(slab):
    isolated = ('unshare', '--map-root-user', '--net')
    if subprocess.run([*isolated, 'true'], check=False, capture_output=True).returncode:
        pytest.skip('this machine does not let us make a network namespace')
    environment = os.environ | {'HOME': '/'}
    done, _ = participant(slab, prefix=isolated, env=environment)
    assert done.returncode == 0, done.stderr


def _frames(slab):
    return np.asarray(nib.load(slab.dce).dataobj)


def _three_dimensional(slab):
    slab.write_series(_frames(slab)[..., 0])


def _four_frames(slab):
    slab.write_series(_frames(slab)[..., :4])


def _no_timing(slab):
    slab.write_sidecar(RepetitionTimeExcitation=0.005, FlipAngle=15)


def _contradictory(slab):
    slab.write_sidecar(TemporalResolution=5.0, RepetitionTime=8.0, FlipAngle=15)


def _tr_in_ms(slab):
    slab.write_sidecar(TemporalResolution=5.0, RepetitionTimeExcitation=5.0, FlipAngle=15)


def _all_zero(slab):
    slab.write_series(np.zeros_like(_frames(slab)))


def _constant(slab):
    slab.write_series(np.full_like(_frames(slab), 100))


def _no_bolus(slab):
    slab.write_series(np.repeat(_frames(slab)[..., :1], 40, axis=3))


def _truncated(slab):
    content = slab.dce.read_bytes()
    slab.dce.write_bytes(content[: len(content) // 2])


def _empty(slab):
    slab.dce.write_bytes(b'')


def _mask_elsewhere(slab):
    path = slab.dce.with_name('sub-01_desc-brain_mask.nii.gz')
    nib.Nifti1Image(np.ones((16, 16, 4), np.uint8), np.eye(4)).to_filename(path)


def _bad_sidecar(slab):
    slab.sidecar.write_text('{"TemporalResolution": 5.0,')


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (_three_dimensional, 'has 3 dimensions where a DCE series has 4'),
        (_four_frames, 'has 4 frames; a DCE analysis needs at least 5'),
        (_no_timing, 'has no timing: add FrameTimesStart'),
        (_contradictory, 'contradictory timing'),
        (_tr_in_ms, 'looks like ms'),
        (_all_zero, 'is all zero'),
        (_constant, 'is constant'),
        (_no_bolus, 'No contrast agent seems to arrive'),
        (_truncated, 'truncated or damaged gzip'),
        (_empty, 'is an empty file of 0 bytes'),
        (_mask_elsewhere, 'lies on another grid'),
        (_bad_sidecar, 'sub-01_dce.json'),
    ],
    ids=lambda value: value.__name__.strip('_') if callable(value) else None,
)
def test_bad_data_leave_65_one_sentence_and_no_map(slab, spoil, words):
    spoil(slab)
    done, out = participant(slab)
    assert done.returncode == 65, done.stderr
    told = [line for line in done.stderr.splitlines() if words in line]
    assert len(told) == 1
    assert str(slab.root) in told[0]
    assert not list(out.rglob('*.nii.gz'))
    assert not list(out.glob('sub-01/**/*.tsv'))


def test_not_a_number_and_air_sentinel_are_harmless(slab):
    data = _frames(slab).astype(np.float32)
    data[16, 16, 1, :] = np.nan
    data[10, 10, 2, 20] = np.inf
    slab.write_series(data)
    done, out = participant(slab)
    assert done.returncode == 0, done.stderr
    for path in out.glob('sub-01/perf/*dcemap.nii.gz'):
        assert np.isfinite(nib.load(path).get_fdata()).all(), path
    stored = _frames(slab)
    stored = np.nan_to_num(stored, nan=0, posinf=0).astype(np.int16)
    stored[0, 0], stored[16, 17, 2, 3] = -32768, -32768
    slab.write_series(stored)
    done, out = participant(slab)
    assert done.returncode == 0, done.stderr
    rls = nib.load(out / 'sub-01/perf/sub-01_param-RLS_dcemap.nii.gz').get_fdata()
    assert np.isfinite(rls).all()
    assert rls.max() < 100


@pytest.mark.parametrize(
    ('arguments', 'code', 'words'),
    [
        (('{root}/nowhere', '{base}/out', 'participant'), 16, 'is not a folder'),
        (('{base}', '{base}/out', 'participant'), 16, 'dataset_description.json is missing'),
        (('{root}', '{base}/out', 'both'), 17, "'both' is unknown"),
        (('{root}', '{base}/out', 'participant', '--participant-label', '9'), 18, 'no sub-9'),
        (('{root}', '{base}/out', 'participant', '--session-label', 'x'), 18, 'holds no image'),
        (('{root}', '{base}/out', 'participant', '--wrong'), 64, '--wrong'),
        (('{root}', '{base}/out', 'participant', '--output-spaces', 'a b'), 64, 'not understood'),
        (
            ('{root}', '{base}/out', 'participant', '--output-spaces', 'MNI152NLin6Asym:res-2'),
            66,
            'neurolesion-tools templates fetch MNI152NLin6Asym:res-2',
        ),
        (('{root}', '{base}/out', 'participant', '--device', 'cuda:77'), 66, 'cuda:77'),
        (('{root}', '{root}/out', 'participant'), 73, 'inside the raw dataset'),
        (('{root}', '/proc/out', 'participant'), 73, 'cannot be written'),
        (('{root}', '{base}/out', 'participant', '-w', '/proc/work'), 73, 'give -w another'),
        (('{root}', '{base}/out', 'group'), 66, 'participant'),
    ],
)
def test_wrong_calls(slab, tmp_path, arguments, code, words):
    filled = [text.format(root=slab.root, base=tmp_path) for text in arguments]
    environment = os.environ | {'TEMPLATEFLOW_HOME': str(tmp_path / 'templateflow')}
    stub = tmp_path / 'templateflow/tpl-MNI152NLin6Asym/tpl-MNI152NLin6Asym_res-02_T1w.nii.gz'
    stub.parent.mkdir(parents=True)
    stub.touch()
    done = run(*filled, env=environment)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert 'Traceback' not in done.stderr
    assert not list(tmp_path.glob('out/sub-*'))


def test_one_bad_subject_does_not_stop_the_others(slab):
    bad = slab.root / 'sub-02' / 'perf'
    bad.mkdir(parents=True)
    (bad / 'sub-02_dce.nii.gz').write_bytes(b'broken')
    (bad / 'sub-02_dce.json').write_text('{"TemporalResolution": 5.0}')
    done, out = participant(slab)
    assert done.returncode == 1
    assert 'sub-02, leakage, input' in done.stderr
    assert (out / 'sub-01/perf/sub-01_param-RLS_dcemap.nii.gz').exists()
    assert 'not a readable NIfTI' in (out / 'sub-02.html').read_text()


def test_dry_run_writes_nothing(slab):
    done, out = participant(slab, '--dry-run')
    assert done.returncode == 0
    assert 'sub-01/perf/sub-01_dce.nii.gz' in done.stdout
    assert 'estimate_motion, fit_leakage' in done.stdout
    assert not out.exists()


def test_reports_only_rewrites_pages(slab):
    _, out = participant(slab)
    (out / 'sub-01.html').unlink()
    done, _ = participant(slab, '--reports-only')
    assert done.returncode == 0, done.stderr
    assert 'Residual leakage signal' in (out / 'sub-01.html').read_text()
