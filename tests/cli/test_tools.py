"""The second command: its programs are found, and what goes wrong is one sentence."""

import pytest

from bids_app.cli.tools import main


def test_templates_list_names_the_embedded_ones_first(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv('TEMPLATEFLOW_HOME', str(tmp_path))
    folder = tmp_path / 'tpl-X'
    folder.mkdir()
    (folder / 'tpl-X_res-01_T1w.nii.gz').write_bytes(b'data')
    (folder / 'tpl-X_res-02_T1w.nii.gz').touch()
    assert main(['templates', 'list']) == 0
    assert capsys.readouterr().out.splitlines() == [
        'MNI152NLin2009aSym:res-1  (embedded)',
        'MNI152NLin2009aSym:res-2  (embedded)',
        'X:res-1  (TemplateFlow)',
    ]


def test_fetch_failure_is_plain(capsys, monkeypatch):
    from templateflow import api

    def fail(*_args, **_kwargs):
        raise ConnectionError('a very long story')

    monkeypatch.setattr(api, 'get', fail)
    assert main(['templates', 'fetch', 'MNI152NLin2009cAsym:res-2']) == 66
    told = capsys.readouterr().err
    assert 'could not be fetched (ConnectionError)' in told
    assert 'long story' not in told


@pytest.mark.parametrize(
    ('arguments', 'code', 'words'),
    [
        (['train', 'tumour'], 64, "'tumour' is unknown: choose from leakage"),
        (['train', 'leakage', 'nowhere', 'out'], 16, 'nowhere'),
        (['evaluate', 'leakage', 'nowhere', 'out'], 16, 'nowhere'),
        (['demo', '/proc/demo'], 73, '/proc/demo'),
    ],
)
def test_wrong_calls(capsys, tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    told = capsys.readouterr().err
    assert words in told
    assert len(told.strip().splitlines()) == 1


def test_help_of_a_room_is_its_own(capsys):
    with pytest.raises(SystemExit) as left:
        main(['train', 'leakage', '--help'])
    assert left.value.code == 0
    assert '--masks' in capsys.readouterr().out
