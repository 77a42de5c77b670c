"""Nipype interfaces of the lgg room."""

from __future__ import annotations

from nipype.interfaces.base import File, OutputMultiObject, TraitedSpec, traits

from ...compute.child import ChildCommand, ChildInputSpec


class _SegmentLggInputSpec(ChildInputSpec):
    flair = File(exists=True, mandatory=True, desc='raw FLAIR image')
    t1w = File(exists=True, desc='raw T1w image')
    t1gd = File(exists=True, desc='raw contrast-enhanced T1w image')
    grid = File(exists=True, desc='prepared reference, where the images do not share a grid')
    flair_to_reference = File(exists=True, desc='rigid transform to it')
    t1w_to_reference = File(exists=True, desc='rigid transform to it')
    t1gd_to_reference = File(exists=True, desc='rigid transform to it')
    brain_mask = File(exists=True, desc='on the grid of the maps, where the model reads brains')
    model = traits.Dict(mandatory=True, desc='where card and weights lie, and the checksum')
    settings = traits.Dict(mandatory=True, desc='the lgg section of Config')


class _SegmentLggOutputSpec(TraitedSpec):
    maps = OutputMultiObject(File(exists=True), desc='maps under the keys of the spec')
    tables = OutputMultiObject(File(exists=True), desc='tables under the keys of the spec')
    metadata = File(exists=True, desc='sidecar fields and metrics')


class SegmentLgg(ChildCommand):
    """Outline lower-grade glioma on the images of one session."""

    module = 'bids_app.analyses.lgg.command'
    step = 'segment'
    input_spec = _SegmentLggInputSpec
    output_spec = _SegmentLggOutputSpec
