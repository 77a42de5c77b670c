"""One workflow per subject and session, with the rooms added to it."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

from nipype import Node, Workflow

from .analyses import ANALYSES
from .analyses.analysis import Analysis, load_function
from .cluster.plugin_file import make_plugin
from .cluster.profile import read_profile
from .cluster.scheduler import ClusterPlugin
from .compute.child import ChildCommand
from .config import Config, RunConfig
from .errors import InputOutputError, MissingInputError, NeurolesionError
from .inputs.collect import BidsImage, SubjectInputs
from .outputs.provenance import Failure, Method, Warned
from .prep.modalities import CT_QUERY, MR
from .prep.modalities import QUERIES as PREP_QUERIES
from .prep.normalize import init_normalize_wf
from .prep.place import Place
from .prep.session import SessionImages, choose_images
from .prep.spaces import (
    Space,
    TemplateFiles,
    find_ct_template,
    find_template,
    parse_spaces,
)
from .prep.workflow import init_anat_wf, init_ct_wf

ROOT = 'neurolesion_wf'
TO_TEMPLATE = '_to_template'
POLL_S = 0.2

StatusCallback = Callable[[Node, str], None]


@dataclass
class Pipeline:
    """The graph of a run and what kept parts of it from being built."""

    workflow: Workflow
    inputs: list[SubjectInputs]
    failures: list[Failure] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)
    methods: list[Method] = field(default_factory=list)
    labels: dict[str, SubjectInputs] = field(default_factory=dict)
    rooms: set[str] = field(default_factory=set)
    """Names of the rooms that have something to do."""

    def fail(self, subject: SubjectInputs, room: str, error: NeurolesionError) -> None:
        """Note that a room cannot run for one session."""
        self.failures.append(
            Failure(subject.subject, subject.session, room, 'input', str(error), error.code)
        )

    def warn(self, subject: SubjectInputs, message: str) -> None:
        """Note what the user should know of one session."""
        self.warnings.append(Warned(subject.subject, subject.session, message))

    def locate(self, name: str) -> tuple[SubjectInputs, str]:
        """Subject and room of a node, from its full name."""
        parts = name.removeprefix(f'{ROOT}.').split('.')
        # The part of a room that needs the templates is named after the room.
        room = parts[1].removesuffix('_wf').removesuffix(TO_TEMPLATE)
        return self.labels[parts[0]], 'prep' if room in {'anat', 'normalize', 'ct'} else room

    def _children(self) -> Iterator[tuple[str, Node]]:
        """Nodes that start a child program, with their full names."""
        # Names are looked up within a subject: there may be thousands of subjects.
        for label in self.labels:
            part = self.workflow.get_node(label)
            for name in part.list_node_names():
                node = part.get_node(name)
                if isinstance(node.interface, ChildCommand):
                    yield f'{label}.{name}', node

    def steps(self) -> list[str]:
        """Full names of the nodes that start a child program."""
        return [name for name, _ in self._children()]

    def over_budget(self, steps_gb: float) -> dict[str, float]:
        """
        Name the steps that alone need more memory than all steps together may use.

        Parameters
        ----------
        steps_gb : float
            What they may use, in GB.

        Returns
        -------
        dict
            By the name of the step the largest need of any session, in GB.
        """
        needs: dict[str, float] = {}
        for _, node in self._children():
            need = node.interface.inputs.mem_gb
            if need > steps_gb:
                needs[node.name] = max(need, needs.get(node.name, 0.0))
        return needs

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
            'poll_sleep_duration': str(_poll_s(config)),
            # Its files are the same for all runs that share a work folder.
            'create_report': 'false',
            'check_version': 'false',
            'hash_method': 'timestamp',
        },
        'logging': {'workflow_level': _nipype_level(config), 'interface_level': 'ERROR'},
        'monitoring': {'enabled': 'false'},
    })  # fmt: skip
    nipype_logging.update_logging(nipype_config)


def _poll_s(config: Config) -> float:
    cluster = config.compute.cluster
    return read_profile(cluster).poll_s if cluster else POLL_S


def _nipype_level(config: Config) -> str:
    return 'INFO' if config.run.verbose > 1 else 'CRITICAL'


def queries_of(run: RunConfig) -> dict[str, Any]:
    """Gather what a run looks for: the queries of its rooms, or of preparation alone."""
    if run.prep_only:
        return dict(PREP_QUERIES)
    return {name: query for room in run.analyses for name, query in ANALYSES[room].queries.items()}


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
    spaces = _find_spaces(config.run, inputs)
    workflow = Workflow(name=ROOT, base_dir=str(config.run.work_dir))
    pipeline = Pipeline(workflow, inputs)
    for subject in inputs:
        subject_wf = _init_subject_wf(subject, config, spaces, pipeline)
        if subject_wf:
            workflow.add_nodes([subject_wf])
            pipeline.labels[subject_wf.name] = subject
    return pipeline


def _find_spaces(
    run: RunConfig, inputs: list[SubjectInputs]
) -> tuple[tuple[Space, TemplateFiles], ...]:
    spaces = parse_spaces(run.output_spaces)
    kinds = {name for subject in inputs for name, images in subject.images.items() if images}
    if kinds != {CT_QUERY}:
        return tuple((space, find_template(space)) for space in spaces)
    return tuple((space, _find_for_ct(space)) for space in spaces)


def _find_for_ct(space: Space) -> TemplateFiles:
    """Take a template without a T1w image too: where there is only CT, its CT is enough."""
    try:
        return find_template(space)
    except MissingInputError:
        found = find_ct_template(space)
        return TemplateFiles(found.ct, found.mask, ct=found.ct)


def _init_subject_wf(
    subject: SubjectInputs,
    config: Config,
    spaces: tuple[tuple[Space, TemplateFiles], ...],
    pipeline: Pipeline,
) -> Workflow | None:
    try:
        session = choose_images(subject, config.run, partial(pipeline.warn, subject))
    except NeurolesionError as error:
        pipeline.fail(subject, 'prep', error)
        return None
    # A room sees what preparation kept: the image that was chosen, or none.
    subject = replace(subject, images=subject.images | _kept(session, subject))
    place = Place(config, spaces, session, partial(pipeline.warn, subject))
    rooms = _init_rooms(subject, place, pipeline)
    preparations = _preparations(session, place)
    if not rooms and not (config.run.prep_only and preparations):
        return None
    label = f'_ses_{subject.session}' if subject.session else ''
    workflow = Workflow(name=f'sub_{subject.subject}{label}_wf')
    parts = [*preparations, *rooms]
    workflow.add_nodes(parts)
    for giver, taker in permutations(parts, 2):
        _connect_offered(workflow, giver, taker)
    pipeline.methods += [
        Method(subject.label, part.name, part.__desc__) for part in parts if part.__desc__
    ]
    return workflow


def _init_rooms(subject: SubjectInputs, place: Place, pipeline: Pipeline) -> list[Workflow]:
    """Workflows of the rooms for which a session has enough images."""
    run = place.config.run
    rooms: list[Workflow] = []
    unasked = []
    for name in run.analyses:
        room = ANALYSES[name]
        if room.wants(subject.images, named=run.analyses_named):
            try:
                parts = load_function(room.build)(subject, place)
            except NeurolesionError as error:
                pipeline.fail(subject, name, error)
                continue
            rooms += parts
            if parts:
                pipeline.rooms.add(name)
        elif room.wants(subject.images, named=True):
            unasked.append(name)
        elif run.analyses_named:
            pipeline.warn(subject, f'{name} was not run: {_needs(room)}.')
    if not rooms and unasked:
        pipeline.warn(
            subject,
            f'{", ".join(unasked)} would do poorly on these images alone and was not run: '
            'name it with --analyses to run it all the same.',
        )
    return rooms


def _needs(room: Analysis) -> str:
    def spoken(query: str) -> str:
        return MR[query].label if query in MR else query.upper()

    needed = [spoken(query) for query in room.required]
    if room.any_of:
        needed.append(f'one of {", ".join(spoken(query) for query in room.any_of)}')
    return f'it needs {" and ".join(needed)}, and this session has no usable one'


def _preparations(session: SessionImages, place: Place) -> list[Workflow]:
    parts = []
    if session.mr:
        parts.append(init_anat_wf(session.mr, place))
        if place.spaces:
            parts.append(init_normalize_wf(session.mr, place))
    if session.ct:
        parts.append(init_ct_wf(session.ct, place))
    return parts


def _kept(session: SessionImages, subject: SubjectInputs) -> dict[str, tuple[BidsImage, ...]]:
    kept = {image.name: (image.image,) for image in session.all()}
    return {name: kept.get(name, ()) for name in PREP_QUERIES if name in subject.images}


def _connect_offered(workflow: Workflow, giver: Workflow, taker: Workflow) -> None:
    """Wire every field that one part offers under the name by which another one wants it."""
    outputnode, inputnode = giver.get_node('outputnode'), taker.get_node('inputnode')
    if outputnode and inputnode:
        offered = outputnode.outputs.copyable_trait_names()
        wanted = inputnode.inputs.copyable_trait_names()
        for name in sorted(set(offered) & set(wanted)):
            workflow.connect(giver, f'outputnode.{name}', taker, f'inputnode.{name}')


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
    compute = config.compute
    arguments: dict[str, Any] = {}
    if compute.cluster:
        plugin: Any = ClusterPlugin(read_profile(compute.cluster), on_status)
    elif compute.nipype_plugin_file:
        plugin = make_plugin(compute.nipype_plugin_file, on_status)
    else:
        plugin = 'MultiProc'
        arguments = {
            'n_procs': compute.nprocs,
            'memory_gb': compute.steps_gb,
            'raise_insufficient': False,
            'status_callback': on_status,
        }
    # Nipype collects garbage at every poll: what is alive now need not be looked at again, which
    # spares half a processor.
    gc.collect()
    gc.freeze()
    try:
        pipeline.workflow.run(plugin=plugin, plugin_args=arguments)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if not compute.nipype_plugin_file:
            raise
        # Nipype's own plugins stop like this where a scheduler killed a job.
        raise InputOutputError(
            f'The plugin of {compute.nipype_plugin_file} stopped with an error of its own '
            f'({error!r}): the same command resumes; on a cluster --cluster tells more.'
        ) from error
