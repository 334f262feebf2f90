"""Packs what is handed in into one zip: code, trained models, the report made anew, README, requirements.

    python report/make_zip.py

Then checks itself: unzips into an empty folder, validates one task there, and compares the scores with the report's.
"""
import glob
import io
import os
import subprocess
import sys
import tempfile
import unicodedata
import zipfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from report import deliver_models, make_report, submitter  # noqa: E402
from report.runs import SAME, UNNAMED, inWords, runsOfTasks  # noqa: E402
from utils.data.dataFolder import dataDir, isDemo  # noqa: E402
from utils.files.atomic import PARTIAL, writeAtomically  # noqa: E402
from utils.files.errors import UserError  # noqa: E402
from utils.files.project import PROJECT, inProject  # noqa: E402
from utils.files.runFiles import readRunFile  # noqa: E402
from utils.scripts.endings import runScript  # noqa: E402

# What is packed, and nothing else: no data, caches, git, or whatever else lies about.
PACKED = ('*.py', 'README.md', 'requirements.txt', '.pytest.ini', 'utils/*.py', 'utils/*/*.py', 'utils/*/*.html', 'tests/*.py',
          'tests/*/*.py', 'tests/*.json', 'report/*.py', 'report/*.md', 'report/*.pdf', 'report/*.png', 'report/models/*/*.json',
          'report/models/*/*.pt')


def zipName():
    """The zip's file name, from the submitter's in ASCII letters, digits and underscores."""
    name = submitter.SUBMITTER.translate(str.maketrans({'ø': 'o', 'Ø': 'O', 'æ': 'ae', 'Æ': 'Ae'}))
    letters = unicodedata.normalize('NFKD', name)
    name = ''.join(letter for letter in letters if letter.isascii() and letter.isalnum() or letter.isspace())
    return f"IN5400_exercise2_{'_'.join(name.split())}.zip"


def checkReady(runs):
    """Refuses what nobody would want to hand in: without a name, or with models of others among the submitter's own.

    Args:
        runs: dict task → `Run` or None, as `runsOfTasks` returns it.

    Raises:
        UserError: nothing has been packed or replaced; the message says what to do.
    """
    if submitter.SUBMITTER.strip() in ('', UNNAMED):
        raise UserError('Put your name into report/submitter.py, then run this again: the report and the file name of the zip '
                        'take it from there.')
    others = {task: run for task, run in runs.items() if run and not run.bySubmitter()}
    if others and any(run and run.bySubmitter() for run in runs.values()):
        trainings = ', '.join(f'python Exercise_Train_task{task}.py' for task in others)
        folders = ', '.join(run.folder for run in others.values())
        raise UserError(f'You have not trained {inWords(others)}: the zip would hold the delivered models there. Train them first '
                        f'({trainings}), then run this again. To hand in without them, move away {folders}.')


def packedFiles(project):
    """The paths of the files to pack, relative to the project's folder."""
    paths = [path for pattern in PACKED for path in glob.glob(os.path.join(glob.escape(project), *pattern.split('/')))]
    return sorted(os.path.relpath(path, project) for path in paths
                  if os.path.isfile(path) and not os.path.basename(os.path.dirname(path)).startswith(PARTIAL))


def writeZip(project, path):
    """Writes the zip `path`; its files lie in one folder, named like the zip."""
    folder = os.path.splitext(os.path.basename(path))[0]
    data = io.BytesIO()
    with zipfile.ZipFile(data, 'w', zipfile.ZIP_DEFLATED) as packed:
        for name in packedFiles(project):
            packed.write(os.path.join(project, name), f"{folder}/{name.replace(os.sep, '/')}")
    writeAtomically(path, data.getbuffer())


def check(path, task, run):
    """Unzips into an empty folder, validates `task` there, and compares its scores with those of `run`, the report's.

    Raises:
        UserError: validation fails there, or a score differs by more than `SAME`.
    """
    with tempfile.TemporaryDirectory() as empty:
        with zipfile.ZipFile(path) as packed:
            packed.extractall(empty)
        project = os.path.join(empty, os.path.splitext(os.path.basename(path))[0])
        if not isDemo(dataDir()):  # a relative DATA_ROOT is relative to this project, not to the unzipped one
            with open(os.path.join(project, 'utils', 'dataRoot.py'), 'w', encoding='utf-8') as f:
                f.write(f'DATA_ROOT = {dataDir()!r}\n')
        # nothing but the zip's own code
        environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
        done = subprocess.run([sys.executable, f'Validate_task{task}.py'], cwd=project, env=environment,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
        if done.returncode:
            raise UserError(f'{path} is written, but Validate_task{task}.py fails in the unzipped folder:\n{done.stdout}')
        scores = readRunFile(os.path.join(project, 'storedModels', run.name), 'scores_validation.json', {})
    wrong = [key for key, score in run.scores.items() if abs(scores.get(key, -1) - score) > SAME]
    if wrong:
        raise UserError(f'{path} is written, but Validate_task{task}.py in the unzipped folder gives '
                        + ', '.join(f'{key} {scores.get(key)} where the report has {run.scores[key]}' for key in wrong)
                        + '. Has the model, the data or this project changed since? Run the same command again.')
    print(f"Checked: unzipped, Validate_task{task}.py gives METEOR {scores['meteor']:.4f}, the report has "
          f"{run.scores['meteor']:.4f}.")


def main():
    checkReady(runsOfTasks())
    deliver_models.deliverAll()
    runs = make_report.main()
    path = inProject(zipName())
    writeZip(PROJECT, path)
    print(f'The zip: {path}, {os.path.getsize(path) / 1e6:.1f} MB, {len(packedFiles(PROJECT))} files.', flush=True)
    check(path, *next((task, run) for task, run in runs.items() if run))


if __name__ == '__main__':
    runScript(main)
