"""Workflows that register a session to templates and bring its images onto their grids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nipype import Node, Workflow
from nipype.interfaces import utility as niu

from ..outputs.spec import load_spec
from .interfaces import Register, ResampleMaps
from .place import Place
from .session import MrImages, PrepImage
from .spaces import Space, TemplateFiles

ROOM = 'prep'

ENGINES = {'greedy': 'greedy [@yushkevich2016]', 'ants': 'ANTs SyN [@avants2008]'}

# Either engine at 2 mm, measured on the demo; finer templates need more.
REGISTRATION_GB = 2.5
REGISTRATION_1MM_GB = 6.0
RESAMPLE_GB = 1.5

# What lies outside the field of view of a CT: air, in HU.
AIR_HU = -1024.0


@dataclass(frozen=True)
class Brain:
    """The image that is registered, and the words for it."""

    room: str
    source: Path
    label: str
    """Name in the ``from-`` and ``to-`` entities."""

    contrast: str
    prefix: str = ''
    """Put before the keys of transforms and the names of metrics."""

    deformable: bool = True


def init_register_node(
    brain: Brain, template: TemplateFiles, place: Place, name: str = 'register'
) -> Node:
    """Node that registers a brain to a template."""
    settings = place.config.prep
    interface = Register(
        template=str(template.t1w),
        template_mask=str(template.mask),
        uri=template.uri,
        contrast=brain.contrast,
        engine=settings.registration_engine,
        quality=settings.registration_quality,
        deformable=brain.deformable,
        key_prefix=brain.prefix,
    )
    if brain.contrast == 'CT':
        interface.inputs.tissues = {
            name: str(path)
            for name in ('gm', 'wm', 'csf', 'ct')
            if (path := getattr(template, name)) is not None
        }
    fine = re.search(r'_res-0*1_', template.t1w.name)
    mem_gb = REGISTRATION_1MM_GB if fine else REGISTRATION_GB
    return place.child(interface, name, mem_gb, place.config.compute.omp_nthreads)


def init_template_wf(
    brain: Brain, space: Space, template: TemplateFiles, place: Place, *, first: bool
) -> Workflow:
    """
    Register a brain to one template and write the transforms.

    Parameters
    ----------
    brain : Brain
        What is registered.
    space, template : Space, TemplateFiles
        The template at the first resolution asked for.
    place : Place
        Settings.
    first : bool
        Whether the metrics of this template go to the scans table.

    Inputs
    ------
    register.in_file : brain, 0 outside
    register.lesion_mask, register.lesion_transform : lesion that the cost leaves out
    """
    workflow = Workflow(name=f'{space.name}_wf')
    register = init_register_node(brain, template, place)
    transforms = Node(niu.Merge(2), name='transforms', run_without_submitting=True)
    ds_transforms = place.sink(brain.room, brain.source, 'ds_transforms', space)
    ds_transforms.inputs.labels = {'reference': brain.label}
    ds_transforms.inputs.write_metrics = first
    ds_transforms.inputs.partial_metrics = True
    workflow.connect([
        (register, transforms, [('to_template', 'in1'), ('from_template', 'in2')]),
        (transforms, ds_transforms, [('out', 'in_files')]),
        (register, ds_transforms, [('metadata', 'metadata')]),
    ])  # fmt: skip
    return workflow


def init_resample_node(
    place: Place,
    template: TemplateFiles,
    interpolation: dict[str, str],
    name: str,
    fill: float = 0.0,
) -> Node:
    """Node that brings maps onto a template's grid."""
    interface = ResampleMaps(
        reference=str(template.t1w), interpolation=interpolation, fill_value=fill
    )
    return place.child(interface, name, RESAMPLE_GB)


