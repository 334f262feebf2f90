"""Pages of images: what a model says about them, and where its attention looks."""
import numpy as np
from matplotlib.patches import Rectangle

from report.layout import COLUMN, LEFT, RIGHT, WIDTH
from utils.data.pictures import openPicture
from utils.pages.examplePictures import REFERENCES, ownCaptions
from utils.pages.textLines import wrapped

SHARES = (.9, .7, .5, .3, .1)  # where the five examples stand in the order of METEOR
WORDS_SHOWN = 10               # at most, of a caption whose attention is drawn
DARK = .25                     # brightness of what is not attended to
PICTURES = 'For each word, every detection as bright as its weight; the most attended outlined, with its weight.'
WEIGHTS = ('The weights of the detections word by word, in per cent, from 10 on in numbers; where they lie in the image is '
           'not known here.')


def examplesPage(document, run, name, data_dir):
    """Five images with predicted and human captions.

    Args:
        document: a `Document`.
        run: a validated `Run`, or None.
        name: the run's model in words.
        data_dir: the data folder.
    """
    own_captions = ownCaptions(data_dir)
    document.newPage()
    document.heading(f'Five images: what the model says, and {own_captions}')
    if run is None:
        document.paragraph('No model has been validated, so there are no captions to show: python Validate_task1.py '
                           'makes them.')
        return
    document.paragraph(
        f'All by {name}. The images were not picked by eye: of all {len(run.details):,} validation images in order of '
        'their own METEOR, they stand at 90, 70, 50, 30 and 10\u00a0%. Bold: predicted, greedy and running free. '
        f'Below: {own_captions}.')
    document.skip(4)
    ranked = sorted(run.details, key=lambda image: image['meteor'])
    for share in SHARES:
        _example(document, ranked[int(share * len(ranked))], data_dir)
    document.caption('Figure', f'Predicted captions, {own_captions}, and METEOR of the one against the others.')


def _example(document, image, data_dir):
    width, height = 150, 112
    document.need(height + 12)
    top, left = document.y, LEFT + width + 14
    room = WIDTH - RIGHT - left
    drawImage(document.axes(LEFT, top, width, height), image, data_dir)
    document.skip(2)
    document.lines(wrapped(image['caption'], room, 11.5, 'bold'), left, 11.5, weight='bold')
    document.lines([f"METEOR {100 * image['meteor']:.1f}\u00a0%"], left, 8.5, color='.3')
    document.skip(2)
    for reference in image['references'][:REFERENCES]:
        document.lines(wrapped('– ' + ' '.join(reference.split()), room, 9), left, 9)
    document.y = max(document.y, top + height) + 12


def pixelsOf(image, data_dir):
    """A validation image [height, width, 3], None where its file is missing or broken."""
    picture = openPicture(data_dir, 'val', image['imgPath'])
    return None if picture is None else np.asarray(picture)


def drawImage(axes, image, data_dir, light=1):
    """Draws an image, as bright as `light` says, a number or [height, width]; a frame where its file is missing."""
    pixels = pixelsOf(image, data_dir)
    axes.set(xticks=[], yticks=[])
    if pixels is None:
        axes.text(.5, .5, f"{image['imgPath']}\nis not on this machine", ha='center', va='center', size=8,
                  transform=axes.transAxes)
        return
    axes.axis('off')
    axes.imshow((pixels * np.broadcast_to(light, pixels.shape[:2])[..., None]).astype(np.uint8))


def movement(image):
    """The share of the attention's weight that moves to other detections from one word to the next, on average."""
    return np.abs(np.diff(image['attention'], axis=0)).sum(1).mean() / 2


