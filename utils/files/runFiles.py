"""Reading the JSON files in a run's folder."""
import os

from utils.files.atomic import readJson
from utils.files.errors import UserError

# how a file's name begins → the keys of the file, or of each entry if it is a list
KEYS = {
    'history': {'epoch'},
    'times': {'epoch', 'training_seconds', 'scoring_seconds', 'device'},
    'details': {'image_id', 'imgPath', 'caption', 'references', 'meteor'},
    'scores': {'epoch', 'loss', 'meteor', 'meteor_tokens', 'bleu_4', 'cider', 'rouge'},
    'halves': {'images', 'choosing', 'epoch', 'meteor', 'bleu_4', 'of'},
    'captions': {'image_id', 'caption'},
}


def readRunFile(folder, name, default):
    """The value in a JSON file of a run's folder, or `default` if there is no such file.

    Raises:
        UserError: the file is no JSON, or lacks keys that the scripts write.
    """
    path = os.path.join(folder, name)
    value = readJson(path, None)
    if value is None:
        return default
    keys = next(KEYS[kind] for kind in KEYS if name.startswith(kind))
    for entry in value if isinstance(value, list) else [value]:
        if not isinstance(entry, dict) or not keys <= entry.keys():
            raise UserError(f'{path} is broken: it lacks what the scripts write there. Move it '
                            'away, then start the same command again.')
    return value
