"""Residual leakage and residual vascular signal of each voxel."""

from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from bids_app.analyses.leakage.model.calibration import calibration_gain
from bids_app.analyses.leakage.model.threads import in_parallel
from bids_app.analyses.leakage.model.timebase import ARRIVAL_FRAME, N_FRAMES, plan_resampling

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from bids_app.analyses.leakage.model.autoencoder import LeakageAutoencoder
    from bids_app.analyses.leakage.model.bolus import BolusArrival
    from bids_app.analyses.leakage.model.timebase import Resampling

ENHANCEMENT_SCALE: Final = 15.0
"""Signal enhancement ratio that is scaled to one."""
REFERENCE_BOX: Final = 4
"""Ones appended to each curve, so that the network keeps the scale in sight."""
PERCENT: Final = 100.0
MIN_BASELINE_FRACTION: Final = 1e-6
"""A baseline below this part of the voxel's own largest signal is no baseline."""
FILL_ROUNDS: Final = 4
"""Times that frames which were not measured are replaced by their reconstruction."""
CHUNK: Final = 4_096
CALIBRATION: Final = "enhancement scaled to a reference by the series' own normal tissue"


class ResidualSignals(NamedTuple):
    """
    Residual signals.

    Attributes
    ----------
    rls, rvs : ndarray of float32, shape (n_voxels,)
        Residual leakage and residual vascular signal, in %; at most one of them is above 0.
    usable : ndarray of bool, shape (n_voxels,)
        False where the baseline is near 0 or a frame is not finite: both signals are 0 there.
    description : dict
        Arrival, resampling, calibration and held frames, for the sidecar.
    gain : ndarray of float64, shape (60,), or None
        Factor of the enhancement at the model's frames that calibrated the series; None where
        the weights ask for none.
    """

    rls: 'NDArray[np.float32]'
    rvs: 'NDArray[np.float32]'
    usable: 'NDArray[np.bool_]'
    description: dict[str, object]
    gain: 'NDArray[np.float64] | None' = None


class Reconstruction(NamedTuple):
    """
    Enhancement curves as the autoencoder sees them and as it expects them.

    Attributes
    ----------
    times_s : ndarray of float, shape (60,)
        When the model's frames lie, in s on the clock of the series.
    enhancement, expected : ndarray of float32, shape (n_voxels, 60)
        Signal enhancement ratio above its minimum (0 during the baseline): measured, and as a
        normal voxel would have shown it.
    measured : ndarray of bool, shape (60,)
        False for frames that the series does not cover.
    """

    times_s: 'NDArray[np.float64]'
    enhancement: 'NDArray[np.float32]'
    expected: 'NDArray[np.float32]'
    measured: 'NDArray[np.bool_]'


def scale_curves(
    series: Tensor,
    plan: 'Resampling',
    n_baseline: int | None = None,
    gain: 'NDArray[np.float64] | None' = None,
) -> tuple[Tensor, Tensor]:
    r"""
    Turn signals into the autoencoder's input.

    .. math:: x = (E - \min_t E) / 15, \quad E = (S - S_0) / S_0

    The baseline frames of ``x`` are 0, and four ones are appended.

    Parameters
    ----------
    series : Tensor of float, shape (n_voxels, n_times)
        Signal, any unit; overwritten where the series is on the model's time base.
    plan : Resampling
        How the series is brought to the model's time base.
    n_baseline : int, optional
        Frames that :math:`S_0` is the mean of; all before the first enhanced frame by default.
    gain : ndarray of float, shape (60,), optional
        Factor of :math:`E`, from :func:`~.calibration.calibration_gain`; none by default.

    Returns
    -------
    curves : Tensor of float, shape (n_voxels, 64)
        Scaled curves with the reference box.
    usable : Tensor of bool, shape (n_voxels,)
        False for voxels that have no baseline or a frame that is not finite.
    """
    n_baseline = plan.arrival.frame if n_baseline is None else n_baseline
    baseline = series[:, :n_baseline].mean(dim=1, keepdim=True)
    largest = series.abs().amax(dim=1, keepdim=True)
    # A comparison with NaN is false, so one frame that is not a number rules the voxel out.
    usable = (baseline > MIN_BASELINE_FRACTION * largest) & (largest < torch.inf)
    series = torch.where(usable, series, 1.0)
    baseline = torch.where(usable, baseline, 1.0)
    measured = torch.from_numpy(plan.measured).to(series.device)
    if plan.weights is not None:
        weights = torch.from_numpy(plan.weights).to(series)
        series = series @ weights.T
    enhancement = (series - baseline) / baseline
    if gain is not None:
        enhancement = enhancement * torch.from_numpy(gain).to(enhancement)
    lowest = enhancement[:, measured].amin(dim=1, keepdim=True)
    curves = torch.ones(
        (len(series), N_FRAMES + REFERENCE_BOX), dtype=series.dtype, device=series.device
    )
    curves[:, :N_FRAMES] = (enhancement - lowest) / ENHANCEMENT_SCALE
    curves[:, : n_baseline if plan.weights is None else ARRIVAL_FRAME] = 0.0
    return curves, usable[:, 0]


