"""A page of validation images: the model's and people's captions, and where attention looks."""
import base64
import io
import os

import jinja2
import numpy as np

from utils.files.atomic import writeAtomically
from utils.files.project import inProject, runFolder
from utils.files.runFiles import readRunFile
from utils.pages.examplePictures import ownCaptions
from utils.pages.figures import plotFolder

SHOWN = 500    # images on a page; 500 photos of 320 × 240 pixels make a page of 12 MB
PIXELS = 320   # of a picture's longer side on the page, at most

SCORES = {'meteor': 'METEOR', 'bleu_4': 'BLEU-4', 'cider': 'CIDEr', 'rouge': 'ROUGE-L'}
# captions are strangers' text: autoescape guards the page, the filter tojson its script
TEMPLATES = jinja2.Environment(loader=jinja2.FileSystemLoader(inProject('utils/pages')),
                               autoescape=True)


def embedded(picture):
    """A PIL picture, made smaller, as the data URI of a JPEG."""
    picture = picture.copy()
    picture.thumbnail((PIXELS, PIXELS))
    jpeg = io.BytesIO()
    picture.save(jpeg, 'JPEG')
    return f'data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}'


def writeCaptionPage(scores, modelParam, dataLoader):
    """Writes captions.html, one file that needs no server and no network.

    It shows what `validateCaptions` has written, for at most `SHOWN` images, evenly spread over
    the ranking by METEOR.

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
    places = np.linspace(0, number - 1, min(number, SHOWN), dtype=int).tolist()
    images = []
    for index, place in sorted((ranking[place], place) for place in places):
        image = {**details[index], 'rank': place + 1}
        picture = dataLoader.picture('val', image['imgPath'])
        if picture is not None:
            image.update(picture=embedded(picture), size=picture.size)
        images.append(image)
    data_dir = modelParam['data_dir']
    about = f'{os.path.basename(os.path.normpath(data_dir))}: {number:,} validation images'
    if number > SHOWN:
        about += f', of which {SHOWN} are shown, evenly spread from the best to the worst'
    path = os.path.join(plotFolder(modelParam), 'captions.html')
    writePage(path, {'number': number, 'images': images, 'ownCaptions': ownCaptions(data_dir)},
              model=os.path.basename(os.path.normpath(modelParam['modelName'])), about=f'{about}.',
              scores=[(name, f'{100 * scores[key]:.1f} %') for key, name in SCORES.items()])
    print(f'Captions for people: {path}')
    return path


def writePage(path, page, **texts):
    """Writes a page of captions.

    Args:
        path: the file's.
        page: dict of
            `images`, a list of dicts as in `details_validation.json`, with `picture` (as
            `embedded` returns it) and the whole picture's `size` if it can be read, and with
            `rank` if they have a `meteor`;
            `number`, that of all ranks;
            `ownCaptions`, what the `references` are called.
        texts: `model`, `about` and `scores`, a list of pairs of texts, empty if no caption has
            been scored.
    """
    html = TEMPLATES.get_template('captionPage.html').render(
        page=page, attention=any('attention' in image for image in page['images']), **texts)
    writeAtomically(path, html.encode('utf-8', 'replace'))
