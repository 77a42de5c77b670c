"""The subjects of the demo: their tumours, and how each was scanned."""

from dataclasses import dataclass

from bids_app.demo.dce import DceProtocol, Episode
from bids_app.demo.phantom import Lesion


@dataclass(frozen=True)
class Framing:
    """
    Matrix of an acquisition, centred on a point of the brain.

    Parameters
    ----------
    shape : tuple of int
        Voxels along each array axis.
    zooms_mm : tuple of float
        Voxel size along each array axis.
    orientation : str
        Where each array axis points.
    tilt_deg : tuple of float
        Rotation of the grid about the scanner's axes.
    aim_mm : tuple of float
        MNI coordinates of the middle of the grid.
    """

    shape: tuple[int, int, int]
    zooms_mm: tuple[float, float, float]
    orientation: str
    tilt_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    aim_mm: tuple[float, float, float] = (0.0, -18.0, 12.0)


@dataclass(frozen=True)
class Visit:
    """One session; the label is ``None`` where the subject has only one."""

    session: str | None
    lesion: Lesion


@dataclass(frozen=True)
class Subject:
    """
    One subject of the demo.

    Parameters
    ----------
    label : str
        Without ``sub-``.
    age, sex : int, str
        For ``participants.tsv``.
    visits : tuple of Visit
        Sessions in order.
    t1w, dce : Framing
        Grids.
    protocol : DceProtocol
        Dynamic series.
    t1_source : str or None
        ``map``: a T1 map on the grid of the T1w; ``vfa``: variable flip angles on the grid of
        the dynamic series; None: nothing, so the app takes its default.
    sequences : tuple of (str, Framing)
        Ends of the file names of the other anatomical images, and their grids.
    """

    label: str
    age: int
    sex: str
    visits: tuple[Visit, ...]
    t1w: Framing
    dce: Framing
    protocol: DceProtocol
    t1_source: str | None
    sequences: tuple[tuple[str, Framing], ...] = ()


HEAD_AIM_MM = (0.0, -10.0, -1.0)

SUBJECTS = (
    Subject(
        label='01',
        age=58,
        sex='F',
        visits=(Visit(None, Lesion((29.0, 26.0, 24.0), 16.0)),),
        t1w=Framing((96, 120, 104), (2.0, 2.0, 2.0), 'RAS', aim_mm=HEAD_AIM_MM),
        dce=Framing((80, 96, 26), (2.5, 2.5, 5.0), 'RAS'),
        protocol=DceProtocol(
            n_frames=48,
            interval_s=5.0,
            arrival_s=32.0,
            tr_s=0.005,
            flip_angle_deg=15.0,
            timing='FrameTimesStart',
            motion=(
                Episode(17, 3, (1.5, 0.0, 0.5), (0.3, 0.4, 1.0)),
                Episode(34, 2, (0.0, 0.6, -1.8), (-0.8, 0.5, 0.0)),
            ),
        ),
        t1_source='map',
        sequences=(
            (
                'ce-gadolinium_T1w',
                Framing((96, 120, 104), (2.0, 2.0, 2.0), 'RAS', (3.0, 0.0, 2.0), HEAD_AIM_MM),
            ),
            (
                'FLAIR',
                Framing((112, 128, 46), (1.8, 1.8, 4.0), 'RAS', (-6.0, 1.0, 0.0), HEAD_AIM_MM),
            ),
            (
                'T2w',
                Framing((112, 128, 60), (1.8, 1.8, 3.0), 'LPS', (-4.0, 0.0, 0.0), HEAD_AIM_MM),
            ),
        ),
    ),
    Subject(
        label='02',
        age=44,
        sex='M',
        visits=(
            Visit('01', Lesion((-30.0, -44.0, 34.0), 16.5)),
            Visit('02', Lesion((-30.0, -44.0, 34.0), 11.5, edema_mm=7.0)),
        ),
        t1w=Framing((96, 120, 104), (2.0, 2.0, 2.0), 'LAS', aim_mm=HEAD_AIM_MM),
        dce=Framing((76, 90, 24), (2.6, 2.6, 5.0), 'LAS'),
        protocol=DceProtocol(
            n_frames=60,
            interval_s=3.6,
            arrival_s=41.0,
            tr_s=0.0042,
            flip_angle_deg=20.0,
            timing='TemporalResolution',
            motion=(Episode(28, 3, (-1.2, 0.8, 0.4), (0.5, -0.6, -1.2)),),
        ),
        t1_source='vfa',
        sequences=(
            (
                'ce-gadolinium_T1w',
                Framing((96, 120, 104), (2.0, 2.0, 2.0), 'LAS', aim_mm=HEAD_AIM_MM),
            ),
            (
                'FLAIR',
                Framing((112, 128, 46), (1.8, 1.8, 4.0), 'LAS', (5.0, 0.0, 0.0), HEAD_AIM_MM),
            ),
        ),
    ),
    Subject(
        label='03',
        age=67,
        sex='F',
        visits=(Visit(None, Lesion((45.0, -24.0, -12.0), 13.5, edema_mm=9.0)),),
        t1w=Framing((120, 104, 96), (2.0, 2.0, 2.0), 'PSR', (0.0, 4.0, 2.0), HEAD_AIM_MM),
        dce=Framing((80, 92, 30), (2.5, 2.5, 4.0), 'LPS', (-13.0, 3.0, 5.0), (0.0, -16.0, 6.0)),
        protocol=DceProtocol(
            n_frames=40,
            interval_s=7.5,
            arrival_s=25.0,
            tr_s=0.006,
            flip_angle_deg=12.0,
            timing='RepetitionTime',
            motion=(
                Episode(12, 2, (1.0, -1.0, 1.0), (1.0, 0.0, 0.8)),
                Episode(25, 2, (-1.6, 0.0, 0.0), (0.0, -1.2, -0.6)),
            ),
        ),
        t1_source=None,
    ),
)
