"""
Voxelwise tests by permutation: family-wise error of null cohorts, and planted effects found.

Each cohort has 20 subjects of two groups with an age and smooth noise. Without an effect of the
group, something may be found in 5 % of cohorts; with one in a small ball, the cluster of least p
should lie in it. Run: ``python benchmarks/voxelwise.py``; ``--tfce`` takes ten times as long.
"""

import argparse
import time

import numpy as np
from scipy import ndimage, stats

from bids_app.group.permutation import SIGNIFICANT, find_clusters, permutation_test

SHAPE = (12, 14, 10)
SUBJECTS = 20
SMOOTHNESS = 1.27
"""Standard deviation of the Gaussian that smooths the noise, in voxels: 6 mm FWHM at 2 mm."""

CENTRE, RADIUS = (5, 8, 4), 2.0
EFFECT = 3.0
"""Difference between groups in the ball, in standard deviations of the noise."""

FIRST_SEED = 1000


def make_cohort(
    seed: int, mask: np.ndarray, effect: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make maps inside the mask, the group and the age of each subject."""
    rng = np.random.default_rng(seed)
    smooth = (0, SMOOTHNESS, SMOOTHNESS, SMOOTHNESS)
    noise = ndimage.gaussian_filter(rng.standard_normal((SUBJECTS, *SHAPE)), smooth)
    age = rng.normal(0, 1, (SUBJECTS, 1))
    group = np.arange(SUBJECTS) % 2 * 1.0
    spread = noise.std()
    maps = noise[:, mask] + 0.3 * age + spread * group[:, None] * effect[mask]
    return maps.astype(np.float32), group, age


def count_findings(n_cohorts: int, n_permutations: int, *, tfce: bool) -> dict[str, int]:
    """Count null cohorts in which anything is found."""
    mask = np.zeros(SHAPE, bool)
    mask[1:-1, 1:-1, 1:-1] = True
    found = dict.fromkeys(['t', 'cluster mass', *(['TFCE'] if tfce else [])], 0)
    for seed in range(n_cohorts):
        maps, group, age = make_cohort(FIRST_SEED + seed, mask, np.zeros(SHAPE))
        test = permutation_test(maps, group, age, mask, n_permutations, seed, tfce=tfce)
        for name, p in zip(found, (test.voxel_p, test.cluster_p, test.tfce_p), strict=False):
            found[name] += p is not None and bool(p.min() <= SIGNIFICANT)
    return found


def count_planted(n_cohorts: int, n_permutations: int) -> int:
    """Count cohorts with an effect whose cluster of least p is significant and in its place."""
    mask = np.zeros(SHAPE, bool)
    mask[1:-1, 1:-1, 1:-1] = True
    away = np.indices(SHAPE) - np.reshape(CENTRE, (3, 1, 1, 1))
    ball = np.linalg.norm(away, axis=0) <= RADIUS
    right = 0
    for seed in range(n_cohorts):
        maps, group, age = make_cohort(FIRST_SEED + seed, mask, EFFECT * ball)
        test = permutation_test(maps, group, age, mask, n_permutations, seed)
        for cluster in find_clusters(test, mask, np.eye(4))[:1]:
            inside = ball[tuple(round(place) for place in cluster.peak_mm)]
            right += bool(inside and cluster.positive and cluster.cluster_p <= SIGNIFICANT)
    return right


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--cohorts', type=int, default=100)
    parser.add_argument('--permutations', type=int, default=99)
    parser.add_argument('--tfce', action='store_true')
    options = parser.parse_args()
    started = time.process_time()
    found = count_findings(options.cohorts, options.permutations, tfce=options.tfce)
    least, most = stats.binom.interval(0.95, options.cohorts, SIGNIFICANT)
    print(
        f'{options.cohorts} null cohorts, {options.permutations} permutations each; '
        f'{SIGNIFICANT:.0%} is meant, {least:g} to {most:g} cohorts is its 95 % interval'
    )
    for name, count in found.items():
        within = 'within' if least <= count <= most else 'NOT within'
        print(f'{name:>14}  {count:4d}  {count / options.cohorts:6.1%}  {within}')
    planted = count_planted(options.cohorts, options.permutations)
    print(f'planted effect found in its place: {planted} of {options.cohorts}')
    print(f'{time.process_time() - started:.0f} s of processor time')


if __name__ == '__main__':
    main()
