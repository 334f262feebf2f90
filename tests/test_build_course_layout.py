"""Data folders from photos and captions: what is in them, what is left out, going on."""
import os
import pathlib
import runpy
import sys

import filelock
import numpy as np
import pytest
from PIL import Image
from test_caption_forms import CAPTIONS, write_flickr8k, write_karpathy_images
from test_photo_features import MeanColours

from utils import buildCourseLayout as script
from utils.buildCourseLayout import buildCourseLayout
from utils.data import dataFolder
from utils.dataLoader import DataLoaderWrapper
from utils.files.atomic import readJson
from utils.files.errors import UserError
from utils.files.project import PROJECT
from utils.files.safePickle import loadPickle
from utils.generateVocabulary import loadVocabulary

COLOURS = {name: (50 * number, 10 + 20 * number, 200 - 30 * number)
           for number, name in enumerate(CAPTIONS)}


def save(path, colour=(9, 9, 9), size=(9, 9)):
    os.makedirs(os.path.dirname(str(path)), exist_ok=True)
    Image.new('RGB', size, colour).save(str(path))


@pytest.fixture
def folder(tmp_path):
    """Flickr8k's captions and lists of four photos, and these."""
    folder = tmp_path / 'download'
    folder.mkdir()
    write_flickr8k(folder)
    for number, (name, colour) in enumerate(COLOURS.items()):
        save(folder / 'Images' / name, colour, (30 + number, 20))
    return folder


@pytest.fixture(autouse=True)
def without_network(monkeypatch):
    monkeypatch.setattr(script, 'PhotoFeatures', lambda device: MeanColours())


def build(captions, folder, **settings):
    out = str(folder.parent / 'out')
    captions = captions if isinstance(captions, list) else [captions]
    buildCourseLayout(list(map(str, captions)), [str(folder)], out, **settings)
    return out


def table_of(folder, text):
    """The path of a table of captions, which lies apart from the lists in the folder."""
    path = folder.parent / 'tables' / 'own.csv'
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def build_again(folder, out):
    os.rename(out, f'{out}.partial')
    return build(folder, folder)


def image(out, name, stub=''):
    """The content of an image's file."""
    path, = pathlib.Path(out).glob(f'*detectron2_lim10{stub}features/{name}.pickle')
    return loadPickle(str(path))


def skipped_in(out):
    return readJson(os.path.join(out, 'skipped.json'), None)


def about(out):
    with open(os.path.join(out, 'about.txt')) as f:
        return f.read()


def test_a_data_folder_is_read_by_the_loader(folder, capsys, config, model_param):
    save(folder / 'other' / '3_c.jpg')  # the first one is taken
    out = build(folder, folder)
    training = np.array([COLOURS['1_a.jpg'], COLOURS['2_b.jpg']])
    for name, split in (('1_a', 'train'), ('3_c', 'val')):
        unpooled, pooled = image(out, name), image(out, name, 'max')
        expected = (COLOURS[f'{name}.jpg'] - training.mean(0)) / training.std(0)
        np.testing.assert_allclose(unpooled['cnn_features'][:, [0, 700, 1400]],
                                   np.tile(expected, (10, 1)), atol=.2)
        np.testing.assert_array_equal(unpooled['cnn_features'].max(0), pooled['cnn_features'])
        with Image.open(os.path.join(out, f'{split}2017', f'{name}.jpg')) as photo:
            assert unpooled['boxes'][0].tolist() == [0, 0, *photo.size]
    for stub, shape in (('', (2, 10, 2048)), ('max', (2, 2048))):
        stub = f'detectron2_lim10{stub}features'
        loader = DataLoaderWrapper({**config, 'featurepathstub': stub},
                                   {**model_param, 'data_dir': out})
        loader.checkFiles()
        batch, = loader.myDataDicts['train']
        assert batch['cnn_features'].shape == shape and batch['boxes'][0].shape == (10, 4)
    printed = capsys.readouterr().out
    assert 'photos, by EfficientNet-Lite2' in printed and about(out) in printed


def test_the_photo_that_is_named_is_taken(folder):
    """Of several whose names differ in folder or ending."""
    captions = table_of(folder, 'dogs/1_a.jpg,a dog\n2_b.png,a cat\n')
    for name in ('dogs/1_a.jpg', '2_b.png'):
        save(folder / name)
    out = build(captions, folder)
    links = [os.readlink(str(path)) for path in sorted(pathlib.Path(out).glob('*2017/*'))]
    assert sorted(links) == [str(folder / '2_b.png'), str(folder / 'dogs' / '1_a.jpg')]


