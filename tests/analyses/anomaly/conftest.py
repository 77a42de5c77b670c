"""Datasets that several tests of evaluation share; nothing in them needs preparation."""

import nibabel as nib
import numpy as np
import pytest

from bids_app.analyses.anomaly import cohort, evaluation_heads
from bids_app.analyses.anomaly.cohort import Volume

from .anomaly_models import template_head, write_model
from .evaluation_datasets import describe, head, write


@pytest.fixture(scope='module')
def template():
    return template_head()


@pytest.fixture(scope='module')
def no_preparation(template):
    """Heads are the template, which needs neither a brain mask nor a registration."""

    def load_volumes(request, work, report=None):
        work.mkdir(parents=True, exist_ok=True)
        mask = work / 'brain.nii.gz'
        nib.Nifti1Image(template[1].astype(np.uint8), template[0].affine).to_filename(mask)
        found = []
        for path in sorted(request.bids_dir.glob('sub-*/**/*_T1w.nii.gz')):
            patient = path.name.partition('_')[0].removeprefix('sub-')
            if request.participants and patient not in request.participants:
                continue
            excluded = None
            if request.exclude_masks:
                place = path.relative_to(request.bids_dir).parent
                masks = sorted((request.exclude_masks / place).glob('*label-lesion_mask.nii.gz'))
                excluded = masks[0] if masks else None
            name = path.name.removesuffix('_T1w.nii.gz')
            found.append(Volume(name, patient, path, mask, excluded, np.eye(4), path))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohort, 'load_volumes', load_volumes)
        patch.setattr(evaluation_heads, 'load_volumes', load_volumes)
        yield


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    return tmp_path_factory.mktemp('evaluate')


@pytest.fixture(scope='module')
def healthy(home, template):
    root = describe(home / 'healthy')
    for number in range(4):
        write(root, f'h{number}', head(template, number)[0], template[0], 'T1w')
    return root


@pytest.fixture(scope='module')
def labelled(home, template):
    """A bright lesion, a dark one, and two healthy heads: an empty mask, and none."""
    root, masks = describe(home / 'bids'), home / 'masks'
    for number, (name, intensity) in enumerate(
        (('bright', 1.0), ('dark', -1.0), ('well', None), ('fine', None)), start=50
    ):
        data, truth = head(template, number, intensity)
        write(root, name, data, template[0], 'T1w')
        if name != 'fine':
            write(masks, name, truth.astype(np.uint8), template[0], 'space-orig_label-lesion_mask')
    return root, masks


@pytest.fixture(scope='module')
def weights(home):
    write_model(home / 'weights')
    return home / 'weights'
