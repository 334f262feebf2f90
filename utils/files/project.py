"""Where the project and the folders of its runs lie."""
import os

from utils.files.errors import UserError

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def inProject(path):
    """An absolute path from one relative to the folder of the scripts, wherever the script was started."""
    return os.path.join(PROJECT, path)


def runFolder(modelParam, kind='modelsDir'):
    """The folder of this run's models ('modelsDir') or of its plots ('img_dir'), created when missing.

    Raises:
        UserError: it cannot be created.
    """
    folder = os.path.join(modelParam[kind], modelParam['modelName'])
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(f'The folder {folder} cannot be made: {error.strerror}. The scripts write there; copy the project '
                        f"to a place where you may write, or set modelParam['{kind}'] to one.") from None
    return folder