def init_maps_to_template_wf(
    room: str, sources: Sequence[Path], place: Place, prefix: str = ''
) -> Workflow:
    """
    Bring the maps of a room to the templates.

    Parameters
    ----------
    room : str
        The room, whose spec says how each map is interpolated.
    sources : sequence of Path
        Raw images that the maps were made of; the first gives the names of what is written.
    place : Place
        Settings and templates.
    prefix : str
        Put before the names of the transforms: ``ct_`` for maps of a CT.

    Inputs
    ------
    <room>_maps, <room>_metadata : of the native part
    <prefix>to_<template>_res<N> : composite transforms from the reference, or from the CT
    """
    workflow = Workflow(name=f'{room}_to_template_wf')
    maps, metadata = f'{room}_maps', f'{room}_metadata'
    fields = [maps, metadata, *(f'{prefix}to_{space.node_suffix}' for space, _ in place.spaces)]
    inputnode = Node(niu.IdentityInterface(fields=fields), name='inputnode')
    for space, template in place.spaces:
        suffix = space.node_suffix
        resample = init_resample_node(
            place, template, load_spec(room).interpolation, f'resample_{suffix}'
        )
        ds_space = place.sink(room, sources[0], f'ds_{suffix}', space)
        ds_space.inputs.spatial_reference = template.uri
        ds_space.inputs.sources = [str(path) for path in sources[1:]]
        ds_space.inputs.write_metrics = False
        workflow.connect([
            (inputnode, resample, [(maps, 'in_files'), (f'{prefix}to_{suffix}', 'transforms')]),
            (resample, ds_space, [('out_files', 'in_files')]),
            (inputnode, ds_space, [(metadata, 'metadata')]),
        ])  # fmt: skip
    workflow.__desc__ = ''
    return workflow


def register_all(
    workflow: Workflow,
    brain: Brain,
    place: Place,
    source: tuple[Node, str],
) -> dict[str, Workflow]:
    """
    Add one registration for each template name to a workflow.

    Parameters
    ----------
    workflow : Workflow
        Gets the registrations.
    brain : Brain
        What is registered.
    place : Place
        Settings and templates.
    source : tuple of Node and str
        Node and field that give the brain.

    Returns
    -------
    dict
        Workflow of each template.
    """
    registered: dict[str, Workflow] = {}
    for name, resolutions in place.by_template().items():
        space, template = resolutions[0]
        template_wf = init_template_wf(brain, space, template, place, first=not registered)
        workflow.connect(source[0], source[1], template_wf, 'register.in_file')
        registered[name] = template_wf
    return registered


def registration_text(what: str, place: Place, more: str = '') -> str:
    """Sentence of methods text; empty where no template is asked for."""
    names = ', '.join(place.by_template())
    if not names:
        return ''
    engine = ENGINES[place.config.prep.registration_engine]
    return f' {what} was registered to {names} [@fonov2011; @ciric2022] with {engine}{more}.'


def init_normalize_wf(session: MrImages, place: Place) -> Workflow:
    """
    Register a session's reference to the templates and resample each image once.

    Apart from the native part, so that a room may find a lesion on native images before.

    Parameters
    ----------
    session : MrImages
        Reference and the other images.
    place : Place
        Settings and templates.

    Inputs
    ------
    <name>, <name>_mask, <name>_metadata, <name>_to_reference, reference_brain : of `init_anat_wf`
    lesion_mask : lesion on the grid of the reference, which the cost leaves out

    Outputs
    -------
    to_<template>_res<N> : composite transform from the reference to each template
    """
    workflow = Workflow(name='normalize_wf')
    reference = session.reference
    others = [image.name for image in session.others]
    fields = [f'{reference.name}_mask', 'reference_brain', 'lesion_mask']
    fields += [
        f'{name}{ending}' for name in (reference.name, *others) for ending in ('', '_metadata')
    ]
    fields += [f'{name}_to_reference' for name in others]
    inputnode = Node(niu.IdentityInterface(fields=fields), name='inputnode')
    spaces = [f'to_{space.node_suffix}' for space, _ in place.spaces]
    outputnode = Node(niu.IdentityInterface(fields=spaces), name='outputnode')
    brain = Brain(ROOM, reference.path, reference.modality.label, reference.modality.contrast)
    registered = register_all(workflow, brain, place, (inputnode, 'reference_brain'))
    for template_wf in registered.values():
        _spare_lesion(workflow, template_wf, session)
    for space, template in place.spaces:
        source = (registered[space.name], 'register.to_template')
        workflow.connect(*source, outputnode, f'to_{space.node_suffix}')
        images_wf = _init_images_wf(session, place, space, template)
        wanted = images_wf.get_node('inputnode').inputs.copyable_trait_names()
        workflow.connect([
            (source[0], images_wf, [(source[1], 'inputnode.to_template')]),
            (inputnode, images_wf, [
                (name, f'inputnode.{name}') for name in wanted if name != 'to_template']),
        ])  # fmt: skip
    spared = ' The lesion was left out of its cost [@brett2001].' if session.lesion else ''
    workflow.__desc__ = registration_text('The image', place).strip() + spared
    return workflow


