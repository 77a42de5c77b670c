"""
Registration to the template: our two engines against antspyx as a user would call it.

Simulated subjects are the template's brain through a known warp (shape of lobes and sulci, size,
pose), with another grey scale, a bias field and noise; ``t2`` gives them a T2-like contrast from
the tissue maps. The error is the distance between where a transform takes a point of the
template's brain and where it truly lies. Regions are eight k-means parcels of the brain, each
split into grey and white matter. Real heads (IXI) are stripped, freed of their bias field (N4),
segmented into three tissues by their grey values (Otsu), and compared with the template's
tissues after registration.

Every run is a process of its own; the time is that of reading, registering and writing the
transforms, without Python's start and imports, and memory is the peak of the whole process. On a
busy machine look at the user CPU seconds. Run: ``python benchmarks/registration.py``.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import SimpleITK
from scipy import ndimage
from skimage.filters import threshold_multiotsu
from sklearn.cluster import KMeans

from bids_app.demo.warp import lookup, random_warp
from bids_app.prep.register import RegistrationSettings, register_to_template
from bids_app.prep.resample import bias_correct

TEMPLATE = Path(__file__).parents[1] / 'templates' / 'tpl-MNI152NLin2009aSym'
TISSUES = ('CSF', 'GM', 'WM')
LPS = np.array([-1.0, -1.0, 1.0])

# Largest mean error in mm and time in s of greedy-standard on the mono-modal set.
TARGETS = {2: (1.6, 6.0), 1: (1.2, 20.0)}
TARGET_METHOD = 'greedy-standard'

# The settings were tuned on seeds 0 and 1 of a like simulation.
FIRST_SEED = 10
N_REAL = 5
N_PARCELS = 8
NOISE = 0.03
BIAS = 0.12
# Points of the brain at which the error is taken.
N_POINTS = 8000

PEERS = {'ants-SyN default': 'SyN', 'ants-SyNCC': 'SyNCC'}
OURS = [f'{engine}-{quality}' for engine in ('ants', 'greedy')
        for quality in ('fast', 'standard', 'precise')]  # fmt: skip
METHODS = [*PEERS, *OURS]


@dataclass
class Case:
    """One subject: what is registered, and what the answer should be."""

    kind: str
    resolution: int
    name: str
    moving: Path
    fixed: Path
    labels: Path
    reference: Path
    points: np.ndarray | None = None
    truth: np.ndarray | None = None


def load(resolution: int, name: str) -> nib.Nifti1Image:
    return nib.load(TEMPLATE / f'tpl-MNI152NLin2009aSym_res-{resolution}_{name}.nii.gz')


def read(resolution: int, name: str) -> np.ndarray:
    return np.asanyarray(load(resolution, name).dataobj).astype(np.float32)


def save(data: np.ndarray, affine: np.ndarray, path: Path) -> Path:
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def positions(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    index = np.indices(shape, np.float32).reshape(3, -1).T
    return index @ affine[:3, :3].T.astype(np.float32) + affine[:3, 3].astype(np.float32)


def tissue_labels(resolution: int) -> np.ndarray:
    """Give the number of the likeliest tissue of each voxel of the template's brain, from 1."""
    maps = np.stack([read(resolution, f'label-{name}_probseg') for name in TISSUES])
    inside = read(resolution, 'desc-brain_mask') > 0
    return np.where(inside, maps.argmax(axis=0) + 1, 0).astype(np.uint8)


def region_labels(resolution: int) -> np.ndarray:
    """Give the numbers of 16 regions: eight parcels of grey, eight of white matter."""
    tissue = tissue_labels(resolution)
    affine = load(resolution, 'T1w').affine
    rough = positions(tissue_labels(2).shape, load(2, 'T1w').affine)[
        (tissue_labels(2) > 1).ravel()
    ]
    parcels = KMeans(N_PARCELS, n_init=4, random_state=0).fit(rough[::7])
    regions = np.zeros(tissue.shape, np.uint8)
    brain = tissue > 1
    parcel = parcels.predict(positions(tissue.shape, affine)[brain.ravel()])
    regions[brain] = 1 + parcel + N_PARCELS * (tissue[brain] == 3)
    return regions


