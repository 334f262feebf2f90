"""Builds a data folder in the course's layout from what is public: captions, and photos or the region features of images.

    python utils/buildCourseLayout.py

Set the constants below first; paths may be relative to the project's folder. Which captions are understood stands at the top
of utils/data/captionForms.py: COCO's, Flickr's, Karpathy's, and tables of one's own. FEATURES are photos, from which features
are made as utils/data/photoFeatures.py says, or features in a form named at the top of utils/data/regionFeatures.py; those of
COCO's 2014 images serve as well, since the images and their ids are the same.

- Each image is written twice, with REGIONS boxes and with their maximum. They are those with the highest scores where the
  features come with scores, else the first ones. The folders' names stay the course's, which say ten.
- An image with fewer boxes has them over again until they are as many: unlike rows of zeros this leaves every maximum as it is,
  that over the attention model's processed features too, and attention never falls on nothing.
- Boxes are kept where they are x1 y1 x2 y2 in pixels.
- The vocabulary counts the training captions only, where the course counts those for validation too; a word that they have
  fewer than MINIMUM_COUNT times is `UNK`.
- Photos are linked to from the folders `train2017` and `val2017`, where the example pictures are looked for. Whoever has
  features alone may put the pictures there.

Started again after a stop, it goes on. The images lie in the folder `<OUT>.partial`, which becomes `OUT` when all features are
read; set DATA_ROOT in utils/dataRoot.py to it then. `about.txt` in it says how it was made, and `skipped.json` names the images
that were left out, and why.
"""
import collections
import functools
import os
import sys

if __name__ == '__main__':
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # as for the scripts in the project's folder

import numpy as np
import torch
from tqdm import tqdm

from utils.data.captionForms import readCaptions
from utils.data.captionWords import captionRecord, wordsOfCaption
from utils.data.dataFolder import IMAGE_FOLDERS, POOLED, SPLITS, UNPOOLED
from utils.data.imageFiles import DETECTIONS, shapeOfFeatures
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
from utils.data.photoFeatures import REGIONS as PHOTO_REGIONS
from utils.data.regionFeatures import findReaders, idInName, isFolderOfFeatures
from utils.files.atomic import PARTIAL, writeAtomically, writeJson, writePickle
from utils.files.errors import UserError
from utils.files.project import inProject
from utils.generateVocabulary import generateVocabulary, loadVocabulary
from utils.scripts.endings import runScript

CAPTIONS = 'captions/'           # a folder as it was downloaded, or one file of captions
FEATURES = 'features/'           # a file, a folder, or a list of them; photos may lie in folders within it
OUT = 'ownData'                  # some 11 GB for all of COCO, half a GB for Flickr8k
REGIONS = 10                     # of an image, for task 4; the course's and those of photos are ten, 36 are usual elsewhere
MINIMUM_COUNT = 3                # 5 is usual for COCO, whose captions are twenty times as many as Flickr8k's

N_FEATURES = 2048
STUBS = UNPOOLED, POOLED  # the boxes, their maximum


def bestRegions(features, boxes, scores, number):
    """As many boxes as asked for, those with the highest scores, or the first ones; fewer are repeated in their order.

    Args:
        features: [K, 2048], or [2048, K] as some folders of `.npz` have it.
        boxes: [K, 4] or None.
        scores: [K], class probabilities [K, C] with the background first, or None.
        number: R, of boxes.

    Returns:
        features float32 [R, 2048], boxes float32 [R, 4] or None; K.

    Raises:
        ValueError: the features are unusable; the message says why.
    """
    features = np.asarray(features, dtype=np.float32)
    if features.ndim == 2 and features.shape[1] != N_FEATURES == features.shape[0]:
        features = features.T                                                    # [K, 2048]
    if features.ndim != 2 or features.shape[1] != N_FEATURES:
        what = f'of {features.shape[1]} numbers a box' if features.ndim == 2 else f'of {features.ndim} dimensions'
        raise ValueError(f'features {what} instead of [K, {N_FEATURES}]')
    K = len(features)
    if K == 0:
        raise ValueError('no boxes')
    order = np.arange(K)
    if scores is not None:
        scores = np.asarray(scores, dtype=np.float32).reshape(len(scores), -1)
        if len(scores) != K:
            raise ValueError('another number of scores than of boxes')
        best = scores[:, 1:].max(1) if scores.shape[1] > 1 else scores[:, 0]     # [K]
        order = np.argsort(-best, kind='stable')
    chosen = np.resize(order[:number], number)
    features = features[chosen]                                                  # [R, 2048]
    if not np.isfinite(features).all():
        raise ValueError('features that are not finite')
    return features, boxesInPixels(boxes, chosen, K), K


