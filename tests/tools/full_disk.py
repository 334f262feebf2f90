"""Trains on a disk that is too small, makes room, and goes on. Run by hand on Linux, a minute:

    PYTHONPATH=.:tests python tests/tools/full_disk.py

The disk is a tmpfs in a namespace of this process's own (`unshare`), which needs no rights where users may have those.
"""
import os
import shutil
import subprocess
import sys
import tempfile

from kills import copy_of_project, finish, result, start, state_of

from utils.demo.demoData import makeDemoData
from utils.files.project import PROJECT

IN_NAMESPACE = 'CAPTIONING_FULL_DISK'
TASK = 1
ROOM_MB = 110     # two checkpoints of some 25 MB each fit, two more and the filling do not
FILLING_MB = 40


def main():
    if IN_NAMESPACE not in os.environ:
        path = os.pathsep.join([PROJECT, os.path.join(PROJECT, 'tests')])
        command = ['unshare', '--user', '--map-root-user', '--mount', sys.executable, os.path.abspath(__file__)]
        sys.exit(subprocess.run(command, env={**os.environ, IN_NAMESPACE: '1', 'PYTHONPATH': path}).returncode)
    with tempfile.TemporaryDirectory() as folder:
        root, disk = os.path.join(folder, 'scenes'), os.path.join(folder, 'disk')
        makeDemoData(root, 96, 32)
        alone = copy_of_project(os.path.join(folder, 'alone'), root)
        finish(alone, TASK)
        os.mkdir(disk)
        subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={ROOM_MB}m', 'tmpfs', disk], check=True)
        try:
            project = copy_of_project(os.path.join(disk, 'project'), root)
            process = start(project, TASK)
            for line in process.stdout:
                if line.startswith(b'epoch 2/'):
                    break
            with open(os.path.join(disk, 'filling'), 'wb') as f:
                f.write(bytes(FILLING_MB * 1000000))
            said = process.stdout.read().decode('utf-8', 'replace')
            print(f'ended with {process.wait()}: {said.strip()}')
            assert process.returncode == 1 and 'No space left on device. It needs' in said and 'Traceback' not in said
            last, best = state_of(project)  # loads them
            print(f'on the full disk: last {last}, best {best}')
            assert last and best
            os.remove(os.path.join(disk, 'filling'))
            finish(project, TASK)
            assert result(project)[0] == result(alone)[0]
            print('room made: the run went on to the same history')
        finally:
            subprocess.run(['umount', disk])
            shutil.rmtree(disk, ignore_errors=True)


if __name__ == '__main__':
    main()
