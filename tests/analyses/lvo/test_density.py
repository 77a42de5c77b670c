"""A clot stands out against the same artery of the other side, wherever it is stored."""

import numpy as np
import pytest

from bids_app.analyses.lvo.model.density import artery_excess
from bids_app.analyses.lvo.model.grid import ALIGNED_SHAPE, to_aligned
from bids_app.analyses.lvo.model.labels import M1, OTHER_VESSEL

from .vessel_phantom import BLOOD_HU, CLOT_HU, make_phantom


@pytest.mark.parametrize('code', ['RAS', 'LPS', 'PSR'])
@pytest.mark.parametrize('side', ['left', 'right'])
def test_a_clot_is_denser_than_the_other_side(side, code):
    head = make_phantom(side, (M1,), noise_hu=0.0).stored(code)
    place = head.affine, head.from_mni
    excess = artery_excess(head.hu, head.vessels, *place)
    clot, artery = to_aligned(head.clot, *place), to_aligned(head.vessels == M1, *place)
    # Whole voxels of the clot and of the same place on the other side.
    inside = clot > 0.9
    assert inside.sum() > 5
    wanted = CLOT_HU - BLOOD_HU
    assert np.median(excess[inside] / artery[inside]) == pytest.approx(wanted, abs=6.0)
    other = inside[::-1] & (artery > 0.5)
    assert np.median(excess[other]) < -6.0
    half = ALIGNED_SHAPE[0] // 2
    assert (np.argwhere(excess == excess.max())[0][0] >= half) == (side == 'right')


def test_arteries_of_like_density_leave_nothing():
    head = make_phantom('left', (), noise_hu=0.0)
    excess = artery_excess(head.hu, head.vessels, head.affine, head.from_mni)
    assert np.abs(excess).max() < 0.1


def test_without_large_arteries_there_is_nothing_to_compare():
    head = make_phantom('left', ())
    others = np.where(head.vessels == OTHER_VESSEL, head.vessels, 0)
    assert not artery_excess(head.hu, others, head.affine, head.from_mni).any()


def test_an_artery_without_a_partner_is_compared_with_all():
    head = make_phantom('left', (M1,), noise_hu=0.0)
    x_mm = (np.moveaxis(np.indices(head.hu.shape), 0, -1) @ head.affine[:3, :3].T)[..., 0]
    left = x_mm + head.affine[0, 3] < head.from_mni[0, 3]
    excess = artery_excess(head.hu, head.vessels * left, head.affine, head.from_mni)
    assert excess.max() > 0.5 * (CLOT_HU - BLOOD_HU)
