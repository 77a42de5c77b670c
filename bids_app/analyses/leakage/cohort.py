"""DCE series of a BIDS dataset, for training and evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import nibabel as nib
import numpy as np

from ...compute.frames import Frames
from ...compute.images import is_same_grid, read_image, read_mask, read_volume
from ...config import RunConfig
from ...errors import BadDataError, MissingInputError
from ...inputs.collect import (
    AIF_MASKS,
    BRAIN_MASKS,
    BidsImage,
    collect_inputs,
    find_user_mask,
)
from ...inputs.layout import check_dataset
from ...inputs.timing import DceTiming, series_timing
from ...prep.brainmask import mask_brain
from . import ANALYSIS
from .train import CohortSample

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TUMOUR_MASKS: Final = (
    'label-tumor_mask', 'label-lesion_mask', 'label-WT_mask', 'seg-tumor_dseg',
)  # fmt: skip


@dataclass(frozen=True)
class DceSeries:
    """
    One DCE series and its brain mask.

    Attributes
    ----------
    patient : str
        Label of the subject.
    image : BidsImage
        File and metadata.
    nifti : Nifti1Image
        The image.
    frames : Frames
        Its volumes.
    timing : DceTiming
        Times of the frames, repetition time and flip angle.
    brain : ndarray of bool, shape (x, y, z)
        The user's mask, else one made as in a run without a T1w image.
    aif_mask : ndarray of bool, shape (x, y, z), or None
        The user's artery.
    """

    patient: str
    image: BidsImage
    nifti: nib.Nifti1Image
    frames: Frames
    timing: DceTiming
    brain: np.ndarray
    aif_mask: np.ndarray | None

    @property
    def times_s(self) -> np.ndarray:
        """Time of each frame since the first, in s."""
        return np.asarray(self.timing.times_s)


def iterate_series(bids_dir: Path, derivatives: tuple[Path, ...] = ()) -> Iterator[DceSeries]:
    """
    Open the DCE series of a dataset one after the other.

    Parameters
    ----------
    bids_dir : Path
        Root of the raw dataset.
    derivatives : tuple of Path
        Derivatives datasets searched for brain and artery masks.

    Yields
    ------
    DceSeries
        Of every subject, session and run.

    Raises
    ------
    InvalidDatasetError
        If the folder is no BIDS dataset.
    NothingSelectedError
        If the dataset has no DCE series.
    BadDataError
        If an image or its timing is wrong.
    """
    check_dataset(bids_dir)
    run = RunConfig(bids_dir=bids_dir, output_dir=bids_dir, derivatives=derivatives)
    for inputs in collect_inputs(run, {'dce': ANALYSIS.queries['dce']}):
        for image in inputs.images['dce']:
            yield _open(inputs.subject, image, run)


def _open(patient: str, image: BidsImage, run: RunConfig) -> DceSeries:
    nifti = read_image(image.path)
    timing = series_timing(image, nifti.header)
    frames = Frames(nifti)
    baseline = np.mean(frames[:3], axis=0)
    own = find_user_mask(image, run, BRAIN_MASKS)
    brain = (
        read_mask(own, nifti)
        if own
        else mask_brain(baseline, nifti.affine, image.path, 'DCE').mask
    )
    artery = find_user_mask(image, run, AIF_MASKS)
    return DceSeries(
        patient,
        image,
        nifti,
        frames,
        timing,
        brain & (baseline > 0),
        read_mask(artery, nifti) if artery else None,
    )


def load_cohort(bids_dir: Path, masks: Path | None) -> list[CohortSample]:
    """
    Load the slices without tumour of all DCE series.

    Parameters
    ----------
    bids_dir : Path
        Root of the raw dataset.
    masks : Path or None
        Derivatives dataset with tumour masks or labels on the grid of each series; None where
        no subject has a tumour.

    Returns
    -------
    list of CohortSample
        One for each series that has a slice without tumour.

    Raises
    ------
    MissingInputError
        If there is no such derivatives dataset, or a series has no mask in it.
    BadDataError
        If a mask lies on another grid.
    """
    if masks is not None and not masks.is_dir():
        raise MissingInputError(f'{masks} is not a folder: correct --masks.')
    samples = []
    derivatives = () if masks is None else (masks,)
    run = RunConfig(bids_dir=bids_dir, output_dir=bids_dir, derivatives=derivatives)
    for series in iterate_series(bids_dir, derivatives):
        inside = series.brain
        if masks is not None:
            inside = inside & tumour_free_slices(_tumour(series, masks, run), series.nifti)
        if inside.any():
            samples.append(
                CohortSample(series.patient, series.frames.curves(inside), series.times_s)
            )
    return samples


def tumour_free_slices(tumour: np.ndarray, image: nib.Nifti1Image) -> np.ndarray:
    """
    Mark the axial slices that no tumour touches.

    Parameters
    ----------
    tumour : ndarray of bool, shape (x, y, z)
        Tumour mask.
    image : Nifti1Image
        Image of that grid, in any orientation.

    Returns
    -------
    ndarray of bool, shape (x, y, z)
        True in slices without tumour.
    """
    codes = nib.aff2axcodes(image.affine)
    axis = next(index for index, code in enumerate(codes) if code in 'SI')
    others = tuple(index for index in range(3) if index != axis)
    free = ~tumour.any(axis=others, keepdims=True)
    return np.broadcast_to(free, tumour.shape)


def _tumour(series: DceSeries, masks: Path, run: RunConfig) -> np.ndarray:
    path = find_user_mask(series.image, run, TUMOUR_MASKS)
    if path is None:
        raise MissingInputError(
            f'{series.image.path} has no tumour mask in {masks}: add '
            f'{series.image.stem}_label-tumor_mask.nii.gz, all zero where there is no tumour.'
        )
    image, data = read_volume(path)
    if not is_same_grid(data.shape, image.affine, series.brain.shape, series.nifti.affine):
        raise BadDataError(f'{path} lies on another grid than {series.image.path}: resample it.')
    return np.asarray(data > 0.5)
