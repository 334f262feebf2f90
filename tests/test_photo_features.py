"""From photos to features: the network's numbers, regions, files of every kind, the standard."""
import io
import json
import os
import struct
import sys
import time

import numpy as np
import pytest
import torch
from leftovers import needs_proc, python
from numpy.testing import assert_allclose
from PIL import Image

from utils.data import photoFeatures, pictures
from utils.data.photoFeatures import (
    N_FEATURES,
    PIXELS,
    PhotoFeatures,
    applyStandard,
    featuresOfPhotos,
    makeStandard,
    photosIn,
    readStandard,
    squareOf,
)
from utils.data.pictures import openPhoto
from utils.files.errors import UserError

REFERENCE = os.path.join(os.path.dirname(__file__), 'photoFeatures.json')  # every 128th channel
CHANNELS = slice(64, None, 128)


def drawn(seed, width, height):
    """A picture of soft colours and hard edges, from whole numbers alone."""
    y, x = np.mgrid[:height, :width]
    waves = [(x * (3 + seed) + y * (5 + 2 * colour)) * 255 // (3 * width + 5 * height) % 256
             for colour in range(3)]
    picture = np.stack(waves, axis=-1)
    disc = (x - width // 3) ** 2 + (y - height // 2) ** 2 < (height // 4) ** 2
    picture[disc] = (200, 30 * seed, 40)
    picture[(x // 7 + y // 11) % 9 == seed] //= 2
    return Image.fromarray(picture.astype(np.uint8))


@pytest.fixture(scope='module')
def maker():
    return PhotoFeatures(torch.device('cpu'))


class MeanColours:
    """In place of the network: a photo's mean colour in all regions and channels."""

    def __call__(self, squares):
        means = np.stack(squares).mean((1, 2)).repeat(683, axis=1)[:, None, :N_FEATURES] / 999
        return np.tile(means, (1, 10, 1)).astype(np.float32)  # [B, 10, 2048]


def features_of(paths, *look):
    """The features and the faults of photos."""
    broken = {}
    return list(featuresOfPhotos(MeanColours(), paths, broken, 'photos', *look)), broken


@pytest.fixture
def photos(tmp_path):
    """The paths of five photos of different shapes."""
    paths = [str(tmp_path / f'{number}.png') for number in range(5)]
    for number, path in enumerate(paths):
        drawn(number, 90 + 20 * number, 80).save(path)
    return paths


def test_features_are_those_of_the_reference(maker):
    squares = [np.asarray(drawn(seed, PIXELS, PIXELS)) for seed in (1, 2)]
    features = maker(squares)
    assert features.shape == (2, 10, N_FEATURES) and features.dtype == np.float32
    with open(REFERENCE) as f:
        expected = json.load(f)
    assert_allclose(features[:, :, CHANNELS], expected, rtol=1e-4, atol=1e-4)
    assert_allclose(maker(squares[1:])[0], features[1], atol=1e-4)  # a batch of one


@pytest.mark.parametrize('width, height', [(300, 200), (20, 900), (1, 1)])
def test_boxes_are_in_pixels_of_the_photo(width, height, tmp_path):
    Image.new('RGB', (width, height)).save(tmp_path / 'a.png')
    square, boxes = squareOf(str(tmp_path / 'a.png'))
    assert square.shape == (PIXELS, PIXELS, 3) and boxes.shape == (10, 4)
    ninths = boxes * 9 / np.tile((width, height), 2)
    for region, box in ((0, [0, 0, 9, 9]), (3, [4, 0, 9, 5]), (9, [0, 4, 9, 9])):
        assert_allclose(ninths[region], box, rtol=1e-6)


def test_a_large_photo_is_squeezed_to_a_square(tmp_path):
    photo, path = drawn(1, 4 * PIXELS, 3 * PIXELS), str(tmp_path / 'a.jpg')
    photo.save(path, quality=95)
    expected = np.asarray(photo.resize((PIXELS, PIXELS), Image.BICUBIC))
    assert np.abs(squareOf(path)[0] - expected.astype(float)).mean() < 3


def opened(path, pixels=None):
    with openPhoto(path, pixels) as (photo, size):
        return photo, size


def grey(mode):
    """A picture that gets brighter from left to right, in any mode."""
    ramp = np.tile(np.linspace(0, 255, 60).round().astype(np.uint8), (40, 1))
    if mode.startswith('I'):
        return Image.fromarray((ramp * 257.).astype(np.int32 if mode == 'I' else np.uint16))
    picture = Image.fromarray(ramp).convert('RGB')
    return picture.quantize(256) if mode == 'P' else picture.convert(mode)


@pytest.mark.parametrize('mode, ending', [
    ('L', 'jpg'), ('RGB', 'jpg'), ('CMYK', 'jpg'), ('P', 'png'), ('LA', 'png'), ('RGBA', 'png'),
    ('I;16', 'png'), ('I', 'tif'), ('RGBA', 'webp'), ('P', 'gif'), ('L', 'bmp')])
def test_every_mode_looks_the_same(mode, ending, tmp_path):
    path = str(tmp_path / f'photo.{ending}')
    grey(mode).save(path)
    photo, size = opened(path)
    assert photo.mode == 'RGB' and photo.size == size == (60, 40)
    assert np.abs(np.asarray(photo).astype(int) - np.asarray(grey('RGB'))).max() < 12


def test_what_is_transparent_is_white(tmp_path):
    path = str(tmp_path / 'a.png')
    Image.new('RGBA', (4, 4), (50, 60, 70, 0)).save(path)
    assert (np.asarray(opened(path)[0]) == 255).all()
    Image.new('RGB', (4, 4), (50, 60, 70)).quantize(4).save(path, transparency=0)
    assert (np.asarray(opened(path)[0]) == 255).all()


@pytest.mark.parametrize('kind', ['GIF', 'WEBP', 'MPO'])  # the last: JPEGs, as phones make them
def test_an_animation_is_its_first_frame(kind, tmp_path):
    red, *others = (Image.new('RGB', (8, 8), colour) for colour in ('red', 'blue', 'lime'))
    red.save(tmp_path / 'a.jpg', kind, save_all=True, append_images=others)
    seen = opened(str(tmp_path / 'a.jpg'))[0].getpixel((4, 4))
    assert np.abs(np.subtract(seen, (255, 0, 0))).max() < 8


@pytest.mark.parametrize('ending', ['jpg', 'tif'])
@pytest.mark.parametrize('orientation, left, top', [(1, True, True), (3, False, False),
                                                    (6, False, True), (8, True, False)])
def test_photos_are_turned_as_the_camera_says(orientation, left, top, ending, tmp_path):
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:8, :8] = 255  # the camera's own upper left corner
    exif = Image.Exif()
    exif[274] = orientation
    path = str(tmp_path / f'a.{ending}')
    Image.fromarray(pixels).save(path, exif=exif)
    photo, size = opened(path)
    assert photo.size == size == ((32, 64) if orientation > 4 else (64, 32))
    assert min(photo.getpixel((4 if left else size[0] - 4, 4 if top else size[1] - 4))) > 200
    small, size_of_whole = opened(path, 16)
    assert size_of_whole == size and min(small.size) == (16 if ending == 'jpg' else 32)
    assert squareOf(path)[1][0].tolist() == [0, 0, *size]


def test_a_photo_is_turned_though_its_make_is_a_number(tmp_path):
    """Which Pillow cannot write again."""
    make = b'\x0f\x01\x0b\0\x01\0\0\0\x05\0\0\0'
    turned = b'\x12\x01\x03\0\x01\0\0\0\x06\0\0\0'
    exif = b'Exif\0\0II*\0\x08\0\0\0\x02\0' + make + turned + bytes(4)
    drawn(1, 90, 60).save(tmp_path / 'a.jpg', exif=exif)
    photo, size = opened(str(tmp_path / 'a.jpg'))
    assert photo.size == size == (60, 90)


def bmp_of(width, height):
    """A picture that promises so many pixels and has none."""
    return struct.pack('<2s3I3I2H6I', b'BM', 54, 0, 54, 40, width, height, 1, 24, *[0] * 6)


def half(path):
    drawn(1, 90, 90).save(path, 'JPEG')
    os.truncate(path, 900)


def scanned(path):
    """A JPEG of three thousand scans, 60 kB large."""
    progressive = io.BytesIO()
    Image.new('L', (3000, 2000)).save(progressive, 'JPEG', progressive=True)
    data = progressive.getvalue()
    scan = data[data.rindex(b'\xff\xda'):-2]
    content(data[:-2] + scan * 3000 + data[-2:])(path)


def odd_strips(path):
    """A TIFF whose place of the pixels is a text."""
    drawn(1, 9, 9).convert('L').save(path, 'TIFF')
    with open(path, 'rb') as f:
        data = f.read()
    place = data.index(struct.pack('<HHI', 273, 4, 1))
    content(data[:place] + struct.pack('<HHI', 273, 2, 4) + data[place + 8:])(path)


def content(data):
    def write(path):
        with open(path, 'wb') as f:
            f.write(data)

    return write


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
@pytest.mark.parametrize('write, reason', [
    (content(b''), 'no photo'), (content(b'\0\0\0\x18ftypheic'), 'no photo of a known kind'),
    (content(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n'), 'no photo'),
    (content(bmp_of(40000, 30000)), 'cannot be read'),
    (content(bmp_of(12000, 11000)), 'more than 120,000,000 pixels'),
    (content(bmp_of(30, 30)), 'cannot be read'), (half, 'cannot be read'),
    (scanned, 'so many scans'), (odd_strips, 'TypeError'),
    (os.mkdir, 'not a regular file'), (os.mkfifo, 'not a regular file')])
def test_what_cannot_be_read_is_said_and_left_out(write, reason, tmp_path):
    good, bad = str(tmp_path / 'good.jpg'), str(tmp_path / 'bad.jpg')
    drawn(1, 90, 90).save(good)
    write(bad)
    ((path, features, _),), broken = features_of([bad, good])
    assert path == good and features.shape == (10, N_FEATURES)
    assert list(broken) == [bad] and reason in broken[bad]
    assert features_of([bad]) == ([], broken)


def test_a_photo_that_fills_the_memory_is_left_out(photos):
    def look(photo):
        if photo.width == 90:
            raise MemoryError

    made, broken = features_of(photos, look)
    assert [path for path, *_ in made] == photos[1:] and 'MemoryError' in broken[photos[0]]


def test_large_photos_are_in_memory_one_at_a_time(photos, monkeypatch):
    inside, most = [], []

    def look(photo):
        inside.append(photo)
        most.append(len(inside))
        time.sleep(.02)
        inside.remove(photo)

    monkeypatch.setattr(photoFeatures, 'availableCores', lambda: 4)
    for large, expected in ((90 * 80 - 1, 1), (10 ** 6, 4)):
        monkeypatch.setattr(pictures, 'LARGE', large)
        most.clear()
        features_of(photos, look)
        assert max(most) == expected


MEMORY = """
import re, sys
from concurrent.futures import ThreadPoolExecutor
from utils.data.pictures import openPhoto
def see(path):
    with openPhoto(path):
        return int(re.search('VmHWM:([^k]*)', open('/proc/self/status').read())[1])
small, large = sys.argv[1:]
before = see(small)
with ThreadPoolExecutor(4) as pool:
    print((max(pool.map(see, [large] * 8)) - before) // 1024)
"""


@needs_proc
def test_threads_do_not_keep_the_memory_of_large_photos(photos, tmp_path):
    large = str(tmp_path / 'large.png')
    Image.new('RGBA', (5000, 2400)).save(large, compress_level=1)  # twice 48 MB of memory
    assert 90 < int(python('-c', MEMORY, photos[0], large).stdout) < 180


def test_the_bar_moves_with_every_photo(photos, monkeypatch):
    counts = []

    def bar(items, doing, modelParam, total):
        for count, item in enumerate(items, 1):
            yield item
            counts.append((count, total))

    monkeypatch.setattr(photoFeatures, 'progressBar', bar)
    assert len(features_of(photos)[0]) == 5
    assert counts == [(count, 5) for count in range(1, 6)]


def test_photos_of_a_folder_and_its_folders(tmp_path):
    top = tmp_path / 'top'
    for name in ('top/.hidden', 'top/x.jpg', 'elsewhere'):
        (tmp_path / name).mkdir(parents=True)
    for name in ('top/A.JPG', 'top/.hidden/f.jpg', 'top/notes.txt', 'top/jpg', 'elsewhere/c.Png',
                 'elsewhere/.e.jpg'):
        (tmp_path / name).write_bytes(b'')
    (top / 'b').symlink_to(tmp_path / 'elsewhere')
    for name in ('loop', 'again', 'x.jpg/up'):  # each would double what there is to walk
        (top / name).symlink_to(top)
    names = [os.path.relpath(path, top) for path in photosIn(str(top))]
    assert names == ['A.JPG', 'b/c.Png']
    assert photosIn(str(tmp_path / 'missing')) == []


def test_the_standard_brings_the_channels_to_one_size(photos, monkeypatch):
    standard = makeStandard(MeanColours(), photos + [photos[0] + 'missing'])
    features = np.stack([features for _, features, _ in features_of(photos)[0]])
    standardised = applyStandard(standard, features)
    assert standardised.dtype == np.float32
    assert_allclose(standardised.mean((0, 1)), 0, atol=1e-4)
    assert_allclose(standardised.std((0, 1)), 1, atol=1e-3)
    monkeypatch.setattr(photoFeatures, 'PHOTOS_FOR_STANDARD', 1)  # then no channel differs
    photos = photos[:4]
    one, same = (makeStandard(MeanColours(), order) for order in (photos, photos[::-1]))
    assert one == same != standard and set(one['deviation']) == {1}


def test_the_standard_of_a_folder(tmp_path):
    assert readStandard(str(tmp_path)) is None
    path = tmp_path / photoFeatures.STANDARD_FILE
    path.write_text(json.dumps({'maker': photoFeatures.MAKER}))
    assert readStandard(str(tmp_path)) == {'maker': photoFeatures.MAKER}
    path.write_text('{"maker": "another"}')
    with pytest.raises(UserError, match='Build the folder anew'):
        readStandard(str(tmp_path))


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'efficientnet_lite_pytorch', None)
    with pytest.raises(UserError, match='pip install --no-deps efficientnet_lite_pytorch '):
        PhotoFeatures(torch.device('cpu'))
