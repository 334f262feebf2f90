"""Reads the region features of images in the usual formats.

Besides photos (utils/data/photoFeatures.py) these are supported:

- The TSV of bottom-up attention (Anderson et al. 2018, arXiv:1707.07998), `*.tsv` or `*.tsv.0` …,
  or a folder of such files: a line per image with the columns of `TSV_COLUMNS`, told apart by
  their number. `boxes`, `features` and `objects_conf` are base64 of float32.
- `*.npz` or `*.npy`, or a folder of such files: one per image, named by its id or its photo
  (`139.npz`, `COCO_val2014_000000000139.jpg.npy`). A `.npy` is the features; a `.npz` holds them
  under one of `FEATURE_KEYS`, boxes and scores, if any, under one of `BOX_KEYS` and `SCORE_KEYS`.
"""
import base64
import functools
import os
import re

import numpy as np

from utils.files.errors import foreignFile

TSV_COLUMNS = {len(columns.split()): columns.split() for columns in (
    'image_id image_w image_h num_boxes boxes features',  # as published
    'img_id img_h img_w objects_id objects_conf attrs_id attrs_conf num_boxes boxes features',
)}                                                        # the last: LXMERT's
FEATURE_KEYS = 'features', 'feat', 'x', 'arr_0'
BOX_KEYS = 'boxes', 'bbox'
SCORE_KEYS = 'scores', 'conf', 'objects_conf'
KNOWN_FORMS = 'The supported formats are listed at the top of utils/data/regionFeatures.py.'


def filesOfFeatures(path):
    """The sorted paths of the files of features in a folder, or the file `path` itself; an empty
    list where there are none."""
    files = [entry.path for entry in os.scandir(path)] if os.path.isdir(path) else [path]
    return sorted(file for file in files
                  if re.search(r'\.(tsv(\.\d+)?|npz|npy)$', file) and os.path.isfile(file))


def readFeatures(files):
    """Reads features image by image, only one of them in memory.

    Args:
        files: paths as from `filesOfFeatures`.

    Yields:
        (name, read): the image's name or id; a function that returns its features [K, 2048],
        boxes [K, 4] or None, and scores or None, unchecked, and that raises whatever is wrong with
        this image alone.

    Raises:
        UserError: a file is not of a known form.
    """
    for file in files:
        stem, ending = os.path.splitext(os.path.basename(file))
        if ending in ('.npz', '.npy'):
            yield stem, functools.partial(_featuresInFile, file)
        else:
            with foreignFile(file, KNOWN_FORMS):
                yield from _readTsv(file)


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
            yield os.fsdecode(values[0]), functools.partial(_featuresInRow, row)


def _featuresInRow(row):
    K = int(row['num_boxes'])
    return [np.frombuffer(base64.b64decode(row[key]), '<f4').reshape(K, -1) if key in row else None
            for key in ('features', 'boxes', 'objects_conf')]


def _featuresInFile(path):
    arrays = np.load(path, allow_pickle=False)
    if path.endswith('.npy'):
        return arrays, None, None
    with arrays:
        if set(FEATURE_KEYS).isdisjoint(arrays):
            raise ValueError(f'none of {", ".join(FEATURE_KEYS)} among {", ".join(arrays)[:80]}')
        return [next((arrays[key] for key in keys if key in arrays), None)
                for keys in (FEATURE_KEYS, BOX_KEYS, SCORE_KEYS)]
