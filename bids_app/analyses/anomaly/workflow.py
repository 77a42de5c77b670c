"""Workflows of the anomaly room: maps on the grid of a session's reference, and to templates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nipype import Node, Workflow
from nipype.interfaces import utility as niu

from ...compute.images import read_header
from ...compute.weights import find_model
from ...config import ComputeConfig
from ...errors import BadDataError, MissingInputError
from ...inputs.collect import SubjectInputs
from ...outputs.provenance import raw_uri
from ...outputs.spec import load_spec
from ...prep.modalities import MR
from ...prep.normalize import init_resample_node
from ...prep.place import Place
from ...prep.session import MrImages, PrepImage
from ...room_config import ANOMALY_MODALITIES
from .interfaces import DetectAnomalies

ROOM = 'anomaly'

# Python with torch, the template's registration and the network; then image, brain and maps as
# float32, some of them twice.
CHILD_GB = 2.0
VOXEL_BYTES = 64
GB = 1e9


@dataclass(frozen=True)
class Examined:
    """An image of the session and the model that reads it."""

    image: PrepImage
    model: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of its modality."""
        return self.image.name


def init_anomaly_wf(inputs: SubjectInputs, place: Place) -> list[Workflow]:
    """
    Map what healthy brains do not show on the images of one session.

    Parameters
    ----------
    inputs : SubjectInputs
        Images of the session.
    place : Place
        Settings, templates and the images that preparation handles.

    Returns
    -------
    list of Workflow
        The native part and, where there are templates, the part that needs their transforms;
        nothing where no model is there and nobody named the room.

    Raises
    ------
    BadDataError
        If the session has no image that preparation can handle, or a card cannot be read.
    MissingInputError
        If the room was named, and none of the images is wanted or none has a model.
    """
    session = place.session.mr
    if session is None:
        raise BadDataError(f'{inputs.label} has no image thick enough to be prepared.')
    examined = _choose(inputs.label, session, place)
    if not examined:
        return []
    parts = [_init_native_wf(session, examined, place)]
    if place.spaces:
        parts.append(_init_template_wf(session, examined, place))
    return parts


def _choose(label: str, session: MrImages, place: Place) -> list[Examined]:
    """Images that have a model, the reference first; the user hears of the others."""
    settings, compute = place.config.anomaly, place.config.compute
    wanted = settings.modalities or ANOMALY_MODALITIES
    images = [image for image in (session.reference, *session.others) if image.name in wanted]
    if not images:
        names = ', '.join(MR[name].label for name in wanted)
        raise MissingInputError(
            f'{label} has none of the images that --anomaly-modalities names ({names}): name '
            'others, or leave the session out.'
        )
    examined, missing = [], []
    for image in images:
        try:
            model = describe_model(compute, image.name, settings.reshape)
        except MissingInputError as error:
            cause = str(error)
            missing.append(f'{image.path.name} was left out: {cause[0].lower()}{cause[1:]}')
        else:
            examined.append(Examined(image, model))
    # Who did not ask for the room need not hear what it lacks.
    if place.config.run.analyses_named:
        if not examined:
            raise MissingInputError(' '.join(missing))
        for sentence in missing:
            place.warn(sentence)
    return examined


def describe_model(compute: ComputeConfig, modality: str, reshape: str) -> dict[str, Any]:
    """
    Say where the weights for one modality lie and which checksum they have.

    Parameters
    ----------
    compute : ComputeConfig
        ``weights_dir`` is taken before the embedded weights.
    modality : str
        Of `ANOMALY_MODALITIES`.
    reshape : str
        How volumes reach the network's shape.

    Returns
    -------
    dict
        ``card``, ``weights`` and ``sha256``.

    Raises
    ------
    MissingInputError
        If there is no such model.
    """
    name = f'{ROOM}_{modality}_{reshape}'
    model = find_model(ROOM, Path(__file__).parent, compute.weights_dir, name)
    return {
        'card': str(model.card_path),
        'weights': str(model.weights),
        'sha256': model.sha256,
    }


def _init_native_wf(session: MrImages, examined: list[Examined], place: Place) -> Workflow:
    """
    Map anomalies on the grid of the reference.

    Inputs
    ------
    <name> : each examined image and the reference, bias-corrected
    <name>_to_reference : rigid transform of each examined image that is not the reference
    <reference>_mask : brain mask

    Outputs
    -------
    anomaly_<name>_maps, anomaly_<name>_metadata : maps under the keys of the spec and what the
        sidecars say
    """
    workflow = Workflow(name=f'{ROOM}_wf')
    reference = session.reference
    moved = [item.name for item in examined if item.image is not reference]
    mask = f'{reference.name}_mask'
    inputnode = Node(
        niu.IdentityInterface(
            fields=[reference.name, mask, *moved, *(f'{name}_to_reference' for name in moved)]
        ),
        name='inputnode',
    )
    outputnode = Node(
        niu.IdentityInterface(fields=[field for item in examined for field in _offered(item)]),
        name='outputnode',
    )
    for item in examined:
        name = item.name
        detect = _init_detect_node(item, session, place)
        outputs = Node(niu.Merge(2), name=f'outputs_{name}', run_without_submitting=True)
        ds_maps = _init_sink(item, session, examined, place)
        ds_maps.inputs.partial_metrics = True
        ds_maps.inputs.metrics_key = f'{name}_map'
        maps, metadata = _offered(item)
        workflow.connect([
            (inputnode, detect, [(name, 'image'), (reference.name, 'reference')]),
            (inputnode, detect, [(mask, 'brain_mask')]),
            (detect, outputs, [('maps', 'in1'), ('tables', 'in2')]),
            (outputs, ds_maps, [('out', 'in_files')]),
            (detect, ds_maps, [('metadata', 'metadata')]),
            (detect, outputnode, [('maps', maps), ('metadata', metadata)]),
        ])  # fmt: skip
        if item.image is not reference:
            workflow.connect(inputnode, f'{name}_to_reference', detect, 'transform')
    workflow.__desc__ = _methods(examined, place)
    return workflow


