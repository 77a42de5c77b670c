"""Synthetic scans: positions survive every storage order, slices average, noise is as asked."""

from __future__ import annotations

import csv
from dataclasses import replace
from functools import partial

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy.spatial import cKDTree

from bids_app.analyses.lvo import dataset
from bids_app.analyses.lvo.model.synthesis.acquire import (
    ORIENTATIONS,
    Acquisition,
    acquire,
    draw_acquisition,
    draw_noise,
)
from bids_app.analyses.lvo.model.synthesis.case import draw_case
from bids_app.analyses.lvo.model.synthesis.head import Head, Lumens, make_head
from bids_app.errors import BadDataError, UsageError

SHAPE = (60, 72, 48)
RADIUS_MM = 1.9
CASE = draw_case(0, occluded=True)


def tube(start, end, radius=RADIUS_MM):
    """Points 0.1 mm apart, all of label 2 and without a clot."""
    points = np.linspace(start, end, round(10 * np.linalg.norm(np.subtract(end, start))) + 1)
    n = len(points)
    return Lumens(points, np.full(n, radius), np.full(n, 2, np.uint8), np.zeros(n, bool))


def phantom():
    """Tissue with an artery from left to right, clotted on the right; axes differ in length."""
    affine = np.eye(4)
    affine[:3, 3] = (-30, -40, -20)
    lumens = tube((-10, -8.5, 1.5), (13, -8.5, 1.5))
    lumens.labels[lumens.points_mm[:, 0] < -6] = 3
    lumens = lumens._replace(clot=lumens.points_mm[:, 0] > 9.5)
    places = apply_affine(affine, np.argwhere(np.ones(SHAPE)))
    distance, row = cKDTree(lumens.points_mm).query(places)
    inside = (distance <= RADIUS_MM).reshape(SHAPE)
    vessels = lumens.labels[row].reshape(SHAPE) * inside
    clot = (lumens.clot[row].reshape(SHAPE) & inside).astype(np.uint8)
    hu = np.full(SHAPE, -1000, np.float32)
    hu[5:-5, 5:-5, 5:-5] = 35
    hu[clot > 0] = 70
    from_mni = np.eye(4)
    from_mni[:3, 3] = (1, 2, 3)
    return Head(hu, vessels, clot, hu > -500, affine, from_mni, CASE, lumens)


def centre_mm(mask, affine):
    return affine[:3, :3] @ np.argwhere(mask).mean(0) + affine[:3, 3]


@pytest.mark.parametrize('tilt', [0.0, 15.0])
@pytest.mark.parametrize('orientation', ORIENTATIONS)
def test_every_storage_order_keeps_positions(orientation, tilt):
    head = phantom()
    settings = Acquisition((1.0, 1.0), orientation, tilt_deg=tilt)
    scan = acquire(head, np.random.default_rng(0), settings)
    if tilt == 0:
        assert ''.join(nib.aff2axcodes(scan.affine)) == orientation
    tolerance = 0.01 if tilt == 0 else 0.35
    for name in ('clot', 'brain'):
        before = centre_mm(getattr(head, name) > 0, head.affine)
        after = centre_mm(getattr(scan, name) > 0, scan.affine)
        assert np.abs(after - before).max() < tolerance
    assert centre_mm(scan.clot, scan.affine)[0] > 10
    for label in (2, 3):
        before = centre_mm(head.vessels == label, head.affine)
        assert np.abs(centre_mm(scan.vessels == label, scan.affine) - before).max() < tolerance
    bright = (scan.hu > 60) & (scan.hu < 100)
    assert np.abs(centre_mm(bright, scan.affine) - centre_mm(head.clot, head.affine)).max() < 0.5
    assert np.array_equal(scan.from_mni, head.from_mni)


def test_a_tilted_scan_is_oblique_by_its_tilt():
    scan = acquire(phantom(), np.random.default_rng(0), Acquisition((1.0, 2.0), tilt_deg=15.0))
    axis = scan.affine[:3, 2] / np.linalg.norm(scan.affine[:3, 2])
    assert np.rad2deg(np.arccos(axis[2])) == pytest.approx(15.0, abs=1e-6)


