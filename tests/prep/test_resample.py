"""Images of several volumes go to another grid volume by volume."""

import nibabel as nib
import numpy as np
import SimpleITK

from bids_app.prep.resample import resample


def test_volumes_of_a_4d_image_move_as_3d_images_do(tmp_path):
    rng = np.random.default_rng(3)
    data = rng.random((12, 14, 10, 3)).astype(np.float32)
    affine = np.diag([-2.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = 20, -10, 5
    reference = nib.Nifti1Image(np.zeros((20, 20, 20), np.float32), np.diag([1.5, 1.5, 1.5, 1]))
    nib.save(reference, tmp_path / 'reference.nii.gz')
    nib.save(nib.Nifti1Image(data, affine), tmp_path / 'series.nii.gz')
    shift = SimpleITK.TranslationTransform(3, (3.0, -2.0, 1.0))
    SimpleITK.WriteTransform(shift, str(tmp_path / 'shift.txt'))

    def moved(name):
        output = tmp_path / f'moved_{name}'
        resample(
            tmp_path / name, tmp_path / 'reference.nii.gz', [tmp_path / 'shift.txt'], output,
            'linear',
        )  # fmt: skip
        return nib.load(output).get_fdata()

    together = moved('series.nii.gz')
    assert together.shape == (20, 20, 20, 3)
    for index in range(3):
        nib.save(nib.Nifti1Image(data[..., index], affine), tmp_path / f'{index}.nii.gz')
        alone = moved(f'{index}.nii.gz')
        assert alone.any()
        np.testing.assert_array_equal(together[..., index], alone)
