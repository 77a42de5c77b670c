"""The rooms. A new one is a folder, a YAML in ``derivatives_spec/`` and one line here."""

from .analysis import Analysis
from .anomaly import ANALYSIS as ANOMALY
from .leakage import ANALYSIS as LEAKAGE
from .lgg import ANALYSIS as LGG
from .lvo import ANALYSIS as LVO
from .tumor import ANALYSIS as TUMOR

ANALYSES: dict[str, Analysis] = {room.name: room for room in (ANOMALY, LEAKAGE, LGG, LVO, TUMOR)}
