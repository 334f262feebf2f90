"""Finds and reads captions in the forms in which they are published.

- COCO's: `captions_train2017.json` and `captions_val2017.json`, in the folder or in its `annotations/`.
- Flickr's: `Flickr8k.token.txt` or `results_20130124.token`, lines of `name.jpg#0<TAB>caption`, with the official lists of
  training and validation photos beside it, such as `Flickr_8k.trainImages.txt` and `Flickr_8k.devImages.txt`.
- Karpathy's: `dataset_coco.json`, `dataset_flickr8k.json`, `dataset_flickr30k.json`, which say of each image what it is
  for; `restval` counts as training, `test` is left out.
- Tables: Kaggle's `captions.txt` and `results.csv`, or any `*.csv` with lines of `file,caption`, with or without a header, by
  the official lists where they lie beside it, else with a share of the photos, drawn by chance but always the same, for
  validation.

Which form it is, the files' names tell. Where a folder holds several files of captions, one must be named.
"""
import collections
import contextlib
import csv
import io
import os
import random
import re

from pycocotools.coco import COCO

from utils.files.atomic import readJson
from utils.files.errors import UserError

SHARE_FOR_VALIDATION = .1  # of the photos of a table that no lists go with
SPLIT_OF = {'train': 'train', 'restval': 'train', 'val': 'val'}  # Karpathy's
SET_CAPTIONS = 'Set CAPTIONS at the top of utils/buildCourseLayout.py; the forms that are understood stand at the top of ' \
               'utils/data/captionForms.py.'

Image = collections.namedtuple('Image', 'mode name captions')  # 'train' or 'val', file name, list of str


def readCaptions(path):
    """The images that have captions, for training and for validation.

    Args:
        path: a file of captions, or a folder that holds such files, itself or in its folders.

    Returns:
        dict key → `Image`, the key COCO's id where the form has it, else the file name; what was read, in words.

    Raises:
        UserError: nothing is found, or too much, or it is unusable, or there is nothing to train or to validate on.
    """
    if not os.path.exists(path):
        raise UserError(f'The captions {path} do not exist. {SET_CAPTIONS}')
    file, read = _findCaptions(path)
    try:
        images, what = read(file)
    except UserError:
        raise
    except Exception as error:  # whatever another content leads to
        raise UserError(f'{file} does not hold captions as its name promises: {type(error).__name__}: {error}. '
                        f'{SET_CAPTIONS}') from error
    images = {key: image._replace(name=os.path.basename(image.name)) for key, image in images.items()}
    _checkNames(file, images)
    for mode in ('train', 'val'):
        if not any(image.mode == mode for image in images.values()):
            raise UserError(f'{file} has no captions of {mode} images. {SET_CAPTIONS}')
    return images, what


def _findCaptions(path):
    """The file of captions in a folder, or the file itself, and the function that reads it."""
    files = _filesIn(path) if os.path.isdir(path) else [path]
    files = {re.sub(r'captions_val(\d{4}\.json)$', r'captions_train\1', file) for file in files}  # COCO's two are one
    found = {file: read for file in files for pattern, read in FORMS.items() if re.search(pattern, os.path.basename(file))}
    if not found:
        raise UserError(f'There are no captions in {path}. {SET_CAPTIONS}')
    if len(found) > 1:
        raise UserError(f'There are several files of captions in {path}: {", ".join(sorted(found))}. Set CAPTIONS at the top '
                        'of utils/buildCourseLayout.py to one of them.')
    return found.popitem()


def _filesIn(folder):
    """The paths of the files in a folder and in its folders."""
    inside = [entry for entry in os.scandir(folder) if not entry.name.startswith('.')]
    inside += [below for entry in inside if entry.is_dir() for below in os.scandir(entry.path)]
    return sorted(entry.path for entry in inside if entry.is_file())


def _checkNames(file, images):
    """Raises UserError where two images would be written into one file."""
    names = collections.defaultdict(list)
    for image in images.values():
        names[os.path.splitext(image.name)[0]].append(image.name)
    for same in names.values():
        if len(same) > 1:
            raise UserError(f'{file} has captions of two photos whose names do not differ: {same[0]} and {same[1]}. '
                            'Rename one of them, in the file too.')


