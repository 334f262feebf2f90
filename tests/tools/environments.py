"""Trains and validates in poor surroundings: little shared memory, few file handles, one core, read-only folders. By hand:

    PYTHONPATH=.:tests python tests/tools/environments.py

Each is made in a namespace of its own (`unshare`), which needs no rights where users may have those. Prints how the two scripts
ended; they work, or end in a sentence that says what they need, and never in a stack trace.
"""
import os
import subprocess
import sys
import tempfile

from kills import copy_of_project

from utils.demo.demoData import makeDemoData

TASK = 4
# name → (whether it works, shell commands before the script; $PROJECT is its folder)
SURROUNDINGS = {
    'nothing special': (True, ''),
    '/dev/shm of 8 MB': (True, 'mount -t tmpfs -o size=8m tmpfs /dev/shm'),
    '/dev/shm of 100 kB': (True, 'mount -t tmpfs -o size=100k tmpfs /dev/shm'),
    '64 file handles': (True, 'ulimit -n 64'),
    '20 file handles': (False, 'ulimit -n 20'),
    'one core': (True, 'taskset -p -c 0 $$ > /dev/null'),
    'a read-only home': (True, 'mount -t tmpfs -o ro tmpfs "$HOME"'),
    'no home, no display': (True, 'unset HOME DISPLAY WAYLAND_DISPLAY'),
    'decimal commas': (True, 'export LC_ALL=nb_NO.UTF-8 JAVA_TOOL_OPTIONS="-Duser.language=nb -Duser.country=NO"'),
    'the plainest locale': (True, 'export LC_ALL=C'),
    'a read-only project': (False, 'mount --bind "$PROJECT" "$PROJECT" && mount -o remount,ro,bind "$PROJECT"'),
}


def main():
    surprises = []
    with tempfile.TemporaryDirectory() as folder:
        root, home = os.path.join(folder, 'tegninger på ø'), os.path.join(folder, 'home')
        makeDemoData(root, 192, 64)
        os.mkdir(home)
        for number, (name, (works, commands)) in enumerate(SURROUNDINGS.items()):
            project = copy_of_project(os.path.join(folder, f'mitt prosjekt ø {number}'), root, 1)
            environment = {**os.environ, 'PROJECT': project, 'HOME': home}
            del environment['PYTHONPATH']
            for script in (f'train{TASK}.py', f'validate{TASK}.py'):
                shell = f'{commands}\nexec "{sys.executable}" "{os.path.join(project, script)}"'
                done = subprocess.run(['unshare', '--user', '--map-root-user', '--mount', 'bash', '-c', shell], env=environment,
                                      cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                said = (done.stdout + done.stderr).decode('utf-8', 'replace').strip()
                as_expected = (done.returncode == 0) == works and 'Traceback' not in said
                print(f'{name}, {script}: {"works" if done.returncode == 0 else "ends"}'
                      f'{"" if as_expected and works else ": " + said}', flush=True)
                if not as_expected:
                    surprises.append(name)
    sys.exit(f'not as expected: {", ".join(surprises)}' if surprises else 0)


if __name__ == '__main__':
    main()
