"""Copies of the project, to start scripts as a user does, on other data and for fewer epochs."""
import os
import shutil

from utils.files.ownFiles import PROJECT

DRIVER = '''{first}
import {script} as script
from utils.scripts.endings import runScript

script.config.update({config!r})
script.modelParam.update({modelParam!r})
if __name__ == '__main__':
    runScript(script.main)
'''


def copy_of_project(folder, root):
    """Copies code and scripts into the new folder, for the data in `root`; returns the folder."""
    shutil.copytree(os.path.join(PROJECT, 'utils'), os.path.join(folder, 'utils'))
    for name in os.listdir(PROJECT):
        if name.endswith('.py'):
            shutil.copy(os.path.join(PROJECT, name), folder)
    write(folder, 'utils/dataRoot.py', f'DATA_ROOT = {root!r}\n')
    return folder


def write_driver(folder, name, script, config=(), first='', **modelParam):
    """Writes a script that runs one of the project's, with some of its settings changed.

    Args:
        first: statements to begin with.
    """
    write(folder, name, DRIVER.format(first=first, script=script, config=dict(config),
                                      modelParam=modelParam))


def write(folder, name, text):
    with open(os.path.join(folder, name), 'w', encoding='utf-8') as f:
        f.write(text)
