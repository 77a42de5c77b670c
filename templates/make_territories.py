"""
Write ``arterial_territories``: which artery feeds which part of the brain, as probabilities.

Run ``python templates/make_territories.py`` to rebuild the folder beside this script. Atlases of
arterial territories exist, but none that may be shipped. This one is derived: every voxel of the
symmetric template is as far from an artery as the cheapest way through brain to the artery's
course, or to one of the places that the literature (Tatu et al. 2012) says it feeds; the nearer an
artery, the likelier it feeds the voxel. Nothing was fitted to another atlas. Borders differ by
some two centimetres between people (van der Zwan et al. 1993), and so far the probabilities fade.
"""

import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
from make_template import BYTE_MAX, to_nifti
from scipy import ndimage
from skimage.graph import MCP_Geometric

from bids_app.analyses.lvo.model.synthesis.landmarks import ARTERIES, TERRITORY_SEEDS

TEMPLATE = 'tpl-MNI152NLin2009aSym'
NAME = 'arterial_territories'
MAPS = ('MCA-ICA', 'ACA', 'PCA', 'vertebrobasilar')

COURSES = {
    'MCA-ICA': ('C7', 'M1', 'M2-superior', 'M2-inferior', 'M2-middle', 'M3-superior',
                'M3-inferior', 'M3-middle'),
    'ACA': ('A1', 'A2'),
    'PCA': ('P1', 'P2'),
    'vertebrobasilar': ('basilar', 'vertebral'),
}  # fmt: skip
FED = {
    'MCA-ICA': ('M1', 'M2-superior', 'M2-inferior'),
    'ACA': ('anterior',),
    'PCA': ('posterior',),
    'vertebrobasilar': ('posterior',),
}

# A way through fluid costs so many times the same way through tissue: borders of territories lie
# in fissures, where two lobes touch without sharing an artery.
FLUID_COST = 3.0

# Distance in mm over which the odds of two arteries change by e. Where one comes nearer by 1 mm
# the other goes away by 1, so that chances go from 10 to 90 % over 2.2 times as much: 2 cm.
FADING_MM = 9.0

SMOOTHING_MM = 3.0

# Of the places that `landmarks` gives to the posterior circulation, those of brain stem and
# cerebellum.
TENTORIUM_Z_MM = -24.0
CLIVUS_Y_MM = -20.0
MIDDLE_X_MM = 2.0

LICENCE = """\
Derived from MNI152NLin2009aSym, whose licence stands in ../tpl-MNI152NLin2009aSym/LICENSE and is
kept here: permission to use, copy, modify, and distribute for any purpose and without fee, with
the copyright notice of Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological
Institute, McGill University (1993-2004). The derivation (templates/make_territories.py) and its
landmarks are under Apache-2.0. No map of another atlas went into these files.
"""


def below_tentorium(place: tuple[float, float, float]) -> bool:
    """Tell places of brain stem and cerebellum, in MNI mm, from those of the cerebrum."""
    x, y, z = place
    return abs(x) < MIDDLE_X_MM or (z <= TENTORIUM_Z_MM and y < CLIVUS_Y_MM)


def seeds_of(name: str) -> np.ndarray:
    """Give the places of an artery and of what it feeds on the right, in mm, shape (n, 3)."""
    places: list[tuple[float, float, float]] = []
    for course in COURSES[name]:
        points = np.array(ARTERIES[course].points_mm)
        steps = np.linspace(0, len(points) - 1, 12 * len(points))
        whole = np.stack([np.interp(steps, range(len(points)), axis) for axis in points.T], -1)
        places += [tuple(point) for point in whole.tolist()]
    for key in FED[name]:
        posterior = key == 'posterior'
        wanted = name == 'vertebrobasilar'
        places += [place for place in TERRITORY_SEEDS[key]
                   if not posterior or below_tentorium(place) == wanted]  # fmt: skip
    return np.array(places)


def distances(cost: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """
    Find the cheapest way from each voxel to each artery.

    Parameters
    ----------
    cost : ndarray of float, shape (x, y, z)
        Of a voxel; infinite outside the right half of the brain.
    affine : ndarray, shape (4, 4)
        Voxel to MNI, in mm.

    Returns
    -------
    ndarray of float, shape (4, x, y, z)
        In mm of tissue, in the order of `MAPS`; infinite outside.
    """
    inverse = np.linalg.inv(affine)
    known = np.argwhere(np.isfinite(cost))
    found = []
    for name in MAPS:
        index = seeds_of(name) @ inverse[:3, :3].T + inverse[:3, 3]
        # Some courses lie in cisterns that the brain mask leaves out: the nearest voxel stands in.
        nearest = [known[np.argmin(((known - place) ** 2).sum(1))] for place in index]
        away, _ = MCP_Geometric(cost, sampling=[affine[0, 0]] * 3).find_costs(nearest)
        found.append(away)
    return np.stack(found)


def derive(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """
    Derive the probabilities.

    Parameters
    ----------
    folder : Path
        The template's, with maps at 2 mm.

    Returns
    -------
    maps : ndarray of float, shape (x, y, z, 4)
        Probabilities in the order of `MAPS`; 0 outside the brain, where they add up to 1.
    affine : ndarray, shape (4, 4)
        Voxel to MNI, in mm.
    """
    start = f'{folder}/{TEMPLATE}_res-2_'
    image = nib.load(f'{start}desc-brain_mask.nii.gz')
    brain = np.asanyarray(image.dataobj) > 0
    fluid = nib.load(f'{start}label-CSF_probseg.nii.gz').get_fdata()
    middle = round(-image.affine[0, 3] / image.affine[0, 0])
    right = brain.copy()
    right[:middle] = False
    cost = np.where(right, 1.0 + (FLUID_COST - 1.0) * fluid, np.inf)
    away = distances(cost, image.affine)
    reached = np.isfinite(away).all(axis=0)
    nearness = np.where(reached, -away / FADING_MM, 0.0)
    chance = np.exp(nearness - nearness.max(axis=0)) * reached
    # Across the midline lies the mirror image, which smoothing must see.
    chance[:, : middle + 1] = chance[:, middle:][:, ::-1][:, -(middle + 1) :]
    sigma = SMOOTHING_MM / image.affine[0, 0]
    smooth = np.stack([ndimage.gaussian_filter(one, sigma) for one in chance]) * brain
    total = smooth.sum(axis=0)
    maps = np.divide(smooth, total, out=np.zeros_like(smooth), where=total > 0)
    return np.moveaxis(maps, 0, -1), image.affine


def main(folder: Path) -> None:
    """
    Write the folder of the atlas.

    Parameters
    ----------
    folder : Path
        Made if absent; the template's folder lies beside it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    maps, affine = derive(folder.parent / TEMPLATE)
    packed = to_nifti(np.rint(maps * BYTE_MAX).astype(np.uint8), affine, 'probseg')
    name = f'{TEMPLATE}_res-2_atlas-{NAME.replace("_", "")}_probseg'
    (folder / f'{name}.nii.gz').write_bytes(gzip.compress(packed, 9, mtime=0))
    about = {'LabelMap': list(MAPS), 'Space': TEMPLATE.removeprefix('tpl-'), 'Units': '1'}
    (folder / f'{name}.json').write_text(json.dumps(about, indent=2) + '\n', encoding='utf-8')
    (folder / 'LICENSE').write_text(LICENCE, encoding='utf-8')


if __name__ == '__main__':
    main(Path(__file__).parent / NAME)
