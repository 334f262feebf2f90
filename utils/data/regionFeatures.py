"""Reads the region features of images in the forms that people have them in.

Understood are, beside photos themselves (utils/data/photoFeatures.py):

- Bottom-up attention's TSV (Anderson et al. 2018, arXiv:1707.07998), `*.tsv` or `*.tsv.0` …: a line per image, columns as
  in `TSV_COLUMNS`, told apart by their number; `boxes`, `features`, `objects_conf`, `cls_prob` are base64 of float32.
- A folder of `*.npz` or `*.npy`, one per image, named by its id (`139.npz`, `COCO_val2014_000000000139.jpg.npy`). A `.npy`
  is the features; a `.npz` holds them under one of `FEATURE_KEYS`, boxes and scores, if any, under one of `BOX_KEYS`
  and of `SCORE_KEYS`.
- One HDF5 file (`*.hdf5`, `*.h5`) with, for each image id, a data set of features `<id>`, a group `<id>` that is named
  inside like a `.npz`, or data sets `<id>_features`, `<id>_boxes`, `<id>_cls_prob` ….
- One HDF5 file with `image_features` [N, K, 2048] and, if any, `image_bb` [N, K, 4]; or [all boxes, 2048] and [all boxes, 4]
  with `pos_boxes` [N, 2], the first row of an image and the one after its last. The ids are in its data set `image_ids`
  or in a file beside.
- One `*.npy` array [N, K, 2048], read as a memory map, with a file of ids beside; `<name>_boxes.npy` [N, K, 4] and
  `<name>_scores.npy` [N, K] are used where they are.

A file of ids beside `<name>.npy` or `<name>.hdf5` is `<name>_ids` or `<name>_imgid2idx`, ending in `.npy`, `.json`, `.txt` (one a
line) or `.pkl`: a list of the N ids in order, or (`.json`, `.pkl`) a dictionary from ids to places. Several TSV or HDF5
files may lie in one folder.

Every reader is a generator of (name, read), one image after the other and never more than one in memory: the name is the
image's own, or holds its id (`idInName`), and `read()` returns its features [K, 2048], boxes [K, 4] or None, scores or None,
unchecked. It raises whatever goes wrong with this image alone.
"""
import base64
import functools
import os
import re

import numpy as np

from utils.files.atomic import readJson
from utils.files.errors import UserError
from utils.files.safePickle import loadPickle

TSV_COLUMNS = {len(columns): columns for columns in (
    ('image_id', 'image_w', 'image_h', 'num_boxes', 'boxes', 'features'),              # as published
    ('image_id', 'image_w', 'image_h', 'num_boxes', 'boxes', 'features', 'cls_prob'),  # ViLBERT's
    ('img_id', 'img_h', 'img_w', 'objects_id', 'objects_conf', 'attrs_id', 'attrs_conf', 'num_boxes', 'boxes', 'features'),
)}                                                                                     # the last: LXMERT's
FEATURE_KEYS = ('features', 'feat', 'x', 'arr_0')
BOX_KEYS = ('boxes', 'bbox')
SCORE_KEYS = ('scores', 'conf', 'objects_conf', 'cls_prob')
ID_READERS = {
    '.npy': lambda path: np.load(path, allow_pickle=False).tolist(),
    '.json': lambda path: readJson(path, None),
    '.txt': lambda path: np.loadtxt(path, str, ndmin=1).tolist(),
    '.pkl': loadPickle,
}
KNOWN_FORMS = 'The forms that are understood stand at the top of utils/data/regionFeatures.py.'


def idInName(name):
    """COCO's image id in a name, an integer, or None: 139 for '139' and 'COCO_val2014_000000000139.jpg'."""
    number = re.fullmatch(r'(?:.*20\d\d_)?(\d+)(?:\.jpg)?', name)
    return int(number[1]) if number else None


def findReaders(paths):
    """The readers of files and folders of features.

    Args:
        paths: list of paths.

    Returns:
        list of (path, generator of (name, read)); a folder of TSV or HDF5 files is one entry per file.

    Raises:
        UserError: a path does not exist or is of no known form. While they run, the generators raise it too.
    """
    files = []
    for path in paths:
        if not os.path.exists(path):
            raise UserError(f'The features {path} do not exist. Set FEATURES at the top of utils/buildCourseLayout.py.')
        inside = sorted(os.path.join(path, name) for name in os.listdir(path)) if os.path.isdir(path) else []
        files += [file for file in inside if _reader(file) in (_readTsv, _readHdf5)] or [path]
    for path in files:
        if _reader(path) is None:
            raise UserError(f'The features {path} are neither a folder nor a .tsv, .hdf5, .h5 or .npy file. {KNOWN_FORMS}')
    return [(path, _reader(path)(path)) for path in files]


def isFolderOfFeatures(path):
    """Whether a folder holds files of features, of which `findReaders` knows what to do."""
    return any(_reader(entry.path) or entry.name.endswith('.npz') for entry in os.scandir(path) if entry.is_file())


def _reader(path):
    if os.path.isdir(path):
        return _readFolder
    readers = {r'\.tsv(\.\d+)?$': _readTsv, r'\.(hdf5|h5)$': _readHdf5, r'\.npy$': _readArray}
    return next((reader for ending, reader in readers.items() if re.search(ending, path)), None)


def _readTsv(path):
    columns = None
    with open(path, 'rb') as f:
        for line in f:
            values = line.rstrip(b'\r\n').split(b'\t')
            columns = columns or TSV_COLUMNS.get(len(values))
            if columns is None:
                raise UserError(f'The first line of {path} has {len(values)} columns separated by tabs; known are '
                                f'{", ".join(map(str, TSV_COLUMNS))} columns. {KNOWN_FORMS}')
            yield values[0].decode('latin1'), functools.partial(_tsvDetections, columns, values)