def test_thick_slices_average_what_lies_in_them():
    hu = np.broadcast_to(np.arange(48, dtype=np.float32) ** 2 / 10, SHAPE).copy()
    head = replace(phantom(), hu=hu)
    scan = acquire(head, np.random.default_rng(0), Acquisition((1.0, 4.0)))
    assert scan.hu.shape == (60, 72, 12)
    wanted = (np.arange(48) ** 2 / 10).reshape(12, 4).mean(1)
    assert np.abs(scan.hu[30, 30] - wanted).max() <= 0.51
    middle = scan.affine @ (30, 30, 0, 1)
    assert middle[2] == pytest.approx(-20 + 1.5)


def test_partial_volume_hides_a_clot_from_the_labels_only_below_the_share():
    head = phantom()
    scan = acquire(head, np.random.default_rng(0), Acquisition((1.0, 8.0)))
    # Slices of 8 mm begin at index 16: near its axis the clot fills almost half of one of them.
    assert scan.clot[41, 31].tolist() == [0, 0, 1, 0, 0, 0]
    assert scan.hu[41, 31, 2] == pytest.approx((70 + 35) / 2, abs=1)


def test_a_clot_that_fills_no_slice_is_labelled_where_most_of_it_lies():
    scan = acquire(phantom(), np.random.default_rng(0), Acquisition((1.0, 16.0)))
    # Less than a quarter of the slice from index 16 to 31, and most of that beside the axis.
    assert scan.clot[41, 31].tolist() == [0, 1, 0]
    assert set(np.argwhere(scan.clot)[:, 1]) == {31, 32}
    assert scan.clot.sum() == 4 * 2


@pytest.mark.parametrize('tilt', [0.0, 15.0])
def test_labels_of_fine_voxels_end_where_the_artery_ends(tilt):
    """Not where the voxels of 1 mm end in which the head is made."""
    radius, ends = 1.3, np.array([(-14.0, -18.0, -9.0), (12.0, 17.0, 11.0)])
    head = replace(phantom(), lumens=tube(*ends, radius))
    settings = Acquisition((0.45, 0.5), tilt_deg=tilt)
    scan = acquire(head, np.random.default_rng(0), settings)
    places = apply_affine(scan.affine, np.argwhere(scan.vessels == 2))
    distance, _ = cKDTree(head.lumens.points_mm).query(places)
    assert distance.max() < radius + 0.01
    volume = np.pi * radius**2 * (np.linalg.norm(ends[1] - ends[0]) + 4 / 3 * radius)
    voxel = abs(np.linalg.det(scan.affine[:3, :3]))
    assert len(places) * voxel == pytest.approx(volume, rel=0.02)
    assert not scan.clot.any()


def test_veins_have_no_label_and_arteries_may_lie_outside():
    head = phantom()
    veins = head.lumens._replace(labels=np.where(head.lumens.clot, 2, 0).astype(np.uint8))
    scan = acquire(replace(head, lumens=veins), np.random.default_rng(0), Acquisition())
    assert np.array_equal(scan.vessels > 0, scan.clot > 0)
    away = head.lumens._replace(points_mm=head.lumens.points_mm + 500.0)
    scan = acquire(replace(head, lumens=away), np.random.default_rng(0), Acquisition())
    assert not scan.vessels.any()


@pytest.mark.parametrize('asked', [3.0, 6.0])
def test_noise_has_the_asked_standard_deviation(asked):
    scan = acquire(phantom(), np.random.default_rng(1), Acquisition((1.0, 1.5), noise_hu=asked))
    inside = scan.hu[10:50, 10:60, 6:12].astype(float)
    assert inside.std() == pytest.approx(asked, rel=0.08)
    assert inside.mean() == pytest.approx(35, abs=0.5)


