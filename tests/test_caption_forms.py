"""Captions in the forms in which they are published, and data folders made from photos."""
import json
import os
import pathlib

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from test_build_course_layout import (
    build_folder,
    captions_folder,
    file,
    image,
    make_fifo,
    skipped_in,
)
from test_photo_features import MeanColours

from utils import buildCourseLayout as script
from utils.data.captionForms import keyOf, readCaptions
from utils.files.errors import UserError
from utils.generateVocabulary import loadVocabulary
from utils.validate_metrics import imageId

CAPTIONS = {'1_a.jpg': ['A red dog .', 'A dog, red'], '2_b.jpg': ['A cat sits'],
            '3_c.jpg': ['Two dogs', 'Dogs; two | of them'], '4_d.jpg': ['A "small" bird']}
SPLIT = {'1_a.jpg': 'train', '2_b.jpg': 'train', '3_c.jpg': 'val', '4_d.jpg': 'test'}
COLOURS = {name: (50 * number, 10 + 20 * number, 200 - 30 * number)
           for number, name in enumerate(CAPTIONS)}
CSV = [f'{name},"{caption}"'.replace('"small"', '""small""')
       for name, captions in CAPTIONS.items() for caption in captions]


def write_coco(folder):
    captions_folder(folder, {mode: {name[:-4]: CAPTIONS[name] for name in CAPTIONS
                                    if SPLIT[name] == mode} for mode in ('train', 'val')})
    (folder / 'annotations' / 'instances_train2017.json').write_text('{}')


def write_tokens(name, train, val):
    def write(folder):
        (folder / name).write_text(''.join(
            f'{image}#{place}\t{caption}\n' for image, captions in CAPTIONS.items()
            for place, caption in enumerate(captions)))
        for mode, listing in (('train', train), ('val', val), ('test', 'testImages.txt')):
            listed = [image for image in CAPTIONS if SPLIT[image] == mode]
            if listing == 'val.txt':
                listed = [image[:-4] for image in listed]
            (folder / listing).write_text('\n'.join(listed) + '\n')

    return write


def write_karpathy(folder):
    splits = {**SPLIT, '2_b.jpg': 'restval', 'without captions': 'val'}
    images = [{'filename': name, 'split': splits[name],
               'sentences': [{'raw': caption} for caption in captions]}
              for name, captions in [*CAPTIONS.items(), ('without captions', [])]]
    (folder / 'dataset_flickr8k.json').write_text(json.dumps({'images': images}))


FLICKR8K = write_tokens('Flickr8k.token.txt', 'Flickr_8k.trainImages.txt',
                        'Flickr_8k.devImages.txt')


def write_kaggle(folder):
    FLICKR8K(folder)
    os.remove(folder / 'Flickr8k.token.txt')
    (folder / 'captions.txt').write_text('\n'.join(['image,caption'] + CSV))


FORMS = {
    'COCO': write_coco,
    'Flickr8k': FLICKR8K,
    'Flickr30k': write_tokens('results_20130124.token', 'train.txt', 'val.txt'),
    'Karpathy': write_karpathy,
    'Kaggle with lists': write_kaggle,
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'download' / 'Images').mkdir(parents=True)
    for number, (name, colour) in enumerate(COLOURS.items()):
        photo = Image.new('RGB', (30 + number, 20), colour)
        photo.save(tmp_path / 'download' / 'Images' / name)
    return tmp_path / 'download'


@pytest.fixture(autouse=True)
def without_network(monkeypatch):
    monkeypatch.setattr(script, 'PhotoFeatures', lambda device: MeanColours())


@pytest.mark.parametrize('form', FORMS)
def test_every_form(form, folder):
    FORMS[form](folder)
    images, about = readCaptions(str(folder))
    assert {image.name: (image.mode, image.captions) for image in images.values()} == {
        name: (SPLIT[name], captions) for name, captions in CAPTIONS.items()
        if SPLIT[name] != 'test'}
    assert str(folder) in about


