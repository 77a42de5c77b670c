"""Image grids in any orientation, and NIfTI files whose bytes depend on their content alone."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip

from bids_app.demo.phantom import NAMES, Phantom
from bids_app.demo.warp import apply, rigid

CODE_SCANNER = 1
COMPRESSION = 2
# Anatomy finer than this is averaged into a voxel, as a scanner does.
SUBSAMPLE_MM = 1.8
POINTS_AT_ONCE = 400_000

_DIRECTIONS = {
    'R': (1, 0, 0), 'L': (-1, 0, 0), 'A': (0, 1, 0), 'P': (0, -1, 0), 'S': (0, 0, 1),
    'I': (0, 0, -1),
}  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """
    A voxel grid in scanner space.

    Parameters
    ----------
    shape : tuple of int
        Voxels along each array axis.
    zooms_mm : tuple of float
        Voxel size along each array axis.
    orientation : str
        Where each array axis points, as in ``RAS`` or ``PSR``, before the tilt.
    centre_mm : tuple of float
        Scanner coordinates of the middle of the grid.
    tilt_deg : tuple of float
        Rotations about the scanner's x, y and z axes; zero for a straight grid.
    """

    shape: tuple[int, int, int]
    zooms_mm: tuple[float, float, float]
    orientation: str
    centre_mm: tuple[float, float, float]
    tilt_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def affine(self) -> np.ndarray:
        """Voxel to scanner coordinates, shape (4, 4), in mm."""
        axes = np.array([_DIRECTIONS[letter] for letter in self.orientation], dtype=float).T
        linear = rigid(np.array(self.tilt_deg), np.zeros(3))[:3, :3] @ axes * self.zooms_mm
        matrix = np.eye(4)
        matrix[:3, :3] = linear
        matrix[:3, 3] = self.centre_mm - linear @ ((np.array(self.shape) - 1) / 2)
        return matrix

    def points_mm(self, offset: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
        """
        List the scanner coordinates of all voxels.

        Parameters
        ----------
        offset : tuple of float
            Shift in voxels from the voxels' centres.

        Returns
        -------
        ndarray of float32, shape (n_voxels, 3)
            In C order of the array axes.
        """
        axes = [
            np.arange(size, dtype=np.float32) + np.float32(shift)
            for size, shift in zip(self.shape, offset, strict=True)
        ]
        index = np.stack(np.meshgrid(*axes, indexing='ij'), axis=-1).reshape(-1, 3)
        return apply(self.affine, index)

    def offsets(self, finest_mm: float = SUBSAMPLE_MM) -> list[tuple[float, float, float]]:
        """
        Spread sample points evenly over a voxel.

        Parameters
        ----------
        finest_mm : float
            Largest distance between two points along an axis, roughly.

        Returns
        -------
        list of tuple of float
            Shifts in voxels.
        """
        steps = [max(1, round(zoom / finest_mm)) for zoom in self.zooms_mm]
        shifts = [(np.arange(count) + 0.5) / count - 0.5 for count in steps]
        mesh = np.stack(np.meshgrid(*shifts, indexing='ij'), axis=-1).reshape(-1, 3)
        return [(float(x), float(y), float(z)) for x, y, z in mesh]


def _chunks(points_mm: np.ndarray) -> Iterator[slice]:
    for start in range(0, points_mm.shape[0], POINTS_AT_ONCE):
        yield slice(start, start + POINTS_AT_ONCE)


def voxel_fractions(
    phantom: Phantom, grid: Grid, finest_mm: float = SUBSAMPLE_MM
) -> tuple[np.ndarray, np.ndarray]:
    """
    Average a phantom's tissues and brain over the voxels of a grid.

    Parameters
    ----------
    phantom : Phantom
        Subject in the pose of this acquisition.
    grid : Grid
        Where to sample.
    finest_mm : float
        Distance of the sample points within a voxel.

    Returns
    -------
    fractions : ndarray of float32, shape (n_voxels, n_tissues)
        In the order of `bids_app.demo.phantom.NAMES`.
    brain : ndarray of float32, shape (n_voxels,)
        Fraction inside the brain mask.
    """
    fractions = np.zeros((int(np.prod(grid.shape)), len(NAMES)), dtype=np.float32)
    brain = np.zeros(fractions.shape[0], dtype=np.float32)
    offsets = grid.offsets(finest_mm)
    for offset in offsets:
        points = grid.points_mm(offset)
        for part in _chunks(points):
            made_of, inside = phantom.sample(points[part])
            fractions[part] += made_of
            brain[part] += inside
    return fractions / len(offsets), brain / len(offsets)


def save_image(
    path: Path, values: np.ndarray, affine: np.ndarray, frame_s: float | None = None
) -> None:
    """
    Write a compressed NIfTI file with the same bytes on every run.

    Parameters
    ----------
    path : Path
        Ends in ``.nii.gz``; its folder is made.
    values : ndarray
        3D or 4D, of the type to store.
    affine : ndarray, shape (4, 4)
        Voxel to scanner coordinates, in mm.
    frame_s : float, optional
        Time between frames of a 4D image.
    """
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units('mm', 'sec')
    image.set_sform(affine, CODE_SCANNER)
    image.set_qform(affine, CODE_SCANNER)
    if frame_s is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], frame_s))
    path.parent.mkdir(parents=True, exist_ok=True)
    # A time stamp in the gzip header would change the bytes from run to run.
    path.write_bytes(igzip.compress(image.to_bytes(), COMPRESSION, mtime=0))


def save_json(path: Path, content: Mapping[str, object]) -> None:
    """
    Write a JSON file.

    Parameters
    ----------
    path : Path
        Its folder is made.
    content : mapping
        What to write, in this order.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')


def save_table(path: Path, columns: Mapping[str, list[str]]) -> None:
    """
    Write a tab-separated table.

    Parameters
    ----------
    path : Path
        Its folder is made.
    columns : mapping of str to list of str
        Column name to cells.
    """
    rows = [
        '\t'.join(columns),
        *('\t'.join(cells) for cells in zip(*columns.values(), strict=True)),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(rows) + '\n', encoding='utf-8')
