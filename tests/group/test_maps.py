"""Frequency, mean and deviation over subjects against numpy, left and right, bad files."""

import json
import os
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

import nibabel as nib
import numpy as np
import pytest

from bids_app.errors import NeurolesionError
from bids_app.group.maps import write_maps
from bids_app.group.running import RunningMoments
from bids_app.outputs.spec import all_specs, bidsignore_lines

from .map_cohorts import AFFINE, SHAPE, load_data, make_config, write_map

SUBJECTS = ('01', '02', '03', '04', '05')


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def by_key(made):
    return {view.source.output.key: view for view in made.views}


def test_mean_and_deviation_are_those_of_numpy_over_who_was_measured(tmp_path, rng):
    values = rng.normal(50, 3, (len(SUBJECTS), *SHAPE))
    measured = np.ones_like(values, bool)
    measured[0, :, :, :4] = False
    measured[:, 0, 0, 0] = False
    measured[1:, 0, 0, 5] = False
    for subject, data, there in zip(SUBJECTS, values, measured, strict=True):
        source = f'sub-{subject}_dce.nii.gz'
        write_map(tmp_path, 'leakage', 'rls', source, data * there)
        write_map(tmp_path, 'leakage', 'baseline', source, 200.0 * there)
    view = by_key(write_maps(make_config(tmp_path), SUBJECTS))['rls']
    assert np.array_equal(load_data(view.files['measured']), measured.sum(axis=0))
    mean, sd = (load_data(view.files[key]) for key in ('mean', 'sd'))
    stored = values.astype(np.float32).astype(float)
    for place in np.argwhere(measured.sum(axis=0) > 1):
        known = stored[:, *place][measured[:, *place]]
        assert mean[*place] == pytest.approx(known.mean(), rel=1e-6)
        assert sd[*place] == pytest.approx(known.std(ddof=1), rel=1e-4)
    assert (mean[0, 0, 0], sd[0, 0, 0]) == (0, 0)
    assert (mean[0, 0, 5], sd[0, 0, 5]) == (pytest.approx(stored[0, 0, 0, 5]), 0)
    assert view.n_subjects == len(SUBJECTS)


def test_deviation_survives_a_mean_that_is_large_beside_it(rng):
    values = 1e8 + rng.normal(0, 1, (40, 7))
    moments = RunningMoments((7,))
    for one in values:
        moments.add(one)
    assert np.allclose(moments.sd(), values.std(axis=0, ddof=1), rtol=1e-6)


def test_frequency_counts_subjects_and_tells_its_sources(tmp_path, rng):
    masks = rng.random((len(SUBJECTS), *SHAPE)) < 0.3
    for subject, mask in zip(SUBJECTS, masks, strict=True):
        write_map(tmp_path, 'lgg', 'mask', f'sub-{subject}_FLAIR.nii.gz', mask)
    view = by_key(write_maps(make_config(tmp_path), SUBJECTS))['mask']
    assert np.array_equal(load_data(view.files['count']), masks.sum(axis=0))
    assert np.allclose(load_data(view.files['frequency']), masks.mean(axis=0))
    assert set(view.files) == {'count', 'frequency'}
    path = view.files['frequency']
    assert path.name == 'space-Tiny_res-2_label-tumor_desc-lggFrequency_probseg.nii.gz'
    sidecar = json.loads(path.with_name(path.name.replace('.nii.gz', '.json')).read_text())
    assert sidecar['NumberOfSubjects'] == len(SUBJECTS)
    assert sidecar['Sources'][1] == (
        'bids::sub-02/anat/sub-02_space-Tiny_res-2_label-tumor_desc-lgg_mask.nii.gz'
    )
    assert sidecar['SpatialReference'] == 'bids:templateflow:tpl-Tiny/t1w.nii.gz'
    assert path.parent.name in bidsignore_lines()


