"""Interactive views of NiiVue as a page holds them: the program, its volumes and its settings."""

from __future__ import annotations

import base64
import gzip
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..config import TEMPLATES_DIR
from .embed import Embedded, coarsen, embed
from .figures import load
from .mosaics import CLEAR_SHARE, FULL_SHARE
from .scripts import Script, house_script, json_text
from .viewer import CMAPS

if TYPE_CHECKING:
    from pathlib import Path

    from .viewer import Gathered, Shown

FOLDER: Final = TEMPLATES_DIR / 'reports' / 'niivue'
"""What ``javascript/bring.py`` fetches; absent where it did not."""

FINEST_MM: Final = 1.5
"""Voxels are never embedded finer: the full resolution is one command away."""

COARSEST_MM: Final = 6.0
"""Coarser volumes show nothing of a lesion and are left out."""

COARSER: Final = 1.2
"""Factor by which voxels grow until everything fits."""

ABOUT_A_VOLUME: Final = 400
"""Bytes of a page that each volume needs beside its values."""


@dataclass(frozen=True)
class Packed:
    """Volumes of a page."""

    volumes: dict[str, Embedded]
    """By their keys; empty where they did not fit."""

    spacing_mm: float


@dataclass(frozen=True)
class NiivueView:
    """What the template puts into the page."""

    policy: str
    scripts: tuple[Script, ...]
    program: str
    """NiiVue, compressed, in base64."""

    settings: str
    """JSON for ``viewer.js``."""

    cmaps: tuple[tuple[str, str], ...]
    """Names of colour maps with what a reader reads."""

    volumes: dict[str, str]
    licences: str


@cache
def niivue_program() -> tuple[Script, str, str] | None:
    """
    Read NiiVue.

    Returns
    -------
    tuple of Script, str and str, or None
        The program, itself compressed and in base64, and its licences; None where it was not
        fetched.
    """
    try:
        text = (FOLDER / 'niivue.umd.js').read_text(encoding='utf-8')
        licences = (FOLDER / 'LICENSES.txt').read_text(encoding='utf-8')
    except FileNotFoundError:
        return None
    packed = gzip.compress(text.encode('utf-8'), 9, mtime=0)
    return Script(text), base64.b64encode(packed).decode('ascii'), licences


def pack(gathered: Gathered, budget: int) -> Packed:
    """
    Embed the volumes of a page as finely as they fit.

    Parameters
    ----------
    gathered : Gathered
        What the views show.
    budget : int
        Bytes for all volumes together.

    Returns
    -------
    Packed
        All volumes, or none where even coarse ones do not fit.
    """
    room = budget - ABOUT_A_VOLUME * len(gathered.volumes)
    spacing = FINEST_MM
    while spacing <= COARSEST_MM:
        volumes = _embed_all(gathered, spacing, room)
        if volumes is not None:
            return Packed(volumes, spacing)
        spacing *= COARSER
    return Packed({}, spacing)


def _embed_all(gathered: Gathered, spacing_mm: float, room: int) -> dict[str, Embedded] | None:
    volumes = {}
    for shown in gathered.volumes.values():
        labels = shown.role == 'labels'
        whole = load(shown.item)
        volume = coarsen(whole, spacing_mm, labels=labels)
        window = (shown.low, shown.high) if shown.role == 'image' else None
        found = embed(volume, labels=labels, window=window)
        room -= len(found.text)
        if room < 0:
            return None
        volumes[shown.key] = found._replace(coarse=volume.zooms != whole.zooms)
    return volumes


def niivue_view(gathered: Gathered, packed: Packed, output_dir: Path) -> NiivueView | None:
    """
    Put together what the page needs.

    Parameters
    ----------
    gathered : Gathered
        What the views show.
    packed : Packed
        Its volumes.
    output_dir : Path
        Root of the derivatives dataset, where the page is.

    Returns
    -------
    NiivueView or None
        None where NiiVue was not fetched.
    """
    found = niivue_program()
    if found is None:
        return None
    program, text, licences = found
    own, cmaps = house_script('viewer.js'), _cmaps(gathered)
    settings = {
        'colors': {name: _colors(name) for name in cmaps},
        'fade': [CLEAR_SHARE, FULL_SHARE],
        'volumes': {
            shown.key: _about(shown, packed.volumes.get(shown.key), output_dir)
            for shown in gathered.volumes.values()
        },
        'scenes': {
            anchor: [asdict(layer) for layer in layers]
            for anchor, layers in gathered.scenes.items()
        },
    }
    sources = ' '.join(script.source for script in (own, program))
    return NiivueView(
        f"img-src data: blob:; connect-src 'self'; script-src {sources}",
        (own,),
        text,
        json_text(settings),
        tuple((name, name.capitalize()) for name in cmaps),
        {key: volume.text for key, volume in packed.volumes.items()},
        licences,
    )


def _cmaps(gathered: Gathered) -> list[str]:
    """Colour maps to choose from, those of the spec among them."""
    wanted = [shown.cmap for shown in gathered.volumes.values() if shown.cmap]
    return list(dict.fromkeys([*CMAPS, *wanted]))


def _colors(name: str) -> str:
    """256 colours of a map of matplotlib in hexadecimal digits, six each."""
    from matplotlib import colormaps

    table = np.rint(colormaps[name](np.linspace(0.0, 1.0, 256))[:, :3] * 255).astype(np.uint8)
    return bytes(table).hex()


def _about(shown: Shown, volume: Embedded | None, output_dir: Path) -> dict[str, Any]:
    return {
        'role': shown.role,
        'title': shown.title,
        'unit': shown.unit,
        'low': shown.low,
        'high': shown.high,
        'cmap': shown.cmap,
        'labels': [list(label) for label in shown.labels],
        'href': shown.item.path.relative_to(output_dir).as_posix(),
        'clip': volume.clip if volume else None,
        'coarse': bool(volume and volume.coarse),
        'zooms': [round(zoom, 2) for zoom in volume.zooms] if volume else None,
    }
