"""The built-in demo data: drawn scenes in the course's layout, so that every script runs where there is no COCO."""
import contextlib
import glob
import json
import os
import pickle
import shutil
import socket
import time

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tqdm import tqdm

from utils.data.captionWords import captionRecord, wordsOfCaption
from utils.data.imageFiles import DETECTIONS
from utils.demo.scenes import HEIGHT, HORIZON, WIDTH, Scene
from utils.generateVocabulary import generateVocabulary

N_TRAIN, N_VAL = 2000, 500
CROP = 32                             # a detection's pixels are brought to CROP × CROP
N_SHAPE, N_COLOUR = 1536, 512         # feature channels
THRESHOLD = .4                        # similarity from which on a shape's channel answers


class FeatureExtractor:
    """A small convolutional network with fixed random filters, in place of Detectron2's.

    One part of its channels sees edges in grey pictures, the other part sees colours without their places, so that the
    max over the detections keeps which shapes and which colours there are, but not which colour belongs to which shape.
    """

    def __init__(self):
        generator = torch.Generator().manual_seed(2017)
        filters = torch.randn(24, 1, 7, 7, generator=generator)
        self.filters = F.avg_pool2d(filters, 3, 1, 1, count_include_pad=False)  # smooth: strokes, not dots
        self.filters = self.filters - self.filters.mean((2, 3), keepdim=True)
        self.colours = torch.rand(N_COLOUR, 3, generator=generator)             # the colour that each channel looks for
        steps = (torch.arange(1, CROP, 3) - (CROP - 1) / 2) / (CROP / 3)
        centre = torch.exp(-steps ** 2)
        self.window = torch.outer(centre, centre) / centre.sum() ** 2           # the middle of a box counts most
        scenes = [Scene(f'filters {number}') for number in range(N_SHAPE // DETECTIONS + 1)]
        crops = np.concatenate([cropsOf(scene.draw(), detections(scene)) for scene in scenes])[:N_SHAPE]
        self.mean, self.deviation = 0, 1
        edges = self.edges(torch.from_numpy(crops))
        self.mean, self.deviation = edges.mean(0), edges.std(0)
        self.patterns = F.normalize((edges - self.mean) / self.deviation)       # the shape that each channel looks for

    def edges(self, crops):
        grey = crops.float().mean(-1)[:, None] / 255
        grey = (grey - grey.mean((2, 3), keepdim=True)) / (grey.std((2, 3), keepdim=True) + .05)
        edges = F.conv2d(grey, self.filters)
        edges = F.adaptive_avg_pool2d(torch.cat([edges, -edges], 1).relu(), 5).flatten(1)
        return (edges - self.mean) / self.deviation

    def __call__(self, crops):
        """Features ≥ 0 of boxes: uint8 [n, CROP, CROP, 3] → float32 [n, 2048]."""
        crops = torch.from_numpy(crops)
        shapes = (F.normalize(self.edges(crops)) @ self.patterns.t() - THRESHOLD).relu()
        pixels = crops[:, 1::3, 1::3].float().flatten(1, 2) / 255                # every third is enough
        near = (1 - torch.cdist(pixels, self.colours.expand(len(pixels), -1, -1)) / .3).relu()
        near = self.window.flatten() @ near
        return torch.cat([6 * shapes, 8 * near], 1).numpy()


def detections(scene):
    """Ten boxes of a scene, float32 [10, 4], the surest first: one thing of every group, the other things, then regions.

    A detector is surer of some kinds than of others (the order of `KINDS`) and meets the edges of a thing not quite.
    """
    rng = scene.rng
    boxes = [group.boxes[0] for group in scene.groups]
    boxes += [box for group in scene.groups for box in group.boxes[1:]]
    boxes = [[value + rng.uniform(-2, 2) for value in box] for box in boxes]
    boxes += [[min(box[0] for box in group.boxes), min(box[1] for box in group.boxes),
               max(box[2] for box in group.boxes), max(box[3] for box in group.boxes)]
              for group in scene.groups if group.count > 1]
    boxes += [[0, 0, WIDTH, HEIGHT], [0, 0, WIDTH, HORIZON], [0, HORIZON, WIDTH, HEIGHT], [0, 0, WIDTH / 2, HEIGHT],
              [WIDTH / 2, 0, WIDTH, HEIGHT]]
    while len(boxes) < DETECTIONS:
        x, y = rng.uniform(0, WIDTH - 60), rng.uniform(0, HEIGHT - 60)
        boxes.append([x, y, x + 60, y + 60])
    return np.clip(np.array(boxes[:DETECTIONS], np.float32), 0, [WIDTH, HEIGHT, WIDTH, HEIGHT]).astype(np.float32)


def cropsOf(picture, boxes):
    """The pixels of the boxes, uint8 [10, CROP, CROP, 3]."""
    return np.stack([np.asarray(picture.resize((CROP, CROP), Image.BILINEAR, tuple(map(float, box)))) for box in boxes])


def makeDemoData(root, n_train=N_TRAIN, n_val=N_VAL):
    """Draws the demo data into the new folder `root`; does nothing where it exists. The same numbers give the same data.

    The folder appears when it is complete, not before.

    Args:
        root: the folder's path.
        n_train, n_val: how many images.
    """
    _removeAbandoned(root)
    if os.path.exists(root):
        return
    partial_root = f'{os.path.normpath(root)}.partial{os.getpid()}@{socket.gethostname()}'
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the steps are small: more threads would wait for each other, above all on a busy machine
    try:
        _fill(partial_root, n_train, n_val)
        os.replace(partial_root, root)
    except OSError:
        if not os.path.exists(root):  # else another process was faster
            raise
    finally:
        torch.set_num_threads(threads)
        shutil.rmtree(partial_root, ignore_errors=True)


def _removeAbandoned(root):
    """Removes what processes that were killed while drawing have left: at once where such a process of this machine is gone,
    and where it cannot be looked for after an hour without a change."""
    for folder in glob.glob(glob.escape(os.path.normpath(root)) + '.partial*'):
        pid, _, host = os.path.basename(folder).rpartition('.partial')[2].partition('@')
        with contextlib.suppress(OSError):
            changed = max(os.stat(path).st_mtime for path in (folder, *glob.glob(os.path.join(glob.escape(folder), '*'))))
            if time.time() - changed > 3600 or host == socket.gethostname() and _isGone(pid):
                shutil.rmtree(folder, ignore_errors=True)


def _isGone(pid):
    """Whether there is no process of this number on this machine, as far as it can be asked."""
    if os.name != 'posix' or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)  # sends nothing
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # it is another person's
        pass
    return False


def _fill(root, n_train, n_val):
    scenes = [Scene(str(number)) for number in range(n_train + n_val)]
    captions = [scene.captions() for scene in scenes]
    vocabulary = generateVocabulary([wordsOfCaption(caption) for group in captions for caption in group])
    os.makedirs(os.path.join(root, 'vocabulary'))
    _save(os.path.join(root, 'vocabulary', 'vocabulary.pickle'), vocabulary)
    extractor = FeatureExtractor()
    with tqdm(total=len(scenes), desc='drawing the demo data', unit='image', disable=None, leave=False) as progress:
        for split, numbers in (('train', range(n_train)), ('val', range(n_train, n_train + n_val))):
            folders = [os.path.join(root, f'{split.capitalize()}2017_detectron2_lim10{kind}features') for kind in ('', 'max')]
            for folder in folders + [os.path.join(root, f'{split}2017')]:
                os.makedirs(folder)
            for number in numbers:
                _save_image(root, split, folders, number, scenes[number], captions[number], extractor, vocabulary)
                progress.update()
            _save_annotations(root, split, numbers, captions)


def _save_image(root, split, folders, number, scene, captions, extractor, vocabulary):
    picture, boxes = scene.draw(), detections(scene)
    name = f'{number:012d}'
    picture.save(os.path.join(root, f'{split}2017', f'{name}.jpg'), quality=88)
    record = {**captionRecord(f'{name}.jpg', captions, vocabulary['wordToToken']), 'boxes': boxes}
    features = extractor(cropsOf(picture, boxes))
    for folder, values in zip(folders, (features, features.max(0))):
        _save(os.path.join(folder, f'{name}.pickle'), {'cnn_features': values, **record})


def _save_annotations(root, split, numbers, captions):
    """The captions in the form of COCO's annotation files."""
    images = [{'id': number, 'file_name': f'{number:012d}.jpg', 'width': WIDTH, 'height': HEIGHT} for number in numbers]
    pairs = [(number, caption) for number in numbers for caption in captions[number]]
    annotations = [{'id': id, 'image_id': number, 'caption': caption} for id, (number, caption) in enumerate(pairs)]
    os.makedirs(os.path.join(root, 'annotations'), exist_ok=True)
    with open(os.path.join(root, 'annotations', f'captions_{split}2017.json'), 'w') as f:
        json.dump({'info': {'description': 'drawn scenes'}, 'images': images, 'annotations': annotations}, f)


def _save(path, value):
    with open(path, 'wb') as f:
        pickle.dump(value, f, protocol=4)
