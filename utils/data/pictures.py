"""Opening the pictures of a data folder."""
from PIL import Image

from utils.data.dataFolder import imageFile


def openPicture(data_dir, mode, imgPath):
    """An image of 'train' or 'val' as a PIL picture in RGB; None where its file is missing or broken."""
    try:
        with Image.open(imageFile(data_dir, mode, imgPath)) as image:
            return image.convert('RGB')
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # pillow's words for a broken file
        return None
