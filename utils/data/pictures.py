"""Opens pictures that may come from anybody: photos, and the pictures of a data folder."""
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from utils.data.dataFolder import imageFile
from utils.files.regular import openRegular

# No others: some of Pillow's formats start programs on the file's content (EPS: Ghostscript).
FORMATS = ['JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF']
MOST_PIXELS = 120 * 10 ** 6  # of a picture; so many take half a gigabyte of memory
ORIENTATION = 274            # EXIF's number for how the camera was held

warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)  # MOST_PIXELS instead


def openPicture(data_dir, mode, imgPath):
    """An image of 'train' or 'val' as `openPhoto` reads it, or None if it cannot be read."""
    try:
        return openPhoto(imageFile(data_dir, mode, imgPath))[0]
    except ValueError:
        return None


def openPhoto(path, pixels=None):
    """A picture as people see it: upright, in RGB, on white where it is transparent. Of an
    animation the first frame.

    Args:
        path: the file's.
        pixels: how many are needed on each side; a large JPEG is read faster then.

    Returns:
        a PIL picture; the size (width, height) of the whole photo, of which it may be a smaller
        copy.

    Raises:
        ValueError: the file cannot be read as a picture; the message says why.
    """
    try:
        with openRegular(path) as f, Image.open(f, formats=FORMATS) as image:
            size = image.size
            if size[0] * size[1] > MOST_PIXELS:
                raise ValueError(f'more than {MOST_PIXELS:,} pixels')
            if pixels:
                image.draft(None, (pixels, pixels))
            image.load()  # turns a TIFF upright, whose size is the upright one from the start
            if image.getexif().get(ORIENTATION) in (5, 6, 7, 8):
                size = size[::-1]
            return _inRgb(ImageOps.exif_transpose(image)), size
    except UnidentifiedImageError:
        raise ValueError(f'no photo of a known kind ({", ".join(FORMATS)})') from None
    except Exception as error:
        raise ValueError(f'a photo that cannot be read ({error})') from error


def _inRgb(photo):
    if photo.mode == 'F':
        raise ValueError('floating-point numbers')
    if photo.mode.startswith('I'):  # greys of 16 bits, which `convert` would cut off at 255
        values = np.asarray(photo, dtype=np.float32) * (255 / 65535)
        photo = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    if photo.mode.endswith(('A', 'a')) or 'transparency' in photo.info:
        photo = photo.convert('RGBA')
        photo = Image.alpha_composite(Image.new('RGBA', photo.size, 'white'), photo)
    return photo.convert('RGB')
