"""Spatial preparation of one session outside a run: the same programs, one after the other."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..compute.child import ChildError
from ..compute.images import write_text
from ..errors import BadDataError
from .interfaces import Coregister, Strip

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .session import MrImages, PrepImage

DONE_FILE: Final = 'prepared.json'


@dataclass(frozen=True)
class Prepared:
    """
    The images of a session after preparation.

    Attributes
    ----------
    images : mapping of str to Path
        Bias-corrected image of each query, on its own grid.
    transforms : mapping of str to Path
        Rigid transform to the reference of each other image.
    reference : str
        Query of the reference.
    brain_mask : Path
        On the grid of the reference.
    left_out : tuple of str
        One sentence on each image that could not be aligned.
    """

    images: Mapping[str, Path]
    transforms: Mapping[str, Path]
    reference: str
    brain_mask: Path
    left_out: tuple[str, ...] = ()


def prepare_session(session: MrImages, folder: Path, seed: int, threads: int = 1) -> Prepared:
    """
    Mask the brain of a session's reference and align the other images to it, as a run does.

    Parameters
    ----------
    session : MrImages
        Reference and the other images.
    folder : Path
        Gets all files; what is there already is taken.
    seed, threads : int
        Of the programs.

    Returns
    -------
    Prepared

    Raises
    ------
    BadDataError
        If the reference cannot be prepared.
    """
    folder = folder.absolute()
    reference = session.reference
    stripped = _run(
        Strip(contrast=reference.modality.contrast, **_names(reference)),
        reference, folder / 'strip', seed, threads,
    )  # fmt: skip
    images = {reference.name: Path(stripped['image'])}
    transforms = {}
    left_out = []
    for image in session.others:
        interface = Coregister(
            reference=stripped['image'], reference_mask=stripped['brain_mask'], **_names(image)
        )
        try:
            aligned = _run(interface, image, folder / f'align_{image.name}', seed, threads)
        except BadDataError as error:
            # The network does without a sequence; it would be misled by one out of place.
            left_out.append(f'{image.path} was left out: {error}')
            continue
        images[image.name] = Path(aligned['image'])
        transforms[image.name] = Path(aligned['transform'])
    mask = Path(stripped['brain_mask'])
    return Prepared(images, transforms, reference.name, mask, tuple(left_out))


def _names(image: PrepImage) -> dict[str, str]:
    names = {
        'in_file': str(image.path.absolute()),
        'image_key': image.modality.key,
        'mask_key': image.modality.mask,
    }
    return names | ({'user_mask': str(image.user_mask.absolute())} if image.user_mask else {})


def _run(
    interface: Any,  # noqa: ANN401
    image: PrepImage,
    folder: Path,
    seed: int,
    threads: int,
) -> dict[str, str]:
    done = folder / DONE_FILE
    source = image.path.stat()
    key = [str(image.path.absolute()), source.st_size, source.st_mtime_ns, str(image.user_mask)]
    if done.is_file():
        written = json.loads(done.read_text())
        if written['key'] == key:
            return dict(written['files'])
    folder.mkdir(parents=True, exist_ok=True)
    interface.inputs.random_seed = seed
    interface.inputs.num_threads = threads
    try:
        result = interface.run(cwd=str(folder))
    except ChildError as error:
        raise BadDataError(str(error)) from error
    files = {
        name: str(value)
        for name, value in result.outputs.get_traitsfree().items()
        if isinstance(value, str)
    }
    write_text(done, json.dumps({'key': key, 'files': files}, indent=1))
    return files
