"""The pages with images: what a model says about them, and where its attention looks."""
import math

import numpy as np
from matplotlib.patches import Rectangle

from report.story import STRONG, newFigure
from utils.data.pictures import openPicture
from utils.pages.examplePictures import examplesFigure

SHARES = .9, .7, .5, .3, .1  # where the five examples stand in the order of METEOR
MOST_WORDS = 12                # of a caption, whose attention is drawn
PER_ROW = 4                    # pictures of the attention


def examplesPage(story, runs, data_dir):
    """Five images with predicted and reference captions.

    Args:
        story: a `Story`.
        runs: dict task → `Run`.
        data_dir: the data folder.
    """
    story.newPage('Five images with predicted and reference captions')
    validated = [task for task, run in runs.items() if run.details]
    if not validated:
        story.text('No model has been validated, so there are no captions to show: '
                   'python Validate_task1.py makes them.')
        return
    task = max(validated)
    ranked = sorted(runs[task].details, key=lambda image: image['meteor'])
    story.text(f"""All by the model of task {task}. The images were not hand-picked: they are at the
               90th, 70th, 50th, 30th and 10th percentile of METEOR among all {len(ranked):,}
               validation images.""")
    examples = []
    for share in SHARES:
        image = ranked[int(share * len(ranked))]
        lines = [f"METEOR {100 * image['meteor']:.1f} %", *image['references']]
        examples.append((openPicture(data_dir, image['imgPath']), image['caption'], lines))
    story.figure('Bold: predicted, greedy and free running. Below: METEOR and references.',
                 examplesFigure(examples))


def attentionPage(story, runs, data_dir):
    """Where task 4's attention looks, for one caption; arguments as those of `examplesPage`."""
    story.newPage('Task 4: where the attention looks')
    details = runs[4].details if 4 in runs else []
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
    picture = openPicture(data_dir, image['imgPath'])
    if picture and 'boxes' in image:
        figure = attentionFigure(picture, words, attention, image['boxes'])
        story.figure("""For each word, the detections: the larger its weight, the clearer a
                     detection's box. Above the image stands the largest weight.""", figure)
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