def _spare_lesion(workflow: Workflow, template_wf: Workflow, session: MrImages) -> None:
    """Leave the user's lesion out of the cost, else the one that a room found."""
    inputnode, lesion = workflow.get_node('inputnode'), session.lesion
    if lesion is None:
        workflow.connect(inputnode, 'lesion_mask', template_wf, 'register.lesion_mask')
        return
    template_wf.get_node('register').inputs.lesion_mask = str(lesion.path)
    template_wf.get_node('ds_transforms').inputs.sources = [str(lesion.path)]
    if lesion.drawn_on != session.reference.name:
        transform = f'{lesion.drawn_on}_to_reference'
        workflow.connect(inputnode, transform, template_wf, 'register.lesion_transform')


def _init_images_wf(
    session: MrImages, place: Place, space: Space, template: TemplateFiles
) -> Workflow:
    """
    Bring every image of a session onto one grid of a template, each by one interpolation.

    Inputs
    ------
    <name>, <reference>_mask : images in native space
    <name>_metadata : sidecar fields
    <name>_to_reference : rigid transforms
    to_template : composite transform
    """
    workflow = Workflow(name=f'{space.node_suffix}_wf')
    reference = session.reference
    name = reference.name
    fields = ['to_template', name, f'{name}_mask', f'{name}_metadata']
    for image in session.others:
        fields += [image.name, f'{image.name}_metadata', f'{image.name}_to_reference']
    inputnode = Node(niu.IdentityInterface(fields=fields), name='inputnode')
    images = Node(niu.Merge(2), name='images', run_without_submitting=True)
    rules = {reference.modality.key: 'linear', reference.modality.mask: 'nearest'}
    resample = init_resample_node(place, template, rules, 'resample_reference')
    ds_reference = init_space_sink(place, reference, 'ds_reference', space, template)
    workflow.connect([
        (inputnode, images, [(name, 'in1'), (f'{name}_mask', 'in2')]),
        (images, resample, [('out', 'in_files')]),
        (inputnode, resample, [('to_template', 'transforms')]),
        (resample, ds_reference, [('out_files', 'in_files')]),
        (inputnode, ds_reference, [(f'{name}_metadata', 'metadata')]),
    ])  # fmt: skip
    for image in session.others:
        _resample_aligned(workflow, image, (place, space, template), reference)
    return workflow


def _resample_aligned(
    workflow: Workflow,
    image: PrepImage,
    where: tuple[Place, Space, TemplateFiles],
    reference: PrepImage,
) -> None:
    """Take an aligned image through the reference to the template."""
    place, space, template = where
    name, inputnode = image.name, workflow.get_node('inputnode')
    chain = Node(niu.Merge(2), name=f'chain_{name}', run_without_submitting=True)
    rules = {image.modality.key: 'linear'}
    resample = init_resample_node(place, template, rules, f'resample_{name}')
    ds_image = init_space_sink(place, image, f'ds_{name}', space, template)
    ds_image.inputs.sources = [str(reference.path)]
    workflow.connect([
        (inputnode, chain, [('to_template', 'in1'), (f'{name}_to_reference', 'in2')]),
        (inputnode, resample, [(name, 'in_files')]),
        (chain, resample, [('out', 'transforms')]),
        (resample, ds_image, [('out_files', 'in_files')]),
        (inputnode, ds_image, [(f'{name}_metadata', 'metadata')]),
    ])  # fmt: skip


def init_space_sink(
    place: Place, image: PrepImage, name: str, space: Space, template: TemplateFiles
) -> Node:
    """Node that writes an image of preparation in template space."""
    node = place.sink(ROOM, image.path, name, space)
    node.inputs.spatial_reference = template.uri
    node.inputs.write_metrics = False
    return node
