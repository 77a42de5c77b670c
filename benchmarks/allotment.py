"""
Memory and threads of a run against what it was allowed.

The demo's first subject is run with ``--nprocs`` and ``--mem``, and the whole process tree is
looked at up to ten times a second: the memory that it has together (proportional set size, in
which what processes share counts once), and the threads that run or wait for a processor. A thread
that hands work on and the one that takes it are both awake for a moment, the longer the busier the
machine: more threads than allowed in one look of a hundred are let pass. The scheduler, which
wakes a few times a second, is counted apart from the programs of the steps. For each step the peak
of its program is set beside what the step declares, by which steps are packed into ``--mem``.

Run: ``python benchmarks/allotment.py``, with ``--bids DIR`` on a dataset that is already there.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bids_app.cli.parser import parse
from bids_app.compute.child import REQUEST_FILE
from bids_app.inputs.collect import collect_inputs
from bids_app.pipeline import build_pipeline, configure_nipype, queries_of

GB = 1e9
PERIOD_S = 0.1
ANALYSES = ('leakage', 'tumor')
# State of a thread, in its stat file, that runs or waits for a processor.
RUNNING = 'R'
# Share of looks at a step that may find more threads than it declares.
MOMENTS = 0.01


@dataclass
class Peaks:
    """What was seen of one run."""

    memory_gb: float = 0.0
    threads: int = 0
    scheduler_threads: int = 0
    samples: int = 0
    over: int = 0
    steps_gb: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    steps_threads: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))


def memory_gb(pid: int) -> float:
    """Proportional set size of a process, in GB."""
    for line in Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines():
        if line.startswith('Pss:'):
            return int(line.split()[1]) * 1024 / GB
    return 0.0


def running_threads(pid: int) -> int:
    """Threads of a process that run or wait for a processor."""
    states = []
    for task in Path(f'/proc/{pid}/task').iterdir():
        try:
            states.append((task / 'stat').read_text().rpartition(') ')[2][0])
        except OSError:
            continue
    return states.count(RUNNING)


def step_of(process: psutil.Process) -> str | None:
    """Name of the step whose program this process is or was started by; None for the scheduler."""
    folder = Path(process.cwd())
    for place in (folder, *folder.parents):
        if (place / REQUEST_FILE).exists():
            return place.name
    return None


def sample(tree: psutil.Process, peaks: Peaks, allowed: int) -> None:
    """Look at all processes once."""
    memory, threads, scheduler = 0.0, 0, 0
    steps_gb: dict[str, float] = defaultdict(float)
    steps_threads: dict[str, int] = defaultdict(int)
    for process in (tree, *tree.children(recursive=True)):
        try:
            taken, busy = memory_gb(process.pid), running_threads(process.pid)
            # A worker of the scheduler stands in the folder of its step too.
            program = any('request.json' in part for part in process.cmdline())
            step = step_of(process)
        except (psutil.Error, OSError):
            continue
        memory += taken
        if step and (program or process.name() != tree.name()):
            steps_gb[step] += taken
            steps_threads[step] += busy
            threads += busy
        else:
            scheduler += busy
    peaks.samples += 1
    peaks.over += threads > allowed
    peaks.memory_gb = max(peaks.memory_gb, memory)
    peaks.threads = max(peaks.threads, threads)
    peaks.scheduler_threads = max(peaks.scheduler_threads, scheduler)
    for step, taken in steps_gb.items():
        peaks.steps_gb[step] = max(peaks.steps_gb[step], taken)
        peaks.steps_threads[step].append(steps_threads[step])


def watch(arguments: list[str], allowed: int) -> Peaks:
    """Run the app and look at it until it ends."""
    peaks = Peaks()
    run = psutil.Popen([sys.executable, '-m', 'bids_app', *arguments])
    while run.poll() is None:
        started = time.monotonic()
        sample(run, peaks, allowed)
        time.sleep(max(0.0, PERIOD_S - (time.monotonic() - started)))
    if run.returncode:
        print(f'The run left with {run.returncode}.')
    return peaks


def declared(arguments: list[str]) -> dict[str, tuple[float, int]]:
    """Memory in GB and threads that each step says it needs, by its name."""
    config = parse(arguments)
    inputs = collect_inputs(config.run, queries_of(config.run))
    configure_nipype(config, config.run.work_dir)
    graph = build_pipeline(config, inputs)
    nodes = [graph.workflow.get_node(name) for name in graph.steps()]
    return {node.name: (node.interface.inputs.mem_gb, node.n_procs) for node in nodes}


def report(
    peaks: Peaks, needs: dict[str, tuple[float, int]], nprocs: int, limit_gb: float
) -> bool:
    print('\nstep               peak GB  declared GB  threads  declared  looks over')
    good = True
    for step, taken in peaks.steps_gb.items():
        gb, threads = needs[step]
        seen = peaks.steps_threads[step]
        over = sum(count > threads for count in seen)
        good &= taken <= gb and over <= MOMENTS * len(seen)
        print(
            f'{step:18} {taken:7.2f} {gb:12.2f} {max(seen):8} {threads:9} {over:5} of {len(seen)}'
        )
    fits = peaks.memory_gb <= limit_gb
    calm = peaks.over <= MOMENTS * peaks.samples
    print(
        f'{"met " if fits else "MISS"} --mem {limit_gb:g} GB: {peaks.memory_gb:.2f} GB at most\n'
        f'{"met " if calm else "MISS"} --nprocs {nprocs}: {peaks.threads} running threads at most '
        f'(scheduler: {peaks.scheduler_threads}), more than allowed in {peaks.over} of '
        f'{peaks.samples} looks'
    )
    if not good:
        print('MISS a step takes more than it declares.')
    return fits and calm and good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--bids', type=Path, help='dataset; the demo, made anew, by default')
    parser.add_argument('--participant-label', default='01')
    parser.add_argument('--analyses', nargs='+', default=list(ANALYSES))
    parser.add_argument('--nprocs', nargs='+', type=int, default=[1, 2])
    parser.add_argument('--mem-gb', type=float, default=6.0)
    options = parser.parse_args()
    met = True
    with tempfile.TemporaryDirectory() as folder:
        bids = options.bids
        if bids is None:
            make = [sys.executable, '-m', 'bids_app.cli.tools', 'demo', f'{folder}/demo']
            subprocess.run(make, check=True)
            bids = Path(folder) / 'demo' / 'bids'
        for nprocs in options.nprocs:
            arguments = [
                *(str(bids), f'{folder}/out{nprocs}', 'participant'),
                *('--participant-label', options.participant_label),
                *('--analyses', *options.analyses, '-w', f'{folder}/work{nprocs}'),
                *('--nprocs', str(nprocs), '--mem', f'{options.mem_gb}GB', '--device', 'cpu'),
            ]
            needs = declared(arguments)
            met &= report(watch(arguments, nprocs), needs, nprocs, options.mem_gb)
    return 0 if met else 1


if __name__ == '__main__':
    sys.exit(main())
