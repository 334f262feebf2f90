"""Builds a data folder in the course's layout from captions, and photos or features of regions.

    python utils/buildCourseLayout.py

Set the constants below first; paths may be relative to the project's folder. The forms of captions
that are understood stand at the top of utils/data/captionForms.py: COCO's, Flickr's, Karpathy's,
and tables of your own. FEATURES are photos, of which features are made as
utils/data/photoFeatures.py says, or features in a form named at the top of
utils/data/regionFeatures.py. Those of COCO's 2014 images serve as well: the images and their ids
are the same.

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
`about.txt` in it says how it was made, `skipped.json` which images were left out, and why;
`madeOf.json` is compared when it goes on.
"""
import collections
import contextlib
import hashlib
import json
import os
import sys

if __name__ == '__main__':  # find the modules, as the scripts in the project's folder do
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import numpy as np
import torch

from utils.data.captionForms import keyOf, readCaptions, stemOf
from utils.data.captionWords import captionRecord, wordsOfCaption
from utils.data.dataFolder import IMAGE_FOLDERS, POOLED, SPLITS, UNPOOLED, imageFile
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
from utils.files.atomic import PARTIAL, readJson, writeAtomically, writeJson, writePickle
from utils.files.errors import UserError
from utils.files.foreign import faultIn
from utils.files.project import inProject
from utils.generateVocabulary import generateVocabulary
from utils.processes.progress import progressBar
from utils.scripts.endings import runScript

CAPTIONS = 'captions/'  # a folder as it was downloaded, or one file of captions
FEATURES = 'features/'  # a file, a folder, or a list of them; photos may lie in folders within it
OUT = 'ownData'         # some 11 GB for all of COCO, half a GB for Flickr8k
REGIONS = 10            # boxes of an image, for task 4: ten in the course, 36 usual elsewhere;
                        # photos always have ten
MINIMUM_COUNT = 3       # 5 is usual for COCO, which has twenty times as many captions as Flickr8k

N_FEATURES = 2048
AT_THE_TOP = 'at the top of utils/buildCourseLayout.py'


def bestRegions(features, boxes, scores, number):
    """The boxes with the highest scores, or the first ones; fewer are repeated in their order.

    Args:
        features: [K, 2048], or [2048, K] as some folders of `.npz` have it.
        boxes: [K, 4] or None.
        scores: [K], class probabilities [K, C] with the background first, or None.
        number: R, how many boxes are wanted.

    Returns:
        features float32 [R, 2048]; boxes float32 [R, 4], or None unless they are x1 y1 x2 y2 in
        pixels.

    Raises:
        ValueError: the features are unusable; the message says why.
    """
    features = np.asarray(features, dtype=np.float32)
    if features.ndim == 2 and features.shape[1] != N_FEATURES == len(features):
        features = features.T                                              # [K, 2048]
    if features.shape[1:] != (N_FEATURES,) or len(features) == 0:
        raise ValueError(f'of the shape {list(features.shape)} instead of [K, {N_FEATURES}]')
    K = len(features)
    order = np.arange(K)
    if scores is not None:
        scores = np.asarray(scores, dtype=np.float32).reshape(K, -1)
        if scores.shape[1] > 1:
            scores = scores[:, 1:]
        order = np.argsort(-scores.max(1), kind='stable')
    chosen = np.resize(order, number)
    features = features[chosen]                                            # [R, 2048]
    if not np.isfinite(features).all():
        raise ValueError('not finite')
    if np.shape(boxes) != (K, 4):
        return features, None
    boxes = np.asarray(boxes, dtype=np.float32)[chosen]                    # [R, 4]
    in_order = (boxes[:, :2] <= boxes[:, 2:]).all()  # not so for most x y width height, nor for NaN
    in_pixels = 1 < boxes.max() < np.inf             # not so for fractions of the picture
    return features, boxes if in_order and in_pixels else None


