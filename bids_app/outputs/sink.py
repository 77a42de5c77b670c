"""The only way into the derivatives dataset for images and tables."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    Directory,
    File,
    InputMultiObject,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from ..compute.images import atomic_path, write_text
from ..compute.staging import locked
from .provenance import raw_uri
from .spec import Spec, load_spec, output_path

# Keys of a metadata file beside the common sidecar fields.
PER_OUTPUT = 'per_output'
METRICS = 'metrics'


class _DerivativesSinkInputSpec(BaseInterfaceInputSpec):
    room = traits.Str(mandatory=True, desc='whose spec names the files')
    output_dir = Directory(mandatory=True, desc='root of the derivatives dataset')
    bids_dir = Directory(mandatory=True, desc='root of the raw dataset')
    source_file = traits.Str(mandatory=True, desc='raw file that gives the entities')
    in_files = InputMultiObject(File(exists=True), desc='files whose stems are keys of the spec')
    space = traits.Dict(usedefault=True, desc='space and res')
    labels = traits.Dict(usedefault=True, desc='images that a transform connects')
    spatial_reference = traits.Str(desc='URI of the image whose grid the files share')
    sources = traits.List(traits.Str(), usedefault=True, desc='further raw files used')
    metadata = File(exists=True, desc='JSON with sidecar fields and metrics')
    write_metrics = traits.Bool(True, usedefault=True, desc='metrics go to the scans table')
    partial_metrics = traits.Bool(
        False, usedefault=True, desc='other metrics of the row are those of other steps: kept'
    )
    metrics_source = traits.Str(desc='raw file whose row the metrics go to, if another one')
    metrics_key = traits.Str(desc='output whose row the metrics go to, if not the main one')


class _DerivativesSinkOutputSpec(TraitedSpec):
    out_files = traits.List(File(exists=True), desc='files in the derivatives dataset')


class DerivativesSink(SimpleInterface):
    """
    Copy files into the derivatives dataset under the names of the spec.

    Runs at every call, cached or not, so that a file somebody deleted comes back; a file that
    is already there with the same bytes is left alone.
    """

    input_spec = _DerivativesSinkInputSpec
    output_spec = _DerivativesSinkOutputSpec
    _always_run = True

    def _run_interface(self, runtime: Any) -> Any:  # noqa: ANN401
        spec = load_spec(self.inputs.room)
        content = _read_metadata(self.inputs.metadata)
        root = Path(self.inputs.output_dir)
        written = []
        for source in self.inputs.in_files if isdefined(self.inputs.in_files) else []:
            key = Path(source).name.partition('.')[0]
            relative = output_path(
                spec.outputs[key], self.inputs.source_file, self.inputs.space, self.inputs.labels
            )
            target = root / relative
            _copy(Path(source), target)
            sidecar = self._sidecar(spec, key, content)
            name = target.name.partition('.')[0] + '.json'
            write_text(target.with_name(name), json.dumps(sidecar, indent=2) + '\n')
            written.append(str(target))
        if content[METRICS] and self.inputs.write_metrics:
            self._update_scans(spec, content[METRICS], root)
        self._results['out_files'] = written
        return runtime

    def _sidecar(self, spec: Spec, key: str, content: dict[str, Any]) -> dict[str, Any]:
        output = spec.outputs[key]
        inputs = self.inputs
        sources = [
            raw_uri(path, inputs.bids_dir) for path in (inputs.source_file, *inputs.sources)
        ]
        sidecar: dict[str, Any] = {'Description': output.description} | output.sidecar
        sidecar['Sources'] = sources
        if isdefined(inputs.spatial_reference) and output.entities['extension'] == '.nii.gz':
            sidecar['SpatialReference'] = inputs.spatial_reference
        if output.entities['extension'] == '.nii.gz':
            sidecar.setdefault('SkullStripped', False)
            if 'res' in inputs.space:
                index = inputs.space['res']
                sidecar['Resolution'] = f'Grid of the template at its resolution index {index}'
        return sidecar | content['common'] | content[PER_OUTPUT].get(key, {})

    def _update_scans(self, spec: Spec, metrics: dict[str, Any], root: Path) -> None:
        row = {
            name: metrics.get(name)
            for name in spec.metrics
            if name in metrics or not self.inputs.partial_metrics
        }
        source = self.inputs.source_file
        if isdefined(self.inputs.metrics_source):
            source = self.inputs.metrics_source
        key = self.inputs.metrics_key
        output = spec.outputs[key] if isdefined(key) else spec.main_output(source)
        image = output_path(output, source)
        folder = root / image.parent.parent
        prefix = image.parent.parent.as_posix().replace('/', '_')
        units = {
            item.name: {'Description': item.description, 'Units': item.units}
            for item in spec.metrics.values()
        }
        with locked(folder):
            update_table(folder / f'{prefix}_scans.tsv', f'{image.parent.name}/{image.name}', row)
            path = folder / f'{prefix}_scans.json'
            known = json.loads(path.read_text()) if path.exists() else {}
            write_text(path, json.dumps(known | units, indent=2) + '\n')


def _read_metadata(path: Any) -> dict[str, Any]:  # noqa: ANN401
    content = json.loads(Path(path).read_text()) if isdefined(path) else {}
    return {'common': {}, PER_OUTPUT: {}, METRICS: {}} | content


def _copy(source: Path, target: Path) -> None:
    if target.exists() and target.read_bytes() == source.read_bytes():
        return
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def update_table(path: Path, filename: str, row: dict[str, Any]) -> None:
    """
    Set one row of a ``_scans.tsv``, keeping other rows and columns.

    Parameters
    ----------
    path : Path
        The table.
    filename : str
        Key of the row.
    row : dict
        Values; None becomes ``n/a``.
    """
    # The graph is built with this module, long before the first table is written.
    import pandas as pd

    if path.exists():
        table = pd.read_csv(path, sep='\t', dtype=str, keep_default_na=False).set_index('filename')
    else:
        table = pd.DataFrame(index=pd.Index([], name='filename'), dtype=str)
    for name, value in row.items():
        text = 'n/a' if value is None else format(value, '.6g')
        table.loc[filename, name] = text
    table = table.sort_index().fillna('n/a')
    write_text(path, table.to_csv(sep='\t'))
