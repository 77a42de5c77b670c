"""Interactive views of a page within the size that it may have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .niivue import Packed, niivue_view, pack
from .nilearn_view import nilearn_views
from .page import page_size

if TYPE_CHECKING:
    from pathlib import Path

    from .viewer import Gathered

TEMPLATE: Final = 'subject.html.j2'


def interactive_context(
    gathered: Gathered, output_dir: Path, context: dict[str, Any], limit: int
) -> dict[str, Any]:
    """
    Variables of the page's template that have to do with interactive views.

    Parameters
    ----------
    gathered : Gathered
        What the views show.
    output_dir : Path
        Root of the derivatives dataset, where the page is.
    context : dict
        The other variables.
    limit : int
        Bytes that the page may have; pictures alone may take more.

    Returns
    -------
    dict
        ``niivue`` is None where it was not fetched, or where there is nothing to show; ``nilearn``
        is empty where NiiVue is there.
    """
    found: dict[str, Any] = {'niivue': None, 'nilearn': {}, 'left_out': 0, 'scenes': ()}
    if not gathered.scenes:
        return found
    found['scenes'] = tuple(gathered.scenes)
    found['niivue'] = niivue_view(gathered, Packed({}, 0.0), output_dir)
    room = limit - page_size(TEMPLATE, context | found)
    if found['niivue'] is not None:
        found['niivue'] = niivue_view(gathered, pack(gathered, room), output_dir)
    else:
        found['nilearn'], found['left_out'] = nilearn_views(gathered, room)
    return found
