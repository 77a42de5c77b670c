"""Evaluation on synthetic lesions: the dataset that is written, and results by kind and size."""

import json

import nibabel as nib
import numpy as np
import pytest

from bids_app.analyses.anomaly import cohort, evaluation_heads

from .anomaly_models import SPACING_MM
from .evaluation_datasets import run

pytestmark = pytest.mark.usefixtures('no_preparation')


@pytest.fixture(scope='module')
def synthetic(healthy, weights, home):
    out = home / 'synthetic'
    tables, page = run(
        healthy, out, weights, '--synthetic', '--lesions', 1, '--healthy', healthy,
        '--participant-label', 'h0', 'h1',
    )  # fmt: skip
    return out, tables, page


def test_synthetic_dataset(synthetic, healthy):
    out, tables, _ = synthetic
    root = out / 'synthetic'
    images = sorted(root.glob('sub-*/ses-*/anat/*_T1w.nii.gz'))
    kinds = ('bright1', 'dark1', 'healthy', 'isointense1')
    assert [path.parts[-3] for path in images] == [f'ses-{kind}' for kind in kinds] * 2
    table = tables['anomaly_evaluation'].set_index(['participant_id', 'session_id', 'method'])
    for path in images:
        image = nib.load(path)
        subject, session = path.parts[-4:-2]
        source = nib.load(healthy / subject / 'anat' / f'{subject}_T1w.nii.gz')
        stem = path.name.replace('_T1w', '_space-orig_label-lesion_mask')
        mask = nib.load(root / 'derivatives/masks' / subject / session / 'anat' / stem)
        np.testing.assert_allclose(image.affine, source.affine, atol=1e-4)
        np.testing.assert_allclose(mask.affine, source.affine, atol=1e-4)
        truth = np.asarray(mask.dataobj) > 0
        told = json.loads(path.with_name(path.name.replace('.nii.gz', '.json')).read_text())
        apart = np.abs(image.get_fdata() - source.get_fdata())
        row = table.loc[(subject, session, 'pca')]
        assert row['kind'] == told['SyntheticLesion']['Kind'] == session[4:].rstrip('1')
        if session == 'ses-healthy':
            assert not apart.any()
            assert not truth.any()
            continue
        wanted = told['SyntheticLesion']['Diameter']
        assert 5 <= wanted <= 40
        volume = truth.sum() * SPACING_MM**3
        assert volume == pytest.approx(np.pi / 6 * wanted**3, rel=0.1, abs=SPACING_MM**3)
        assert row['truth_ml'] == pytest.approx(volume / 1000, abs=1e-3)
        assert row['diameter_mm'] == pytest.approx(wanted, rel=0.15)
        assert apart[truth].mean() > 3 * apart[~truth].mean()


def test_results_by_kind_and_size(synthetic):
    _, tables, page = synthetic
    summary = tables['anomaly_evaluation_summary']
    whole = summary[(summary['kind'] == 'all') & (summary['size_mm'] == 'all')]
    assert list(whole['n']) == [6] * 5
    for kind in ('bright', 'dark', 'isointense'):
        own = summary[(summary['kind'] == kind) & (summary['method'] == 'pca')]
        assert own[own['size_mm'] == 'all']['n'].item() == 2
        assert own[own['size_mm'] != 'all']['n'].sum() == 2
        assert (own['healthy'] == 2).all()
    assert 'By size' in page
    assert 'Bright lesions (2 heads)' in page
    assert set(tables['anomaly_evaluation_margins']['kind']) == {
        'all', 'bright', 'dark', 'isointense'
    }  # fmt: skip


def lesions(root, seed):
    """Write the heads alone, as the program does."""
    request = cohort.CohortRequest(root[0], 't1w', participants=('h0',), seed=seed)
    heads, lost = evaluation_heads.make_synthetic(request, root[1], root[1] / 'work', 1)
    assert not lost
    return heads


def test_another_run_writes_no_head_anew_and_another_seed_does(synthetic, healthy, tmp_path):
    images = sorted((synthetic[0] / 'synthetic').glob('**/sub-h0_*.nii.gz'))
    before = [path.stat().st_mtime_ns for path in images]
    content = [path.read_bytes() for path in images]
    assert len(lesions((healthy, synthetic[0]), 0)) == 4
    assert [path.stat().st_mtime_ns for path in images] == before
    # Alone, a head gets the lesions that it gets among others.
    lesions((healthy, tmp_path), 0)
    alone = sorted((tmp_path / 'synthetic').glob('**/sub-h0_*.nii.gz'))
    assert [path.read_bytes() for path in alone] == content
    lesions((healthy, tmp_path), 1)
    other = [path.read_bytes() != one for path, one in zip(alone, content, strict=True)]
    assert other == ['healthy' not in path.name for path in alone]


def test_only_healthy_heads_get_lesions(healthy, tmp_path):
    (healthy / 'participants.tsv').write_text(
        'participant_id\tgroup\n' + ''.join(
            f'sub-h{number}\t{"control" if number < 2 else "patient"}\n' for number in range(4)
        )
    )  # fmt: skip
    request = cohort.CohortRequest(healthy, 't1w', 'group', 'control')
    heads, _ = evaluation_heads.make_synthetic(request, tmp_path, tmp_path / 'work', 1)
    assert {head.volume.patient for head in heads} == {'h0', 'h1'}


def test_heads_that_cannot_be_prepared_are_named(healthy, weights, tmp_path, monkeypatch):
    real = evaluation_heads.load_volumes

    def load_volumes(request, work, report=None):
        return [volume for volume in real(request, work) if 'dark' not in volume.name]

    monkeypatch.setattr(evaluation_heads, 'load_volumes', load_volumes)
    _, page = run(
        healthy, tmp_path / 'out', weights, '--synthetic', '--lesions', 1,
        '--participant-label', 'h0',
    )  # fmt: skip
    assert 'lesion are missing: sub-h0_ses-dark1.' in page
