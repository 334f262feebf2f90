"""Builds a data folder in the course's layout from captions, and photos or features of regions.

    python utils/buildCourseLayout.py

Set the constants below first; paths may be relative to the project's folder. Lists make one data
folder of several sources, such as Flickr8k and COCO. The supported formats of captions are listed
at the top of utils/data/captionForms.py: COCO's, Flickr's, Karpathy's, and tables of your own.
FEATURES are photos, from which utils/data/photoFeatures.py makes features, or features in a format
listed at the top of utils/data/regionFeatures.py. Features of COCO's 2014 images serve as well: the
images and their ids are the same.

- Each image is written twice: with REGIONS boxes, and with the maximum over them. If the features
  have scores, the boxes with the highest scores are taken, else the first ones. The names of the
  folders stay the course's, which say ten.
- Fewer boxes than REGIONS are repeated. Unlike rows of zeros this changes no maximum, and
  attention never falls on nothing.
- Boxes are kept if they are x1 y1 x2 y2 in pixels.
- The vocabulary counts the training captions only, whereas the course also counts those for
  validation. A word with fewer than MINIMUM_COUNT occurrences becomes `UNK`.
- Where the system allows it, the folders `train2017` and `val2017` get links to the photos, for
  pages and the report. If you have features only, you may put the pictures there.

If it was stopped, start it again: it goes on. The images lie in the folder `<OUT>.partial`, which
is renamed to OUT when all features are read. Then set DATA_ROOT in utils/dataRoot.py to it.
`about.txt` in it says how it was made, `skipped.json` which images were left out, and why.
`madeOf.json` records what it is made of; if that has changed, the script stops instead of mixing.
You may add to FEATURES.
"""
import collections
import contextlib
import glob
import hashlib
import json
import os
import sys

if __name__ == '__main__':  # find the modules, as the scripts in the project's folder do
    sys.path[0] = os.path.dirname(os.path.dirname(__file__))
    import utils  # noqa: F401 (before torch)

import numpy as np
import torch

from utils.data.captionForms import keyOf, readCaptions, stemOf
from utils.data.captionWords import MARKS, captionRecord, wordsOfCaption
from utils.data.dataFolder import (
    MODES,
    POOLED,
    featureFile,
    imageFile,
    makeFolders,
    vocabularyFile,
    writeImage,
)
from utils.data.imageFiles import DETECTIONS, checked, floats
from utils.data.photoFeatures import (
    MAKER,
    STANDARD_FILE,
    PhotoFeatures,
    applyStandard,
    featuresOfPhotos,
    makeStandard,
    photosIn,
    readStandard,
)
from utils.data.regionFeatures import KNOWN_FORMS, filesOfFeatures, readFeatures
from utils.files.errors import UserError, faultIn, foreignFile, printable
from utils.files.ownFiles import (
    PARTIAL,
    inProject,
    lockFolder,
    readJson,
    writeAtomically,
    writeJson,
    writePickle,
)
from utils.generateVocabulary import generateVocabulary
from utils.processes.progress import progressBar
from utils.scripts.endings import runScript
from utils.scripts.settings import SIZE

CAPTIONS = 'captions/'  # a folder as it was downloaded, one file of captions, or a list of them
FEATURES = 'features/'  # a file, a folder, or a list of them; photos may lie in folders within it
OUT = 'ownData'         # some 11 GB for all of COCO, 0.6 GB for Flickr8k
REGIONS = 10            # boxes of an image, for task 4: ten in the course, 36 usual elsewhere;
                        # photos always have ten
MINIMUM_COUNT = 3       # 5 is usual for COCO, which has twenty times as many captions as Flickr8k

N_FEATURES = 2048
MADE_OF = 'madeOf.json'
AT_THE_TOP = 'at the top of utils/buildCourseLayout.py'
OTHER_OUT = f'Set another OUT {AT_THE_TOP}.'


def bestRegions(features, boxes, scores, number):
    """The boxes with the highest scores, or the first ones; fewer are repeated in their order.

    Args:
        features: [K, 2048], or [2048, K] as some folders of `.npz` have it.
        boxes: [K, 4] or None.
        scores: [K] or None.
        number: R, how many boxes are wanted.

    Returns:
        features float32 [R, 2048]; boxes float32 [R, 4], or None unless they are x1 y1 x2 y2 in
        pixels.

    Raises:
        ValueError, TypeError: the features are unusable; the message says why.
    """
    features = np.asarray(features)
    if features.ndim == 2 and features.shape[1] != N_FEATURES == len(features):
        features = features.T                                              # [K, 2048]
    if features.shape[1:] != (N_FEATURES,) or len(features) == 0:
        raise ValueError(f'of the shape {list(features.shape)} instead of [K, {N_FEATURES}]')
    K = len(features)
    order = np.arange(K)
    if scores is not None:
        order = np.argsort(-np.float32(scores).reshape(K), kind='stable')
    chosen = np.resize(order, number)
    features = floats(features[chosen], [number, N_FEATURES], 'features')
    if np.shape(boxes) != (K, 4):
        return features, None
    boxes = np.float32(boxes)[chosen]                                      # [R, 4]
    in_order = (boxes[:, :2] <= boxes[:, 2:]).all()  # not so for most x y width height, nor for NaN
    in_pixels = 1 < boxes.max() < np.inf             # not so for fractions of the picture
    return features, boxes if in_order and in_pixels else None


