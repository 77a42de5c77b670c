"""Curves of a page run along time, or along what the spec names."""

import json
import re

import nibabel as nib
import numpy as np
import pytest

from bids_app.outputs.spec import load_spec, output_path
from bids_app.reports.charts import line_charts
from bids_app.reports.collect import NATIVE, Written, collect_subject
from bids_app.reports.subject import write_subject_report

SOURCE = 'sub-01_FLAIR.nii.gz'
POSITIONS = (-20.0, -15.0, -10.0, -5.0)
AREAS = (0.0, 2.5, 5.0, 1.25)


def put(root, key, content):
    output = load_spec('lgg').outputs[key]
    path = root / output_path(output, SOURCE)
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        path.write_text(content)
    else:
        content.to_filename(path)
    path.with_name(path.name.partition('.')[0] + '.json').write_text(json.dumps(output.sidecar))
    return Written(output, path, NATIVE, dict(output.sidecar))


def slices(areas=AREAS):
    rows = ['slice\tposition\tarea\tmax_probability']
    rows += [
        f'{3 - row}\t{position}\t{area}\t{float(area > 0)}'
        for row, (position, area) in enumerate(zip(POSITIONS, areas, strict=True))
    ]
    return '\n'.join(rows) + '\n'


def test_areas_are_drawn_over_the_position_of_their_slices(tmp_path):
    (chart,) = line_charts(put(tmp_path, 'slices', slices()))
    (line,) = chart.lines
    assert (chart.along, chart.unit) == ('position (mm)', 'cm²')
    assert [dot[:2] for dot in line.dots] == [
        (chart.x(position), chart.y(area)) for position, area in zip(POSITIONS, AREAS, strict=True)
    ]
    across = [dot[0] for dot in line.dots]
    assert np.diff(across) == pytest.approx([(across[-1] - across[0]) / 3] * 3, abs=0.02)
    assert line.dots[2][2] == 'area: 5 cm² at -10.0 mm'
    # Neither the slices' numbers nor their probabilities count as marks.
    assert chart.bands == []


def test_a_marker_of_time_is_not_drawn_over_positions(tmp_path):
    (chart,) = line_charts(put(tmp_path, 'slices', slices()), (-10.0, 'bolus arrival'))
    assert chart.marker is None


def test_a_page_tells_the_curve_in_words(tmp_path):
    put(tmp_path, 'slices', slices())
    page = write_subject_report(tmp_path, '01').read_text(encoding='utf-8')
    label = re.search(r'role="img"[^>]*aria-label="([^"]*)"', page).group(1)
    assert label == (
        'Tumor in each slice over position (mm), in cm²: Area of the tumor in the slice'
    )
    assert '>position (mm)</text>' in page
    assert 'time (s)' not in page


def test_one_row_is_a_curve_too(tmp_path):
    text = '\n'.join(slices().splitlines()[:2]) + '\n'
    (chart,) = line_charts(put(tmp_path, 'slices', text))
    assert len(chart.lines[0].dots) == 1


def test_a_mask_has_the_name_that_the_spec_gives_it(tmp_path):
    mask = np.zeros((30, 30, 20), np.uint8)
    mask[10:20, 10:20, 5:15] = 1
    put(tmp_path, 'mask', nib.Nifti1Image(mask, np.diag([2.0, 2, 2, 1])))
    (room,) = collect_subject(tmp_path, '01')[0].rooms
    assert (room.spec.room, set(room.native)) == ('lgg', {'mask'})
    page = write_subject_report(tmp_path, '01').read_text(encoding='utf-8')
    assert 'slices. Lower-grade glioma: 8 mL.' in page
