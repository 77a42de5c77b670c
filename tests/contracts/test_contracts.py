"""Documents, commands and specification say the same thing."""

import re
import shlex
from pathlib import Path

import pytest

from bids_app.analyses import ANALYSES
from bids_app.analyses.analysis import load_function
from bids_app.cli.parser import build_parser
from bids_app.cli.room_options import KINETIC_MODELS
from bids_app.cli.tools import PROGRAMS
from bids_app.outputs.spec import all_specs, load_spec
from bids_app.reports.citation import cited_keys, read_references

REPO = Path(__file__).parents[2]
README = (REPO / 'README.md').read_text()


def commands(program):
    text = README.replace('\\\n', ' ')
    blocks = re.findall(r'```(?:bash|console|sh)?\n(.*?)```', text, flags=re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(f'{program} ')]


@pytest.mark.parametrize('line', commands('neurolesion'))
def test_readme_commands_parse(line):
    parser = build_parser()
    options = parser.parse_args(shlex.split(line, comments=True)[1:])
    assert options.analysis_level in {'participant', 'group'}


def test_readme_shows_commands():
    assert len(commands('neurolesion')) >= 2
    assert commands('make')


@pytest.mark.parametrize('line', commands('neurolesion-tools'))
def test_readme_tools_exist(line):
    words = shlex.split(line, comments=True)
    assert words[1] in PROGRAMS
    if words[1] in {'train', 'evaluate'}:
        assert words[2] in ANALYSES


def test_readme_table_names_every_kind_of_output():
    for output in load_spec('leakage').outputs.values():
        entities = output.entities
        if 'param' in entities and entities.get('model', 'patlak') in {'patlak', 'etofts'}:
            assert f'param-{entities["param"]}' in README


@pytest.mark.parametrize('room', ANALYSES)
def test_rooms_are_complete(room):
    analysis = ANALYSES[room]
    assert load_spec(room).room == room
    for dotted in (analysis.build, analysis.train, analysis.evaluate):
        assert callable(load_function(dotted))
    assert set(analysis.required) <= set(analysis.queries)


def test_every_kinetic_model_has_its_outputs():
    named = {key.split('_')[0] for key in load_spec('leakage').outputs}
    assert set(KINETIC_MODELS) <= named


def test_methods_text_cites_only_known_references():
    known = read_references()
    for path in (REPO / 'bids_app').rglob('workflow.py'):
        for key in cited_keys(path.read_text()):
            assert key in known, f'{path.name} cites {key}'


def test_every_room_has_a_specification_and_the_other_way_round():
    assert {spec.room for spec in all_specs()} == {'prep', *ANALYSES}
