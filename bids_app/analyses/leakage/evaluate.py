"""How well the maps of the leakage room survive fewer frames and a shorter series."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from skimage.metrics import structural_similarity

from ...compute.images import write_text
from ...compute.weights import find_model, load_weights
from ...errors import ExitCode
from ...evaluation.program import make_folder
from .model.autoencoder import load_autoencoder
from .model.bolus import estimate_arrival
from .model.kinetics import fit_patlak
from .model.maps import Tracer, choose_aif
from .model.relaxation import signal_to_concentration
from .model.residual import residual_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .cohort import DceSeries
    from .model.autoencoder import LeakageAutoencoder

ROOM: Final = 'leakage'
UNDERSAMPLING: Final = 2
TRUNCATED_SHARE: Final = 0.5
"""Part of the time after the arrival that a truncated series keeps."""
DENSE_S: Final = 60.0
"""A hybrid series keeps every frame for this long after the arrival, then every other one."""
CLIP_PERCENTILE: Final = 99.5
"""Values above this percentile of the full map count as it: one artery must not set the range."""
SSIM_WINDOW: Final = 7
DEFAULT_R1: Final = 4.5
DEFAULT_HEMATOCRIT: Final = 0.42
DEFAULT_T10_S: Final = 1.4
DEFAULT_T10_BLOOD_S: Final = 1.65
DECIMALS: Final = 4


class Agreement(NamedTuple):
    """
    Agreement of two maps.

    Attributes
    ----------
    r2 : float
        Squared correlation inside the mask.
    psnr_db : float
        Peak signal-to-noise ratio inside the mask, in dB; the peak is the range of the first.
    ssim : float
        Structural similarity, mean over the mask's voxels of all axial slices.
    """

    r2: float
    psnr_db: float
    ssim: float


def keep_frames(times_s: np.ndarray, arrival_s: float) -> dict[str, np.ndarray]:
    """
    Choose the frames of each reduced series.

    Parameters
    ----------
    times_s : ndarray of float, shape (n_times,)
        Time of each frame, in s.
    arrival_s : float
        Arrival of the bolus, in s.

    Returns
    -------
    dict of str to ndarray of int
        ``undersampled``: every other frame. ``truncated``: the first half of the time after the
        arrival. ``hybrid``: all frames until 60 s after the arrival, then every other one.

    Examples
    --------
    >>> kept = keep_frames(np.arange(0.0, 200.0, 20.0), 30.0)
    >>> for name, frames in kept.items():
    ...     print(name, *frames)
    undersampled 0 2 4 6 8
    truncated 0 1 2 3 4 5
    hybrid 0 1 2 3 4 6 8
    """
    frames = np.arange(len(times_s))
    last_s = arrival_s + TRUNCATED_SHARE * (times_s[-1] - arrival_s)
    dense = frames[times_s <= arrival_s + DENSE_S]
    return {
        'undersampled': frames[::UNDERSAMPLING],
        'truncated': frames[times_s <= last_s],
        'hybrid': np.concatenate([dense, frames[dense[-1] + UNDERSAMPLING :: UNDERSAMPLING]]),
    }


def compare_maps(full: np.ndarray, reduced: np.ndarray, mask: np.ndarray) -> Agreement:
    """
    Compare two maps of the same voxels.

    Parameters
    ----------
    full, reduced : ndarray of float, shape (n_voxels,)
        Values in the order of the True voxels of ``mask``.
    mask : ndarray of bool, shape (x, y, z)
        Where the voxels lie; slices are along the last axis.

    Returns
    -------
    Agreement
        Of values clipped to the 99.5th percentile of ``full``; nan where ``full`` is constant.
    """
    low, high = float(full.min()), float(np.percentile(full, CLIP_PERCENTILE))
    if high <= low:
        return Agreement(float('nan'), float('nan'), float('nan'))
    first, second = (np.clip(values, low, high).astype(np.float64) for values in (full, reduced))
    error = float(np.mean((first - second) ** 2))
    varies = first.std() > 0 and second.std() > 0
    correlation = float(np.corrcoef(first, second)[0, 1]) if varies else 0.0
    psnr_db = float('inf') if error == 0 else 10.0 * float(np.log10((high - low) ** 2 / error))
    return Agreement(correlation**2, psnr_db, _similarity(first, second, mask, high - low))


def _similarity(first: np.ndarray, second: np.ndarray, mask: np.ndarray, span: float) -> float:
    images = []
    for values in (first, second):
        image = np.zeros(mask.shape)
        image[mask] = values
        images.append(image)
    total = 0.0
    for index in np.flatnonzero(mask.any(axis=(0, 1))):
        _, local = structural_similarity(
            images[0][..., index],
            images[1][..., index],
            win_size=SSIM_WINDOW,
            data_range=span,
            full=True,
        )
        total += float(local[mask[..., index]].sum())
    return total / float(mask.sum())


def robustness_table(
    series: np.ndarray,
    times_s: np.ndarray,
    mask: np.ndarray,
    makers: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]],
) -> pd.DataFrame:
    """
    Compare the maps of reduced series with those of the full one.

    Parameters
    ----------
    series : ndarray of float, shape (n_voxels, n_times)
        Signal, in the order of the True voxels of ``mask``.
    times_s : ndarray of float, shape (n_times,)
        Time of each frame, in s.
    mask : ndarray of bool, shape (x, y, z)
        Where the voxels lie.
    makers : mapping of str to callable
        For each map what makes it from a series and its times. The arrival is estimated anew.

    Returns
    -------
    DataFrame
        Columns map, data, frames, r2, psnr_db, ssim.
    """
    kept = keep_frames(times_s, estimate_arrival(series, times_s).time_s)
    rows = []
    for name, make in makers.items():
        full = make(series, times_s)
        for data, frames in kept.items():
            part = np.ascontiguousarray(series[:, frames])
            found = compare_maps(full, make(part, times_s[frames]), mask)
            rows.append({'map': name, 'data': data, 'frames': len(frames), **found._asdict()})
    return pd.DataFrame(rows)


def similarity_to_ktrans(
    rls: np.ndarray, ktrans: np.ndarray, mask: np.ndarray
) -> dict[str, float]:
    """
    Correlation and structural similarity of RLS with Ktrans.

    Parameters
    ----------
    rls, ktrans : ndarray of float, shape (n_voxels,)
        Both maps, in the order of the True voxels of ``mask``.
    mask : ndarray of bool, shape (x, y, z)
        Where the voxels lie.

    Returns
    -------
    dict
        ``r`` and ``ssim``; for the latter each map is scaled by its 99.5th percentile.
    """
    scaled = [
        np.clip(values / max(np.percentile(values, CLIP_PERCENTILE), 1e-12), 0.0, 1.0)
        for values in (rls, ktrans)
    ]
    varies = scaled[0].std() > 0 and scaled[1].std() > 0
    return {
        'r': float(np.corrcoef(*scaled)[0, 1]) if varies else 0.0,
        'ssim': _similarity(scaled[0], scaled[1], mask, 1.0),
    }


def rls_maker(
    autoencoder: LeakageAutoencoder,
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """
    Make the function that computes RLS.

    Parameters
    ----------
    autoencoder : LeakageAutoencoder
        Weights.

    Returns
    -------
    callable
        From series and times to RLS, in %.
    """

    def make(series: np.ndarray, times_s: np.ndarray) -> np.ndarray:
        return residual_signals(
            series, times_s, estimate_arrival(series, times_s), autoencoder
        ).rls

    return make


def ktrans_maker(
    tracer: Tracer, t10_s: np.ndarray | float, artery: np.ndarray | None
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """
    Make the function that computes Ktrans by the Patlak model.

    Parameters
    ----------
    tracer : Tracer
        Acquisition and contrast agent.
    t10_s : float or ndarray of float, shape (n_voxels,)
        T1 before contrast, in s.
    artery : ndarray of bool, shape (n_voxels,), or None
        The user's artery; detected in each series where None.

    Returns
    -------
    callable
        From series and times to Ktrans, in 1/min.
    """

    def make(series: np.ndarray, times_s: np.ndarray) -> np.ndarray:
        arrival = estimate_arrival(series, times_s)
        baseline = series[:, : arrival.frame].mean(axis=1)
        concentration = signal_to_concentration(
            series, baseline, t10_s, tracer.tr_s, tracer.flip_angle_deg, tracer.r1
        )
        user = None if artery is None else series[artery]
        onset = (arrival.time_s, arrival.frame)
        aif = choose_aif(series, concentration, times_s, onset, tracer, 'auto', user)
        return np.asarray(fit_patlak(concentration, aif.plasma, times_s).ktrans)

    return make


def evaluate_series(
    series: DceSeries, autoencoder: LeakageAutoencoder
) -> tuple[pd.DataFrame, dict[str, float]]:
    """
    Evaluate one series of a dataset.

    Parameters
    ----------
    series : DceSeries
        Image, timing and masks.
    autoencoder : LeakageAutoencoder
        Weights.

    Returns
    -------
    DataFrame
        Robustness table; without Ktrans where repetition time or flip angle is unknown.
    dict
        Correlation and SSIM of RLS with Ktrans, empty without Ktrans.
    """
    signals = series.frames.curves(series.brain)
    makers = {'RLS': rls_maker(autoencoder)}
    timing = series.timing
    if timing.tr_s is not None and timing.flip_angle_deg is not None:
        tracer = Tracer(
            timing.tr_s,
            timing.flip_angle_deg,
            DEFAULT_R1,
            DEFAULT_HEMATOCRIT,
            DEFAULT_T10_BLOOD_S,
        )
        artery = None if series.aif_mask is None else series.aif_mask[series.brain]
        makers['Ktrans'] = ktrans_maker(tracer, DEFAULT_T10_S, artery)
    table = robustness_table(signals, series.times_s, series.brain, makers)
    if 'Ktrans' not in makers:
        return table, {}
    maps = [make(signals, series.times_s) for make in makers.values()]
    return table, similarity_to_ktrans(maps[0], maps[1], series.brain)


def main(argv: Sequence[str]) -> int:
    """
    Run ``neurolesion-tools evaluate leakage``.

    Parameters
    ----------
    argv : sequence of str
        Arguments after the room's name.

    Returns
    -------
    int
        Exit code.
    """
    chosen = _parser().parse_args(argv)
    from .cohort import iterate_series

    model = find_model(ROOM, Path(__file__).parent, chosen.weights_dir)
    autoencoder = load_autoencoder(load_weights(model.weights, model.sha256))
    tables, links = [], []
    for series in iterate_series(chosen.bids_dir, tuple(chosen.derivatives)):
        table, link = evaluate_series(series, autoencoder)
        table.insert(0, 'series', series.image.stem)
        tables.append(table)
        links.append({'series': series.image.stem, **link})
    _write(chosen.out, pd.concat(tables, ignore_index=True), pd.DataFrame(links))
    return ExitCode.OK


def _write(out: Path, table: pd.DataFrame, links: pd.DataFrame) -> None:
    make_folder(out)
    table = table.round(DECIMALS)
    write_text(out / 'leakage_robustness.tsv', table.to_csv(sep='\t', index=False, na_rep='n/a'))
    write_text(
        out / 'leakage_rls_ktrans.tsv',
        links.round(DECIMALS).to_csv(sep='\t', index=False, na_rep='n/a'),
    )
    mean = table.groupby(['map', 'data'], sort=False)[['r2', 'psnr_db', 'ssim']].mean()
    summary = mean.round(DECIMALS).reset_index()
    write_text(out / 'leakage_evaluation.json', summary.to_json(orient='records', indent=2) + '\n')
    shown = Table(
        title=f'Agreement with the full data, mean of {table["series"].nunique()} series'
    )
    for column in summary.columns:
        shown.add_column(column)
    for row in summary.itertuples(index=False):
        shown.add_row(*(f'{value:.3f}' if isinstance(value, float) else value for value in row))
    console = Console()
    console.print(shown)
    if 'r' in links:
        console.print(
            f'RLS with Ktrans: correlation {links["r"].mean():.3f}, '
            f'SSIM {links["ssim"].mean():.3f}'
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='neurolesion-tools evaluate leakage',
        description='Compare RLS and Ktrans of reduced series with those of the full ones.',
    )
    parser.add_argument('bids_dir', type=Path, help='BIDS dataset with DCE series')
    parser.add_argument('out', type=Path, help='folder for the tables')
    parser.add_argument('--weights-dir', type=Path, help='weights other than the embedded ones')
    parser.add_argument(
        '--derivatives', type=Path, nargs='*', default=[], help='datasets with brain masks'
    )
    return parser


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
