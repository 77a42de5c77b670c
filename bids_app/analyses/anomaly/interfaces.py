"""Nipype interfaces of the anomaly room."""

from __future__ import annotations

from nipype.interfaces.base import File, OutputMultiObject, TraitedSpec, traits

from ...compute.child import ChildCommand, ChildInputSpec


class _DetectAnomaliesInputSpec(ChildInputSpec):
    modality = traits.Str(mandatory=True, desc='t1w, flair or t2w')
    source = traits.Str(mandatory=True, desc='raw image, for messages')
    image = File(exists=True, mandatory=True, desc='prepared image of that modality')
    transform = File(exists=True, desc='rigid transform from it to the reference')
    reference = File(exists=True, mandatory=True, desc='prepared reference of the session')
    brain_mask = File(exists=True, mandatory=True, desc='on the grid of the reference')
    model = traits.Dict(mandatory=True, desc='where card and weights lie, and the checksum')
    settings = traits.Dict(mandatory=True, desc='what the anomaly section of Config says of it')


class _DetectAnomaliesOutputSpec(TraitedSpec):
    maps = OutputMultiObject(File(exists=True), desc='maps under the keys of the spec')
    tables = OutputMultiObject(File(exists=True), desc='tables under the keys of the spec')
    metadata = File(exists=True, desc='sidecar fields and metrics')


class DetectAnomalies(ChildCommand):
    """Compare one image of a session with what a network takes for healthy."""

    module = 'bids_app.analyses.anomaly.command'
    step = 'detect'
    input_spec = _DetectAnomaliesInputSpec
    output_spec = _DetectAnomaliesOutputSpec