@pytest.mark.parametrize('lines', [
    CSV,
    ['image,caption'] + [line if 'small' in line else line.replace('"', '') for line in CSV],
    ['file\tcaption'] + [line.replace(',', '\t', 1) for line in CSV],
    ['image_name| comment_number| comment'] + [line.replace(',', '| 3| ', 1).replace('| "', '|"')
                                               for line in CSV],
    ['sub/folder/' + line.replace(',', ';', 1) for line in CSV]])
def test_tables(lines, folder):
    (folder / 'mine.csv').write_bytes(('\ufeff' + '\r\n'.join(lines) + '\r\n').encode())
    images, about = readCaptions(str(folder))
    assert {os.path.basename(image.name): image.captions for image in images.values()} == CAPTIONS
    assert sorted(image.mode for image in images.values()) == ['train'] * 3 + ['val']
    assert '1 of 4 photos drawn for validation' in about


def test_a_quote_that_is_not_closed_stays_in_its_line(folder):
    (folder / 'captions.txt').write_text('a.jpg,"A dog\nb.jpg,A cat\nb.jpg,"A cat, red , sits"\n')
    images, _ = readCaptions(str(folder))
    assert images['a'].captions == ['A dog']
    assert images['b'].captions == ['A cat', 'A cat, red , sits']


def test_the_share_for_validation_is_the_same_in_any_order(folder):
    lines, shares = [f'{number}.jpg,a dog' for number in range(50)], []
    for order in (lines, lines[::-1]):
        (folder / 'a.csv').write_text('\n'.join(order))
        images, _ = readCaptions(str(folder))
        shares.append({key for key, image in images.items() if image.mode == 'val'})
    assert shares[0] == shares[1] and len(shares[0]) == 5


@pytest.mark.parametrize('name, key', [
    ('139', '139'), ('000000000139', '139'), ('COCO_val2014_000000000139', '139'),
    ('folder/000000000139.jpg', '139'), ('139_info', '139_info'),
    ('1000268201_693b08cb0e.JPG', '1000268201_693b08cb0e'), ('IMG_2019_0139.jpg', 'IMG_2019_0139'),
    ('a.b', 'a.b'), ('²', '²'), ('\u0661.jpg', '1'), ('1' * 300, '1' * 300)])
def test_what_an_image_is_known_by(name, key):
    assert keyOf(name) == key


def test_names_lead_nowhere_else(folder, capsys):
    (folder / 'a.csv').write_text('../../1_a.jpg,a dog\n/etc/2_b.jpg,a dog\n')
    out = built(folder)
    assert '1 of 2 photos drawn for validation' in capsys.readouterr().out
    for name in ('1_a', '2_b'):
        assert image(out, name)['imgPath'] == f'{name}.jpg'


def test_without_lists_a_share_is_drawn(folder):
    FLICKR8K(folder)
    os.remove(folder / 'Flickr_8k.devImages.txt')
    make_fifo(folder / 'Flickr_8k.valImages.txt')  # no list, nor waited for
    images, about = readCaptions(str(folder))
    assert sorted(image.mode for image in images.values()) == ['train'] * 3 + ['val']
    assert '1 of 4 photos drawn for validation' in about


def test_dots_in_names(folder):
    """A photo with two endings, and names without any, are not taken for others."""
    names = ['a.jpg', 'a.png.jpg', 'c.001', 'c.002']
    (folder / 'a.token').write_text(''.join(f'{name}#0\ta dog\n' for name in names))
    images, _ = readCaptions(str(folder))
    assert list(images) == [keyOf(name) for name in names] == ['a', 'a.png', 'c.001', 'c.002']
    assert [imageId(name) for name in names] == list(images)  # as training tells them apart


def other_list(*names):
    def write(folder):
        FLICKR8K(folder)
        (folder / 'Flickr_8k.devImages.txt').write_text('\n'.join(names))

    return write


def two_forms(folder):
    write_coco(folder)
    write_karpathy(folder)


def only_training(folder):
    write_coco(folder)
    os.remove(folder / 'annotations' / 'captions_val2017.json')


