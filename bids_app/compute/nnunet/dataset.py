"""Datasets in nnU-Net's own layout: cases written, read and preprocessed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import nibabel as nib
import numpy as np

from ..images import read_image, save_image

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

READER: Final = 'NibabelIOWithReorient'
"""Voxels reach the network as RAS, last axis first, whatever the order in the file."""

FULL_RESOLUTION: Final = '3d_fullres'
SLICES: Final = '2d'
"""Configuration of networks that see one slice, of constant z, at a time."""


@dataclass(frozen=True)
class LabelPlan:
    """
    What a network learns from the labels.

    Attributes
    ----------
    labels : mapping
        ``labels`` of ``dataset.json``: the value of each class, or the values of each region in
        training.
    class_order : tuple of int
        ``regions_class_order``; empty where classes exclude each other.
    unknown : int or None
        Value of voxels that are inside the regions that hold it, and about which nothing is
        known in the others.
    """

    labels: Mapping[str, int | list[int]]
    class_order: tuple[int, ...] = ()
    unknown: int | None = None

    @property
    def exported(self) -> dict[str, int | list[int]]:
        """The same without the value of unknown parts, which no prediction has."""
        return {
            name: [value for value in values if value != self.unknown]
            if isinstance(values, list)
            else values
            for name, values in self.labels.items()
        }


def case_files(root: Path, name: str, n_channels: int) -> tuple[list[Path], Path]:
    """
    Name the files of a case.

    Parameters
    ----------
    root : Path
        Folder of the dataset, ``Dataset001_<name>``.
    name : str
        Name of the case.
    n_channels : int
        Number of channels.

    Returns
    -------
    images : list of Path
        One for each channel.
    labels : Path
    """
    images = [root / 'imagesTr' / f'{name}_{index:04d}.nii.gz' for index in range(n_channels)]
    return images, root / 'labelsTr' / f'{name}.nii.gz'


def write_case(
    root: Path, name: str, channels: np.ndarray, labels: np.ndarray, like: nib.Nifti1Image
) -> None:
    """
    Write a case; its labels last, so that a case with labels is complete.

    Parameters
    ----------
    root, name : Path, str
        As in `case_files`.
    channels : ndarray of float32, shape (n, x, y, z)
        Images around which all is 0 are cropped; all 0 where a channel is missing.
    labels : ndarray of uint8, shape (x, y, z)
        Labels.
    like : Nifti1Image
        Image of that grid.
    """
    images, path = case_files(root, name, len(channels))
    for channel, image in zip(channels, images, strict=True):
        save_image(channel.astype(np.float32), like, image)
    save_image(labels.astype(np.uint8), like, path)


def read_case(
    root: Path, name: str, n_channels: int
) -> tuple[np.ndarray, np.ndarray, nib.Nifti1Image]:
    """
    Read a case as it was written.

    Parameters
    ----------
    root, name, n_channels : Path, str, int
        As in `case_files`.

    Returns
    -------
    channels : ndarray of float32, shape (n, x, y, z)
    labels : ndarray of uint8, shape (x, y, z)
    image : Nifti1Image
        The labels' image.
    """
    images, path = case_files(root, name, n_channels)
    channels = np.array([np.asanyarray(read_image(file).dataobj) for file in images])
    image = read_image(path)
    return channels.astype(np.float32), np.asanyarray(image.dataobj).astype(np.uint8), image


def describe_dataset(
    channel_names: Sequence[str], plan: LabelPlan, n_cases: int
) -> dict[str, Any]:
    """
    Make the content of ``dataset.json``.

    Parameters
    ----------
    channel_names : sequence of str
        In the order of the files.
    plan : LabelPlan
        Labels.
    n_cases : int
        Number of cases.

    Returns
    -------
    dict
    """
    order = {'regions_class_order': list(plan.class_order)} if plan.class_order else {}
    return {
        'channel_names': {str(index): name for index, name in enumerate(channel_names)},
        'labels': dict(plan.labels),
        **order,
        'numTraining': n_cases,
        'file_ending': '.nii.gz',
        'overwrite_image_reader_writer': READER,
    }


def exported_dataset(dataset: Mapping[str, Any], plan: LabelPlan) -> dict[str, Any]:
    """Content of ``dataset.json`` as a trained model shows it: without the unknown value."""
    return dict(dataset) | {'labels': plan.exported}


def preprocess(
    root: Path,
    names: Sequence[str],
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    folder: Path,
    report: Callable[[int, str], None] = lambda _done, _name: None,
    *,
    configuration: str = FULL_RESOLUTION,
) -> Path:
    """
    Crop, normalise and resample the cases of a dataset, one after the other.

    Parameters
    ----------
    root : Path
        Folder of the dataset.
    names : sequence of str
        Its cases; those already there are left alone.
    plans, dataset : mapping
        Content of ``plans.json`` and ``dataset.json``.
    folder : Path
        Gets the result.
    report : callable
        Is told how many cases are done and the name of the next.
    configuration : str
        Which of the plans'.

    Returns
    -------
    Path
        Folder with the preprocessed cases.
    """
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(dict(plans))
    chosen = manager.get_configuration(configuration)
    place: Path = folder / root.name / chosen.data_identifier
    place.mkdir(parents=True, exist_ok=True)
    preprocessor = DefaultPreprocessor(verbose=False)
    for done, name in enumerate(names):
        report(done, name)
        images, labels = case_files(root, name, len(dataset['channel_names']))
        finished = place / f'{name}.pkl'
        if finished.is_file() and finished.stat().st_mtime >= labels.stat().st_mtime:
            continue
        # nnU-Net refuses to overwrite its arrays, and writes the properties last.
        for old in place.glob(f'{name}.b2nd'), place.glob(f'{name}_seg.b2nd'):
            for path in old:
                path.unlink()
        preprocessor.run_case_save(
            str(place / name), [str(path) for path in images], str(labels), manager,
            chosen, dict(dataset),
        )  # fmt: skip
    report(len(names), '')
    return place
