"""Small datasets whose heads are the template, with lesions of known place and intensity."""

import json

import nibabel as nib
import numpy as np
import pandas as pd

from bids_app.analyses.anomaly.evaluate import main
from bids_app.analyses.anomaly.evaluation_tables import COLUMNS, MARGIN_COLUMNS, SUMMARY_COLUMNS

TABLES = {
    'anomaly_evaluation': COLUMNS,
    'anomaly_evaluation_summary': SUMMARY_COLUMNS,
    'anomaly_evaluation_margins': MARGIN_COLUMNS,
}
LESION = (slice(22, 27), slice(24, 29), slice(22, 27))
"""Of 20 mm, in white matter of the patient's left half."""


def head(template, seed, intensity=None):
    """The template with noise and, if wanted, a box of one intensity relative to its spread."""
    image, brain = template
    data = np.asarray(image.dataobj).copy()
    values = data[brain]
    data += np.random.default_rng(seed).normal(0, 0.02 * values.max(), data.shape)
    truth = np.zeros(data.shape, bool)
    if intensity is not None:
        truth[LESION] = True
        data[truth] = np.median(values) + intensity * (values.max() - values.min())
    return np.where(brain, data, 0).astype(np.float32), truth


def write(root, subject, data, like, ending, session=''):
    stem = f'sub-{subject}' + (f'_ses-{session}' if session else '')
    folder = root / f'sub-{subject}' / (f'ses-{session}' if session else '') / 'anat'
    folder.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(data, like.affine).to_filename(folder / f'{stem}_{ending}.nii.gz')


def describe(root):
    root.mkdir(parents=True, exist_ok=True)
    about = {'Name': 'test', 'BIDSVersion': '1.11.1', 'DatasetType': 'raw'}
    (root / 'dataset_description.json').write_text(json.dumps(about))
    return root


def run(bids, out, weights, *options):
    argv = [bids, out, '--weights-dir', weights, '--device', 'cpu', *options]
    assert main([str(word) for word in argv]) == 0
    tables = {name: pd.read_csv(out / f'{name}.tsv', sep='\t', na_values='n/a') for name in TABLES}
    return tables, (out / 'anomaly_evaluation.html').read_text()
