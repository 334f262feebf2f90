"""Thousands of broken variants of every file that is read: each is read right, or refused by an error that names it.

All of them are tried in a process of their own, so that a crash or a hang would be seen as such.
"""
import io
import json
import os
import pickle
import random
import subprocess
import sys

import numpy as np
import torch
from conftest import CAPTIONS, D, marked

from utils.data.imageFiles import loadImage
from utils.files.errors import UserError
from utils.files.project import PROJECT
from utils.files.runFiles import readRunFile
from utils.generateVocabulary import generateVocabulary, loadVocabulary
from utils.saverRestorer import readCheckpoint

MUTATIONS = 1500  # of each file
DETAILS = [{'image_id': number, 'imgPath': '7.jpg', 'caption': 'a boat', 'references': ['A boat.', 'boat'], 'meteor': 0.5,
            'attention': [[0.5, 0.5], [0.9, 0.1]], 'boxes': [[0, 0, 3, 4], [1, 1, 2, 2]]} for number in range(4)]


def record(features):
    captions = [marked(caption) for caption in CAPTIONS[0]]
    return {'cnn_features': features, 'imgPath': '7.jpg', 'original_captions': CAPTIONS[0], 'captions': captions,
            'captionsAsTokens': [[np.int64(1), *map(np.int64, range(3, 1 + len(words))), np.int64(0)] for words in captions],
            'boxes': np.ones((10, 4), np.float32)}


def checkpoint():
    weights = {'rnn.cells.0.weight': torch.ones(3, 2), 'embedding_layer.weight': torch.ones(5, 4)}
    data = io.BytesIO()
    torch.save({'epoch': 3, 'model_state_dict': weights, 'config': {'seed': 1}, 'history': [{'epoch': 3}]}, data)
    return data.getvalue()


def check_image(path):
    image = loadImage(path, [D])
    assert image['cnn_features'].dtype == torch.float32 and image['cnn_features'].shape == (D,)
    assert torch.isfinite(image['cnn_features']).all() and ('boxes' not in image or image['boxes'].shape[1] == 4)
    assert len(image['captions']) == len(image['original_captions']) == len(image['captionsAsTokens']) > 0
    assert all(type(token) is int and token >= 0 for caption in image['captionsAsTokens'] for token in caption)


def check_vocabulary(path):
    vocabulary = loadVocabulary(os.path.dirname(os.path.dirname(path)))
    assert sorted(vocabulary['TokenToWord']) == list(range(len(vocabulary['TokenToWord'])))
    assert all(type(word) is str for word in vocabulary['wordToToken'])


def check_checkpoint(path):
    read = readCheckpoint(path)
    assert type(read['epoch']) is int and type(read['model_state_dict']) is dict


def check_results(path):
    for image in readRunFile(os.path.dirname(path), os.path.basename(path), None):
        assert type(image['caption']) is str and all(type(caption) is str for caption in image['references'])
        assert type(image['meteor']) in (int, float)
        assert all(type(weight) in (int, float) for row in image.get('attention', []) for weight in row)


FILES = {
    'array, protocol 4': (lambda: pickle.dumps(record(np.ones(D, np.float32)), 4), check_image),
    'array, protocol 2': (lambda: pickle.dumps(record(np.ones(D, np.float32)), 2), check_image),
    'array, protocol 0': (lambda: pickle.dumps(record(np.ones(D, np.float32)), 0), check_image),
    'tensor': (lambda: pickle.dumps(record(torch.ones(D)), 4), check_image),
    'vocabulary': (lambda: pickle.dumps(generateVocabulary([marked(caption)[1:] for caption in CAPTIONS[1]]), 4),
                   check_vocabulary),
    'checkpoint': (checkpoint, check_checkpoint),
    'details_validation.json': (lambda: json.dumps(DETAILS).encode(), check_results),
}


def mutated(data, rng):
    """The bytes with a few of them changed, cut, doubled, moved or replaced by opcodes."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        if not data:
            break
        at, length = rng.randrange(len(data)), rng.choice([1, 1, 2, 4, 8, 30])
        kind = rng.randrange(6)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at:at + length] = rng.choice([b'\x00', b'\xff', b'\x7f', bytes([rng.randrange(256)])]) * length
        elif kind == 2:
            del data[at:at + length]
        elif kind == 3:
            data[at:at] = data[at:at + length]
        elif kind == 4:
            data[at:at + 1] = rng.choice([b'R', b'b', b'o', b'i', b'\x81', b'\x93', b'c', b'r', b'Q', b'\x8a', b'\x8e', b'.'])
        else:
            del data[at:]
    return bytes(data)


def try_mutations(folder):
    """Prints what came of the mutations of each file; the last line of the file `begun` names one, for after a crash."""
    with open(os.path.join(folder, 'begun'), 'w') as begun:
        for number, name in enumerate(FILES):
            try_mutations_of(name, os.path.join(folder, str(number)), begun)


def try_mutations_of(name, folder, begun):
    make, check = FILES[name]
    os.makedirs(os.path.join(folder, 'vocabulary'))
    path = os.path.join(folder, 'vocabulary', name if name.endswith('.json') else 'vocabulary.pickle')
    original, right, refused = make(), 0, 0
    for number in range(MUTATIONS):
        print(name, number, file=begun, flush=True)
        with open(path, 'xb') as f:
            f.write(mutated(original, random.Random(f'{name} {number}')))
        try:
            check(path)
            right += 1
        except UserError as error:
            assert path in str(error), error
            refused += 1
        os.remove(path)  # some file systems bring a file to the disk that is written over
    print(f'{name}: {right} read, {refused} refused')


def test_mutated_files_are_read_right_or_named(tmp_path):
    code = f'import test_mutations; test_mutations.try_mutations({str(tmp_path)!r})'
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([PROJECT, os.path.dirname(__file__)]), 'PYTHONWARNINGS': 'ignore'}
    done = subprocess.run([sys.executable, '-c', code], env=environment, timeout=600, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)
    begun = (tmp_path / 'begun').read_text().splitlines()
    assert done.returncode == 0, f'mutation {begun[-1]}: {done.stderr.decode()[-2000:]}'
    said = done.stdout.decode().splitlines()
    assert len(said) == len(FILES) and all(int(line.split()[-2]) > MUTATIONS / 10 for line in said), said
