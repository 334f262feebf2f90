"""The data folder: that of utils/dataRoot.py, the university's, or the built-in demo data."""
import hashlib
import os
import sys

from utils.files.errors import UserError
from utils.files.ownFiles import inProject, writePickle

UNIVERSITY_ROOT = '/itf-fi-ml/shared/IN5400/dataforall/mandatory2/data/coco/'
DEMO_ROOT = inProject('demoData')
POOLED, UNPOOLED = 'detectron2_lim10maxfeatures', 'detectron2_lim10features'
MODES = {'train': 'training', 'val': 'validation'}  # in words
SET_ROOT = ('Set DATA_ROOT in utils/dataRoot.py to the folder that holds "vocabulary" and the '
            'feature folders; utils/buildCourseLayout.py makes one from captions and photos.')


def dataDir():
    """The data folder's path, ending in a separator; it is not looked into.

    If utils/dataRoot.py is wrong, a sentence ends the script: scripts ask here before `runScript`.
    """
    default = UNIVERSITY_ROOT if os.path.isdir(UNIVERSITY_ROOT) else DEMO_ROOT
    try:
        from utils.dataRoot import DATA_ROOT  # here, as people write in that file
        return os.path.join(inProject(DATA_ROOT or default), '')
    except Exception as error:
        sys.exit(f'utils/dataRoot.py cannot be used: {type(error).__name__}: {error}. It must set '
                 "DATA_ROOT to a folder in quotes, such as DATA_ROOT = '/data/coco/', or to '' for "
                 'the built-in demo data.')


def isDemo(data_dir):
    """Whether this is the folder of the built-in demo data."""
    return os.path.normpath(data_dir) == DEMO_ROOT


def vocabularyFile(data_dir):
    """The path of the vocabulary."""
    return os.path.join(data_dir, 'vocabulary', 'vocabulary.pickle')


def featureFolder(data_dir, mode, featurepathstub):
    """The path of the folder of the features, `POOLED` or `UNPOOLED`, of 'train' or 'val'."""
    return os.path.join(data_dir, f'{mode.capitalize()}2017_{featurepathstub}')


def featureFile(data_dir, mode, featurepathstub, name):
    """The path of an image's features; `name` is the file's, without extension."""
    return os.path.join(featureFolder(data_dir, mode, featurepathstub), f'{name}.pickle')


def featureNames(folder):
    """The sorted names of a feature folder's files, one per image; none if there is no such folder.

    Files that systems hide, such as .DS_Store, are left out.
    """
    if not os.path.isdir(folder):
        return []
    return sorted(entry.name for entry in os.scandir(folder)
                  if entry.name[0] != '.' and not entry.is_dir())


def imageNames(data_dir, mode):
    """The names of the feature files of 'train' or 'val', pooled or not, one per image."""
    return {name for stub in (POOLED, UNPOOLED)
            for name in featureNames(featureFolder(data_dir, mode, stub))}


def dataName(data_dir):
    """'demo', or the folder's name and six digits of a hash of its vocabulary and file names."""
    if isDemo(data_dir):
        return 'demo'
    fingerprint = hashlib.sha1()
    path = vocabularyFile(data_dir)
    if os.path.isfile(path):  # a missing one is reported where it is read
        with open(path, 'rb') as f:
            fingerprint.update(f.read())
    # pooled and unpooled features of the same images are the same data, with the same file names
    names = sorted(imageNames(data_dir, 'train') | imageNames(data_dir, 'val'))
    fingerprint.update('\n'.join(names).encode('utf-8', 'surrogateescape'))
    return f'{os.path.basename(os.path.realpath(data_dir))}-{fingerprint.hexdigest()[:6]}'


def featureFiles(data_dir, mode, featurepathstub):
    """The sorted paths of the feature files of 'train' or 'val'.

    Raises:
        UserError: the folder is missing or empty; the message says what the data folder holds.
    """
    folder = featureFolder(data_dir, mode, featurepathstub)
    names = featureNames(folder)
    if not names:
        raise UserError(f'This task needs the features in {folder}, but there are none. {SET_ROOT}')
    return [os.path.join(folder, name) for name in names]


def imageFile(data_dir, mode, imgPath):
    """The path of an image of 'train' or 'val'; the file may be missing."""
    return os.path.join(data_dir, f'{mode}2017', os.path.basename(imgPath))


def makeFolders(root):
    """Makes the folders of a data folder, those that are missing."""
    features = [featureFolder(root, mode, stub) for mode in MODES for stub in (UNPOOLED, POOLED)]
    pictures = [imageFile(root, mode, '') for mode in MODES]
    for folder in [os.path.dirname(vocabularyFile(root)), *pictures, *features]:
        os.makedirs(folder, exist_ok=True)


def writeImage(root, mode, name, image):
    """Writes an image's two files, with features [K, D] and with their maximum [D].

    Args:
        root: the data folder.
        mode: 'train' or 'val'.
        name: the files', without extension.
        image: dict, what the first file holds.
    """
    writePickle(featureFile(root, mode, UNPOOLED, name), image)
    pooled = {**image, 'cnn_features': image['cnn_features'].max(0)}
    writePickle(featureFile(root, mode, POOLED, name), pooled)  # last: then both are there
