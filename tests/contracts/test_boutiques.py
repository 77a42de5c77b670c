"""The Boutiques descriptor says what the parser accepts, and ``bosh`` runs the app with it."""

import argparse
import json
import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import boutiques
import jsonschema
import pytest
import yaml
from boutiques.invocationSchemaHandler import generateInvocationSchema

from bids_app import __version__
from bids_app.cli import parser as parser_module
from bids_app.cli.descriptor import DISABLES, REQUIRES, TOGETHER, main, render
from bids_app.cli.parser import build_parser, parse
from bids_app.errors import ExitCode, UsageError

REPO = Path(__file__).parents[2]
FILE = REPO / 'boutiques.json'
DESCRIPTOR = json.loads(FILE.read_text())
INPUTS = {item['id']: item for item in DESCRIPTOR['inputs']}
EXCLUSIVE = [group['members'] for group in DESCRIPTOR['groups'] if group.get('mutually-exclusive')]
STAGED = 'participant_level_analysis_dir'
BASE = {'bids_dir': 'raw', 'output_dir': 'out', 'analysis_level': 'participant'}

# Text that a shell would cut, expand or run, and argparse take for a flag.
AWKWARD = "it's $HOME; `id` & *"
TEXTS = {
    'participant_label': ['01', 'sub-02', 'A1'],
    'session_label': ['ses-1', 'pre'],
    'output_spaces': ['orig', 'MNI152NLin2009aSym:res-2'],
    'tumor_folds': ['0', 'all'],
}


@pytest.fixture
def bosh_home(tmp_path, monkeypatch):
    """A folder to run in; records that bosh keeps of its runs would land in ``home``."""
    (tmp_path / 'home').mkdir()
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    monkeypatch.setenv('PATH', f'{Path(sys.executable).parent}:{os.environ["PATH"]}')
    monkeypatch.setenv('PYTHONPATH', str(REPO))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not list((tmp_path / 'home/.cache/boutiques').rglob('*.json'))


def bosh(*words, **options):
    """Run the command and give what it prints, with its exit code."""
    done = subprocess.run(
        ['bosh', *map(str, words)], capture_output=True, text=True, check=False, **options
    )
    return done.returncode, done.stdout + done.stderr


def simulate(invocation):
    """Words of the command line that bosh makes, after ``neurolesion``."""
    command = boutiques.execute('simulate', str(FILE), '-i', json.dumps(invocation)).shell_command
    words = shlex.split(command)
    assert words[:2] == ['mkdir', '-p']
    assert words[2] == f'{invocation["output_dir"]};'
    assert words[3] == 'neurolesion'
    return words[4:]


def launch(invocation):
    """Run the app through bosh, on this machine, keeping no record."""
    options = ('--no-container', '--skip-data-collection')
    return boutiques.execute('launch', str(FILE), json.dumps(invocation), *options)


def action_of(parser, name):
    """Action of the parser that an input stands for."""
    names = {f'--{name.replace("_", "-")}', name}
    return next(item for item in parser._actions if names & {*item.option_strings, item.dest})


def values_of(item):
    """Values that an input may have."""
    if item['type'] == 'Flag':
        return [True]
    if 'value-choices' in item:
        return item['value-choices']
    if item['type'] == 'Number':
        return [1, 7] if item.get('integer') else [0.25, 0.5]
    return TEXTS.get(item['id'], ['some/path', AWKWARD, '-x'])


def invocation_of(names, choose):
    """An invocation that sets the named inputs."""
    chosen = dict(BASE)
    for name in names:
        item = INPUTS[name]
        values = values_of(item)
        if item.get('list'):
            # No value of a list may look like a flag: argparse has no way to tell.
            values = [value for value in values if not value.startswith('-')]
            chosen[name] = choose.sample(values, choose.randint(1, len(values)))
        else:
            chosen[name] = choose.choice(values)
    if 'prep_only' in chosen:
        chosen.pop('analyses', None)
    for members in EXCLUSIVE:
        for name in [name for name in members if name in chosen][1:]:
            del chosen[name]
    for name, others in REQUIRES.items():
        if name in chosen:
            chosen = dict.fromkeys(others, 'there') | chosen
    return chosen


