"""Results of kinetic fits, and the walk through a series that all fits share."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bids_app.analyses.leakage.model.threads import in_parallel

CHUNK_VALUES = 1 << 18
CHUNK_VALUES_CPU = 1 << 20
CHUNK_VALUES_GPU = 1 << 24
MIN_CHUNK_VOXELS = 1024

FloatMap = NDArray[np.floating]
Series = NDArray[np.generic] | torch.Tensor


class PatlakFit(NamedTuple):
    """Patlak parameters: ``ktrans`` in 1/min, ``vp``, residual sum of squares in mM^2."""

    ktrans: FloatMap
    vp: FloatMap
    residual_ss: FloatMap


class ToftsFit(NamedTuple):
    """Tofts parameters: ``ktrans`` in 1/min, ``ve``, residual sum of squares in mM^2."""

    ktrans: FloatMap
    ve: FloatMap
    residual_ss: FloatMap


class ExtendedToftsFit(NamedTuple):
    """Extended Tofts: ``ktrans`` in 1/min, ``vp``, ``ve``, residual sum of squares in mM^2."""

    ktrans: FloatMap
    vp: FloatMap
    ve: FloatMap
    residual_ss: FloatMap


class ExchangeFit(NamedTuple):
    """2CXM: ``fp`` in mL/100mL/min, ``ps`` in 1/min, ``vp``, ``ve``, residual_ss in mM^2."""

    fp: FloatMap
    ps: FloatMap
    vp: FloatMap
    ve: FloatMap
    residual_ss: FloatMap


class UptakeFit(NamedTuple):
    """2CUM: ``fp`` in mL/100mL/min, ``ps`` in 1/min, ``vp``, residual sum of squares in mM^2."""

    fp: FloatMap
    ps: FloatMap
    vp: FloatMap
    residual_ss: FloatMap


def output_type(tissue: Series) -> np.dtype[np.floating]:
    """
    Type of the fitted maps: float64 for a float64 series, float32 for any other.

    Parameters
    ----------
    tissue : ndarray or Tensor
        Series that is fitted.

    Returns
    -------
    dtype
        Type of each fitted map.

    Examples
    --------
    >>> print(output_type(np.zeros(2, np.int16)))
    float32
    """
    if isinstance(tissue, torch.Tensor):
        wide = tissue.dtype == torch.float64
    else:
        wide = tissue.dtype.kind == 'f' and tissue.dtype.itemsize > 4
    return np.dtype(np.float64 if wide else np.float32)


class MapWriter:
    """
    Rows of output maps that take float64 results and never overflow to infinity.

    Parameters
    ----------
    tissue : ndarray or Tensor, shape (n_voxels, n_times)
        Series that is fitted; decides the type of the maps.
    count : int
        Number of maps.

    Examples
    --------
    >>> writer = MapWriter(np.zeros((2, 5), np.float32), 1)
    >>> writer.put(0, slice(0, 2), np.array([1.0, 1e99]))
    >>> print(writer.maps)
    [[1.0000000e+00 3.4028235e+38]]
    """

    def __init__(self, tissue: Series, count: int) -> None:
        self.maps = np.zeros((count, tissue.shape[0]), dtype=output_type(tissue))
        self._limit = float(np.finfo(self.maps.dtype).max)

    def put(self, row: int, voxels: slice, values: NDArray[np.float64]) -> None:
        """
        Write one map's values for some voxels.

        Parameters
        ----------
        row : int
            Number of the map.
        voxels : slice
            Voxels written.
        values : ndarray of float64
            Their values.
        """
        self.maps[row, voxels] = np.clip(values, -self._limit, self._limit)


def voxel_chunks(
    tissue: NDArray[np.generic],
) -> Iterator[tuple[slice, NDArray[np.float64], NDArray[np.float64]]]:
    """
    Walk through a series in float64 chunks that stay in the processor's cache.

    Parameters
    ----------
    tissue : ndarray, shape (n_voxels, n_times)
        Series of any numeric type and byte order.

    Yields
    ------
    voxels : slice
        Voxels of the chunk.
    values : ndarray of float64, shape (n_chunk, n_times)
        Their curves; a curve with a value that is not finite, or whose square is not, is zeroed.
    energy : ndarray of float64, shape (n_chunk,)
        Sum of squares of each curve.

    Examples
    --------
    >>> for voxels, values, energy in voxel_chunks(np.array([[1, 2], [0, np.inf]])):
    ...     print(voxels, values.tolist(), energy)
    slice(0, 2, None) [[1.0, 2.0], [0.0, 0.0]] [5. 0.]
    """
    for voxels in chunk_slices(tissue):
        yield voxels, *read_chunk(tissue, voxels)


def chunk_slices(tissue: NDArray[np.generic]) -> list[slice]:
    """
    Cut a series into chunks that stay in the processor's cache.

    Parameters
    ----------
    tissue : ndarray, shape (n_voxels, n_times)
        Series.

    Returns
    -------
    list of slice
        Voxels of each chunk.

    Examples
    --------
    >>> chunk_slices(np.zeros((3, 5)))
    [slice(0, 3, None)]
    """
    n_voxels, n_times = tissue.shape
    size = max(1, CHUNK_VALUES // max(n_times, 1))
    return [slice(start, min(start + size, n_voxels)) for start in range(0, n_voxels, size)]


def read_chunk(
    tissue: NDArray[np.generic], voxels: slice
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """
    Curves of some voxels and their sums of squares, as `voxel_chunks` yields them.

    Parameters
    ----------
    tissue : ndarray, shape (n_voxels, n_times)
        Series of any numeric type and byte order.
    voxels : slice
        Voxels wanted.

    Returns
    -------
    values : ndarray of float64, shape (n_chunk, n_times)
        Their curves.
    energy : ndarray of float64, shape (n_chunk,)
        Sum of squares of each curve.

    Examples
    --------
    >>> read_chunk(np.array([[1, 2], [0, np.inf]]), slice(1, 2))
    (array([[0., 0.]]), array([0.]))
    """
    values = tissue[voxels].astype(np.float64)
    with np.errstate(over='ignore', invalid='ignore'):
        energy = np.einsum('ij,ij->i', values, values)
    bad = ~np.isfinite(energy)
    if bad.any():
        values[bad] = 0.0
        energy[bad] = 0.0
    return values, energy


def _load_chunk(
    tissue: Series, voxels: slice, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Curves of some voxels in float64 on the device, and the sum of squares of each."""
    part = tissue[voxels]
    if not isinstance(part, torch.Tensor):
        part = torch.from_numpy(part.astype(part.dtype.newbyteorder('='), copy=False))
    values = part.to(device=device, dtype=torch.float64)
    energy = (values * values).sum(dim=1)
    bad = ~torch.isfinite(energy)
    if bool(bad.any()):
        values = torch.where(bad[:, None], 0.0, values)
        energy = torch.where(bad, 0.0, energy)
    return values, energy


