"""Tumour segmentation on multi-modal MRI."""

from ...prep.modalities import MR
from ..analysis import Analysis

_PACKAGE = 'bids_app.analyses.tumor'

ANALYSIS = Analysis(
    name='tumor',
    summary='edema, enhancing and other tumor core from T1w, T1Gd, T2w, FLAIR (any of them)',
    queries={name: modality.query for name, modality in MR.items()},
    required=(),
    any_of=tuple(MR),
    # On T1w without contrast agent alone the embedded weights see tumours in healthy heads.
    unasked=('t1gd', 'flair', 't2w'),
    build=f'{_PACKAGE}.workflow:init_tumor_wf',
    train=f'{_PACKAGE}.train:main',
    evaluate=f'{_PACKAGE}.evaluate:main',
    root_tables=f'{_PACKAGE}.tables:label_tables',
)
