"""The pages with images: what a model says about them, and where its attention looks."""
import io
import math

import numpy as np
from matplotlib.patches import Rectangle
from reportlab.platypus import Image, Table

from report.story import COLUMN, NOTE, STRONG, newFigure, paragraph
from utils.data.pictures import openPicture
from utils.pages.examplePictures import REFERENCES, ownCaptions

SHARES = (.9, .7, .5, .3, .1)  # where the five examples stand in the order of METEOR
WIDTH, HEIGHT = 150, 112       # of an example's picture, at most, in points
MOST_WORDS = 12                # of a caption, whose attention is drawn
PER_ROW = 4                    # pictures of the attention
DARK = .25                     # brightness of what is not attended to


def examplesPage(story, task, run, data_dir):
    """Five images with predicted and human captions.

    Args:
        story: a `Story`.
        task, run: a task's validated `Run`, or None.
        data_dir: the data folder.
    """
    own_captions = ownCaptions(data_dir)
    story.newPage(f'Five images: what the model says, and {own_captions}')
    if run is None:
        story.text('No model has been validated, so there are no captions to show: '
                   'python Validate_task1.py makes them.')
        return
    story.text(f"""All by the model of task {task}. The images were not picked by eye: in the order
               of the METEOR of all {len(run.details):,} validation images they stand at 90, 70,
               50, 30 and 10\u00a0%. Bold: predicted, greedy and free running. Below:
               {own_captions}.""")
    ranked = sorted(run.details, key=lambda image: image['meteor'])
    for share in SHARES:
        image = ranked[int(share * len(ranked))]
        notes = [f"METEOR {100 * image['meteor']:.1f}\u00a0%", *image['references'][:REFERENCES]]
        texts = [paragraph(image['caption'], STRONG), *(paragraph(note, NOTE) for note in notes)]
        story.add(Table([[_example(image, data_dir), texts]], [WIDTH + 20, COLUMN - WIDTH - 20],
                        style=[('VALIGN', (0, 0), (-1, -1), 'TOP')]))
    story.figure(f'Predicted captions, {own_captions}, and METEOR of the one against the others.')


def _example(image, data_dir):
    """A validation image for the page, or that it is missing, in words."""
    picture = openPicture(data_dir, 'val', image['imgPath'])
    if picture is None:
        return paragraph(f"{image['imgPath']} is not on this machine", NOTE)
    picture.thumbnail((4 * WIDTH, 4 * HEIGHT))
    png = io.BytesIO()
    picture.save(png, 'PNG')
    return Image(png, WIDTH, HEIGHT, kind='proportional')


def attentionPage(story, run, data_dir):
    """Where task 4's attention looks, for one caption; arguments as those of `examplesPage`."""
    story.newPage('Task 4: where the attention looks')
    details = run.details if run else []
    images = [image for image in details if image.get('attention')]
    if not images:
        story.text('There is no attention to show before python Exercise_Train_task4.py and '
                   'python Validate_task4.py have run.')
        return
    image = max(images, key=lambda image: image['meteor'])
    words = image['caption'].split()[:MOST_WORDS]           # T
    attention = np.array(image['attention'])[:MOST_WORDS]   # [T, regions]
    story.text(f"""For each word the attention layer spreads a weight of one over
               {attention.shape[1]} detections. Of the validation images this is the one whose
               caption has the highest METEOR:""")
    story.text(image['caption'], STRONG)
    picture = openPicture(data_dir, 'val', image['imgPath'])
    if picture and 'boxes' in image:
        boxes = np.rint(image['boxes']).astype(int)
        figure = attentionFigure(np.asarray(picture), words, attention, boxes)
        story.figure("""For each word, every detection as bright as its weight; the most attended
                     outlined, with its weight.""", figure)
    else:
        rows = [[f'{100 * weight:.0f}' for weight in weights] for weights in attention.T]
        story.table("""The weights of the detections in percent, word by word. Where they lie in
                    the image is not known here.""", [words] + rows, leftColumns=len(words))


def attentionFigure(pixels, words, attention, boxes):
    """An image once for each word, as bright as the weights there.

    Args:
        pixels: [height, width, 3].
        words: a list of T.
        attention: [T, regions].
        boxes: [regions, 4], x1, y1, x2, y2 in whole pixels.
    """
    rows = math.ceil(len(words) / PER_ROW)
    figure = newFigure(1.5 * rows)
    for number, (word, weights) in enumerate(zip(words, attention), start=1):
        light = np.full((*pixels.shape[:2], 1), DARK)
        for (x1, y1, x2, y2), weight in zip(boxes, weights / weights.max()):
            light[y1:y2, x1:x2] = np.maximum(light[y1:y2, x1:x2], DARK + (1 - DARK) * weight)
        axes = figure.add_subplot(rows, PER_ROW, number)
        axes.axis('off')
        axes.imshow((pixels * light).astype(np.uint8))
        axes.set_title(f'{word}  {100 * weights.max():.0f}\u00a0%', size=9.5, parse_math=False)
        x1, y1, x2, y2 = boxes[weights.argmax()]
        for color, width in (('black', 2.6), ('white', 1.4)):  # to be seen on any image
            axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color,
                                     linewidth=width, clip_on=False))
    return figure
