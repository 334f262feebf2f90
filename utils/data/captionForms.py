"""Finds and reads captions in the formats in which they are published.

- COCO's: `captions_train2017.json` and `captions_val2017.json`, or those of 2014.
- Karpathy's: `dataset_coco.json`, `dataset_flickr8k.json`, `dataset_flickr30k.json`, which say
  what each image is for; `restval` counts as training, `test` is left out.
- Flickr's: `Flickr8k.token.txt` or `results_20130124.token`, lines of `name.jpg#0<TAB>caption`.
- Tables: Kaggle's `captions.txt` and `results.csv`, or any `*.csv` with one `file,caption` a
  line, with or without a header.

For the last two the official lists, such as `Flickr_8k.trainImages.txt` and
`Flickr_8k.devImages.txt`, say which photos are for training and which for validation, if both lie
beside the captions. Otherwise a tenth of the photos is drawn for validation, always the same.

The file name tells the format. In a folder, and the folders in it, there must be only one such
file; otherwise CAPTIONS must name the file itself.
"""
import collections
import csv
import glob
import os
import random
import re

from utils.data.photoFeatures import EXTENSIONS
from utils.files.errors import UserError, foreignFile, jsonIn, linesIn

SHARE_FOR_VALIDATION = .1  # of the photos, where there are no lists
SPLIT_OF = {'train': 'train', 'restval': 'train', 'val': 'val'}  # Karpathy's
SEPARATOR = r'[,;|\t]'
ROW = re.compile(rf'"?(.+?(?:{"|".join(map(re.escape, EXTENSIONS))}))"? *({SEPARATOR})'
                 r'(?: *\d+\|)?(.*)', re.IGNORECASE)  # results.csv numbers the captions
SET_CAPTIONS = ('Set CAPTIONS at the top of utils/buildCourseLayout.py; the supported '
                'formats are listed at the top of utils/data/captionForms.py.')

Image = collections.namedtuple('Image', 'mode name captions')  # 'train' or 'val', file name, texts


def readCaptions(*paths):
    """The images that have captions, for training and for validation.

    Args:
        paths: files of captions, or folders that hold one each, themselves or in their folders.

    Returns:
        dict key → `Image`, with keys as from `keyOf`; what was read, in words.

    Raises:
        UserError: there is no such file, or more than one in a folder, or it is unusable; two
            images have the same name; or there is nothing to train or to validate on.
    """
    images, forms = {}, []
    for path in paths:
        found = {file: read for file in _filesIn(path) for pattern, read in FORMS.items()
                 if re.search(pattern, os.path.basename(file))}
        if len(found) != 1:
            raise UserError(f'CAPTIONS is {path}, which must be or hold one file of captions; '
                            f'found: {", ".join(sorted(found)) or "none"}. {SET_CAPTIONS}')
        file, read = found.popitem()
        with foreignFile(file, SET_CAPTIONS):
            listed, form = read(file)
            for image in listed:
                if not all(isinstance(text, str) for text in (image.name, *image.captions)):
                    raise ValueError(f'the name or a caption of {image.name} is not a text')
                other = images.setdefault(keyOf(image.name), image)
                if other is not image:
                    raise ValueError(
                        f'{other.name} and {image.name} count as the same photo; each must have '
                        'its own name, and be for training or for validation')
            if len({image.mode for image in listed}) < 2:
                raise ValueError('it must have captions both of train and of val images')
        forms.append(form)
    return images, '; '.join(forms)


def keyOf(name):
    """What connects an image's captions with its photo or features, from a file name of any of
    them: COCO's id, '139' for 'COCO_val2014_000000000139.jpg', or the name without extension."""
    stem = stemOf(name)
    coco_id = re.fullmatch(r'(?:COCO_[a-z]+20\d\d_)?(\d{1,250})', stem)
    return str(int(coco_id[1])) if coco_id else stem


