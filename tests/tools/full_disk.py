"""Trains on a disk that fills up, makes room, and goes on. Run by hand on Linux, a minute:

    export PYTHONPATH=.:tests
    unshare --user --map-root-user --mount python tests/tools/full_disk.py

The disk is a tmpfs in the namespace that `unshare` makes; a user needs no special rights for it.
"""
import os
import subprocess
import tempfile

from kills import copy_of_project, finish, result, start, state_of

from utils.demo.demoData import makeDemoData

FILLING_MB = 40  # of 110 MB: two checkpoints of some 25 MB fit beside it, four do not


def train_on(disk, root):
    """Fills the disk while a training runs, then empties it; returns the history."""
    project = copy_of_project(os.path.join(disk, 'project'), root)
    process = start(project, 1)
    for line in process.stdout:
        if line.startswith(b'epoch 2/'):
            break
    filling = os.path.join(disk, 'filling')
    with open(filling, 'wb') as f:
        f.write(bytes(FILLING_MB * 1000000))
    output = process.stdout.read().decode('utf-8', 'replace')
    print(output)
    assert process.wait() == 1 and 'No space left on device' in output
    assert 'Traceback' not in output
    assert all(state_of(project))  # which loads the checkpoints
    os.remove(filling)
    finish(project, 1)
    return result(project)[0]


def main():
    with tempfile.TemporaryDirectory() as folder:
        root, disk = os.path.join(folder, 'scenes'), os.path.join(folder, 'disk')
        makeDemoData(root, 96, 32)
        alone = copy_of_project(os.path.join(folder, 'alone'), root)
        finish(alone, 1)
        os.mkdir(disk)
        subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=110m', 'tmpfs', disk], check=True)
        try:
            assert train_on(disk, root) == result(alone)[0]
        finally:
            subprocess.run(['umount', disk])
    print('with room again the run went on to the same history')


if __name__ == '__main__':
    main()
