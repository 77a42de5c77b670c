"""Files of transforms: same content, same bytes."""

import h5py
import numpy as np

from bids_app.prep.register import copy_without_times


def write(path, *, times):
    with h5py.File(path, 'w') as file:
        group = file.create_group('TransformGroup')
        group.create_dataset('TransformType', data='Affine', track_times=times)
        numbers = np.arange(4000, dtype=np.float32)
        group.create_dataset(
            'TransformParameters', data=numbers, track_times=times, compression='gzip'
        )


def test_times_of_writing_do_not_reach_the_copy(tmp_path):
    for name, times in (('a', True), ('b', False)):
        write(tmp_path / f'{name}.h5', times=times)
        copy_without_times(tmp_path / f'{name}.h5', tmp_path / f'{name}_copy.h5')
    first, second = ((tmp_path / f'{name}_copy.h5').read_bytes() for name in 'ab')
    assert (tmp_path / 'a.h5').read_bytes() != (tmp_path / 'b.h5').read_bytes()
    assert first == second
    with h5py.File(tmp_path / 'a_copy.h5') as copy:
        np.testing.assert_array_equal(copy['TransformGroup/TransformParameters'], np.arange(4000))
        assert copy['TransformGroup/TransformType'][()] == b'Affine'
