"""
Compare the difference map with two ANTs registrations, and the detection with its published size.

A brain of the embedded template is filled with CT numbers and warped by a smooth asymmetric field
that is known, so that the true counterpart of each voxel is known, too. The published prior needs
two deformable registrations of the whole volume; here one runs at 2 mm and the map is made at the
volume's resolution. Every method runs in a child of its own, and memory is the peak of it. Run:
``python benchmarks/lvo.py``; ``--shape 256 256 54`` is eight times as fast.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from bids_app.demo.warp import Warp, lookup, random_warp

TEMPLATE = Path(__file__).parents[1] / 'templates' / 'tpl-MNI152NLin2009aSym'
FIELD_MM = (230.4, 230.4, 162.0)
NOISE_HU = 4.0
SEED = 5
N_POINTS = 8000
MIRROR = np.float32([-1, 1, 1])
PUBLISHED_SHAPE = (512, 512, 200)
METHODS = ('difference', 'ants', 'detection', 'detection-published')
# Shares and times that the claims of docs/speed.md rest on.
NEEDED_RATIO, NEEDED_DETECTION_S = 5.0, 10.0


def read(name: str) -> tuple[np.ndarray, np.ndarray]:
    image = nib.load(TEMPLATE / f'tpl-MNI152NLin2009aSym_res-1_{name}.nii.gz')
    return np.asarray(image.get_fdata(dtype=np.float32)), image.affine


def simulate(shape: tuple[int, ...], folder: Path) -> None:
    """Write a scan, its mask, and places with their true counterparts."""
    warp = random_warp(np.random.default_rng(SEED))
    tissues = {name: read(f'label-{name}_probseg')[0] for name in ('GM', 'WM', 'CSF')}
    values = 38 * tissues['GM'] + 30 * tissues['WM'] + 8 * tissues['CSF']
    mask, template = read('desc-brain_mask')
    spacing = np.array(FIELD_MM) / shape
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * spacing + np.array([0.0, -18.0, 8.0])
    hu, brain = np.full(shape, -1000, np.int16), np.zeros(shape, np.uint8)
    rng = np.random.default_rng(SEED)
    for z in range(shape[2]):
        index = np.indices((*shape[:2], 1), np.float32).reshape(3, -1)
        index[2] = z
        there = warp((index.T * spacing + affine[:3, 3]).astype(np.float32))
        inside = lookup(mask, template, there).reshape(shape[:2]) > 0.5
        seen = lookup(values, template, there).reshape(shape[:2])
        seen += rng.normal(0, NOISE_HU, shape[:2])
        hu[:, :, z] = np.where(inside, np.rint(seen), -1000)
        brain[:, :, z] = inside
    chosen = np.argwhere(ndimage.binary_erosion(brain))
    chosen = chosen[:: max(1, len(chosen) // N_POINTS)]
    points = (chosen * spacing + affine[:3, 3]).astype(np.float32)
    nib.save(nib.Nifti1Image(hu, affine), folder / 'ct.nii.gz')
    nib.save(nib.Nifti1Image(brain, affine), folder / 'mask.nii.gz')
    from_mni = np.linalg.inv(warp.to_template)
    np.savez(folder / 'truth.npz', points=points, truth=true_counterparts(warp, points),
             from_mni=from_mni)  # fmt: skip


def true_counterparts(warp: Warp, points: np.ndarray) -> np.ndarray:
    return warp.inverse(warp(points) * MIRROR)


def run_difference(folder: Path) -> np.ndarray:
    """Make the map; give the counterparts of the points in mm."""
    from bids_app.analyses.lvo.model.grid import ALIGNED_AFFINE, to_aligned
    from bids_app.analyses.lvo.model.hemispheres import compare, match_hemispheres

    image = nib.load(folder / 'ct.nii.gz')
    hu, known = np.asanyarray(image.dataobj), np.load(folder / 'truth.npz')
    brain = np.asanyarray(nib.load(folder / 'mask.nii.gz').dataobj) > 0
    place = image.affine, known['from_mni']
    partners = match_hemispheres(to_aligned(hu, *place, fill=-1000), to_aligned(brain, *place))
    compare(hu, brain, *place, partners)
    back = np.linalg.inv(known['from_mni'])
    here = known['points'] @ back[:3, :3].T + back[:3, 3]
    inverse = np.linalg.inv(ALIGNED_AFFINE)
    index = here @ inverse[:3, :3].T + inverse[:3, 3]
    shift = [ndimage.map_coordinates(one, index.T, order=1) for one in partners.shift_mm]
    there = here * MIRROR + np.stack(shift, -1)
    return there @ known['from_mni'][:3, :3].T + known['from_mni'][:3, 3]


def run_ants(folder: Path) -> np.ndarray:
    """Register the template to the scan, then the mirrored scan to the scan, as published."""
    import ants
    import pandas as pd

    scan = ants.image_read(str(folder / 'ct.nii.gz'))
    mask = ants.image_read(str(folder / 'mask.nii.gz'))
    brain = scan * mask
    template = ants.image_read(str(TEMPLATE / 'tpl-MNI152NLin2009aSym_res-1_T1w.nii.gz'))
    ants.registration(brain, template, type_of_transform='SyN')
    known = np.load(folder / 'truth.npz')
    # The mirror plane of the head is given to both methods.
    flip = known['from_mni'] @ np.diag([-1.0, 1, 1, 1]) @ np.linalg.inv(known['from_mni'])
    turn = np.diag([-1.0, -1.0, 1.0, 1.0])
    flip_lps = turn @ flip @ turn
    plane = ants.create_ants_transform(
        transform_type='AffineTransform', dimension=3, matrix=flip_lps[:3, :3],
        translation=flip_lps[:3, 3],
    )  # fmt: skip
    mirrored = ants.apply_ants_transform_to_image(plane, brain, brain)
    found = ants.registration(brain, mirrored, type_of_transform='SyN')
    points = pd.DataFrame(known['points'] * np.array([-1, -1, 1]), columns=['x', 'y', 'z'])
    # Transforms that bring the mirrored scan here carry points of here into it.
    moved = ants.apply_transforms_to_points(3, points, found['fwdtransforms'])
    moved = moved[['x', 'y', 'z']].to_numpy() * np.array([-1, -1, 1])
    return moved @ flip[:3, :3].T + flip[:3, 3]


def run_detection(shape: tuple[int, ...], mirrored: bool) -> None:
    import torch

    from bids_app.analyses.lvo.model.detection import predict_logits
    from bids_app.analyses.lvo.model.mcresnet import McResNet

    torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))
    network, channels = McResNet(), np.zeros((4, *shape), np.float32)
    if mirrored:
        predict_logits(network, channels, torch.device('cpu'))
        return
    with torch.inference_mode():
        network.eval()(torch.from_numpy(channels[None]))


def child(method: str, folder: Path) -> None:
    """Run one method and print what it took."""
    from bids_app.analyses.lvo.model.detection import BOX

    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    found = None
    if method == 'difference':
        found = run_difference(folder)
    elif method == 'ants':
        found = run_ants(folder)
    else:
        own = method == 'detection'
        shape = tuple(side.stop - side.start for side in BOX) if own else PUBLISHED_SHAPE
        run_detection(shape, mirrored=own)
    after = resource.getrusage(resource.RUSAGE_SELF)
    row = {
        'time_s': time.perf_counter() - start,
        'cpu_s': after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        'memory_gb': after.ru_maxrss / 1e6,
    }
    if found is not None:
        away = np.linalg.norm(found - np.load(folder / 'truth.npz')['truth'], axis=1)
        row |= {'error_mm': float(away.mean()), 'p95_mm': float(np.percentile(away, 95))}
    print('\n' + json.dumps(row))


def judge(rows: dict[str, dict[str, float]]) -> bool:
    met = True
    if {'difference', 'ants'} <= rows.keys():
        ratio = rows['ants']['time_s'] / rows['difference']['time_s']
        good = ratio >= NEEDED_RATIO and rows['difference']['error_mm'] <= rows['ants']['error_mm']
        print(f'{"met " if good else "MISS"} difference map {ratio:.1f} times as fast')
        met &= good
    if 'detection' in rows:
        good = rows['detection']['time_s'] <= NEEDED_DETECTION_S
        print(f'{"met " if good else "MISS"} detection in {rows["detection"]["time_s"]:.1f} s')
        met &= good
    return met


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--shape', type=int, nargs=3, default=[512, 512, 108])
    parser.add_argument('--methods', nargs='+', default=METHODS, choices=METHODS)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--child', nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    options = parse()
    if options.child:
        child(options.child[0], Path(options.child[1]))
        return 0
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        if {'difference', 'ants'} & set(options.methods):
            simulate(tuple(options.shape), Path(name))
        for method in options.methods:
            threads_of = ('OMP_NUM_THREADS', 'ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS')
            done = subprocess.run(
                [sys.executable, __file__, '--child', method, name], check=True, text=True,
                env={**os.environ, **dict.fromkeys(threads_of, str(options.threads))},
                stdout=subprocess.PIPE,
            )  # fmt: skip
            rows[method] = json.loads(done.stdout.splitlines()[-1])
            print(method, *(f'{key} {value:.2f}' for key, value in rows[method].items()),
                  flush=True)  # fmt: skip
    return 0 if judge(rows) else 1


if __name__ == '__main__':
    sys.exit(main())
