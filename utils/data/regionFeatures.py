"""Reads the region features of images in the forms in which people have them.

Understood are, beside photos themselves (utils/data/photoFeatures.py):

- The TSV of bottom-up attention (Anderson et al. 2018, arXiv:1707.07998), `*.tsv` or `*.tsv.0` …,
  or a folder of such files: a line per image with the columns of `TSV_COLUMNS`, told apart by
  their number. `boxes`, `features` and `objects_conf` are base64 of float32.
- A folder of `*.npz` or `*.npy`, one per image, named by its id or its photo (`139.npz`,
  `COCO_val2014_000000000139.jpg.npy`). A `.npy` is the features; a `.npz` holds them under one of
  `FEATURE_KEYS`, boxes and scores, if any, under one of `BOX_KEYS` and of `SCORE_KEYS`.
- One `<name>.npy` of the shape [N, K, 2048], with a list of the N images' names or ids beside it
  in `<name>_ids.json`. Boxes [N, K, 4] in `<name>_boxes.npy` and scores [N, K] in
  `<name>_scores.npy` are used if they are there.
"""
import base64
import functools
import os
import re

import numpy as np

from utils.files.foreign import foreignFile, jsonIn

TSV_COLUMNS = {len(columns.split()): columns.split() for columns in (
    'image_id image_w image_h num_boxes boxes features',  # as published
    'img_id img_h img_w objects_id objects_conf attrs_id attrs_conf num_boxes boxes features',
)}                                                        # the last: LXMERT's
FEATURE_KEYS = 'features', 'feat', 'x', 'arr_0'
BOX_KEYS = 'boxes', 'bbox'
SCORE_KEYS = 'scores', 'conf', 'objects_conf'
ENCODED = 'features', 'boxes', 'objects_conf'  # columns that are used
KNOWN_FORMS = 'The forms that are understood stand at the top of utils/data/regionFeatures.py.'


def filesOfFeatures(path):
    """The sorted paths of the files of features in a folder, or the file `path` itself; an empty
    list where there are none."""
    files = [entry.path for entry in os.scandir(path)] if os.path.isdir(path) else [path]
    return sorted(file for file in files
                  if re.search(r'\.(tsv(\.\d+)?|npz|npy)$', file) and os.path.isfile(file))


def readFeatures(path):
    """Reads features image by image, only one of them in memory.

    Args:
        path: a file or a folder.

    Yields:
        (name, read): the image's name or id; a function that returns its features [K, 2048],
        boxes [K, 4] or None, and scores or None, unchecked, and that raises whatever is wrong with
        this image alone.

    Raises:
        UserError: a file is not of a known form.
    """
    for file in filesOfFeatures(path):
        with foreignFile(file, KNOWN_FORMS):
            if not file.endswith(('.npz', '.npy')):
                yield from _readTsv(file)
            elif os.path.isdir(path):
                name = os.path.splitext(os.path.basename(file))[0]
                yield name, functools.partial(_featuresInFile, file)
            else:
                yield from _readArray(file)


def _readTsv(path):
    columns = None
    with open(path, 'rb') as f:
        for line in f:
            values = line.rstrip(b'\r\n').split(b'\t')
            columns = columns or TSV_COLUMNS.get(len(values))
            if columns is None:
                raise ValueError(f'its first line has {len(values)} columns separated by tabs; '
                                 f'known are {", ".join(map(str, TSV_COLUMNS))} columns')
            row = dict(zip(columns, values))
            yield values[0].decode('latin1'), functools.partial(_featuresInRow, row)


def _featuresInRow(row):
    K = int(row['num_boxes'])
    return _features({key: np.frombuffer(base64.b64decode(row[key]), '<f4').reshape(K, -1)
                      for key in ENCODED if key in row})


def _featuresInFile(path):
    arrays = np.load(path, allow_pickle=False)
    if path.endswith('.npy'):
        return arrays, None, None
    with arrays:
        return _features(arrays)


def _features(arrays):
    """Features, boxes and scores of a dictionary of arrays."""
    def first(keys):
        return next((arrays[key] for key in keys if key in arrays), None)

    features = first(FEATURE_KEYS)
    if features is None:
        raise ValueError(f'none of {", ".join(FEATURE_KEYS)} among {", ".join(sorted(arrays)[:8])}')
    return features, first(BOX_KEYS), first(SCORE_KEYS)


def _readArray(path):
    stem = os.path.splitext(path)[0]
    files = [path, f'{stem}_boxes.npy', f'{stem}_scores.npy']
    arrays = [np.load(file, mmap_mode='r', allow_pickle=False) if os.path.isfile(file) else None
              for file in files]
    names, shape = jsonIn(f'{stem}_ids.json'), list(arrays[0].shape)
    if not isinstance(names, list) or len(shape) != 3 or len(names) != shape[0]:
        raise ValueError(f'the shape {shape} is not [N, K, 2048], or {stem}_ids.json does not list '
                         'N images')
    for place, name in enumerate(names):
        yield str(name), functools.partial(_featuresAt, place, arrays)


def _featuresAt(place, arrays):
    return [None if array is None else array[place] for array in arrays]
