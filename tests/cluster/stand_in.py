"""
A scheduler of one file: jobs are processes of this machine, and its commands are links to it.

Whatever name it is called by (sbatch, qsub, bjobs ...), it answers as that command does. Each call
is noted in ``calls.txt``. A file ``refuse`` makes it turn jobs away, ``silent`` makes it say no
word, ``hold`` makes it take jobs in and never start them.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

HOME = Path(os.environ.get('STAND_IN_HOME', '.'))
IS_SGE = os.environ.get('STAND_IN_KIND') == 'sge'
SUBMITTED = {
    'sbatch': '{}',
    'qsub': '{}' if IS_SGE else '{}.server',
    'bsub': 'Job <{}> is submitted to default queue <normal>.',
}
LISTED = {
    'squeue': '{} Resources',
    'qstat': ' {} 0.555 sub_01.fir me r 11/21/2026 12:00:00 all.q@here 2'
    if IS_SGE
    else '{}.server  me  batch  sub_01.st  123  1  1  1gb  04:00 R 00:01',
    'bjobs': '{}   me  RUN  normal  here  there  sub_01.step  Nov 21 12:00',
}


def submit(name, arguments):
    if (HOME / 'refuse').exists():
        sys.exit(f'{name}: error: invalid partition specified: {(HOME / "refuse").read_text()}')
    number = len(list(HOME.glob('job-*'))) + 101
    log = (
        next((word.split('=')[1] for word in arguments if word.startswith('--output=')), None)
        or arguments[arguments.index('-o') + 1]
    )
    pid = 0
    if not (HOME / 'hold').exists():
        with Path(log).open('a') as output:
            script = ['bash', arguments[-1]]
            pid = subprocess.Popen(
                script, stdout=output, stderr=output, start_new_session=True
            ).pid
    (HOME / f'job-{number}').write_text(f'{pid} {log}')
    print(SUBMITTED[name].format(number))


def alive(number):
    pid = int((HOME / f'job-{number}').read_text().split()[0])
    # A process that ended stays as a zombie where nobody asks for its exit code.
    state = Path(f'/proc/{pid}/stat')
    waits = pid == 0 and not (HOME / f'gone-{number}').exists()
    return waits or (state.exists() and state.read_text().rpartition(')')[2].split()[0] != 'Z')


def cancel(numbers):
    for number in numbers:
        pid = int((HOME / f'job-{number}').read_text().split()[0])
        (HOME / f'gone-{number}').touch()
        if pid and alive(number):
            os.killpg(pid, signal.SIGKILL)


def main():
    name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    with (HOME / 'calls.txt').open('a') as calls:
        calls.write(' '.join([name, *arguments]) + '\n')
    numbers = sorted(path.name[4:] for path in HOME.glob('job-*'))
    if name in SUBMITTED:
        submit(name, arguments)
    elif name in {'scancel', 'qdel', 'bkill'}:
        cancel(arguments)
    elif name in {'scontrol', 'qacct'} or '-f' in arguments or '-l' in arguments:
        print((HOME / 'told').read_text() if (HOME / 'told').exists() else '')
    elif (HOME / 'silent').exists():
        sys.exit(f'{name}: error: Unable to contact the controller')
    else:
        listed = [number for number in numbers if alive(number)]
        reason = (HOME / 'reason').read_text() if (HOME / 'reason').exists() else 'Resources'
        for number in listed:
            print(LISTED[name].format(number).replace('Resources', reason))
        if name == 'bjobs' and not listed:
            sys.exit('No unfinished job found')


if __name__ == '__main__':
    main()
