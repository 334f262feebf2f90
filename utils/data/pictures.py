"""Opening the pictures of a data folder."""
from PIL import Image

from utils.data.dataFolder import imageFile
from utils.files.regular import openRegular

# what photo folders hold; some of pillow's other formats start programs on what strangers have written (EPS: Ghostscript)
FORMATS = ['JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF']


def openPicture(data_dir, mode, imgPath):
    """An image of 'train' or 'val' as a PIL picture in RGB; None where its file is missing, broken or of another format."""
    try:
        with openRegular(imageFile(data_dir, mode, imgPath)) as f, Image.open(f, formats=FORMATS) as image:
            return image.convert('RGB')
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # pillow's words for a broken file
        return None
