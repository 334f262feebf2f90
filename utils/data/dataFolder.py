"""Which data a script works on: the folder set in utils/dataRoot.py, the university's, or the built-in demo data."""
import hashlib
import os
import re
import sys

from utils.demo.demoData import makeDemoData
from utils.files.errors import UserError
from utils.files.project import inProject

UNIVERSITY_ROOT = '/itf-fi-ml/shared/IN5400/dataforall/mandatory2/data/coco/'
DEMO_ROOT = inProject('demoData')
POOLED, UNPOOLED = 'detectron2_lim10maxfeatures', 'detectron2_lim10features'
SPLITS = {'train': 'Train2017_', 'val': 'Val2017_'}                # + POOLED or UNPOOLED: the feature folders
MODES = {'train': 'training', 'val': 'validation'}
IMAGE_FOLDERS = {'train': 'train2017', 'val': 'val2017'}
SET_ROOT = ('Set DATA_ROOT in utils/dataRoot.py to the folder that holds "vocabulary" and the feature folders; '
            'utils/buildCourseLayout.py makes one of COCO as it is published.')


def dataDir():
    """The data folder's path, ending in a separator; it is not looked into.

    Ends the script by a sentence where utils/dataRoot.py is wrong: scripts ask at their top, outside of `runScript`.
    """
    try:
        from utils.dataRoot import DATA_ROOT  # only here, as people write in that file
        chosen = os.path.join(inProject(os.path.expanduser(DATA_ROOT)), '') if DATA_ROOT else ''
    except Exception as error:
        sys.exit(f'utils/dataRoot.py cannot be used: {type(error).__name__}: {error}. It must set DATA_ROOT to a folder in '
                 "quotes, such as DATA_ROOT = '/data/coco/', or to '' for the built-in demo data.")
    return chosen or os.path.join(UNIVERSITY_ROOT if os.path.isdir(UNIVERSITY_ROOT) else DEMO_ROOT, '')


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
        what = 'is a file' if os.path.isfile(os.path.normpath(data_dir)) else 'does not exist'
        raise UserError(f"The data folder {data_dir} {what}. {SET_ROOT} Or set it to '' for the built-in demo data.")


def featureNames(folder):
    """The sorted names of a feature folder's files, one per image; none where there is no such folder. The files that a
    system hides, such as .DS_Store, are none of them."""
    if not os.path.isdir(folder):
        return []
    return sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith('.') and not entry.is_dir())


def dataName(data_dir):
    """A name that other data do not have: the folder's own with six digits made from its vocabulary and file names."""
    if isDemo(data_dir):
        return 'demo'
    fingerprint = hashlib.sha1()
    path = os.path.join(data_dir, 'vocabulary', 'vocabulary.pickle')
    if os.path.isfile(path):  # its absence is reported where it is read
        with open(path, 'rb') as f:
            fingerprint.update(f.read())
    # pooled and unpooled features of the same images have the same file names, and are the same data
    names = {name for split in SPLITS.values() for stub in (POOLED, UNPOOLED)
             for name in featureNames(os.path.join(data_dir, split + stub))}
    fingerprint.update('\n'.join(sorted(names)).encode('utf-8', 'surrogateescape'))
    folder = os.path.basename(os.path.realpath(data_dir))
    return f'{folder}-{fingerprint.hexdigest()[:6]}'


def runsOnEarlierData(runFolder):
    """The folders of the runs that differ from this one in the six digits of `dataName` alone: the same settings, on a data
    folder of the same name with other files in it."""
    models, run = os.path.split(os.path.normpath(runFolder))
    named = re.fullmatch(r'(.*-)[0-9a-f]{6}', run)
    if not named or not os.path.isdir(models):
        return []
    return sorted(os.path.join(models, name) for name in os.listdir(models)
                  if name != run and re.fullmatch(re.escape(named[1]) + '[0-9a-f]{6}', name))


def filesRead(data_dir, featurepathstub):
    """What a task reads, to be kept with its run: dict 'train' and 'val' → `number` of files and `names`, a hash of them."""
    read = {}
    for mode, split in SPLITS.items():
        names = featureNames(os.path.join(data_dir, split + featurepathstub))
        digest = hashlib.sha1('\n'.join(names).encode('utf-8', 'surrogateescape')).hexdigest()
        read[mode] = {'number': len(names), 'names': digest}
    return read


def changesOfFiles(then, now):
    """In a sentence, how what `filesRead` returned has changed since; '' where it has not."""
    def change(mode):
        before, after = then[mode]['number'], now[mode]['number']
        return f'{before:,} {MODES[mode]} images then, {after:,} now' if before != after else f'other {MODES[mode]} images'

    changed = [change(mode) for mode in SPLITS if then[mode] != now[mode]]
    return f"The data have changed since this model was trained: {', '.join(changed)}." if changed else ''


def featureFiles(data_dir, mode, featurepathstub):
    """The sorted paths of the feature files of 'train' or 'val'.

    Raises:
        UserError: the folder is missing or empty; the message says what the data folder holds instead.
    """
    folder = os.path.join(data_dir, SPLITS[mode] + featurepathstub)
    names = featureNames(folder)
    if not names:
        found = sorted(name + '/' * os.path.isdir(os.path.join(data_dir, name)) for name in os.listdir(data_dir))
        kind = 'pooled features, one vector per image,' if featurepathstub == POOLED else 'features of ten detections per image'
        raise UserError(f'This task needs the {kind} in {folder}, but that folder '
                        f'{"is empty" if os.path.isdir(folder) else "does not exist"}. {data_dir} holds: '
                        f'{", ".join(found[:12]) or "nothing"}{" …" if len(found) > 12 else ""}. {SET_ROOT}')
    return [os.path.join(folder, name) for name in names]


def imageFile(data_dir, mode, imgPath):
    """The path of an image of 'train' or 'val'; the file may be missing."""
    return os.path.join(data_dir, IMAGE_FOLDERS[mode], os.path.basename(imgPath))
