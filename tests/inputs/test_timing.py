"""Timing of a DCE series: which field wins, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from bids_app.errors import BadDataError
from bids_app.inputs.timing import dce_timing

PATH = Path('sub-01_dce.nii.gz')


def timing(metadata, n_frames=10, pixdim4=0.0, unit='sec'):
    return dce_timing(metadata, PATH, n_frames, pixdim4, unit)


@pytest.mark.parametrize(
    ('metadata', 'source', 'step'),
    [
        ({'FrameTimesStart': list(np.arange(10) * 4.0 + 7)}, 'FrameTimesStart', 4.0),
        ({'VolumeTiming': list(np.arange(10) * 3.0)}, 'VolumeTiming', 3.0),
        ({'TemporalResolution': 5.5, 'RepetitionTime': 0.005}, 'TemporalResolution', 5.5),
        ({'RepetitionTime': 6.0}, 'RepetitionTime', 6.0),
        ({'RepetitionTime': 0.4, 'RepetitionTimeExcitation': 0.004}, 'RepetitionTime', 0.4),
    ],
)
def test_source_and_step(metadata, source, step):
    found = timing(metadata)
    assert found.source == source
    np.testing.assert_allclose(found.times_s, np.arange(10) * step, atol=1e-9)


def test_order_of_fields():
    found = timing({'TemporalResolution': 4.0, 'FrameTimesStart': list(np.arange(10) * 4.0)})
    assert found.source == 'FrameTimesStart'


def test_header_is_the_last_resort_with_its_unit():
    assert timing({}, pixdim4=4500.0, unit='msec').times_s[1] == pytest.approx(4.5)


def test_uneven_frames_stay_uneven():
    times = [0.0, 2, 4, 6, 8, 10, 20, 30, 40, 50]
    assert timing({'FrameTimesStart': times}).times_s == tuple(times)


@pytest.mark.parametrize(
    ('metadata', 'tr_s'),
    [
        ({'TemporalResolution': 5, 'RepetitionTimeExcitation': 0.0083}, 0.0083),
        ({'TemporalResolution': 5, 'RepetitionTime': 0.0083}, 0.0083),
        ({'TemporalResolution': 5, 'RepetitionTime': 5.0}, None),
    ],
)
def test_excitation_time(metadata, tr_s):
    assert timing(metadata).tr_s == tr_s


@pytest.mark.parametrize(
    ('metadata', 'header', 'words'),
    [
        ({}, (2.0, 'unknown'), None),
        ({}, (1.0, 'sec'), 'add FrameTimesStart'),
        ({}, (0.0, 'sec'), 'add FrameTimesStart'),
        ({'RepetitionTime': 0.005}, (0.0, 'sec'), 'add FrameTimesStart'),
        ({'TemporalResolution': 4000.0}, (0.0, 'sec'), 'looks like ms'),
        (
            {'TemporalResolution': 4, 'RepetitionTimeExcitation': 8.29},
            (0.0, 'sec'),
            'looks like ms',
        ),
        ({'RepetitionTime': 8.29}, (15.84, 'sec'), 'contradictory'),
        ({'TemporalResolution': 15.84, 'RepetitionTime': 8.29}, (0.0, 'sec'), 'contradictory'),
        ({'FrameTimesStart': [0, 4, 8]}, (0.0, 'sec'), 'lists 3'),
        ({'FrameTimesStart': [0, 4, 8, 12, 10, 20, 24, 28, 32, 36]}, (0.0, 'sec'), 'increase'),
        ({'FrameTimesStart': 'often'}, (0.0, 'sec'), 'list of numbers'),
        ({'TemporalResolution': 'five'}, (0.0, 'sec'), 'must be a number'),
        ({'TemporalResolution': -5}, (0.0, 'sec'), 'positive'),
        ({'TemporalResolution': 5, 'FlipAngle': 1500}, (0.0, 'sec'), 'FlipAngle'),
    ],
)
def test_refused(metadata, header, words):
    if words is None:
        assert timing(metadata, pixdim4=header[0], unit=header[1]).source == 'pixdim[4]'
        return
    with pytest.raises(BadDataError, match=words) as refused:
        timing(metadata, pixdim4=header[0], unit=header[1])
    assert str(PATH) in str(refused.value)