def _offered(item: Examined) -> tuple[str, str]:
    return f'{ROOM}_{item.name}_maps', f'{ROOM}_{item.name}_metadata'


def _init_sink(
    item: Examined,
    session: MrImages,
    examined: list[Examined],
    place: Place,
    where: tuple[Any, Any] | None = None,
) -> Node:
    """Node that writes what one modality gave, in native space or that of a template."""
    space, template = where or (None, None)
    names = examined[0].image
    suffix = f'{item.name}_{space.node_suffix}' if space else item.name
    node = place.sink(ROOM, names.path, f'ds_{suffix}', space)
    node.inputs.sources = [str(item.image.path)] if item.image is not names else []
    grid = raw_uri(session.reference.path, place.config.run.bids_dir)
    node.inputs.spatial_reference = template.uri if template else grid
    return node


def _init_detect_node(item: Examined, session: MrImages, place: Place) -> Node:
    compute, settings = place.config.compute, place.config.anomaly
    voxels = float(np.prod(read_header(session.reference.path).get_data_shape()[:3], dtype=float))
    interface = DetectAnomalies(
        modality=item.name,
        source=str(item.image.path),
        model=item.model,
        settings={'reshape': settings.reshape, 'threshold': settings.threshold},
        device=compute.device,
        use_gpu=compute.device.startswith('cuda'),
    )
    mem_gb = CHILD_GB + voxels * VOXEL_BYTES / GB
    return place.child(interface, f'detect_{item.name}', mem_gb, compute.omp_nthreads)


def _init_template_wf(session: MrImages, examined: list[Examined], place: Place) -> Workflow:
    """
    Bring the maps to the templates.

    Inputs
    ------
    anomaly_<name>_maps, anomaly_<name>_metadata : of the native part
    to_<template>_res<N> : composite transforms from the reference
    """
    workflow = Workflow(name=f'{ROOM}_to_template_wf')
    transforms = [f'to_{space.node_suffix}' for space, _ in place.spaces]
    fields = [field for item in examined for field in _offered(item)]
    inputnode = Node(niu.IdentityInterface(fields=[*fields, *transforms]), name='inputnode')
    for item in examined:
        moving_wf = _init_moving_wf(item, session, examined, place)
        maps, metadata = _offered(item)
        workflow.connect([
            (inputnode, moving_wf, [(name, f'inputnode.{name}') for name in transforms]),
            (inputnode, moving_wf, [(maps, 'inputnode.maps')]),
            (inputnode, moving_wf, [(metadata, 'inputnode.metadata')]),
        ])  # fmt: skip
    workflow.__desc__ = ''
    return workflow


def _init_moving_wf(
    item: Examined, session: MrImages, examined: list[Examined], place: Place
) -> Workflow:
    """
    Bring the maps of one modality to every template.

    Inputs
    ------
    maps, metadata : maps under the keys of the spec and what the sidecars say
    to_<template>_res<N> : composite transforms from the reference
    """
    workflow = Workflow(name=f'{item.name}_wf')
    transforms = [f'to_{space.node_suffix}' for space, _ in place.spaces]
    inputnode = Node(
        niu.IdentityInterface(fields=['maps', 'metadata', *transforms]), name='inputnode'
    )
    rules = load_spec(ROOM).interpolation
    for space, template in place.spaces:
        suffix = space.node_suffix
        resample = init_resample_node(place, template, rules, f'resample_{item.name}_{suffix}')
        ds_space = _init_sink(item, session, examined, place, (space, template))
        ds_space.inputs.write_metrics = False
        workflow.connect([
            (inputnode, resample, [('maps', 'in_files'), (f'to_{suffix}', 'transforms')]),
            (resample, ds_space, [('out_files', 'in_files')]),
            (inputnode, ds_space, [('metadata', 'metadata')]),
        ])  # fmt: skip
    return workflow


def _methods(examined: list[Examined], place: Place) -> str:
    """Methods text of what these images and settings make the room do."""
    *first, last = [MR[item.name].label for item in examined]
    labels = f'{", ".join(first)} and {last}' if first else last
    reached = {
        'template': 'brought to the template by an affine transform and resampled to 2 mm',
        'fixed': 'cropped to the brain and resized to one shape',
        'clustered': 'cropped to the brain and resized to the usual shape of images of its size',
    }[place.config.anomaly.reshape]
    return (
        f'Anomalies were mapped on {labels} as what a 3D convolutional autoencoder trained on '
        'healthy brains does not reconstruct [@baur2021; @kascenas2023]: the image was '
        f'{reached}, and the smoothed residual was compared with that of healthy brains, in '
        'standard deviations.'
    )
