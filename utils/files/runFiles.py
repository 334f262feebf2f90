"""Reading the JSON files in a run's folder."""
import os

from utils.files.atomic import readJson
from utils.files.errors import UserError


def readRunFile(folder, name, default):
    """The value in a JSON file of a run's folder, or `default` if there is no such file.

    Raises:
        UserError: the file is no JSON, or no dict or list of dicts about an epoch or an image.
    """
    path = os.path.join(folder, name)
    value = readJson(path, None)
    if value is None:
        return default
    for entry in value if isinstance(value, list) else [value]:
        if not isinstance(entry, dict) or not entry.keys() & {'epoch', 'image_id'}:
            raise UserError(f'{path} is broken: it does not hold what the scripts write there. '
                            'Move it away, then start the same command again.')
    return value