def photosAmong(paths):
    """The photos in folders of photos; an empty list where there are features instead.

    Raises:
        UserError: a path does not exist or holds neither.
    """
    are_features = any(map(filesOfFeatures, paths))
    photos = []
    for path in paths:
        found = filesOfFeatures(path) if are_features else photosIn(path)
        if not found:
            kind = 'features' if are_features else 'photos or features'
            raise UserError(f'There are no {kind} at {path}. Set FEATURES {AT_THE_TOP}. '
                            f'{KNOWN_FORMS}')
        photos += found
    return [] if are_features else photos


def begin(root, madeOf):
    """Makes the folders of a data folder that is to be built, or to be gone on with.

    Args:
        root: its path.
        madeOf: dict setting → value, on which the files depend.

    Raises:
        UserError: it was begun with other settings.
    """
    path = os.path.join(root, 'madeOf.json')
    if os.path.isdir(root) and readJson(path, None) != madeOf:
        raise UserError(f'{root} was begun with other {", ".join(madeOf)}. Remove it, or set '
                        f'another OUT {AT_THE_TOP}.')
    names = [split + stub for split in SPLITS.values() for stub in (UNPOOLED, POOLED)]
    for name in ['vocabulary', *IMAGE_FOLDERS.values(), *names]:
        folder = os.path.join(root, name)
        os.makedirs(folder, exist_ok=True)
        for file in os.listdir(folder):
            if file.startswith(PARTIAL):  # half written when an earlier start was killed
                os.remove(os.path.join(folder, file))
    writeJson(path, madeOf)


def imageFiles(root, image):
    """The paths of an image's unpooled and pooled features."""
    return [os.path.join(root, SPLITS[image.mode] + stub, f'{stemOf(image.name)}.pickle')
            for stub in (UNPOOLED, POOLED)]


def writeImage(root, image, features, boxes, wordToToken):
    """Writes an image's two files: features [R, 2048], boxes [R, 4] or None."""
    record = captionRecord(image.name, image.captions, wordToToken)
    if boxes is not None:
        record['boxes'] = boxes
    for path, values in zip(imageFiles(root, image), (features, features.max(0))):
        writePickle(path, {'cnn_features': values, **record})


def fromFeatures(paths, images, left_out, broken, regions):
    """Reads the features of the images that are left out so far.

    Args:
        paths: files and folders of features.
        images: dict key → `Image`.
        left_out: dict with the keys of the images to be read.
        broken: dict name → why, to which the features are added that cannot be used.
        regions: R, boxes of each image.

    Yields:
        (name, features [R, 2048], boxes [R, 4] or None) of each of the others.
    """
    for path in paths:
        found = readFeatures(path)
        for name, read in progressBar(found, os.path.basename(path), {'inNotebook': False}):
            key = keyOf(name)
            if key in left_out:
                try:
                    features, boxes = bestRegions(*read(), regions)
                except Exception as error:
                    broken[name] = f'features that cannot be used ({faultIn(error)})'
                else:
                    yield name, features, boxes
            elif key not in images:
                broken[name] = 'no captions'


def fromPhotos(paths, images, left_out, broken, root):
    """Makes features of photos, as `fromFeatures` reads them, and links to the photos.

    The folder `root` has the features' standard, or is given one.

    Raises:
        UserError: none of the photos is for training.
    """
    maker = PhotoFeatures(torch.device('cuda' if torch.cuda.is_available() else 'cpu'))
    standard = readStandard(root)
    if standard is None:
        training = {key for key, image in images.items() if image.mode == 'train'}
        standard = makeStandard(maker, [path for path in paths if keyOf(path) in training])
        writeJson(os.path.join(root, STANDARD_FILE), standard)
    broken.update({path: 'no captions' for path in paths if keyOf(path) not in images})
    paths = [path for path in paths if keyOf(path) in left_out]
    for path, features, boxes in featuresOfPhotos(maker, paths, broken, 'photos'):
        image = images[keyOf(path)]
        with contextlib.suppress(OSError):  # it is there, or the system allows no links
            os.symlink(os.path.abspath(path), imageFile(root, image.mode, image.name))
        yield path, np.ascontiguousarray(applyStandard(standard, features)), boxes


