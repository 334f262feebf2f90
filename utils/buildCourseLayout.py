"""Builds a data folder in the course's layout from photos and captions.

    python utils/buildCourseLayout.py

Set the constants below first; paths may be relative to the project's folder. Lists make one data
folder of several sources, such as Flickr8k and COCO. The forms of captions that are understood
stand at the top of utils/data/captionForms.py: COCO's, Flickr's, Karpathy's, and tables of your
own. The features of the photos are made as utils/data/photoFeatures.py says, ten regions of each.

- Each image is written twice: with its ten regions, and with the maximum over them.
- The boxes of the regions are written as well, x1 y1 x2 y2 in pixels.
- The vocabulary counts the training captions only, whereas the course also counts those for
  validation. A word with fewer than MINIMUM_COUNT occurrences becomes `UNK`.
- Where the system allows it, the folders `train2017` and `val2017` get links to the photos, for
  pages and the report.

If it was stopped, start it again: it goes on. The images lie in the folder `<OUT>.partial`, which
is renamed to OUT when all photos are read. Then set DATA_ROOT in utils/dataRoot.py to it.
`about.txt` in it says how it was made, `skipped.json` which images were left out, and why.
`madeOf.json` says of what; if captions or MINIMUM_COUNT have changed, nothing is mixed. To PHOTOS
more may be added, and photos that could not be read may be replaced.
"""
import collections
import contextlib
import glob
import hashlib
import json
import os
import sys

if __name__ == '__main__':  # find the modules, as the scripts in the project's folder do
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    import utils  # noqa: F401 (before torch)

import torch

from utils.data.captionForms import keyOf, readCaptions, stemOf
from utils.data.captionWords import captionRecord, wordsOfCaption
from utils.data.dataFolder import (
    POOLED,
    SPLITS,
    featureFolder,
    imageFile,
    makeFolders,
    vocabularyFile,
    writeImage,
)
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
from utils.files.atomic import PARTIAL, readJson, writeAtomically, writeJson, writePickle
from utils.files.errors import UserError
from utils.files.foreign import foreignFile, printable
from utils.files.project import inProject
from utils.files.runLock import lockFolder
from utils.generateVocabulary import generateVocabulary
from utils.scripts.endings import runScript

CAPTIONS = 'captions/'  # a folder as it was downloaded, one file of captions, or a list of them
PHOTOS = 'images/'      # a folder, or a list of them; photos may lie in folders within it
OUT = 'ownData'         # some 11 GB for all of COCO, half a GB for Flickr8k
MINIMUM_COUNT = 3       # 5 is usual for COCO, which has twenty times as many captions as Flickr8k

MADE_OF = 'madeOf.json'
AT_THE_TOP = 'at the top of utils/buildCourseLayout.py'
OTHER_OUT = f'Set another OUT {AT_THE_TOP}.'


def begin(root, madeOf):
    """Makes the folders of a data folder that is to be built, or to be gone on with.

    Args:
        root: its path.
        madeOf: dict setting → value, on which the images depend.

    Returns:
        the folder's lock.

    Raises:
        UserError: another process builds it, it was begun with others, or it cannot be made.
    """
    path = os.path.join(root, MADE_OF)
    with foreignFile(root, OTHER_OUT):
        os.makedirs(root, exist_ok=True)
        lock = lockFolder(root, OTHER_OUT)
        begun = readJson(path, madeOf)
        changed = [key for key in madeOf if begun.get(key) != madeOf[key]]
        if changed:
            raise UserError(f'{root} was begun with other {", ".join(changed)}. Set that back, '
                            f'remove the folder, or set another OUT {AT_THE_TOP}.')
        writeJson(path, madeOf)
        makeFolders(root)
        for file in glob.glob(os.path.join(glob.escape(root), '*', f'{PARTIAL}*')):
            os.remove(file)  # half written when an earlier start was killed
    return lock


