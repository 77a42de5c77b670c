"""Graph of the room: what is wired to what, and what its settings do."""

import re

import nibabel as nib
import numpy as np
import pytest

from bids_app.analyses.lvo import ANALYSIS
from bids_app.analyses.lvo.tables import label_tables
from bids_app.analyses.lvo.workflow import init_lvo_wf
from bids_app.config import ComputeConfig, Config, RunConfig
from bids_app.errors import BadDataError, MissingInputError, UsageError
from bids_app.inputs.collect import BidsImage, SubjectInputs
from bids_app.prep.place import Place
from bids_app.prep.session import choose_images
from bids_app.prep.spaces import Space, find_template
from bids_app.prep.workflow import init_ct_wf
from bids_app.reports.citation import cited_keys, read_references
from bids_app.room_config import LvoConfig

SPACE = Space('MNI152NLin2009aSym', 2)


@pytest.fixture
def build(tmp_path, weights_dir):
    """Give a function that makes the room's workflows for a session with one CT."""
    path = tmp_path / 'bids/sub-01/ct/sub-01_ct.nii.gz'
    path.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(np.zeros((60, 70, 50), np.int16), np.diag([3.0, 3, 3, 1])), path)

    def call(spaces=False, images=True, **compute):
        run = RunConfig(bids_dir=tmp_path / 'bids', output_dir=tmp_path / 'out')
        config = Config(run, ComputeConfig(weights_dir=weights_dir, **compute))
        inputs = SubjectInputs('01', None, {'ct': (BidsImage(path),) if images else ()})
        session = choose_images(inputs, run, print)
        templates = ((SPACE, find_template(SPACE)),) if spaces else ()
        place = Place(config, templates, session)
        return init_lvo_wf(inputs, place), place

    return call


def test_the_room_waits_for_ct_and_mask(build):
    (native,), place = build()
    wanted = set(native.get_node('inputnode').inputs.copyable_trait_names())
    assert wanted == {'ct', 'ct_mask'}
    offered = init_ct_wf(place.session.ct, place).get_node('outputnode').inputs
    assert wanted <= set(offered.copyable_trait_names())
    locate = native.get_node('locate').inputs
    assert str(locate.source).endswith('sub-01_ct.nii.gz')
    assert set(locate.models) == {'vessels', 'detection', 'localisation'}
    assert locate.settings == {'threshold': 0.0, 'mirroring': True}


def test_maps_go_to_the_templates_by_the_transform_of_the_ct(build):
    (_, moved), place = build(spaces=True)
    wanted = set(moved.get_node('inputnode').inputs.copyable_trait_names())
    suffix = SPACE.node_suffix
    assert wanted == {'lvo_maps', 'lvo_metadata', f'ct_to_{suffix}'}
    ct = init_ct_wf(place.session.ct, place).get_node('outputnode').inputs
    assert f'ct_to_{suffix}' in ct.copyable_trait_names()
    resample = moved.get_node(f'resample_{suffix}')
    assert resample.inputs.interpolation == {
        'vessels': 'nearest', 'vessel_mask': 'nearest', 'hemispheres': 'nearest',
        'territory': 'linear', 'difference': 'linear', 'localisation': 'linear',
    }  # fmt: skip


def test_a_territory_of_the_user(build, tmp_path):
    with pytest.raises(MissingInputError, match='--lvo-territory-atlas'):
        build(lvo_territory_atlas=tmp_path / 'none.nii.gz')
    atlas = tmp_path / 'atlas.nii.gz'
    atlas.touch()
    (native,), _ = build(lvo_territory_atlas=atlas)
    assert native.get_node('locate').inputs.territory == str(atlas)
    assert native.get_node('ds_maps').inputs.sources == [str(atlas)]
    assert "the user's own territory" in native.__desc__


def test_a_session_without_ct(build):
    with pytest.raises(BadDataError, match='sub-01 has no head CT'):
        build(images=False)


def test_the_methods_cite_what_is_known(build):
    (native,), _ = build()
    keys = set(cited_keys(native.__desc__))
    assert keys == {'isensee2021', 'woo2018'}
    assert keys <= set(read_references())


def test_the_room_asks_for_ct_alone():
    assert ANALYSIS.wants({'ct': ['x']}, named=False)
    assert not ANALYSIS.wants({'t1w': ['x']}, named=True)


def test_tables_name_every_label():
    tables = label_tables(Config(RunConfig('bids', 'out')))
    rows = [line.split('\t') for line in tables['seg-vessel_dseg.tsv'].splitlines()]
    assert [(row[0], row[2]) for row in rows[2:]] == [
        ('1', 'C7'), ('2', 'M1'), ('3', 'M2'), ('4', 'other')
    ]  # fmt: skip
    colours = [row[3] for row in rows[1:]]
    assert all(re.fullmatch('#[0-9a-f]{6}', colour) for colour in colours)
    assert '1\tLeft hemisphere' in tables['seg-hemisphere_dseg.tsv']


@pytest.mark.parametrize('threshold', [-0.1, 1.0])
def test_a_threshold_is_a_share(threshold):
    with pytest.raises(UsageError, match=r'lvo\.threshold is'):
        LvoConfig(threshold=threshold)