def report(root, about, images, left_out):
    """Prints and writes what was done: about.txt, and skipped.json (reason → file names).

    Args:
        root: path of the data folder.
        about: list of sentences, to which the numbers are added.
        images: dict key → `Image`.
        left_out: dict key → why.

    Raises:
        UserError: there is nothing to train or to validate on.
    """
    given = collections.Counter(image.mode for image in images.values())
    left = collections.Counter(images[key].mode for key in left_out)
    about += [f'{mode}: {given[mode] - left[mode]:,} of {given[mode]:,} images with captions.'
              for mode in SPLITS]
    skipped = collections.defaultdict(list)
    for key, reason in left_out.items():
        skipped[reason].append(images[key].name)
    about += [f'Left out, {reason}: {len(names):,}, such as {names[0]}.'
              for reason, names in skipped.items()]
    text = '\n'.join(about) + '\n'
    print(text, end='')
    writeAtomically(os.path.join(root, 'about.txt'), text.encode('utf-8', 'replace'))
    writeJson(os.path.join(root, 'skipped.json'), skipped)
    for mode in SPLITS:
        if left[mode] == given[mode]:
            raise UserError(f'There are no usable features of {mode} images. Add some to FEATURES '
                            f'{AT_THE_TOP}, and start again; what is written is kept in {root}.')


def buildCourseLayout(captions, features, out, minimumCount=1, regions=REGIONS):
    """Builds the data folder `out`.

    Args:
        captions: a file or a folder, as `readCaptions` takes it.
        features: list of files and folders.
        out: path of a folder that does not exist.
        minimumCount: how often the training captions must have a word of the vocabulary.
        regions: R, boxes of each image.

    Raises:
        UserError: something is missing or unusable, or there is nothing to train or to validate on.
    """
    if os.path.exists(out):
        raise UserError(f'{out} exists already. Set another OUT {AT_THE_TOP}, or, to add images '
                        f'to it, rename it to {out}.partial first.')
    photos = photosAmong(features)
    images, form = readCaptions(captions)
    root, kind = f'{out}.partial', 'features'
    if photos:
        kind = f'photos, by {MAKER}'
    hashed = hashlib.sha1(json.dumps(list(images.values())).encode()).hexdigest()
    begin(root, {'captions': hashed, 'kind of FEATURES': kind, 'MINIMUM_COUNT': minimumCount,
                 'REGIONS': regions})
    words = [list(map(sys.intern, wordsOfCaption(caption)))  # each word once in memory
             for image in images.values() if image.mode == 'train' for caption in image.captions]
    vocabulary = generateVocabulary(words, minimumCount)
    writePickle(os.path.join(root, 'vocabulary', 'vocabulary.pickle'), vocabulary)
    wordToToken = vocabulary['wordToToken']
    left_out = {key: 'no features' for key, image in images.items()
                if not os.path.exists(imageFiles(root, image)[1])}  # the second one written
    broken = {}
    if photos:
        made = fromPhotos(photos, images, left_out, broken, root)
    else:
        made = fromFeatures(features, images, left_out, broken, regions)
    for name, values, boxes in made:
        key = keyOf(name)
        if key in left_out:  # not yet written with other features
            writeImage(root, images[key], values, boxes, wordToToken)
            del left_out[key]
    left_out.update((keyOf(name), why) for name, why in broken.items() if keyOf(name) in left_out)
    without = sum(keyOf(name) not in images for name in broken)
    report(root, ['Built by utils/buildCourseLayout.py.', f'Captions: {form}.',
                  f'Made of {kind}: {", ".join(features)}.',
                  f'{without:,} of them have no captions and are left out.',
                  f'Vocabulary: {len(wordToToken):,} words, those which the training captions have '
                  f'{minimumCount} times or more.'], images, left_out)
    os.replace(root, out)
    print(f'{out} is complete. Set DATA_ROOT in utils/dataRoot.py to it.')


def main():
    features = [FEATURES] if isinstance(FEATURES, str) else FEATURES
    captions, out, *features = [inProject(os.path.expanduser(path))
                                for path in (CAPTIONS, OUT, *features)]
    buildCourseLayout(captions, features, os.path.normpath(out), MINIMUM_COUNT, REGIONS)


if __name__ == '__main__':
    runScript(main)
