"""The second command: its programs are found, and what goes wrong is one sentence."""

import pytest

from bids_app.cli.tools import main


@pytest.mark.parametrize(
    ('arguments', 'code', 'words'),
    [
        (['train', 'tumour'], 64, "'tumour' is unknown: choose from anomaly, leakage"),
        (['train', 'leakage', 'nowhere', 'out'], 16, 'nowhere'),
        (['evaluate', 'leakage', 'nowhere', 'out'], 16, 'nowhere'),
        (['demo', '/proc/demo'], 73, '/proc/demo'),
        (['dicom', 'nowhere', 'out'], 66, 'nowhere does not exist'),
        (['templates', 'fetch', 'MNI152Lin2009cAsym'], 66, 'did you mean MNI152NLin2009cAsym'),
        (['templates', 'fetch', 'fsaverage'], 64, 'is a surface'),
        (['templates', 'import', 'nowhere'], 66, 'nowhere is no folder'),
    ],
)
def test_wrong_calls(capsys, tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TEMPLATEFLOW_HOME', str(tmp_path / 'home'))
    assert main(arguments) == code
    told = capsys.readouterr().err
    assert words in told
    assert len(told.strip().splitlines()) == 1


def test_help_of_a_room_is_its_own(capsys):
    with pytest.raises(SystemExit) as left:
        main(['train', 'leakage', '--help'])
    assert left.value.code == 0
    assert '--masks' in capsys.readouterr().out


@pytest.mark.parametrize(
    'arguments', [[], ['unknown'], ['templates'], ['templates', 'fetch'], ['templates', 'drop']]
)
def test_wrong_usage_leaves_with_64(arguments):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 64