def boxesInPixels(boxes, chosen, K):
    """The chosen ones of K boxes, float32 [R, 4], or None where they are not x1 y1 x2 y2 in pixels."""
    boxes = np.asarray([] if boxes is None else boxes, dtype=np.float32)
    if boxes.shape != (K, 4):
        return None
    boxes = boxes[chosen]                                                        # [R, 4]
    in_order = (boxes[:, :2] <= boxes[:, 2:]).all()  # not so for most boxes x y width height, nor for NaN
    in_pixels = 1 < boxes.max() < np.inf             # not so for parts of the picture
    return boxes if in_order and in_pixels else None


def writeVocabulary(root, captions, minimumCount):
    """Writes the vocabulary of a list of captions into the data folder `root`, or checks the one that is there.

    Returns:
        its `wordToToken`.

    Raises:
        UserError: the folder's vocabulary is that of other captions.
    """
    words = (map(sys.intern, wordsOfCaption(caption)) for caption in captions)  # each word once in memory
    vocabulary = generateVocabulary(list(map(list, words)), minimumCount)
    path = os.path.join(root, 'vocabulary', 'vocabulary.pickle')
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        writePickle(path, vocabulary)
    elif loadVocabulary(root)['vocabulary'] != vocabulary['vocabulary']:
        raise UserError(f'{root} was begun with other captions or another MINIMUM_COUNT. Remove it, or set another OUT at the '
                        'top of utils/buildCourseLayout.py.')
    return vocabulary['wordToToken']


def featureFolders(root, mode):
    """The folders of unpooled and pooled features, made where missing, freed of what a kill left half written."""
    folders = [os.path.join(root, SPLITS[mode] + stub) for stub in STUBS]
    for folder in folders:
        os.makedirs(folder, exist_ok=True)
        for name in os.listdir(folder):
            if name.startswith(PARTIAL):
                os.remove(os.path.join(folder, name))
    return folders


def checkRegions(folders, regions, fromPhotos):
    """Checks that images may have so many regions.

    Raises:
        UserError: features of photos are of other regions, or images that an earlier start wrote have others.
    """
    if fromPhotos and regions != len(PHOTO_REGIONS):
        raise UserError(f'Features of photos are of {len(PHOTO_REGIONS)} regions. Set REGIONS at the top of '
                        'utils/buildCourseLayout.py to that.')
    for unpooled, _ in folders.values():
        there = [os.path.join(unpooled, name) for name in os.listdir(unpooled)]
        if shapeOfFeatures(there, [regions, N_FEATURES])[0] != regions:
            raise UserError(f'{os.path.dirname(unpooled)} was begun with another number of REGIONS. Remove it, or set another OUT '
                            'at the top of utils/buildCourseLayout.py.')


def keyFinder(images):
    """A function from the names of images, or the paths of photos, to the keys of `images`; to None for all others."""
    stems = {os.path.splitext(image.name)[0]: key for key, image in images.items()}

    def keyOf(name):
        name = os.path.basename(name)
        id = idInName(name)
        return stems.get(name, stems.get(os.path.splitext(name)[0], id if id in images else None))

    return keyOf


def findLeftOut(images, folders):
    """Key → why the image is left out so far, for all images that have not been written: they have no features."""
    there = {mode: set(os.listdir(pooled)) for mode, (_, pooled) in folders.items()}  # the second of the two files
    return {key: 'no features' for key, image in images.items() if pickleName(image) not in there[image.mode]}


