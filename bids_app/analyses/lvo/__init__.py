"""Large-vessel occlusion on non-contrast CT of the head."""

from ...prep.modalities import CT, CT_QUERY
from ..analysis import Analysis

_PACKAGE = 'bids_app.analyses.lvo'

ANALYSIS = Analysis(
    name='lvo',
    summary='occlusion of ICA terminus, M1 or M2 on head CT without contrast agent, and its side',
    queries={CT_QUERY: CT.query},
    required=(CT_QUERY,),
    any_of=(),
    unasked=(),
    build=f'{_PACKAGE}.workflow:init_lvo_wf',
    train=f'{_PACKAGE}.train:main',
    evaluate=f'{_PACKAGE}.evaluate:main',
    root_tables=f'{_PACKAGE}.tables:label_tables',
)
