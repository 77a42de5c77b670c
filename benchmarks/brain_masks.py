"""
Brain masks of real heads: method, volume, warnings, seconds, agreement, pictures.

Usage: ``OMP_NUM_THREADS=1 python benchmarks/brain_masks.py DATA_DIR OUT_DIR [--only WORD]
[--candidates]``. DATA_DIR is the folder of real data beside the repository. Writes ``masks.tsv``
and one picture for each ten images. Agreement is the Dice overlap with the mask of the same
subject's T1w image, brought over by a rigid registration where the grids differ, or with the mask
that the source gives. With ``--candidates``, FLAIR heads are masked again from inverted and from
equalised grey values, the ways tried to make them look like what the network was trained on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ants
import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np

from bids_app.prep.brainmask import BrainMask, mask_brain
from bids_app.prep.ctmask import mask_brain_ct
from bids_app.prep.maskqc import check_mask

COLUMNS = ('image', 'contrast', 'method', 'volume_cm3', 'dice', 'seconds', 'warnings')
PER_PICTURE = 10
DARK_SHARE = 0.12
TILES = ((2, 0.3), (2, 0.55), (2, 0.75), (0, 0.5), (0, 0.3), (1, 0.5))


@dataclass(frozen=True)
class Case:
    """One image, and what its mask is compared with."""

    image: Path
    contrast: str
    reference: Path | None = None
    """The same subject's T1w image, or a mask of the source."""
    same_grid: bool = True


def find_cases(data: Path) -> Iterator[Case]:
    """List the real heads."""
    yield from (Case(path, 'T1w') for path in sorted(data.glob('ixi/*/anat/*_T1w.nii.gz')))
    for number in range(1, 13):
        t1w = data / f'wml/Subj{number}_T1.nii.gz'
        yield Case(t1w, 'T1w')
        yield Case(data / f'wml/Subj{number}_FL.nii.gz', 'FLAIR', t1w, same_grid=False)
    yield Case(data / 'ct/ncct_head_256x256x108.nii.gz', 'CT')
    brain = data / 'stroke/stroke_T1.nii.gz'
    yield Case(brain, 'T1w')
    yield Case(data / 'stroke/stroke_T2.nii.gz', 'T2w', brain)
    yield Case(data / 'stroke/stroke_FLAIR.nii.gz', 'FLAIR', brain)
    yield Case(data / 'tumor/BraTS-GLI-00000-000/BraTS-GLI-00000-000-t2f.nii.gz', 'FLAIR')
    for folder in sorted((data / 'tumor/BraTS2013').glob('*/')):
        given = folder / 'brainmask.nii.gz'
        yield Case(folder / 'Flair_subtrMeanDivStd.nii.gz', 'FLAIR', given)
    for folder in sorted(data.glob('lgg/sub-*/anat'))[::3]:
        label = folder.parent.name
        t1w = folder / f'{label}_T1w.nii.gz'
        yield Case(t1w, 'T1w')
        yield Case(folder / f'{label}_ce-gadolinium_T1w.nii.gz', 'T1Gd', t1w)
        yield Case(folder / f'{label}_FLAIR.nii.gz', 'FLAIR', t1w)


def make_mask(case: Case, volume: np.ndarray, affine: np.ndarray) -> BrainMask:
    """Mask one image as the app does."""
    if case.contrast != 'CT':
        return mask_brain(volume, affine, case.image, case.contrast)
    mask = mask_brain_ct(volume, affine, case.image)
    return BrainMask(mask, 'Hounsfield units', check_mask(mask, affine, case.image))


def bring_over(mask: np.ndarray, moving: Path, fixed: Path) -> np.ndarray:
    """Bring a mask to another image's grid by rigid registration of the two images."""
    target, source = ants.image_read(str(fixed)), ants.image_read(str(moving))
    found = ants.registration(target, source, type_of_transform='Rigid', random_seed=1)
    moved = ants.apply_transforms(
        target, source.new_image_like(mask.astype(np.float32)), found['fwdtransforms']
    )
    return np.asarray(moved.numpy() > 0.5)


def overlap(case: Case, mask: np.ndarray, made: dict[Path, np.ndarray]) -> float:
    """Dice overlap with the case's reference; NaN without one."""
    if case.reference is None:
        return float('nan')
    if case.reference in made:
        truth = made[case.reference]
        if not case.same_grid:
            truth = bring_over(truth, case.reference, case.image)
    else:
        truth = np.asanyarray(nib.load(case.reference).dataobj) > 0.5
    return float(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))