def test_what_is_outside_the_slab_of_a_subject_is_not_without_lesion(tmp_path):
    mask, slab = np.zeros(SHAPE, bool), np.ones(SHAPE)
    mask[3, 3, 3] = mask[3, 3, 9] = True
    half = slab * (np.arange(SHAPE[2]) < 6)
    for subject, there in (('01', slab), ('02', half)):
        write_map(tmp_path, 'leakage', 'leakage_mask', f'sub-{subject}_dce.nii.gz',
                  mask & (there > 0))  # fmt: skip
        write_map(tmp_path, 'leakage', 'baseline', f'sub-{subject}_dce.nii.gz', there)
    view = by_key(write_maps(make_config(tmp_path), ('01', '02')))['leakage_mask']
    share, count = (load_data(view.files[key]) for key in ('frequency', 'count'))
    assert (share[3, 3, 3], share[3, 3, 9]) == (1.0, 1.0)
    assert (count[3, 3, 3], count[3, 3, 9]) == (2, 1)


@pytest.mark.parametrize('axes', ['RAS', 'LAS', 'LPS', 'ASR'])
def test_a_lesion_on_the_left_stays_there_whatever_the_order_of_the_file(tmp_path, axes):
    left = np.zeros(SHAPE, bool)
    left[2, 8, 5] = True
    for subject, order in (('01', axes), ('02', 'RAS')):
        write_map(tmp_path, 'lgg', 'mask', f'sub-{subject}_FLAIR.nii.gz', left, order)
    view = by_key(write_maps(make_config(tmp_path), ('01', '02')))['mask']
    image = nib.load(view.files['count'])
    place = np.argwhere(np.asarray(image.dataobj) == 2)
    assert len(place) == 1
    world = nib.affines.apply_affine(image.affine, place[0])
    assert np.allclose(world, AFFINE[:3, :3] @ (2, 8, 5) + AFFINE[:3, 3])
    assert world[0] < 0


def test_the_first_session_and_run_stands_for_a_subject(tmp_path):
    for source, value in (
        ('sub-01_ses-a_run-2_dce.nii.gz', 1.0),
        ('sub-01_ses-a_run-10_dce.nii.gz', 5.0),
        ('sub-01_ses-b_dce.nii.gz', 9.0),
        ('sub-02_ses-b_dce.nii.gz', 3.0),
    ):
        write_map(tmp_path, 'leakage', 'rvs', source, np.full(SHAPE, value))
    config = make_config(tmp_path)
    first = by_key(write_maps(config, ('01', '02')))['rvs']
    assert load_data(first.files['mean']).max() == 2.0
    assert 'sub-01' in ' '.join(first.notes)
    config = replace(config, run=replace(config.run, session_label=('b',)))
    later = by_key(write_maps(config, ('01', '02')))['rvs']
    assert load_data(later.files['mean']).max() == 6.0


def test_other_grids_and_half_written_files_are_left_out_by_name(tmp_path):
    for subject in ('01', '02', '03', '04'):
        write_map(tmp_path, 'leakage', 'rls', f'sub-{subject}_dce.nii.gz', np.ones(SHAPE))
    shifted = AFFINE.copy()
    shifted[0, 3] += 1.0
    write_map(tmp_path, 'leakage', 'rls', 'sub-03_dce.nii.gz', np.ones(SHAPE), affine=shifted)
    broken = next((tmp_path / 'sub-04').rglob('*RLS*.nii.gz'))
    broken.write_bytes(broken.read_bytes()[:60])
    view = by_key(write_maps(make_config(tmp_path), (*SUBJECTS, 'absent')))['rls']
    assert view.n_subjects == 2
    (note,) = [text for text in view.notes if text.startswith('Left out')]
    assert 'sub-03' in note
    assert 'other voxels' in note
    assert 'sub-04' in note
    assert 'truncated' in note


