"""Workflows of the lgg room: a mask on the native images, and its way to the templates."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from nipype import Node, Workflow
from nipype.interfaces import utility as niu

from ...compute.images import read_header
from ...compute.weights import find_model
from ...config import ComputeConfig
from ...errors import BadDataError
from ...inputs.collect import SubjectInputs
from ...outputs.provenance import raw_uri
from ...prep.grids import is_sheared
from ...prep.normalize import init_maps_to_template_wf
from ...prep.place import Place
from ...prep.session import MrImages, PrepImage, share_grid
from .interfaces import SegmentLgg
from .model.preprocess import CHANNELS, FLAIR

ROOM = 'lgg'

# Python with torch and the network's activations; then channels, slices and probabilities as
# float32, some of them twice.
CHILD_GB = 1.5
VOXEL_BYTES = 64
GB = 1e9


def init_lgg_wf(inputs: SubjectInputs, place: Place) -> list[Workflow]:
    """
    Outline lower-grade glioma on the raw images of one session.

    Parameters
    ----------
    inputs : SubjectInputs
        Images of the session.
    place : Place
        Settings, templates and the images that preparation handles.

    Returns
    -------
    list of Workflow
        The native part and, where there are templates, the part that needs their transforms.

    Raises
    ------
    BadDataError
        If the session has no image that preparation can handle, or the card cannot be read.
    MissingInputError
        If the model is not there.
    """
    session = place.session.mr
    if session is None:
        raise BadDataError(f'{inputs.label} has no image thick enough to be prepared.')
    parts = [_init_native_wf(session, place)]
    if place.spaces:
        images = used_images(session)
        paths = [image.path for image in images]
        parts.append(init_maps_to_template_wf(ROOM, paths, place))
    return parts


def used_images(session: MrImages) -> list[PrepImage]:
    """
    Choose the images that the network reads.

    Parameters
    ----------
    session : MrImages
        FLAIR is among them.

    Returns
    -------
    list of PrepImage
        FLAIR first: it gives the names of what is written.
    """
    found = [image for image in (session.reference, *session.others) if image.name in CHANNELS]
    return sorted(found, key=lambda image: image.name != FLAIR)


def _is_aligned(session: MrImages) -> bool:
    """Whether the images share the grid of the reference, and one that ITK can represent."""
    reference = session.reference.path
    return not is_sheared(read_header(reference).get_best_affine()) and all(
        share_grid(image.path, reference) for image in used_images(session)
    )


def _init_native_wf(session: MrImages, place: Place) -> Workflow:
    """
    Outline the tumour on the grid that the images share, else on that of the reference.

    Inputs
    ------
    <reference>_mask : brain mask, where the model reads the brain alone
    <reference> : the prepared reference, where the images do not share its grid
    <name>_to_reference : rigid transform of each other image, likewise

    Outputs
    -------
    lgg_maps, lgg_metadata : maps under the keys of the spec and what the sidecars say
    """
    workflow = Workflow(name=f'{ROOM}_wf')
    images, reference = used_images(session), session.reference
    outputnode = Node(
        niu.IdentityInterface(fields=['lgg_maps', 'lgg_metadata']), name='outputnode'
    )
    model = describe_model(place.config.compute)
    segment = _init_segment_node(session, place, model)
    outputs = Node(niu.Merge(2), name='outputs', run_without_submitting=True)
    ds_mask = place.sink(ROOM, images[0].path, 'ds_mask')
    ds_mask.inputs.sources = [str(image.path) for image in images[1:]]
    workflow.connect([
        (segment, outputs, [('maps', 'in1'), ('tables', 'in2')]),
        (outputs, ds_mask, [('out', 'in_files')]),
        (segment, ds_mask, [('metadata', 'metadata')]),
        (segment, outputnode, [('maps', 'lgg_maps'), ('metadata', 'lgg_metadata')]),
    ])  # fmt: skip
    wires = [(f'{reference.name}_mask', 'brain_mask')] if model['stripped'] else []
    if not _is_aligned(session):
        moved = [f'{image.name}_to_reference' for image in images if image is not reference]
        wires += [(reference.name, 'grid'), *((name, name) for name in moved)]
        ds_mask.inputs.spatial_reference = raw_uri(reference.path, place.config.run.bids_dir)
    if wires:
        fields = [source for source, _ in wires]
        inputnode = Node(niu.IdentityInterface(fields=fields), name='inputnode')
        workflow.connect([(inputnode, segment, wires)])
    workflow.__desc__ = _methods(session, place)
    return workflow


def _init_segment_node(session: MrImages, place: Place, model: dict[str, Any]) -> Node:
    compute, settings = place.config.compute, place.config.lgg
    voxels = float(np.prod(read_header(session.reference.path).get_data_shape()[:3], dtype=float))
    interface = SegmentLgg(
        model=model,
        settings=dataclasses.asdict(settings),
        device=compute.device,
        use_gpu=compute.device.startswith('cuda'),
        **{image.name: str(image.path) for image in used_images(session)},
    )
    mem_gb = CHILD_GB + voxels * VOXEL_BYTES / GB
    return place.child(interface, 'segment', mem_gb, compute.omp_nthreads)


def describe_model(compute: ComputeConfig) -> dict[str, Any]:
    """
    Say where the weights lie, which checksum they have and what they need.

    Parameters
    ----------
    compute : ComputeConfig
        ``weights_dir`` is taken before the embedded weights.

    Returns
    -------
    dict
        ``card``, ``weights``, ``sha256`` and ``stripped``: whether the brain alone is read.
    """
    model = find_model(ROOM, Path(__file__).parent, compute.weights_dir)
    return {
        'card': str(model.card_path),
        'weights': str(model.weights),
        'sha256': model.sha256,
        'stripped': bool(model.card.get('unet2d', {}).get('stripped', False)),
    }


def _methods(session: MrImages, place: Place) -> str:
    """Methods text of what these images and settings make the room do."""
    settings = place.config.lgg
    labels = [image.modality.label for image in used_images(session)]
    others = f', with {" and ".join(labels[1:])} as further channels' if labels[1:] else ''
    if len(labels) < len(CHANNELS):
        others = f', also in place of what was missing{others}'
    mirrored = 'averaged over mirrored copies' if settings.mirroring else 'not mirrored'
    dropped = [f'connected lesions below {settings.min_lesion_mm3:g} mm³']
    if settings.core_share:
        dropped.append(f'those whose core was below {settings.core_share:g} of the most solid one')
    if settings.largest_only:
        dropped.append('all but the largest of the others')
    return (
        f'Lower-grade glioma was outlined slice by slice on {labels[0]}{others}, with a '
        '2D U-Net [@ronneberger2015] after Buda et al. [@buda2019], predictions '
        f'{mirrored}; {" and ".join(dropped)} were dropped.'
    )
