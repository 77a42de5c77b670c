"""Workflows of the tumor room: labels on the native images, and their way to the templates."""

from __future__ import annotations

import dataclasses
from functools import cache
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
from ...prep.normalize import init_maps_to_template_wf
from ...prep.place import Place
from ...prep.session import MrImages
from .interfaces import SegmentTumor

ROOM = 'tumor'

# Python with torch and the network's activations; then channels, logits and probabilities as
# float32, some of them twice.
CHILD_GB = 2.0
VOXEL_BYTES = 64
GB = 1e9

NETWORKS = {
    'nnunet': 'a 3D U-Net run by nnU-Net v2 [@isensee2021]',
    'unet3d': 'a 3D U-Net [@cicek2016]',
}

# What a folder of weights holds when it is a trained nnU-Net and no card.
NNUNET_PLANS = 'plans.json'


def init_tumor_wf(inputs: SubjectInputs, place: Place) -> list[Workflow]:
    """
    Label the tumour on the prepared images of one session.

    Parameters
    ----------
    inputs : SubjectInputs
        Images of the session.
    place : Place
        Settings, templates and the images that preparation handles.

    Returns
    -------
    list of Workflow
        The native part and, where there are templates, the part that needs their transforms:
        apart, so that registration can leave the tumour out of its cost.

    Raises
    ------
    BadDataError
        If the session has no image that preparation can handle.
    MissingInputError
        If the model is not there.
    """
    session = place.session.mr
    if session is None:
        raise BadDataError(f'{inputs.label} has no image thick enough to be masked.')
    parts = [_init_native_wf(session, place)]
    if place.spaces:
        images = (session.reference, *session.others)
        paths = [image.path for image in images]
        parts.append(init_maps_to_template_wf(ROOM, paths, place))
    return parts


def _init_native_wf(session: MrImages, place: Place) -> Workflow:
    """
    Label the tumour on the grid of the reference.

    Inputs
    ------
    <name> : each image, bias-corrected
    <name>_to_reference : rigid transform of each image that is not the reference
    <reference>_mask : brain mask

    Outputs
    -------
    lesion_mask : whole tumour on the grid of the reference, where it can be trusted
    tumor_maps, tumor_metadata : maps under the keys of the spec and what the sidecars say
    """
    workflow = Workflow(name=f'{ROOM}_wf')
    reference = session.reference
    names = [reference.name, *(image.name for image in session.others)]
    moved = [f'{image.name}_to_reference' for image in session.others]
    mask = f'{reference.name}_mask'
    inputnode = Node(niu.IdentityInterface(fields=[*names, *moved, mask]), name='inputnode')
    outputnode = Node(
        niu.IdentityInterface(fields=['lesion_mask', 'tumor_maps', 'tumor_metadata']),
        name='outputnode',
    )
    model = describe_model(place.config.compute, place.config.tumor.folds)
    segment = _init_segment_node(session, place, model)
    outputs = Node(niu.Merge(2), name='outputs', run_without_submitting=True)
    ds_labels = place.sink(ROOM, reference.path, 'ds_labels')
    ds_labels.inputs.sources = [str(image.path) for image in session.others]
    workflow.connect([
        (inputnode, segment, [(name, name) for name in [*names, *moved]]),
        (inputnode, segment, [(mask, 'brain_mask')]),
        (segment, outputs, [('maps', 'in1'), ('tables', 'in2')]),
        (outputs, ds_labels, [('out', 'in_files')]),
        (segment, ds_labels, [('metadata', 'metadata')]),
        (segment, outputnode, [('maps', 'tumor_maps'), ('metadata', 'tumor_metadata')]),
    ])  # fmt: skip
    if _is_trusted(session):
        workflow.connect(segment, 'lesion_mask', outputnode, 'lesion_mask')
    workflow.__desc__ = _methods(session, place, NETWORKS[model['recipe']])
    return workflow


def _is_trusted(session: MrImages) -> bool:
    """Whether registration may leave out what was found: not on T1w without agent alone."""
    return session.reference.name != 't1w' or bool(session.others)


def _init_segment_node(session: MrImages, place: Place, model: dict[str, Any]) -> Node:
    compute, settings = place.config.compute, place.config.tumor
    voxels = float(np.prod(read_header(session.reference.path).get_data_shape()[:3], dtype=float))
    interface = SegmentTumor(
        reference=session.reference.name,
        model=model,
        settings={
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(settings).items()
        },
        memory_gb=compute.mem_gb,
        device=compute.device,
        use_gpu=compute.device.startswith('cuda'),
    )
    mem_gb = CHILD_GB + voxels * VOXEL_BYTES / GB
    return place.child(interface, 'segment', mem_gb, compute.omp_nthreads)


def describe_model(compute: ComputeConfig, folds: tuple[str, ...]) -> dict[str, Any]:
    """
    Say where the weights lie and which checksums they have.

    Parameters
    ----------
    compute : ComputeConfig
        ``tumor_model`` is taken before ``weights_dir``, and that before the embedded weights.
    folds : tuple of str
        Folds of a trained nnU-Net.

    Returns
    -------
    dict
        ``kind`` is ``folder`` for a trained nnU-Net and ``card`` for weights with a card.
    """
    folder = compute.tumor_model
    if folder is None and compute.weights_dir and (compute.weights_dir / NNUNET_PLANS).is_file():
        # A folder that our training wrote has a card too, which says more.
        has_card = (compute.weights_dir / f'{ROOM}.json').is_file()
        folder = None if has_card else compute.weights_dir
    if folder is not None:
        return _describe_folder(folder, folds)
    model = find_model(ROOM, Path(__file__).parent, compute.weights_dir)
    return {
        'kind': 'card',
        'recipe': str(model.card['recipe']),
        'card': str(model.card_path),
        'weights': str(model.weights),
        'sha256': model.sha256,
    }


@cache
def _describe_folder(folder: Path, folds: tuple[str, ...]) -> dict[str, Any]:
    """Read a trained nnU-Net once for all sessions: its checksums take all of its files."""
    from ...compute.nnunet.model import read_folder

    found = read_folder(folder, folds)
    return {
        'kind': 'folder',
        'recipe': 'nnunet',
        'folder': str(folder),
        'folds': list(folds),
        'sha256': list(found.sha256),
    }


def _methods(session: MrImages, place: Place, network: str) -> str:
    """Methods text of what these images and settings make the room do."""
    labels = [image.modality.label for image in (session.reference, *session.others)]
    images = ', '.join(labels)
    mirrored = 'averaged over mirrored copies' if place.config.tumor.mirroring else 'not mirrored'
    left_out = (
        ' The whole tumor was left out of the cost of registration [@brett2001].'
        if place.spaces and session.lesion is None and _is_trusted(session)
        else ''
    )
    return (
        f'Edema, enhancing tumor and other tumor core [@baid2021] were labelled on {images} with '
        f'{network}, predictions {mirrored}; connected lesions '
        f'below {place.config.tumor.min_lesion_mm3:g} mm³ were dropped.{left_out}'
    )
