"""Example images with predicted and reference captions, as one picture."""
import os
import textwrap

from matplotlib.figure import Figure

from utils.pages.figures import plotFolder, saveFigure

EXAMPLES = 5
REFERENCES = 5  # of an image are shown, at most
CAPTION_LETTERS, REFERENCE_LETTERS = 40, 70  # in a line
# in points: the width of all, margins, pictures' width, where the texts begin, lines' heights
WIDTH, MARGIN, PICTURE, TEXT_LEFT, CAPTION_LINE, REFERENCE_LINE = 640, 16, 192, 224, 24, 17
TEXT = {'va': 'top', 'linespacing': 1.5, 'parse_math': False}


def plotImagesAndCaptions(model, modelParam, config, dataLoader):
    """Draws the first five validation images that can be read, with captions, as examples.png.

    Returns:
        The picture's path, or None where no image can be read.
    """
    loader = dataLoader.myDataDicts['val']
    pictures, images = [], []
    for image in loader.dataset:
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
    tokens = model.greedyTokens(loader.collate_fn(images))
    captions = map(dataLoader.wordsOf, tokens)
    references = [image['original_captions'] for image in images]
    path = os.path.join(plotFolder(modelParam), 'examples.png')
    drawExamples(zip(pictures, captions, references), path)
    print(f'Examples with captions: {path}')
    return path


def drawExamples(examples, path):
    """Draws one example below the other.

    Args:
        examples: triples of a PIL picture, its predicted caption, and a list of its references.
        path: of the PNG to write.
    """
    figure = Figure()
    axes = figure.add_axes([0, 0, 1, 1])
    axes.axis('off')
    about = 'Bold: predicted, greedy and free-running. Below: reference captions.'
    axes.text(MARGIN, 8, about, color='.35', **TEXT)
    y = 40
    for picture, caption, references in examples:
        bottom = y + PICTURE * picture.height / picture.width
        axes.imshow(picture, extent=(MARGIN, MARGIN + PICTURE, bottom, y))
        captions = textwrap.wrap(caption, CAPTION_LETTERS)
        lines = []
        for reference in references[:REFERENCES]:
            lines += textwrap.wrap(f'– {reference}', REFERENCE_LETTERS)
        y_lines = y + CAPTION_LINE * len(captions)
        axes.text(TEXT_LEFT, y, '\n'.join(captions), weight='bold', size=15, **TEXT)
        axes.text(TEXT_LEFT, y_lines, '\n'.join(lines), size=11, **TEXT)
        y = max(bottom, y_lines + REFERENCE_LINE * len(lines)) + MARGIN
    axes.set(xlim=(0, WIDTH), ylim=(y, 0))
    figure.set_size_inches(WIDTH / 72, y / 72)
    saveFigure(figure, path)
