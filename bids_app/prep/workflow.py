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
from .interfaces import Normalize, ResampleMaps
from .spaces import EMBEDDED, Space, TemplateFiles, find_template

# ANTs at 2 mm, measured on the demo; finer templates need more.
REGISTRATION_GB = 2.5
RESAMPLE_GB = 1.5


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


def template_or_embedded(
    spaces: tuple[tuple[Space, TemplateFiles], ...],
) -> tuple[tuple[Space, TemplateFiles], ...]:
    """Give the requested templates, or the embedded one, which a brain mask needs anyway."""
    if spaces:
        return spaces
    embedded = Space(EMBEDDED)
    return ((embedded, find_template(embedded)),)


def init_anat_wf(t1w: Path, place: Place, name: str = 'anat_wf') -> Workflow:
    """
    Register the T1w image of a session to the templates and mask its brain.

    Parameters
    ----------
    t1w : Path
        T1w image with its skull.
    place : Place
        Settings and templates.

    Outputs
    -------
    t1w : bias-corrected T1w image
    t1w_mask : brain mask on its grid
    to_<template>_res<N> : composite transform to each requested template
    """
    workflow = Workflow(name=name)
    targets = template_or_embedded(place.spaces)
    fields = [f'to_{space.node_suffix}' for space, _ in place.spaces]
    outputnode = Node(niu.IdentityInterface(fields=['t1w', 't1w_mask', *fields]), name='outputnode')
    ds_t1w = place.sink('prep', t1w, 'ds_t1w')
    native = Node(niu.Merge(2), name='native', run_without_submitting=True)
    workflow.connect([(native, ds_t1w, [('out', 'in_files')])])
    for index, (space, template) in enumerate(targets):
        wanted = bool(place.spaces)
        template_wf = init_template_wf(t1w, space, template, place, write=wanted)
        workflow.add_nodes([template_wf])
        if index == 0:
            workflow.connect([
                (template_wf, native, [('outputnode.t1w', 'in1'), ('outputnode.brain_mask', 'in2')]),
                (template_wf, outputnode, [
                    ('outputnode.t1w', 't1w'), ('outputnode.brain_mask', 't1w_mask'),
                ]),
            ])  # fmt: skip
        if wanted:
            workflow.connect(
                template_wf, 'outputnode.to_template', outputnode, f'to_{space.node_suffix}'
            )
    workflow.__desc__ = (
        'The T1w image was corrected for its bias field with N4 [@tustison2010] and registered to the '
        f'template {", ".join(space.name for space, _ in targets)} [@fonov2011; @ciric2022] '
        'with ANTs SyN [@avants2008]; the brain mask is the template\'s own, brought back.'
    )
    return workflow


def init_template_wf(
    image: Path | None,
    space: Space,
    template: TemplateFiles,
    place: Place,
    *,
    write: bool = True,
    deformable: bool = True,
) -> Workflow:
    """
    Register one image to one template.

    Parameters
    ----------
    image : Path or None
        Raw T1w image; None where ``normalize.in_file`` is connected.
    space, template : Space, TemplateFiles
        Where to.
    place : Place
        Settings.
    write : bool
        Whether image, mask and transforms go into the derivatives dataset.
    deformable : bool
        Whether SyN follows the affine.

    Outputs
    -------
    t1w, brain_mask : bias-corrected image and its brain mask, native space
    to_template : composite transform
    """
    workflow = Workflow(name=f'{space.node_suffix}_wf')
    outputnode = Node(
        niu.IdentityInterface(fields=['t1w', 'brain_mask', 'to_template']), name='outputnode'
    )
    normalize = place.child(
        Normalize(
            template=str(template.t1w),
            template_mask=str(template.mask),
            uri=template.uri,
            deformable=deformable,
        ),
        'normalize',
        REGISTRATION_GB,
    )
    if image:
        normalize.inputs.in_file = str(image)
    workflow.connect([
        (normalize, outputnode, [
            ('t1w', 't1w'), ('brain_mask', 'brain_mask'), ('to_template', 'to_template'),
        ]),
    ])  # fmt: skip
    if image is None or not write:
        return workflow
    transforms = Node(niu.Merge(2), name='transforms', run_without_submitting=True)
    ds_transforms = place.sink('prep', image, 'ds_transforms', space)
    images = Node(niu.Merge(2), name='images', run_without_submitting=True)
    resample = init_resample_node(place, template, {'t1w': 'linear', 'brain_mask': 'nearest'})
    ds_images = place.sink('prep', image, 'ds_images', space)
    ds_images.inputs.spatial_reference = template.uri
    workflow.connect([
        (normalize, transforms, [('to_template', 'in1'), ('from_template', 'in2')]),
        (transforms, ds_transforms, [('out', 'in_files')]),
        (normalize, ds_transforms, [('metadata', 'metadata')]),
        (normalize, images, [('t1w', 'in1'), ('brain_mask', 'in2')]),
        (images, resample, [('out', 'in_files')]),
        (normalize, resample, [('to_template', 'transforms')]),
        (resample, ds_images, [('out_files', 'in_files')]),
    ])  # fmt: skip
    return workflow


def init_resample_node(
    place: Place, template: TemplateFiles, interpolation: dict[str, str], name: str = 'resample'
) -> Node:
    """Node that brings maps onto a template's grid."""
    interface = ResampleMaps(reference=str(template.t1w), interpolation=interpolation)
    return place.child(interface, name, RESAMPLE_GB)


