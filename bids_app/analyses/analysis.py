"""What the rest of the app knows about a room, without importing anything heavy."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
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

    build: str
    """``module:function`` that makes the room's workflow for one subject and session."""

    train: str
    """``module:function`` behind ``neurolesion-tools train``."""

    evaluate: str
    """``module:function`` behind ``neurolesion-tools evaluate``."""


def load_function(dotted: str) -> Callable[..., Any]:
    """Import ``module:function``."""
    module, _, name = dotted.partition(':')
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function
