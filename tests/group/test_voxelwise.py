"""Tests at voxels from files to files: a planted effect, who is in, and what cannot be tested."""

import csv
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from bids_app.config import GroupConfig
from bids_app.errors import UsageError
from bids_app.group.map_sections import MOST_CLUSTERS, maps_section, voxelwise_section
from bids_app.group.maps import write_maps
from bids_app.group.tables import run_group
from bids_app.group.voxelwise import write_voxelwise
from bids_app.outputs.spec import GROUP, load_spec

from .map_cohorts import AFFINE, SHAPE, load_data, make_config, write_map
from .stat_cohorts import read_design
from .test_tables import scans

SUBJECTS = tuple(f'{index:02}' for index in range(1, 17))
PARTICIPANTS = [f'sub-{subject}' for subject in SUBJECTS]
LEFT = np.zeros(SHAPE, bool)
LEFT[2:5, 8:11, 4:7] = True
PERMUTATIONS = 100
SETTINGS = {'formula': 'group + age', 'permutations': PERMUTATIONS, 'smoothing_mm': 3.0}


@pytest.fixture
def cohort(tmp_path):
    """Half of the subjects are patients, who leak in the left blob; the last has no age."""
    rng = np.random.default_rng(8)
    lines = ['participant_id\tgroup\tage']
    for index, subject in enumerate(SUBJECTS):
        group = ('control', 'patient')[index % 2]
        age = 'n/a' if subject == SUBJECTS[-1] else str(40 + index * 7 % 30)
        lines.append(f'sub-{subject}\t{group}\t{age}')
        data = 20 + ndimage.gaussian_filter(rng.standard_normal(SHAPE), 1.0) * 4
        data += 6.0 * LEFT * (index % 2)
        for key, values in (('rls', data), ('baseline', np.full(SHAPE, 9.0))):
            write_map(tmp_path, 'leakage', key, f'sub-{subject}_dce.nii.gz', values,
                      ('RAS', 'LAS')[index % 3 == 0])  # fmt: skip
    (tmp_path / 'participants.tsv').write_text('\n'.join(lines) + '\n')
    return tmp_path


def run(root, **settings):
    config = make_config(root, **SETTINGS | settings)
    design = read_design(root, config.group.formula, PARTICIPANTS)
    return write_voxelwise(config, design)


def test_the_planted_effect_is_found_on_the_left_and_nothing_of_age(cohort):
    made = run(cohort)
    by_term = {view.contrast.term: view for view in made.views}
    view = by_term['group']
    assert view.n_subjects == len(SUBJECTS) - 1
    first = view.found[0]
    assert first.positive
    assert first.peak_mm[0] < 0
    place = np.linalg.inv(AFFINE) @ (*first.peak_mm, 1)
    assert LEFT[tuple(place[:3].round().astype(int))]
    assert by_term['age'].found == []
    t = load_data(view.files['t'])
    assert t[LEFT].mean() > 4
    rows = list(csv.DictReader(view.files['clusters'].open(), delimiter='\t'))
    assert len(rows) == len(view.clusters)
    assert rows[0]['direction'] == 'above'
    assert float(rows[0]['x']) == first.peak_mm[0]
    logp = load_data(view.files['voxel_p'])
    assert logp.max() == pytest.approx(-math.log10(1 / (PERMUTATIONS + 1)), rel=1e-4)


def test_names_and_sidecars_say_what_was_tested(cohort):
    view = next(view for view in run(cohort).views if view.contrast.term == 'group')
    path = view.files['t']
    contrast = 'groupPatientAgainstControl'
    assert path.name == (f'space-Tiny_res-2_contrast-{contrast}_param-RLS_desc-t_statmap.nii.gz')
    sidecar = json.loads(path.with_name(path.name.replace('.nii.gz', '.json')).read_text())
    assert sidecar['Formula'] == 'group + age'
    assert sidecar['Permutations'] == PERMUTATIONS
    assert sidecar['SmoothingFWHM'] == 3.0
    assert sidecar['NumberOfSubjects'] == len(sidecar['Sources']) == len(SUBJECTS) - 1
    dictionary = json.loads(view.files['clusters'].with_suffix('.json').read_text())
    assert dictionary['volume']['Units'] == 'mL'


def test_only_voxels_measured_in_everybody_are_tested(cohort):
    slab = 9.0 * np.ones(SHAPE) * (np.arange(SHAPE[2]) < 9)
    write_map(cohort, 'leakage', 'baseline', 'sub-03_dce.nii.gz', slab)
    for view in run(cohort).views:
        t = load_data(view.files['t'])
        assert not t[:, :, 9:].any()
        assert view.n_voxels == np.count_nonzero(t) == 9 * SHAPE[0] * SHAPE[1]


