"""Trains and validates in poor environments: one core, read-only folders, no home. On Linux:

    PYTHONPATH=.:tests python tests/tools/environments.py

Each script runs in a namespace of its own (`unshare`), for which a user needs no special rights.
It must work, or end in a sentence that says what it needs; a stack trace is a failure. The folders
have spaces and a letter outside of ASCII in their names.
"""
import os
import subprocess
import sys
import tempfile

from project_copies import copy_of_project, write_driver

from utils.demo.demoData import makeDemoData

# name → (whether it works, shell commands before the script)
SURROUNDINGS = {
    'one core': (True, 'taskset -p -c 0 $$ > /dev/null'),
    'a read-only home': (True, 'mount -t tmpfs -o ro tmpfs "$HOME"'),
    'no home, no display': (True, 'unset HOME DISPLAY WAYLAND_DISPLAY'),
    'decimal commas': (True, 'export LC_ALL=nb_NO.UTF-8 '
                             'JAVA_TOOL_OPTIONS="-Duser.language=nb -Duser.country=NO"'),
    'the C locale': (True, 'export LC_ALL=C'),
    'a read-only project': (False, 'mount --bind "$PROJECT" "$PROJECT" && '
                                   'mount -o remount,ro,bind "$PROJECT"'),
}


def main():
    with tempfile.TemporaryDirectory() as folder:
        root, home = os.path.join(folder, 'data på ø'), os.path.join(folder, 'home')
        makeDemoData(root, 192, 64)
        os.mkdir(home)
        for name, (works, commands) in SURROUNDINGS.items():
            project = copy_of_project(os.path.join(folder, f'mitt prosjekt ø, {name}'), root)
            write_driver(project, 'train.py', 'Exercise_Train_task4', numbOfEpochs=1)
            environment = {**os.environ, 'PROJECT': project, 'HOME': home, 'PYTHONPATH': ''}
            for script in ('train.py', 'Validate_task4.py'):
                shell = f'{commands}\nexec "{sys.executable}" {script}'
                done = subprocess.run(
                    ['unshare', '--user', '--map-root-user', '--mount', 'bash', '-c', shell],
                    env=environment, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                output = done.stdout.decode('utf-8', 'replace')
                print(f'{name}, {script}: {output if done.returncode else "works"}', flush=True)
                assert (done.returncode == 0) == works and 'Traceback' not in output


if __name__ == '__main__':
    main()
