"""Broken variants of every kind of file: each is read right, or refused by an error that names it.

They are tried in another process, whose crash would be seen, and whose memory is limited, since
a broken pickle may ask for very much. Of thousands of mutations a few crash numpy itself, in
`dtype.__setstate__`; another process goes on behind these.
"""
import collections
import io
import os
import pickle
import random
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import D

from utils.data.imageFiles import loadImage
from utils.files.errors import UserError
from utils.files.project import PROJECT
from utils.files.safePickle import loadPickle
from utils.generateVocabulary import loadVocabulary
from utils.saverRestorer import readCheckpoint

resource = pytest.importorskip('resource')  # not on Windows
MUTATIONS = int(os.environ.get('MUTATIONS', 200))  # of each file
MEMORY = 4 * 2 ** 30  # bytes
OPCODES = b'Rboi\x81\x93crQ\x8a\x8e.'


def check_image(path):
    image, _ = loadImage(path, [D])
    features = image['cnn_features']
    assert features.dtype == torch.float32 and features.shape == (D,)
    assert torch.isfinite(features).all()
    assert 'boxes' not in image or image['boxes'].shape[1] == 4
    tokens = image['captionsAsTokens']
    assert len(image['captions']) == len(image['original_captions']) == len(tokens) > 0
    assert all(type(token) is int and token >= 0 for caption in tokens for token in caption)


def check_vocabulary(path):
    vocabulary = loadVocabulary(os.path.dirname(os.path.dirname(path)))
    assert sorted(vocabulary['TokenToWord']) == list(range(len(vocabulary['TokenToWord'])))
    assert all(type(word) is str for word in vocabulary['wordToToken'])


def check_checkpoint(path):
    read = readCheckpoint(path)
    assert type(read['epoch']) is int and type(read['model_state_dict']) is dict


def files(root):
    """Dict kind of file → its bytes, and what reads it; from a data folder."""
    image = loadPickle(os.path.join(root, 'Val2017_detectron2_lim10maxfeatures',
                                    '000000000000.pickle'))
    image['boxes'] = np.ones((10, 4), np.float32)
    tensor = {**image, 'cnn_features': torch.from_numpy(image['cnn_features'])}
    vocabulary = loadPickle(os.path.join(root, 'vocabulary', 'vocabulary.pickle'))
    checkpoint = io.BytesIO()
    torch.save({'epoch': 3, 'model_state_dict': {'embedding_layer.weight': torch.ones(5, 4)},
                'config': {'num_rnn_layers': 1, 'cellType': 'RNN',
                           'featurepathstub': 'detectron2_lim10features'},
                'history': [{'epoch': 3}]}, checkpoint)
    return {'array': (pickle.dumps(image, 4), check_image),
            'old': (pickle.dumps(image, 2), check_image),
            'tensor': (pickle.dumps(tensor, 4), check_image),
            'vocabulary': (pickle.dumps(vocabulary, 4), check_vocabulary),
            'checkpoint': (checkpoint.getvalue(), check_checkpoint)}


def mutated(data, rng):
    """The bytes with a few of them changed, removed, cut off or replaced by opcodes."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        at, length = rng.randrange(len(data) + 1), rng.choice([1, 1, 2, 4, 8, 30])
        part = data[at:at + length]
        kind = rng.randrange(5)
        if kind == 0:
            part = bytes(byte ^ 1 << rng.randrange(8) for byte in part)
        elif kind == 1:
            part = bytes([rng.choice([0, 127, 255, rng.randrange(256)])]) * length
        elif kind == 2:
            part = b''
        elif kind == 3:
            part = bytes([rng.choice(OPCODES)]) + part[1:]
        else:
            del data[at:]
        data[at:at + length] = part
    return bytes(data)


def try_mutations(root, done):
    """Prints each mutation before it is read, and behind it what came of it.

    Args:
        done: the number of mutations to leave out.
    """
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    path = os.path.join(root, 'mutated', 'vocabulary', 'vocabulary.pickle')
    os.makedirs(os.path.dirname(path), exist_ok=True)
    kinds = files(root)
    mutations = [(kind, number) for kind in kinds for number in range(MUTATIONS)]
    for kind, number in mutations[done:]:
        data, check = kinds[kind]
        print(kind, number, end=' ', flush=True)
        with open(path, 'wb') as f:
            f.write(mutated(data, random.Random(f'{kind} {number}')))
        try:
            check(path)
            print('read')
        except UserError as error:
            assert path in str(error), error
            print('refused')


def test_mutated_files_are_read_right_or_named(course_folder):
    paths = os.pathsep.join([PROJECT, os.path.dirname(__file__)])
    environment = {**os.environ, 'PYTHONPATH': paths, 'PYTHONWARNINGS': 'ignore'}
    root, lines, status = course_folder(0, 1), [], -signal.SIGSEGV
    while status == -signal.SIGSEGV:
        code = f'import test_mutations; test_mutations.try_mutations({root!r}, {len(lines)})'
        process = subprocess.run([sys.executable, '-c', code], env=environment, timeout=600,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        lines += process.stdout.decode().splitlines()
        status = process.returncode
    assert status == 0, f'{lines[-1]}: {process.stderr.decode()[-2000:]}'
    crashes = [line for line in lines if line.endswith(' ')]
    assert len(crashes) <= len(lines) / 1500, crashes
    refused = collections.Counter(line.split(' ')[0] for line in lines if line.endswith('refused'))
    assert len(refused) == 5 and min(refused.values()) > MUTATIONS / 10, refused
