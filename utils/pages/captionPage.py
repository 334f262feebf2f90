"""A page for people: the validation images with what the model and people say about them, and where attention looks."""
import base64
import io
import json
import os

from utils.data.dataFolder import isDemo
from utils.files.atomic import writeAtomically
from utils.files.project import inProject, runFolder
from utils.files.runFiles import readRunFile

SHOWN = 500    # images on a page; 500 photos of 320 × 240 pixels make it 12 MB large
PIXELS = 320   # of a picture's longer side, as the page holds it

TEMPLATE = inProject(os.path.join('utils', 'pages', 'captionPage.html'))


def spread(number, most):
    """The indices of at most `most` of `number` things, evenly spread, the first and the last among them."""
    return range(number) if number <= most else [index * (number - 1) // (most - 1) for index in range(most)]


def embedded(picture):
    """A PIL picture as a page holds it: a data URI of a JPEG, its longer side at most `PIXELS`; None for None."""
    if picture is None:
        return None
    picture = picture.copy()
    picture.thumbnail((PIXELS, PIXELS))
    jpeg = io.BytesIO()
    picture.save(jpeg, 'JPEG')
    return f'data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}'


def writeCaptionPage(scores, modelParam, dataLoader):
    """Writes captions.html, one file that needs no server and no network, from what `validateCaptions` has left.

    Shows at most `SHOWN` images, evenly spread over the ranking by METEOR.

    Args:
        scores: dict of the scores of all images, as `validateCaptions` returns it.
        modelParam: dict.
        dataLoader: a `DataLoaderWrapper`.

    Returns:
        The page's path.
    """
    details = readRunFile(runFolder(modelParam), 'details_validation.json', [])
    ranking = sorted(range(len(details)), key=lambda index: -details[index]['meteor'])
    images = []
    for place in spread(len(details), SHOWN):
        detail = details[ranking[place]]
        picture, size = dataLoader.picture('val', detail['imgPath']), None
        if picture is not None:
            size = picture.size
        elif 'boxes' in detail:
            size = [max(box[2] for box in detail['boxes']), max(box[3] for box in detail['boxes'])]
        images.append({**detail, 'rank': place + 1, 'position': ranking[place], 'picture': embedded(picture), 'size': size})
    data_dir = modelParam['data_dir']
    data = {'model': os.path.basename(os.path.normpath(modelParam['modelName'])), 'scores': scores,
            'data': 'built-in demo data' if isDemo(data_dir) else os.path.basename(os.path.normpath(data_dir)),
            'number': len(details), 'images': images}
    with open(TEMPLATE, encoding='utf-8') as f:
        template = f.read()
    # captions are strangers' text: without a < nothing in it can end the script that holds it
    page = template.replace('PAGE_DATA', json.dumps(data).replace('<', '\\u003c'))

    path = os.path.join(runFolder(modelParam, 'img_dir'), 'captions.html')
    writeAtomically(path, page.encode())
    print(f'Captions for people: {path}')
    return path
