"""Tables and pictures of an evaluation: known numbers, outlines at known places."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from bids_app.analyses.anomaly import (
    cohort,
)
from bids_app.analyses.anomaly.evaluation_methods import open_head
from bids_app.analyses.anomaly.evaluation_pictures import MARGIN, draw_picture
from bids_app.analyses.anomaly.evaluation_tables import (
    Group,
    Pools,
    Row,
    case_table,
    compare,
    groups_of,
    summarise,
)

from .anomaly_models import SPACING_MM

pytestmark = pytest.mark.usefixtures('no_preparation')


def row(patient, method, kind, dice, score, diameter=12.0, marked_ml=np.nan):
    return Row(
        f'sub-{patient}', 'x', method, kind, diameter, 1.0, dice / 2, dice, 0.5, 0.1, score,
        marked_ml, dice / 4,
    )  # fmt: skip


def test_summary_of_known_numbers():
    rows = [row(p, 'a', 'dark', d, s) for p, d, s in (('1', 0.2, 5), ('2', 0.6, 3))]
    rows += [row('3', 'a', 'bright', 1.0, 9, 30.0)]
    rows += [row(p, 'a', 'healthy', np.nan, s, np.nan) for p, s in (('1', 1), ('2', 4))]
    rows[-1] = row('2', 'a', 'healthy', np.nan, 4, np.nan, 3.0)
    pools = Pools()
    scores, truth = np.array([1.0, 2.0, 3.0]), np.array([0, 1, 1], bool)
    for kind, size in (('dark', 12.0), ('bright', 30.0)):
        pools.add('a', groups_of(kind, size), scores, truth)
    found = summarise(case_table(rows), pools, 0).set_index(['kind', 'size_mm'])
    assert list(found.index) == [
        ('all', 'all'), ('all', '10-20'), ('all', '20-40'), ('bright', 'all'),
        ('bright', '20-40'), ('dark', 'all'), ('dark', '10-20'),
    ]  # fmt: skip
    dark = found.loc[('dark', 'all')]
    assert (dark['n'], dark['dice'], dark['auprc']) == (2, pytest.approx(0.4), pytest.approx(0.2))
    assert (dark['dice_low'], dark['dice_high']) == pytest.approx((0.2, 0.6))
    # 5 beats both healthy heads, 3 one of them.
    assert (dark['auroc'], dark['healthy']) == (0.75, 2)
    assert (dark['marked_dice'], dark['false_ml']) == pytest.approx((0.1, 3.0))
    assert found.loc[('bright', 'all'), 'auroc'] == 1.0
    assert found.loc[('all', 'all'), 'pooled_dice'] == 1.0


def test_margins_of_known_numbers():
    rows = [row(p, 'net', 'dark', d, 1) for p, d in (('1', 0.5), ('2', 0.9))]
    rows += [row(p, 'base', 'dark', d, 1) for p, d in (('2', 0.7), ('1', 0.2))]
    found = compare(case_table(rows), ['net'], ['base'], 0).set_index('kind')
    assert found.loc['dark', 'dice'] == pytest.approx(0.25)
    assert found.loc['dark', 'auprc'] == pytest.approx(0.125)
    assert (found.loc['dark', 'dice_low'], found.loc['dark', 'dice_high']) == pytest.approx(
        (0.2, 0.3)
    )


@pytest.mark.parametrize(('size', 'group'), [(4.8, '5-10'), (10.1, '10-20'), (41.0, '20-40')])
def test_sizes_at_the_ends(size, group):
    assert Group('dark', group) in groups_of('dark', size)


def test_drawn_lesions_count_once():
    assert groups_of('drawn', float('nan')) == [Group('all', 'all')]


def points(path):
    return np.array(
        [[float(n) for n in pair.split()] for pair in re.split('[MLZ]+', path) if pair]
    )


def test_outlines_lie_on_the_lesion(labelled, template, tmp_path):
    root, masks = labelled
    volume = cohort.load_volumes(
        cohort.CohortRequest(root, 't1w', exclude_masks=masks, participants=('bright',)), tmp_path
    )[0]
    opened = open_head(volume)
    values = np.where(opened.truth, 2.0, 0.2).astype(np.float32)
    picture = draw_picture(opened, {'Truth itself': (values, 2.0)})
    assert [panel.title for panel in picture.panels] == ['Image', 'Truth itself']
    truth = points(picture.truth)
    np.testing.assert_allclose(points(picture.panels[1].marked), truth)
    assert np.ptp(truth, axis=0) == pytest.approx((20, 20))
    # The template is RAS: the picture's left is the patient's right, its top the front.
    middle = (opened.brain | opened.truth)[:, :, 22:27].any(axis=2)
    rightmost = np.flatnonzero(middle.any(axis=1)).max() + MARGIN
    assert truth[:, 0].min() == pytest.approx((rightmost - 26) * SPACING_MM, abs=2 * SPACING_MM)
    packed = picture.panels[1].picture.partition('base64,')[2]
    grey = np.asarray(Image.open(io.BytesIO(base64.b64decode(packed))).convert('L'))
    assert grey.shape == (
        round(picture.height_mm / SPACING_MM), round(picture.width_mm / SPACING_MM)
    )  # fmt: skip
    across, down = (truth.mean(axis=0) / SPACING_MM).astype(int)
    # The threshold is the grey in the middle.
    assert grey[down, across] == pytest.approx(127, abs=12)
    assert np.median(grey) < 30
