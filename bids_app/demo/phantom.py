"""A head with a brain tumour, built from the ICBM tissue maps and placed in any scanner space."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from scipy import ndimage

from bids_app.compute.head import cord, hull_distance, outside_brain
from bids_app.config import TEMPLATES_DIR
from bids_app.demo.vessels import ARTERIES, VEINS, centreline, rasterise, sagittal_sinus
from bids_app.demo.warp import Warp, lookup
from bids_app.errors import MissingInputError

TEMPLATE = 'tpl-MNI152NLin2009aSym'
BYTE_MAX = 255.0
# Averages of 152 heads are blurred: this power brings back the sharp edges of one head.
SHARPNESS = 2.2
HEMATOCRIT = 0.42


class Tissue(NamedTuple):
    """Properties of one tissue at 3 T."""

    t1_s: float
    proton_density: float
    ktrans: float = 0.0  # 1/min
    vp: float = 0.0
    ve: float = 0.0
    delay_s: float = 0.0
    t2_s: float = 0.03
    agent_mm: float = 0.0  # contrast agent minutes after the injection, mM


# T1, T2: Stanisz 2005, Wansapura 1999 and, for tumours, Hattingen 2017, rounded; blood that flows
# is dark on spin echoes, which the T2 of arteries and veins stands for.
TISSUES: Mapping[str, Tissue] = {
    'gm': Tissue(1.35, 0.84, vp=0.028, delay_s=1.0, t2_s=0.1, agent_mm=0.02),
    'wm': Tissue(0.85, 0.71, vp=0.013, delay_s=1.5, t2_s=0.07, agent_mm=0.01),
    'csf': Tissue(4.0, 1.0, t2_s=0.8),
    'artery': Tissue(1.65, 0.85, vp=1 - HEMATOCRIT, agent_mm=0.5),
    'vein': Tissue(1.6, 0.85, vp=1 - HEMATOCRIT, delay_s=6.5, agent_mm=0.5),
    'ring': Tissue(1.5, 0.88, 0.12, vp=0.025, ve=0.4, delay_s=1.0, t2_s=0.12, agent_mm=0.45),
    'core': Tissue(2.3, 0.95, vp=0.004, delay_s=2.0, t2_s=0.4, agent_mm=0.03),
    'edema': Tissue(1.65, 0.88, vp=0.012, delay_s=1.5, t2_s=0.18, agent_mm=0.01),
    'bone': Tissue(0.7, 0.06, vp=0.002, delay_s=2.0, t2_s=0.01),
    'marrow': Tissue(0.5, 0.5, vp=0.01, delay_s=2.0, t2_s=0.05),
    'fat': Tissue(0.38, 0.5, vp=0.005, delay_s=2.0, t2_s=0.07),
    'muscle': Tissue(1.3, 0.75, ktrans=0.05, vp=0.02, ve=0.12, delay_s=2.0, agent_mm=0.08),
    'skin': Tissue(0.95, 0.55, ktrans=0.06, vp=0.03, ve=0.25, delay_s=2.0, agent_mm=0.12),
}
NAMES = tuple(TISSUES)
EXTRACRANIAL = ('bone', 'marrow', 'fat', 'muscle', 'skin')


@dataclass(frozen=True)
class Lesion:
    """
    A ring-enhancing tumour with a necrotic core and oedema.

    Parameters
    ----------
    centre_mm : tuple of float
        MNI coordinates; x > 0 is the subject's right.
    radius_mm : float
        Mean outer radius of the ring.
    core_fraction : float
        Radius of the core relative to the ring's.
    edema_mm : float
        Mean width of the oedema around the ring.
    """

    centre_mm: tuple[float, float, float]
    radius_mm: float
    core_fraction: float = 0.55
    edema_mm: float = 11.0

    @property
    def side(self) -> str:
        """The subject's own side: ``left`` or ``right``."""
        return 'right' if self.centre_mm[0] > 0 else 'left'


