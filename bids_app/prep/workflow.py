"""Workflows of spatial preparation: brain masks, one session on one reference, templates."""

from __future__ import annotations

from nipype import Node, Workflow
from nipype.interfaces import utility as niu

from .interfaces import Coregister, Strip
from .normalize import (
    AIR_HU,
    REGISTRATION_GB,
    ROOM,
    Brain,
    init_resample_node,
    init_space_sink,
    register_all,
    registration_text,
)
from .place import Place
from .session import MrImages, PrepImage

# deepbet looks at 256 voxels cubed whatever the input.
STRIP_GB = 3.0


def init_anat_wf(session: MrImages, place: Place) -> Workflow:
    """
    Mask the brain of a session's reference and align its other images to it, in native space.

    Parameters
    ----------
    session : MrImages
        Reference and the other images.
    place : Place
        Settings.

    Outputs
    -------
    <name>, <name>_mask : each image on its own grid, bias-corrected, and its brain mask
    <name>_metadata : what preparation says of it
    reference_brain : the reference, 0 outside the brain
    <name>_to_reference : rigid transform of each image that is not the reference
    """
    workflow = Workflow(name='anat_wf')
    names = [image.name for image in (session.reference, *session.others)]
    fields = [f'{name}{ending}' for name in names for ending in ('', '_mask', '_metadata')]
    fields += ['reference_brain', *(f'{image.name}_to_reference' for image in session.others)]
    outputnode = Node(niu.IdentityInterface(fields=fields), name='outputnode')
    workflow.add_nodes([outputnode])
    strip, _ = _add_stripped(workflow, session.reference, place)
    name = session.reference.name
    workflow.connect([
        (strip, outputnode, [
            ('image', name), ('brain_mask', f'{name}_mask'), ('metadata', f'{name}_metadata'),
            ('brain', 'reference_brain')]),
    ])  # fmt: skip
    for image in session.others:
        _add_aligned(workflow, strip, image, session.reference, place)
    workflow.__desc__ = _methods(session)
    return workflow


def init_strip_node(place: Place, contrast: str) -> Node:
    """Node that masks the brain of an image and corrects its bias field."""
    interface = Strip(contrast=contrast, image_key='t1w', mask_key='brain_mask')
    return place.child(interface, 'strip', STRIP_GB, place.config.compute.omp_nthreads)


def _add_stripped(
    workflow: Workflow, image: PrepImage, place: Place, prefix: str = ''
) -> tuple[Node, Node]:
    """Mask an image and write it; give the node that does and the one that holds both files."""
    strip = init_strip_node(place, image.modality.contrast)
    strip.inputs.in_file = str(image.path)
    strip.inputs.image_key = image.modality.key
    strip.inputs.mask_key = image.modality.mask
    strip.inputs.key_prefix = prefix
    images = Node(niu.Merge(2), name='images', run_without_submitting=True)
    ds_images = place.sink(ROOM, image.path, 'ds_images')
    ds_images.inputs.partial_metrics = True
    if image.user_mask:
        strip.inputs.user_mask = str(image.user_mask)
        ds_images.inputs.sources = [str(image.user_mask)]
    workflow.connect([
        (strip, images, [('image', 'in1'), ('brain_mask', 'in2')]),
        (images, ds_images, [('out', 'in_files')]),
        (strip, ds_images, [('metadata', 'metadata')]),
    ])  # fmt: skip
    return strip, images


