"""Lower-grade glioma on MRI, outlined slice by slice."""

from ...prep.modalities import MR
from ..analysis import Analysis

_PACKAGE = 'bids_app.analyses.lgg'

ANALYSIS = Analysis(
    name='lgg',
    summary='lower-grade glioma on FLAIR, slice by slice, with T1w and T1Gd where they are',
    queries={name: MR[name].query for name in ('t1w', 't1gd', 'flair')},
    required=('flair',),
    any_of=(),
    unasked=(),
    build=f'{_PACKAGE}.workflow:init_lgg_wf',
    train=f'{_PACKAGE}.train:main',
    evaluate=f'{_PACKAGE}.evaluate:main',
)
