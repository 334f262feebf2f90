"""Packs what is handed in into one zip: code, trained models, a new report, README, requirements.

    python report/make_zip.py

Then it checks the zip: it unzips it into an empty folder, validates one task there, and compares
METEOR with the report's.
"""
import glob
import io
import os
import re
import subprocess
import sys
import tempfile
import zipfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..'))

import utils  # noqa: F401 (before torch)
from report import deliver_models, make_report, submitter
from report.runs import SAME, UNNAMED, runsOfTasks
from utils.data.dataFolder import dataDir, isDemo
from utils.files.errors import UserError
from utils.files.ownFiles import PROJECT, inProject, readJson, writeAtomically
from utils.scripts.endings import runScript

# What is packed, and nothing else: no data, no caches, nothing that lies there by chance.
PACKED = '''*.py README.md requirements.txt .pytest.ini utils/*.py utils/*/*.py utils/*/*.html
    tests/*.py tests/*/*.py tests/*.json report/*.py report/*.md report/*.pdf report/*.png
    report/models/*/*.json report/models/*/*.pt'''.split()


def zipName():
    """The zip's file name, with the submitter's name."""
    return '_'.join(['IN5400_exercise2', *re.findall(r'\w+', submitter.SUBMITTER)]) + '.zip'


def checkReady(runs):
    """Refuses a zip without a name, or with models of others among the submitter's own.

    Args:
        runs: dict task → `Run`, as `runsOfTasks` returns it.

    Raises:
        UserError: nothing has been packed or replaced; the message says what to do.
    """
    if submitter.SUBMITTER.strip() in ('', UNNAMED):
        raise UserError('Put your name into report/submitter.py, then run this again: the report '
                        'and the file name of the zip take it from there.')
    others = {task: run.folder for task, run in runs.items() if not run.isOwn()}
    if 0 < len(others) < len(runs):
        raise UserError(f"The models of tasks {', '.join(map(str, others))} would not be yours. "
                        'Train these tasks first, then run this again; or, to hand in without '
                        f"them, move away {', '.join(others.values())}.")


def packedFiles(project):
    """The paths of the files to pack, relative to the project's folder."""
    return sorted(os.path.relpath(path, project) for pattern in PACKED
                  for path in glob.glob(f'{glob.escape(project)}/{pattern}'))


def writeZip(project, path):
    """Writes the zip `path`; its files lie in one folder, named like the zip."""
    folder, _ = os.path.splitext(os.path.basename(path))
    data = io.BytesIO()
    with zipfile.ZipFile(data, 'w', zipfile.ZIP_DEFLATED, strict_timestamps=False) as packed:
        for name in packedFiles(project):
            packed.write(os.path.join(project, name), os.path.join(folder, name))
    writeAtomically(path, data.getbuffer())


def check(path, task, run):
    """Validates `task` in an unzipped copy, and compares its METEOR with that of `run`.

    Raises:
        UserError: validation fails there, or METEOR differs by more than `SAME`.
    """
    script = f'Validate_task{task}.py'
    print(f'Running {script} in an unzipped copy …')
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(path) as packed:
            packed.extractall(folder)
        project = os.path.join(folder, *os.listdir(folder))
        if not isDemo(dataDir()):  # a relative DATA_ROOT is relative to this project
            writeAtomically(os.path.join(project, 'utils', 'dataRoot.py'),
                            f'DATA_ROOT = {dataDir()!r}\n'.encode())
        # the copy's models are to be validated, not those of a folder elsewhere
        code = (f"import Validate_task{task} as script; "
                "script.modelParam['modelsDir'] = 'storedModels'; script.runScript(script.main)")
        done = subprocess.run([sys.executable, '-c', code], cwd=project, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, universal_newlines=True)
        if done.returncode:
            raise UserError(f'{path} is written, but {script} fails, unzipped:\n{done.stdout}')
        scores = readJson(os.path.join(project, 'storedModels', run.name,
                                       'scores_validation.json'), {})
    meteor, expected = scores['meteor'], run.scores['meteor']
    if abs(meteor - expected) > SAME:
        raise UserError(f'{path} is written, but {script} in the unzipped folder gives METEOR '
                        f'{meteor:.4f} where the report has {expected:.4f}. Has the model, the '
                        'data or this project changed since? Run the same command again.')
    print(f'Checked: in the unzipped folder {script} gives METEOR {meteor:.4f}, as in the report.')


def main():
    checkReady(runsOfTasks())
    print('The models to hand in, each validated as it is saved:')
    deliver_models.deliverAll()
    print('Writing the report …')
    runs = make_report.main()
    path = inProject(zipName())
    writeZip(PROJECT, path)
    print(f'The zip: {path}, {os.path.getsize(path) / 1e6:.1f} MB.')
    task = min(runs)
    check(path, task, runs[task])


if __name__ == '__main__':
    runScript(main)