def karpathy(**image):
    image = {'filename': 'a.jpg', 'split': 'val', 'sentences': [{'raw': 'a dog'}], **image}
    return file('dataset_coco.json', json.dumps({'images': [image]}))


def fifo(folder):
    make_fifo(folder / 'captions.txt')


@pytest.mark.parametrize('write, sentence', [
    (lambda folder: None, 'CAPTIONS is .*, which must be or hold one .* found: none. Set CAPTIONS'),
    (fifo, 'found: none'),
    (two_forms, 'found: .*captions_train2017.json, .*dataset_flickr8k.json. Set CAPTIONS'),
    (other_list('1_a.jpg'), '1_a.jpg and 1_a.jpg count as the same photo'),
    (other_list('another.jpg'), 'must have captions both of train and of val images'),
    (only_training, 'captions_val2017.json cannot be used: FileNotFoundError'),
    (file('captions_train2017.json', '{"images": [], "annotations": [{"image_id": 9}]}'),
     "captions_train2017.json cannot be used: it has no 'caption'. Set CAPTIONS"),
    (file('dataset_coco.json', '{'), 'dataset_coco.json cannot be used: Expecting'),
    (file('dataset_coco.json', '[' * 10 ** 5), 'dataset_coco.json cannot be used: RecursionError'),
    (karpathy(sentences=[{'raw': None}]), 'a caption of a.jpg is not a text'),
    (karpathy(filename=None), 'the name or a caption of None is not a text'),
    (karpathy(filename=5), 'the name or a caption of 5 is not a text'),
    (karpathy(split=[]), 'dataset_coco.json cannot be used: TypeError'),
    (file('Flickr8k.token.txt', 'a.jpg#0\ta dog\nno tab here\n'), 'line 2 has no tab'),
    (file('a.csv', 'a.jpg,one\na.png,two\n'), 'a.jpg and a.png count as the same photo'),
    (file('a.csv', 'cats/1.jpg,one\ndogs/01.jpg,two\n'), 'cats/1.jpg and dogs/01.jpg count as'),
    (file('a.csv', 'a\x1bb.jpg,one\na\x1bb.png,two\n'), 'a b.jpg and a b.png count as'),
    (file('a.csv', 'a.jpg,"a dog\nthat runs"\n'), 'line 2 is not the name of a photo and its'),
    (file('a.csv', 'image,caption,split\na.jpg,a dog,train\n'), 'line 1 is not the name'),
    (file('a.csv', 'a.jpg,a dog,train\nb.jpg,"a dog, red",val\n'), 'each line has 3 columns'),
    (file('a.csv', ''), 'must have captions both'),
])
def test_captions_that_cannot_be_used(write, sentence, folder):
    write(folder)
    with pytest.raises(UserError, match=sentence):
        readCaptions(str(folder))


def built(folder, **settings):
    return build_folder(folder.parent, [folder], [folder], **settings)


def test_a_data_folder_from_photos(folder, capsys):
    FLICKR8K(folder)
    (folder / 'other').mkdir()
    Image.new('RGB', (9, 9)).save(folder / 'other' / '3_c.jpg')  # the first one is taken
    out = built(folder)
    training = np.array([COLOURS['1_a.jpg'], COLOURS['2_b.jpg']])
    for name, split in (('1_a', 'train'), ('3_c', 'val')):
        unpooled, pooled = image(out, name), image(out, name, 'max')
        expected = (COLOURS[f'{name}.jpg'] - training.mean(0)) / training.std(0)
        assert_allclose(unpooled['cnn_features'][:, [0, 700, 1400]],
                        np.tile(expected, (10, 1)), atol=.2)
        assert_array_equal(unpooled['cnn_features'].max(0), pooled['cnn_features'])
        with Image.open(os.path.join(out, f'{split}2017', f'{name}.jpg')) as photo:
            assert unpooled['boxes'][0].tolist() == [0, 0, *photo.size]
    assert 'photos, by EfficientNet-Lite2' in capsys.readouterr().out


