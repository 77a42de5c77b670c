"""Outlines lie on the edges of their pixels, and slices are turned as radiologists see them."""

import re

import numpy as np
import pytest

from bids_app.evaluation.outlines import as_seen, frame_mask, to_grey, trace_outline


def points(path):
    return np.array(
        [[float(n) for n in pair.split()] for pair in re.split('[MLZ]+', path) if pair]
    )


def test_outline_of_a_rectangle_is_on_its_edges():
    mask = np.zeros((12, 20), bool)
    mask[3:7, 5:15] = True
    found = points(trace_outline(mask, (2.0, 3.0), (100.0, 1000.0)))
    assert found.min(axis=0) == pytest.approx([100 + 5 * 2, 1000 + 3 * 3])
    assert found.max(axis=0) == pytest.approx([100 + 15 * 2, 1000 + 7 * 3])
    # Four cut corners are all that is kept of straight edges.
    assert len({tuple(point) for point in found}) == 8


def test_outline_at_the_border_is_closed_and_a_hole_has_its_own():
    mask = np.ones((6, 6), bool)
    mask[2:4, 2:4] = False
    path = trace_outline(mask, (1.0, 1.0))
    assert path.count('M') == path.count('Z') == 2
    assert points(path).min() == 0
    assert points(path).max() == 6
    assert trace_outline(np.zeros((4, 4), bool), (1.0, 1.0)) == ''


def test_slices_are_turned_as_seen():
    data = np.zeros((4, 6))
    data[0, 5] = 1  # the patient's right, in front
    seen = as_seen(data)
    assert seen.shape == (6, 4)
    assert np.argwhere(seen).tolist() == [[0, 3]]


def test_frame_leaves_a_margin_in_mm_and_stops_at_the_border():
    mask = np.zeros((200, 100), bool)
    mask[100:103, 5] = True
    first, second = frame_mask(mask, (2.0, 4.0))
    assert (first.start, first.stop) == (90, 113)
    assert (second.start, second.stop) == (0, 11)


def test_grey_runs_from_black_to_white_of_the_whole_image():
    whole = np.arange(1001.0)
    grey = to_grey(np.array([0.0, 500.0, 2000.0]), whole)
    assert grey.dtype == np.uint8
    assert (grey[0], grey[2]) == (0, 255)
    assert grey[1] == pytest.approx(255 * 500 / 995.5, abs=1)
