"""A child program's result, its plain failure and its death."""

import json
import re
from pathlib import Path

import pytest
from nipype import Node
from nipype.interfaces.base import File, TraitedSpec, traits

from bids_app.compute.child import FAILURE_FILE, ChildCommand, ChildInputSpec

PROGRAM = """
import json, os, pathlib, signal, sys
from bids_app.compute.child import run_child
from bids_app.errors import BadDataError

def good(request):
    pathlib.Path('out.txt').write_text(str(request['value'] * 2))
    return {'out_file': 'out.txt', 'threads': os.environ['OMP_NUM_THREADS']}

def bad(request):
    raise BadDataError('a.nii.gz is constant: export it again.')

def pools(request):
    import numpy, SimpleITK, torch
    from threadpoolctl import threadpool_info
    sizes = {pool['filepath']: pool['num_threads'] for pool in threadpool_info()}
    sizes['itk'] = SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sizes['torch'] = torch.get_num_threads()
    return {'out_file': 'request.json', 'threads': json.dumps(sizes)}

def killed(request):
    pathlib.Path('out.txt').write_text('half')
    os.kill(os.getpid(), signal.SIGKILL)

def broken(request):
    return {'out_file': 1 / 0}

def full(request):
    raise OSError(28, 'No space left on device', 'out.txt')

sys.exit(run_child({f.__name__: f for f in (good, pools, bad, killed, broken, full)}))
"""


class _InputSpec(ChildInputSpec):
    value = traits.Int(1)


class _OutputSpec(TraitedSpec):
    out_file = File(exists=True)
    threads = traits.Str()


class Child(ChildCommand):
    module = 'child_program_of_the_test'
    input_spec = _InputSpec
    output_spec = _OutputSpec


@pytest.fixture
def node(tmp_path, monkeypatch):
    (tmp_path / 'child_program_of_the_test.py').write_text(PROGRAM)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))

    def make(step, **inputs):
        interface = Child(**inputs)
        interface.step = step
        return Node(interface, name=step, base_dir=str(tmp_path / 'work'))

    return make


def test_result_becomes_outputs_and_threads_are_passed(node):
    outputs = node('good', value=21, num_threads=3).run().outputs
    assert Path(outputs.out_file).read_text() == '42'
    assert outputs.threads == '3'


@pytest.mark.parametrize('threads', [1, 2])
def test_pools_of_all_libraries_have_the_threads_of_the_step(node, monkeypatch, threads):
    monkeypatch.setenv('OMP_NUM_THREADS', '7')
    sizes = json.loads(node('pools', num_threads=threads).run().outputs.threads)
    assert len(sizes) >= 4
    # Some libraries take no more than there are processors.
    assert all(size <= threads for size in sizes.values()), sizes


def test_threads_and_device_are_not_hashed():
    def hashed(**inputs):
        return Child(**inputs).inputs.get_hashval('timestamp')[1]

    first = hashed(value=1, num_threads=1, device='cpu', mem_gb=1.0)
    assert hashed(value=1, num_threads=2, device='cuda:0', mem_gb=2.0) == first
    assert hashed(value=2, num_threads=1, device='cpu', mem_gb=1.0) != first


@pytest.mark.parametrize(
    ('step', 'cause', 'code'),
    [
        ('bad', r'^a.nii.gz is constant: export it again.$', 65),
        ('killed', r'killed, most likely for memory: needs about 3.0 GB', 1),
        ('broken', r'stopped unexpectedly: ZeroDivisionError', 1),
        ('full', r'out.txt: No space left on device', 74),
    ],
)
def test_failures_are_plain(node, step, cause, code):
    failing = node(step, mem_gb=3.0)
    with pytest.raises(RuntimeError, match=cause.strip('^$')):
        failing.run()
    failure = json.loads((Path(failing.output_dir()) / FAILURE_FILE).read_text())
    assert failure['code'] == code
    assert re.search(cause, failure['cause'])