def expected_of(action, value):
    """What the parser makes of a value that it accepts."""
    if action.nargs == 0:
        if isinstance(action, argparse._CountAction):
            return value.count('v')
        return action.const
    convert = action.type or str
    if isinstance(value, list):
        return [convert(item) for item in value]
    return convert(str(value))


OPTIONAL = sorted(name for name, item in INPUTS.items() if item['optional'] and name != STAGED)
COMBINATIONS = [
    *([name] for name in OPTIONAL),
    *(random.Random(seed).sample(OPTIONAL, 3 + seed % 12) for seed in range(60)),
    OPTIONAL,
]


def test_the_file_in_the_repository_is_what_the_parser_gives():
    assert FILE.read_text() == render(), 'run "make boutiques"'


def test_the_descriptor_does_not_depend_on_the_machine(monkeypatch):
    monkeypatch.setattr(parser_module, 'cpu_count', lambda: 77)
    monkeypatch.setattr(parser_module, 'available_memory_gb', lambda: 1234.5)
    assert FILE.read_text() == render()


def test_a_place_that_cannot_be_written_is_named(tmp_path, capsys):
    assert main([str(tmp_path / 'absent' / 'file.json')]) == ExitCode.CANNOT_CREATE
    assert 'absent/file.json cannot be written' in capsys.readouterr().err
    assert main([str(tmp_path / 'file.json')]) == ExitCode.OK
    assert (tmp_path / 'file.json').read_bytes() == FILE.read_bytes()


def test_the_documentation_shows_a_valid_invocation_and_the_image():
    text = (REPO / 'docs' / 'boutiques.md').read_text()
    shown = json.loads(re.search(r'```json\n(.*?)```', text, flags=re.DOTALL)[1])
    jsonschema.validate(shown, generateInvocationSchema(DESCRIPTOR))
    assert DESCRIPTOR['container-image']['image'] in text


def test_bosh_accepts_it_as_a_bids_app(bosh_home):
    code, text = bosh('validate', '--bids', FILE)
    assert code == 0, text
    assert 'BIDS validation OK' in text
    code, text = bosh('pprint', FILE)
    assert code == 0, text
    assert '--leakage-no-moco' in text


def test_every_flag_has_an_input_and_the_other_way_round():
    parser = build_parser()
    wanted = {action.dest for action in parser._actions} - {'help', 'version'}
    described = [action_of(parser, name).dest for name in INPUTS if name != STAGED]
    assert sorted(described) == sorted(wanted)
    for name in OPTIONAL:
        flag = INPUTS[name].get('command-line-flag')
        assert flag in action_of(parser, name).option_strings or name == 'verbose'
    assert {name for name in INPUTS if not INPUTS[name]['optional']} == set(BASE)


def test_defaults_are_those_of_the_parser():
    parser = build_parser()
    for name, item in INPUTS.items():
        action = action_of(parser, 'output_dir' if name == STAGED else name)
        if 'default-value' in item:
            assert str(item['default-value']) == str(action.default), name
        else:
            # A room's setting stays unset, so that --config-file may set it.
            unset = (None, [], '', False, 0, argparse.SUPPRESS)
            assert action.default in unset or name in {'nprocs', 'mem'}, name


def test_defaults_are_written_out_and_change_nothing(bosh_home):
    words = simulate(BASE)
    assert words[:3] == ['raw', 'out', 'participant']
    written, bare = parse(words), parse(['raw', 'out', 'participant'])
    for section in ('compute', 'prep', 'anomaly', 'leakage', 'lgg', 'lvo', 'tumor'):
        assert getattr(written, section) == getattr(bare, section)
    assert {**vars(written.run), 'run_id': ''} == {**vars(bare.run), 'run_id': ''}


@pytest.mark.parametrize('names', COMBINATIONS, ids=lambda names: '-'.join(names)[:40])
def test_simulated_command_lines_mean_what_was_asked_for(names, bosh_home):
    invocation = invocation_of(names, random.Random(len(names)))
    parser = build_parser()
    options = vars(parser.parse_args(simulate(invocation)))
    for name, value in invocation.items():
        action = action_of(parser, name)
        assert options[action.dest] == expected_of(action, value), name
    bare = vars(parser.parse_args(list(BASE.values())))
    given = {action_of(parser, name).dest for name in invocation}
    assert {name: options[name] for name in options if name not in given} == {
        name: bare[name] for name in bare if name not in given
    }


