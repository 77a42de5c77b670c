"""What the network says of the base of the brain comes back to its place in the image."""

from pathlib import Path

import numpy as np
import pytest
from nibabel.affines import apply_affine

from bids_app.analyses.lvo import train_vessels
from bids_app.analyses.lvo.model import vessels as vessels_module
from bids_app.analyses.lvo.model.labels import C7, M1, M2, OTHER_VESSEL, VESSELS
from bids_app.analyses.lvo.model.vessels import (
    NEAR_MM,
    segment_vessels,
    vessel_box,
    vessel_channels,
)
from bids_app.compute.nnunet.dataset import LabelPlan, describe_dataset
from bids_app.compute.nnunet.model import NnunetModel
from bids_app.compute.nnunet.plans import small_plans
from bids_app.compute.nnunet.predict import PredictSettings

from .vessel_phantom import make_phantom

DENSE_HU = 38.5


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> NnunetModel:
    """A network that calls M1 whatever is denser than brain."""

    def dense(_model, channels, _affine, _settings, _report):
        found = np.zeros((1 + len(VESSELS), *channels.shape[1:]), np.float32)
        found[M1] = np.where(channels[0] > DENSE_HU, 0.9, 0.05)
        found[0] = 1.0 - found[M1]
        return found

    monkeypatch.setattr(vessels_module, 'predict', dense)
    network, options = train_vessels.NETWORK, train_vessels.OPTIONS
    plan = LabelPlan({'background': 0, **network.labels})
    return NnunetModel(
        plans=small_plans(network.dataset, 5, options.patch, features=options.features),
        dataset=describe_dataset(network.channels, plan, 1),
        configuration='3d_fullres', mirror_axes=(2,), weights=(), sha256=(), orientation='RAS',
        source=Path('card.json'),
    )  # fmt: skip


@pytest.mark.parametrize('code', ['RAS', 'LAS', 'PSR'])
def test_arteries_are_labelled_on_the_image_s_own_grid(model: NnunetModel, code: str) -> None:
    head = make_phantom('left', (), noise_hu=0.0).stored(code)
    found = segment_vessels(model, head.hu, head.affine, head.from_mni, PredictSettings())
    box = vessel_box(head.hu.shape, head.affine, head.from_mni)
    inside = np.zeros(head.hu.shape, bool)
    inside[box] = True
    assert not found.labels[~inside].any()
    assert not found.probability[~inside].any()
    # The ends of M2 are farther from the course of M1 than M1 may be.
    brain = head.brain & inside & (head.vessels != M2)
    # Voxels of 2 and 2.5 mm are coarser than the network's and are not smoothed.
    np.testing.assert_array_equal(found.labels[brain], np.where(head.vessels > 0, M1, 0)[brain])
    np.testing.assert_allclose(found.probability[brain & (head.vessels > 0)], 0.9, rtol=1e-6)
    np.testing.assert_allclose(found.probability[brain & (head.vessels == 0)], 0.05, rtol=1e-5)


def test_nothing_far_from_the_usual_course_of_an_artery_is_one(model: NnunetModel) -> None:
    head = make_phantom('left', (), noise_hu=0.0)
    orbit, beside_m1 = (
        tuple(np.rint(apply_affine(np.linalg.inv(head.affine) @ head.from_mni, place)).astype(int))
        for place in ((38.0, 46.0, -40.0), (20.0, 16.0, -16.0))
    )
    head.hu[orbit] = head.hu[beside_m1] = 60.0
    found = segment_vessels(model, head.hu, head.affine, head.from_mni, PredictSettings())
    assert (found.labels[orbit], found.probability[orbit]) == (0, 0)
    assert found.labels[beside_m1] == M1
    assert found.probability[beside_m1] > 0.8


@pytest.mark.parametrize(('m1', 'm2', 'label'), [(0.15, 0.05, M1), (0.06, 0.02, 0)])
def test_an_edge_that_is_less_than_even_is_labelled_and_less_is_not(
    model: NnunetModel, monkeypatch: pytest.MonkeyPatch, m1: float, m2: float, label: int
) -> None:
    def doubtful(_model, channels, _affine, _settings, _report):
        found = np.zeros((1 + len(VESSELS), *channels.shape[1:]), np.float32)
        found[M1], found[M2], found[0] = m1, m2, 1.0 - m1 - m2
        return found

    monkeypatch.setattr(vessels_module, 'predict', doubtful)
    head = make_phantom('left', (), noise_hu=0.0)
    found = segment_vessels(model, head.hu, head.affine, head.from_mni, PredictSettings())
    of_m1 = head.vessels == M1
    assert (found.labels[of_m1] == label).all()
    np.testing.assert_allclose(found.probability[of_m1], m1 + m2, rtol=1e-5)


@pytest.mark.parametrize('code', ['RAS', 'LPS', 'PSR'])
@pytest.mark.parametrize('side', [-1.0, 1.0])
def test_the_network_is_told_where_arteries_usually_run(code: str, side: float) -> None:
    head = make_phantom(noise_hu=0.0).stored(code)
    courses = vessel_channels(head.hu, head.affine, head.from_mni)[1:]
    # A corner of each course far from the other arteries, and a place 10 mm above that of M1.
    for point, label, expected in (
        ((12.5, 1.0, -19.5), C7, 1.0),
        ((28.0, 7.0, -20.0), M1, 1.0),
        ((45.0, -3.0, -8.0), M2, 1.0),
        ((16.0, -32.0, -6.0), OTHER_VESSEL, 1.0),
        ((28.0, 7.0, -10.0), M1, np.exp(-0.5 * (10 / NEAR_MM) ** 2)),
    ):
        native = apply_affine(head.from_mni, np.multiply(point, (side, 1, 1)))
        voxel = np.rint(apply_affine(np.linalg.inv(head.affine), native)).astype(int)
        found = courses[(label - 1, *voxel)]
        # The middle of a voxel of 2 by 2 by 2.5 mm is up to 1.9 mm away.
        assert found == pytest.approx(expected, abs=0.1)
