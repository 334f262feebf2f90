"""Builds a data folder in the course's layout from what is public: COCO's captions, and region features of its images.

    python utils/buildCourseLayout.py

Set the three constants below first; paths may be relative to the project's folder. The captions are those of
https://cocodataset.org (2017 Train/Val annotations). Which forms of features are understood stands at the top of
utils/data/regionFeatures.py; features of 2014's images serve as well, since the images and their ids are the same.

- Each image is written twice, with ten boxes and with their maximum. The ten are those with the highest scores where the
  features come with scores, else the first ten.
- An image with fewer boxes has them over again until they are ten: unlike rows of zeros this leaves every maximum as it is,
  that over the attention model's processed features too, and attention never falls on nothing.
- Boxes are kept where they are x1 y1 x2 y2 in pixels.
- The vocabulary counts the training captions only, where the course counts those for validation too; a word that only
  validation captions have is `UNK`.

Started again after a stop, it goes on. The images lie in the folder `<OUT>.partial`, which becomes `OUT` when all features are
read; set DATA_ROOT in utils/dataRoot.py to it then. `skipped.json` in it names the images that were left out, and why. The
pictures, needed for the example pictures alone, belong into its folders `train2017` and `val2017`.
"""
import collections
import contextlib
import io
import os
import sys

if __name__ == '__main__':
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # as for the scripts in the project's folder

import numpy as np
from pycocotools.coco import COCO
from tqdm import tqdm

from utils.data.dataFolder import SPLITS
from utils.data.regionFeatures import findReaders, idInName
from utils.files.atomic import PARTIAL, writeJson, writePickle
from utils.files.errors import UserError
from utils.files.project import inProject
from utils.generateVocabulary import captionRecord, generateVocabulary, loadVocabulary, wordsOfCaption
from utils.scripts.endings import runScript

ANNOTATIONS = {'train': 'annotations/captions_train2017.json', 'val': 'annotations/captions_val2017.json'}
FEATURES = 'features/'           # a file, a folder, or a list of them
OUT = 'ownData'                  # some 11 GB for all of COCO

N_BOXES, N_FEATURES = 10, 2048
STUBS = ('detectron2_lim10features', 'detectron2_lim10maxfeatures')  # ten boxes, their maximum
SET_ANNOTATIONS = 'Set ANNOTATIONS at the top of utils/buildCourseLayout.py to COCO\'s captions files.'

Image = collections.namedtuple('Image', 'mode name captions')  # 'train' or 'val', file name, list of str


def readCaptions(path):
    """The images of a COCO captions file that have captions: dict id → (file name, list of captions).

    Raises:
        UserError: the file is missing, or is no captions file.
    """
    if not os.path.exists(path):
        raise UserError(f'The captions file {path} does not exist. {SET_ANNOTATIONS}')
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress
            coco = COCO(path)
        return {id: (image['file_name'], [str(annotation['caption']) for annotation in coco.imgToAnns[id]])
                for id, image in coco.imgs.items() if coco.imgToAnns[id]}
    except Exception as error:
        raise UserError(f'{path} is no captions file of COCO: {type(error).__name__}: {error}. {SET_ANNOTATIONS}') from error


def tenBest(features, boxes, scores):
    """The ten boxes with the highest scores, or the first ten; fewer than ten are repeated in their order.

    Args:
        features: [K, 2048], or [2048, K] as some folders of `.npz` have it.
        boxes: [K, 4] or None.
        scores: [K], class probabilities [K, C] with the background first, or None.

    Returns:
        features float32 [10, 2048], boxes float32 [10, 4] or None; K.

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
    chosen = np.resize(order[:N_BOXES], N_BOXES)
    features = features[chosen]                                                  # [10, 2048]
    if not np.isfinite(features).all():
        raise ValueError('features that are not finite')
    return features, boxesInPixels(boxes, chosen, K), K


def boxesInPixels(boxes, chosen, K):
    """The chosen ones of K boxes, float32 [10, 4], or None where they are not x1 y1 x2 y2 in pixels."""
    boxes = np.asarray([] if boxes is None else boxes, dtype=np.float32)
    if boxes.shape != (K, 4):
        return None
    boxes = boxes[chosen]                                                        # [10, 4]
    in_order = (boxes[:, :2] <= boxes[:, 2:]).all()  # not so for most boxes x y width height, nor for NaN
    in_pixels = 1 < boxes.max() < np.inf             # not so for parts of the picture
    return boxes if in_order and in_pixels else None


def writeVocabulary(root, captions):
    """Writes the vocabulary of a list of captions into the data folder `root`, or checks the one that is there.

    Returns:
        its `wordToToken`.

    Raises:
        UserError: the folder's vocabulary is that of other captions.
    """
    words = (map(sys.intern, wordsOfCaption(caption)) for caption in captions)  # each word once in memory
    vocabulary = generateVocabulary(list(map(list, words)))
    path = os.path.join(root, 'vocabulary', 'vocabulary.pickle')
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        writePickle(path, vocabulary)
    elif loadVocabulary(root)['vocabulary'] != vocabulary['vocabulary']:
        raise UserError(f'{root} was begun with other captions. Remove it, or set another OUT at the top of '
                        'utils/buildCourseLayout.py.')
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


def writeImages(readers, images, folders, wordToToken):
    """Writes the images that are not there yet, two files each.

    Args:
        readers: as from `findReaders`.
        images: dict id → Image.
        folders: dict mode → folders as from `featureFolders`.
        wordToToken: dict.

    Returns:
        dict id → why the image was left out, for all that are; counts of what else was met, a Counter of phrases.
    """
    there = {mode: set(os.listdir(pooled)) for mode, (_, pooled) in folders.items()}  # the second of the two files
    left_out = {id: 'no features' for id, image in images.items() if pickleName(image) not in there[image.mode]}
    met, notes = set(), collections.Counter({'images that an earlier start had written': len(images) - len(left_out)})
    with tqdm(total=len(images), unit='image', disable=None, leave=False) as progress:
        for path, reader in readers:
            progress.set_description(os.path.basename(os.path.normpath(path)))
            for name, read in reader:
                id = idInName(name)
                if id not in images:
                    notes['features without an image id' if id is None else 'features of images without captions'] += 1
                    continue
                progress.update(id not in met)
                notes['features given again, the first usable ones taken'] += id in met
                met.add(id)
                if id not in left_out:
                    continue
                try:
                    features, boxes, K = tenBest(*read())
                except ValueError as error:
                    left_out[id] = str(error)
                except Exception as error:  # whatever a broken file leads to
                    left_out[id] = f'features that cannot be read ({type(error).__name__})'
                else:
                    writeImage(folders[images[id].mode], images[id], features, boxes, wordToToken)
                    del left_out[id]
                    notes[f'images with fewer than {N_BOXES} boxes, repeated'] += K < N_BOXES
                    notes['images without boxes in pixels'] += boxes is None
    return left_out, notes


def pickleName(image):
    """The name of an image's files."""
    return os.path.splitext(image.name)[0] + '.pickle'


