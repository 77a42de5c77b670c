"""One workflow per subject and session, with the rooms added to it."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from nipype import Node, Workflow

from .analyses import ANALYSES
from .analyses.analysis import load_function
from .compute.child import ChildCommand
from .compute.images import read_header
from .config import Config
from .errors import BadDataError, NeurolesionError, UsageError
from .inputs.collect import BRAIN_MASKS, BidsImage, SubjectInputs, find_user_mask
from .outputs.provenance import Failure, Warned
from .prep.spaces import Space, TemplateFiles, find_template, parse_spaces
from .prep.workflow import Place, init_anat_wf

ROOT = 'neurolesion_wf'
POLL_S = 0.2

StatusCallback = Callable[[Node, str], None]


@dataclass
class Pipeline:
    """The graph of a run and what kept parts of it from being built."""

    workflow: Workflow
    inputs: list[SubjectInputs]
    failures: list[Failure] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    labels: dict[str, SubjectInputs] = field(default_factory=dict)

    def locate(self, name: str) -> tuple[SubjectInputs, str]:
        """Subject and room of a node, from its full name."""
        parts = name.removeprefix(f'{ROOT}.').split('.')
        room = parts[1].removesuffix('_wf')
        return self.labels[parts[0]], 'prep' if room == 'anat' else room

    def steps(self) -> list[str]:
        """Full names of the nodes that start a child program."""
        names = self.workflow.list_node_names()
        return [
            name
            for name in names
            if isinstance(self.workflow.get_node(name).interface, ChildCommand)
        ]

    def step_counts(self) -> dict[str, int]:
        """Count the heavy steps of each subject and session."""
        return dict(Counter(self.locate(name)[0].label for name in self.steps()))


def configure_nipype(config: Config, crash_dir: Path) -> None:
    """Set what Nipype reads from its own configuration, before the first workflow."""
    from nipype import config as nipype_config
    from nipype import logging as nipype_logging

    nipype_config.update_config({
        'execution': {
            'crashdump_dir': str(crash_dir),
            'crashfile_format': 'txt',
            'stop_on_first_crash': str(config.run.stop_on_first_crash).lower(),
            'remove_unnecessary_outputs': 'false',
            'poll_sleep_duration': str(POLL_S),
            'check_version': 'false',
            'hash_method': 'timestamp',
        },
        'logging': {'workflow_level': _nipype_level(config), 'interface_level': 'ERROR'},
        'monitoring': {'enabled': 'false'},
    })  # fmt: skip
    nipype_logging.update_logging(nipype_config)


def _nipype_level(config: Config) -> str:
    return 'INFO' if config.run.verbose > 1 else 'CRITICAL'


def queries_of(rooms: tuple[str, ...]) -> dict[str, Any]:
    """Gather the queries of several rooms in one mapping."""
    return {name: query for room in rooms for name, query in ANALYSES[room].queries.items()}


def build_pipeline(config: Config, inputs: list[SubjectInputs]) -> Pipeline:
    """
    Make the graph of a run.

    Parameters
    ----------
    config : Config
        Settings.
    inputs : list of SubjectInputs
        Images of each subject and session.

    Returns
    -------
    Pipeline
        A room whose input cannot be used for one subject is a failure in it, not an exception.

    Raises
    ------
    MissingInputError
        If a template of ``--output-spaces`` is not on this machine.
    """
    spaces = tuple(
        (space, find_template(space)) for space in parse_spaces(config.run.output_spaces)
    )
    workflow = Workflow(name=ROOT, base_dir=str(config.run.work_dir))
    pipeline = Pipeline(workflow, inputs)
    for subject in inputs:
        subject_wf = _init_subject_wf(subject, config, spaces, pipeline)
        if subject_wf:
            workflow.add_nodes([subject_wf])
            pipeline.labels[subject_wf.name] = subject
    return pipeline


def _init_subject_wf(
    subject: SubjectInputs,
    config: Config,
    spaces: tuple[tuple[Space, TemplateFiles], ...],
    pipeline: Pipeline,
) -> Workflow | None:
    session = f'_ses_{subject.session}' if subject.session else ''
    workflow = Workflow(name=f'sub_{subject.subject}{session}_wf')
    place = Place(config, spaces)
    try:
        t1w = _choose_t1w(subject, pipeline)
    except NeurolesionError as error:
        pipeline.failures.append(
            Failure(subject.subject, subject.session, 'prep', 'input', str(error), error.code)
        )
        return None
    rooms = []
    for name in config.run.analyses:
        room = ANALYSES[name]
        if all(subject.images.get(query) for query in room.required):
            try:
                rooms.append(load_function(room.build)(subject, place))
            except NeurolesionError as error:
                pipeline.failures.append(
                    Failure(
                        subject.subject, subject.session, name, 'input', str(error), error.code
                    )
                )
    if not rooms:
        return None
    workflow.add_nodes(rooms)
    if t1w:
        mask = find_user_mask(t1w, config.run, BRAIN_MASKS)
        anat_wf = init_anat_wf(t1w.path, mask, place)
        pipeline.methods.append(anat_wf.__desc__)
        offered = anat_wf.get_node('outputnode').outputs.copyable_trait_names()
        for room in rooms:
            wanted = room.get_node('inputnode').inputs.copyable_trait_names()
            for name in sorted(set(offered) & set(wanted)):
                workflow.connect(anat_wf, f'outputnode.{name}', room, f'inputnode.{name}')
    pipeline.methods += [room.__desc__ for room in rooms]
    return workflow


def _choose_t1w(subject: SubjectInputs, pipeline: Pipeline) -> BidsImage | None:
    images = subject.images.get('t1w', ())
    if not images:
        return None
    if len(images) > 1:
        pipeline.warnings.append(
            Warned(
                subject.subject,
                subject.session,
                f'{len(images)} T1w images were found and the first by name, '
                f'{images[0].path.name}, was used; choose with --bids-filter-file.',
            )
        )
    path = images[0].path
    shape = [size for size in read_header(path).get_data_shape() if size > 1]
    if len(shape) != 3:
        raise BadDataError(f'{path} has the shape {shape} where one 3D T1w image is needed.')
    return images[0]


def run_pipeline(pipeline: Pipeline, config: Config, on_status: StatusCallback) -> None:
    """
    Run the graph; failed nodes are told to ``on_status`` and stop only what depends on them.

    Parameters
    ----------
    pipeline : Pipeline
        From `build_pipeline`.
    config : Config
        Settings.
    on_status : callable
        Called with a node and ``start``, ``end`` or ``exception``.
    """
    plugin = 'MultiProc'
    arguments: dict[str, Any] = {
        'n_procs': config.compute.nprocs,
        'memory_gb': config.compute.mem_gb,
        'raise_insufficient': False,
    }
    if config.compute.nipype_plugin_file:
        plugin, arguments = _read_plugin(config.compute.nipype_plugin_file)
    arguments['status_callback'] = on_status
    # Nipype collects garbage at every poll: what is alive now need not be looked at again, which
    # spares half a processor.
    gc.collect()
    gc.freeze()
    pipeline.workflow.run(plugin=plugin, plugin_args=arguments)


def _read_plugin(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        content = yaml.safe_load(path.read_text())
        return str(content['plugin']), dict(content.get('plugin_args') or {})
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UsageError(
            f'{path} is no Nipype plugin file ({error}): it must hold plugin and plugin_args.'
        ) from error