def test_the_photo_that_is_named_is_taken(folder):
    """Of several whose names differ in folder or ending."""
    (folder / 'a.csv').write_text('dogs/1_a.jpg,a dog\n2_b.png,a cat\n')
    (folder / 'dogs').mkdir()
    for name in ('dogs/1_a.jpg', '2_b.png'):
        Image.new('RGB', (9, 9)).save(folder / name)
    out = built(folder)
    links = map(os.readlink, pathlib.Path(out).glob('*2017/*'))
    assert sorted(links) == [str(folder / '2_b.png'), str(folder / 'dogs' / '1_a.jpg')]


def test_coco_photos_and_captions_of_another_year(folder):
    images = [{'filename': f'COCO_val2014_000000000{image_id}.jpg', 'split': split,
               'sentences': [{'raw': 'A dog'}]}
              for image_id, split in ((139, 'train'), (200, 'val'))]
    (folder / 'dataset_coco.json').write_text(json.dumps({'images': images}))
    (folder / 'val2017').mkdir()  # splits of their own
    for name in ('000000000139.jpg', 'IMG_139.jpg', '000000000200.jpg'):
        Image.new('RGB', (9, 9)).save(folder / 'val2017' / name)
    name = 'COCO_val2014_000000000139'
    out = built(folder)
    assert image(out, name)['imgPath'] == f'{name}.jpg'
    link = os.readlink(os.path.join(out, 'train2017', f'{name}.jpg'))
    assert link == str(folder / 'val2017' / '000000000139.jpg')


def test_a_broken_photo_is_named_and_links_are_not_needed(folder, monkeypatch):
    def refuse(*paths):
        raise OSError('a privilege is not held')

    FLICKR8K(folder)
    (folder / 'Images' / '1_a.jpg').write_bytes(b'no photo')
    monkeypatch.setattr(os, 'symlink', refuse)
    out = built(folder)
    (reason, names), = skipped_in(out).items()
    assert reason.startswith('no photo of a known kind') and names == ['1_a.jpg']
    assert os.listdir(os.path.join(out, 'train2017')) == [] and image(out, '2_b')


def test_features_are_made_of_wanted_photos_alone_and_once(folder, monkeypatch):
    FLICKR8K(folder)
    seen = []

    def noting(maker, paths, *others, features=script.featuresOfPhotos):
        seen.append([os.path.basename(path) for path in paths])
        return features(maker, paths, *others)

    monkeypatch.setattr(script, 'featuresOfPhotos', noting)
    out = built(folder)
    before = image(out, '2_b')['cnn_features']
    os.rename(out, f'{out}.partial')
    os.remove(f'{out}.partial/Train2017_detectron2_lim10maxfeatures/2_b.pickle')
    built(folder)
    assert seen == [['1_a.jpg', '2_b.jpg', '3_c.jpg'], ['2_b.jpg']]  # never 4_d, of the test split
    assert_array_equal(image(out, '2_b')['cnn_features'], before)  # by one standard


def test_links_that_lead_nowhere(folder):
    FLICKR8K(folder)
    other = folder.parent / 'other'
    other.mkdir()
    (other / '1_a.jpg').symlink_to('nowhere')
    with pytest.raises(UserError, match='no photos with the name of a training image that can be'):
        build_folder(folder.parent, [folder], [other])


def test_rare_words_are_unknown_and_marks_are_no_words(folder):
    FLICKR8K(folder)
    with open(folder / 'Flickr8k.token.txt', 'a') as f:
        f.write('2_b.jpg#1\teeee A Ssss cat\n')
    out = built(folder, minimumCount=2)
    vocabulary = loadVocabulary(out)
    assert vocabulary['vocabulary'] == ['eeee', 'ssss', 'UNK', 'a', 'red', 'dog', 'cat']
    assert vocabulary['sentenceLen'].tolist() == [3, 3, 3, 2]
    assert image(out, '1_a')['captionsAsTokens'] == [[1, 3, 4, 5, 0], [1, 3, 5, 4, 0]]
    assert image(out, '2_b')['captionsAsTokens'] == [[1, 3, 6, 2, 0], [1, 3, 6, 0]]
