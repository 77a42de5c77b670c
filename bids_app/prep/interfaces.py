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
    in_file = File(exists=True, mandatory=True, desc='head')
    contrast = traits.Str('T1w', usedefault=True, desc='T1w, T1Gd, T2w, FLAIR, DCE or CT')
    user_mask = File(exists=True, desc="user's own brain mask")
    image_key = traits.Str(mandatory=True, desc='key of the image in the spec')
    mask_key = traits.Str(mandatory=True, desc='key of the mask in the spec')
    key_prefix = traits.Str('', usedefault=True, desc='ct_ where the keys of the spec have it')


class _StripOutputSpec(TraitedSpec):
    image = File(exists=True, desc='bias-corrected image')
    brain = File(exists=True, desc='what registration sees: 0 outside the brain')
    brain_mask = File(exists=True, desc='brain mask')
    metadata = File(exists=True, desc='sidecar fields and metrics')


class Strip(ChildCommand):
    """Mask the brain and correct the bias field."""

    module = _MODULE
    step = 'strip'
    input_spec = _StripInputSpec
    output_spec = _StripOutputSpec


class _RegisterInputSpec(ChildInputSpec):
    in_file = File(exists=True, mandatory=True, desc='brain')
    contrast = traits.Str('T1w', usedefault=True, desc='T1w, T1Gd, T2w, FLAIR, DCE or CT')
    template = File(exists=True, mandatory=True, desc='T1w image of the template')
    template_mask = File(exists=True, mandatory=True, desc='brain mask of the template')
    tissues = traits.Dict(usedefault=True, desc='tissue maps and CT image of the template')
    uri = traits.Str(mandatory=True, desc='BIDS URI of the template')
    engine = traits.Str(mandatory=True, desc='greedy or ants')
    quality = traits.Str(mandatory=True, desc='fast, standard or precise')
    deformable = traits.Bool(True, usedefault=True, desc='deform after the affine')
    lesion_mask = File(exists=True, desc='region that the cost leaves out')
    lesion_transform = File(exists=True, desc='rigid transform from its image to the brain')
    key_prefix = traits.Str('', usedefault=True, desc='ct_ where the keys of the spec have it')


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
    reference = File(exists=True, mandatory=True, desc='image that the session is aligned to')
    reference_mask = File(exists=True, mandatory=True, desc='brain mask of the reference')
    user_mask = File(exists=True, desc="user's own brain mask of the image")
    image_key = traits.Str(desc='key of the image in the spec; none: no bias correction')
    mask_key = traits.Str('brain_mask', usedefault=True, desc='key of the mask in the spec')
    transform_key = traits.Str('to_reference', usedefault=True, desc='key of the transform')
    metric = traits.Str(desc='name of the metric of similarity')


class _CoregisterOutputSpec(TraitedSpec):
    image = File(desc='bias-corrected image on its own grid')
    transform = File(exists=True, desc='rigid transform, image to reference')
    brain_mask = File(exists=True, desc='brain mask on the grid of the image')
    metadata = File(exists=True, desc='sidecar fields and metrics')


class Coregister(ChildCommand):
    """Align an image to the reference of its session."""

    module = _MODULE
    step = 'coregister'
    input_spec = _CoregisterInputSpec
    output_spec = _CoregisterOutputSpec


class _ResampleMapsInputSpec(ChildInputSpec):
    in_files = InputMultiObject(File(exists=True), mandatory=True, desc='maps')
    reference = File(exists=True, mandatory=True, desc='image that gives the grid')
    transforms = InputMultiObject(File(exists=True), mandatory=True, desc='last one first')
    interpolation = traits.Dict(mandatory=True, desc='linear or nearest for each stem')
    fill_value = traits.Float(0.0, usedefault=True, desc='outside the field, of linear maps')


class _ResampleMapsOutputSpec(TraitedSpec):
    out_files = OutputMultiObject(File(exists=True), desc='maps under the same names')


class ResampleMaps(ChildCommand):
    """Bring maps onto a template's grid."""

    module = _MODULE
    step = 'resample'
    input_spec = _ResampleMapsInputSpec
    output_spec = _ResampleMapsOutputSpec
