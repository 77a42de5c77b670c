"""Workflows of the lvo room: maps and scores on the grid of a CT, and to templates."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from nipype import Node, Workflow
from nipype.interfaces import utility as niu

from ...compute.images import read_header
from ...compute.weights import find_model, read_planned_card
from ...config import ComputeConfig
from ...errors import BadDataError, MissingInputError
from ...inputs.collect import SubjectInputs
from ...prep.modalities import CT_QUERY
from ...prep.normalize import init_maps_to_template_wf
from ...prep.place import Place
from ...prep.session import PrepImage
from .chain import STAGES
from .interfaces import LocateOcclusion

ROOM = 'lvo'

Models = dict[str, dict[str, Any]]
"""Of `describe_models`: card, weights and checksum of each network."""

# Python with torch and the networks' activations; then CT, brain and maps as float32, some of
# them twice.
CHILD_GB = 3.0
VOXEL_BYTES = 64
GB = 1e9


def init_lvo_wf(inputs: SubjectInputs, place: Place) -> list[Workflow]:
    """
    Look for the occlusion of a large artery on the head CT of one session.

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
        If the session has no CT that preparation can handle, or a card cannot be read.
    MissingInputError
        If a model, or the user's own territory, is not there.
    """
    image = place.session.ct
    if image is None:
        raise BadDataError(f'{inputs.label} has no head CT that can be prepared.')
    parts = [_init_native_wf(image, place)]
    if place.spaces:
        parts.append(init_maps_to_template_wf(ROOM, [image.path], place, f'{CT_QUERY}_'))
    return parts


def _init_native_wf(image: PrepImage, place: Place) -> Workflow:
    """
    Map arteries and the difference of the hemispheres on the grid of the CT, and score it.

    Inputs
    ------
    ct, ct_mask : CT in HU and its brain mask

    Outputs
    -------
    lvo_maps, lvo_metadata : maps under the keys of the spec and what the sidecars say
    """
    workflow = Workflow(name=f'{ROOM}_wf')
    mask = f'{CT_QUERY}_mask'
    inputnode = Node(niu.IdentityInterface(fields=[CT_QUERY, mask]), name='inputnode')
    outputnode = Node(
        niu.IdentityInterface(fields=['lvo_maps', 'lvo_metadata']), name='outputnode'
    )
    models = describe_models(place.config.compute)
    locate = _init_locate_node(image, place, models)
    outputs = Node(niu.Merge(2), name='outputs', run_without_submitting=True)
    ds_maps = place.sink(ROOM, image.path, 'ds_maps')
    ds_maps.inputs.metrics_key = 'scores'
    if place.config.compute.lvo_territory_atlas:
        ds_maps.inputs.sources = [str(place.config.compute.lvo_territory_atlas)]
    workflow.connect([
        (inputnode, locate, [(CT_QUERY, 'ct'), (mask, 'brain_mask')]),
        (locate, outputs, [('maps', 'in1'), ('tables', 'in2')]),
        (outputs, ds_maps, [('out', 'in_files')]),
        (locate, ds_maps, [('metadata', 'metadata')]),
        (locate, outputnode, [('maps', 'lvo_maps'), ('metadata', 'lvo_metadata')]),
    ])  # fmt: skip
    workflow.__desc__ = _methods(place, models)
    return workflow


def _init_locate_node(image: PrepImage, place: Place, models: Models) -> Node:
    compute = place.config.compute
    voxels = float(np.prod(read_header(image.path).get_data_shape()[:3], dtype=float))
    interface = LocateOcclusion(
        source=str(image.path),
        models=models,
        settings=dataclasses.asdict(place.config.lvo),
        memory_gb=compute.mem_gb,
        device=compute.device,
        use_gpu=compute.device.startswith('cuda'),
    )
    if atlas := compute.lvo_territory_atlas:
        if not atlas.is_file():
            raise MissingInputError(f'{atlas} is missing: correct --lvo-territory-atlas.')
        interface.inputs.territory = str(atlas)
    mem_gb = CHILD_GB + voxels * VOXEL_BYTES / GB
    return place.child(interface, 'locate', mem_gb, compute.omp_nthreads)


def describe_models(compute: ComputeConfig) -> Models:
    """
    Say where the weights of each network lie and which checksums they have.

    Parameters
    ----------
    compute : ComputeConfig
        ``weights_dir`` is taken before the embedded weights.

    Returns
    -------
    dict
        For each of `chain.STAGES` ``card``, ``weights`` and ``sha256``.

    Raises
    ------
    MissingInputError
        If one of them is not there.
    """
    found = {}
    for stage in STAGES:
        model = find_model(ROOM, Path(__file__).parent, compute.weights_dir, f'{ROOM}_{stage}')
        found[stage] = {
            'card': str(model.card_path),
            'weights': str(model.weights),
            'sha256': model.sha256,
        }
    return found


def _methods(place: Place, models: Models) -> str:
    """Methods text of what these settings make the room do."""
    own = place.config.compute.lvo_territory_atlas
    territory = "the user's own territory" if own else 'the territory'
    mirrored = 'averaged over mirrored images' if place.config.lvo.mirroring else 'not mirrored'
    return (
        'Arteries at the base of the brain were labelled on the head CT with a 3D U-Net run by '
        'nnU-Net v2 [@isensee2021]. The hemispheres were compared by registering the mirror image '
        f'of one onto the other; CT, arteries, {territory} of the carotid and middle cerebral '
        'arteries and that difference went into a 3D residual network with attention, after '
        f'[@woo2018], predictions {mirrored}. {_methods_of_side(models)} read from '
        'projections of CT and arteries with a 2D U-Net run by nnU-Net v2.'
    )


def _methods_of_side(models: Models) -> str:
    """How the side is told, as far as it is not told like the segment."""
    if 'side' not in read_planned_card(models['detection']):
        return 'Side and segment were'
    return (
        'The side was told by logistic regression on what that network says of heads made of one '
        "half each and on the difference of the territories' mean density; the segment was"
    )
