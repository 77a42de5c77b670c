"""The robustness table: known agreement of known maps."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bids_app.analyses.leakage.evaluate import (
    compare_maps,
    keep_frames,
    main,
    robustness_table,
    similarity_to_ktrans,
)
from bids_app.analyses.leakage.model.simulate import draw_protocol, simulate_voxels

MASK = np.zeros((20, 20, 2), dtype=bool)
MASK[3:17, 3:17] = True
COUNT = int(MASK.sum())


def test_equal_maps_agree_fully():
    values = np.random.default_rng(0).random(COUNT)
    found = compare_maps(values, values, MASK)
    assert found.r2 == pytest.approx(1)
    assert found.psnr_db == np.inf
    assert found.ssim == pytest.approx(1)


def test_psnr_of_a_known_offset():
    values = np.linspace(0, 1, COUNT)
    values[-10:] = 1.0
    values = np.minimum(values, 0.99)
    found = compare_maps(values, np.minimum(values, 0.99) - 0.0099, MASK)
    # The lowest values are clipped to the range of the full map, so the error is a bit smaller.
    assert found.psnr_db == pytest.approx(40.0, abs=0.2)
    assert found.r2 == pytest.approx(1.0, abs=1e-3)


def test_noise_lowers_all_three():
    rng = np.random.default_rng(0)
    values = rng.random(COUNT)
    little = compare_maps(values, values + 0.05 * rng.standard_normal(COUNT), MASK)
    much = compare_maps(values, values + 0.5 * rng.standard_normal(COUNT), MASK)
    assert little.r2 > much.r2
    assert little.psnr_db > much.psnr_db
    assert little.ssim > much.ssim


def test_constant_map_has_no_agreement():
    assert np.isnan(compare_maps(np.zeros(COUNT), np.ones(COUNT), MASK).r2)


def test_frames_kept():
    kept = keep_frames(np.arange(0.0, 300.0, 3.0), 30.0)
    assert len(kept['undersampled']) == 50
    assert kept['truncated'][-1] * 3.0 == pytest.approx(162.0)
    assert (np.diff(kept['hybrid'][:31]) == 1).all()
    assert (np.diff(kept['hybrid'][31:]) == 2).all()


def test_table_calls_each_maker_on_reduced_series():
    rng = np.random.default_rng(1)
    protocol = draw_protocol(rng)._replace(times_s=5.0 * np.arange(60), arrival_s=32.0)
    series, _ = simulate_voxels({'grey': COUNT - 50, 'vessel': 50}, protocol, rng)
    makers = {
        'mean': lambda signals, _: signals.mean(axis=1),
        'last time': lambda signals, times: signals[:, 0] * times[-1],
    }
    table = robustness_table(series, protocol.times_s, MASK, makers)
    assert list(table['map'].unique()) == ['mean', 'last time']
    assert list(table['data'].unique()) == ['undersampled', 'truncated', 'hybrid']
    rows = table.set_index(['map', 'data'])
    assert rows.loc[('mean', 'undersampled'), 'r2'] > 0.95
    # A map that depends on the length alone must be hurt by truncation.
    assert rows.loc[('last time', 'truncated'), 'psnr_db'] < 15
    assert rows.loc[('last time', 'undersampled'), 'psnr_db'] > 25


def test_similarity_to_ktrans_is_free_of_scale():
    values = np.random.default_rng(0).random(COUNT)
    found = similarity_to_ktrans(40.0 * values, 0.02 * values, MASK)
    assert found['r'] == pytest.approx(1)
    assert found['ssim'] == pytest.approx(1)


def test_program_writes_tables(tmp_path, capsys):
    rng = np.random.default_rng(1)
    protocol = draw_protocol(rng)._replace(times_s=5.0 * np.arange(60), arrival_s=32.0)
    counts = {'grey': 500, 'white': 500, 'vessel': 100, 'leak': 100}
    series, _ = simulate_voxels(counts, protocol, rng)
    raw = tmp_path / 'raw'
    folder = raw / 'sub-01' / 'perf'
    folder.mkdir(parents=True)
    (raw / 'dataset_description.json').write_text(
        json.dumps({'Name': 'cohort', 'BIDSVersion': '1.11.1', 'DatasetType': 'raw'})
    )
    image = nib.Nifti1Image(series.reshape(20, 20, 3, 60), np.diag([2.0, 2.0, 4.0, 1.0]))
    nib.save(image, folder / 'sub-01_dce.nii.gz')
    sidecar = {
        'TemporalResolution': 5.0,
        'RepetitionTimeExcitation': protocol.tr_s,
        'FlipAngle': protocol.flip_angle_deg,
    }
    (folder / 'sub-01_dce.json').write_text(json.dumps(sidecar))
    masks = tmp_path / 'masks' / 'sub-01' / 'perf'
    masks.mkdir(parents=True)
    brain = nib.Nifti1Image(np.ones((20, 20, 3), np.uint8), image.affine)
    nib.save(brain, masks / 'sub-01_desc-brain_mask.nii.gz')
    out = tmp_path / 'out'
    assert main([str(raw), str(out), '--derivatives', str(tmp_path / 'masks')]) == 0
    table = pd.read_csv(out / 'leakage_robustness.tsv', sep='\t')
    assert set(table['map']) == {'RLS', 'Ktrans'}
    assert len(table) == 6
    assert table['r2'].between(0, 1).all()
    summary = json.loads((out / 'leakage_evaluation.json').read_text())
    assert {'map', 'data', 'r2', 'psnr_db', 'ssim'} == set(summary[0])
    links = pd.read_csv(out / 'leakage_rls_ktrans.tsv', sep='\t')
    assert links['r'].iloc[0] > 0.3
    assert 'RLS with Ktrans' in capsys.readouterr().out
