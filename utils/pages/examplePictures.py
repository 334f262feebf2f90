"""Example images with what a model says about them and their own captions, in one picture."""
import os
import textwrap

from matplotlib.figure import Figure

from utils.data.dataFolder import isDemo
from utils.files.project import runFolder
from utils.files.runFiles import readRunFile
from utils.pages.figures import plotFolder, saveFigure

EXAMPLES = 5
REFERENCES = 5                          # of an image, at most
CAPTION_LETTERS, TEXT_LETTERS = 40, 70  # of a line, at most
# in points: the figure's width, its margins, the pictures' width, where text begins, its lines
WIDTH, MARGIN, PICTURE, TEXT_LEFT, CAPTION_LINE, TEXT_LINE = 640, 16, 192, 224, 24, 17
TEXT = {'va': 'top', 'linespacing': 1.5, 'parse_math': False}


def ownCaptions(data_dir):
    """What the captions that come with the images of a data folder are called."""
    return "the scene's own sentences" if isDemo(data_dir) else 'what people say'


def plotImagesAndCaptions(model, modelParam, config, dataLoader):
    """Draws examples.png: the first five validation images whose pictures can be read.

    Beside each are the predicted and its own captions. METEOR is shown if `validateCaptions` has
    scored that caption.

    Returns:
        The path of examples.png, or None if no picture can be read.
    """
    loader = dataLoader.myDataDicts['val']
    images, pictures = [], []
    for image in loader.dataset:
        picture = dataLoader.picture('val', image['imgPath'])
        if picture is not None:
            images.append(image)
            pictures.append(picture)
        if len(images) == EXAMPLES:
            break
    if not images:
        print('No example pictures: there are no pictures of the validation images in '
              f"{dataLoader.imageFile('val', '')}.")
        return None
    model.net.eval()
    captions = map(dataLoader.wordsOf, model.greedyTokens(loader.collate_fn(images)))
    scored = readRunFile(runFolder(modelParam), 'details_validation.json', [])
    meteor = {(detail['imgPath'], detail['caption']): detail['meteor'] for detail in scored}
    details = [{'caption': caption, 'references': image['original_captions'],
                'meteor': meteor.get((image['imgPath'], caption))}
               for image, caption in zip(images, captions)]
    path = os.path.join(plotFolder(modelParam), 'examples.png')
    drawExamples(zip(pictures, details), ownCaptions(modelParam['data_dir']), path)
    print(f'Examples with captions: {path}')
    return path


def drawExamples(examples, own_captions, path):
    """Draws examples one below the other.

    Args:
        examples: pairs of a picture and a dict of its `caption`, `references` and `meteor`, which
            may be None.
        own_captions: what the references are called.
        path: of the PNG to write.
    """
    figure = Figure()
    axes = figure.add_axes([0, 0, 1, 1])
    axes.axis('off')
    about = f'Bold: predicted, greedy. Below: {own_captions}.'
    axes.text(MARGIN, MARGIN / 2, about, color='.35', **TEXT)
    y = 2.5 * MARGIN
    for picture, detail in examples:
        bottom = y + PICTURE * picture.height / picture.width
        axes.imshow(picture, extent=(MARGIN, MARGIN + PICTURE, bottom, y))
        caption = textwrap.wrap(detail['caption'], CAPTION_LETTERS)
        lines = []
        if detail['meteor'] is not None:
            lines.append(f"METEOR {100 * detail['meteor']:.1f} %")
        for reference in detail['references'][:REFERENCES]:
            lines += textwrap.wrap(f'– {reference}', TEXT_LETTERS)
        axes.text(TEXT_LEFT, y, '\n'.join(caption), weight='bold', size=15, **TEXT)
        y_lines = y + CAPTION_LINE * len(caption)
        axes.text(TEXT_LEFT, y_lines, '\n'.join(lines), size=11, **TEXT)
        y = max(bottom, y_lines + TEXT_LINE * len(lines)) + MARGIN
    axes.set(xlim=(0, WIDTH), ylim=(y, 0))
    figure.set_size_inches(WIDTH / 72, y / 72)
    saveFigure(figure, path)
