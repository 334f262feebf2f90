"""The demo data: the course's layout, true captions, and features of what is in the boxes."""
import hashlib
import json
import os

import numpy as np
import pytest
from PIL import Image

from utils.demo.demoData import FeatureExtractor, cropsOf, makeDemoData
from utils.demo.scenes import COLOURS, KINDS, WITH_S, Scene
from utils.files.safePickle import loadPickle

N_TRAIN, N_VAL = 12, 6
SCENES = [Scene(str(number)) for number in range(300)]
CAPTIONS = [scene.captions() for scene in SCENES]


@pytest.fixture(scope='module')
def extractor():
    return FeatureExtractor()


def test_layout(tmp_path, extractor):
    root = str(tmp_path / 'demoData')
    makeDemoData(root, N_TRAIN, N_VAL)
    to_word = loadPickle(os.path.join(root, 'vocabulary', 'vocabulary.pickle'))['TokenToWord']
    for split, number in (('train', N_TRAIN), ('val', N_VAL)):
        folder = os.path.join(root, f'{split.capitalize()}2017_detectron2_lim10')
        names = sorted(os.listdir(f'{folder}features'))
        assert sorted(os.listdir(f'{folder}maxfeatures')) == names and len(names) == number
        for name in names:
            image = loadPickle(os.path.join(f'{folder}features', name))
            pooled = loadPickle(os.path.join(f'{folder}maxfeatures', name))
            features, captions = image['cnn_features'], image['original_captions']
            assert features.shape == (10, 2048) and features.dtype == np.float32
            np.testing.assert_array_equal(features.max(0), pooled['cnn_features'])
            assert captions == pooled['original_captions'] and len(set(captions)) >= 5
            for words, tokens in zip(image['captions'], image['captionsAsTokens']):
                assert words[0] == 'ssss' and words[-1] == 'eeee'
                assert [to_word[token] for token in tokens] == words
            picture = Image.open(os.path.join(root, f'{split}2017', image['imgPath']))
            seen = extractor(cropsOf(picture, image['boxes']))  # not the same: JPEG loses details
            assert cosine(seen, features) > .97 > cosine(seen[::-1], features)


def cosine(one, other):
    one, other = one.ravel(), other.ravel()
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


def test_the_folder_appears_when_it_is_complete(tmp_path, monkeypatch):
    folder = tmp_path / 'demoData'
    folder.mkdir()
    makeDemoData(str(folder), 3, 2)
    assert not list(folder.iterdir())  # it was there: nothing is drawn
    folder.rmdir()

    def stop(self, crops):
        assert not folder.exists() and len(list(tmp_path.iterdir())) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(FeatureExtractor, '__call__', stop)
    with pytest.raises(KeyboardInterrupt):
        makeDemoData(str(folder), 3, 2)
    assert not list(tmp_path.iterdir())


def test_scenes_and_captions_are_those_of_the_delivered_models():
    boxes = [[group.boxes for group in scene.groups] for scene in SCENES]
    digest = hashlib.sha256(json.dumps([CAPTIONS, boxes]).encode()).hexdigest()
    assert digest == 'dbfa6f0a26cbc273a3dc7822d570f909a097646de3143a27a577439f3e36da43'


def test_captions_are_true_of_the_picture():
    nouns_of = {}
    for name, kind in KINDS.items():
        nouns = {name, *kind.synonyms}
        nouns_of[name] = nouns | {WITH_S.get(noun, noun + 's') for noun in nouns}
    for scene, captions in zip(SCENES, CAPTIONS):
        nouns = set.union(*(nouns_of[group.name] for group in scene.groups))
        for caption in captions:
            words = set(caption.lower().rstrip('.').replace('a green field', '').split())
            assert words & set(COLOURS) <= {group.colour for group in scene.groups}, caption
            assert words & set.union(*nouns_of.values()) <= nouns, caption


def test_shape_and_colour_have_channels_of_their_own(extractor):
    """A blue car is closer to a red car than to a blue house by shape, and not by colour."""
    def featuresOf(name, colour):
        kind, scene = KINDS[name], Scene('one')
        group, = scene.groups = scene.groups[:1]
        group.name, group.colour = name, colour
        group.boxes = [(80, 100, 80 + kind.width, 100 + kind.height)]
        return extractor(cropsOf(scene.draw(), np.array(group.boxes)))[0]

    red_car, blue_car = featuresOf('car', 'red'), featuresOf('car', 'blue')
    blue_house = featuresOf('house', 'blue')
    for channels, like, unlike in ((slice(1536), red_car, blue_house),
                                   (slice(1536, None), blue_house, red_car)):
        blue = blue_car[channels]
        assert cosine(blue, like[channels]) > cosine(blue, unlike[channels]) + .1