def _tsvDetections(columns, values):
    if len(values) != len(columns):
        raise ValueError(f'a line of {len(values)} columns instead of {len(columns)}')
    row = dict(zip(columns, values))
    K = int(row['num_boxes'])
    if K == 0:
        raise ValueError('no boxes')

    def floats(column):
        try:
            return np.frombuffer(base64.b64decode(row[column]), '<f4').reshape(K, -1)
        except ValueError:
            raise ValueError(f'{column} that are not num_boxes rows of float32 in base64') from None

    scores = next((floats(column) for column in SCORE_KEYS if column in row), None)
    return floats('features'), floats('boxes'), scores


def _readFolder(path):
    files = sorted(entry.path for entry in os.scandir(path) if entry.name.endswith(('.npz', '.npy')))
    if not files:
        raise UserError(f'The folder {path} holds no .npz, .npy, .tsv or HDF5 file, and no photos. {KNOWN_FORMS}')
    for file in files:
        yield os.path.splitext(os.path.basename(file))[0], functools.partial(_fileDetections, file)


def _fileDetections(path):
    arrays = np.load(path, allow_pickle=False)
    if isinstance(arrays, np.ndarray):
        return arrays, None, None
    with arrays:
        return _namedDetections(arrays)


def _namedDetections(arrays):
    """Features, boxes and scores of a dictionary of arrays."""
    def first(keys):
        return next((np.array(arrays[key]) for key in keys if key in arrays), None)

    features = first(FEATURE_KEYS)
    if features is None:
        raise ValueError(f'none of {", ".join(FEATURE_KEYS)} among {", ".join(sorted(arrays)[:8])}')
    return features, first(BOX_KEYS), first(SCORE_KEYS)


def _readHdf5(path):
    try:
        import h5py  # only those who have such files need it
    except ImportError:
        raise UserError(f'Reading {path} takes the package h5py. Install it: pip install h5py') from None
    try:
        file = h5py.File(path, 'r')
    except OSError as error:
        raise UserError(f'{path} cannot be read as an HDF5 file: {error}. Copy it again from where it came from.') from error
    with file:
        yield from _readHdf5Arrays(path, file) if 'image_features' in file else _readHdf5Images(file)


def _readHdf5Images(file):
    others = tuple(f'_{key}' for key in BOX_KEYS + SCORE_KEYS)
    for key in file:
        if key.endswith('_features'):
            stem = key[:-len('features')]
            yield stem[:-1], functools.partial(_suffixedDetections, file, stem)
        elif not key.endswith(others):
            yield key, functools.partial(_keyedDetections, file, key)


def _suffixedDetections(file, stem):
    keys = ('features',) + BOX_KEYS + SCORE_KEYS
    return _namedDetections({key: file[stem + key] for key in keys if stem + key in file})


def _keyedDetections(file, key):
    value = file[key]
    return _namedDetections(value) if hasattr(value, 'keys') else (value[()], None, None)


def _readHdf5Arrays(path, file):
    starts = file['pos_boxes'][()] if 'pos_boxes' in file else None
    number = len(file['image_features'] if starts is None else starts)
    ids = file['image_ids'][()].tolist() if 'image_ids' in file else None
    for name, place in _places(path, number, ids):
        yield name, functools.partial(_hdf5Detections, file, starts, place)


def _hdf5Detections(file, starts, place):
    rows = place if starts is None else slice(*map(int, starts[place]))
    return file['image_features'][rows], file['image_bb'][rows] if 'image_bb' in file else None, None


def _readArray(path):
    try:
        array = np.load(path, mmap_mode='r', allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f'{path} cannot be read as a numpy array: {error}. Copy it again from where it came from.') from error
    if array.ndim != 3:
        raise UserError(f'{path} holds an array of the shape {list(array.shape)}; expected is [N, K, 2048]. {KNOWN_FORMS}')
    for name, place in _places(path, len(array)):
        yield name, functools.partial(_arrayDetections, path, place)


def _arrayDetections(path, place):
    stem = os.path.splitext(path)[0]
    # opened anew for every image: the parts of a memory map that were read would pile up in memory
    return tuple(np.array(np.load(file, mmap_mode='r', allow_pickle=False)[place]) if os.path.exists(file) else None
                 for file in (path, f'{stem}_boxes.npy', f'{stem}_scores.npy'))


def _places(path, number, ids=None):
    """(name, place) of each of the `number` images in the file `path`, by `ids` or else by the file of ids beside it."""
    if ids is None:
        path, ids = _idsBeside(path)
    if isinstance(ids, dict):
        return ((str(name), int(place)) for name, place in ids.items())
    if len(ids) != number:
        raise UserError(f'{path} lists {len(ids)} image ids, but there are the features of {number} images.')
    return ((name.decode() if isinstance(name, bytes) else str(name), place) for place, name in enumerate(ids))


def _idsBeside(path):
    stem = os.path.splitext(path)[0]
    files = [stem + end + ending for end in ('_ids', '_imgid2idx') for ending in ID_READERS]
    file = next((file for file in files if os.path.exists(file)), None)
    if file is None:
        raise UserError(f'Which images the features in {path} belong to must stand in a file beside it, such as '
                        f'{stem}_ids.json. {KNOWN_FORMS}')
    try:
        return file, ID_READERS[os.path.splitext(file)[1]](file)
    except Exception as error:
        raise UserError(f'The image ids in {file} cannot be read: {type(error).__name__}: {error}. {KNOWN_FORMS}') from error
