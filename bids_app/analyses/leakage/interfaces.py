"""Nipype interfaces of the leakage room."""

from __future__ import annotations

from nipype.interfaces.base import (
    File,
    InputMultiObject,
    OutputMultiObject,
    TraitedSpec,
    traits,
)

from ...compute.child import ChildCommand, ChildInputSpec

_MODULE = 'bids_app.analyses.leakage.command'


class _EstimateMotionInputSpec(ChildInputSpec):
    in_file = File(exists=True, mandatory=True, desc='DCE series')
    times_s = traits.List(traits.Float(), mandatory=True, desc='start of each frame, s')
    correct = traits.Bool(True, usedefault=True, desc='whether to align the frames')


class _EstimateMotionOutputSpec(TraitedSpec):
    baseline = File(exists=True, desc='mean of the aligned frames before the bolus')
    motion = File(exists=True, desc='table of motion parameters')
    transforms = File(exists=True, desc='JSON: matrix of each frame, frames to resample')


class EstimateMotion(ChildCommand):
    """Align the frames of a DCE series to its baseline."""

    module = _MODULE
    step = 'motion'
    input_spec = _EstimateMotionInputSpec
    output_spec = _EstimateMotionOutputSpec


class _FitLeakageInputSpec(ChildInputSpec):
    in_file = File(exists=True, mandatory=True, desc='DCE series')
    times_s = traits.List(traits.Float(), mandatory=True, desc='start of each frame, s')
    timing_source = traits.Str(mandatory=True, desc='field that gave the times')
    tr_s = traits.Float(desc='time between excitations, s')
    flip_angle_deg = traits.Float(desc='flip angle, degrees')
    transforms = File(exists=True, mandatory=True, desc='motion of each frame')
    brain_mask = File(exists=True, desc='brain mask on the grid of the series')
    brain_mask_source = traits.Str(usedefault=True, desc='where the mask comes from')
    region_mask = File(exists=True, desc="user's mask of the region to summarise")
    aif_mask = File(exists=True, desc="user's mask of an artery")
    t1_map = File(exists=True, desc='T1 before contrast, s')
    vfa_files = InputMultiObject(File(exists=True), desc='variable flip angle images')
    vfa_flip_angles_deg = traits.List(traits.Float(), desc='their flip angles, degrees')
    vfa_tr_s = traits.Float(desc='their time between excitations, s')
    weights = File(exists=True, mandatory=True, desc='weights of the autoencoder')
    weights_sha256 = traits.Str(mandatory=True, desc='their checksum')
    card = traits.Dict(mandatory=True, desc='name, version and threshold of the model')
    settings = traits.Dict(mandatory=True, desc='the leakage section of Config')


class _FitLeakageOutputSpec(TraitedSpec):
    maps = OutputMultiObject(File(exists=True), desc='maps under the keys of the spec')
    tables = OutputMultiObject(File(exists=True), desc='tables under the keys of the spec')
    metadata = File(exists=True, desc='sidecar fields and metrics')


class FitLeakage(ChildCommand):
    """Compute residual signals and pharmacokinetic maps of a DCE series."""

    module = _MODULE
    step = 'fit'
    input_spec = _FitLeakageInputSpec
    output_spec = _FitLeakageOutputSpec
