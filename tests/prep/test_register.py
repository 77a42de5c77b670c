"""Registration to a template: known answers by both engines, and bad input."""

import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from bids_app.demo.warp import rigid
from bids_app.errors import BadDataError, UsageError
from bids_app.prep.register import RegistrationSettings, register_to_template
from bids_app.prep.transforms import is_sane

FAST = RegistrationSettings(quality='fast')


def linear_part(path):
    parts = SimpleITK.CompositeTransform(SimpleITK.ReadTransform(str(path)))
    for number in range(parts.GetNumberOfTransforms()):
        part = parts.GetNthTransform(number).Downcast()
        if part.GetName() == 'AffineTransform':
            return np.reshape(part.GetMatrix(), (3, 3))
    raise AssertionError('no affine part')


@pytest.mark.parametrize('contrast', ['same', 'other'])
def test_greedy_finds_a_known_warp(simulate, template, tmp_path, contrast):
    subject = simulate(31, contrast)
    settings = RegistrationSettings(quality='fast', contrast=contrast)
    found = register_to_template(subject.path, template, tmp_path, settings)
    errors = subject.errors_mm(found.to_template)
    assert np.linalg.norm(subject.points - subject.truth, axis=1).mean() > 8
    assert errors.mean() < 1.8
    assert found.numbers['folded_percent'] == 0
    assert found.numbers['overlap'] > 0.94
    assert abs(found.numbers['correlation']) > 0.5
    assert 0.4 < found.numbers['jacobian_p01'] < 1 < found.numbers['jacobian_p99'] < 2
    forward = SimpleITK.ReadTransform(str(found.to_template))
    backward = SimpleITK.ReadTransform(str(found.from_template))
    gap = [
        np.linalg.norm(np.subtract(backward.TransformPoint(forward.TransformPoint(point)), point))
        for point in (subject.points * [-1.0, -1.0, 1.0]).tolist()
    ]
    assert np.percentile(gap, 95) < 0.3


def test_standard_is_better_than_fast_and_than_affine(simulate, template, tmp_path):
    subject = simulate(31)
    means = []
    for settings in (
        RegistrationSettings(deformable=False),
        FAST,
        RegistrationSettings(quality='standard'),
    ):
        found = register_to_template(subject.path, template, tmp_path, settings)
        means.append(subject.errors_mm(found.to_template).mean())
    assert means[0] > means[1] > means[2]
    assert means[2] < 1.3


@pytest.mark.slow
@pytest.mark.parametrize('contrast', ['same', 'other'])
def test_ants_finds_a_known_warp(simulate, template, tmp_path, contrast):
    subject = simulate(31, contrast)
    settings = RegistrationSettings(engine='ants', quality='fast', contrast=contrast)
    found = register_to_template(subject.path, template, tmp_path, settings)
    assert subject.errors_mm(found.to_template).mean() < 3.2
    assert found.numbers['folded_percent'] < 0.1


def test_a_head_turned_and_far_away_is_found(simulate, template, tmp_path):
    motion = rigid(np.array([28.0, -20.0, 25.0]), np.array([60.0, -80.0, 110.0]))
    subject = simulate(32, motion=motion)
    found = register_to_template(subject.path, template, tmp_path, FAST)
    assert subject.errors_mm(found.to_template).mean() < 2.0


def test_threads_and_repetition_change_no_byte(simulate, template, tmp_path, monkeypatch):
    subject, files = simulate(31), []
    for number, threads in enumerate(('1', '2', '2')):
        monkeypatch.setenv('OMP_NUM_THREADS', threads)
        workdir = tmp_path / str(number)
        workdir.mkdir()
        found = register_to_template(subject.path, template, workdir, FAST)
        files.append((found.to_template.read_bytes(), found.from_template.read_bytes()))
        assert sorted(path.name for path in workdir.iterdir()) == [
            'from_template.h5', 'to_template.h5'
        ]  # fmt: skip
    assert files[0] == files[1] == files[2]


