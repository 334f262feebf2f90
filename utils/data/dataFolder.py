"""Which data a script works on: the folder set in utils/dataRoot.py, the university's, or the built-in demo data."""
import hashlib
import os

from utils.dataRoot import DATA_ROOT
from utils.demo.demoData import makeDemoData
from utils.files.errors import UserError
from utils.files.project import inProject

UNIVERSITY_ROOT = '/itf-fi-ml/shared/IN5400/dataforall/mandatory2/data/coco/'
DEMO_ROOT = inProject('demoData')
SPLITS = {'train': 'Train2017_', 'val': 'Val2017_'}                # + config['featurepathstub']: the feature folders
IMAGE_FOLDERS = {'train': 'train2017', 'val': 'val2017'}


def dataDir():
    """The data folder's path, ending in a separator; it is not looked into."""
    if DATA_ROOT:
        root = inProject(os.path.expanduser(DATA_ROOT))
    elif os.path.isdir(UNIVERSITY_ROOT):
        root = UNIVERSITY_ROOT
    else:
        root = DEMO_ROOT
    return os.path.join(root, '')


def isDemo(data_dir):
    """Whether this is the folder of the built-in demo data."""
    return os.path.normpath(data_dir) == os.path.normpath(DEMO_ROOT)


def provideData(data_dir):
    """Makes sure that the data folder is there; the demo data are drawn when they are asked for the first time.

    Raises:
        UserError: there is no such folder.
    """
    if isDemo(data_dir):
        makeDemoData(DEMO_ROOT)
    elif not os.path.isdir(data_dir):
        raise UserError(f'The data folder {data_dir} does not exist. Set DATA_ROOT in utils/dataRoot.py to the folder '
                        'that holds "vocabulary" and the feature folders, or to \'\' for the built-in demo data.')


def dataName(data_dir):
    """A name that other data do not have: the folder's own with six digits made from its vocabulary and file names."""
    if isDemo(data_dir):
        return 'demo'
    fingerprint = hashlib.sha1()
    path = os.path.join(data_dir, 'vocabulary', 'vocabulary.pickle')
    if os.path.exists(path):  # its absence is reported where it is read
        with open(path, 'rb') as f:
            fingerprint.update(f.read())
    folders = [os.path.join(data_dir, name) for name in os.listdir(data_dir) if name.startswith(tuple(SPLITS.values()))]
    # pooled and unpooled features of the same images have the same file names, and are the same data
    fingerprint.update('\n'.join(sorted({name for folder in folders for name in os.listdir(folder)})).encode())
    folder = os.path.basename(os.path.realpath(data_dir))
    return f'{folder}-{fingerprint.hexdigest()[:6]}'


def featureFiles(data_dir, mode, featurepathstub):
    """The sorted paths of the feature files of 'train' or 'val'.

    Raises:
        UserError: the folder is missing or empty; the message says what the data folder holds instead.
    """
    folder = os.path.join(data_dir, SPLITS[mode] + featurepathstub)
    paths = sorted(entry.path for entry in os.scandir(folder)
                   if entry.is_file() and not entry.name.startswith('.')) if os.path.isdir(folder) else []
    if not paths:
        found = sorted(name + '/' * os.path.isdir(os.path.join(data_dir, name)) for name in os.listdir(data_dir))
        raise UserError(f'This task needs the image features in {folder}, one file per image, but that folder '
                        f'{"is empty" if os.path.isdir(folder) else "does not exist"}. {data_dir} holds: '
                        f'{", ".join(found[:12]) or "nothing"}{" …" if len(found) > 12 else ""}. '
                        'Set DATA_ROOT in utils/dataRoot.py to the folder that holds it.')
    return paths


def imageFile(data_dir, mode, imgPath):
    """The path of an image of 'train' or 'val'; the file may be missing."""
    return os.path.join(data_dir, IMAGE_FOLDERS[mode], os.path.basename(imgPath))
