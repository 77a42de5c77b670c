"""A real DCE series, written as a BIDS dataset, through the whole app."""

from __future__ import annotations

import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

pytestmark = pytest.mark.realdata

# More than any tissue holds: the reference interpolates these two voxels by hand.
SATURATED_MM = 20.0


@pytest.fixture(scope='module')
def written(shared_data, tmp_path_factory):
    """Dataset with series, T1 map (s), and the source's own brain and artery masks."""
    source = shared_data / 'dce/rocketship_bbb_p19'
    root = tmp_path_factory.mktemp('rocketship')
    bids, mine = root / 'bids', root / 'mine' / 'sub-p19' / 'perf'
    perf, anat = bids / 'sub-p19' / 'perf', bids / 'sub-p19' / 'anat'
    for folder in (perf, anat, mine):
        folder.mkdir(parents=True)
    (bids / 'dataset_description.json').write_text(
        json.dumps({'Name': 'ROCKETSHIP p19', 'BIDSVersion': '1.11.1'})
    )
    # The file itself, as the scanner's software left it: big-endian, -32768 in air.
    (perf / 'sub-p19_dce.nii').write_bytes((source / 'Dynamic_t1w.nii').read_bytes())
    (perf / 'sub-p19_dce.json').write_text(
        json.dumps(
            {
                'TemporalResolution': 15.84,
                'RepetitionTimeExcitation': 0.00829,
                'FlipAngle': 15,
                'MagneticFieldStrength': 3,
            }
        )
    )
    dce = nib.load(perf / 'sub-p19_dce.nii')

    def processed(name):
        return np.asanyarray(nib.load(source / 'processed' / name).dataobj).reshape(86, 86, 1)

    t1_s = (processed('T1_map_t1_fa_fit_fa10.nii') / 1000.0).astype(np.float32)
    nib.Nifti1Image(t1_s, dce.affine).to_filename(anat / 'sub-p19_T1map.nii.gz')
    artery = (processed('T1_AIF_roi.nii') > 0).astype(np.uint8)
    nib.Nifti1Image(artery, dce.affine).to_filename(mine / 'sub-p19_label-AIF_mask.nii.gz')
    series = nib.load(source / 'Dyn-1dynamicCt.nii.gz').get_fdata().reshape(86, 86, 1, 64)
    inside = (np.abs(series).sum(axis=-1) > 0).astype(np.uint8)
    nib.Nifti1Image(inside, dce.affine).to_filename(mine / 'sub-p19_desc-brain_mask.nii.gz')
    done = subprocess.run(
        [
            *(sys.executable, '-m', 'bids_app', bids, root / 'out', 'participant'),
            *('-w', root / 'work', '--derivatives', root / 'mine', '--leakage-r1', '3.6'),
            *('--leakage-models', 'patlak', 'tofts', 'etofts'),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return source, root / 'out' / 'sub-p19' / 'perf', inside > 0, series.max(axis=-1)


def ours(perf, name):
    return nib.load(perf / f'sub-p19_{name}_dcemap.nii.gz').get_fdata()


def test_patlak_ktrans_equals_the_reference_map(written):
    """
    One voxel is full in five frames: the reference and we fill it in differently.

    It holds a tenth of the map's whole variance, so the slope is asked of all the others.
    """
    source, perf, inside, peak = written
    path = source / 'processed/results_matlab/Dyn-1_patlak_fit_Ktrans.nii'
    reference = np.asanyarray(nib.load(path).dataobj).reshape(86, 86, 1)
    found = ours(perf, 'model-patlak_param-Ktrans')
    physical = inside & (peak < SATURATED_MM)
    assert inside.sum() - physical.sum() == 1
    for name, voxels in (('all', inside), ('without the full voxel', physical)):
        correlation = np.corrcoef(found[voxels], reference[voxels])[0, 1]
        slope = np.polyfit(reference[voxels], found[voxels], 1)[0]
        print(f'\nPatlak Ktrans, {name}: Pearson {correlation:.5f}, slope {slope:.4f}', end='')
        assert correlation >= 0.999
    assert slope == pytest.approx(1.0, abs=0.02)


def test_sidecar_names_what_was_used(written):
    _, perf, _, _ = written
    sidecar = json.loads((perf / 'sub-p19_param-RLS_dcemap.json').read_text())
    assert sidecar['TimingSource'] == 'TemporalResolution'
    assert sidecar['AIFSource'] == "mean of the user's artery mask"
    assert sidecar['AIFVoxels'] == 4
    assert sidecar['MaskSource'] == 'user'
    assert sidecar['T10Source'].startswith('T1 map sub-p19_T1map.nii.gz')
    assert sidecar['BolusArrivalFrame'] == 3


def test_residual_signals_are_finite_and_low_in_most_of_the_brain(written):
    _, perf, inside, _ = written
    rls, rvs = ours(perf, 'param-RLS'), ours(perf, 'param-RVS')
    for values in (rls, rvs):
        assert np.isfinite(values).all()
    print(f'\nRLS inside the mask: median {np.median(rls[inside]):.2f} %')
    assert np.median(rls[inside]) < 3
    assert np.median(rvs[inside]) < 3