def test_simulated_command_line_gives_the_settings(bosh_home):
    for name in ('masks a', 'masks b', 'weights', 'model'):
        (bosh_home / name).mkdir()
    words = simulate(
        {
            'bids_dir': 'my data',
            'output_dir': "it's out",
            'analysis_level': 'participant',
            'participant_label': ['sub-01', '02'],
            'derivatives': ['masks a', 'masks b'],
            'analyses': ['tumor', 'leakage'],
            'prep_only': False,
            'output_spaces': ['orig', 'MNI152NLin2009aSym:res-2'],
            'leakage_no_moco': True,
            'leakage_models': ['patlak', '2cxm'],
            'tumor_model': 'model',
            'tumor_folds': ['0', '1'],
            'anomaly_label_column': 'group',
            'anomaly_healthy_value': '-1',
            'nprocs': 3,
            'mem': 6.5,
            'weights_dir': 'weights',
            'verbose': '-vv',
        }
    )
    config = parse(words)
    assert config.run.bids_dir == bosh_home / 'my data'
    assert config.run.output_dir == bosh_home / "it's out"
    assert config.run.participant_label == ('01', '02')
    assert config.run.derivatives == (bosh_home / 'masks a', bosh_home / 'masks b')
    assert config.run.analyses == ('tumor', 'leakage')
    assert config.run.output_spaces == ('orig', 'MNI152NLin2009aSym:res-2')
    assert config.run.verbose == 2
    assert (config.leakage.moco, config.leakage.models) == (False, ('patlak', '2cxm'))
    assert (config.compute.tumor_model, config.tumor.folds) == (bosh_home / 'model', ('0', '1'))
    assert (config.anomaly.label_column, config.anomaly.healthy_value) == ('group', '-1')
    assert (config.compute.nprocs, config.compute.mem_gb) == (3, 6.5)
    assert config.compute.weights_dir == bosh_home / 'weights'


def accepted_by_parser(name, value):
    """Whether the parser takes a value, all by itself."""
    flag = INPUTS[name]['command-line-flag']
    try:
        build_parser().parse_args([*BASE.values(), f'{flag}={value}'])
    except SystemExit:
        return False
    return True


def accepted_by_bosh(name, value):
    """Whether the invocation is valid against the descriptor."""
    value = [value] if INPUTS[name].get('list') else value
    others = dict.fromkeys(REQUIRES.get(name, ()), 'there')
    try:
        jsonschema.validate({**BASE, **others, name: value}, generateInvocationSchema(DESCRIPTOR))
    except jsonschema.ValidationError:
        return False
    return True


@pytest.mark.parametrize('name', [n for n in OPTIONAL if INPUTS[n]['type'] == 'Number'])
def test_limits_of_numbers_are_those_of_the_parser(name):
    for value in (-1, 0, 0.5, 1, 2, 1000, 'many'):
        assert accepted_by_bosh(name, value) == accepted_by_parser(name, value), (name, value)


@pytest.mark.parametrize(
    'name', [n for n in OPTIONAL if INPUTS[n]['type'] == 'String' and n != 'verbose']
)
def test_choices_are_those_of_the_parser(name):
    for value in (*INPUTS[name].get('value-choices', ()), 'nonesuch'):
        assert accepted_by_bosh(name, value) == accepted_by_parser(name, value), value


def test_rules_between_inputs_are_those_of_the_parser(tmp_path):
    (tmp_path / 'model').mkdir()
    values = {'analyses': 'tumor', 'tumor_model': str(tmp_path / 'model'), 'cluster': 'slurm'}

    def refused(*names):
        words = list(BASE.values())
        for name in names:
            item = INPUTS[name]
            words += [item['command-line-flag']]
            words += [] if item['type'] == 'Flag' else [values.get(name, 'x')]
        try:
            parse(words)
        except (UsageError, SystemExit):
            return True
        return False

    for name, others in DISABLES.items():
        assert not refused(name)
        for other in others:
            assert not refused(other)
            assert refused(name, other)
    for name, others in REQUIRES.items():
        assert refused(name)
        assert not refused(name, *others)
    assert EXCLUSIVE
    for members in EXCLUSIVE:
        assert refused(*members)
        assert not any(refused(member) for member in members)
    for _, members, _ in TOGETHER.values():
        assert all(refused(member) for member in members)
        assert not refused(*members)


