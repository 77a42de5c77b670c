"""Which images of a session are prepared, and which one the others are aligned to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..compute.images import is_same_grid, read_header
from ..config import RunConfig
from ..errors import BadDataError
from ..inputs.collect import (
    BRAIN_MASKS,
    LESION_MASKS,
    BidsImage,
    SubjectInputs,
    find_user_mask,
)
from .brainmask import is_whole_head
from .modalities import CT, CT_QUERY, MR, Modality

Warn = Callable[[str], None]


SHARED_GRID = 'images share a grid'
"""``Alignment`` in sidecars of maps whose room read images of one grid as they are, unmoved."""


@dataclass(frozen=True)
class PrepImage:
    """An image to prepare."""

    name: str
    """Name of its query."""

    modality: Modality
    image: BidsImage
    user_mask: Path | None
    """The user's own brain mask."""

    @property
    def path(self) -> Path:
        """The raw file."""
        return self.image.path


@dataclass(frozen=True)
class Lesion:
    """The user's lesion mask and the image on whose grid it was drawn."""

    path: Path
    drawn_on: str
    """Name of that image's query."""


@dataclass(frozen=True)
class MrImages:
    """The MR images of one session that preparation handles."""

    reference: PrepImage
    """The others are aligned to it, and it is registered to the templates."""

    others: tuple[PrepImage, ...]
    lesion: Lesion | None


@dataclass(frozen=True)
class SessionImages:
    """The images of one session that preparation handles."""

    mr: MrImages | None
    ct: PrepImage | None

    def all(self) -> list[PrepImage]:
        """Every image."""
        mr = [self.mr.reference, *self.mr.others] if self.mr else []
        return [*mr, self.ct] if self.ct else mr


NO_IMAGES = SessionImages(None, None)


def choose_images(subject: SubjectInputs, run: RunConfig, warn: Warn) -> SessionImages:
    """
    Choose one image of each kind, and the reference among them.

    The reference is the T1w image; without one, the image whose coarsest voxel side is the
    smallest, in the order T1w with contrast agent, FLAIR, T2w where several share it. Of several
    images of one kind the first by name is taken, with a warning. Slabs too thin for brain masks
    and registration are left out, with a warning.

    Parameters
    ----------
    subject : SubjectInputs
        Images of the session.
    run : RunConfig
        Dataset and derivatives datasets.
    warn : callable
        Gets one sentence on everything the user should know.

    Returns
    -------
    SessionImages

    Raises
    ------
    BadDataError
        If an image is not 3D, or a lesion mask lies on the grid of no image of the session.
    """
    found = [
        PrepImage(name, modality, image, find_user_mask(image, run, BRAIN_MASKS))
        for name, modality in MR.items()
        if (image := _choose(subject, name, warn)) is not None
    ]
    found = [image for image in found if _is_thick(image, warn)]
    ct_image = _choose(subject, CT_QUERY, warn)
    ct = (
        PrepImage(CT_QUERY, CT, ct_image, find_user_mask(ct_image, run, BRAIN_MASKS))
        if ct_image
        else None
    )
    if not found:
        return SessionImages(None, ct)
    reference = _reference(found)
    others = tuple(image for image in found if image is not reference)
    lesion = _find_lesion((reference, *others), run)
    return SessionImages(MrImages(reference, others, lesion), ct)


def _choose(subject: SubjectInputs, name: str, warn: Warn) -> BidsImage | None:
    images = subject.images.get(name, ())
    if not images:
        return None
    if len(images) > 1:
        kind = CT.label if name == CT_QUERY else MR[name].label
        warn(
            f'{len(images)} {kind} images were found and the first by name, '
            f'{images[0].path.name}, was used; choose with --bids-filter-file.'
        )
    path = images[0].path
    shape = _shape(path)
    if len(shape) != 3:
        raise BadDataError(f'{path} has the shape {shape} where one 3D image is needed.')
    return images[0]


def _shape(path: Path) -> tuple[int, ...]:
    """Shape without the trailing ones of a volume stored as 4D or 5D; of a single slice too."""
    shape = tuple(int(size) for size in read_header(path).get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _is_thick(image: PrepImage, warn: Warn) -> bool:
    zooms = read_header(image.path).get_zooms()[:3]
    if is_whole_head(_shape(image.path), zooms):
        return True
    warn(
        f'{image.path.name} covers too thin a slab of the head to be masked and registered, and '
        'was left out.'
    )
    return False


def _reference(images: list[PrepImage]) -> PrepImage:
    if images[0].name == 't1w':
        return images[0]
    return min(images, key=lambda image: max(read_header(image.path).get_zooms()[:3]))


def _find_lesion(images: tuple[PrepImage, ...], run: RunConfig) -> Lesion | None:
    paths = [find_user_mask(image.image, run, LESION_MASKS) for image in images]
    masks = list(dict.fromkeys(path for path in paths if path))
    if not masks:
        return None
    for image in images:
        if share_grid(masks[0], image.path):
            return Lesion(masks[0], image.name)
    raise BadDataError(
        f'{masks[0]} lies on the grid of no image of its session: resample it to the image it '
        'was drawn on.'
    )


def share_grid(first: Path, second: Path) -> bool:
    """Whether the headers of two images put their voxels at the same places."""
    one, other = (read_header(path).get_best_affine() for path in (first, second))
    return is_same_grid(_shape(first), one, _shape(second), other)