def test_templates_are_kept_apart_and_one_subject_makes_no_map(tmp_path):
    for subject, space in (('01', 'A'), ('02', 'A'), ('03', 'B')):
        write_map(tmp_path, 'leakage', 'rls', f'sub-{subject}_dce.nii.gz', np.ones(SHAPE),
                  space={'space': space})  # fmt: skip
    made = write_maps(make_config(tmp_path), SUBJECTS)
    assert [view.source.space_label for view in made.views] == ['A']
    assert made.notes == [
        'Residual leakage signal (RLS) in B: 1 subject, so no map over subjects.'
    ]
    assert not list((tmp_path / 'group').glob('space-B*'))


def test_images_of_single_subjects_are_no_templates(tmp_path):
    for subject in ('01', '02'):
        write_map(tmp_path, 'lgg', 'mask', f'sub-{subject}_FLAIR.nii.gz', np.ones(SHAPE, bool),
                  space={'space': 'orig'})  # fmt: skip
    assert write_maps(make_config(tmp_path), ('01', '02')).views == []


def test_memory_does_not_grow_with_subjects(tmp_path):
    shape = (60, 60, 60)
    source = write_map(tmp_path, 'leakage', 'rls', 'sub-s0_dce.nii.gz', np.ones(shape))
    names = [f's{index}' for index in range(60)]
    for name in names[1:]:
        target = source.as_posix().replace('sub-s0', f'sub-{name}')
        path = tmp_path / target
        path.parent.mkdir(parents=True)
        path.write_bytes(source.read_bytes())
    config = make_config(tmp_path)
    peaks = []
    for subjects in (names[:4], names[:4], names):
        tracemalloc.start()
        write_maps(config, subjects)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # One of the 56 maps that were added is this large as float32.
    assert peaks[2] - peaks[1] < 4 * np.prod(shape)


def test_several_processes_write_the_same_maps(tmp_path, rng, monkeypatch):
    for subject in SUBJECTS:
        for room, key, source, data in (
            ('leakage', 'rls', f'sub-{subject}_dce.nii.gz', rng.random(SHAPE)),
            ('lgg', 'mask', f'sub-{subject}_FLAIR.nii.gz', rng.random(SHAPE) < 0.5),
        ):
            write_map(tmp_path, room, key, source, data)
    config = make_config(tmp_path)
    alone = write_maps(config, SUBJECTS)
    before = {path.name: path.read_bytes() for path in (tmp_path / 'group').iterdir()}
    monkeypatch.setattr('bids_app.group.maps.PARALLEL_FROM', len(SUBJECTS))
    several = replace(config, compute=replace(config.compute, nprocs=2))
    together = write_maps(several, SUBJECTS)
    assert [view.files for view in together.views] == [view.files for view in alone.views]
    assert {path.name: path.read_bytes() for path in (tmp_path / 'group').iterdir()} == before


def test_a_killed_process_is_one_sentence(tmp_path, monkeypatch):
    for subject in SUBJECTS:
        for key in ('rls', 'rvs'):
            write_map(tmp_path, 'leakage', key, f'sub-{subject}_dce.nii.gz', np.ones(SHAPE))
    monkeypatch.setattr('bids_app.group.maps.PARALLEL_FROM', 2)
    dying = partial(ProcessPoolExecutor, initializer=os._exit, initargs=(137,))
    monkeypatch.setattr('bids_app.group.maps.ProcessPoolExecutor', dying)
    config = make_config(tmp_path)
    config = replace(config, compute=replace(config.compute, nprocs=2))
    with pytest.raises(NeurolesionError, match='killed, most likely for memory'):
        write_maps(config, SUBJECTS)


def test_every_map_over_subjects_goes_to_templates_and_says_where_it_was_measured():
    wanted = {
        (spec.room, key): output
        for spec in all_specs()
        for key, output in spec.outputs.items()
        if output.group
    }
    titles = {output.title for output in wanted.values()}
    assert {'Residual leakage signal (RLS)', 'Whole tumor', 'Lower-grade glioma'} <= titles
    for spec in all_specs():
        for key, output in spec.outputs.items():
            if (spec.room, key) in wanted:
                assert output.resample
                assert output.group['map'] in {'mean', 'frequency'}
                within = output.group.get('within')
                assert within is None or spec.outputs[within].resample