def attentionPages(document, run, data_dir):
    """Where task 4's attention looks, of two captions and on average; arguments as `examplesPage`'s."""
    document.newPage()
    document.heading('Task 4: where the attention looks')
    images = [image for image in run.details or [] if image.get('attention')] if run else []
    shown = sorted((image for image in images if 3 <= len(image['attention']) <= WORDS_SHOWN), key=movement)
    if not shown:
        document.paragraph('There is no attention to show before python Exercise_Train_task4.py and python '
                           'Validate_task4.py have run.')
        return
    highest = np.concatenate([image['attention'] for image in images]).max(1).mean()
    regions = len(images[0]['attention'][0])
    moved = np.mean([movement(image) for image in images if len(image['attention']) > 1])
    document.paragraph(
        f'For each word the attention layer spreads a weight of one over {regions} detections. Over all words of all '
        f'predicted captions the highest of the weights is {100 * highest:.0f}\u00a0% on average, where {100 / regions:.0f}\u00a0% '
        f'would be no preference, and from one word to the next {100 * moved:.0f}\u00a0% of the weight moves to other '
        f'detections. Two captions of up to {WORDS_SHOWN} words are shown: that during which the attention moves most, '
        'and the median one.')
    for image in (shown[-1], shown[len(shown) // 2]):
        _attentionExample(document, image, data_dir)
    document.caption('Figure', PICTURES if _hasPictures(shown[-1], data_dir) else WEIGHTS)
    _attentionByPosition(document, images)


def _hasPictures(image, data_dir):
    return 'boxes' in image and pixelsOf(image, data_dir) is not None


def _attentionExample(document, image, data_dir):
    """A caption's attention: a picture per word where boxes are known, else a table of grey cells."""
    words, attention = image['caption'].split(), np.array(image['attention'])    # T, [T, 10]
    has_pictures = _hasPictures(image, data_dir)
    per_row, gap, title = 4, 10, 18
    width = (COLUMN - gap * (per_row - 1)) / per_row
    height = width * .75
    rows = -(-len(words) // per_row)
    room = rows * (height + title) if has_pictures else 190
    document.need(room + 60)
    document.lines([f"“{image['caption']}”"], size=11, weight='bold')
    document.skip(6)
    if has_pictures:
        for number, (word, weights) in enumerate(zip(words, attention)):
            row, column = divmod(number, per_row)
            axes = document.axes(LEFT + column * (width + gap), document.y + title + row * (height + title), width, height)
            _drawAttended(axes, image, data_dir, weights)
            axes.set_title(f'{word}  {100 * weights.max():.0f}\u00a0%', size=9.5, pad=3, parse_math=False)
    else:
        axes = document.axes(LEFT + 34, document.y, COLUMN - 34, 140)
        _greyCells(axes, attention, 1)
        for label in axes.set_xticklabels(words, rotation=35, ha='right', rotation_mode='anchor'):
            label.set_parse_math(False)
    document.skip(room + 12)


def _drawAttended(axes, image, data_dir, weights):
    """The image, each box as bright as its weight, that of the highest outlined inside: all four sides are seen."""
    light = np.full(pixelsOf(image, data_dir).shape[:2], DARK)                   # [height, width]
    for (x1, y1, x2, y2), weight in zip(np.rint(image['boxes']).astype(int), weights / weights.max()):
        light[y1:y2, x1:x2] = np.maximum(light[y1:y2, x1:x2], DARK + (1 - DARK) * weight)
    drawImage(axes, image, data_dir, light)
    edge = .012 * light.shape[1]
    x1, y1, x2, y2 = image['boxes'][int(np.argmax(weights))]
    (x1, x2), (y1, y2) = (np.clip(sides, edge, size - 1 - edge) for sides, size in zip(((x1, x2), (y1, y2)), light.shape[::-1]))
    for color, line_width in (('black', 2.6), ('white', 1.4)):                   # to be seen on any image
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linewidth=line_width))


def _greyCells(axes, weights, highest):
    """Weights [T, 10] in per cent as cells, a column per step, both numbered from one; white is 0, black `highest`."""
    axes.imshow(np.transpose(weights), cmap='Greys', vmin=0, vmax=highest, aspect='auto')
    for (step, detection), weight in np.ndenumerate(weights):
        if weight >= .1:
            axes.text(step, detection, f'{100 * weight:.0f}', ha='center', va='center', size=8,
                      color='white' if weight > .5 * highest else 'black')
    steps, detections = weights.shape
    axes.set(xticks=range(steps), xticklabels=range(1, steps + 1), yticks=range(detections),
             yticklabels=range(1, detections + 1), ylabel='detection')


def _attentionByPosition(document, images):
    """The mean weight of each detection for the first word, the second, …, as far as a twentieth of the captions reach."""
    longest = max(len(image['attention']) for image in images)
    at = [[image['attention'][step] for image in images if len(image['attention']) > step] for step in range(longest)]
    means = np.array([np.mean(weights, axis=0) for weights in at if len(weights) >= len(images) / 20])  # [steps, 10]
    document.heading('The attention from the first word to the last', keep=240)
    axes, = document.plots(180)
    _greyCells(axes, means, means.max())
    axes.set_xlabel('word of the caption')
    document.caption('Figure', 'The mean weight of each detection in per cent, in the order of the files, for the first word of a '
                               f'caption, the second, and so on, over {len(images):,} validation images, as far as a twentieth '
                               'of them reach.')
