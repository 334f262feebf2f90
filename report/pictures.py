"""The pages with images: what a model says about them, and where its attention looks."""
import io

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from reportlab.platypus import Image, Spacer, Table

from report.story import CELL, COLUMN, STRONG, drawnFigure, paragraph
from utils.data.pictures import openPicture
from utils.pages.examplePictures import REFERENCES, ownCaptions

SHARES = (.9, .7, .5, .3, .1)  # where the five examples stand in the order of METEOR
WIDTH, HEIGHT = 150, 112       # of an example's picture, at most, in points
MOST_WORDS = 8                 # of the caption whose attention is drawn
PER_ROW = 4                    # pictures of the attention
DARK = .25                     # brightness of what is not attended to


def examplesPage(story, run, name, data_dir):
    """Five images with predicted and human captions.

    Args:
        story: a `Story`.
        run: a validated `Run`, or None.
        name: the run's model in words.
        data_dir: the data folder.
    """
    own_captions = ownCaptions(data_dir)
    story.newPage(f'Five images: what the model says, and {own_captions}')
    if run is None:
        story.text('No model has been validated, so there are no captions to show: '
                   'python Validate_task1.py makes them.')
        return
    story.text(f'All by {name}. The images were not picked by eye: in the order of the METEOR of '
               f'all {len(run.details):,} validation images they stand at 90, 70, 50, 30 and '
               f'10\u00a0%. Bold: predicted, greedy and free running. Below: {own_captions}.')
    ranked = sorted(run.details, key=lambda image: image['meteor'])
    for share in SHARES:
        image = ranked[int(share * len(ranked))]
        texts = [paragraph(image['caption'], STRONG),
                 paragraph(f"METEOR {100 * image['meteor']:.1f}\u00a0%", CELL)]
        texts += [paragraph(f'– {reference}', CELL) for reference in image['references'][:REFERENCES]]
        story.add(Table([[_example(image, data_dir), texts]], [WIDTH + 20, COLUMN - WIDTH - 20],
                        style=[('VALIGN', (0, 0), (-1, -1), 'TOP'),
                               ('LEFTPADDING', (0, 0), (-1, -1), 0)]))
    story.figure(f'Predicted captions, {own_captions}, and METEOR of the one against the others.')


def _example(image, data_dir):
    """A validation image for the page, or that it is missing, in words."""
    picture = openPicture(data_dir, 'val', image['imgPath'])
    if picture is None:
        return paragraph(f"{image['imgPath']} is not on this machine", CELL)
    picture.thumbnail((4 * WIDTH, 4 * HEIGHT))
    png = io.BytesIO()
    picture.save(png, 'PNG')
    return Image(png, WIDTH, HEIGHT, kind='proportional', hAlign='LEFT')


def attentionPage(story, run, data_dir):
    """Where task 4's attention looks, for one caption; arguments as those of `examplesPage`."""
    story.newPage('Task 4: where the attention looks')
    details = run.details or [] if run else []
    images = [image for image in details
              if len(image.get('attention', [])) in range(1, MOST_WORDS + 1)]
    if not images:
        story.text('There is no attention to show before python Exercise_Train_task4.py and '
                   'python Validate_task4.py have run.')
        return
    image = max(images, key=lambda image: image['meteor'])
    words, attention = image['caption'].split(), np.array(image['attention'])  # T, [T, regions]
    story.text('For each word the attention layer spreads a weight of one over '
               f'{attention.shape[1]} detections. Of the validation images whose captions have up '
               f'to {MOST_WORDS} words, this is the one with the highest METEOR.')
    picture = openPicture(data_dir, 'val', image['imgPath'])
    if picture is None or 'boxes' not in image:
        figure = _cells(words, attention)
        caption = ('The weights of the detections word by word; white is 0, black 1. Where the '
                   'detections lie in the image is not known here.')
    else:
        figure = _pictures(words, attention, np.array(image['boxes']), np.asarray(picture))
        caption = ('For each word, every detection as bright as its weight; the most attended '
                   'outlined, with its weight.')
    story.figure(caption, paragraph(f"“{image['caption']}”", STRONG), Spacer(0, 6),
                 drawnFigure(figure))


def _cells(words, attention):
    """The weights [T, regions] as grey cells, a column for each word."""
    figure = Figure(figsize=(COLUMN / 72, 2.5), layout='constrained')
    axes = figure.subplots()
    axes.imshow(attention.T, cmap='Greys', vmin=0, vmax=1, aspect='auto')
    axes.set_xticks(range(len(words)), words, parse_math=False)
    axes.set_ylabel('detection')
    return figure


def _pictures(words, attention, boxes, pixels):
    """The image [height, width, 3] once for each word, its boxes as bright as their weights."""
    rows = int(np.ceil(len(words) / PER_ROW))
    figure = Figure(figsize=(COLUMN / 72, 1.5 * rows), layout='constrained')
    grid = figure.subplots(rows, PER_ROW, squeeze=False).flat
    for axes in grid:
        axes.axis('off')
    height, width = pixels.shape[:2]
    edge = .012 * width
    for axes, word, weights in zip(grid, words, attention):
        light = np.full((height, width, 1), DARK)
        for (x1, y1, x2, y2), weight in zip(np.rint(boxes).astype(int), weights / weights.max()):
            light[y1:y2, x1:x2] = np.maximum(light[y1:y2, x1:x2], DARK + (1 - DARK) * weight)
        axes.imshow((pixels * light).astype(np.uint8))
        axes.set_title(f'{word}  {100 * weights.max():.0f}\u00a0%', size=9.5, parse_math=False)
        # the outline lies within the image, so that all four sides are seen
        x1, y1, x2, y2 = boxes[weights.argmax()]
        x1, x2 = np.clip((x1, x2), edge, width - 1 - edge)
        y1, y2 = np.clip((y1, y2), edge, height - 1 - edge)
        for color, line_width in (('black', 2.6), ('white', 1.4)):  # seen on any image
            axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color,
                                     linewidth=line_width))
    return figure
