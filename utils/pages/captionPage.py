"""A page of the validation images: predicted and human captions, and where attention looks."""
import base64
import io
import os

import jinja2

from utils.data.dataFolder import isDemo
from utils.files.atomic import writeAtomically
from utils.files.project import runFolder
from utils.files.runFiles import readRunFile
from utils.pages.examplePictures import ownCaptions
from utils.pages.figures import plotFolder

SHOWN = 500    # images on a page; 500 photos of 320 × 240 pixels make it 12 MB large
PIXELS = 320   # of the longer side of a picture on a page

SCORES = {'meteor': 'METEOR', 'bleu_4': 'BLEU-4', 'cider': 'CIDEr', 'rouge': 'ROUGE-L'}
# captions are strangers' text: escaped in the page's text, and by the filter tojson in its script
TEMPLATES = jinja2.Environment(loader=jinja2.FileSystemLoader(os.path.dirname(__file__)),
                               autoescape=True, trim_blocks=True, lstrip_blocks=True)


def spread(number, most):
    """The indices of at most `most` of `number` things, evenly spread, first and last included."""
    if number <= most:
        return range(number)
    return [index * (number - 1) // (most - 1) for index in range(most)]


def embedded(picture):
    """A PIL picture as a page holds it, as the data URI of a small JPEG; None for None."""
    if picture is None:
        return None
    picture = picture.copy()
    picture.thumbnail((PIXELS, PIXELS))
    jpeg = io.BytesIO()
    picture.save(jpeg, 'JPEG')
    return f'data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}'


def writeCaptionPage(scores, modelParam, dataLoader):
    """Writes captions.html, which needs no server, from what `validateCaptions` has left.

    Shows at most `SHOWN` images, evenly spread over the ranking by METEOR.

    Args:
        scores: dict of the scores of all images, as `validateCaptions` returns it.
        modelParam: dict.
        dataLoader: a `DataLoaderWrapper`.

    Returns:
        The page's path.
    """
    details = readRunFile(runFolder(modelParam), 'details_validation.json', [])
    number = len(details)
    ranking = sorted(range(number), key=lambda index: -details[index]['meteor'])
    images = []
    for place in spread(number, SHOWN):
        detail = details[ranking[place]]
        picture, size = dataLoader.picture('val', detail['imgPath']), None
        if picture is not None:
            size = picture.size
        elif 'boxes' in detail:
            size = [max(box[side] for box in detail['boxes']) for side in (2, 3)]
        images.append({**detail, 'rank': place + 1, 'position': ranking[place],
                       'picture': embedded(picture), 'size': size})
    data_dir = os.path.normpath(modelParam['data_dir'])
    about = 'Built-in demo data' if isDemo(data_dir) else os.path.basename(data_dir)
    if len(images) == number:
        about += f': {number:,} validation images.'
    else:
        about += (f': {len(images)} of {number:,} validation images, evenly spread from the best '
                  'to the worst.')
    references = ownCaptions(data_dir)
    path = os.path.join(plotFolder(modelParam), 'captions.html')
    writePage(path, {'number': number, 'images': images,
                     'ownCaptions': references[0].upper() + references[1:]},
              model=os.path.basename(os.path.normpath(modelParam['modelName'])), about=about,
              scores=[(name, f'{100 * scores[key]:.1f} %') for key, name in SCORES.items()])
    print(f'Captions on a page: {path}')
    return path


def writePage(path, page, **texts):
    """Writes a page of captions.

    Args:
        path: the file's.
        page: dict of `images`, a list of dicts as in `details_validation.json` with `position`,
            `picture` (as `embedded` returns it) and `size`, and with `rank` where they have a
            `meteor`; `number`, that of all ranks; `ownCaptions`, a name for the `references`.
        texts: `model`, `about` and `scores`, a list of pairs of texts, empty without scores.
    """
    html = TEMPLATES.get_template('captionPage.html').render(
        page=page, attention=any('attention' in image for image in page['images']), **texts)
    writeAtomically(path, html.encode('utf-8', 'replace'))