def writeImages(readers, images, keyOf, left_out, folders, wordToToken, regions):
    """Writes the images that are not there yet, two files each.

    Args:
        readers: as from `findReaders`.
        images: dict key → Image.
        keyOf: as from `keyFinder`.
        left_out: as from `findLeftOut`; of those that cannot be written the reason is changed, the others are taken out.
        folders: dict mode → folders as from `featureFolders`.
        wordToToken: dict.
        regions: R, of each image.

    Returns:
        counts of what else was met, a Counter of phrases.
    """
    met, notes = set(), collections.Counter({'images that an earlier start had written': len(images) - len(left_out)})
    with tqdm(total=len(images), unit='image', disable=None, leave=False) as progress:
        for path, reader in readers:
            progress.set_description(os.path.basename(os.path.normpath(path)))
            for name, read in reader:
                key = keyOf(name)
                if key is None:
                    notes['features of no image that has captions'] += 1
                    continue
                progress.update(key not in met)
                notes['features given again, the first usable ones taken'] += key in met
                met.add(key)
                if key not in left_out:
                    continue
                try:
                    features, boxes, K = bestRegions(*read(), regions)
                except ValueError as error:
                    left_out[key] = str(error)
                except Exception as error:  # whatever a broken file leads to
                    left_out[key] = f'features that cannot be read ({type(error).__name__})'
                else:
                    writeImage(folders[images[key].mode], images[key], features, boxes, wordToToken)
                    del left_out[key]
                    notes[f'images with fewer than {regions} boxes, repeated'] += K < regions
                    notes['images without boxes in pixels'] += boxes is None
    return notes


def findPhotos(paths):
    """The photos in those paths that are folders of photos and not of features: dict path → list of paths."""
    folders = [path for path in paths if os.path.isdir(path) and not isFolderOfFeatures(path)]
    return {path: photos for path in folders for photos in [photosIn(path)] if photos}


def standardOf(root, maker, photos, images, keyOf):
    """The standard of a data folder, made from those of the photos that are for training where the folder has none yet."""
    standard = readStandard(root)
    if standard is None:
        training = [photo for photo in photos if keyOf(photo) is not None and images[keyOf(photo)].mode == 'train']
        if not training:
            raise UserError(f'None of the {len(photos):,} photos, such as {photos[0]}, has the name of a training photo that there '
                            f'are captions of, such as {next(image.name for image in images.values() if image.mode == "train")}. '
                            'Set FEATURES and CAPTIONS at the top of utils/buildCourseLayout.py to what belongs together.')
        standard = makeStandard(maker, training)
        writeJson(os.path.join(root, STANDARD_FILE), standard)
    return standard


def readPhotos(photos, isWanted, maker, standard):
    """A reader, as those that `findReaders` returns, of photos; features are made of the wanted ones alone."""
    wanted = [photo for photo in photos if isWanted(photo)]
    yield from ((photo, None) for photo in sorted(set(photos) - set(wanted)))
    for photo, features, boxes in featuresOfPhotos(maker, wanted):
        yield photo, functools.partial(_detections, standard, features, boxes)


def _detections(standard, features, boxes):
    if boxes is None:
        raise features  # the fault that it has instead
    return applyStandard(standard, features), boxes, None


def linkPhotos(root, photos, images, keyOf, left_out):
    """Links to the photos of the written images from the folders where pages look for them.

    Returns:
        how many could not be linked to.
    """
    failed = 0
    for folder in IMAGE_FOLDERS.values():
        os.makedirs(os.path.join(root, folder), exist_ok=True)
    for photo in photos:
        key = keyOf(photo)
        if key is not None and key not in left_out:
            link = os.path.join(root, IMAGE_FOLDERS[images[key].mode], images[key].name)
            if not os.path.lexists(link):
                try:
                    os.symlink(os.path.abspath(photo), link)
                except OSError:  # not every system lets everybody link
                    failed += 1
    return failed


def pickleName(image):
    """The name of an image's files."""
    return os.path.splitext(image.name)[0] + '.pickle'


def writeImage(folders, image, features, boxes, wordToToken):
    """Writes an image's two files: features [R, 2048], boxes [R, 4] or None."""
    record = captionRecord(image.name, image.captions, wordToToken)
    if boxes is not None:
        record['boxes'] = boxes
    for folder, values in zip(folders, (features, features.max(0))):
        writePickle(os.path.join(folder, pickleName(image)), {'cnn_features': values, **record})


