"""Nipype interfaces of the lvo room."""

from __future__ import annotations

from nipype.interfaces.base import File, OutputMultiObject, TraitedSpec, traits

from ...compute.child import ChildCommand, ChildInputSpec


class _LocateOcclusionInputSpec(ChildInputSpec):
    ct = File(exists=True, mandatory=True, desc='prepared head CT, in HU')
    brain_mask = File(exists=True, mandatory=True, desc='on its grid')
    source = traits.Str(mandatory=True, desc='raw image, for messages')
    models = traits.Dict(
        mandatory=True, desc='for each network where card and weights lie, and the checksum'
    )
    territory = File(exists=True, desc="the user's own territory, in MNI152NLin2009aSym")
    settings = traits.Dict(mandatory=True, desc='the lvo section of Config')
    memory_gb = traits.Float(mandatory=True, nohash=True, desc='memory it may use, in GB')


class _LocateOcclusionOutputSpec(TraitedSpec):
    maps = OutputMultiObject(File(exists=True), desc='maps under the keys of the spec')
    tables = OutputMultiObject(File(exists=True), desc='tables under the keys of the spec')
    metadata = File(exists=True, desc='sidecar fields and metrics')


class LocateOcclusion(ChildCommand):
    """Label arteries, compare the hemispheres, and say whether and where one is occluded."""

    module = 'bids_app.analyses.lvo.command'
    step = 'locate'
    input_spec = _LocateOcclusionInputSpec
    output_spec = _LocateOcclusionOutputSpec
