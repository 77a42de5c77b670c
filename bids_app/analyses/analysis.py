"""What the rest of the app knows about a room, without importing anything heavy."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Analysis:
    """One room: its name, the images it asks for and where its parts are."""

    name: str
    """Name on the command line, in ``derivatives_spec/`` and of the package."""

    summary: str
    """One line for ``--help``."""

    queries: Mapping[str, tuple[Mapping[str, Any], ...]]
    """For each name alternatives of pybids entities; the first that finds an image is used."""

    required: tuple[str, ...]
    """Queries without which there is nothing to do for a subject."""

    any_of: tuple[str, ...]
    """Queries of which one is enough; empty where `required` says all."""

    unasked: tuple[str, ...]
    """Queries of which one must be there where nobody named the room; empty where any will do."""

    build: str
    """``module:function`` that makes the room's workflows for one subject and session."""

    train: str
    """``module:function`` behind ``neurolesion-tools train``."""

    evaluate: str
    """``module:function`` behind ``neurolesion-tools evaluate``."""

    root_tables: str = ''
    """``module:function`` that gives, for the settings, tables for the root of the derivatives."""

    def wants(self, images: Mapping[str, Sequence[Any]], *, named: bool) -> bool:
        """Whether a session's images are enough for the room, which the user named or did not."""
        choices = (self.any_of, () if named else self.unasked)
        return all(images.get(query) for query in self.required) and all(
            any(images.get(query) for query in choice) for choice in choices if choice
        )


def load_function(dotted: str) -> Callable[..., Any]:
    """Import ``module:function``."""
    module, _, name = dotted.partition(':')
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function