def report(root, images, left_out, notes):
    """Prints what was done, and writes `skipped.json`: mode → reason → file names."""
    skipped = {mode: collections.defaultdict(list) for mode in SPLITS}
    for key, reason in left_out.items():
        skipped[images[key].mode][reason].append(images[key].name)
    writeJson(os.path.join(root, 'skipped.json'), skipped)
    for mode, reasons in skipped.items():
        print(f'{mode}: {describeNumber(images, left_out, mode)} are there')
        for reason, names in sorted(reasons.items(), key=lambda item: -len(item[1])):
            print(f'    left out, {reason}: {len(names):,}, such as {names[0]}')
    for note, number in notes.items():
        if number:
            print(f'{note}: {number:,}')


def describeNumber(images, left_out, mode):
    """How many images of 'train' or 'val' are not left out, in words."""
    keys = [key for key, image in images.items() if image.mode == mode]
    return f'{sum(key not in left_out for key in keys):,} of {len(keys):,} images with captions'


def buildCourseLayout(captions, features, out, minimumCount=1, regions=DETECTIONS):
    """Builds the data folder `out`.

    Args:
        captions: a file or a folder, as `readCaptions` takes it.
        features: list of files and folders.
        out: path of a folder that does not exist.
        minimumCount: how often the training captions must have a word for it to be one of the vocabulary's.
        regions: R, of each image.

    Raises:
        UserError: something is missing or unusable, or there is nothing to train or to validate on.
    """
    if os.path.exists(out):
        raise UserError(f'{out} exists already, and is left as it is. Set another OUT at the top of '
                        f'utils/buildCourseLayout.py, or, to add images to it, rename it to {out}.partial first.')
    photos = findPhotos(features)
    readers = findReaders([path for path in features if path not in photos])
    images, form = readCaptions(captions)
    keyOf, partial_out = keyFinder(images), f'{out}.partial'
    wordToToken = writeVocabulary(partial_out, [caption for image in images.values() if image.mode == 'train'
                                                for caption in image.captions], minimumCount)
    folders = {mode: featureFolders(partial_out, mode) for mode in SPLITS}
    left_out = findLeftOut(images, folders)
    checkRegions(folders, regions, bool(photos))
    all_photos = [photo for found in photos.values() for photo in found]
    if photos:
        maker = PhotoFeatures(torch.device('cuda' if torch.cuda.is_available() else 'cpu'))
        standard = standardOf(partial_out, maker, all_photos, images, keyOf)
        readers += [(path, readPhotos(found, lambda photo: keyOf(photo) in left_out, maker, standard))
                    for path, found in photos.items()]
    notes = writeImages(readers, images, keyOf, left_out, folders, wordToToken, regions)
    notes['photos that this system does not let you link to, which pages are without'] = linkPhotos(
        partial_out, all_photos, images, keyOf, left_out)
    report(partial_out, images, left_out, notes)
    for mode in SPLITS:
        if all(key in left_out for key, image in images.items() if image.mode == mode):
            raise UserError(f'There are no usable features of {mode} images. Add some to FEATURES at the top of '
                            f'utils/buildCourseLayout.py, and start again; what is written is kept in {partial_out}.')
    about = ['Built by utils/buildCourseLayout.py.', f'Captions: {form}.', f'Features: {", ".join(features)}.',
             *[f'Made of photos: {MAKER}; standardised by {STANDARD_FILE}.'] * bool(photos),
             f'Vocabulary: {len(wordToToken):,} words, which the training captions have {minimumCount} times or more.',
             *[f'{SPLITS[mode]}: {describeNumber(images, left_out, mode)}.' for mode in SPLITS]]
    writeAtomically(os.path.join(partial_out, 'about.txt'), ('\n'.join(about) + '\n').encode())
    os.replace(partial_out, out)
    print(f'{out} is complete. Set DATA_ROOT in utils/dataRoot.py to it.')


def main():
    def path(name):
        return inProject(os.path.expanduser(name))

    features = [FEATURES] if isinstance(FEATURES, str) else FEATURES
    buildCourseLayout(path(CAPTIONS), list(map(path, features)), os.path.normpath(path(OUT)), MINIMUM_COUNT, REGIONS)


if __name__ == '__main__':
    runScript(main)