def _readCoco(path):
    """COCO's two files, of which `path` is the one for training."""
    images = {}
    for mode in ('train', 'val'):
        file = os.path.join(os.path.dirname(path), os.path.basename(path).replace('train', mode))
        group = {id: Image(mode, *image) for id, image in _readCocoFile(file).items()}
        if images.keys() & group.keys():
            raise UserError(f'{path} and {file} hold some of the same images. {SET_CAPTIONS}')
        images.update(group)
    return images, f"COCO's captions in {os.path.dirname(path)}"


def _readCocoFile(path):
    """The images of a COCO captions file that have captions: dict id → (file name, list of captions)."""
    if not os.path.exists(path):
        raise UserError(f'The captions file {path} does not exist. {SET_CAPTIONS}')
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress
            coco = COCO(path)
        return {id: (image['file_name'], [str(annotation['caption']) for annotation in coco.imgToAnns[id]])
                for id, image in coco.imgs.items() if coco.imgToAnns[id]}
    except Exception as error:
        raise UserError(f'{path} is no captions file of COCO: {type(error).__name__}: {error}. {SET_CAPTIONS}') from error


def _readKarpathy(path):
    images = {}
    for image in readJson(path, None)['images']:
        mode = SPLIT_OF.get(image['split'])
        captions = [sentence['raw'] for sentence in image['sentences']]
        if mode and captions:
            images[image.get('cocoid', image['filename'])] = Image(mode, image['filename'], captions)
    return images, f"{path}, Karpathy's splits"


def _readTokens(path):
    captions = collections.defaultdict(list)
    with open(path, encoding='utf-8-sig') as f:
        for line in f:
            if line.strip():
                name, caption = line.rstrip('\r\n').split('\t', 1)
                captions[name.rsplit('#', 1)[0]].append(caption)
    lists = _listsBeside(path)
    if lists is None:
        raise UserError(f'Beside {path} must lie the official lists of training and validation photos, two text files such as '
                        'Flickr_8k.trainImages.txt and Flickr_8k.devImages.txt.')
    return _splitByLists(captions, lists), f'{path}, official lists'


def _readTable(path):
    captions = collections.defaultdict(list)
    with open(path, encoding='utf-8-sig', newline='') as f:
        text = f.read()
    separator = re.search(r'[,;|\t]', text)[0]
    for row in csv.reader(io.StringIO(text), delimiter=separator):
        name = os.path.basename(row[0].strip()) if row else ''
        caption = separator.join(row[1:]).strip()                                # one in it that nobody put quotes around
        if caption and os.path.splitext(name)[1]:                                # a header has no ending
            captions[name].append(re.sub(r'^\d+\| *', '', caption))              # results.csv numbers them
    lists = _listsBeside(path)
    if lists is not None:
        return _splitByLists(captions, lists), f'{path}, official lists'
    names = sorted(captions)
    random.Random(1).shuffle(names)
    chosen = set(names[:max(1, round(SHARE_FOR_VALIDATION * len(names)))])
    images = {name: Image('val' if name in chosen else 'train', name, captions[name]) for name in captions}
    return images, f'{path}, {len(chosen):,} of {len(names):,} photos drawn for validation'


def _listsBeside(path):
    """The names in the lists of training and validation photos beside a file of captions: dict mode → set; None without."""
    lists = {}
    for mode, pattern in (('train', r'train'), ('val', r'dev|val')):
        files = [file for file in _filesIn(os.path.dirname(path) or '.')
                 if re.search(rf'(?<![a-z])({pattern})[a-z]*\.txt$', os.path.basename(file), re.IGNORECASE)]
        if len(files) != 1:
            return None
        with open(files[0], encoding='utf-8-sig') as f:
            lists[mode] = {_stem(line.strip()) for line in f if line.strip()}    # some lists have no endings
    if lists['train'] & lists['val']:
        raise UserError(f'The lists of training and validation photos beside {path} have photos in common.')
    return lists


def _splitByLists(captions, lists):
    return {name: Image(mode, name, captions[name])
            for mode, listed in lists.items() for name in captions if _stem(name) in listed}


def _stem(name):
    return os.path.splitext(name)[0]


FORMS = {  # what a file is called → what reads it
    r'^captions_train\d{4}\.json$': _readCoco,
    r'^dataset_.*\.json$': _readKarpathy,
    r'^(?!.*lemma).*\.token(\.txt)?$': _readTokens,
    r'^captions\.txt$|\.csv$': _readTable,
}
