"""Opens pictures that may come from anybody: photos, and the pictures of a data folder."""
import contextlib
import math
import threading
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from utils.data.dataFolder import imageFile
from utils.files.errors import faultIn, openRegular

# No others: some of Pillow's formats start programs on the file's content (EPS: Ghostscript).
FORMATS = ['JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF']
MOST_PIXELS = 120 * 10 ** 6  # of a picture; so many take half a gigabyte of memory
MOST_SCANS = 20              # of a progressive JPEG so large, more of smaller ones; ten are usual
LARGE = 10 ** 7              # pixels; of larger pictures only one at a time is in memory
ORIENTATION = 274            # EXIF's number for how the camera was held

_oneLarge = threading.Lock()
Image.core.set_block_size(2 ** 26)  # with smaller ones, threads keep what they free
warnings.filterwarnings('ignore', module='PIL')  # what cannot be used is said in a sentence


def openPicture(data_dir, imgPath):
    """A validation image as `openPhoto` reads it, or None if it cannot be read."""
    try:
        with openPhoto(imageFile(data_dir, 'val', imgPath)) as (photo, _):
            return photo
    except ValueError:
        return None


@contextlib.contextmanager
def openPhoto(path, pixels=None):
    """A picture as people see it, for a `with` block: upright, in RGB, on white where it is
    transparent; the first frame of an animation.

    Args:
        path: the file's.
        pixels: how many are needed on each side; a large JPEG is read faster then.

    Yields:
        a PIL picture, which may be smaller than the photo; the photo's size (width, height).

    Raises:
        ValueError: the file cannot be read as a picture, or the block fails; the message says why.
    """
    try:
        with openRegular(path) as f, Image.open(f, formats=FORMATS) as image:
            size = image.size
            if math.prod(size) > MOST_PIXELS:
                raise ValueError(f'more than {MOST_PIXELS:,} pixels')
            if pixels:
                image.draft(None, (pixels, pixels))
            in_memory = math.prod(image.size)
            if 'progressive' in image.info:  # a JPEG that is read whole, once for every scan
                in_memory = math.prod(size)
                f.seek(0)
                if in_memory * f.read().count(b'\xff\xda') > MOST_PIXELS * MOST_SCANS:
                    raise ValueError('so many scans that reading it would take minutes')
            with _oneLarge if in_memory > LARGE else contextlib.nullcontext():
                image.load()  # turns a TIFF upright, whose size is the upright one from the start
                if image.getexif().get(ORIENTATION) in (5, 6, 7, 8):
                    size = size[::-1]
                image.info.pop('exif', None)  # which Pillow would write again, and cannot always
                ImageOps.exif_transpose(image, in_place=True)
                yield _inRgb(image), size
    except UnidentifiedImageError:
        raise ValueError(f'no photo of a known kind ({", ".join(FORMATS)})') from None
    except Exception as error:
        raise ValueError(f'a photo that cannot be read ({faultIn(error)})') from error


def _inRgb(photo):
    if photo.mode == 'F':
        raise ValueError('floating-point numbers')
    if photo.mode.startswith('I'):  # greys of 16 bits, which `convert` would cut off at 255
        values = np.asarray(photo, dtype=np.float32) * (255 / 65535)
        photo = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    if photo.has_transparency_data:
        if photo.mode != 'RGBA':
            photo = photo.convert('RGBA')
        white = Image.new('RGB', photo.size, 'white')
        white.paste(photo, mask=photo)
        return white
    return photo.convert('RGB')