@pytest.mark.parametrize(
    ('wrong', 'said'),
    [
        ({'analysis_level': 'participants'}, "'participants' is not one of"),
        ({'analyses': ['tumour']}, "'tumour' is not one of"),
        ({'analyses': ['tumor'], 'prep_only': True}, 'prep_only'),
        ({'tumor_folds': ['0']}, "'tumor_model' is a required property"),
        ({'cluster': 'slurm', 'nipype_plugin_file': 'plugin.yml'}, 'cluster'),
        ({'participant_label': '01'}, "'01' is not of type 'array'"),
        ({'participant_label': []}, '[] should be non-empty'),
        ({'participant_labels': ['01']}, "'participant_labels' was unexpected"),
        ({'mem': '16GB'}, "'16GB' is not of type 'number'"),
        ({'leakage_hematocrit': 42}, '42 is greater than or equal to the maximum of 1'),
        ({'nprocs': 0}, '0 is less than the minimum of 1'),
    ],
)
def test_wrong_invocations_stop_before_anything_runs(wrong, said, bosh_home):
    code, text = bosh(
        *('exec', 'launch', '--no-container', '--skip-data-collection'),
        *(FILE, json.dumps({**BASE, **wrong})),
    )
    assert code == 99
    assert said in text
    assert 'Traceback' not in text
    assert not (bosh_home / 'out').exists()


def test_error_codes_are_those_of_the_app():
    codes = {item['code'] for item in DESCRIPTOR['error-codes']}
    assert codes == {int(code) for code in ExitCode} - {0}


def test_metadata_agree_with_the_citation_and_the_package():
    citation = yaml.safe_load((REPO / 'CITATION.cff').read_text())
    assert DESCRIPTOR['author'] == citation['authors'][0]['name']
    assert DESCRIPTOR['tool-version'] == citation['version'] == __version__
    assert DESCRIPTOR['container-image']['image'].endswith(f':{__version__}')


@pytest.mark.slow
def test_bosh_runs_both_levels_and_finds_the_results(slab, bosh_home):
    folders = {'bids_dir': 'bids', 'output_dir': 'my results'}
    done = launch({**folders, 'analysis_level': 'participant', 'analyses': ['leakage']})
    assert done.exit_code == 0, done.stderr
    done = launch({**folders, 'analysis_level': 'group', STAGED: 'my results'})
    assert done.exit_code == 0, done.stderr
    assert [item.file_name for item in done.output_files] == ['my results']
    assert not done.missing_files
    (told,) = DESCRIPTOR['output-files']
    for name in ('dataset_description.json', 'sub-01.html', 'CITATION.md', 'logs', 'group.html',
                 'phenotype/neurolesion.tsv', 'sub-01/perf'):  # fmt: skip
        assert (bosh_home / 'my results' / name).exists(), name
        assert name.replace('01', '<label>').split('/')[-1] in told['description']


def test_bosh_explains_the_exit_code(slab, bosh_home):
    done = launch({**BASE, 'bids_dir': 'bids', 'participant_label': ['99']})
    assert done.exit_code == ExitCode.NOTHING_SELECTED
    assert done.error_message == 'The labels and filters given select no image.'


@pytest.mark.slow
def test_tests_of_the_descriptor_pass_on_the_demo_dataset(bosh_home, monkeypatch, copy_demo):
    # Its pytest would keep its cache in the installed package.
    monkeypatch.setenv('PYTEST_ADDOPTS', '-p no:cacheprovider')
    copy_demo(bosh_home / 'demo_data')
    # "bosh test" has no --no-container: without an image it runs on this machine.
    bare = {key: value for key, value in DESCRIPTOR.items() if key != 'container-image'}
    (bosh_home / 'bare.json').write_text(json.dumps(bare))
    code, text = bosh('test', 'bare.json')
    assert code == 0, text[-3000:]
    assert f'{len(DESCRIPTOR["tests"])} passed' in text