def residual_signals(
    series: 'NDArray[Any]',
    times_s: 'NDArray[np.floating]',
    arrival: 'BolusArrival',
    autoencoder: 'LeakageAutoencoder',
    *,
    chunk: int = CHUNK,
    device: str | torch.device = 'cpu',
    n_baseline: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> ResidualSignals:
    r"""
    Compute the residual leakage signal (RLS) and the residual vascular signal (RVS).

    .. math::
        r = \overline{x - AE(x)}, \quad RLS = 1500 \max(-r, 0)\,\%, \quad
        RVS = 1500 \max(r, 0)\,\%

    with the mean over the frames after the baseline that the series covers. A leaking voxel
    enhances later than the autoencoder expects of its code, so its reconstruction is too high.

    Parameters
    ----------
    series : ndarray, shape (n_voxels, n_times)
        Signal, any unit and numeric type; read chunk by chunk, never copied whole.
    times_s : ndarray of float, shape (n_times,)
        Time of each frame since the first, in s.
    arrival : BolusArrival
        Arrival of the bolus, from :func:`~.bolus.estimate_arrival`.
    autoencoder : LeakageAutoencoder
        Trained on normal-appearing voxels.
    chunk : int
        Voxels computed at a time; bounds the memory.
    device : str or torch.device
        Where to compute.
    n_baseline : int, optional
        Frames that the baseline is the mean of; all before the first enhanced one by default.
    dtype : torch.dtype
        Precision of the computation; double costs 0.2 s per 600,000 voxels more and makes the
        small difference of two nearly equal means exact.

    Returns
    -------
    ResidualSignals
        Both signals in %, which voxels were usable, and what was done.
    """
    plan = plan_resampling(times_s, arrival)
    start = plan.arrival.frame if n_baseline is None else n_baseline
    after = torch.from_numpy(plan.measured).clone()
    after[: start if plan.weights is None else ARRIVAL_FRAME] = False
    # The mean over frames as a product: no second array of the chunk's size is made.
    mean = (after / after.sum()).to(device=device, dtype=dtype)
    model = deepcopy(autoencoder).to(device=device, dtype=dtype)
    gain = _gain(series, plan, autoencoder)
    missing = _missing(plan).to(device)
    residual = np.zeros(len(series), dtype=np.float32)
    usable = np.zeros(len(series), dtype=bool)
    numpy_type = np.float64 if dtype == torch.float64 else np.float32

    # Inference mode belongs to a thread, so each one enters it.
    @torch.inference_mode()
    def compute(begin: int) -> None:
        part = slice(begin, begin + chunk)
        signals = torch.from_numpy(np.array(series[part], dtype=numpy_type)).to(device)
        curves, fit = scale_curves(signals, plan, n_baseline, gain)
        difference = (curves - _expect(model, curves, missing))[:, :N_FRAMES]
        mean_difference = torch.where(fit, difference @ mean, 0.0)
        residual[part] = (mean_difference * ENHANCEMENT_SCALE * PERCENT).cpu().numpy()
        usable[part] = fit.cpu().numpy()

    in_parallel(compute, range(0, len(series), chunk))
    description = plan.description | {
        'Calibration': 'none' if gain is None else CALIBRATION,
        'VoxelsWithoutBaseline': int((~usable).sum()),
    }
    return ResidualSignals(
        rls=np.maximum(-residual, 0.0),
        rvs=np.maximum(residual, 0.0),
        usable=usable,
        description=description,
        gain=gain,
    )


def _missing(plan: 'Resampling') -> Tensor:
    """Frames after the arrival that the series does not cover, of all 64 inputs."""
    missing = torch.zeros(N_FRAMES + REFERENCE_BOX, dtype=torch.bool)
    missing[ARRIVAL_FRAME:N_FRAMES] = torch.from_numpy(~plan.measured[ARRIVAL_FRAME:])
    return missing


def _gain(
    series: 'NDArray[Any]', plan: 'Resampling', autoencoder: 'LeakageAutoencoder'
) -> 'NDArray[np.float64] | None':
    """Gain that calibrates a series for these weights; None if they were trained without."""
    if autoencoder.normal_shape is None:
        return None
    reference = autoencoder.normal_shape.double().cpu().numpy()
    return calibration_gain(series, plan, reference)


def _expect(model: 'LeakageAutoencoder', curves: Tensor, missing: Tensor) -> Tensor:
    """Reconstruct; frames that were not measured take what the model expects of them."""
    where = torch.nonzero(missing)[:, 0]
    if not len(where):
        return cast('Tensor', model(curves))
    # Only the missing frames change from round to round, so only their part of the first and
    # the last layer is computed anew.
    first, last = cast('nn.Linear', model.enc[0]), cast('nn.Linear', model.dec[-2])
    entering, leaving, bias = first.weight[:, where].T, last.weight[where].T, last.bias[where]
    hidden = first(curves)
    steady = hidden - curves[:, where] @ entering
    for _ in range(FILL_ROUNDS):
        inner = model.dec[:-2](model.enc[1:](hidden))
        hidden = torch.addmm(steady, torch.sigmoid(torch.addmm(bias, inner, leaving)), entering)
    return cast('Tensor', model.dec(model.enc[1:](hidden)))


def reconstruct(
    series: 'NDArray[Any]',
    times_s: 'NDArray[np.floating]',
    arrival: 'BolusArrival',
    autoencoder: 'LeakageAutoencoder',
    *,
    n_baseline: int | None = None,
    gain: 'NDArray[np.float64] | None' = None,
) -> Reconstruction:
    """
    Reconstruct a few curves, to be plotted beside the measured ones.

    Parameters
    ----------
    series : ndarray, shape (n_voxels, n_times)
        Signal, any unit; a mean curve is one row.
    times_s : ndarray of float, shape (n_times,)
        Time of each frame since the first, in s.
    arrival : BolusArrival
        Arrival of the bolus.
    autoencoder : LeakageAutoencoder
        Trained on normal-appearing voxels.
    n_baseline : int, optional
        Frames that the baseline is the mean of; all before the first enhanced one by default.
    gain : ndarray of float64, shape (60,), optional
        Gain of the whole series, from :class:`ResidualSignals`; none by default.

    Returns
    -------
    Reconstruction
        Enhancement as measured and as expected, on the model's frames.
    """
    plan = plan_resampling(times_s, arrival)
    model = deepcopy(autoencoder).to(device='cpu', dtype=torch.float32)
    with torch.inference_mode():
        signals = torch.from_numpy(np.array(series, dtype=np.float32))
        curves, _ = scale_curves(signals, plan, n_baseline, gain)
        expected = _expect(model, curves, _missing(plan))
    factor = np.float32(ENHANCEMENT_SCALE) / (np.ones(N_FRAMES) if gain is None else gain)
    scaled = [
        part[:, :N_FRAMES].numpy() * factor.astype(np.float32) for part in (curves, expected)
    ]
    return Reconstruction(plan.times_s, scaled[0], scaled[1], plan.measured)
