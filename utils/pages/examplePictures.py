"""Example images with predicted and reference captions, as one picture."""
import os
import textwrap

from matplotlib.figure import Figure

from utils.pages.figures import plotFolder, saveFigure

EXAMPLES = 5
REFERENCES = 5  # of an image are shown, at most
CAPTION_LETTERS, REFERENCE_LETTERS = 75, 78  # in a line
WIDTH, PICTURE, CAPTION_LINE, REFERENCE_LINE = 9, 1.9, .35, .23  # inches; all but WIDTH are heights


def plotImagesAndCaptions(model, modelParam, config, dataLoader):
    """Draws the first five validation images that can be read, with captions, as examples.png.

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
    rows, heights = [], []
    for picture, caption, references in examples:
        captions = textwrap.wrap(caption, CAPTION_LETTERS) or ['']
        lines = []
        for reference in references[:REFERENCES]:
            lines += textwrap.wrap(f'– {reference}', REFERENCE_LETTERS)
        rows.append((picture, '\n'.join(captions), '\n'.join(lines)))
        heights.append(max(PICTURE, len(lines) * REFERENCE_LINE) + len(captions) * CAPTION_LINE)
    figure = Figure(figsize=(WIDTH, sum(heights) + CAPTION_LINE), layout='constrained')
    figure.suptitle('Bold: predicted, greedy and free-running. Below: reference captions.',
                    x=.005, ha='left', size=10, color='.35')
    parts = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, (picture, caption, lines) in zip(parts, rows):
        part.suptitle(caption, x=.005, ha='left', size=14, weight='bold', parse_math=False)
        left, right = part.subplots(1, 2, gridspec_kw={'width_ratios': (3, 7)})
        left.imshow(picture)
        left.set_anchor('NW')
        right.text(0, 1, lines, va='top', linespacing=1.4, parse_math=False)
        left.axis('off')
        right.axis('off')
    saveFigure(figure, path)
