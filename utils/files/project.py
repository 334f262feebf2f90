"""Where the project and the folders of its runs lie."""
import os

from utils.files.errors import UserError

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def inProject(path):
    """The absolute path of one that is relative to the project, wherever the script starts."""
    return os.path.join(PROJECT, path)


def runFolder(modelParam, kind='modelsDir'):
    """The folder of a run's models ('modelsDir') or plots ('img_dir'), created when missing.

    Raises:
        UserError: it cannot be created.
    """
    folder = os.path.join(modelParam[kind], modelParam['modelName'])
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(f'The folder {folder} cannot be made: {error.strerror}. The scripts write '
                        'there; copy the project to a place where you may write, or set '
                        f"modelParam['{kind}'] to one.") from None
    return folder
