"""The report's pages with images: their captions, and where the attention looks."""
import io
import math

import numpy as np
from matplotlib.patches import Rectangle
from reportlab.platypus import Image, Table

from report.story import COLUMN, NOTE, STRONG, newFigure, paragraph
from utils.data.pictures import openPicture
from utils.pages.examplePictures import REFERENCES

SHARES = (.9, .7, .5, .3, .1)  # where the five examples stand in the order of METEOR
WIDTH, HEIGHT = 150, 112       # of an example's picture, at most, in points
MOST_WORDS = 12                # of a caption, whose attention is drawn
PER_ROW = 4                    # pictures of the attention


def examplesPage(story, task, run, data_dir):
    """Five images with predicted and reference captions.

    Args:
        story: a `Story`.
        task, run: a task's validated `Run`, or None.
        data_dir: the data folder.
    """
    if run is None:
        return
    story.newPage('Five images with predicted and reference captions')
    story.text(f"""All by the model of task {task}. The images were not picked by eye: in the order
               of the METEOR of all {len(run.details):,} validation images they stand at 90, 70,
               50, 30 and 10\u00a0%. Bold: predicted, greedy and free running.""")
    ranked = sorted(run.details, key=lambda image: image['meteor'])
    for share in SHARES:
        image = ranked[int(share * len(ranked))]
        notes = [f"METEOR {100 * image['meteor']:.1f}\u00a0%"]
        notes += [f'– {reference}' for reference in image['references'][:REFERENCES]]
        texts = [paragraph(image['caption'], STRONG), *(paragraph(note, NOTE) for note in notes)]
        story.flowables.append(Table(
            [[_example(image, data_dir), texts]], [WIDTH + 20, COLUMN - WIDTH - 20],
            style=[('VALIGN', (0, 0), (-1, -1), 'TOP')], spaceAfter=6))


def _example(image, data_dir):
    """A validation image for the page, or a sentence that it is missing."""
    picture = openPicture(data_dir, 'val', image['imgPath'])
    if picture is None:
        return paragraph(f"{image['imgPath']} is not on this machine", NOTE)
    picture.thumbnail((4 * WIDTH, 4 * HEIGHT))
    png = io.BytesIO()
    picture.save(png, 'PNG')
    return Image(png, WIDTH, HEIGHT, kind='proportional')


def attentionPage(story, run, data_dir):
    """Where task 4's attention looks, for one caption; arguments as those of `examplesPage`."""
    images = [image for image in run.details if image.get('attention')] if run else []
    if not images:
        return
    story.newPage('Task 4: where the attention looks')
    image = max(images, key=lambda image: image['meteor'])
    words = image['caption'].split()[:MOST_WORDS]           # T
    attention = np.array(image['attention'])[:MOST_WORDS]   # [T, regions]
    story.text(f"""For each word the attention layer spreads a weight of one over
               {attention.shape[1]} detections. Of the validation images this is the one whose
               caption has the highest METEOR:""")
    story.text(image['caption'], STRONG)
    picture = openPicture(data_dir, 'val', image['imgPath'])
    if picture and 'boxes' in image:
        story.figure("""For each word, the detections: the larger its weight, the clearer a
                     detection's box. Above the image stands the largest weight.""",
                     attentionFigure(picture, words, attention, image['boxes']))
    else:
        rows = [[f'{100 * weight:.0f}' for weight in weights] for weights in attention.T]
        story.table("""The weights of the detections in percent, word by word. Where they lie in
                    the image is not known here.""", [words, *rows], leftColumns=len(words))


def attentionFigure(picture, words, attention, boxes):
    """A picture once for each word, with the boxes as clear as their weights.

    Args:
        picture: a PIL image.
        words: a list of T.
        attention: [T, regions].
        boxes: [regions, 4], x1, y1, x2, y2 in pixels.
    """
    rows = math.ceil(len(words) / PER_ROW)
    figure = newFigure(1.5 * rows)
    for number, (word, weights) in enumerate(zip(words, attention), start=1):
        axes = figure.add_subplot(rows, PER_ROW, number)
        axes.axis('off')
        axes.imshow(picture)
        axes.set_title(f'{word}  {100 * weights.max():.0f}\u00a0%', parse_math=False)
        for (x1, y1, x2, y2), weight in zip(boxes, weights / weights.max()):
            axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, clip_on=False,
                                     edgecolor='orange', alpha=weight, linewidth=2))
    return figure
