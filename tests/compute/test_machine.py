"""Limits of fake machines of which the truth is known."""

import os
from pathlib import Path

import pytest

from bids_app.compute.machine import available_memory_gb, cpu_count, thread_environment

V2 = '30 23 0:26 {top} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n'
V1_MEMORY = '35 31 0:32 {top} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n'
V1_CPU = '32 31 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n'
OTHER = '22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n'
UNLIMITED_V1 = '9223372036854771712'
GIB = 2**30


@pytest.fixture(autouse=True)
def machine_of_64_processors_and_1_tib(monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: set(range(64)))
    sizes = {'SC_PAGE_SIZE': 4096, 'SC_PHYS_PAGES': 2**40 // 4096}
    monkeypatch.setattr(os, 'sysconf', sizes.__getitem__)


def make(root: Path, cgroup: str, mounts: str, files: dict[str, str]) -> Path:
    (root / 'proc/self').mkdir(parents=True)
    (root / 'proc/self/cgroup').write_text(cgroup)
    (root / 'proc/self/mountinfo').write_text(OTHER + mounts)
    for name, text in files.items():
        path = root / 'sys/fs/cgroup' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{text}\n')
    return root


def share_gb(size: float) -> float:
    return round(0.9 * size / 1e9, 1)


def test_version_2_the_tightest_of_nested_groups_binds(tmp_path):
    root = make(
        tmp_path,
        '0::/slurm/job_7/step_0\n',
        V2.format(top='/'),
        {
            'memory.max': 'max',
            'slurm/memory.max': 'max',
            'slurm/job_7/memory.max': str(16 * GIB),
            'slurm/job_7/step_0/memory.max': 'max',
            'slurm/job_7/step_0/memory.high': str(12 * GIB),
            'slurm/cpu.max': 'max 100000',
            'slurm/job_7/cpu.max': '400000 100000',
            'slurm/job_7/step_0/cpu.max': '800000 100000',
            # Of another job.
            'slurm/job_8/memory.max': str(GIB),
            'slurm/job_8/cpu.max': '100000 100000',
        },
    )
    assert available_memory_gb(root, {}) == share_gb(12 * GIB)
    assert cpu_count(root, {}) == 4


def test_version_1_with_a_hierarchy_for_each_controller(tmp_path):
    root = make(
        tmp_path,
        '4:memory:/pbs/9\n1:cpu,cpuacct:/pbs/9\n9:name=systemd:/\n0::/\n',
        V1_MEMORY.format(top='/') + V1_CPU.format(top='/'),
        {
            'memory/memory.limit_in_bytes': UNLIMITED_V1,
            'memory/pbs/memory.limit_in_bytes': str(32 * GIB),
            'memory/pbs/9/memory.limit_in_bytes': str(8 * GIB),
            'cpu,cpuacct/cpu.cfs_quota_us': '-1',
            'cpu,cpuacct/cpu.cfs_period_us': '100000',
            'cpu,cpuacct/pbs/9/cpu.cfs_quota_us': '150000',
            'cpu,cpuacct/pbs/9/cpu.cfs_period_us': '50000',
        },
    )
    assert available_memory_gb(root, {}) == share_gb(8 * GIB)
    assert cpu_count(root, {}) == 3


@pytest.mark.parametrize(
    ('cgroup', 'top'),
    [
        ('0::/\n', '/'),
        # The host's name of the group, which inside is the top.
        ('0::/docker/ab12\n', '/docker/ab12'),
        ('0::/../../docker/ab12\n', '/'),
    ],
)
def test_in_a_container(tmp_path, cgroup, top):
    files = {'memory.max': str(6 * GIB), 'cpu.max': '250000 100000'}
    root = make(tmp_path, cgroup, V2.format(top=top), files)
    assert available_memory_gb(root, {}) == share_gb(6 * GIB)
    assert cpu_count(root, {}) == 2


@pytest.mark.parametrize(('quota', 'cpus'), [(50_000, 1), (199_000, 1), (200_000, 2)])
def test_part_of_a_processor_is_not_rounded_up(tmp_path, quota, cpus):
    root = make(tmp_path, '0::/\n', V2.format(top='/'), {'cpu.max': f'{quota} 100000'})
    assert cpu_count(root, {}) == cpus


@pytest.mark.parametrize(
    'files',
    [
        {},
        {'memory.max': 'max', 'cpu.max': 'max 100000'},
        {'memory.max': str(2**60), 'cpu.max': '99900000 100000'},
    ],
)
def test_without_a_limit_the_machine_and_its_affinity_count(tmp_path, files):
    root = make(tmp_path, '0::/\n', V2.format(top='/'), files)
    assert available_memory_gb(root, {}) == share_gb(2**40)
    assert cpu_count(root, {}) == 64


def test_without_proc(tmp_path):
    assert cpu_count(tmp_path, {}) == 64
    assert available_memory_gb(tmp_path, {}) == share_gb(2**40)


@pytest.mark.parametrize(
    ('environment', 'cpus'),
    [
        ({'SLURM_JOB_ID': '1', 'SLURM_CPUS_PER_TASK': '6', 'SLURM_CPUS_ON_NODE': '12'}, 6),
        ({'SLURM_JOB_ID': '1', 'SLURM_CPUS_ON_NODE': '12'}, 12),
        # Set by hand, outside of a job.
        ({'SLURM_CPUS_PER_TASK': '6'}, 64),
        ({'SLURM_JOB_ID': '1', 'SLURM_CPUS_PER_TASK': '128'}, 64),
        ({'JOB_ID': '1', 'NSLOTS': '3'}, 3),
        ({'PBS_JOBID': '1.host', 'NCPUS': '5'}, 5),
        ({'LSB_JOBID': '1', 'LSB_DJOB_NUMPROC': '7'}, 7),
        ({'LSB_JOBID': '1'}, 64),
        ({'JOB_ID': '1', 'NSLOTS': 'undefined'}, 64),
    ],
)
def test_processors_that_a_scheduler_gave(tmp_path, environment, cpus):
    assert cpu_count(tmp_path, environment) == cpus


@pytest.mark.parametrize(
    ('environment', 'size'),
    [
        ({'SLURM_JOB_ID': '1', 'SLURM_MEM_PER_NODE': '4096'}, 4 * GIB),
        (
            {'SLURM_JOB_ID': '1', 'SLURM_MEM_PER_CPU': '2048', 'SLURM_CPUS_ON_NODE': '3'},
            6 * GIB,
        ),
        ({'SLURM_JOB_ID': '1', 'SLURM_MEM_PER_NODE': '0'}, 2**40),
        ({'SLURM_MEM_PER_NODE': '4096'}, 2**40),
    ],
)
def test_memory_that_slurm_gave(tmp_path, environment, size):
    assert available_memory_gb(tmp_path, environment) == share_gb(size)


def test_a_cgroup_below_what_the_scheduler_gave_binds(tmp_path):
    root = make(tmp_path, '0::/\n', V2.format(top='/'), {'cpu.max': '200000 100000'})
    assert cpu_count(root, {'SLURM_JOB_ID': '1', 'SLURM_CPUS_PER_TASK': '6'}) == 2


def test_at_least_one_thread():
    assert set(thread_environment(0).values()) == {'1'}
