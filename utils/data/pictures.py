"""Opening pictures of strangers: photos, and the pictures of a data folder."""
import struct
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from utils.data.dataFolder import imageFile
from utils.files.regular import openRegular

# what photo folders hold; some of pillow's other formats start programs on what strangers have written (EPS: Ghostscript)
FORMATS = ['JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF']
MOST_PIXELS = 120 * 10 ** 6  # of a picture; that many take half a gigabyte of memory
ORIENTATION = 274            # EXIF's number for how the camera was held

warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)  # what is too large is refused here


def openPicture(data_dir, mode, imgPath):
    """An image of 'train' or 'val' as `openPhoto` reads it; None where its file is missing, broken or of another format."""
    try:
        return openPhoto(imageFile(data_dir, mode, imgPath))[0]
    except ValueError:
        return None


def openPhoto(path, pixels=None):
    """A picture as people see it: turned as its camera says, in RGB, on white where it is transparent, its first frame.

    Args:
        path: the file's.
        pixels: how many are enough on each side; a large JPEG is read faster then.

    Returns:
        a PIL picture; its size (width, height), or that of the whole of which it is a smaller copy.

    Raises:
        ValueError: the file is no picture that can be read; the message says why.
    """
    try:
        with openRegular(path) as f, Image.open(f, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError('a photo of too many pixels')
            size = image.size
            if pixels:
                image.draft(None, (pixels, pixels))
            turned = image.getexif().get(ORIENTATION) in (5, 6, 7, 8)
            return _inRgb(ImageOps.exif_transpose(image)), size[::-1] if turned else size
    except UnidentifiedImageError:
        raise ValueError(f'no photo of a known kind ({", ".join(FORMATS)})') from None
    except Image.DecompressionBombError:
        raise ValueError('a photo of too many pixels') from None
    except (OSError, SyntaxError, EOFError, struct.error) as error:              # pillow's words for a broken one
        raise ValueError(f'a photo that cannot be read ({error})') from None


def _inRgb(photo):
    if photo.mode.startswith(('I', 'F')):                                        # 16 bits and more
        values = np.asarray(photo, dtype=np.float32)
        values = values * (255 / 65535 if values.max() > 255 else 1 if values.max() > 1 else 255)
        photo = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    if photo.mode in ('LA', 'La', 'PA', 'RGBA', 'RGBa') or 'transparency' in photo.info:
        photo = photo.convert('RGBA')
        photo = Image.alpha_composite(Image.new('RGBA', photo.size, 'white'), photo)
    return photo.convert('RGB')