def begin(root, madeOf, files):
    """Begins a data folder, or goes on with one.

    Args:
        root: its path.
        madeOf: dict setting → value, on which the images depend; it gets FEATURES, the files'
            sizes and times.
        files: the files of FEATURES; more may come later.

    Returns:
        the folder's lock.

    Raises:
        UserError: another process builds it, it was begun with others, or it cannot be made.
    """
    path = os.path.join(root, MADE_OF)
    stamps = {}
    for file in filter(os.path.isfile, files):
        status = os.stat(file)
        stamps[printable(file)] = f'{status.st_size} {status.st_mtime_ns}'
    with foreignFile(root, OTHER_OUT):
        os.makedirs(root, exist_ok=True)
        lock = lockFolder(root, OTHER_OUT)
        begun = readJson(path, madeOf)
        changed = [key for key in madeOf if begun.get(key) != madeOf[key]]
        before = begun.get('FEATURES', stamps)
        known = before.keys() & stamps.keys()
        if before and not known or any(before[name] != stamps[name] for name in known):
            changed.append('FEATURES')
        if changed:
            raise UserError(f'{root} was begun with other {", ".join(changed)}. Set that back, '
                            f'remove the folder, or set another OUT {AT_THE_TOP}. You may add to '
                            'FEATURES.')
        madeOf['FEATURES'] = {**before, **stamps}
        writeJson(path, madeOf)
        makeFolders(root)
        for file in glob.glob(f'{glob.escape(root)}/*/{PARTIAL}*'):
            os.remove(file)  # half written when an earlier start was killed
    return lock


def recordOf(image, features, boxes, wordToToken):
    """What an image's file holds, with features [R, 2048] and boxes [R, 4] or None.

    Raises:
        ValueError: training could not use them; the message says why.
    """
    record = {'cnn_features': features,
              **captionRecord(os.path.basename(image.name), image.captions, wordToToken)}
    if boxes is not None:
        record['boxes'] = boxes
    checked(record, list(features.shape))
    if max(map(len, record['captions'])) == 2:
        raise ValueError('no words in its captions')
    name = f'{stemOf(image.name)}.pickle'
    if name.startswith('.') or '\0' in name or len(os.fsencode(name)) > 255:  # as most systems say
        raise ValueError('a name that is hidden, too long or impossible')
    return record


def fromPhotos(paths, images, left_out, root):
    """Makes features of the photos of images that are left out so far, and links to the photos.

    The features' standard is read from the folder `root`, or made and written there.

    Args:
        paths: the photos' paths.
        images: dict key → `Image`.
        left_out: dict key → why; it gets the reasons of photos that cannot be read.

    Yields:
        (path, read), as `readFeatures` does.

    Raises:
        UserError: no photo of a training image can be read.
    """
    maker = PhotoFeatures(torch.device('cuda' if torch.cuda.is_available() else 'cpu'))
    standard = readStandard(root)
    if standard is None:
        training = {key for key in images if images[key].mode == 'train'}
        standard = makeStandard(maker, [path for path in paths if keyOf(path) in training])
        writeJson(os.path.join(root, STANDARD_FILE), standard)
    broken = {}
    paths = [path for path in paths if keyOf(path) in left_out]
    # of several photos with one name, the right folder and extension come first
    paths.sort(key=lambda path: not path.endswith(images[keyOf(path)].name))
    for path, features, boxes in featuresOfPhotos(maker, paths, broken, 'photos'):
        image = images[keyOf(path)]
        with contextlib.suppress(OSError):  # it is there, or the system allows no links
            os.symlink(path, imageFile(root, image.mode, image.name))
        yield path, lambda: (applyStandard(standard, features), boxes, None)
    left_out.update((keyOf(path), why) for path, why in broken.items() if keyOf(path) in left_out)


def report(root, about, images, left_out):
    """Prints and writes what was done: about.txt, and skipped.json (reason → file names).

    Args:
        root: path of the data folder.
        about: list of sentences, to which the numbers of images are added.
        images: dict key → `Image`.
        left_out: dict key → why.

    Raises:
        UserError: there is nothing to train or to validate on.
    """
    skipped = collections.defaultdict(list)
    for key, reason in left_out.items():
        skipped[reason].append(images[key].name)
    given, left = (collections.Counter(images[key].mode for key in keys)
                   for keys in (images, left_out))
    about += [f'{mode}: {given[mode] - left[mode]:,} of {given[mode]:,} images with captions.'
              for mode in MODES]
    about += [f'Left out, {reason}: {len(names):,}, such as {names[0]}.'
              for reason, names in skipped.items()]
    text = '\n'.join(map(printable, about))
    print(text)
    writeAtomically(os.path.join(root, 'about.txt'), f'{text}\n'.encode())
    writeJson(os.path.join(root, 'skipped.json'), skipped)
    for mode in MODES:
        if left[mode] == given[mode]:
            raise UserError(f'There are no usable features of {mode} images. Add some to FEATURES '
                            f'{AT_THE_TOP}, and start again; what is written is kept in {root}.')


