"""The demo data: the course's layout, true captions, and features that say what the pixels in the boxes show."""
import functools
import json
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from utils.demo.demoData import FeatureExtractor, cropsOf, makeDemoData
from utils.demo.scenes import COLOURS, GROUNDS, HEIGHT, KINDS, SKY_KINDS, WIDTH, Scene
from utils.files.project import PROJECT
from utils.files.safePickle import loadPickle

N_TRAIN, N_VAL = 60, 20


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = os.path.join(str(tmp_path_factory.mktemp('demo')), 'demoData')
    makeDemoData(folder, N_TRAIN, N_VAL)
    return folder


@pytest.fixture(scope='module')
def extractor():
    return FeatureExtractor()


def images(root, split, stub):
    folder = os.path.join(root, f'{split}2017_detectron2_lim10{stub}')
    return [loadPickle(os.path.join(folder, name)) for name in sorted(os.listdir(folder))]


def test_layout(root):
    vocabulary = loadPickle(os.path.join(root, 'vocabulary', 'vocabulary.pickle'))
    for split, number in (('Train', N_TRAIN), ('Val', N_VAL)):
        unpooled, pooled = images(root, split, 'features'), images(root, split, 'maxfeatures')
        assert len(unpooled) == len(pooled) == number
        with open(os.path.join(root, 'annotations', f'captions_{split.lower()}2017.json')) as f:
            annotations = json.load(f)
        assert [image['file_name'] for image in annotations['images']] == [image['imgPath'] for image in unpooled]
        assert ([annotation['caption'] for annotation in annotations['annotations']]
                == [caption for image in unpooled for caption in image['original_captions']])
        for image, maxima in zip(unpooled, pooled):
            assert image['cnn_features'].shape == (10, 2048) and image['cnn_features'].dtype == np.float32
            assert (image['cnn_features'] >= 0).all()
            np.testing.assert_array_equal(image['cnn_features'].max(0), maxima['cnn_features'])
            assert image['original_captions'] == maxima['original_captions']
            assert len(set(image['original_captions'])) == len(image['original_captions']) >= 5
            left, top, right, bottom = image['boxes'].T
            assert (0 <= left).all() and (left < right).all() and (right <= WIDTH).all()
            assert (0 <= top).all() and (top < bottom).all() and (bottom <= HEIGHT).all()
            assert Image.open(os.path.join(root, f'{split.lower()}2017', image['imgPath'])).size == (WIDTH, HEIGHT)
            for words, tokens in zip(image['captions'], image['captionsAsTokens']):
                assert words[0] == 'ssss' and words[-1] == 'eeee'
                assert [vocabulary['TokenToWord'][token] for token in tokens] == words


def test_same_numbers_same_data(root, tmp_path):
    again = os.path.join(str(tmp_path), 'again')
    makeDemoData(again, N_TRAIN, N_VAL)
    for split in ('Train', 'Val'):
        for one, other in zip(images(root, split, 'features'), images(again, split, 'features')):
            assert one['original_captions'] == other['original_captions']
            np.testing.assert_allclose(one['cnn_features'], other['cnn_features'], atol=1e-5)
            with open(os.path.join(root, f'{split.lower()}2017', one['imgPath']), 'rb') as f, \
                    open(os.path.join(again, f'{split.lower()}2017', other['imgPath']), 'rb') as g:
                assert f.read() == g.read()


