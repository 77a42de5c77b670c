"""Anything that healthy brains do not show, on T1w, FLAIR and T2w images."""

from ...prep.modalities import MR
from ...room_config import ANOMALY_MODALITIES
from ..analysis import Analysis

_PACKAGE = 'bids_app.analyses.anomaly'

ANALYSIS = Analysis(
    name='anomaly',
    summary='whatever healthy brains do not show, by 3D autoencoders, on T1w, FLAIR, T2w',
    queries={name: MR[name].query for name in ANOMALY_MODALITIES},
    required=(),
    any_of=ANOMALY_MODALITIES,
    unasked=(),
    build=f'{_PACKAGE}.workflow:init_anomaly_wf',
    train=f'{_PACKAGE}.train:main',
    evaluate=f'{_PACKAGE}.evaluate:main',
)