def test_names_lead_nowhere_else(folder):
    out = build(table_of(folder, '../../1_a.jpg,a dog\n/etc/2_b.jpg,a dog\n'), folder)
    for name in ('1_a', '2_b'):
        assert image(out, name)['imgPath'] == f'{name}.jpg'


def test_coco_photos_and_captions_of_another_year(folder):
    captions = write_karpathy_images(folder, {
        f'COCO_val2014_000000000{image_id}.jpg': (split, ['A dog'])
        for image_id, split in ((139, 'train'), (200, 'val'))})
    for name in ('000000000139.jpg', 'IMG_139.jpg', '000000000200.jpg'):
        save(folder / 'val2017' / name)  # splits of their own
    name = 'COCO_val2014_000000000139'
    out = build(captions, folder)
    assert image(out, name)['imgPath'] == f'{name}.jpg'
    link = os.readlink(os.path.join(out, 'train2017', f'{name}.jpg'))
    assert link == str(folder / 'val2017' / '000000000139.jpg')


def test_what_is_left_out_is_said_and_may_be_replaced(folder, monkeypatch, capsys):
    """Where the system allows no links, all goes well without."""
    def refuse(*paths):
        raise OSError('a privilege is not held')

    monkeypatch.setattr(os, 'symlink', refuse)
    (folder / 'Images' / '1_a.jpg').write_bytes(b'no photo')
    save(folder / 'mine.jpg')
    out = build(folder, folder)
    (reason, names), = skipped_in(out).items()
    assert reason.startswith('no photo of a known kind') and names == ['1_a.jpg']
    assert os.listdir(os.path.join(out, 'train2017')) == [] and image(out, '2_b')
    printed = capsys.readouterr().out
    for line in ('train: 1 of 2 images', 'val: 1 of 1 images', '2 photos have no captions for',
                 'Left out, no photo of a known kind'):
        assert line in printed
    save(folder / 'Images' / '1_a.jpg')
    assert skipped_in(build_again(folder, out)) == {}


def test_features_are_made_of_wanted_photos_alone_and_once(folder, monkeypatch):
    seen = []

    def noting(maker, paths, *others, features=script.featuresOfPhotos):
        seen.append([os.path.basename(path) for path in paths])
        return features(maker, paths, *others)

    monkeypatch.setattr(script, 'featuresOfPhotos', noting)
    out = build(folder, folder)
    before = image(out, '2_b')['cnn_features']
    os.remove(f'{out}/Train2017_detectron2_lim10maxfeatures/2_b.pickle')
    build_again(folder, out)
    assert seen == [['1_a.jpg', '2_b.jpg', '3_c.jpg'], ['2_b.jpg']]  # never 4_d, of the test split
    np.testing.assert_array_equal(image(out, '2_b')['cnn_features'], before)  # by one standard


def test_rare_words_are_unknown_and_marks_are_no_words(folder):
    with open(str(folder / 'Flickr8k.token.txt'), 'a') as f:
        f.write('2_b.jpg#1\teeee A Ssss cat\n')
    out = build(folder, folder, minimumCount=2)
    vocabulary = loadVocabulary(out)
    assert vocabulary['vocabulary'] == ['eeee', 'ssss', 'UNK', 'a', 'red', 'dog', 'cat']
    assert vocabulary['sentenceLen'].tolist() == [3, 3, 3, 2]
    assert image(out, '1_a')['captionsAsTokens'] == [[1, 3, 4, 5, 0], [1, 3, 5, 4, 0]]
    assert image(out, '2_b')['captionsAsTokens'] == [[1, 3, 6, 2, 0], [1, 3, 6, 0]]


def test_a_stopped_run_goes_on(folder, tmp_path, monkeypatch):
    out, at_once = tmp_path / 'out', tmp_path / 'at once'
    buildCourseLayout([str(folder)], [str(folder)], str(at_once), script.MINIMUM_COUNT)
    for name, path in (('CAPTIONS', folder), ('PHOTOS', folder), ('OUT', out)):
        monkeypatch.setattr(script, name, str(path))
    calls = []

    def stopping(path, value, write=dataFolder.writePickle):
        calls.append(path)
        if len(calls) == 4:  # an image and half of the second are written
            half = os.path.join(os.path.dirname(path), 'partial_' + os.path.basename(path))
            with open(half, 'wb') as f:
                f.write(b'half a fi')  # as a kill leaves it
            raise KeyboardInterrupt
        write(path, value)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(dataFolder, 'writePickle', stopping)
        script.main()
    assert not out.exists()
    first = 'Train2017_detectron2_lim10maxfeatures/1_a.pickle'
    written = (tmp_path / 'out.partial' / first).stat().st_mtime_ns
    script.main()
    assert (out / first).stat().st_mtime_ns == written and not (tmp_path / 'out.partial').exists()
    assert contents(out) == contents(at_once)