def test_subjects_without_a_readable_map_are_left_out_by_name(cohort):
    broken = next((cohort / 'sub-05').rglob('*RLS*.nii.gz'))
    broken.write_bytes(b'')
    next((cohort / 'sub-06').rglob('*RLS*.nii.gz')).unlink()
    view = run(cohort).views[0]
    assert view.n_subjects == len(SUBJECTS) - 3
    assert 'sub-05' in ' '.join(view.notes)
    assert all('sub-06' not in path for path in view.files)


def test_a_map_that_one_group_has_is_not_tested(cohort):
    for subject in SUBJECTS[::2]:
        for path in (cohort / f'sub-{subject}').rglob('*RLS*'):
            path.unlink()
    made = run(cohort)
    assert [view.contrast.term for view in made.views] == ['age']
    (note,) = made.notes
    assert 'group: patient against control' in note
    assert 'the same value' in note


def test_too_little_memory_is_said_before_it_is_used(cohort):
    config = make_config(cohort, **SETTINGS)
    config = replace(config, compute=replace(config.compute, mem_gb=1e-4))
    design = read_design(cohort, 'group', PARTICIPANTS)
    made = write_voxelwise(config, design)
    assert made.views == []
    assert '--mem' in made.notes[0]
    assert not (cohort / GROUP).exists()


def test_nothing_that_differs_is_no_test(cohort):
    for subject in SUBJECTS:
        write_map(cohort, 'leakage', 'rls', f'sub-{subject}_dce.nii.gz', np.ones(SHAPE))
        for path in (cohort / f'sub-{subject}').rglob('*dceref*'):
            path.unlink()
    made = run(cohort)
    assert made.views == []
    assert '0 voxels' in made.notes[0]


def test_too_few_permutations_are_said(cohort):
    made = run(cohort, permutations=10)
    assert made.views
    assert made.notes == [
        'With 10 permutations no p value can come below 0.05: raise --group-permutations.'
    ]


@pytest.mark.parametrize('settings', [{'permutations': -1}, {'smoothing_mm': -1.0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(UsageError, match=next(iter(settings))):
        GroupConfig(**settings)


def test_the_page_shows_each_map_and_what_was_found(cohort):
    made = run(cohort)
    section = voxelwise_section(made, cohort)
    assert section is not None
    pictures = [block for block in section.blocks if hasattr(block, 'image')]
    tables = [block for block in section.blocks if hasattr(block, 'rows')]
    listed = [len(view.clusters) for view in made.views if view.clusters]
    assert len(pictures) == len(made.views) == 2
    assert 'outlined' in pictures[0].caption
    assert 'outlined' not in pictures[1].caption
    assert [len(table.rows) for table in tables] == [min(MOST_CLUSTERS, n) for n in listed]
    assert tables[0].rows[0][1] == 'above'
    assert not any('TFCE' in column.title for table in tables for column in table.columns)
    assert all((cohort / link.path).is_file() for block in pictures for link in block.files)
    maps = maps_section(write_maps(make_config(cohort), SUBJECTS), cohort)
    assert maps is not None
    drawn = [key for key, item in load_spec(GROUP).outputs.items() if item.display]
    assert {'mean', 'sd', 't', 'frequency'} == set(drawn)
    assert [block.title.partition(': ')[2] for block in maps.blocks] == [
        'mean (Tiny:res-2)',
        'standard deviation (Tiny:res-2)',
    ]
    assert all(block.image.startswith('data:image/') for block in [*maps.blocks, *pictures])
    assert maps_section(write_maps(make_config(cohort), ()), cohort) is None


def test_the_group_level_writes_maps_and_tests_and_shows_them(cohort):
    for index, subject in enumerate(SUBJECTS):
        values = {'leakage_rls_median': 20.0 + index}
        scans(cohort, f'sub-{subject}_dce.nii.gz', 'leakage', values)
    page = run_group(make_config(cohort, **SETTINGS)).page.read_text()
    assert 'Maps over subjects' in page
    assert 'Residual leakage signal (RLS), group: patient against control' in page
    assert {path.name.split('_desc-')[1] for path in (cohort / GROUP).glob('*.nii.gz')} == {
        f'{kind}_statmap.nii.gz' for kind in ('mean', 'sd', 't', 'voxelLogP', 'clusterLogP')
    }
    without = cohort / 'without'
    shutil.copytree(cohort, without, ignore=shutil.ignore_patterns('group*', 'without'))
    run_group(make_config(without, **SETTINGS | {'permutations': 0}))
    assert not list((without / GROUP).glob('*contrast*'))
