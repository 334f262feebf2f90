"""Example images with predicted and human captions, as one picture."""
import os
import textwrap

import numpy as np
from matplotlib.figure import Figure

from utils.data.dataFolder import isDemo
from utils.files.project import runFolder
from utils.files.runFiles import readRunFile
from utils.pages.figures import plotFolder, saveFigure

EXAMPLES = 5
REFERENCES = 5  # of an image are shown, at most
CAPTION_LETTERS, REFERENCE_LETTERS = 50, 74  # in a line
# inches: the whole picture's and an image's width, the heading's and the least row's height, lines
WIDTH, PICTURE, HEAD, ROW, CAPTION_LINE, REFERENCE_LINE = 9, 2.7, .45, 2.2, .31, .22


def ownCaptions(data_dir):
    """What the captions that come with the images of a data folder are called."""
    return "the scene's own sentences" if isDemo(data_dir) else 'what people say'


def plotImagesAndCaptions(model, modelParam, config, dataLoader):
    """Draws the first five validation images that can be read, with captions, as examples.png.

    A caption's METEOR is shown where `validateCaptions` has scored it.

    Returns:
        The picture's path, or None where no image can be read.
    """
    loader = dataLoader.myDataDicts['val']
    pictures, images = [], []
    for index in range(len(loader.dataset)):
        image = loader.dataset[index]
        picture = dataLoader.picture('val', image['imgPath'])
        if picture is not None:
            pictures.append(picture)
            images.append(image)
        if len(images) == EXAMPLES:
            break
    if not images:
        print(f"No example pictures: {dataLoader.imageFile('val', '')} holds none of the "
              'validation images.')
        return None
    model.net.eval()
    meteor = {(scored['imgPath'], scored['caption']): scored['meteor'] for scored
              in readRunFile(runFolder(modelParam), 'details_validation.json', [])}
    examples = []
    for image, tokens in zip(images, model.greedyTokens(loader.collate_fn(images))):
        caption = dataLoader.wordsOf(tokens)
        examples.append({'caption': caption, 'references': image['original_captions'],
                         'meteor': meteor.get((image['imgPath'], caption))})
    path = os.path.join(plotFolder(modelParam), 'examples.png')
    drawExamples(zip(pictures, examples), ownCaptions(modelParam['data_dir']), path)
    print(f'Examples with captions: {path}')
    return path


def drawExamples(examples, own_captions, path):
    """Draws one example below the other.

    Args:
        examples: pairs of a picture and a dict of its `caption`, `references` and `meteor`, which
            may be None.
        own_captions: what the references are called.
        path: of the PNG to write.
    """
    rows, height = [], HEAD
    for picture, example in examples:
        caption = textwrap.wrap(example['caption'], CAPTION_LETTERS)
        lines = []
        if example['meteor'] is not None:
            lines.append(f"METEOR {100 * example['meteor']:.1f} %")
        for reference in example['references'][:REFERENCES]:
            lines += textwrap.wrap('– ' + ' '.join(reference.split()), REFERENCE_LETTERS)
        below = CAPTION_LINE * len(caption) + .05
        rows.append((height, below, picture, caption, lines))
        height += max(ROW, below + REFERENCE_LINE * len(lines) + .2)
    figure = Figure(figsize=(WIDTH, height))

    def write(top, left, lines, **options):
        figure.text(left / WIDTH, 1 - top / height, '\n'.join(lines), va='top', linespacing=1.4,
                    parse_math=False, **options)

    write(.15, .2, [f'Bold: predicted, greedy and running free. Below: {own_captions}.'],
          size=10, color='.35')
    for top, below, picture, caption, lines in rows:
        axes = figure.add_axes([.2 / WIDTH, 1 - (top + ROW - .2) / height, PICTURE / WIDTH,
                                (ROW - .2) / height], anchor='NW')
        axes.imshow(np.asarray(picture))
        axes.axis('off')
        write(top, PICTURE + .4, caption, size=14, weight='bold')
        write(top + below, PICTURE + .4, lines, size=10)
    saveFigure(figure, path)
