"""Train, use the weights, predict and evaluate: the whole circle on heads of a few voxels."""

from __future__ import annotations

import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.slow

SHAPE = (36, 42, 36)
AFFINE = np.diag([-3.0, 3.0, 3.0, 1.0])
NAMES = {'FLAIR': 'FLAIR', 'T1w': 'T1w', 'T1Gd': 'ce-gadolinium_T1w', 'T2w': 'T2w'}
# Brain, necrosis, edema, enhancing tumor.
VALUES = {
    'FLAIR': (100, 90, 190, 160),
    'T1w': (150, 70, 110, 120),
    'T1Gd': (150, 70, 110, 260),
    'T2w': (80, 220, 180, 140),
}
PATIENTS = ('01', '02', '03', '04', '05')


def run(*arguments):
    done = subprocess.run(
        [sys.executable, '-m', *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert 'Traceback' not in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr
    return done


def save(data, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, AFFINE), path)


def draw(root, patient, seed):
    """An ellipsoid with a tumour of three shells, in four sequences, already stripped."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing='ij'), axis=-1)
    brain = (((grid - np.array(SHAPE) / 2) / (np.array(SHAPE) * 0.42)) ** 2).sum(axis=-1) < 1
    centre = np.array(SHAPE) / 2 + rng.uniform(-4, 4, 3)
    distance = np.linalg.norm(grid - centre, axis=-1) + rng.normal(0, 0.2, SHAPE)
    labels = np.zeros(SHAPE, np.uint8)
    for radius, label in ((9, 2), (6, 3), (3.5, 1)):
        labels[distance < radius] = label
    labels[~brain] = 0
    anat = root / f'bids/sub-{patient}/anat'
    for name, values in VALUES.items():
        image = np.choose(labels, values) + rng.normal(0, 6, SHAPE)
        save((image * brain).astype(np.float32), anat / f'sub-{patient}_{NAMES[name]}.nii.gz')
    # In the values of the Decathlon, which only the table of labels tells from those of BraTS.
    written = np.array([0, 2, 1, 3], np.uint8)[labels]
    save(
        written, root / f'truth/sub-{patient}/anat/sub-{patient}_space-orig_seg-tumor_dseg.nii.gz'
    )


@pytest.fixture(scope='module')
def circle(tmp_path_factory):
    root = tmp_path_factory.mktemp('circle')
    for seed, patient in enumerate(PATIENTS):
        draw(root, patient, seed)
    for name in ('bids', 'truth'):
        (root / name / 'dataset_description.json').write_text(
            '{"Name": "x", "BIDSVersion": "1.11.1"}'
        )
    (root / 'truth/seg-tumor_dseg.tsv').write_text(
        'index\tname\n1\tEdema\n2\tNon-enhancing tumor\n3\tEnhancing tumor\n'
    )
    trained = run(
        *('bids_app.cli.tools', 'train', 'tumor', root / 'bids', root / 'weights'),
        *('--labels', root / 'truth', '--hold-out', '05', '--epochs', 4, '--iterations', 40),
        *('--patch', 48, 48, 48, '--device', 'cpu'),
    )
    run(
        *('bids_app', root / 'bids', root / 'out', 'participant', '-w', root / 'work'),
        *('--analyses', 'tumor', '--participant-label', '05', '--tumor-labels', 'brats2017'),
        *('--weights-dir', root / 'weights'),
    )
    evaluated = run(
        *('bids_app.cli.tools', 'evaluate', 'tumor', root / 'out', root / 'truth'),
        *('--out', root / 'evaluation'),
    )
    return root, trained, evaluated


def check_card(circle):
    card = json.loads((circle[0] / 'weights/tumor.json').read_text())
    assert card['measured']['on'] == 'held-out patients'
    assert card['measured']['regions']['WT']['dice_mean'] > 0.8
    split = json.loads((circle[0] / 'weights/split.json').read_text())
    assert len(split['training']) + len(split['validation']) == 4
    assert not any('05' in name for name in split['training'] + split['validation'])


def check_outputs(circle):
    root = circle[0]
    card = json.loads((root / 'weights/tumor.json').read_text())
    anat = root / 'out/sub-05/anat'
    sidecar = json.loads((anat / 'sub-05_space-orig_seg-tumor_dseg.json').read_text())
    assert sidecar['WeightsSHA256'] == card['weights']['sha256']
    values = np.unique(nib.load(anat / 'sub-05_space-orig_seg-tumor_dseg.nii.gz').dataobj)
    assert set(values) <= {0, 1, 2, 4}


def check_evaluation(circle):
    table = pd.read_csv(circle[0] / 'evaluation/tumor_evaluation.tsv', sep='\t')
    dice = table.set_index('region')['dice']
    assert dice['WT'] > 0.8
    assert dice['ET'] > 0.5
    assert (circle[0] / 'evaluation/tumor_evaluation.html').is_file()


def test_trained_weights_serve_the_app_and_the_evaluation(circle):
    # One test, as two could go to two processes, each of which would train for minutes.
    check_card(circle)
    check_outputs(circle)
    check_evaluation(circle)
