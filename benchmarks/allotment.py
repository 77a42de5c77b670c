"""
Memory and processors of a run against what it was allowed.

The demo's first subject is run with ``--nprocs`` and ``--mem``, and the whole process tree is
looked at up to ten times a second: the memory that it has together (proportional set size, in
which what processes share counts once), and the processor time that the programs of the steps
have taken, of which the most in any second is compared with the threads that they may use. The
kernel counts it in hundredths of a second, so a few of them are let pass. The scheduler, which
wakes a few times a second, is counted apart. For each step the peak of its program is set beside
what the step declares, by which steps are packed into ``--mem``.

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
# Over which processor time is measured, and how much more than a thread's full time is let pass.
WINDOW_S = 1.0
TOLERANCE = 0.05
WHOLE = 'whole run'


@dataclass
class Peaks:
    """What was seen of one run."""

    memory_gb: float = 0.0
    steps_gb: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    taken_s: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    """Processor time of each process of a step so far, in s."""

    course: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """Time of each look at a step, and the processor time of all its processes by then, in s."""

    def processors(self, step: str) -> float:
        """Most processor time that a step took in a second of its own."""
        looks = self.course[step]
        most, start = 0.0, 0
        for now, taken in looks:
            while now - looks[start + 1][0] >= WINDOW_S:
                start += 1
            before, earlier = looks[start]
            if now - before >= WINDOW_S:
                most = max(most, (taken - earlier) / (now - before))
        return most


def memory_gb(pid: int) -> float:
    """Proportional set size of a process, in GB."""
    for line in Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines():
        if line.startswith('Pss:'):
            return int(line.split()[1]) * 1024 / GB
    return 0.0


def step_of(process: psutil.Process) -> str | None:
    """Name of the step whose program this process is or was started by; None for the scheduler."""
    folder = Path(process.cwd())
    for place in (folder, *folder.parents):
        if (place / REQUEST_FILE).exists():
            return place.name
    return None


def sample(tree: psutil.Process, peaks: Peaks) -> None:
    """Look at all processes once."""
    memory = 0.0
    steps_gb: dict[str, float] = defaultdict(float)
    for process in (tree, *tree.children(recursive=True)):
        try:
            taken, times = memory_gb(process.pid), process.cpu_times()
            # A worker of the scheduler stands in the folder of its step too.
            program = any('request.json' in part for part in process.cmdline())
            step = step_of(process)
        except (psutil.Error, OSError):
            continue
        memory += taken
        if step and (program or process.name() != tree.name()):
            steps_gb[step] += taken
            for name in (step, WHOLE):
                peaks.taken_s[name][process.pid] = times.user + times.system
    now = time.monotonic()
    for name in (*steps_gb, WHOLE):
        peaks.course[name].append((now, sum(peaks.taken_s[name].values())))
    peaks.memory_gb = max(peaks.memory_gb, memory)
    for step, taken in steps_gb.items():
        peaks.steps_gb[step] = max(peaks.steps_gb[step], taken)


def watch(arguments: list[str]) -> Peaks:
    """Run the app and look at it until it ends."""
    peaks = Peaks()
    run = psutil.Popen([sys.executable, '-m', 'bids_app', *arguments])
    while run.poll() is None:
        started = time.monotonic()
        sample(run, peaks)
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
    print('\nstep               peak GB  declared GB  processors  declared')
    good = True
    for step, taken in peaks.steps_gb.items():
        gb, threads = needs[step]
        used = peaks.processors(step)
        good &= taken <= gb and used <= threads * (1 + TOLERANCE)
        print(f'{step:18} {taken:7.2f} {gb:12.2f} {used:11.2f} {threads:9}')
    used = peaks.processors(WHOLE)
    fits = peaks.memory_gb <= limit_gb
    calm = used <= nprocs * (1 + TOLERANCE)
    print(
        f'{"met " if fits else "MISS"} --mem {limit_gb:g} GB: {peaks.memory_gb:.2f} GB at most\n'
        f'{"met " if calm else "MISS"} --nprocs {nprocs}: {used:.2f} processors at most'
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
            met &= report(watch(arguments), needs, nprocs, options.mem_gb)
    return 0 if met else 1


if __name__ == '__main__':
    sys.exit(main())
