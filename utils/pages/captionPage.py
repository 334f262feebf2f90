"""Pages of images: their captions by the model and by people, and where attention looks."""
import base64
import io
import math
import os

import jinja2
from tqdm.auto import tqdm

from utils.data.dataFolder import isDemo
from utils.data.pictures import openPicture
from utils.files.ownFiles import readJson, runFolder, writeAtomically

SHOWN = 500    # images on a page; 500 photos of 320 × 240 pixels make it 12 MB large
PIXELS = 320   # of the longer side of a picture on a page

SCORES = {'meteor': 'METEOR', 'bleu_4': 'BLEU-4', 'cider': 'CIDEr', 'rouge': 'ROUGE-L'}
# captions are strangers' text: escaped in the page's text, and by the filter tojson in its script
TEMPLATES = jinja2.Environment(loader=jinja2.FileSystemLoader(os.path.dirname(__file__)),
                               autoescape=True, trim_blocks=True, lstrip_blocks=True)


def embedded(picture):
    """A PIL picture, made small, as a page holds it: the data URI of a JPEG."""
    picture.thumbnail((PIXELS, PIXELS))
    jpeg = io.BytesIO()
    picture.save(jpeg, 'JPEG')
    return f'data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}'


def writeCaptionPage(scores, modelParam):
    """Writes captions.html, which needs no server, from what `validateCaptions` has left.

    Of more than `SHOWN` images every second, third … in the ranking by METEOR is shown.

    Args:
        scores: dict of the scores of all images, as `validateCaptions` returns it.
        modelParam: dict.

    Returns:
        The page's path.
    """
    images = readJson(runFolder(modelParam, name='details_validation.json'), [])
    images.sort(key=lambda image: -image['meteor'])
    for rank, image in enumerate(images, 1):
        image['rank'] = rank
    data_dir = os.path.normpath(modelParam['data_dir'])
    shown = images[::math.ceil(len(images) / SHOWN)]
    for image in shown:
        picture = openPicture(data_dir, image['imgPath'])
        if picture is not None:
            image.update(size=picture.size, picture=embedded(picture))
    data = 'Built-in demo data' if isDemo(data_dir) else os.path.basename(data_dir)
    path = runFolder(modelParam, 'img_dir', 'captions.html')
    model = modelParam['modelName'].strip(os.sep)
    writePage(path, {'number': len(images), 'images': shown, 'region': 'detection',
                     'ownCaptions': 'Reference captions'}, title=f'Captions of {model}',
              about=f'{data}: {len(shown):,} of {len(images):,} validation images.',
              scores=[(name, f'{100 * scores[key]:.1f} %') for key, name in SCORES.items()])
    return path


def writePage(path, page, **texts):
    """Writes a page of captions, and says so.

    Args:
        path: the file's.
        page: dict of `images`, a list of dicts as in `details_validation.json`, with `picture` (as
            `embedded` returns it) and `size` where the image is there, and with `rank` where they
            have a `meteor`, or with `confidence`, from 0 to 1; `number`, the last rank; `unsure`,
            the confidence below which a caption is marked; `region`, what attention looks at;
            `ownCaptions`, the heading of the `references`.
        texts: `title`, `about` and, if there are any, `scores`, a list of pairs of texts; for
            several pages their number `pages`, `page_number`, and the files `previous` and `next`.
    """
    html = TEMPLATES.get_template('captionPage.html').render(
        page=page, attention=any('attention' in image for image in page['images']), **texts)
    writeAtomically(path, html.encode('utf-8', 'replace'))
    tqdm.write(f'Captions on a page: {path}')
