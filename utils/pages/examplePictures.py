"""Example images with what a model says about them and their own captions, as one picture. Lengths are in points."""
import os

import numpy as np
from matplotlib.figure import Figure

from utils.data.dataFolder import isDemo
from utils.files.project import runFolder
from utils.files.runFiles import readRunFile
from utils.pages.textLines import wrapped
from utils.plotter import plotFolder, saveFigure

EXAMPLES = 5
REFERENCES = 5                      # of an image are shown, at most
WIDTH, MARGIN, PICTURE_WIDTH, PICTURE_HEIGHT = 640, 16, 192, 144
CAPTION, METEOR, REFERENCE = ({'size': 15, 'weight': 'bold'}, {'size': 10, 'color': '.35'}, {'size': 11})
LEADING = 1.5


def ownCaptions(data_dir):
    """What the captions that come with the images of a data folder are called."""
    return "the scene's own sentences" if isDemo(data_dir) else 'what people say'


def plotImagesAndCaptions(model, modelParam, config, dataLoader):
    """Draws the first five validation images whose pictures can be read, with predicted and own captions, as examples.png.

    The METEOR of a caption is shown where `validateCaptions` has scored that caption.

    Returns:
        The picture's path, or None where there is no picture.
    """
    loader = dataLoader.myDataDicts['val']
    pictures, images = [], []
    for image in map(loader.dataset.__getitem__, range(len(loader.dataset))):
        picture = dataLoader.picture('val', image['imgPath'])
        if picture is not None:
            pictures.append(picture)
            images.append(image)
        if len(images) == EXAMPLES:
            break
    if not images:
        print(f"No example pictures: {dataLoader.imageFile('val', '')} holds none of the validation images.")
        return None
    model.net.eval()
    captions = [dataLoader.wordsOf(tokens) for tokens in model.greedyTokens(loader.collate_fn(images))]
    meteor = {(scored['imgPath'], scored['caption']): scored['meteor']
              for scored in readRunFile(runFolder(modelParam), 'details_validation.json', [])}
    details = [{'caption': caption, 'references': image['original_captions'], 'meteor': meteor.get((image['imgPath'], caption))}
               for image, caption in zip(images, captions)]
    path = os.path.join(plotFolder(modelParam), 'examples.png')
    drawExamples(zip(pictures, details), ownCaptions(modelParam['data_dir']), path)
    print(f'Examples with captions: {path}')
    return path


def drawExamples(examples, own_captions, path):
    """Draws one example below the other.

    Args:
        examples: pairs of a picture and a dict of its `caption`, `references` and `meteor`, which may be None.
        own_captions: what the references are called.
        path: of the PNG to write.
    """
    left = MARGIN + PICTURE_WIDTH + MARGIN
    rows = []                                                                    # picture, [(line, font)], height
    for picture, detail in examples:
        texts = [(detail['caption'], CAPTION)]
        if detail['meteor'] is not None:
            texts.append((f"METEOR {100 * detail['meteor']:.1f} %", METEOR))
        texts += [('– ' + ' '.join(reference.split()), REFERENCE) for reference in detail['references'][:REFERENCES]]
        lines = [(line, font) for text, font in texts
                 for line in wrapped(text, WIDTH - MARGIN - left, font['size'], font.get('weight', 'normal'))]
        rows.append((picture, lines, max(PICTURE_HEIGHT, sum(font['size'] * LEADING for _, font in lines))))

    y = MARGIN + METEOR['size'] * LEADING
    height = y + sum(height + MARGIN for *_, height in rows)
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    figure.text(MARGIN / WIDTH, 1 - MARGIN / height, f'Bold: predicted, greedy and running free. Below: {own_captions}.',
                va='center', **METEOR)
    for picture, lines, row_height in rows:
        axes = figure.add_axes([MARGIN / WIDTH, 1 - (y + PICTURE_HEIGHT) / height, PICTURE_WIDTH / WIDTH, PICTURE_HEIGHT / height],
                               anchor='N')
        axes.imshow(np.asarray(picture))
        axes.axis('off')
        top = y
        for line, font in lines:
            figure.text(left / WIDTH, 1 - top / height, line, va='top', parse_math=False, **font)
            top += font['size'] * LEADING
        y += row_height + MARGIN
    saveFigure(figure, path)