def fit_chunks(
    tissue: Series,
    count: int,
    width: int,
    device: torch.device,
    fit: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, ...]],
) -> NDArray[np.floating]:
    """
    Apply a batched fit to all voxels, chunk by chunk, on all threads that torch may use.

    Parameters
    ----------
    tissue : ndarray or Tensor, shape (n_voxels, n_times)
        Series of any numeric type and byte order; never copied whole.
    count : int
        Number of maps the fit returns.
    width : int
        Number of values per voxel of the largest array that the fit makes.
    device : torch.device
        Where the fit runs.
    fit : callable
        From curves (n_chunk, n_times) and their sums of squares (n_chunk,), both float64, to
        ``count`` tensors (n_chunk,). A curve that is not finite arrives as zeros.

    Returns
    -------
    ndarray of float, shape (count, n_voxels)
        The maps, of the type of `output_type`.

    Examples
    --------
    >>> series = np.array([[1, 2], [3, 4]], dtype='>i2')
    >>> print(fit_chunks(series, 1, 2, torch.device('cpu'), lambda values, energy: (energy,)))
    [[ 5. 25.]]
    """
    writer = MapWriter(tissue, count)
    n_voxels = tissue.shape[0]
    on_cpu = device.type == 'cpu'
    threads = torch.get_num_threads() if on_cpu else 1
    budget = CHUNK_VALUES_CPU if on_cpu else CHUNK_VALUES_GPU
    share = max(-(-n_voxels // threads), MIN_CHUNK_VOXELS)
    size = max(1, min(budget // max(width, 1), share))
    chunks = [slice(start, min(start + size, n_voxels)) for start in range(0, n_voxels, size)]

    def one_chunk(voxels: slice) -> None:
        values, energy = _load_chunk(tissue, voxels, device)
        for row, result in enumerate(fit(values, energy)):
            writer.put(row, voxels, result.cpu().numpy())

    if not on_cpu:
        for chunk in chunks:
            one_chunk(chunk)
        return writer.maps
    in_parallel(one_chunk, chunks)
    return writer.maps
