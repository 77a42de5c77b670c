"""What every part of a subject's graph needs to know: settings, templates, sinks and children."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nipype import Node

from ..compute.child import ChildCommand
from ..config import Config
from ..outputs.provenance import raw_uri
from ..outputs.sink import DerivativesSink
from .session import NO_IMAGES, SessionImages
from .spaces import Space, TemplateFiles


def _keep_quiet(_: str) -> None:
    """Take a warning that nobody wants to hear."""


@dataclass(frozen=True)
class Place:
    """Where the files of one subject go and which templates they go to."""

    config: Config
    spaces: tuple[tuple[Space, TemplateFiles], ...]
    session: SessionImages = NO_IMAGES
    """The images that preparation handles, and which one the others are aligned to."""

    warn: Callable[[str], None] = _keep_quiet
    """Gets one sentence on what the user should know of the session."""

    def sink(self, room: str, source: Path, name: str, space: Space | None = None) -> Node:
        """Node that writes into the derivatives dataset."""
        node = Node(
            DerivativesSink(
                room=room,
                output_dir=str(self.config.run.output_dir),
                bids_dir=str(self.config.run.bids_dir),
                source_file=str(source),
            ),
            name=name,
            run_without_submitting=True,
        )
        if space:
            node.inputs.space = space.entities
        else:
            node.inputs.spatial_reference = raw_uri(source, self.config.run.bids_dir)
        return node

    def child(self, interface: ChildCommand, name: str, mem_gb: float, threads: int = 1) -> Node:
        """Node that runs a child program with its share of the machine."""
        interface.inputs.random_seed = self.config.compute.random_seed
        interface.inputs.num_threads = threads
        interface.inputs.mem_gb = mem_gb
        budget = self.config.compute.steps_gb
        # Nipype refuses a node that wants more than the whole budget; let it run alone instead.
        return Node(interface, name=name, n_procs=threads, mem_gb=min(mem_gb, budget))

    def by_template(self) -> dict[str, list[tuple[Space, TemplateFiles]]]:
        """Resolutions of each template, in the order of ``--output-spaces``."""
        grouped: dict[str, list[tuple[Space, TemplateFiles]]] = {}
        for space, template in self.spaces:
            grouped.setdefault(space.name, []).append((space, template))
        return grouped