def contents(root):
    """Path → bytes of every file."""
    return {path.relative_to(root): path.read_bytes()
            for path in root.glob('**/*') if path.is_file()}


def test_nothing_is_overwritten_nor_mixed(folder):
    out = build(folder, folder)
    with pytest.raises(UserError, match='exists already'):
        build(folder, folder)
    os.rename(out, out + '.partial')
    with pytest.raises(UserError, match='begun with other MINIMUM_COUNT[.] Set that back'):
        build(folder, folder, minimumCount=2)
    with open(str(folder / 'Flickr8k.token.txt'), 'a') as f:
        f.write('2_b.jpg#1\tanother caption\n')
    with pytest.raises(UserError, match='begun with other captions[.]'):
        build(folder, folder)


def test_several_sources_become_one_folder(folder):
    """With one vocabulary; a photo that two of them have is refused."""
    table = table_of(folder, ''.join(f'own{number}.jpg,a zebra {number}\n'
                                     for number in range(20)))
    for number in range(20):
        save(folder / 'own' / f'own{number}.jpg')
    out = build([folder, table], folder)
    assert {'zebra', 'red'} <= set(loadVocabulary(out)['wordToToken'])
    assert f'{table}, 2 of 20 photos drawn for validation' in about(out)
    assert f'{folder}/Flickr8k.token.txt, official lists' in about(out) and skipped_in(out) == {}
    assert len(list(pathlib.Path(out).glob('Train*max*/own*'))) == 18
    table_of(folder, '1_a.jpg,a zebra\nb.jpg,a cat\n')
    with pytest.raises(UserError, match='own.csv cannot be used: .* count as the same photo'):
        build([folder, table], folder / 'own')


def test_one_split_alone_is_kept_until_the_other_comes(folder):
    (folder / 'Images' / '3_c.jpg').rename(folder / 'Images' / 'later')
    with pytest.raises(UserError, match='no usable photos of val images'):
        build(folder, folder)
    (folder / 'Images' / 'later').rename(folder / 'Images' / '3_c.jpg')
    out = build(folder, folder)
    assert all(image(out, name) for name in ('1_a', '2_b', '3_c'))


@pytest.mark.parametrize('block', [
    lambda out: os.symlink('nowhere', out), lambda out: open(out + '.partial', 'w').close()])
def test_a_place_that_cannot_be_written_is_named_at_once(block, folder, tmp_path):
    block(str(tmp_path / 'out'))
    with pytest.raises(UserError, match='out(.partial)? (exists|cannot be used)'):
        build(folder, folder)


def test_two_builds_of_one_folder(folder, tmp_path):
    (tmp_path / 'out.partial').mkdir()
    with filelock.FileLock(str(tmp_path / 'out.partial' / 'lock')), \
            pytest.raises(UserError, match='Another run works in .*out.partial.* another OUT'):
        build(folder, folder)


def test_names_of_folders_steer_no_terminal(folder, capsys):
    odd = folder.parent / 'red \x1b[31m\udce5'
    folder.rename(odd)
    build(odd, odd)
    printed = capsys.readouterr().out
    assert 'red  [31m ' in printed and '\x1b' not in printed and printed.encode()


def test_photos_of_other_captions_and_links_that_lead_nowhere(folder, tmp_path):
    save(tmp_path / 'other' / 'mine.jpg')
    (tmp_path / 'other' / '1_a.jpg').symlink_to('nowhere')
    with pytest.raises(UserError, match='no photos with the name of a training image that can be'):
        build(folder, tmp_path / 'other')


def test_the_script_started_elsewhere_ends_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', ['the folder of the script', *sys.path])
    monkeypatch.setattr(sys, 'argv', ['without parameters'])
    with pytest.raises(SystemExit, match='no photos in .*images. Set PHOTOS at the top'):
        runpy.run_path(os.path.join(PROJECT, 'utils', 'buildCourseLayout.py'), run_name='__main__')
    assert sys.path[0] == PROJECT