def _add_aligned(
    workflow: Workflow, strip: Node, image: PrepImage, reference: PrepImage, place: Place
) -> None:
    """Align one image to the reference and give it the reference's brain mask."""
    name = image.name
    align = place.child(
        Coregister(
            in_file=str(image.path),
            image_key=image.modality.key,
            mask_key=image.modality.mask,
            metric=f'{ROOM}_alignment_{name}',
        ),
        f'align_{name}',
        REGISTRATION_GB,
        place.config.compute.omp_nthreads,
    )
    sources = [str(reference.path)]
    if image.user_mask:
        align.inputs.user_mask = str(image.user_mask)
        sources.append(str(image.user_mask))
    images = Node(niu.Merge(3), name=f'images_{name}', run_without_submitting=True)
    ds_aligned = place.sink(ROOM, image.path, f'ds_{name}')
    ds_aligned.inputs.labels = {
        'image': image.modality.label,
        'reference': reference.modality.label,
    }
    ds_aligned.inputs.sources = sources
    ds_aligned.inputs.partial_metrics = True
    ds_aligned.inputs.metrics_source = str(reference.path)
    workflow.connect([
        (strip, align, [('image', 'reference'), ('brain_mask', 'reference_mask')]),
        (align, images, [('image', 'in1'), ('brain_mask', 'in2'), ('transform', 'in3')]),
        (images, ds_aligned, [('out', 'in_files')]),
        (align, ds_aligned, [('metadata', 'metadata')]),
        (align, workflow.get_node('outputnode'), [
            ('image', name), ('brain_mask', f'{name}_mask'),
            ('metadata', f'{name}_metadata'), ('transform', f'{name}_to_reference')]),
    ])  # fmt: skip


def init_ct_wf(ct: PrepImage, place: Place) -> Workflow:
    """
    Mask the brain of a head CT and register it to the templates.

    Parameters
    ----------
    ct : PrepImage
        The CT.
    place : Place
        Settings and templates.

    Outputs
    -------
    ct, ct_mask : CT in HU and its brain mask
    ct_to_<template>_res<N> : composite transform to each template
    """
    workflow = Workflow(name='ct_wf')
    fields = [f'ct_to_{space.node_suffix}' for space, _ in place.spaces]
    outputnode = Node(niu.IdentityInterface(fields=['ct', 'ct_mask', *fields]), name='outputnode')
    strip, images = _add_stripped(workflow, ct, place, 'ct_')
    workflow.connect(strip, 'image', outputnode, 'ct')
    workflow.connect(strip, 'brain_mask', outputnode, 'ct_mask')
    brain = Brain(ROOM, ct.path, ct.modality.label, ct.modality.contrast, 'ct_')
    registered = register_all(workflow, brain, place, (strip, 'brain'))
    rules = {ct.modality.key: 'linear', ct.modality.mask: 'nearest'}
    for space, template in place.spaces:
        suffix = space.node_suffix
        resample = init_resample_node(place, template, rules, f'resample_{suffix}', AIR_HU)
        ds_space = init_space_sink(place, ct, f'ds_{suffix}', space, template)
        workflow.connect([
            (registered[space.name], outputnode, [('register.to_template', f'ct_to_{suffix}')]),
            (registered[space.name], resample, [('register.to_template', 'transforms')]),
            (images, resample, [('out', 'in_files')]),
            (resample, ds_space, [('out_files', 'in_files')]),
            (strip, ds_space, [('metadata', 'metadata')]),
        ])  # fmt: skip
    own = all(template.ct for _, template in place.spaces)
    target = ', to its CT image' if own else ', to a CT-like image made of its tissue maps'
    workflow.__desc__ = (
        'The brain was masked on the head CT by its Hounsfield units.'
        + registration_text('The CT', place, target)
    )
    return workflow


def _methods(session: MrImages) -> str:
    reference = session.reference
    label = reference.modality.label
    mask = (
        "the brain mask is the user's own"
        if reference.user_mask
        else 'the brain was masked with deepbet [@fisch2024]'
    )
    if not (reference.user_mask or reference.modality.like_t1w):
        mask += ', which was trained on T1w images'

    others = ', '.join(image.modality.label for image in session.others)
    aligned = (
        f' Aligned to it rigidly by mutual information [@mattes2003]: {others}.' if others else ''
    )
    return (
        f'The {label} image was corrected for its bias field with N4 [@tustison2010]; '
        f'{mask}.{aligned}'
    )
