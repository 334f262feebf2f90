"""Captions in the forms in which they are published."""
import json
import os

import pytest

from utils.data.captionForms import keyOf, readCaptions
from utils.files.errors import UserError
from utils.validate_metrics import imageId

CAPTIONS = {'1_a.jpg': ['A red dog .', 'A dog, red'], '2_b.jpg': ['A cat sits'],
            '3_c.jpg': ['Two dogs', 'Dogs; two | of them'], '4_d.jpg': ['A "small" bird']}
SPLIT = {'1_a.jpg': 'train', '2_b.jpg': 'train', '3_c.jpg': 'val', '4_d.jpg': 'test'}
CSV = [f'{name},"{caption}"'.replace('"small"', '""small""')
       for name, captions in CAPTIONS.items() for caption in captions]


def write_coco(folder):
    (folder / 'annotations').mkdir()
    for mode in ('train', 'val'):
        names = [name for name in CAPTIONS if SPLIT[name] == mode]
        (folder / 'annotations' / f'captions_{mode}2017.json').write_text(json.dumps({
            'images': [{'id': name, 'file_name': name} for name in names],
            'annotations': [{'image_id': name, 'caption': caption}
                            for name in names for caption in CAPTIONS[name]]}))
    (folder / 'annotations' / 'instances_train2017.json').write_text('{}')


def write_tokens(name, train, val):
    def write(folder):
        (folder / name).write_text(''.join(
            f'{image}#{place}\t{caption}\n' for image, captions in CAPTIONS.items()
            for place, caption in enumerate(captions)))
        for mode, file in (('train', train), ('val', val), ('test', 'testImages.txt')):
            listed = [image for image in CAPTIONS if SPLIT[image] == mode]
            if file == 'val.txt':
                listed = [image[:-4] for image in listed]
            (folder / file).write_text('\n'.join(listed) + '\n')

    return write


def write_karpathy_images(folder, images):
    """Writes a dict name → (split, captions); returns the file's path."""
    path = folder / 'dataset_coco.json'
    path.write_text(json.dumps({'images': [
        {'filename': name, 'split': split, 'sentences': [{'raw': text} for text in captions]}
        for name, (split, captions) in images.items()]}))
    return path


def write_karpathy(folder):
    splits = {**SPLIT, '2_b.jpg': 'restval'}
    write_karpathy_images(folder, {**{name: (splits[name], CAPTIONS[name]) for name in CAPTIONS},
                                   'without captions': ('val', [])})


write_flickr8k = write_tokens('Flickr8k.token.txt', 'Flickr_8k.trainImages.txt',
                              'Flickr_8k.devImages.txt')


def write_kaggle(folder):
    write_flickr8k(folder)
    os.remove(str(folder / 'Flickr8k.token.txt'))
    (folder / 'captions.txt').write_text('\n'.join(['image,caption'] + CSV))


FORMS = {
    'COCO': write_coco,
    'Flickr8k': write_flickr8k,
    'Flickr30k': write_tokens('results_20130124.token', 'train.txt', 'val.txt'),
    'Karpathy': write_karpathy,
    'Kaggle with lists': write_kaggle,
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'download').mkdir()
    return tmp_path / 'download'


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


def test_without_lists_a_share_is_drawn(folder):
    write_flickr8k(folder)
    os.remove(str(folder / 'Flickr_8k.devImages.txt'))
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


def other_list(folder):
    write_flickr8k(folder)
    (folder / 'Flickr_8k.devImages.txt').write_text('another.jpg')


def two_forms(folder):
    write_coco(folder)
    write_karpathy(folder)


def only_training(folder):
    write_coco(folder)
    os.remove(str(folder / 'annotations' / 'captions_val2017.json'))


def file(name, content):
    return lambda folder: (folder / name).write_text(content)


def karpathy(name, text):
    return lambda folder: write_karpathy_images(folder, {name: ('val', [text])})


@pytest.mark.parametrize('write, sentence', [
    (lambda folder: None, 'CAPTIONS is .*, which must be or hold one .* found: none. Set CAPTIONS'),
    (two_forms, 'found: .*captions_train2017.json, .*dataset_coco.json. Set CAPTIONS'),
    (other_list, 'must have captions both of train and of val images'),
    (only_training, 'captions_val2017.json cannot be used: FileNotFoundError'),
    (file('captions_train2017.json', '{"images": [], "annotations": [{"image_id": 9}]}'),
     "captions_train2017.json cannot be used: it has no 'caption'. Set CAPTIONS"),
    (file('dataset_coco.json', '{'), 'dataset_coco.json cannot be used: Expecting'),
    (karpathy('a.jpg', None), 'a caption of a.jpg is not a text'),
    (file('Flickr8k.token.txt', 'a.jpg#0\ta dog\nno tab here\n'), 'line 2 has no tab'),
    (file('a.csv', 'a.jpg,one\na.png,two\n'), 'a.jpg and a.png count as the same photo'),
    (file('a.csv', 'a\x1bb.jpg,one\na\x1bb.png,two\n'), 'a b.jpg and a b.png count as'),
    (file('a.csv', 'a.jpg,"a dog\nthat runs"\n'), 'line 2 is not the name of a photo and its'),
    (file('a.csv', 'image,caption,split\na.jpg,a dog,train\n'), 'each line has 3 columns'),
])
def test_captions_that_cannot_be_used(write, sentence, folder):
    write(folder)
    with pytest.raises(UserError, match=sentence):
        readCaptions(str(folder))