def writeImage(folders, image, features, boxes, wordToToken):
    """Writes an image's two files: features [10, 2048], boxes [10, 4] or None."""
    record = captionRecord(image.name, image.captions, wordToToken)
    if boxes is not None:
        record['boxes'] = boxes
    for folder, values in zip(folders, (features, features.max(0))):
        writePickle(os.path.join(folder, pickleName(image)), {'cnn_features': values, **record})


def report(root, images, left_out, notes):
    """Prints what was done, and writes `skipped.json`: mode → reason → file names."""
    skipped = {mode: collections.defaultdict(list) for mode in SPLITS}
    for id, reason in left_out.items():
        skipped[images[id].mode][reason].append(images[id].name)
    writeJson(os.path.join(root, 'skipped.json'), skipped)
    for mode, reasons in skipped.items():
        number = sum(image.mode == mode for image in images.values())
        print(f'{mode}: {number - sum(map(len, reasons.values())):,} of {number:,} images with captions are there')
        for reason, names in sorted(reasons.items(), key=lambda item: -len(item[1])):
            print(f'    left out, {reason}: {len(names):,}, such as {names[0]}')
    for note, number in notes.items():
        if number:
            print(f'{note}: {number:,}')


def buildCourseLayout(annotations, features, out):
    """Builds the data folder `out`.

    Args:
        annotations: dict of the captions files of 'train' and 'val'.
        features: list of files and folders.
        out: path of a folder that does not exist.

    Raises:
        UserError: something is missing or unusable, or there is nothing to train or to validate on.
    """
    if os.path.exists(out):
        raise UserError(f'{out} exists already, and is left as it is. Set another OUT at the top of '
                        f'utils/buildCourseLayout.py, or, to add images to it, rename it to {out}.partial first.')
    readers = findReaders(features)
    images = {}
    for mode in SPLITS:
        group = {id: Image(mode, *image) for id, image in readCaptions(annotations[mode]).items()}
        if images.keys() & group.keys():
            raise UserError(f'The captions files for training and validation hold some of the same images. {SET_ANNOTATIONS}')
        images.update(group)
    partial_out = f'{out}.partial'
    wordToToken = writeVocabulary(partial_out, [caption for image in images.values() if image.mode == 'train'
                                                for caption in image.captions])
    folders = {mode: featureFolders(partial_out, mode) for mode in SPLITS}
    left_out, notes = writeImages(readers, images, folders, wordToToken)
    report(partial_out, images, left_out, notes)
    for mode in SPLITS:
        if all(id in left_out for id, image in images.items() if image.mode == mode):
            raise UserError(f'There are no usable features of {mode} images. Add some to FEATURES at the top of '
                            f'utils/buildCourseLayout.py, and start again; what is written is kept in {partial_out}.')
    os.replace(partial_out, out)
    print(f'{out} is complete. Set DATA_ROOT in utils/dataRoot.py to it.')


def main():
    def path(name):
        return inProject(os.path.expanduser(name))

    features = [FEATURES] if isinstance(FEATURES, str) else FEATURES
    buildCourseLayout({mode: path(name) for mode, name in ANNOTATIONS.items()}, list(map(path, features)),
                      os.path.normpath(path(OUT)))


if __name__ == '__main__':
    runScript(main)
