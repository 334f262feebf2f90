"""Files are replaced as a whole or not at all; one training at a time in a folder."""
import errno
import os
import subprocess
import sys
from unittest import mock

import pytest
from leftovers import posix_only, python

from utils.files.errors import UserError, foreignFile, openRegular
from utils.files.ownFiles import (
    PROJECT,
    inProject,
    readJson,
    removePartialFiles,
    runFolder,
    writeAtomically,
    writeJson,
)
from utils.files.safePickle import loadCheckpoint, loadPickle


@pytest.mark.parametrize('step', ['fsync', 'replace'])
def test_an_interrupted_write_keeps_the_old_file(step, tmp_path, monkeypatch):
    path = tmp_path / 'file.json'
    writeAtomically(path, b'old')
    monkeypatch.setattr(os, step, mock.Mock(side_effect=OSError(errno.ENOSPC, 'no room')))
    with pytest.raises(UserError, match=r'file.json cannot be written: .* 1,200,000 bytes'):
        writeAtomically(path, b'x' * 1200000)
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['file.json']


def test_what_a_killed_process_leaves(tmp_path):
    """The old checkpoint, and a part of the new one, which the next training removes."""
    path = tmp_path / 'last_epoch1.pt'
    writeAtomically(path, b'old')
    code = ('import os, signal, sys; from utils.files.ownFiles import writeAtomically\n'
            'os.fsync = lambda f: os.kill(os.getpid(), signal.SIGKILL)\n'
            'writeAtomically(sys.argv[1], b"new")')
    assert python('-c', code, path).returncode != 0
    assert path.read_bytes() == b'old' and len(os.listdir(tmp_path)) == 2
    removePartialFiles(str(tmp_path))
    assert os.listdir(tmp_path) == ['last_epoch1.pt']


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    os.symlink('not mounted', tmp_path / 'models')
    with pytest.raises(UserError, match=r"models/m cannot be made: .* modelParam\['modelsDir'\]"):
        runFolder({'modelsDir': str(tmp_path / 'models'), 'modelName': 'm'})
    assert inProject('~') == os.path.expanduser('~') and inProject('a') == f'{PROJECT}/a'


@pytest.mark.parametrize('data', [b'', b'{"a": 1', b'\xff\xfe'])
def test_a_broken_json_file_is_named(data, tmp_path):
    path = tmp_path / 'history.json'
    path.write_bytes(data)
    with pytest.raises(UserError, match=r'history\.json cannot be used: .* Move it away'):
        readJson(path, None)


def test_names_of_any_length_are_written(tmp_path):
    """Also those that are as long as the system allows."""
    for name in ('x' * 255, 'å' * 127):
        writeAtomically(tmp_path / name, b'new')
        assert (tmp_path / name).read_bytes() == b'new'


@posix_only
def test_a_pipe_is_not_waited_for(tmp_path):
    path = str(tmp_path / 'a')
    os.mkfifo(path)
    for read in (loadCheckpoint, loadPickle, openRegular):
        with pytest.raises(OSError, match='not a regular file'):
            read(path)
    with pytest.raises(UserError, match='a cannot be used: .*not a regular file'):
        readJson(path, None)


def test_what_a_foreign_file_leads_to_is_one_line():
    with pytest.raises(UserError) as caught, foreignFile('a\x1b[1m\udce5', 'Remove it.'):
        raise KeyError('b\nc')
    assert str(caught.value) == "a [1m  cannot be used: it has no 'b\\nc'. Remove it."
    with pytest.raises(RuntimeError, match='of memory'), foreignFile('a', 'Remove it.'):
        raise RuntimeError('CUDA out of memory.')  # which is no fault of the file


@pytest.mark.parametrize('value, lines', [
    ({'words': 'blåbær "og" \n', 'image_id': 7}, 4), ([{'epoch': 1, 'rows': [[0.1] * 9] * 9}], 3)])
def test_json_is_read_back(value, lines, tmp_path):
    """Each item or key has a line of its own."""
    path = tmp_path / 'file.json'
    assert readJson(path, 'nothing') == 'nothing'
    writeJson(path, value)
    assert path.read_bytes().count(b'\n') == lines
    assert readJson(path, 'nothing') == value


@posix_only
def test_a_lock_ends_with_its_process(tmp_path):
    """Though a program that the process has started, as METEOR is, lives on.

    A process gets its own lock again, as for a second training in a notebook.
    """
    code = ('import subprocess, sys; from utils.files.ownFiles import lockFolder\n'
            'lockFolder(sys.argv[1])\n'
            'lockFolder(sys.argv[1])\n'
            'print(subprocess.Popen(["sleep", "60"], stdout=2).pid, flush=True)\n'
            'sys.stdin.read()')

    def start():
        return subprocess.Popen([sys.executable, '-c', code, tmp_path], cwd=PROJECT,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL)

    first = start()
    programs = [int(first.stdout.readline())]
    second = python('-c', code, tmp_path, stdin=subprocess.DEVNULL)
    assert second.returncode == 1 and "modelParam['modelName']" in second.stderr
    first.kill()
    first.communicate()
    third = start()
    programs.append(int(third.stdout.readline()))
    third.communicate()
    for program in programs:
        os.kill(program, 9)
