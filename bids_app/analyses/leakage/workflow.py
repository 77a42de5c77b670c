"""Workflow of the leakage room."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from nipype import Node, Workflow
from nipype.interfaces import utility as niu

from ...compute.images import read_header
from ...compute.weights import find_model
from ...errors import BadDataError
from ...inputs.collect import (
    AIF_MASKS,
    BRAIN_MASKS,
    BidsImage,
    SubjectInputs,
    find_user_mask,
)
from ...inputs.timing import DceTiming, series_timing
from ...outputs.spec import load_spec
from ...prep.brainmask import is_whole_head
from ...prep.interfaces import Coregister
from ...prep.normalize import REGISTRATION_GB, Brain, init_register_node, init_resample_node
from ...prep.place import Place
from ...prep.workflow import init_strip_node
from ...room_config import LeakageConfig
from .interfaces import EstimateMotion, FitLeakage

ROOM = 'leakage'

# Python with its libraries, and bytes a voxel and frame beside the stored ones.
CHILD_GB = 0.8
FLOAT_BYTES = 8

# What the child program needs of the model card.
CARD_FIELDS = ('name', 'version', 'leakage_threshold')
GB = 1e9


def init_leakage_wf(inputs: SubjectInputs, place: Place) -> list[Workflow]:
    """
    Compute leakage maps of all DCE series of one session.

    Parameters
    ----------
    inputs : SubjectInputs
        Images of the session.
    place : Place
        Settings and templates.

    Inputs
    ------
    t1w, t1w_mask : T1w image and brain mask, where the session has them
    to_<template>_res<N> : composite transforms from the T1w image

    Raises
    ------
    BadDataError
        If a series cannot be analysed; says which and why.
    """
    workflow = Workflow(name=f'{ROOM}_wf')
    fields = ['t1w', 't1w_mask', *(f'to_{space.node_suffix}' for space, _ in place.spaces)]
    has_t1w = bool(inputs.images['t1w'])
    inputnode = Node(niu.IdentityInterface(fields=fields), name='inputnode')
    workflow.add_nodes([inputnode])
    for dce in inputs.images['dce']:
        series = _Series(dce, inputs, place)
        dce_wf = init_dce_wf(series, place, has_t1w=has_t1w)
        workflow.add_nodes([dce_wf])
        if has_t1w:
            workflow.connect(
                [(inputnode, dce_wf, [(field, f'inputnode.{field}') for field in fields])]
            )
    workflow.__desc__ = _methods(place.config.leakage)
    return [workflow]


METHODS = {
    'patlak': 'Patlak [@patlak1983]',
    'tofts': 'Tofts [@tofts1999]',
    'etofts': 'extended Tofts [@tofts1999]',
    '2cxm': 'two-compartment exchange [@sourbron2013]',
    '2cum': 'two-compartment uptake [@sourbron2013]',
}


def _methods(settings: LeakageConfig) -> str:
    """Methods text of what these settings make the room do."""
    moved = 'Frames were aligned rigidly to the mean baseline. ' if settings.moco else ''
    fits = ', '.join(METHODS[model] for model in settings.models)
    kinetics = f' Pharmacokinetic models were fitted beside it: {fits}.' if fits else ''
    return (
        f'{moved}Residual leakage and residual vascular signal of each voxel were computed from '
        'its enhancement curve with an autoencoder trained on normal-appearing tissue '
        f'[@jang2025].{kinetics} Terms are those of the OSIPI lexicon [@dickie2024].'
    )


class _Series:
    """One DCE series with everything that is known before anything runs."""

    def __init__(self, dce: BidsImage, inputs: SubjectInputs, place: Place) -> None:
        run = place.config.run
        self.path = dce.path
        header = read_header(dce.path)
        self.timing: DceTiming = series_timing(dce, header)
        shape, zooms = header.get_data_shape(), header.get_zooms()
        self.thick = is_whole_head(shape, zooms)
        voxels = float(np.prod(shape, dtype=float))
        self.mem_gb = CHILD_GB + voxels * (header.get_data_dtype().itemsize + FLOAT_BYTES) / GB
        self.brain_mask = find_user_mask(dce, run, BRAIN_MASKS)
        self.region_mask = find_user_mask(dce, run, ('label-tumor_mask', 'label-lesion_mask'))
        self.aif_mask = find_user_mask(dce, run, AIF_MASKS)
        self.t1_map = inputs.images['t1map'][0].path if inputs.images['t1map'] else None
        self.vfa = _vfa(inputs.images['vfa'])

    @property
    def sources(self) -> list[str]:
        """Raw files beside the series that the maps depend on."""
        files = [self.brain_mask, self.region_mask, self.aif_mask, self.t1_map]
        vfa = self.vfa.get('vfa_files', []) if self.t1_map is None else []
        return [str(path) for path in files if path] + list(vfa)


def _vfa(images: tuple[BidsImage, ...]) -> dict[str, Any]:
    """Files, flip angles and TR of a variable flip angle series; empty where there is none."""
    if len(images) < 2:
        return {}
    angles, times = [], []
    for image in images:
        angle = image.metadata.get('FlipAngle')
        tr = image.metadata.get('RepetitionTimeExcitation', image.metadata.get('RepetitionTime'))
        if not isinstance(angle, (int, float)) or not isinstance(tr, (int, float)):
            raise BadDataError(
                f'{image.path} lacks FlipAngle or RepetitionTimeExcitation: add both to its JSON '
                'sidecar.'
            )
        angles.append(float(angle))
        times.append(float(tr))
    if max(times) - min(times) > 1e-6:
        raise BadDataError(
            f'{images[0].path.parent} holds VFA images of different RepetitionTimeExcitation, '
            'which T1 cannot be fitted to.'
        )
    files = [str(image.path) for image in images]
    return {'vfa_files': files, 'vfa_flip_angles_deg': angles, 'vfa_tr_s': times[0]}


def _defined(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def init_dce_wf(series: _Series, place: Place, *, has_t1w: bool) -> Workflow:
    """
    Analyse one DCE series.

    Inputs
    ------
    t1w, t1w_mask, to_<template>_res<N> : as `init_leakage_wf`
    """
    stem = series.path.name.partition('.')[0].replace('-', '_')
    workflow = Workflow(name=f'{stem}_wf')
    fields = ['t1w', 't1w_mask', *(f'to_{space.node_suffix}' for space, _ in place.spaces)]
    inputnode = Node(niu.IdentityInterface(fields=fields), name='inputnode')
    common = {'in_file': str(series.path), 'times_s': list(series.timing.times_s)}
    settings = place.config.leakage
    estimate_motion = place.child(
        EstimateMotion(**common, correct=settings.moco), 'estimate_motion', series.mem_gb
    )
    fit_leakage = place.child(
        FitLeakage(**common, **_fit_inputs(series, place)),
        'fit_leakage',
        series.mem_gb,
        place.config.compute.omp_nthreads,
    )
    fit_leakage.inputs.device = place.config.compute.device
    fit_leakage.inputs.use_gpu = place.config.compute.device.startswith('cuda')
    outputs = Node(niu.Merge(4), name='outputs', run_without_submitting=True)
    ds_maps = place.sink(ROOM, series.path, 'ds_maps')
    ds_maps.inputs.sources = series.sources
    workflow.connect([
        (estimate_motion, fit_leakage, [('transforms', 'transforms')]),
        (fit_leakage, outputs, [('maps', 'in1'), ('tables', 'in2')]),
        (estimate_motion, outputs, [('baseline', 'in3'), ('motion', 'in4')]),
        (outputs, ds_maps, [('out', 'in_files')]),
        (fit_leakage, ds_maps, [('metadata', 'metadata')]),
    ])  # fmt: skip
    parts = _Parts(workflow, inputnode, estimate_motion, fit_leakage)
    if has_t1w:
        _through_t1w(parts, series, place)
    elif series.thick:
        _directly(parts, series, place)
    return workflow


def _fit_inputs(series: _Series, place: Place) -> dict[str, Any]:
    model = find_model(ROOM, Path(__file__).parent, place.config.compute.weights_dir)
    t1_inputs = {'t1_map': str(series.t1_map)} if series.t1_map else series.vfa
    return t1_inputs | _defined({
        'timing_source': series.timing.source,
        'tr_s': series.timing.tr_s,
        'flip_angle_deg': series.timing.flip_angle_deg,
        'weights': str(model.weights),
        'weights_sha256': model.sha256,
        'card': {key: model.card[key] for key in CARD_FIELDS},
        'brain_mask': str(series.brain_mask) if series.brain_mask else None,
        'brain_mask_source': 'user' if series.brain_mask else None,
        'region_mask': str(series.region_mask) if series.region_mask else None,
        'aif_mask': str(series.aif_mask) if series.aif_mask else None,
        'settings': {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(place.config.leakage).items()
        },
    })  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Parts:
    """Nodes that the two ways into template space have in common."""

    workflow: Workflow
    inputnode: Node
    estimate_motion: Node
    fit_leakage: Node


def _through_t1w(parts: _Parts, series: _Series, place: Place) -> None:
    """Align the series to the T1w image and reach the templates through it."""
    workflow = parts.workflow
    coregister = place.child(Coregister(transform_key='to_t1w'), 'coregister', REGISTRATION_GB)
    ds_to_t1w = place.sink(ROOM, series.path, 'ds_to_t1w')
    workflow.connect([
        (parts.inputnode, coregister, [('t1w', 'reference'), ('t1w_mask', 'reference_mask')]),
        (parts.estimate_motion, coregister, [('baseline', 'in_file')]),
        (coregister, ds_to_t1w, [('transform', 'in_files')]),
    ])  # fmt: skip
    if series.brain_mask is None:
        parts.fit_leakage.inputs.brain_mask_source = 'T1w image, through a rigid alignment'
        workflow.connect(coregister, 'brain_mask', parts.fit_leakage, 'brain_mask')
    for space, _ in place.spaces:
        field = f'to_{space.node_suffix}'
        chain = Node(niu.Merge(2), name=f'chain_{space.node_suffix}', run_without_submitting=True)
        workflow.connect([
            (parts.inputnode, chain, [(field, 'in1')]),
            (coregister, chain, [('transform', 'in2')]),
        ])  # fmt: skip
        _resample_to(parts, series, place, space.node_suffix, (chain, 'out'))


def _directly(parts: _Parts, series: _Series, place: Place) -> None:
    """Mask and register the baseline itself, for sessions without a T1w image."""
    workflow = parts.workflow
    strip = init_strip_node(place, 'DCE')
    workflow.connect(parts.estimate_motion, 'baseline', strip, 'in_file')
    if series.brain_mask:
        strip.inputs.user_mask = str(series.brain_mask)
    else:
        parts.fit_leakage.inputs.brain_mask_source = 'deepbet on the mean baseline image'
        workflow.connect(strip, 'brain_mask', parts.fit_leakage, 'brain_mask')
    brain = Brain(ROOM, series.path, 'dce', 'DCE', deformable=False)
    registered: dict[str, Node] = {}
    for space, template in place.spaces:
        if space.name not in registered:
            register = init_register_node(brain, template, place, f'register_{space.name}')
            ds_transform = place.sink(ROOM, series.path, f'ds_transform_{space.name}', space)
            workflow.connect([
                (strip, register, [('brain', 'in_file')]),
                (register, ds_transform, [('to_template', 'in_files')]),
            ])  # fmt: skip
            registered[space.name] = register
        source = (registered[space.name], 'to_template')
        _resample_to(parts, series, place, space.node_suffix, source)


def _resample_to(
    parts: _Parts, series: _Series, place: Place, suffix: str, transforms: tuple[Any, str]
) -> None:
    """Add resampling to one template and its sink."""
    space, template = next(pair for pair in place.spaces if pair[0].node_suffix == suffix)
    maps = Node(niu.Merge(2), name=f'maps_{suffix}', run_without_submitting=True)
    resample = init_resample_node(
        place, template, load_spec(ROOM).interpolation, f'resample_{suffix}'
    )
    ds_space = place.sink(ROOM, series.path, f'ds_{suffix}', space)
    ds_space.inputs.spatial_reference = template.uri
    ds_space.inputs.sources = series.sources
    ds_space.inputs.write_metrics = False
    parts.workflow.connect([
        (parts.fit_leakage, maps, [('maps', 'in1')]),
        (parts.estimate_motion, maps, [('baseline', 'in2')]),
        (maps, resample, [('out', 'in_files')]),
        (transforms[0], resample, [(transforms[1], 'transforms')]),
        (resample, ds_space, [('out_files', 'in_files')]),
        (parts.fit_leakage, ds_space, [('metadata', 'metadata')]),
    ])  # fmt: skip
