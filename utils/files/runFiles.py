"""The JSON files in a run's folder: what they hold, and reading them back."""
import os
import re

from utils.files.atomic import readJson
from utils.files.errors import UserError

NUMBER = (int, float)
# file name → what it must be like, as `hasForm` takes it
FORMS = {
    r'history\.json': [{'epoch': int, 'learning_rate?': NUMBER, 'train_loss?': NUMBER, 'reward?': NUMBER, 'val_loss?': NUMBER,
                        'meteor?': NUMBER, 'bleu_4?': NUMBER}],
    # without validation_seconds, as in older files, training_seconds are those of the validation loss as well
    r'times\.json': [{'epoch': int, 'training_seconds': NUMBER, 'validation_seconds?': NUMBER, 'scoring_seconds': NUMBER,
                      'device': str}],
    r'captions_.*\.json': [{'image_id': (int, str), 'caption': str}],
    r'details_validation\.json': [{'image_id': (int, str), 'imgPath': str, 'caption': str, 'references': [str], 'meteor': NUMBER,
                                   'attention?': [[NUMBER]], 'boxes?': [[NUMBER]]}],
    r'scores_validation\.json': {'epoch': int, 'loss': NUMBER, 'meteor': NUMBER, 'meteor_tokens': NUMBER, 'bleu_4': NUMBER,
                                 'cider': NUMBER, 'rouge': NUMBER},
    r'halves\.json': {'images': [int], 'choosing': [[NUMBER]], 'epoch': int, 'meteor': NUMBER, 'bleu_4': NUMBER, 'of': [[NUMBER]]},
}


def hasForm(value, form):
    """Whether a value is built as `form` shows: a type, or several in a tuple; [form], a list of such values; or a dict of
    forms, whose keys the value must have, except where a '?' follows the key."""
    if isinstance(form, list):
        return isinstance(value, list) and all(hasForm(item, form[0]) for item in value)
    if isinstance(form, dict):
        names = {key: key.rstrip('?') for key in form}
        return isinstance(value, dict) and all(hasForm(value[name], form[key]) if name in value else name != key
                                               for key, name in names.items())
    return isinstance(value, form)


def readRunFile(folder, name, default):
    """The value in a JSON file of a run's folder, or `default` where there is no such file.

    Raises:
        UserError: the file does not hold what the scripts write there.
    """
    path = os.path.join(folder, name)
    value = readJson(path, None)
    form = next(form for pattern, form in FORMS.items() if re.fullmatch(pattern, name))
    if value is not None and not hasForm(value, form):
        raise UserError(f'{path} is broken: it does not hold what the scripts write there. Move it away, then start the same '
                        'command again.')
    return default if value is None else value