@pytest.mark.slow
def test_ants_repeats_its_bytes(simulate, template, tmp_path):
    subject, files = simulate(31), []
    program = (
        'import sys; from pathlib import Path; from bids_app.prep.register import *; '
        'paths = list(map(Path, sys.argv[1:])); '
        "settings = RegistrationSettings('ants', 'fast', deformable=False); "
        'register_to_template(*paths, settings)'
    )
    for number in range(2):
        workdir = tmp_path / str(number)
        workdir.mkdir()
        # A process of its own: ITK takes its number of threads once.
        subprocess.run(
            [sys.executable, '-c', program, subject.path, template, workdir], check=True
        )
        files.append((workdir / 'to_template.h5').read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize('grid', ['zeros', 'cropped'])
def test_half_a_brain_neither_tears_nor_grows(simulate, template, tmp_path, grid):
    subject = simulate(33)
    middle = int(np.argwhere(subject.data > 0)[:, 2].mean())
    half = subject.data.copy()
    half[:, :, :middle] = 0
    affine = subject.affine.copy()
    if grid == 'cropped':
        half = half[:, :, middle:]
        affine[:3, 3] += affine[:3, 2] * middle
    path = tmp_path / 'half.nii.gz'
    nib.save(nib.Nifti1Image(half, affine), path)
    found = register_to_template(path, template, tmp_path, FAST)
    assert is_sane(linear_part(found.to_template))
    assert found.numbers['folded_percent'] < 0.01
    assert np.isfinite(list(found.numbers.values())).all()
    kept = (subject.truth - subject.affine[:3, 3])[:, 2] / 2 > middle + 5
    assert subject.errors_mm(found.to_template)[kept].mean() < 2.5


def test_smallest_healthy_brain_is_whole(template, tmp_path):
    """One of the 50 heads of IXI has 0.57 of the template's volume."""
    image = nib.load(template)
    small = np.diag([0.82, 0.82, 0.82, 1.0]) @ image.affine
    path = tmp_path / 'small.nii.gz'
    nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32), small), path)
    settings = RegistrationSettings(quality='fast', deformable=False)
    found = register_to_template(path, template, tmp_path, settings)
    assert found.numbers['overlap'] > 0.98
    scale = np.cbrt(np.linalg.det(linear_part(found.to_template)[:3, :3]))
    assert scale == pytest.approx(0.82, abs=0.02)


def test_nothing_is_printed(simulate, template, tmp_path, capfd):
    register_to_template(
        simulate(31).path, template, tmp_path, RegistrationSettings(deformable=False)
    )
    printed = capfd.readouterr()
    assert printed.out == ''
    assert printed.err == ''


def test_no_brain_is_an_error_that_names_the_image(template, tmp_path):
    image = nib.load(template)
    empty = tmp_path / 'empty.nii.gz'
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.float32), image.affine), empty)
    with pytest.raises(BadDataError, match=r'empty\.nii\.gz is all zero'):
        register_to_template(empty, template, tmp_path, FAST)


def test_a_scrap_of_brain_is_an_error_that_names_the_image(simulate, template, tmp_path):
    subject = simulate(31)
    scrap = np.zeros_like(subject.data)
    scrap[40:50, 50:60, 45:52] = subject.data[40:50, 50:60, 45:52]
    path = subject.save(scrap, tmp_path / 'scrap.nii.gz')
    with pytest.raises(BadDataError, match=r'scrap\.nii\.gz could not be registered'):
        register_to_template(path, template, tmp_path, FAST)


@pytest.mark.parametrize(
    'wrong', [{'engine': 'elastix'}, {'quality': 'best'}, {'contrast': 'T2w'}]
)
def test_unknown_settings_are_refused(wrong):
    with pytest.raises(UsageError, match='is none of'):
        RegistrationSettings(**wrong)
