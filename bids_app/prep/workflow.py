"""Workflow of spatial preparation: bias correction, brain mask and templates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nipype import Node, Workflow
from nipype.interfaces import utility as niu

from ..compute.child import ChildCommand
from ..config import Config
from ..outputs.provenance import raw_uri
from ..outputs.sink import DerivativesSink
from .interfaces import Register, ResampleMaps, Strip
from .spaces import Space, TemplateFiles

# ANTs at 2 mm, measured on the demo; finer templates need more.
REGISTRATION_GB = 2.5
RESAMPLE_GB = 1.5
# deepbet looks at 256 voxels cubed whatever the input.
STRIP_GB = 3.0


@dataclass(frozen=True)
class Place:
    """Where the files of one subject go and which templates they go to."""

    config: Config
    spaces: tuple[tuple[Space, TemplateFiles], ...]

    def sink(self, room: str, source: Path, name: str, space: Space | None = None) -> Node:
        """Node that writes into the derivatives dataset."""
        node = Node(
            DerivativesSink(
                room=room,
                output_dir=str(self.config.run.output_dir),
                bids_dir=str(self.config.run.bids_dir),
                source_file=str(source),
            ),
            name=name,
            run_without_submitting=True,
        )
        if space:
            node.inputs.space = space.entities
        else:
            node.inputs.spatial_reference = raw_uri(source, self.config.run.bids_dir)
        return node

    def child(self, interface: ChildCommand, name: str, mem_gb: float, threads: int = 1) -> Node:
        """Node that runs a child program with its share of the machine."""
        interface.inputs.random_seed = self.config.compute.random_seed
        interface.inputs.num_threads = threads
        interface.inputs.mem_gb = mem_gb
        budget = self.config.compute.mem_gb
        # Nipype refuses a node that wants more than the whole budget; let it run alone instead.
        return Node(interface, name=name, n_procs=threads, mem_gb=min(mem_gb, budget))


def init_anat_wf(t1w: Path, user_mask: Path | None, place: Place) -> Workflow:
    """
    Mask the brain of a session's T1w image and register it to the templates.

    Parameters
    ----------
    t1w : Path
        T1w image with its skull.
    user_mask : Path or None
        The user's own brain mask.
    place : Place
        Settings and templates.

    Outputs
    -------
    t1w : bias-corrected T1w image
    t1w_mask : brain mask on its grid
    to_<template>_res<N> : composite transform to each requested template
    """
    workflow = Workflow(name='anat_wf')
    fields = [f'to_{space.node_suffix}' for space, _ in place.spaces]
    outputnode = Node(
        niu.IdentityInterface(fields=['t1w', 't1w_mask', *fields]), name='outputnode'
    )
    strip = init_strip_node(place)
    strip.inputs.in_file = str(t1w)
    ds_t1w = place.sink('prep', t1w, 'ds_t1w')
    if user_mask:
        strip.inputs.user_mask = str(user_mask)
        ds_t1w.inputs.sources = [str(user_mask)]
    images = Node(niu.Merge(2), name='images', run_without_submitting=True)
    workflow.connect([
        (strip, images, [('t1w', 'in1'), ('brain_mask', 'in2')]),
        (images, ds_t1w, [('out', 'in_files')]),
        (strip, outputnode, [('t1w', 't1w'), ('brain_mask', 't1w_mask')]),
    ])  # fmt: skip
    _to_templates(workflow, t1w, place)
    mask_text = (
        "the brain mask is the user's own"
        if user_mask
        else 'the brain was masked with deepbet [@fisch2024]'
    )
    names = ', '.join(dict.fromkeys(space.name for space, _ in place.spaces))
    registered = (
        f' It was registered to {names} [@fonov2011; @ciric2022] with ANTs SyN [@avants2008].'
        if names
        else ''
    )
    workflow.__desc__ = (
        'The T1w image was corrected for its bias field with N4 [@tustison2010]; '
        f'{mask_text}.{registered}'
    )
    return workflow


def init_strip_node(place: Place) -> Node:
    """Node that masks a T1-weighted head."""
    return place.child(Strip(), 'strip', STRIP_GB, place.config.compute.omp_nthreads)


def init_register_node(
    template: TemplateFiles,
    place: Place,
    *,
    deformable: bool,
    name: str = 'register',
) -> Node:
    """Node that registers a brain to a template."""
    interface = Register(
        template=str(template.t1w),
        template_mask=str(template.mask),
        uri=template.uri,
        deformable=deformable,
    )
    return place.child(interface, name, REGISTRATION_GB)


def _to_templates(workflow: Workflow, t1w: Path, place: Place) -> None:
    """Register once to each template, and resample to each of its resolutions asked for."""
    strip, images = workflow.get_node('strip'), workflow.get_node('images')
    outputnode = workflow.get_node('outputnode')
    registered: dict[str, Workflow] = {}
    for space, template in place.spaces:
        if space.name not in registered:
            registered[space.name] = init_template_wf(t1w, space, template, place)
            workflow.connect(strip, 'brain', registered[space.name], 'register.in_file')
        template_wf, suffix = registered[space.name], space.node_suffix
        rules = {'t1w': 'linear', 'brain_mask': 'nearest'}
        resample = init_resample_node(place, template, rules, f'resample_t1w_{suffix}')
        ds_images = place.sink('prep', t1w, f'ds_images_{suffix}', space)
        ds_images.inputs.spatial_reference = template.uri
        workflow.connect([
            (images, resample, [('out', 'in_files')]),
            (template_wf, resample, [('register.to_template', 'transforms')]),
            (resample, ds_images, [('out_files', 'in_files')]),
            (template_wf, outputnode, [('register.to_template', f'to_{suffix}')]),
        ])  # fmt: skip


def init_template_wf(t1w: Path, space: Space, template: TemplateFiles, place: Place) -> Workflow:
    """
    Register a T1w image to one template and write the transforms.

    Inputs
    ------
    register.in_file : T1w brain
    """
    workflow = Workflow(name=f'{space.name}_wf')
    register = init_register_node(template, place, deformable=True)
    transforms = Node(niu.Merge(2), name='transforms', run_without_submitting=True)
    ds_transforms = place.sink('prep', t1w, 'ds_transforms', space)
    workflow.connect([
        (register, transforms, [('to_template', 'in1'), ('from_template', 'in2')]),
        (transforms, ds_transforms, [('out', 'in_files')]),
        (register, ds_transforms, [('metadata', 'metadata')]),
    ])  # fmt: skip
    return workflow


def init_resample_node(
    place: Place, template: TemplateFiles, interpolation: dict[str, str], name: str
) -> Node:
    """Node that brings maps onto a template's grid."""
    interface = ResampleMaps(reference=str(template.t1w), interpolation=interpolation)
    return place.child(interface, name, RESAMPLE_GB)