def test_noise_is_coloured_within_a_slice():
    noise = draw_noise((128, 128, 12), (0.9, 1.5), np.random.default_rng(2))
    spectrum = (np.abs(np.fft.fft2(noise, axes=(0, 1))) ** 2).mean(2)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(128, 0.9), np.fft.fftfreq(128, 0.9)))
    low = spectrum[(frequency > 0.05) & (frequency < 0.2)].mean()
    high = spectrum[frequency > 0.5].mean()
    assert low > 10 * high


def test_a_hardened_beam_darkens_between_dense_bones():
    head = phantom()
    head.hu[6:14, 30:40, 20:30] = 1500
    head.hu[46:54, 30:40, 20:30] = 1500
    rng = np.random.default_rng(0)
    scan = acquire(head, rng, Acquisition((1.0, 1.0), bar_hu=8.0))
    plain = acquire(head, rng, Acquisition((1.0, 1.0)))
    change = scan.hu.astype(int) - plain.hu
    assert change[28:32, 35, 25].mean() < -1
    assert abs(change[30, 60, 42]) <= 1


def test_equal_generators_give_equal_scans():
    scans = []
    for _ in range(2):
        rng = np.random.default_rng(9)
        scans.append(acquire(phantom(), rng, draw_acquisition(rng)))
    assert scans[0].hu.tobytes() == scans[1].hu.tobytes()
    assert scans[0].hu.dtype == np.int16


def test_an_orientation_must_name_every_axis():
    with pytest.raises(BadDataError, match='LRS is no orientation'):
        acquire(phantom(), np.random.default_rng(0), Acquisition(orientation='LRS'))


@pytest.fixture
def coarse_heads(monkeypatch):
    """Coarse heads and scans: the files of a dataset are the same, only smaller."""
    monkeypatch.setattr(dataset, 'make_head', partial(make_head, spacing_mm=3.0))
    monkeypatch.setattr(dataset, 'draw_acquisition', lambda _: Acquisition((2.0, 3.0), 'LAS'))


def test_a_dataset_holds_images_labels_and_truth(tmp_path, coarse_heads, validate):
    out = dataset.write_dataset(tmp_path / 'heads', 2, seed=4)
    with (out / 'participants.tsv').open() as stream:
        rows = list(csv.DictReader(stream, delimiter='\t'))
    assert [row['participant_id'] for row in rows] == ['sub-0001', 'sub-0002']
    for row in rows:
        label = row['participant_id']
        image = nib.load(out / label / 'ct' / f'{label}_ct.nii.gz')
        start = out / 'derivatives' / 'labels' / label / 'ct' / f'{label}_space-orig_'
        clot = nib.load(f'{start}label-clot_mask.nii.gz')
        vessels = nib.load(f'{start}seg-vessel_dseg.nii.gz')
        assert image.get_data_dtype() == np.int16
        assert np.allclose(image.affine, clot.affine)
        assert clot.shape == image.shape == vessels.shape
        assert set(np.unique(vessels.dataobj)) <= {0, 1, 2, 3, 4}
        if row['occlusion'] == 'no':
            assert (row['side'], row['segment']) == ('n/a', 'n/a')
            assert not np.asarray(clot.dataobj).any()
        elif (found := np.asarray(clot.dataobj) > 0).any():
            assert (centre_mm(found, clot.affine)[0] > 0) == (row['side'] == 'right')
    assert {row['occlusion'] for row in rows} == {'yes', 'no'}
    assert validate(out) == []


def test_a_second_call_goes_on_where_the_first_stopped(tmp_path, coarse_heads):
    out = dataset.write_dataset(tmp_path, 1, seed=7)
    first = out / 'sub-0001' / 'ct' / 'sub-0001_ct.nii.gz'
    before = first.stat().st_mtime_ns
    dataset.write_dataset(tmp_path, 2, seed=7)
    assert first.stat().st_mtime_ns == before
    assert (out / 'sub-0002' / 'ct' / 'sub-0002_ct.nii.gz').is_file()


def test_a_dataset_of_nobody_is_refused(tmp_path):
    with pytest.raises(UsageError, match='at least 1 patient'):
        dataset.write_dataset(tmp_path, 0, seed=0)
