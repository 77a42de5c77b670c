"""What the finished picture shows, read back from its pixels."""

import base64
import io

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bids_app.reports import captions, mosaics
from bids_app.reports.slices import View, canonical


def pixels(picture: mosaics.Picture) -> np.ndarray:
    content = base64.b64decode(picture.uri.partition('base64,')[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert('RGB'), float)


def one_slice(codes: str, zooms=(3.0, 3.0, 3.0)):
    """Grey slice whose left, front quarter holds a hot spot; stored in the given order."""
    grey = np.full((60, 60, 1), 100.0, np.float32)
    hot = np.zeros_like(grey)
    hot[8:18, 40:50] = 50.0
    affine = np.diag([*zooms, 1.0])
    turned = []
    for data in (grey, hot):
        image = nib.Nifti1Image(data, affine)
        target = nib.orientations.axcodes2ornt(codes)
        start = nib.io_orientation(affine)
        turned.append(image.as_reoriented(nib.orientations.ornt_transform(start, target)))
    return canonical(turned[0]), canonical(turned[1]).data


def draw(volume, hot, **changes):
    whole = tuple(slice(0, length) for length in volume.data.shape)
    layer = mosaics.Layer(hot, 0.0, 50.0, 'inferno', '%')
    mosaic = mosaics.Mosaic(volume, View(2, (0,), whole), layer, (), (0.0, 200.0))
    return mosaics.draw_mosaic(mosaic, 1.0)


@pytest.mark.parametrize('codes', ['RAS', 'LAS', 'LPI'])
def test_hot_spot_of_the_left_is_on_the_right_of_the_picture(codes):
    picture = draw(*one_slice(codes))
    shown = pixels(picture)[:, : picture.width - mosaics.BAR_SPACE]
    # Top of inferno is a light yellow: no grey pixel is that far from blue.
    rows, columns = np.nonzero(shown[..., 0] - shown[..., 2] > 60)
    assert rows.size > 300
    tile = shown.shape[1]
    assert columns.mean() > 0.7 * tile
    assert rows.mean() < 0.35 * tile


def test_anisotropic_voxels_keep_their_shape():
    volume, hot = one_slice('RAS', (1.0, 3.0, 3.0))
    picture = draw(volume, hot)
    shown = pixels(picture)[:, : picture.width - mosaics.BAR_SPACE]
    rows, columns = np.nonzero(shown[..., 0] - shown[..., 2] > 60)
    assert np.ptp(rows) / np.ptp(columns) == pytest.approx(3.0, rel=0.15)


def test_anatomy_shows_where_the_map_is_low():
    volume, hot = one_slice('RAS')
    picture = draw(volume, hot)
    centre = pixels(picture)[picture.height // 2, (picture.width - mosaics.BAR_SPACE) // 2]
    assert centre == pytest.approx([127, 127, 127], abs=6)


def test_values_above_the_range_take_the_top_colour():
    layer = mosaics.Layer(np.empty(0), 0.0, 10.0, 'inferno', '')
    assert mosaics.opacity(layer, np.array([99.0])) == 1.0
    volume, hot = one_slice('RAS')
    same, more = draw(volume, hot), draw(volume, hot * 10)
    assert np.abs(pixels(same) - pixels(more)).mean() < 1.0


def test_convention_names_plane_and_tilt():
    volume, _ = one_slice('RAS')
    view = View(2, (0,), (slice(None),) * 3)
    text = captions.convention_text(mosaics.Mosaic(volume._replace(obliquity_deg=12.3), view))
    assert text.startswith('Radiological')
    assert text.endswith('axial · oblique by 12°')