def stemOf(name):
    """A picture's file name without folder and extension."""
    stem, ending = os.path.splitext(os.path.basename(name))
    return stem if ending.lower() in EXTENSIONS else stem + ending


def _filesIn(path):
    """The paths of the files in a folder and in its folders, or of a file."""
    folder = glob.escape(path)
    return sorted(filter(os.path.isfile, [path, *glob.glob(f'{folder}/*'),
                                          *glob.glob(f'{folder}/*/*')]))


def _readCoco(path):
    """COCO's two files, of which `path` is the one for training."""
    folder, name = os.path.split(path)
    images = []
    for mode in ('train', 'val'):
        file = os.path.join(folder, name.replace('train', mode))
        with foreignFile(file, SET_CAPTIONS):
            coco = jsonIn(file)
            captions = collections.defaultdict(list)
            for annotation in coco['annotations']:
                captions[annotation['image_id']].append(annotation['caption'])
            images += [Image(mode, image['file_name'], captions[image['id']])
                       for image in coco['images'] if image['id'] in captions]
    return images, f"COCO's captions in {folder}"


def _readKarpathy(path):
    images = []
    for image in jsonIn(path)['images']:
        captions = [sentence['raw'] for sentence in image['sentences']]
        if image['split'] in SPLIT_OF and captions:
            images.append(Image(SPLIT_OF[image['split']], image['filename'], captions))
    return images, f"{path}, Karpathy's splits"


def _readTokens(path):
    captions = collections.defaultdict(list)
    for number, line in linesIn(path):
        name, tab, caption = line.partition('\t')
        if not tab:
            raise ValueError(f'line {number} has no tab between photo and caption')
        captions[name.rsplit('#', 1)[0]].append(caption)
    return _divided(captions, path)


def _readTable(path):
    captions, columns = collections.defaultdict(list), set()
    for number, line in linesIn(path):
        row = ROW.fullmatch(line)
        if row:
            name, separator, caption = row.groups()
            # Each line by itself: a quote that is not closed does not reach the next one.
            parts = next(csv.reader([caption], delimiter=separator))
            caption = separator.join(parts).strip()  # its separators need no quotes
            if caption:
                columns.add(1 + len(parts))
                captions[name.strip()].append(caption)
        elif number > 1 or len(re.split(SEPARATOR, line)) > 2 + ('|' in line):  # no header
            raise ValueError(f'line {number} is not the name of a photo and its caption')
    if len(columns) == 1 and columns != {2}:
        raise ValueError(f'each line has {max(columns)} columns instead of two, photo and caption')
    return _divided(captions, path)


def _divided(captions, path):
    """The images by the official lists beside a file of captions, or a share drawn."""
    images = []
    for mode, pattern in (('train', 'train'), ('val', 'dev|val')):
        lists = [file for file in _filesIn(os.path.dirname(path) or '.') if re.search(
            rf'(?<![a-z])({pattern})[a-z]*\.txt$', os.path.basename(file), re.IGNORECASE)]
        if len(lists) != 1:
            break
        stems = {stemOf(line.strip()) for _, line in linesIn(lists[0])}  # some without extensions
        images += [Image(mode, name, captions[name]) for name in captions if stemOf(name) in stems]
    else:
        return images, f'{path}, official lists'
    names = sorted(captions)
    random.Random(1).shuffle(names)
    chosen = set(names[:max(1, round(SHARE_FOR_VALIDATION * len(names)))])
    images = [Image('val' if name in chosen else 'train', name, captions[name])
              for name in captions]
    return images, f'{path}, {len(chosen):,} of {len(names):,} photos drawn for validation'


FORMS = {  # file name → the function that reads it
    r'^captions_train\d{4}\.json$': _readCoco,
    r'^dataset_.*\.json$': _readKarpathy,
    r'^(?!.*lemma).*\.token(\.txt)?$': _readTokens,
    r'^captions\.txt$|\.csv$': _readTable,
}
