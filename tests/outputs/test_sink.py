"""Files and tables reach the derivatives dataset whole, once, and with their provenance."""

import json
import multiprocessing
from pathlib import Path

import pandas as pd
import pytest

from bids_app.errors import CannotCreateError
from bids_app.outputs.description import check_output_dir, write_description
from bids_app.outputs.sink import DerivativesSink, locked, update_table


@pytest.fixture
def sink(tmp_path):
    made = tmp_path / 'made'
    made.mkdir()
    (made / 'rls.nii.gz').write_bytes(b'map')
    metadata = {
        'common': {'Device': 'cpu'},
        'per_output': {'rls': {'Note': 'own'}},
        'metrics': {'leakage_rls_median': 2.5, 'unknown': 1},
    }
    (made / 'metadata.json').write_text(json.dumps(metadata))

    def make(**inputs):
        return DerivativesSink(
            room='leakage',
            output_dir=str(tmp_path / 'out'),
            bids_dir='/data',
            source_file='/data/sub-01/perf/sub-01_dce.nii.gz',
            in_files=[str(made / 'rls.nii.gz')],
            metadata=str(made / 'metadata.json'),
            **inputs,
        )

    return make


def test_file_sidecar_and_row(sink, tmp_path):
    (out,) = sink(sources=['/data/sub-01/anat/sub-01_T1map.nii.gz']).run().outputs.out_files
    assert Path(out).read_bytes() == b'map'
    sidecar = json.loads(Path(out.replace('.nii.gz', '.json')).read_text())
    assert sidecar['Units'] == '%'
    assert sidecar['Sources'] == [
        'bids:raw:sub-01/perf/sub-01_dce.nii.gz',
        'bids:raw:sub-01/anat/sub-01_T1map.nii.gz',
    ]
    assert sidecar['Device'] == 'cpu'
    assert sidecar['Note'] == 'own'
    table = pd.read_csv(tmp_path / 'out/sub-01/sub-01_scans.tsv', sep='\t')
    assert table.loc[0, 'filename'] == 'perf/sub-01_param-RLS_dcemap.nii.gz'
    assert table.loc[0, 'leakage_rls_median'] == 2.5
    assert 'unknown' not in table


def test_steps_share_a_row_without_wiping_each_other_s_metrics(sink, tmp_path):
    sink(partial_metrics=True).run()
    other = sink(partial_metrics=True, metrics_source='/data/sub-01/perf/sub-01_dce.nii.gz')
    other.inputs.source_file = '/data/sub-01/perf/sub-01_run-2_dce.nii.gz'
    Path(other.inputs.metadata).write_text('{"metrics": {"leakage_rvs_median": 1.5}}')
    other.run()
    table = pd.read_csv(tmp_path / 'out/sub-01/sub-01_scans.tsv', sep='\t')
    assert table['filename'].tolist() == ['perf/sub-01_param-RLS_dcemap.nii.gz']
    assert table.loc[0, 'leakage_rls_median'] == 2.5
    assert table.loc[0, 'leakage_rvs_median'] == 1.5
    sink().run()
    table = pd.read_csv(tmp_path / 'out/sub-01/sub-01_scans.tsv', sep='\t')
    assert table['leakage_rls_median'].isna().all()


def test_same_bytes_are_left_alone_and_lost_files_come_back(sink):
    (out,) = sink().run().outputs.out_files
    before = Path(out).stat().st_mtime_ns
    sink().run()
    assert Path(out).stat().st_mtime_ns == before
    Path(out).unlink()
    sink().run()
    assert Path(out).read_bytes() == b'map'


def test_unknown_output_is_refused(sink, tmp_path):
    stray = tmp_path / 'stray.nii.gz'
    stray.touch()
    node = sink()
    node.inputs.in_files = [str(stray)]
    with pytest.raises(KeyError, match='stray'):
        node.run()
    assert not list((tmp_path / 'out').rglob('*stray*'))


def _write_row(folder, index):
    with locked(folder):
        update_table(folder / 'scans.tsv', f'file-{index:02}', {'value': float(index)})


def test_rows_of_many_processes_all_arrive(tmp_path):
    context = multiprocessing.get_context('fork')
    jobs = [context.Process(target=_write_row, args=(tmp_path, i)) for i in range(12)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    table = pd.read_csv(tmp_path / 'scans.tsv', sep='\t')
    assert table['value'].tolist() == list(range(12))


def test_output_folder_checks(tmp_path):
    raw = tmp_path / 'raw'
    raw.mkdir()
    for inside in (raw, raw / 'results'):
        with pytest.raises(CannotCreateError, match='inside the raw dataset'):
            check_output_dir(inside, raw)
    check_output_dir(raw / 'derivatives' / 'neurolesion', raw)
    other = tmp_path / 'other'
    other.mkdir()
    (other / 'dataset_description.json').write_text('{"Name": "mine", "BIDSVersion": "1.0"}')
    with pytest.raises(CannotCreateError, match='holds another dataset'):
        check_output_dir(other, raw)
    ours = tmp_path / 'ours'
    check_output_dir(ours, raw)
    write_description(ours, raw, {'Name': 'Raw'}, None)
    check_output_dir(ours, raw)
    (tmp_path / 'file').touch()
    with pytest.raises(CannotCreateError, match='cannot be written'):
        check_output_dir(tmp_path / 'file' / 'out', raw)
