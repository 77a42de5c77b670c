"""Jobs of a stand-in scheduler: what they ask for, and what becomes of those that are killed."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import nipype.interfaces.utility as niu
import pytest
import yaml
from nipype import Node, Workflow

from bids_app.cluster.plugin_file import make_plugin, read_plugin_file
from bids_app.cluster.profile import read_profile
from bids_app.cluster.scheduler import ClusterPlugin
from bids_app.errors import UsageError

COMMANDS = {
    'slurm': ('sbatch', 'squeue', 'scancel', 'scontrol'),
    'pbs': ('qsub', 'qstat', 'qdel'),
    'sge': ('qsub', 'qstat', 'qdel', 'qacct'),
    'lsf': ('bsub', 'bjobs', 'bkill'),
}


def double(value):
    """The step: twice its input."""
    return 2 * value


def sleep(value):
    """A step that does not end by itself in the time of a test."""
    import time

    time.sleep(600)
    return value


class Cluster:
    """A stand-in scheduler and a graph of two steps that it runs."""

    def __init__(self, root, monkeypatch, kind='slurm'):
        self.root, self.kind = root, kind
        self.home = root / 'scheduler'
        self.home.mkdir()
        program = f'#!{sys.executable}\n' + Path(__file__).with_name('stand_in.py').read_text()
        for name in COMMANDS[kind]:
            (self.home / name).write_text(program)
            (self.home / name).chmod(0o755)
        monkeypatch.setenv('PATH', f'{self.home}:{os.environ["PATH"]}')
        monkeypatch.setenv('STAND_IN_HOME', str(self.home))
        monkeypatch.setenv('STAND_IN_KIND', kind)
        self.told = []

    def profile(self, **changes):
        content = {'extends': self.kind, 'poll_s': 0.3, 'latency_s': 1, **changes}
        (self.root / 'mine.yml').write_text(yaml.safe_dump(content))
        return read_profile(str(self.root / 'mine.yml'))

    def run(self, function=double, start=1, **changes):
        graph = Workflow('neurolesion_wf', base_dir=str(self.root / 'work'))
        graph.config['execution'] = {
            'poll_sleep_duration': '0.2',
            'crashdump_dir': str(self.root),
            'crashfile_format': 'txt',
        }
        first, second = (
            Node(niu.Function(['value'], ['out'], function), name=name, n_procs=2, mem_gb=3.0)
            for name in ('first', 'second')
        )
        first.inputs.value = start
        part = Workflow('sub_01_wf')
        part.connect(first, 'out', second, 'value')
        graph.add_nodes([part])
        plugin = ClusterPlugin(
            self.profile(**changes), lambda node, status: self.told.append((node.name, status))
        )
        self.folder = self.root / 'work/neurolesion_wf/sub_01_wf/first'
        done = graph.run(plugin=plugin)
        return next(node for node in done.nodes() if node.name == 'second').result.outputs.out

    def calls(self, name):
        lines = (self.home / 'calls.txt').read_text().splitlines()
        return [line for line in lines if line.split()[0] == name]

    def cause(self):
        return json.loads((self.folder / 'failure.json').read_text())['cause']

    def wait_for_job(self):
        """The process of the first job, once its step has begun."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if list(self.home.glob('job-*')) and list(
                (self.root / 'work').rglob('first/_0x*_unfinished.json')
            ):
                return
            time.sleep(0.1)
        raise AssertionError('the job never began')


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    return Cluster(tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize('kind', COMMANDS)
def test_each_scheduler_runs_the_graph_and_a_second_run_submits_nothing(
    tmp_path, monkeypatch, kind
):
    cluster = Cluster(tmp_path, monkeypatch, kind)
    assert cluster.run() == 4
    submit = COMMANDS[kind][0]
    first, second = cluster.calls(submit)
    assert 'sub_01.first' in first
    # 3 GB and a fifth, and what Nipype itself needs.
    memory = {'slurm': '4200M', 'pbs': 'mem=4200mb', 'sge': 'mem_free=2100M', 'lsf': 'mem=2100]'}
    assert memory[kind] in first
    assert 'second' in second or kind == 'pbs'
    started = [name for name, status in cluster.told if status == 'start']
    assert started == ['first', 'second']
    cluster.told.clear()
    assert cluster.run() == 4
    assert len(cluster.calls(submit)) == 2
    assert cluster.told == [('first', 'end'), ('second', 'end')]


def test_a_file_changes_the_profile_for_all_steps_and_for_some(cluster):
    cluster.run(
        options=['--partition=short', '--account=my-office'],
        minutes=90,
        setup='export FROM_SETUP=1',
        steps={'sec*': {'minutes': 7.5, 'mem_gb': 16, 'cpus': 8, 'options': ['--qos={cpus}']}},
    )
    first, second = cluster.calls('sbatch')
    assert '--time=90 --partition=short --account=my-office' in first
    assert '--cpus-per-task=2' in first
    assert '--cpus-per-task=8 --mem=16000M --time=8 --partition=short' in second
    assert '--account=my-office --qos=8' in second
    script = Path(second.split()[-1])
    assert 'export FROM_SETUP=1' in script.read_text().splitlines()


# What the schedulers say of jobs that ended early; those of SLURM are from a real one.
@pytest.mark.parametrize(
    ('kind', 'text', 'cause'),
    [
        (
            'slurm',
            'slurmstepd: error: *** JOB 1 ON vm CANCELLED AT 2026-11-21 ***',
            'cancelled',
        ),
        ('slurm', '*** JOB 1 ON vm CANCELLED AT 2026-11-21 DUE TO TIME LIMIT ***', 'time'),
        ('slurm', 'JobId=2 JobState=CANCELLED Reason=BeginTime TimeLimit=UNLIMITED', 'cancelled'),
        ('slurm', 'JobId=2 JobState=TIMEOUT Reason=TimeLimit', 'time'),
        ('slurm', 'error: Detected 1 oom-kill event(s) in StepId=9.batch', 'memory'),
        ('slurm', 'JobId=2 JobState=NODE_FAIL', 'node'),
        ('slurm', 'JobId=2 JobState=COMPLETED Reason=None TimeLimit=04:00:00', None),
        ('pbs', '=>> PBS: job killed: walltime 61 exceeded limit 60', 'time'),
        ('pbs', '=>> PBS: job killed: mem 9000kb exceeded limit 8000kb', 'memory'),
        ('sge', 'exit_status  137\nfailed 100 : assumedly after job', 'cancelled'),
        ('sge', 'failed 0\nexit_status 1\ndeleted_by NONE', None),
        ('lsf', 'TERM_RUNLIMIT: job killed after reaching LSF run time limit.', 'time'),
        ('lsf', 'TERM_MEMLIMIT: job killed after reaching LSF memory usage limit.', 'memory'),
        ('lsf', 'TERM_OWNER: job killed by owner.', 'cancelled'),
    ],
)
def test_causes_are_read_from_what_schedulers_say(kind, text, cause):
    assert read_profile(kind).cause_of(text) == cause


def test_a_killed_job_fails_its_step_with_the_cause(cluster):
    (cluster.home / 'told').write_text('JobId=101 JobState=TIMEOUT')

    def kill():
        cluster.wait_for_job()
        os.system(f'{cluster.home}/scancel 101')

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(RuntimeError, match='job 101'):
        cluster.run(sleep)
    killer.join()
    assert cluster.cause() == (
        'job 101 was stopped by the scheduler at its time limit of 240 min: give it more with '
        '"minutes" in a --cluster file; the same command runs only what is missing.'
    )
    assert cluster.told == [('first', 'start'), ('first', 'exception')]


def test_a_job_that_never_starts_does_not_pass_with_an_old_result(cluster):
    assert cluster.run(start=1) == 4
    (cluster.home / 'hold').touch()
    (cluster.home / 'reason').write_text('PartitionConfig')
    with pytest.raises(RuntimeError, match='never start'):
        cluster.run(start=5)
    assert 'would never start (PartitionConfig): it asks for 2 processors, 4.2 GB' in (
        cluster.cause()
    )
    assert cluster.calls('scancel') == ['scancel 103']
    (cluster.home / 'hold').unlink()
    (cluster.home / 'reason').unlink()
    assert cluster.run(start=5) == 20


def test_an_interrupted_run_takes_its_jobs_back(cluster):
    (cluster.home / 'hold').touch()
    plugin = ClusterPlugin(cluster.profile(), lambda *_: None)
    graph = Workflow('neurolesion_wf', base_dir=str(cluster.root / 'work'))
    part = Workflow('sub_01_wf')
    part.add_nodes([Node(niu.Function(['value'], ['out'], double), name='first')])
    graph.add_nodes([part])
    threading.Timer(3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(KeyboardInterrupt):
        graph.run(plugin=plugin)
    assert cluster.calls('scancel') == ['scancel 101']


def test_a_scheduler_without_an_answer_is_waited_for(cluster):
    (cluster.home / 'silent').touch()
    threading.Timer(6, (cluster.home / 'silent').unlink).start()
    assert cluster.run() == 4


def test_a_refused_first_job_ends_the_run_with_the_words_of_the_scheduler(cluster, monkeypatch):
    monkeypatch.setattr('bids_app.cluster.scheduler.RETRY_S', 0.0)
    (cluster.home / 'refuse').write_text('shrot')
    with pytest.raises(UsageError, match='invalid partition specified: shrot'):
        cluster.run()
    assert len(cluster.calls('sbatch')) == 3


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ('plugin: [', 'no readable YAML'),
        ('- 1', 'does not hold names and values'),
        ('poll_s: 1', 'extends'),
        ('extends: slurm\npartition: short', 'sets partition, which does not exist'),
        ('extends: slurm\noptions: --x', "options to '--x': it must be a list"),
        ('extends: slurm\nminutes: -1', 'over 0'),
        ('extends: slurm\noptions: ["--x={nowhere}"]', "'nowhere' in braces"),
        ('extends: slurm\njob_id: "("', 'pattern'),
        ('extends: slurm\nsteps: {fit: {hours: 3}}', 'hours of the steps fit'),
        ('extends: slurm\nsteps: {fit: 3}', '3 of the steps fit'),
    ],
)
def test_a_wrong_profile_is_one_plain_sentence(tmp_path, content, words):
    path = tmp_path / 'mine.yml'
    path.write_text(content)
    with pytest.raises(UsageError) as error:
        read_profile(str(path))
    assert words in str(error.value)
    assert '\n' not in str(error.value)
    with pytest.raises(UsageError, match='neither a file nor one of slurm, pbs, sge, lsf'):
        read_profile(str(tmp_path / 'absent.yml'))


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ('plugin: [', 'no readable YAML'),
        ('n_procs: 2', 'must hold a name as "plugin"'),
        ('plugin: Slurm', 'names the plugin Slurm'),
        ('plugin: SLURMGraph', 'does not wait for its jobs'),
        ('plugin: MultiProc\nargs: {}', 'nothing else'),
        ('plugin: Debug', 'Debug cannot be used like this here'),
    ],
)
def test_a_wrong_plugin_file_is_one_plain_sentence(tmp_path, content, words):
    path = tmp_path / 'plugin.yml'
    path.write_text(content)
    with pytest.raises(UsageError, match=words):
        make_plugin(path, print)


def test_a_plugin_file_gives_name_and_arguments(tmp_path):
    path = tmp_path / 'plugin.yml'
    path.write_text('plugin: MultiProc\nplugin_args: {n_procs: 3}')
    assert read_plugin_file(path) == ('MultiProc', {'n_procs': 3})
