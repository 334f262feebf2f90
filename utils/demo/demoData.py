"""The built-in demo data: drawn scenes in the course's layout, for machines without COCO."""
import os
import tempfile

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from utils.data.captionWords import captionRecord, wordsOfCaption
from utils.data.dataFolder import imageFile, makeFolders, vocabularyFile, writeImage
from utils.data.imageFiles import DETECTIONS
from utils.demo.scenes import HEIGHT, HORIZON, PICTURE, WIDTH, Scene
from utils.files.ownFiles import writePickle
from utils.generateVocabulary import generateVocabulary

N_TRAIN, N_VAL = 2000, 500
CROP = 32                      # a detection is resized to CROP × CROP
N_SHAPE, N_COLOUR = 1536, 512  # feature channels
THRESHOLD = .4                 # a shape's channel responds above this similarity


class FeatureExtractor:
    """A small convolutional network with fixed random filters, in place of Detectron2's.

    Shape channels see edges in grey pictures; colour channels see colours, but not where they are.
    The max over the detections thus keeps which shapes and which colours there are, but not which
    colour belongs to which shape.
    """

    def __init__(self):
        generator = torch.Generator().manual_seed(2017)
        filters = torch.randn(24, 1, 7, 7, generator=generator)
        # smooth filters see strokes, not dots
        filters = F.avg_pool2d(filters, 3, 1, 1, count_include_pad=False)
        self.filters = filters - filters.mean((2, 3), keepdim=True)
        # the colour that each channel looks for
        self.colours = torch.rand(N_COLOUR, 3, generator=generator)
        # the middle of a box counts most
        steps = (torch.arange(1, CROP, 3) - (CROP - 1) / 2) / (CROP / 3)
        centre = torch.exp(-steps ** 2)
        self.window = torch.outer(centre, centre) / centre.sum() ** 2
        # the shape that each channel looks for
        scenes = [Scene(f'filters {number}') for number in range(N_SHAPE // DETECTIONS + 1)]
        crops = np.concatenate([cropsOf(scene.draw(), detections(scene)) for scene in scenes])
        edges = self._edges(torch.from_numpy(crops[:N_SHAPE]))
        self.mean, self.deviation = edges.mean(0), edges.std(0)
        self.patterns = self._shapes(edges)

    def _edges(self, crops):
        grey = crops.float().mean(-1)[:, None] / 255
        grey = (grey - grey.mean((2, 3), keepdim=True)) / (grey.std((2, 3), keepdim=True) + .05)
        edges = F.conv2d(grey, self.filters)
        return F.adaptive_avg_pool2d(torch.cat([edges, -edges], 1).relu(), 5).flatten(1)

    def _shapes(self, edges):
        return F.normalize((edges - self.mean) / self.deviation)

    def __call__(self, crops):
        """Features ≥ 0 of boxes: uint8 [n, CROP, CROP, 3] → float32 [n, 2048]."""
        crops = torch.from_numpy(crops)
        shapes = (self._shapes(self._edges(crops)) @ self.patterns.t() - THRESHOLD).relu()
        pixels = crops[:, 1::3, 1::3].float().flatten(1, 2) / 255  # every third is enough
        distances = torch.cdist(pixels, self.colours)
        near = self.window.flatten() @ (1 - distances / .3).relu()
        return torch.cat([6 * shapes, 8 * near], 1).numpy()


def detections(scene):
    """Ten boxes of a scene, float32 [10, 4], as a detector might find them.

    First one thing of every group, then the other things, not quite exact; then whole groups, parts
    of the picture and random boxes.
    """
    rng = scene.rng
    things = [group.boxes[0] for group in scene.groups]
    things += [box for group in scene.groups for box in group.boxes[1:]]
    boxes = [[value + rng.uniform(-2, 2) for value in box] for box in things]
    for group in scene.groups:
        if group.count > 1:
            left, top, right, bottom = zip(*group.boxes)
            boxes.append([min(left), min(top), max(right), max(bottom)])
    boxes += [PICTURE, [0, 0, WIDTH, HORIZON], [0, HORIZON, WIDTH, HEIGHT],
              [0, 0, WIDTH / 2, HEIGHT], [WIDTH / 2, 0, WIDTH, HEIGHT]]
    while len(boxes) < DETECTIONS:
        x, y = rng.uniform(0, WIDTH - 60), rng.uniform(0, HEIGHT - 60)
        boxes.append([x, y, x + 60, y + 60])
    return np.float32(boxes[:DETECTIONS]).clip(0, np.float32([WIDTH, HEIGHT] * 2))


def cropsOf(picture, boxes):
    """The pixels of the boxes, uint8 [10, CROP, CROP, 3]."""
    return np.stack([picture.resize((CROP, CROP), Image.BILINEAR, box) for box in boxes.tolist()])


def makeDemoData(root, n_train=N_TRAIN, n_val=N_VAL):
    """Draws the demo data into the new folder `root`; does nothing where it exists.

    It is drawn in a temporary folder beside it, and renamed when it is complete. The same numbers
    give the same data.

    Args:
        root: the folder's path.
        n_train, n_val: how many images.
    """
    if os.path.exists(root):
        return
    print(f'The demo data are drawn, once, into {root} …')
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the steps are small: more threads would wait for each other
    parent, name = os.path.split(root)
    try:
        with tempfile.TemporaryDirectory(dir=parent, prefix=f'{name}.partial') as folder:
            complete = os.path.join(folder, name)
            _draw(complete, n_train, n_val)
            os.replace(complete, root)
    except OSError:
        if not os.path.exists(root):  # else another process was faster
            raise
    finally:
        torch.set_num_threads(threads)


def _draw(root, n_train, n_val):
    scenes = [Scene(str(number)) for number in range(n_train + n_val)]
    captions = [scene.captions() for scene in scenes]
    vocabulary = generateVocabulary(
        [wordsOfCaption(caption) for of_scene in captions for caption in of_scene])
    makeFolders(root)
    writePickle(vocabularyFile(root), vocabulary)
    extractor = FeatureExtractor()
    for number, scene in enumerate(scenes):
        mode, name = 'train' if number < n_train else 'val', f'{number:012d}'
        picture, boxes = scene.draw(), detections(scene)
        picture.save(imageFile(root, mode, f'{name}.jpg'), quality=88)
        writeImage(root, mode, name, {
            'cnn_features': extractor(cropsOf(picture, boxes)),
            **captionRecord(f'{name}.jpg', captions[number], vocabulary['wordToToken']),
            'boxes': boxes})