def test_existing_folder_stays_and_a_stopped_run_leaves_nothing(tmp_path, monkeypatch):
    folder = os.path.join(str(tmp_path), 'demoData')
    os.mkdir(folder)
    makeDemoData(folder, 3, 2)
    assert os.listdir(folder) == []
    os.rmdir(folder)

    def stop(self, crops):
        raise KeyboardInterrupt

    monkeypatch.setattr(FeatureExtractor, '__call__', stop)
    with pytest.raises(KeyboardInterrupt):
        makeDemoData(folder, 3, 2)
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.skipif(os.name != 'posix', reason='elsewhere they are removed after an hour')
def test_what_a_killed_process_has_left_is_removed(tmp_path):
    folder = os.path.join(str(tmp_path), 'demoData')
    code = ('import os, signal, sys; from utils.demo import demoData\n'
            'demoData.Scene = lambda number: number\n'
            'demoData._fill = lambda root, *numbers: (os.makedirs(os.path.join(root, "val2017")), '
            'print(root, flush=True), os.kill(os.getpid(), signal.SIGKILL) if sys.argv[2] == "kill" else sys.stdin.read())\n'
            'demoData.makeDemoData(sys.argv[1])')
    start = functools.partial(subprocess.Popen, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    killed, busy = (start([sys.executable, '-c', code, folder, end]) for end in ('kill', 'wait'))
    left, there = (process.stdout.readline().strip() for process in (killed, busy))
    killed.communicate()
    old, young, others = (f'{folder}.partial{name}' for name in ('7', '8', f'9@not-{socket.gethostname()}'))
    for path in (old, young, others):
        os.makedirs(os.path.join(path, 'val2017'))
    for path in (os.path.join(old, 'val2017'), old):
        os.utime(path, (time.time() - 7200,) * 2)
    os.makedirs(folder)
    assert os.path.isdir(left) and os.path.isdir(there)
    makeDemoData(folder)
    assert sorted(os.listdir(str(tmp_path))) == sorted(map(os.path.basename, (folder, there, young, others)))
    busy.communicate('')


def test_captions_say_what_is_drawn():
    for number in range(300):
        scene = Scene(str(number))
        captions = scene.captions()
        allowed_colours = {group.colour for group in scene.groups}
        nouns = {noun for group in scene.groups for pair in KINDS[group.kind].nouns for noun in pair}
        others = {noun for kind in KINDS.values() for pair in kind.nouns for noun in pair} - nouns
        for caption in captions:
            words = caption.lower().rstrip('.').replace('a green field', '').split()
            assert not {colour for colour in COLOURS if colour in words} - allowed_colours, caption
            assert not others & set(words), caption
            if 'grass' in words or 'road' in words or 'snow' in words:
                assert scene.ground == {'grass': 'meadow', 'road': 'street', 'snow': 'snow'}[
                    next(word for word in words if word in ('grass', 'road', 'snow'))], caption


def test_things_are_where_they_belong():
    for number in range(300):
        scene = Scene(str(number))
        for group in scene.groups:
            assert len(group.boxes) == group.count
            assert group.kind in SKY_KINDS or group.kind in GROUNDS[scene.ground][1]
            for left, top, right, bottom in group.boxes:
                assert 0 <= left < right <= WIDTH and 0 <= top < bottom <= HEIGHT


def drawn_thing(kind, colour):
    """Crops of one thing alone, from a scene that is made to hold just that."""
    scene = Scene('one')
    group = scene.groups[0]
    scene.groups = [group]
    group.kind, group.colour, group.count, group.scale = kind, colour, 1, 1
    group.boxes = [(80, 100, 80 + KINDS[kind].width, 100 + KINDS[kind].height)]
    return cropsOf(scene.draw(), [group.boxes[0]])


def test_shape_and_colour_have_channels_of_their_own(extractor):
    """A blue car is closer to a red car than to a blue house by shape, and the other way round by colour."""
    red_car, blue_car, blue_house = (torch.from_numpy(extractor(drawn_thing(*thing)))[0] for thing in (
        ('car', 'red'), ('car', 'blue'), ('house', 'blue')))
    shape, colour = slice(0, 1536), slice(1536, 2048)

    def alike(one, other, channels):
        return torch.cosine_similarity(one[channels], other[channels], dim=0)

    assert alike(blue_car, red_car, shape) > alike(blue_car, blue_house, shape) + .1
    assert alike(blue_car, blue_house, colour) > alike(blue_car, red_car, colour) + .1


def test_features_come_from_the_pixels_in_the_box(extractor):
    crops = drawn_thing('car', 'red')
    np.testing.assert_array_equal(extractor(crops), extractor(crops.copy()))
    assert np.abs(extractor(crops) - extractor(255 - crops)).max() > .5