def draw(axes: np.ndarray, title: str, image: nib.Nifti1Image, mask: np.ndarray) -> None:
    """Contours of a mask over slices of its image, in three planes."""
    plain = nib.as_closest_canonical(image)
    over = nib.as_closest_canonical(nib.Nifti1Image(mask.astype(np.uint8), image.affine))
    volume, inside = plain.get_fdata(dtype=np.float32), np.asanyarray(over.dataobj)
    spacing = plain.header.get_zooms()
    low, high = (0, 90) if volume.min() < -500 else np.percentile(volume[inside > 0], (1, 99.5))
    low = min(low, volume[0, 0, 0]) if volume.min() >= -500 else low
    for axis_pair, (axis, share) in zip(axes, TILES, strict=True):
        used = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
        place = int(used[0] + share * (used[-1] - used[0]))
        first, second = sorted({0, 1, 2} - {axis})
        aspect = spacing[second] / spacing[first]
        shown = {'origin': 'lower', 'aspect': aspect}
        axis_pair.imshow(volume.take(place, axis).T, cmap='gray', vmin=low, vmax=high, **shown)
        axis_pair.contour(inside.take(place, axis).T, [0.5], colors='red', linewidths=0.7)
    axes[0].set_title(title, fontsize=7, loc='left')


def draw_all(drawn: list[tuple[str, Path, np.ndarray]], output: Path) -> None:
    """One picture of up to ten images."""
    figure, axes = plt.subplots(
        PER_PICTURE // 2, 2 * len(TILES), figsize=(22, 10.5), squeeze=False
    )
    for axis in axes.ravel():
        axis.axis('off')
    for row, (title, path, mask) in zip(
        axes.reshape(PER_PICTURE, len(TILES)), drawn, strict=False
    ):
        draw(row, title, nib.load(path), mask)
    figure.tight_layout(pad=0.3)
    figure.savefig(output, dpi=70)
    plt.close(figure)


def equalise(volume: np.ndarray) -> np.ndarray:
    """Grey values replaced by their ranks among all voxels."""
    ordered = np.sort(volume, axis=None)
    return np.asarray(np.searchsorted(ordered, volume) / ordered.size)


def invert(volume: np.ndarray) -> np.ndarray:
    """Grey values turned around, air and bone left dark."""
    share = np.clip(volume / np.percentile(volume[volume > 0], 99), 0, 1)
    return np.where(share > DARK_SHARE, 1.1 - share, 0)


CANDIDATES = {'deepbet, equalised': equalise, 'deepbet, inverted': invert}


def measure(
    case: Case, data: Path, image: nib.Nifti1Image, made: dict[Path, np.ndarray], candidate: str
) -> tuple[str, np.ndarray]:
    """One line of the table, and the mask; a candidate changes the grey values first."""
    volume = image.get_fdata(dtype=np.float32)
    if candidate:
        volume = CANDIDATES[candidate](volume)
    start = time.perf_counter()
    found = make_mask(case, volume, image.affine)
    seconds = time.perf_counter() - start
    if not candidate:
        made[case.image] = found.mask
    cm3 = found.mask.sum() * abs(np.linalg.det(image.affine[:3, :3])) / 1e3
    fields = (
        str(case.image.relative_to(data)),
        case.contrast,
        candidate or found.method,
        f'{cm3:.0f}',
        f'{overlap(case, found.mask, made):.3f}',
        f'{seconds:.1f}',
        ' '.join(found.warnings).replace(str(case.image), 'image') or 'n/a',
    )
    print(*fields, sep='\t', flush=True)
    return '\t'.join(fields), found.mask


def main() -> None:
    """Mask every head, print and save the table, draw the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('data_dir', type=Path)
    parser.add_argument('out_dir', type=Path)
    parser.add_argument('--only', default='', help='a word in the path of the images wanted')
    parser.add_argument('--candidates', action='store_true', help='other ways to mask FLAIR')
    arguments = parser.parse_args()
    arguments.out_dir.mkdir(parents=True, exist_ok=True)
    lines = ['\t'.join(COLUMNS)]
    print(lines[0])
    made: dict[Path, np.ndarray] = {}
    drawn: list[tuple[str, Path, np.ndarray]] = []
    cases = [c for c in find_cases(arguments.data_dir) if arguments.only in str(c.image)]
    for number, case in enumerate(cases, start=1):
        image = nib.load(case.image)
        tried = ['', *CANDIDATES] if arguments.candidates and case.contrast == 'FLAIR' else ['']
        results = [measure(case, arguments.data_dir, image, made, name) for name in tried]
        lines += [line for line, _ in results]
        cm3 = results[0][0].split('\t')[COLUMNS.index('volume_cm3')]
        drawn.append((f'{case.image.name} {cm3} cm3', case.image, results[0][1]))
        if len(drawn) == PER_PICTURE or number == len(cases):
            draw_all(drawn, arguments.out_dir / f'masks_{number:03d}.png')
            drawn.clear()
    (arguments.out_dir / 'masks.tsv').write_text('\n'.join(lines) + '\n')


if __name__ == '__main__':
    main()
