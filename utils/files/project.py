"""Where the project and the folders of its runs lie."""
import os

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def inProject(path):
    """The absolute path of one that is relative to the project, wherever the script starts."""
    return os.path.join(PROJECT, path)


def runFolder(modelParam, kind='modelsDir'):
    """The folder of a run's models ('modelsDir') or plots ('img_dir'), created when missing."""
    folder = os.path.join(modelParam[kind], modelParam['modelName'])
    os.makedirs(folder, exist_ok=True)
    return folder
