"""Fifty tasks of a job array that reach the same file of one dataset at the same moment."""

import json
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from bids_app.compute import images
from bids_app.compute.images import create_text, keep_text
from bids_app.compute.staging import locked
from bids_app.errors import CannotCreateError
from bids_app.outputs.description import (
    check_output_dir,
    write_description,
    write_root_table,
)
from bids_app.outputs.provenance import Method, RunRecord
from bids_app.reports.citation import render_citation, write_citation

N_TASKS = 50
TABLES = ('index\tname\n1\tedema\n', 'index\tname\n4\tedema\n')

# A fork starts fifty processes in the time in which a fresh Python starts one.
CONTEXT = get_context('fork')


def at_once(function, *arguments):
    """What each of fifty processes returned that called a function at the same moment."""
    barrier, answers = CONTEXT.Barrier(N_TASKS), CONTEXT.SimpleQueue()

    def task(number):
        barrier.wait()
        try:
            answers.put(function(number, *arguments))
        # Whatever it is, the parent must hear of it.
        except Exception as error:  # noqa: BLE001
            answers.put(f'{type(error).__name__}: {error}')

    processes = [CONTEXT.Process(target=task, args=(number,)) for number in range(N_TASKS)]
    for process in processes:
        process.start()
    found = [answers.get() for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    return found


def text_of(number):
    return f'Sentence {number % 10} [@patlak1983].'


def whole_task(number, out, raw):
    """All that a task writes outside of its subject's folder; what it saw of the others'."""
    check_output_dir(out, raw)
    write_description(out, raw, {'Name': 'Raw', 'Authors': ['A'] * 2000}, None)
    write_root_table(out, 'seg-tumor_dseg.tsv', TABLES[0])
    content = json.loads((out / 'dataset_description.json').read_text())
    assert len(content['Authors']) == 2000
    record = RunRecord(f'run-{number}', 'neurolesion', started='2026-11-21T12:00:00')
    record.methods = [Method(f'sub-{number:02}', 'fit_wf', text_of(number))]
    record.save(out)
    write_citation(out)
    return 'done'


@pytest.fixture
def folders(tmp_path):
    raw = tmp_path / 'raw'
    raw.mkdir()
    return tmp_path / 'out', raw


def test_fifty_tasks_leave_what_one_leaves(folders):
    out, raw = folders
    assert at_once(whole_task, out, raw) == ['done'] * N_TASKS
    names = {path.name for path in out.iterdir()}
    assert names == {
        '.bidsignore',
        'CITATION.md',
        'README.md',
        'dataset_description.json',
        'logs',
        'seg-tumor_dseg.tsv',
    }
    assert len(list((out / 'logs').iterdir())) == N_TASKS
    expected = render_citation([text_of(number) for number in range(10)])
    assert (out / 'CITATION.md').read_text() == expected
    before = {path: path.stat() for path in out.rglob('*') if path.is_file()}
    check_output_dir(out, raw)
    write_description(out, raw, {'Name': 'Raw', 'Authors': ['A'] * 2000}, None)
    write_citation(out)
    assert {path: path.stat() for path in before} == before


def test_a_writer_that_is_not_atomic_would_be_noticed(folders, monkeypatch):
    out, raw = folders

    def naive(path, text):
        with Path(path).open('w') as stream:
            stream.write(text[: len(text) // 2])
            stream.flush()
            time.sleep(0.05)
            stream.write(text[len(text) // 2 :])

    monkeypatch.setattr(images, 'write_text', naive)
    assert set(at_once(whole_task, out, raw)) != {'done'}


def conflicting_table(number, out):
    try:
        write_root_table(out, 'seg-tumor_dseg.tsv', TABLES[number % 2])
    except CannotCreateError:
        return None
    return TABLES[number % 2]


def test_of_two_settings_at_once_one_wins_and_all_others_hear_of_it(tmp_path):
    answers = at_once(conflicting_table, tmp_path)
    (winner,) = {answer for answer in answers if answer}
    assert answers.count(winner) == answers.count(None) == N_TASKS // 2
    assert (tmp_path / 'seg-tumor_dseg.tsv').read_text() == winner


def create(number, path):
    return create_text(path, str(number))


def test_one_of_fifty_creates_a_file(tmp_path):
    assert at_once(create, tmp_path / 'a.txt').count(True) == 1
    assert [path.name for path in tmp_path.iterdir()] == ['a.txt']


def without_links(number, path):
    Path.hardlink_to = lambda *_: (_ for _ in ()).throw(OSError('no links here'))
    return create_text(path, str(number))


def test_a_file_system_without_links_serves_too(tmp_path):
    # Only a link tells who was first; without one, several may take themselves to be.
    assert True in at_once(without_links, tmp_path / 'a.txt')
    assert [path.name for path in tmp_path.iterdir()] == ['a.txt']


def count_up(number, folder):
    with locked(folder):
        path = folder / 'count.txt'
        path.write_text(str(int(path.read_text()) + 1))
    return 'done'


def test_a_lock_lets_one_in_at_a_time_and_leaves_nothing(tmp_path):
    (tmp_path / 'count.txt').write_text('0')
    assert at_once(count_up, tmp_path) == ['done'] * N_TASKS
    assert (tmp_path / 'count.txt').read_text() == str(N_TASKS)
    assert [path.name for path in tmp_path.iterdir()] == ['count.txt']


def test_text_that_is_there_is_not_written_again(tmp_path):
    path = tmp_path / 'a.txt'
    keep_text(path, 'a')
    inode = path.stat().st_ino
    keep_text(path, 'a')
    assert path.stat().st_ino == inode
    keep_text(path, 'b')
    assert path.read_text() == 'b'


def test_newest_methods_of_each_part_are_cited(tmp_path):
    def log(run, started, label, part, text):
        record = RunRecord(run, 'neurolesion', started)
        record.methods = [Method(label, part, text)]
        record.save(tmp_path)

    log('b', '2026-11-22', 'sub-01', 'fit_wf', 'New [@patlak1983].')
    log('a', '2026-11-21', 'sub-01', 'fit_wf', 'Old [@tofts1999].')
    log('c', '2026-11-20', 'sub-02', 'map_wf', 'Map [@parker2006].')
    (tmp_path / 'logs/broken.json').write_text('{')
    write_citation(tmp_path)
    text = (tmp_path / 'CITATION.md').read_text()
    assert 'New [' in text
    assert 'Map [' in text
    assert 'Old' not in text
