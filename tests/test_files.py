"""Files are replaced as a whole or not at all; one training at a time in a folder."""
import errno
import os
import stat
import subprocess
import sys
import time

import pytest

from utils.files.atomic import readJson, removePartialFiles, writeAtomically, writeJson
from utils.files.errors import UserError
from utils.files.project import PROJECT, runFolder
from utils.files.runFiles import readRunFile


def read(path):
    with open(path, 'rb') as f:
        return f.read()


@pytest.mark.parametrize('number, said', [(errno.ENOSPC, 'It needs 1 kB'), (errno.EDQUOT, 'quota'), (errno.EIO, 'possible')])
@pytest.mark.parametrize('step', ['fsync', 'replace'])
def test_an_interrupted_write_keeps_the_old_file(step, number, said, tmp_path, monkeypatch):
    path = str(tmp_path / 'file.json')
    writeAtomically(path, b'old')

    def broken(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, step, broken)
    with pytest.raises(UserError, match='file.json cannot be written') as caught:
        writeAtomically(path, b'new')
    assert said in str(caught.value) and read(path) == b'old' and os.listdir(str(tmp_path)) == ['file.json']


@pytest.mark.skipif(not hasattr(os, 'O_DIRECTORY'), reason='folders are synchronised on POSIX systems')
@pytest.mark.parametrize('refused', ['folder', 'both'])
def test_a_file_system_that_synchronises_nothing_will_do(refused, tmp_path, monkeypatch):
    synchronise = os.fsync

    def refusing(descriptor):
        if refused == 'both' or stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        synchronise(descriptor)

    monkeypatch.setattr(os, 'fsync', refusing)
    path = str(tmp_path / 'last_epoch1.pt')
    writeAtomically(path, b'new')
    assert read(path) == b'new' and os.listdir(str(tmp_path)) == ['last_epoch1.pt']


def test_a_full_disk_is_said_for_a_file_of_the_present_folder_too(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(UserError, match=r'needs 1\.2 MB; [0-9,.]+ [kM]B are free'):
        writeAtomically('file', b'x' * 1200000)


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path):
    path = str(tmp_path / 'last_epoch1.pt')
    writeAtomically(path, b'old')
    code = ('import os, signal, sys; from utils.files.atomic import writeAtomically\n'
            'os.fsync = lambda f: os.kill(os.getpid(), signal.SIGKILL)\n'
            'writeAtomically(sys.argv[1], b"new")')
    assert subprocess.run([sys.executable, '-c', code, path], cwd=PROJECT).returncode != 0
    assert read(path) == b'old' and len(os.listdir(str(tmp_path))) == 2
    removePartialFiles(str(tmp_path))
    assert os.listdir(str(tmp_path)) == ['last_epoch1.pt']


def test_only_old_partial_files_of_others_are_removed(tmp_path):
    for name, age in (('partial_1_examples.png', 0), ('partial_2_history.json', 7200), ('history.json', 7200)):
        path = tmp_path / name
        path.write_text('x')
        os.utime(str(path), (time.time() - age,) * 2)
    removePartialFiles(str(tmp_path))
    assert sorted(os.listdir(str(tmp_path))) == ['history.json', 'partial_1_examples.png']


@pytest.mark.parametrize('data', [b'', b'{"a": 1', b'\xff\xfe', b'[' * 100000])
def test_a_broken_json_file_is_named(data, tmp_path):
    path = str(tmp_path / 'times.json')
    writeAtomically(path, data)
    with pytest.raises(UserError, match=r'times\.json is broken'):
        readJson(path, [])


@pytest.mark.parametrize('value, right', [
    ([], True), ([{'epoch': 1}], True), ([{'epoch': 1, 'meteor': 0.5, 'seconds': 3}], True), ({}, False), ([1], False),
    ([{'meteor': 0.5}], False), ([{'epoch': '1'}], False), ([{'epoch': 1, 'meteor': None}], False), ('epoch', False)])
def test_json_of_another_form_is_named(value, right, tmp_path):
    writeJson(str(tmp_path / 'history.json'), value)
    if right:
        assert readRunFile(str(tmp_path), 'history.json', None) == value
    else:
        with pytest.raises(UserError, match=r'history\.json is broken'):
            readRunFile(str(tmp_path), 'history.json', None)
    assert readRunFile(str(tmp_path), 'times.json', 'nothing') == 'nothing'


def test_json_is_read_back(tmp_path):
    path = str(tmp_path / 'file.json')
    assert readJson(path, 'nothing') == 'nothing'
    writeJson(path, {'words': 'blåbær "og" \n'})
    assert readJson(path, None) == {'words': 'blåbær "og" \n'}


def test_a_list_has_one_item_a_line(tmp_path):
    path = str(tmp_path / 'details.json')
    writeJson(path, [{'attention': [[0.1] * 10] * 12}] * 3)
    assert read(path).count(b'\n') == 5


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r"file.* cannot be made: .*modelParam\['modelsDir'\]"):
        runFolder({'modelsDir': str(tmp_path / 'file'), 'modelName': 'm/'})


@pytest.mark.skipif(os.name != 'posix', reason='locks are POSIX ones')
def test_a_folder_is_locked_while_its_process_lives(tmp_path):
    code = ('import sys; from utils.files.runLock import lockFolder\n'
            'lockFolder(sys.argv[1]); print("locked", flush=True); sys.stdin.read()')
    command = [sys.executable, '-c', code, str(tmp_path)]
    first = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout.readline() == b'locked\n'
    second = subprocess.run(command, cwd=PROJECT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = second.stderr.decode()
    assert second.returncode == 1 and 'already being trained' in said and f'process {first.pid} on' in said
    first.kill()
    first.communicate()
    third = subprocess.run(command, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert third.returncode == 0 and third.stdout == b'locked\n'
