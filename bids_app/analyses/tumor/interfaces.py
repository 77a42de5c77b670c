"""Nipype interfaces of the tumor room."""

from __future__ import annotations

from nipype.interfaces.base import File, OutputMultiObject, TraitedSpec, traits

from ...compute.child import ChildCommand, ChildInputSpec


class _SegmentTumorInputSpec(ChildInputSpec):
    flair = File(exists=True, desc='prepared FLAIR image')
    t1w = File(exists=True, desc='prepared T1w image')
    t1gd = File(exists=True, desc='prepared contrast-enhanced T1w image')
    t2w = File(exists=True, desc='prepared T2w image')
    flair_to_reference = File(exists=True, desc='rigid transform, where it is not the reference')
    t1w_to_reference = File(exists=True, desc='rigid transform, where it is not the reference')
    t1gd_to_reference = File(exists=True, desc='rigid transform, where it is not the reference')
    t2w_to_reference = File(exists=True, desc='rigid transform, where it is not the reference')
    reference = traits.Str(mandatory=True, desc='name of the image whose grid the maps share')
    brain_mask = File(exists=True, mandatory=True, desc='brain mask of the reference')
    model = traits.Dict(mandatory=True, desc='where the model lies, and its checksums')
    settings = traits.Dict(mandatory=True, desc='the tumor section of Config')
    memory_gb = traits.Float(mandatory=True, nohash=True, desc='memory it may use, in GB')


class _SegmentTumorOutputSpec(TraitedSpec):
    maps = OutputMultiObject(File(exists=True), desc='maps under the keys of the spec')
    tables = OutputMultiObject(File(exists=True), desc='tables under the keys of the spec')
    lesion_mask = File(exists=True, desc='whole tumor, to be left out of registration')
    metadata = File(exists=True, desc='sidecar fields and metrics')


class SegmentTumor(ChildCommand):
    """Label edema, enhancing tumor and other core on the images of one session."""

    module = 'bids_app.analyses.tumor.command'
    step = 'segment'
    input_spec = _SegmentTumorInputSpec
    output_spec = _SegmentTumorOutputSpec
