"""Example images with predicted and reference captions, as one picture."""
import textwrap

from matplotlib.figure import Figure

from utils.data.captionWords import captionOf
from utils.data.pictures import openPicture
from utils.files.ownFiles import runFolder
from utils.plotter import saveFigure

EXAMPLES = 5
LINES = 6  # that stand below a caption, at most
CAPTION_LETTERS, LINE_LETTERS = 50, 68  # in a line


def plotImagesAndCaptions(model, modelParam, config, dataLoader):
    """Draws the first five validation images with captions, as examples.png.

    Returns:
        The picture's path.
    """
    loader = dataLoader.myDataDicts['val']
    images = [loader.dataset[index] for index in range(min(EXAMPLES, len(loader.dataset)))]
    model.net.eval()
    tokens = model.greedyTokens(loader.collate_fn(images))
    path = runFolder(modelParam, 'img_dir', 'examples.png')
    saveFigure(examplesFigure(
        (openPicture(modelParam['data_dir'], image['imgPath']),
         captionOf(dataLoader.vocabulary, caption), image['original_captions'])
        for image, caption in zip(images, tokens)), path)
    print(f'Examples with captions: {path}')
    return path


def examplesFigure(examples):
    """A figure of examples one below the other, each an image with texts on its right.

    Args:
        examples: triples of a picture, or None where the image is missing; its predicted caption;
            and lines that stand below that, cut where they are longer than the figure is wide.
    """
    examples = list(examples)
    figure = Figure(figsize=(9, 2.1 * len(examples)), layout='constrained')
    rows = figure.subplots(len(examples), 2, width_ratios=[3, 6], squeeze=False)
    for (left, right), (picture, caption, lines) in zip(rows, examples):
        left.axis('off')
        right.axis('off')
        if picture is None:
            left.text(.5, .5, 'The image is missing.', ha='center')
        else:
            left.imshow(picture)
        head = textwrap.fill(caption, CAPTION_LETTERS, max_lines=2, placeholder=' …')
        right.text(0, .75, head, va='bottom', size=14, weight='bold', parse_math=False)
        below = [textwrap.shorten(line, LINE_LETTERS, placeholder=' …') for line in lines]
        right.text(0, .7, '\n'.join(below[:LINES]), va='top', size=11, linespacing=1.4,
                   parse_math=False)
    return figure
