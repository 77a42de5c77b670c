"""Nipype interfaces of spatial preparation."""

from __future__ import annotations

from nipype.interfaces.base import (
    File,
    InputMultiObject,
    OutputMultiObject,
    TraitedSpec,
    traits,
)

from ..compute.child import ChildCommand, ChildInputSpec

_MODULE = 'bids_app.prep.command'


class _StripInputSpec(ChildInputSpec):
    in_file = File(exists=True, mandatory=True, desc='T1-weighted head')
    user_mask = File(exists=True, desc="user's own brain mask")


class _StripOutputSpec(TraitedSpec):
    t1w = File(exists=True, desc='bias-corrected image')
    brain = File(exists=True, desc='the same, 0 outside the brain')
    brain_mask = File(exists=True, desc='brain mask')


class Strip(ChildCommand):
    """Mask the brain and correct the bias field."""

    module = _MODULE
    step = 'strip'
    input_spec = _StripInputSpec
    output_spec = _StripOutputSpec


class _RegisterInputSpec(ChildInputSpec):
    in_file = File(exists=True, mandatory=True, desc='T1-weighted brain')
    template = File(exists=True, mandatory=True, desc='T1w image of the template')
    template_mask = File(exists=True, mandatory=True, desc='brain mask of the template')
    uri = traits.Str(mandatory=True, desc='BIDS URI of the template')
    deformable = traits.Bool(True, usedefault=True, desc='SyN after the affine')


class _RegisterOutputSpec(TraitedSpec):
    to_template = File(exists=True, desc='composite transform, image to template')
    from_template = File(exists=True, desc='composite transform, template to image')
    metadata = File(exists=True, desc='sidecar fields and metrics')


class Register(ChildCommand):
    """Register a brain to a template."""

    module = _MODULE
    step = 'register'
    input_spec = _RegisterInputSpec
    output_spec = _RegisterOutputSpec


class _CoregisterInputSpec(ChildInputSpec):
    in_file = File(exists=True, mandatory=True, desc='image to align')
    reference = File(exists=True, mandatory=True, desc='T1w image of the session')
    reference_mask = File(exists=True, mandatory=True, desc='brain mask of the T1w image')


class _CoregisterOutputSpec(TraitedSpec):
    transform = File(exists=True, desc='rigid transform, image to T1w')
    brain_mask = File(exists=True, desc='brain mask on the grid of the image')


class Coregister(ChildCommand):
    """Align an image to the T1w image of its session."""

    module = _MODULE
    step = 'coregister'
    input_spec = _CoregisterInputSpec
    output_spec = _CoregisterOutputSpec


class _ResampleMapsInputSpec(ChildInputSpec):
    in_files = InputMultiObject(File(exists=True), mandatory=True, desc='maps')
    reference = File(exists=True, mandatory=True, desc='image that gives the grid')
    transforms = InputMultiObject(File(exists=True), mandatory=True, desc='last one first')
    interpolation = traits.Dict(mandatory=True, desc='linear or nearest for each stem')


class _ResampleMapsOutputSpec(TraitedSpec):
    out_files = OutputMultiObject(File(exists=True), desc='maps under the same names')


class ResampleMaps(ChildCommand):
    """Bring maps onto a template's grid, each by one interpolation."""

    module = _MODULE
    step = 'resample'
    input_spec = _ResampleMapsInputSpec
    output_spec = _ResampleMapsOutputSpec
