"""Example images with what the model and people say about them."""
import os
import textwrap

from matplotlib.figure import Figure

from utils.files.project import runFolder
from utils.plotter import saveFigure

EXAMPLES = 5


def plotImagesAndCaptions(model, modelParam, config, dataLoader):
    """Draws the first five validation images whose pictures can be read, with predicted and human captions, as examples.png.

    Returns:
        The picture's path, or None where there is no picture.
    """
    loader = dataLoader.myDataDicts['val']
    examples = []
    for image in map(loader.dataset.__getitem__, range(len(loader.dataset))):
        pixels = dataLoader.picture('val', image['imgPath'])
        if pixels is not None:
            examples.append((pixels, image))
        if len(examples) == EXAMPLES:
            break
    if not examples:
        print(f"No example pictures: {dataLoader.imageFile('val', '')} holds none of the validation images.")
        return None
    model.net.eval()
    predictions = model.greedyTokens(loader.collate_fn([image for _, image in examples]))
    figure = Figure(figsize=(10, 2.3 * len(examples)), layout='constrained')
    rows = figure.subplots(len(examples), 2, width_ratios=(1, 2), squeeze=False)
    for (picture, text), (pixels, image), tokens in zip(rows, examples, predictions):
        picture.imshow(pixels)
        picture.axis('off')
        text.axis('off')
        text.text(0, 1, textwrap.fill(dataLoader.wordsOf(tokens), 60), va='top', fontsize=13, weight='bold')
        people = '\n'.join(textwrap.fill(' '.join(caption.split()), 90, initial_indent='– ', subsequent_indent='   ')
                           for caption in image['original_captions'])
        text.text(0, 0.66, people, va='top', fontsize=9)
    figure.suptitle("bold: predicted, greedy and running free; below: the image's own captions")
    path = os.path.join(runFolder(modelParam, 'img_dir'), 'examples.png')
    saveFigure(figure, path)
    print(f'Examples with captions: {path}')
    return path
