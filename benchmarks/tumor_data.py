"""
One BIDS dataset with labels out of the real tumours in ``../shared/data``.

One patient of BraTS 2023 with four sequences, three of BraTS 2013 with two (z-scored: moved so
that the background is 0 again) and 26 patients of TCGA-LGG, of whom only the whole lesion is
outlined. Where the source repeats FLAIR in place of a sequence that was never acquired, the
repetition is left out. Labels go to ``derivatives/labels``.

The embedded weights of the tumor room were trained on what this writes and on synthetic tumours:
``python benchmarks/tumor_data.py ../shared/data DATASET``, then ``neurolesion-tools train tumor``
as the model card says.
"""

import argparse
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np

GLI_NAMES = {'FLAIR': 't2f', 'T1w': 't1n', 'ce-gadolinium_T1w': 't1c', 'T2w': 't2w'}
BRATS2013_NAMES = {'FLAIR': 'Flair', 'ce-gadolinium_T1w': 'T1c'}

# Necrosis, edema, non-enhancing and enhancing tumour of BraTS 2013, in the labels of BraTS 2023.
BRATS2013_LABELS = np.array([0, 1, 2, 1, 3], np.uint8)

LABELS_TSV = (
    'index\tname\tabbreviation\n'
    '1\tNecrotic or non-enhancing tumor core\tNCR\n'
    '2\tPeritumoral edema\tED\n'
    '3\tEnhancing tumor\tET\n'
)

LICENSE = (
    'BraTS 2023: no licence file in the source; BraTS 2013: CC BY-NC-SA 3.0; TCGA-LGG images: '
    'CC BY 3.0, masks: CC BY-NC-SA 4.0'
)

# Keeps the darkest voxel of the brain above the background.
ABOVE_ZERO = 0.01


def main() -> None:
    """Write the dataset."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('shared_data', type=Path, help='the folder shared/data')
    parser.add_argument('dataset', type=Path, help='a folder to make')
    options = parser.parse_args()
    dataset, labels = options.dataset, options.dataset / 'derivatives' / 'labels'
    write_descriptions(dataset, labels)
    names = [
        write_brats2023(options.shared_data / 'tumor' / 'BraTS-GLI-00000-000', dataset, labels),
        *(
            write_brats2013(folder, dataset, labels)
            for folder in sorted((options.shared_data / 'tumor' / 'BraTS2013').glob('brats_*'))
        ),
        *(
            write_lgg(folder, dataset, labels)
            for folder in sorted((options.shared_data / 'lgg').glob('sub-*'))
        ),
    ]
    print(f'{len(names)} subjects with labels in {dataset}')


def write_descriptions(dataset: Path, labels: Path) -> None:
    """Describe both datasets and name the values of the labels."""
    labels.mkdir(parents=True, exist_ok=True)
    described = {'BIDSVersion': '1.11.1', 'License': LICENSE}
    raw = {'Name': 'Real brain tumors', 'DatasetType': 'raw', **described}
    derived = {
        'Name': 'Labels of real brain tumors',
        'DatasetType': 'derivative',
        'GeneratedBy': [{'Name': 'benchmarks/tumor_data.py'}],
        **described,
    }
    (dataset / 'dataset_description.json').write_text(json.dumps(raw, indent=2) + '\n')
    (labels / 'dataset_description.json').write_text(json.dumps(derived, indent=2) + '\n')
    (labels / 'seg-tumor_dseg.tsv').write_text(LABELS_TSV)


def write_brats2023(source: Path, dataset: Path, labels: Path) -> str:
    """Write the patient with all four sequences."""
    subject = 'sub-GLI00000'
    for entity, name in GLI_NAMES.items():
        shutil.copyfile(
            source / f'{source.name}-{name}.nii.gz', raw_file(dataset, subject, entity)
        )
    image = nib.load(source / f'{source.name}-seg.nii.gz')
    values = np.asarray(image.dataobj).astype(np.uint8)
    save(values, image, label_file(labels, subject, 'seg-tumor_dseg'))
    return subject


def write_brats2013(source: Path, dataset: Path, labels: Path) -> str:
    """Write a patient whose images are z-scored, with the minimum as background."""
    number = source.name.split('pat')[1].replace('_', '')
    subject = f'sub-BRATS2013{number[:4]}'
    brain = np.asarray(nib.load(source / 'brainmask.nii.gz').dataobj) > 0.5
    for entity, name in BRATS2013_NAMES.items():
        image = nib.load(source / f'{name}_subtrMeanDivStd.nii.gz')
        values = np.asarray(image.dataobj, np.float32)
        background = values.min()
        above = np.where(brain, values - background + ABOVE_ZERO, 0)
        save(above.astype(np.float32), image, raw_file(dataset, subject, entity))
    image = nib.load(source / 'OTMultiClass.nii.gz')
    values = BRATS2013_LABELS[np.asarray(image.dataobj).astype(int)]
    save(values, image, label_file(labels, subject, 'seg-tumor_dseg'))
    return subject


def write_lgg(source: Path, dataset: Path, labels: Path) -> str:
    """Write a patient whose lesion is outlined as a whole."""
    subject = source.name
    flair = source / 'anat' / f'{subject}_FLAIR.nii.gz'
    seen = np.asarray(nib.load(flair).dataobj)
    for entity in GLI_NAMES:
        given = source / 'anat' / f'{subject}_{entity}.nii.gz'
        if not given.exists():
            continue
        if entity == 'FLAIR' or not np.array_equal(np.asarray(nib.load(given).dataobj), seen):
            shutil.copyfile(given, raw_file(dataset, subject, entity))
    masks = source.parent / 'derivatives' / 'masks' / subject / 'anat'
    image = nib.load(next(masks.glob('*_mask.nii.gz')))
    values = (np.asarray(image.dataobj) > 0).astype(np.uint8)
    save(values, image, label_file(labels, subject, 'label-WT_mask'))
    return subject


def raw_file(dataset: Path, subject: str, entity: str) -> Path:
    """Name an image, and make its folder."""
    folder = dataset / subject / 'anat'
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f'{subject}_{entity}.nii.gz'


def label_file(labels: Path, subject: str, kind: str) -> Path:
    """Name labels, and make their folder."""
    folder = labels / subject / 'anat'
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f'{subject}_space-orig_{kind}.nii.gz'


def save(values: np.ndarray, like: nib.Nifti1Image, path: Path) -> None:
    """Write an array on the grid of an image, in the array's own type."""
    image = nib.Nifti1Image(values, like.affine)
    image.header.set_zooms(like.header.get_zooms()[:3])
    image.header.set_xyzt_units('mm')
    nib.save(image, path)


if __name__ == '__main__':
    main()