def writeImages(root, images, photos, wordToToken):
    """Writes the files of all images that have photos but no files yet, and links to the photos.

    The folder `root` has the features' standard, or is given one.

    Args:
        root: path of the data folder.
        images: dict key → `Image`.
        photos: list of paths.
        wordToToken: dict.

    Returns:
        dict key → why, of the images that are left out.

    Raises:
        UserError: none of the photos is for training.
    """
    # of photos of one name first the one in the right folder, with the right ending
    photos = sorted((path for path in photos if keyOf(path) in images),
                    key=lambda path: not path.endswith(images[keyOf(path)].name))
    maker = PhotoFeatures(torch.device('cuda' if torch.cuda.is_available() else 'cpu'))
    standard = readStandard(root)
    if standard is None:
        standard = makeStandard(maker, [path for path in photos
                                        if images[keyOf(path)].mode == 'train'])
        writeJson(os.path.join(root, STANDARD_FILE), standard)
    left_out = {key: 'no photo' for key, image in images.items()
                if not os.path.exists(os.path.join(featureFolder(root, image.mode, POOLED),
                                                   f'{stemOf(image.name)}.pickle'))}
    photos = [path for path in photos if keyOf(path) in left_out]
    broken = {}
    for path, features, boxes in featuresOfPhotos(maker, photos, broken, 'photos'):
        key = keyOf(path)
        if key in left_out:  # not yet written by another photo
            image = images[key]
            with contextlib.suppress(OSError):  # it is there, or the system allows no links
                os.symlink(path, imageFile(root, image.mode, image.name))
            writeImage(root, image.mode, stemOf(image.name), {
                'cnn_features': applyStandard(standard, features),
                **captionRecord(os.path.basename(image.name), image.captions, wordToToken),
                'boxes': boxes})
            del left_out[key]
    left_out.update((keyOf(path), why) for path, why in broken.items() if keyOf(path) in left_out)
    return left_out


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
              for mode in SPLITS]
    about += [f'Left out, {reason}: {len(names):,}, such as {names[0]}.'
              for reason, names in skipped.items()]
    text = '\n'.join(map(printable, about)) + '\n'
    print(text, end='')
    writeAtomically(os.path.join(root, 'about.txt'), text.encode())
    writeJson(os.path.join(root, 'skipped.json'), skipped)
    for mode in SPLITS:
        if left[mode] == given[mode]:
            raise UserError(f'There are no usable photos of {mode} images. Add some to PHOTOS '
                            f'{AT_THE_TOP}, and start again; what is written is kept in {root}.')


def buildCourseLayout(captions, folders, out, minimumCount=1):
    """Builds the data folder `out`.

    Args:
        captions: list of files and folders, as `readCaptions` takes them.
        folders: list of absolute paths of folders of photos.
        out: path of a folder that does not exist.
        minimumCount: how often the training captions must have a word of the vocabulary.

    Raises:
        UserError: something is missing or unusable, or there is nothing to train or to validate on.
    """
    root = f'{out}.partial'
    if os.path.lexists(out):
        raise UserError(f'{out} exists already. Set another OUT {AT_THE_TOP}, or, to add images '
                        f'to it, rename it to {root} first.')
    photos = []
    for folder in folders:
        found = photosIn(folder)
        if not found:
            raise UserError(f'There are no photos in {folder}. Set PHOTOS {AT_THE_TOP}.')
        photos += found
    images, form = readCaptions(*captions)
    lock = begin(root, {
        'captions': hashlib.sha1(json.dumps(list(images.values())).encode()).hexdigest(),
        'MINIMUM_COUNT': minimumCount})
    vocabulary = generateVocabulary(
        [list(map(sys.intern, wordsOfCaption(caption)))  # each word once in memory
         for image in images.values() if image.mode == 'train' for caption in image.captions],
        minimumCount)
    writePickle(vocabularyFile(root), vocabulary)
    left_out = writeImages(root, images, photos, vocabulary['wordToToken'])
    without = sum(keyOf(path) not in images for path in photos)
    report(root, ['Built by utils/buildCourseLayout.py.', f'Captions: {form}.',
                  f'Made of photos, by {MAKER}: {", ".join(folders)}.',
                  f'{without:,} photos have no captions for training or validation and are left '
                  'out.',
                  f'Vocabulary: {len(vocabulary["tokens"]):,} words, those which the training '
                  f'captions have {minimumCount} times or more.'], images, left_out)
    lock.release(force=True)  # as some systems rename no folder with an open file
    with contextlib.suppress(OSError):
        os.remove(lock.lock_file)
    os.replace(root, out)
    print(printable(f'{out} is complete. Set DATA_ROOT in utils/dataRoot.py to it.'))


def main():
    captions, folders, (out,) = (
        [os.path.normpath(inProject(os.path.expanduser(path)))
         for path in ([paths] if isinstance(paths, str) else paths)]
        for paths in (CAPTIONS, PHOTOS, OUT))
    buildCourseLayout(captions, folders, out, MINIMUM_COUNT)


if __name__ == '__main__':
    runScript(main)