def buildCourseLayout(captions, features, out, minimumCount=1, regions=REGIONS):
    """Builds the data folder `out`.

    Args:
        captions: list of files and folders, as `readCaptions` takes them.
        features: list of absolute paths of files and folders.
        out: path of a folder that does not exist.
        minimumCount: how often a word must occur in the training captions.
        regions: R, boxes per image.

    Raises:
        UserError: something is missing or unusable, or there is nothing to train or to validate on.
    """
    root = f'{out}.partial'
    if os.path.lexists(out):
        raise UserError(f'{out} exists already. Set another OUT {AT_THE_TOP}, or, to add images '
                        f'to it, rename it to {root} first.')
    kind = 'features'
    files = list(map(filesOfFeatures, features))
    if not any(files):
        kind = f'photos, by {MAKER}'
        files = list(map(photosIn, features))
    for path, found in zip(features, files):
        if not found:
            raise UserError(f'There are no photos or features at {path}; all must be photos, or '
                            f'all features. Set FEATURES {AT_THE_TOP}. {KNOWN_FORMS}')
    files = sum(files, [])
    images, form = readCaptions(*captions)
    madeOf = {'captions': hashlib.sha1(json.dumps(list(images.values())).encode()).hexdigest(),
              'MINIMUM_COUNT': minimumCount, 'REGIONS': regions}
    lock = begin(root, madeOf, files)
    vocabulary = generateVocabulary(
        [list(map(sys.intern, wordsOfCaption(caption)))  # each word once in memory
         for image in images.values() if image.mode == 'train' for caption in image.captions],
        minimumCount)
    if vocabulary['vocabulary'] == MARKS:
        raise UserError(f'The training captions have no word {minimumCount} times or more. Set '
                        f'MINIMUM_COUNT {AT_THE_TOP} lower.')
    writePickle(vocabularyFile(root), vocabulary)
    left_out = {key: 'no features' for key, image in images.items()
                if not os.path.exists(featureFile(root, image.mode, POOLED, stemOf(image.name)))}
    if kind == 'features':
        made = progressBar(readFeatures(files), kind, {})
        without = 0
    else:
        made = fromPhotos(files, images, left_out, root)
        regions = DETECTIONS
        without = sum(keyOf(path) not in images for path in files)
    for name, read in made:
        key = keyOf(name)
        without += key not in images
        if key in left_out:  # not yet written with other features
            image = images[key]
            try:
                record = recordOf(image, *bestRegions(*read(), regions), vocabulary['wordToToken'])
            except Exception as error:  # whatever broken features lead to
                left_out[key] = f'it cannot be used ({faultIn(error)})'
                continue
            writeImage(root, image.mode, stemOf(image.name), record)
            del left_out[key]

    for file in list(madeOf['FEATURES']):
        if {keyOf(file), keyOf(os.path.splitext(file)[0])} & left_out.keys():
            del madeOf['FEATURES'][file]  # what is broken may be replaced
    writeJson(os.path.join(root, MADE_OF), madeOf)
    report(root, ['Built by utils/buildCourseLayout.py.', f'Captions: {form}.',
                  f'Made of {kind}: {", ".join(features)}.',
                  f'{without:,} {kind.split(",")[0]} have no captions for training or validation '
                  'and are left out.',
                  f'Vocabulary: {len(vocabulary["tokens"]):,} tokens: marks, and words that the '
                  f'training captions have {minimumCount} times or more.'], images, left_out)
    lock.release(force=True)  # as some systems rename no folder with an open file
    with contextlib.suppress(OSError):
        os.remove(lock.lock_file)
    os.replace(root, out)
    print(printable(f'{out} is complete. Set DATA_ROOT in utils/dataRoot.py to it.'))


def main():
    isPossible, possible = SIZE
    for name, number in (('REGIONS', REGIONS), ('MINIMUM_COUNT', MINIMUM_COUNT)):
        if not isPossible(number):
            raise UserError(f'{name} {AT_THE_TOP} is {number!r}, but must be {possible}.')
    captions, features, (out,) = (
        [os.path.normpath(inProject(path))
         for path in ([paths] if isinstance(paths, str) else paths)]
        for paths in (CAPTIONS, FEATURES, OUT))
    buildCourseLayout(captions, features, out, MINIMUM_COUNT, REGIONS)


if __name__ == '__main__':
    runScript(main)