def grey_values(kind: str) -> np.ndarray:
    grey = read(1, 'T1w')
    if kind == 't2':
        csf, gm, wm = (read(1, f'label-{name}_probseg') for name in TISSUES)
        # Within a tissue too, what is bright in T1 is dark in T2.
        grey = 200 * (0.95 * csf + 0.55 * gm + 0.38 * wm) * np.clip(1.25 - grey / 510, 0.5, 1.25)
    return np.asarray(grey)


def simulate(kind: str, resolution: int, seed: int, folder: Path) -> Case:
    """Make a subject of known anatomy on a LAS grid of its own."""
    rng = np.random.default_rng(seed)
    warp = random_warp(rng)
    grey, affine = grey_values(kind), load(1, 'T1w').affine
    if resolution > 1:
        grey = ndimage.gaussian_filter(grey, 0.35 * resolution)
    shape = (190 // resolution, 230 // resolution, 200 // resolution)
    own = np.diag([-float(resolution), resolution, resolution, 1.0])
    middle = own[:3, :3] @ (np.array(shape) - 1) / 2
    own[:3, 3] = warp.inverse(np.array([[0.0, -18.0, 8.0]]))[0] - middle
    there = warp(positions(shape, own))
    brain = lookup(read(1, 'desc-brain_mask'), affine, there).reshape(shape) > 0.5
    data = lookup(grey, affine, there).reshape(shape)
    top = np.percentile(data[brain], 99)
    field = ndimage.zoom(rng.standard_normal((4, 4, 4)), np.array(shape) / 4, order=3)
    data = top * np.clip(data / top, 0, None) ** rng.uniform(0.8, 1.25)
    data = data * np.exp(BIAS * field / field.std()) + rng.normal(0, NOISE * top, shape)
    data = (np.clip(data, 1.0, None) * brain * rng.uniform(2, 8)).astype(np.float32)
    regions, grid = region_labels(resolution), load(resolution, 'T1w').affine
    index = np.rint((there - grid[:3, 3]) / resolution).astype(int)
    index = np.clip(index, 0, np.array(regions.shape) - 1)
    labels = regions[tuple(index.T)].reshape(shape) * brain
    points = positions(regions.shape, grid)[(read(resolution, 'desc-brain_mask') > 0).ravel()]
    points = points[:: max(1, len(points) // N_POINTS)]
    start = folder / f'{kind}{resolution}-{seed}'
    return Case(
        kind, resolution, f'seed {seed}',
        save(data, own, Path(f'{start}_image.nii.gz')),
        save(read(resolution, 'T1w'), grid, Path(f'{start}_template.nii.gz')),
        save(labels.astype(np.uint8), own, Path(f'{start}_labels.nii.gz')),
        save(regions, grid, Path(f'{start}_regions.nii.gz')),
        points, warp.inverse(points),
    )  # fmt: skip


def strip(path: Path, kind: str, folder: Path) -> Case:
    """Strip a real head, and tell its tissues apart by their grey values."""
    from bids_app.prep.brainmask import mask_brain

    image = nib.load(path)
    data = np.asanyarray(image.dataobj).astype(np.float32)
    mask = mask_brain(data, image.affine, path, 'T1w').mask
    plain, inside, flat = (folder / f'{name}.nii.gz' for name in ('plain', 'inside', 'flat'))
    save(data, image.affine, plain)
    save(mask.astype(np.uint8), image.affine, inside)
    bias_correct(plain, inside, flat)
    brain = np.where(mask, nib.load(flat).get_fdata(dtype=np.float32), 0)
    labels = np.zeros(data.shape, np.uint8)
    labels[mask] = 1 + np.digitize(brain[mask], threshold_multiotsu(brain[mask], 3))
    start = folder / path.name.partition('_')[0]
    grid = load(2, 'T1w').affine
    return Case(
        kind, 2, path.name.partition('_')[0],
        save(brain, image.affine, Path(f'{start}_image.nii.gz')),
        save(read(2, 'T1w'), grid, Path(f'{start}_template.nii.gz')),
        save(labels, image.affine, Path(f'{start}_labels.nii.gz')),
        save(tissue_labels(2), grid, Path(f'{start}_tissues.nii.gz')),
    )  # fmt: skip


def run_peer(method: str, moving: Path, fixed: Path, folder: Path) -> Path:
    import ants

    found = ants.registration(
        ants.image_read(str(fixed)),
        ants.image_read(str(moving)),
        type_of_transform=PEERS[method],
        outprefix=f'{folder}/peer_',
        write_composite_transform=True,
    )
    names = found['fwdtransforms']
    return Path(names if isinstance(names, str) else names[0])


def peak_memory_mb() -> float:
    """Read the peak of this program alone; getrusage would include the parent's at the fork."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith('VmHWM'))


def child(method: str, kind: str, moving: Path, fixed: Path, folder: Path) -> None:
    """Register in this process and print what it took."""
    # Imported for nothing but the clock, which is to run without it.
    if method in PEERS or method.startswith('ants'):
        import ants  # noqa: F401
    else:
        import picsl_greedy  # noqa: F401
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    if method in PEERS:
        transform = run_peer(method, moving, fixed, folder)
    else:
        engine, quality = method.split('-')
        contrast = 'other' if kind == 't2' else 'same'
        settings = RegistrationSettings(engine, quality, contrast=contrast)
        transform = register_to_template(moving, fixed, folder, settings).to_template
    after = resource.getrusage(resource.RUSAGE_SELF)
    taken = {
        'time_s': time.perf_counter() - start,
        'cpu_s': after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        'memory_mb': peak_memory_mb(),
        'transform': str(transform),
    }
    print('\n' + json.dumps(taken))


def judge(case: Case, path: Path) -> dict[str, float]:
    """Compare a transform with the truth."""
    transform = SimpleITK.ReadTransform(str(path))
    template = SimpleITK.ReadImage(str(case.fixed), SimpleITK.sitkFloat32)
    labels = SimpleITK.ReadImage(str(case.labels))
    moved = SimpleITK.GetArrayFromImage(
        SimpleITK.Resample(labels, template, transform, SimpleITK.sitkNearestNeighbor, 0)
    )
    wanted = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(case.reference)))
    dice = [
        2 * ((moved == label) & (wanted == label)).sum()
        / max(1, (moved == label).sum() + (wanted == label).sum())
        for label in np.unique(wanted[wanted > 0])
    ]  # fmt: skip
    field = SimpleITK.TransformToDisplacementField(
        transform, SimpleITK.sitkVectorFloat64, template.GetSize(), template.GetOrigin(),
        template.GetSpacing(), template.GetDirection(),
    )  # fmt: skip
    change = SimpleITK.GetArrayFromImage(SimpleITK.DisplacementFieldJacobianDeterminant(field))
    result = {
        'dice': float(np.mean(dice)),
        'folded_percent': 100 * float((change[wanted > 0] <= 0).mean()),
    }
    if case.points is not None:
        found = [transform.TransformPoint(point) for point in (case.points * LPS).tolist()]
        away = np.linalg.norm(np.array(found) * LPS - case.truth, axis=1)
        result |= {'error_mm': float(away.mean()), 'p95_mm': float(np.percentile(away, 95))}
    return result


def measure(method: str, case: Case, threads: int, limit_s: float) -> dict[str, object]:
    row = {'set': case.kind, 'mm': case.resolution, 'method': method, 'subject': case.name}
    with tempfile.TemporaryDirectory() as folder:
        if method in OURS and method.startswith('ants'):
            # Our engine on ANTs takes one, for the same bytes each run.
            threads = 1
        threads_of = ('OMP_NUM_THREADS', 'ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS')
        try:
            done = subprocess.run(
                [sys.executable, __file__, '--child', method, case.kind, case.moving, case.fixed,
                 folder],
                env={**os.environ, **dict.fromkeys(threads_of, str(threads))},
                check=True, stdout=subprocess.PIPE, text=True, timeout=limit_s,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            # The time is a lower bound; accuracy stays unknown.
            return row | {'time_s': limit_s}
        taken = json.loads(done.stdout.splitlines()[-1])
        return row | judge(case, Path(taken.pop('transform'))) | taken


def summarise(rows: list[dict[str, object]]) -> bool:
    """Print the means and whether the targets are met."""
    table = pd.DataFrame(rows).groupby(['set', 'mm', 'method'], sort=False)
    means = table.mean(numeric_only=True)
    means.insert(0, 'n', table.size())
    print('\nMeans (dice: 16 regions, or 3 tissues of real heads)')
    print(means.round(3).to_string(), flush=True)
    met = True
    for resolution, (error_mm, time_s) in TARGETS.items():
        key = ('mono', resolution, TARGET_METHOD)
        if key not in means.index:
            continue
        row = means.loc[key]
        good = row['error_mm'] <= error_mm and row['time_s'] <= time_s
        met &= good
        print(
            f'{"met " if good else "MISS"} {TARGET_METHOD} at {resolution} mm: '
            f'{row["error_mm"]:.2f} mm (needed {error_mm}), {row["time_s"]:.1f} s '
            f'(needed {time_s}; {row["cpu_s"]:.1f} s of CPU)'
        )
    return met


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--data', type=Path, default=Path('../shared/data'))
    parser.add_argument('--seeds', type=int, default=5, help='simulated subjects of each kind')
    parser.add_argument('--resolutions', type=int, nargs='+', default=[2, 1])
    parser.add_argument('--sets', nargs='+', default=['mono', 't2', 'real'])
    parser.add_argument('--methods', nargs='+', default=METHODS, choices=METHODS)
    parser.add_argument(
        '--limit-s', type=float, default=600.0, help='a run is stopped and left open after this'
    )
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--table', type=Path, help='write every run to this TSV file')
    parser.add_argument('--child', nargs=5, help=argparse.SUPPRESS)
    return parser.parse_args()


def make_cases(options: argparse.Namespace, folder: Path) -> list[Case]:
    cases = [
        simulate(kind, resolution, FIRST_SEED + seed, folder)
        for resolution in options.resolutions
        for kind in ('mono', 't2')
        if kind in options.sets
        for seed in range(options.seeds)
    ]
    heads = sorted(options.data.glob('ixi/sub-*/anat/*_T1w.nii.gz'))[:N_REAL]
    if 'real' in options.sets and 2 in options.resolutions:
        if not heads:
            print(f'No real heads in {options.data}/ixi: they are left out.')
        cases += [strip(path, 'real', folder) for path in heads]
    return cases


def main() -> int:
    options = parse()
    if options.child:
        method, kind, *paths = options.child
        child(method, kind, *map(Path, paths))
        return 0
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cases = make_cases(options, Path(folder))
        # Methods take turns, so that a slow spell of the machine hits all of them.
        for case in cases:
            for method in options.methods:
                rows.append(measure(method, case, options.threads, options.limit_s))
                print(
                    '  '.join(f'{k} {v:.3f}' if isinstance(v, float) else str(v)
                              for k, v in rows[-1].items()),
                    flush=True,
                )  # fmt: skip
                if options.table:
                    pd.DataFrame(rows).to_csv(options.table, sep='\t', index=False)
    return 0 if summarise(rows) else 1


if __name__ == '__main__':
    sys.exit(main())