class Anatomy:
    """
    The template's maps that every subject shares, read once.

    Parameters
    ----------
    templates_dir : Path
        Folder that holds ``tpl-MNI152NLin2009aSym``.
    """

    def __init__(self, templates_dir: Path = TEMPLATES_DIR) -> None:
        self._folder = templates_dir / TEMPLATE
        self.mask, self.affine = self._read('res-1_desc-brain_mask')
        self.gm, _ = self._read('res-1_label-GM_probseg')
        self.wm, _ = self._read('res-1_label-WM_probseg')
        coarse, coarse_affine = self._read('res-2_desc-brain_mask')
        self.hull_mm, self.hull_affine = hull_distance(coarse > 0, coarse_affine)

    def _read(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        path = self._folder / f'{TEMPLATE}_{name}.nii.gz'
        if not path.is_file():
            message = f'{path} is missing: reinstall neurolesion, which ships this template.'
            raise MissingInputError(message)
        image = nib.load(path)
        return image.dataobj.get_unscaled().astype(np.uint8), image.affine

    @cached_property
    def vessels(self) -> tuple[np.ndarray, np.ndarray]:
        """Fractions of artery and of vein in bytes, on the grid of `mask`."""
        sinus = sagittal_sinus(self.hull_mm < 0, self.hull_affine)
        curves = ([centreline(tube) for tube in ARTERIES],
                  [sinus, *(centreline(tube) for tube in VEINS)])  # fmt: skip
        arteries, veins = (rasterise(group, self.mask.shape, self.affine) for group in curves)
        return (arteries * BYTE_MAX).astype(np.uint8), (veins * BYTE_MAX).astype(np.uint8)


@dataclass(frozen=True)
class Phantom:
    """
    One subject: shared anatomy, own shape, own lesion.

    Parameters
    ----------
    anatomy : Anatomy
        Template maps.
    warp : Warp
        Scanner to MNI coordinates.
    lesion : Lesion or None
        Tumour, in MNI space.
    texture_seed : int
        Seeds what is irregular: the lesion's outline and inner variation, fat between muscles.
    """

    anatomy: Anatomy
    warp: Warp
    lesion: Lesion | None
    texture_seed: int
    _textures: list[np.ndarray] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.texture_seed, 77])
        shape = tuple(n // 2 for n in self.anatomy.hull_mm.shape)
        fields = []
        for scale_mm in (18.0, 7.0, 9.0):
            noise = ndimage.gaussian_filter(rng.standard_normal(shape), scale_mm / 2 / 4.0)
            fields.append((noise / noise.std()).astype(np.float32))
        object.__setattr__(self, '_textures', fields)

    def _texture(self, number: int, points_mm: np.ndarray) -> np.ndarray:
        affine = self.anatomy.hull_affine @ np.diag([2.0, 2.0, 2.0, 1.0])
        return lookup(self._textures[number], affine, points_mm, mode='nearest')

    @property
    def skull_thickness(self) -> float:
        """Factor on the thickness of skull and scalp."""
        return float(np.random.default_rng([self.texture_seed, 78]).uniform(0.9, 1.15))

    def sample(self, points_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Say what each point of the scanner's space is made of.

        Parameters
        ----------
        points_mm : ndarray of float32, shape (n, 3)
            Scanner coordinates.

        Returns
        -------
        fractions : ndarray of float32, shape (n, n_tissues)
            In the order of `NAMES`; they sum to one, less what is air.
        brain : ndarray of float32, shape (n,)
            One inside the brain, ventricles included.
        """
        template_mm = self.warp(points_mm)
        hull = lookup(self.anatomy.hull_mm, self.anatomy.hull_affine, template_mm, mode='nearest')
        out = np.zeros((points_mm.shape[0], len(NAMES)), dtype=np.float32)
        near = hull < 4.0
        brain = np.zeros_like(hull)
        brain[near] = self._brain(template_mm[near], out, near)
        outer = np.flatnonzero((brain < 1.0) & (hull > -2.0))
        around = outside_brain(
            template_mm[outer], hull[outer], self._texture(0, template_mm[outer]),
            self.skull_thickness,
        )  # fmt: skip
        tissue, canal = cord(template_mm[outer])
        rest = (1 - brain[outer]) * (1 - tissue - canal)
        for name, amount in around.items():
            out[outer, NAMES.index(name)] += rest * amount
        spine = 1 - brain[outer]
        out[outer, NAMES.index('wm')] += spine * tissue
        out[outer, NAMES.index('csf')] += spine * canal
        # Within the hull, what is not brain is fluid: sulci and fissures.
        inner = np.flatnonzero((brain < 1.0) & (hull <= -2.0))
        out[inner, NAMES.index('csf')] += 1 - brain[inner]
        self._add_vessels(template_mm, out)
        return out, brain

    def _brain(self, template_mm: np.ndarray, out: np.ndarray, where: np.ndarray) -> np.ndarray:
        maps = self.anatomy
        brain = lookup(maps.mask, maps.affine, template_mm)
        grey = lookup(maps.gm, maps.affine, template_mm) / BYTE_MAX
        white = lookup(maps.wm, maps.affine, template_mm) / BYTE_MAX
        parts = np.stack([grey, white, np.clip(1 - grey - white, 0, 1)], axis=1) ** SHARPNESS
        parts *= (brain / np.maximum(parts.sum(axis=1), 1e-6))[:, None]
        block = np.zeros((template_mm.shape[0], len(NAMES)), dtype=np.float32)
        block[:, : parts.shape[1]] = parts
        if self.lesion is not None:
            self._grow(self.lesion, template_mm, brain, block)
        out[where] = block
        return brain

    def _grow(
        self, lesion: Lesion, template_mm: np.ndarray, brain: np.ndarray, block: np.ndarray
    ) -> None:
        offset = template_mm - np.asarray(lesion.centre_mm, dtype=np.float32)
        distance = np.sqrt(np.einsum('ij,ij->i', offset, offset))
        reach = 1.7 * lesion.radius_mm + 2.5 * lesion.edema_mm
        near = np.flatnonzero(distance < reach)
        points, distance, inside = template_mm[near], distance[near], brain[near]
        radius = lesion.radius_mm * (1 + 0.12 * self._texture(0, points))
        outer = np.clip(0.5 + (radius - distance) / 1.5, 0, 1) * inside
        ragged = lesion.core_fraction * (1 + 0.12 * self._texture(1, points))
        core = np.clip(0.5 + (radius * ragged - distance) / 1.5, 0, 1) * outer
        part = block[near] * (1 - outer)[:, None]
        width = lesion.edema_mm * np.clip(1 + 0.45 * self._texture(2, points), 0.2, 2.2)
        swollen = np.clip((radius + width - distance) / 4.0, 0, 1)
        # Vasogenic oedema follows white matter and spares the cortex.
        for name, share in (('wm', 0.9), ('gm', 0.25)):
            taken = part[:, NAMES.index(name)] * swollen * share
            part[:, NAMES.index(name)] -= taken
            part[:, NAMES.index('edema')] += taken
        part[:, NAMES.index('ring')] = outer - core
        part[:, NAMES.index('core')] = core
        block[near] = part

    def _add_vessels(self, template_mm: np.ndarray, out: np.ndarray) -> None:
        for name, volume in zip(('vein', 'artery'), self.anatomy.vessels[::-1], strict=True):
            amount = lookup(volume, self.anatomy.affine, template_mm) / BYTE_MAX
            hit = np.flatnonzero(amount > 0)
            out[hit] *= 1 - amount[hit, None]
            out[hit, NAMES.index(name)] += amount[hit]

    def leak_variation(self, points_mm: np.ndarray) -> np.ndarray:
        """
        Give the factor by which leakage varies within the ring.

        Parameters
        ----------
        points_mm : ndarray of float32, shape (n, 3)
            Scanner coordinates.

        Returns
        -------
        ndarray of float32, shape (n,)
            Around one, 0.45 to 1.65.
        """
        return np.clip(1 + 0.3 * self._texture(1, self.warp(points_mm)), 0.45, 1.65)
