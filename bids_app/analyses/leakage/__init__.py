"""Blood-brain barrier leakage from DCE-MRI."""

from ...prep.modalities import MR
from ..analysis import Analysis

_PACKAGE = 'bids_app.analyses.leakage'

ANALYSIS = Analysis(
    name='leakage',
    summary='blood-brain barrier leakage from DCE-MRI: RLS, RVS, Ktrans, vp, ve',
    queries={
        'dce': (
            {'datatype': 'perf', 'suffix': ['dce', 'DCE']},
            {'datatype': 'dce', 'suffix': ['dce', 'DCE']},
        ),
        'vfa': ({'datatype': 'anat', 'suffix': 'VFA'},),
        't1map': ({'datatype': 'anat', 'suffix': 'T1map'},),
        't1w': MR['t1w'].query,
    },
    required=('dce',),
    any_of=(),
    unasked=(),
    build=f'{_PACKAGE}.workflow:init_leakage_wf',
    train=f'{_PACKAGE}.train:main',
    evaluate=f'{_PACKAGE}.evaluate:main',
)
