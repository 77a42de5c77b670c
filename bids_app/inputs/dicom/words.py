"""What people at scanners call their series."""

from __future__ import annotations

import re
from typing import Final

T1W: Final = 'T1w'
T1GD: Final = 'ce-T1w'
T2W: Final = 'T2w'
FLAIR: Final = 'FLAIR'
DCE: Final = 'DCE'
VFA: Final = 'VFA'
CT: Final = 'CT'
KINDS: Final = (T1W, T1GD, T2W, FLAIR, DCE, VFA, CT)
"""What a series can become."""

SCOUT: Final = re.compile(
    r'\b(loc|locs|locali[sz]ers?|scouts?|survey|plan|3 ?plane|3 ?pl|three plane|tri ?plane'
    r'|topogram|scanogram|scano|surview|aa ?head|aascout|smartbrain|calib\w*|asset|ref ?scan'
    r'|coil ?surv\w*)\b'
)
DERIVED: Final = re.compile(
    r'\b(adc|e ?adc|fa|col ?fa|trace\w*|mip|minip|mpr|reformat\w*|recon|subtract\w*|sub|mask'
    r'|cbf|cbv|r?cbv|mtt|ttp|tmax|ktrans|t1 ?map\w*|t2 ?map\w*|screen ?save|report|moco)\b'
)
OTHERS: Final = (
    ('diffusion', re.compile(r'\b(dwi|dti|diff\w*|hardi|noddi|ep2d ?diff\w*|tensor|b ?1000)\b')),
    ('perfusion', re.compile(r'\b(dsc|pwi|p?casl|pasl|asl|ep2d ?perf\w*)\b')),
    ('functional', re.compile(r'\b(f ?mri|bold|resting|rest ?state|rs ?fmri|task)\b')),
    ('susceptibility', re.compile(r'\b(swi|swan|ven ?bold|t2 ?star|t2s|hemo\w*|qsm)\b|t2 ?\*')),
    ('angiography', re.compile(r'\b(tof|mra|mrv|angio\w*|pca|phase ?contrast|venogr\w*)\b')),
    ('spectroscopy', re.compile(r'\b(mrs|spectro\w*|csi|svs)\b')),
    ('field map', re.compile(r'\b(field ?map\w*|gre ?field\w*|b0 ?map|b1 ?map\w*|shim\w*)\b')),
)  # fmt: skip
ANGIO_CT: Final = re.compile(r'\b(cta|angio\w*|ctp|perf\w*|cbf|cbv|venogr\w*|ctv)\b')

FLAIR_WORDS: Final = re.compile(r'flair|dark ?fl|\btirm\b')
T2_WORDS: Final = re.compile(r'\bt2w?\b|\bt2(?=[ _]?(tse|fse|space|cube|vista|w|blade|propeller))')
T1_WORDS: Final = re.compile(
    r'\bt1w?\b|\bt1(?=[ _]?(mpr|se|tse|fse|space|tfe|ffe|fl|vibe))|mp ?rage|\bbravo\b|\bfspgr\b'
    r'|\bspgr\b|\btfl\b|\btfe\b|\bvibe\b|\bflash\b'
)
MP2RAGE: Final = re.compile(r'mp2 ?rage')
DCE_WORDS: Final = re.compile(
    r'\b(dce\w*|dynami\w*|dyn\w*|twist|tricks|disco|grasp|permeab\w*|wash ?in)\b'
)
VFA_WORDS: Final = re.compile(r'\b(vfa|variable flip\w*|multi ?flip\w*|(fa|flip|alpha) ?\d+\w*)\b')
# A flip angle within a name, so that names without it can be compared.
FLIP_IN_NAME: Final = re.compile(r'\b(fa|flip|alpha|a) ?\d+(deg\w*)?\b|\b\d+ ?deg\w*\b')

CONTRAST: Final = re.compile(
    r'(\+|\bplus) ?(c|gd|gad|km|ce|contrast)\b|\b(gd|gad\w*|post\w*|ce|km|c\+|contrast|with c'
    r'|enhanced|dotarem|gado\w*)\b|\bt1 ?c\b|\bt1ce\b'
)
NO_CONTRAST: Final = re.compile(
    r'\b(pre\w*|native?|unenhanced|nonenh\w*|noncon\w*|nect|ncct)\b'
    r'|\b(non|no|without|w ?o|sans|ohne) ?(c|contrast|gd|gad\w*|km|ce|con|iv|enh\w*)\b|(^| )-c\b'
)

HEAD: Final = re.compile(
    r'\b(head|brain|skull|cranial|cranium|neuro\w*|cerebr\w*|sch(ae|ä)del|kopf|hirn|crane|encephal\w*'
    r'|cct|ncct|nect|stroke)\b'
)
BODY: Final = re.compile(
    r'\b(knee|spine|[clt] ?spine|lumbar|thora\w*|chest|lung\w*|abd\w*|pelvi\w*|hip|shoulder|ankle'
    r'|foot|hand|wrist|elbow|prostate|breast|liver|cardiac|heart|neck|kidney|leg|arm|femur'
    r'|whole ?body)\b'
)
BONE_KERNEL: Final = re.compile(
    r'^([hjbuq]r?\d?)?(5[5-9]|[6-9]\d)|bone|edge|detail|lung|sharp|^(yc|yd|ye|d|e)$|^fc(3\d|5\d|8\d)'
)


def plain(text: str) -> str:
    """
    Bring a name into a form that patterns can be written for.

    Examples
    --------
    >>> plain('t1_mprage_sag_p2_iso+C')
    't1 mprage sag p2 iso+c'
    >>> plain('AX T1 W/O'), plain('t2_dark-fluid'), plain('T1 -C')
    ('ax t1 w o', 't2 dark fluid', 't1 -c')
    """
    spaced = re.sub(r'[_./\\,;:()\[\]=]|(?<! )-|-(?!c\b)', ' ', text.casefold())
    return ' '.join(spaced.split())
