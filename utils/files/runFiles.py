"""Reading the JSON files in a run's folder."""
import os

from utils.files.atomic import readJson


def readRunFile(folder, name, default):
    """The value in a JSON file of a run's folder, or `default` if there is no such file.

    Raises:
        UserError: the file is no JSON.
    """
    return readJson(os.path.join(folder, name), default)
