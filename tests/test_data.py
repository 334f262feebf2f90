"""Loaders and vocabulary on the quirks of the real files; errors name the file and what to do."""
import hashlib
import os
import pickle
import shutil
import sys
import threading

import numpy as np
import pytest
import torch
from conftest import CAPTIONS, D, marked, write_pickle
from PIL import Image

import utils
from utils import dataRoot
from utils.data import checkedFiles, dataFolder, imageFiles, imageLoader
from utils.data.captionDataset import Collate
from utils.data.captionWords import captionOf, wordPositions
from utils.data.dataFolder import dataName, featureFiles
from utils.data.imageFiles import loadImage
from utils.data.pictures import openPicture
from utils.dataLoader import CHECKED_FILES, DataLoaderWrapper
from utils.files.errors import UserError
from utils.generateVocabulary import generateVocabulary, loadVocabulary
from utils.scripts.start import provideData

POOLED, UNPOOLED = 'detectron2_lim10maxfeatures', 'detectron2_lim10features'


def feature_file(root, number=0, folder=f'Train2017_{POOLED}'):
    return os.path.join(root, folder, f'{number:012d}.pickle')


def change(path, **changes):
    """Changes a file's keys; those that become None are removed."""
    with open(path, 'rb') as f:
        record = {**pickle.load(f), **changes}
    write_pickle(path, {key: value for key, value in record.items() if value is not None})


def checked(config, model_param, **changes):
    """A wrapper whose files have been checked."""
    loader = DataLoaderWrapper(config, {**model_param, **changes})
    loader.checkFiles()
    return loader


def test_a_batch_has_the_keys_and_shapes_of_the_course(course_folder, config, model_param):
    """Also with the hand-out's configuration, which has none of our keys."""
    course_folder()
    del config['seed'], config['learningRecipe']
    batch = next(iter(DataLoaderWrapper(config, model_param).myDataDicts['val']))
    assert set(batch) == {
        'cnn_features', 'xTokens', 'yTokens', 'yWeights', 'numbOfTruncatedSequences',
        'orig_captions', 'captions', 'captionsAsTokens', 'allcaptions', 'allcaptionsAsTokens',
        'imgPaths'}
    steps = max(len(captions[0].split()) for captions in batch['orig_captions']) + 1
    assert batch['cnn_features'].shape == (4, D) and batch['cnn_features'].dtype == torch.float32
    for key in ('xTokens', 'yTokens', 'yWeights'):
        assert batch[key].shape == (4, steps, 1)
    assert batch['imgPaths'] == [f'{number:012d}.jpg' for number in range(10, 14)]
    assert batch['orig_captions'] == [CAPTIONS[number % 4] for number in range(10, 14)]
    assert [len(captions) for captions in batch['allcaptions']] == [5, 5, 7, 6]
    assert batch['captions'][0] == batch['allcaptions'][0][0]
    config['featurepathstub'] = UNPOOLED
    batch = next(iter(DataLoaderWrapper(config, model_param).myDataDicts['val']))
    assert batch['cnn_features'].shape == (4, 10, D)


def test_boxes_come_with_the_batches_of_files_that_have_them(course_folder, config, model_param):
    root = course_folder()
    boxes = np.arange(40, dtype=np.float32).reshape(10, 4)
    change(feature_file(root, 10, f'Val2017_{POOLED}'), boxes=boxes)
    first, second = DataLoaderWrapper(config, model_param).myDataDicts['val']
    assert first['boxes'][0].tolist() == boxes.tolist() and first['boxes'][1:] == [None] * 3
    assert 'boxes' not in second


def test_every_caption_ends_and_is_shifted_by_one(course_folder, config, model_param):
    course_folder()
    missing = 0
    for batch in DataLoaderWrapper(config, model_param).myDataDicts['val']:
        tensors = (batch[key] for key in ('xTokens', 'yTokens', 'yWeights'))
        for x, y, weights, tokens in zip(*tensors, batch['captionsAsTokens']):
            if tokens[-1] != 0:
                missing += 1
                tokens = [*tokens, 0]
            length = len(tokens) - 1
            assert x[:length].flatten().tolist() == tokens[:-1]
            assert y[:length].flatten().tolist() == tokens[1:] and not y[length:].any()
            assert weights[:length].all() and not weights[length:].any()
    assert missing > 0


def test_the_caption_drawn_depends_on_the_epoch_alone(course_folder, config, model_param):
    course_folder(n_train=24)
    here = DataLoaderWrapper(config, model_param).myDataDicts['train']
    threads = checked(config, model_param, numbOfCPUThreadsUsed=2).myDataDicts['train']

    def drawn(loader, epoch):
        loader.batch_sampler.sampler.set_epoch(epoch)
        return [(path, ' '.join(words)) for batch in loader
                for path, words in zip(batch['imgPaths'], batch['captions'])]

    first, second = drawn(here, 1), drawn(here, 2)
    assert drawn(threads, 1) == first and drawn(threads, 2) == second
    assert sorted(dict(first)) == sorted(dict(second)) and dict(first) != dict(second)
    assert [path for path, _ in first] != [path for path, _ in second]
    seen = {dict(drawn(here, epoch))[f'{0:012d}.jpg'] for epoch in range(40)}
    assert seen == {' '.join(marked(caption)) for caption in CAPTIONS[0]}


def same(one, other):
    """Whether two batches hold the same."""
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key]) if torch.is_tensor(value) else value == other[key]
        for key, value in one.items())


RAW = [np.ones(D, np.float32) / 3, torch.rand(D)]
OTHERS = [np.arange(D) / 7, (np.ones(D) / 3).astype('>f4'), torch.ones(D, dtype=torch.half) / 3]


@pytest.mark.parametrize('threads, slow', [(0, 1e9), (3, 1e9), (3, 0)])
def test_batches_are_the_same_however_files_are_read(course_folder, config, model_param, threads,
                                                     slow, monkeypatch):
    """Raw or unpickled, by one thread or by several, with files that hold no raw features."""
    monkeypatch.setattr(imageLoader, 'SLOW', slow)
    root = course_folder(n_train=24)
    for number, values in enumerate(RAW + OTHERS):
        change(feature_file(root, number), cnn_features=values)
    plain = list(DataLoaderWrapper(config, model_param).myDataDicts['train'])
    loader = checked(config, model_param, numbOfCPUThreadsUsed=threads).myDataDicts['train']
    is_raw = [offset >= 0 for _, _, offset, *_ in loader.dataset.checked]
    assert is_raw[:5] == [True] * len(RAW) + [False] * len(OTHERS) and all(is_raw[5:])
    batches = list(loader)
    assert len(plain) == len(batches) == 6 and all(map(same, batches, plain))


def count_unpickled(monkeypatch):
    """A list that grows by the name of each file that is unpickled."""
    read, unpickled = [], imageFiles._unpickled
    monkeypatch.setattr(imageFiles, '_unpickled', lambda path: (
        read.append(os.path.basename(path)) or unpickled(path)))
    return read


def test_training_opens_no_pickle_of_a_checked_file(course_folder, config, model_param,
                                                    monkeypatch):
    course_folder()
    loader = checked(config, model_param)
    read = count_unpickled(monkeypatch)
    for batch in loader.myDataDicts['train']:
        assert batch['cnn_features'].any() and batch['xTokens'].any() and batch.references()
    loader.captionRewards()
    loader.trainingStatistics()
    assert read == []
    assert batch['orig_captions'] and len(read) == len(batch['imgPaths'])


def test_a_file_that_changes_after_the_check_is_read_anew(course_folder, config, model_param):
    root = course_folder()
    loader = checked(config, model_param).myDataDicts['val']
    path = feature_file(root, 10, f'Val2017_{POOLED}')
    change(path, cnn_features=np.full(D, 7, np.float32), imgPath='other.jpg')
    batch = next(iter(loader))
    assert (batch['cnn_features'][0] == 7).all() and batch['imgPaths'][0] == 'other.jpg'
    change(path, cnn_features=np.full(D, np.nan, np.float32))
    with pytest.raises(UserError, match=f'{path} cannot be used: its features hold values'):
        next(iter(loader))
    os.remove(path)
    with pytest.raises(UserError, match=f'{path} cannot be read: No such file or directory'):
        next(iter(loader))


def test_a_batch_is_a_dict_whose_keys_may_be_changed(course_folder, config, model_param):
    course_folder(n_train=4)
    batch = next(iter(checked(config, model_param).myDataDicts['train']))
    batch['yWeights'] = None
    assert batch['yWeights'] is None and len(batch['captions']) == 4
    assert pickle.loads(pickle.dumps(batch)).keys() == batch.keys()


def test_a_torch_loader_with_processes_makes_the_same_batches(course_folder, config, model_param):
    """As a student may write it."""
    course_folder()
    loader = checked(config, model_param).myDataDicts['val']
    theirs = torch.utils.data.DataLoader(loader.dataset, batch_size=4, num_workers=1,
                                         collate_fn=loader.collate_fn)
    assert all(map(same, loader, theirs)) and len(theirs) == len(loader) == 2


def test_a_pass_that_is_left_early_ends_its_threads(course_folder, config, model_param,
                                                    monkeypatch):
    monkeypatch.setattr(imageLoader, 'SLOW', 0)
    course_folder(n_train=40)
    loader = DataLoaderWrapper(config, {**model_param, 'numbOfCPUThreadsUsed': 3})
    before = threading.active_count()
    batches = iter(loader.myDataDicts['train'])
    next(batches)
    assert threading.active_count() > before
    del batches
    assert threading.active_count() == before


def test_long_captions_come_in_truncated_parts():
    captions = [[1, *range(3, 10), 0], [1, *range(3, 60), 0]]                    # 8 and 58 steps
    tensors = Collate(25).captionTensors(captions)
    assert tensors['numbOfTruncatedSequences'] == 3
    for row, caption in enumerate(captions):
        steps = len(caption) - 1
        x, y, weights = (tensors[key][row].t().flatten().tolist()
                         for key in ('xTokens', 'yTokens', 'yWeights'))
        assert x[:steps] == caption[:-1] and y[:steps] == caption[1:]
        assert weights == [1] * steps + [0] * (75 - steps)
    for key in ('xTokens', 'yTokens', 'yWeights'):
        assert tensors[key].shape == (2, 25, 3) and tensors[key][:, :, 1].is_contiguous()


@pytest.mark.parametrize('steps, shape', [(3, (1, 3, 1)), (25, (1, 25, 1)), (26, (1, 25, 2))])
def test_batches_are_cut_to_their_longest_caption(steps, shape):
    assert Collate(25).captionTensors([[1] + [5] * (steps - 1) + [0]])['xTokens'].shape == shape


def test_tokens_beyond_the_vocabulary_size_are_unknown_words(course_folder, config, model_param):
    root = course_folder()
    loader = DataLoaderWrapper(config, model_param)
    V = len(loadVocabulary(root)['TokenToWord'])
    assert loader.config['vocabulary_size'] == V < config['vocabulary_size'] == 10000
    loader = DataLoaderWrapper({**config, 'vocabulary_size': 10}, model_param)
    batch = next(iter(loader.myDataDicts['val']))
    assert loader.config['vocabulary_size'] == 10
    assert batch['yTokens'].max() < 10 and (batch['yTokens'] == 2).any()
    assert max(map(max, batch['captionsAsTokens'])) >= 10


def change_words(root, changes):
    """Gives words of the vocabulary file another spelling; returns their tokens."""
    path = os.path.join(root, 'vocabulary', 'vocabulary.pickle')
    with open(path, 'rb') as f:
        vocabulary = pickle.load(f)
    tokens = [int(vocabulary['wordToToken'].pop(word)) for word in changes]
    vocabulary['wordToToken'].update(zip(changes.values(), tokens))
    vocabulary['TokenToWord'].update(zip(tokens, changes.values()))
    write_pickle(path, vocabulary)
    return tokens


def test_an_empty_word_is_not_learned(course_folder, config, model_param):
    empty, red = change_words(course_folder(), {'a': '', 'red': 'red'})
    loader = DataLoaderWrapper(config, model_param)
    assert not any((batch['yTokens'] == empty).any() for batch in loader.myDataDicts['val'])
    assert loader.wordsOf([1, empty, red, empty, 0, 5]) == 'red'


@pytest.mark.parametrize('word', ['new york', '\ud800'])
def test_a_vocabulary_of_unusable_words_is_named(course_folder, word):
    root = course_folder()
    change_words(root, {'red': word})
    with pytest.raises(UserError, match='vocabulary.pickle cannot be used: a word ') as caught:
        loadVocabulary(root)
    assert ascii(word) in str(caught.value)


def test_words_with_white_space_around_them_have_tokens(course_folder):
    root = course_folder()
    red, space = change_words(root, {'red': 'red\n', 'a': ' '})
    vocabulary = loadVocabulary(root)
    house = vocabulary['wordToToken']['house']
    tokens = [1, red, space, house, 0, 7]
    assert captionOf(vocabulary, tokens) == 'red house'
    assert wordPositions(vocabulary, tokens) == [1, 3]
    assert [vocabulary['wordToToken'][word] for word in ('red', 'house')] == [red, house]


def test_a_generated_vocabulary_is_read_back(tmp_path):
    vocabulary = generateVocabulary([['a', 'red', 'house'], ['a', 'house', 'a']])
    os.makedirs(tmp_path / 'vocabulary')
    write_pickle(str(tmp_path / 'vocabulary' / 'vocabulary.pickle'), vocabulary)
    back = loadVocabulary(str(tmp_path))
    assert back['vocabulary'] == ['eeee', 'ssss', 'UNK', 'a', 'house', 'red']
    assert back['wordToToken']['house'] == 4 and back['TokenToWord'][5] == 'red'
    assert back['wordCounter'].tolist() == [0, 0, 0, 3, 2, 1]
    assert back['sentenceLen'].tolist() == [3, 3]


@pytest.mark.parametrize('values', [
    np.arange(D), np.ones(D, '>f4'), np.full(D, 3e38, np.float32),
    torch.ones(D, dtype=torch.half, requires_grad=True)], ids=repr)
def test_features_of_other_types_are_read(course_folder, values):
    path = feature_file(course_folder())
    change(path, cnn_features=values)
    features = loadImage(path, [D])['cnn_features']
    assert features.dtype == torch.float32 and not features.requires_grad
    assert features.tolist() == [float(value) for value in values.tolist()]


def nested():
    """A list of few lists that stands for 2⁶⁰ values."""
    lists = ['a', 1]
    for _ in range(60):
        lists = [lists, lists]
    return lists


@pytest.mark.parametrize('key, value, fault', [
    ('cnn_features', None, "it has no 'cnn_features'"),
    ('cnn_features', 'text', 'a str, not an array of real numbers'),
    ('cnn_features', np.ones(D, complex), 'real numbers'),
    ('cnn_features', np.full(D, np.nan), 'not finite'),
    ('cnn_features', np.ones((10, D)), r'\[10, 16\], not \[16\]. Copy'),
    ('imgPath', ['7.jpg'], 'list stands where a text'),
    ('original_captions', ['a' * 20000] * 7, 'more than 10,000 letters'),
    ('captions', [['a']], 'different lengths'),
    ('captions', [nested()] * 7, 'list stands where a text'),
    ('captionsAsTokens', 5, 'int stands where a list'),
    ('captionsAsTokens', [[1, 3.5, 0]] * 7, 'float'),
    ('captionsAsTokens', [[]] * 7, 'start token'),
    ('captionsAsTokens', [[1, -3, 0]] * 7, 'below 0'),
    ('captionsAsTokens', [[1] + [3] * 10 ** 6 + [0]] * 7, 'a caption of 1,000,002 words'),
    ('boxes', np.ones(7), 'boxes')])
def test_unusable_files_are_named(course_folder, key, value, fault):
    path = feature_file(course_folder())
    change(path, **{key: value})
    with pytest.raises(UserError, match=fault) as caught:
        loadImage(path, [D])
    assert path in str(caught.value)


def test_all_unusable_files_are_named_before_training(course_folder, config, model_param,
                                                      monkeypatch):
    """Empty ones, other pickles, a pipe; three of them by their names."""
    monkeypatch.setattr(checkedFiles, 'FILES_AT_ONCE', 5)
    root = course_folder(n_train=12)
    paths = [feature_file(root, number) for number in (0, 3, 6, 9)]
    for path, data in zip(paths, (b'', pickle.dumps([1]), b'no pickle')):
        with open(path, 'wb') as f:
            f.write(data)
    os.remove(paths[3])
    if hasattr(os, 'mkfifo'):
        os.mkfifo(paths[3])
    else:
        open(paths[3], 'w').close()
    with pytest.raises(UserError) as caught:
        checked(config, model_param, numbOfCPUThreadsUsed=2)
    message = str(caught.value)
    assert f'4 of the 12 feature files in {os.path.dirname(paths[0])}' in message
    assert sum(path in message for path in paths) == 3 and message.endswith('…')


def test_only_new_and_changed_files_are_checked_again(course_folder, config, model_param,
                                                      monkeypatch):
    root = course_folder(n_train=12)
    looked_at = imageFiles.FILES_LOOKED_AT
    read = count_unpickled(monkeypatch)
    checked(config, model_param)
    assert len(read) == looked_at + 12 + 5
    del read[:]
    checked(config, model_param)
    assert len(read) == looked_at
    write_pickle(feature_file(root, 3), 'broken')
    os.utime(feature_file(root, 7), (1, 1))
    os.remove(feature_file(root, 9))
    for numbers in ([3, 7], [3]):  # what is broken is read again, what was found right is not
        del read[:]
        with pytest.raises(UserError, match=f'1 of the 11.*\n.*{3:012d}'):
            checked(config, model_param)
        assert [int(name.split('.')[0]) for name in read[looked_at:]] == numbers
    os.remove(feature_file(root, 3))
    dataset = checked(config, model_param).myDataDicts['train'].dataset
    assert [len(dataset.captions(index)) for index in range(10)] == [
        len(CAPTIONS[number % 4]) for number in (0, 1, 2, 4, 5, 6, 7, 8, 10, 11)]


@pytest.mark.parametrize('memory', [b'no pickle', pickle.dumps({'validFor': [0], 'files': {}})])
def test_a_damaged_memory_of_a_check_costs_a_new_one(course_folder, config, model_param, memory):
    course_folder()
    whole = checked(config, model_param).myDataDicts['train'].dataset.checked
    path = os.path.join(model_param['modelsDir'], 'm', CHECKED_FILES.format('train'))
    with open(path, 'wb') as f:
        f.write(memory)
    assert checked(config, model_param).myDataDicts['train'].dataset.checked == whole


def test_the_sizes_of_the_features_are_the_files(course_folder, config, model_param):
    root = course_folder(n_val=1)
    for number in range(10):
        change(feature_file(root, number, f'Train2017_{UNPOOLED}'),
               cnn_features=np.ones((36, D + 7), np.float32))
    write_pickle(feature_file(root, 0, f'Train2017_{UNPOOLED}'), 'broken')
    loader = DataLoaderWrapper({**config, 'featurepathstub': UNPOOLED}, model_param)
    assert loader.config['number_of_cnn_features'] == D + 7
    assert loader.config['numberOfRegions'] == 36
    with pytest.raises(UserError, match='1 of the 10'):
        loader.checkFiles()


def test_a_missing_feature_folder_says_what_is_there_instead(course_folder, config, model_param):
    root = course_folder()
    shutil.rmtree(os.path.join(root, f'Train2017_{UNPOOLED}'))
    with pytest.raises(UserError, match=f'needs the .*Train2017_{UNPOOLED},.* does not exist'
                                        f'.*Train2017_{POOLED}.*utils/dataRoot.py'):
        DataLoaderWrapper({**config, 'featurepathstub': UNPOOLED}, model_param)


def test_an_empty_feature_folder_and_a_missing_vocabulary_are_named(course_folder, config,
                                                                    model_param):
    root = course_folder(n_val=0)
    with pytest.raises(UserError, match=f'Val2017_{POOLED}.*is empty'):
        DataLoaderWrapper(config, model_param)
    os.remove(os.path.join(root, 'vocabulary', 'vocabulary.pickle'))
    with pytest.raises(UserError, match='vocabulary.pickle.*utils/buildCourseLayout.py'):
        DataLoaderWrapper(config, model_param)


def test_a_picture_that_is_missing_or_broken_is_none(tmp_path):
    folder = tmp_path / 'val2017'
    folder.mkdir()
    Image.new('RGB', (40, 30), (9, 99, 199)).save(str(folder / 'whole.jpg'))
    (folder / 'broken.jpg').write_bytes((folder / 'whole.jpg').read_bytes()[:200])
    assert openPicture(str(tmp_path), 'val', 'whole.jpg').size == (40, 30)
    for name in ('broken.jpg', 'missing.jpg'):
        assert openPicture(str(tmp_path), 'val', name) is None


def test_the_data_root(tmp_path, monkeypatch):
    monkeypatch.setattr(dataRoot, 'DATA_ROOT', '')
    monkeypatch.setattr(dataFolder, 'UNIVERSITY_ROOT', str(tmp_path / 'none'))
    assert dataFolder.isDemo(dataFolder.dataDir())
    monkeypatch.setattr(dataFolder, 'UNIVERSITY_ROOT', str(tmp_path))
    assert dataFolder.dataDir() == os.path.join(str(tmp_path), '')
    (tmp_path / 'file').write_text('')
    for name, fault in (('missing', 'does not exist'), ('file', 'is a file')):
        monkeypatch.setattr(dataRoot, 'DATA_ROOT', tmp_path / name)
        with pytest.raises(UserError, match=f'{name}/ {fault}'):
            provideData(dataFolder.dataDir())


@pytest.mark.parametrize('text', ['DATA_ROOT = /data/coco/', "DATAROOT = '/data/'",
                                  'DATA_ROOT = 5', "DATA_ROOT = b'/data/'"])
def test_a_wrong_data_root_ends_the_script_by_a_sentence(text, tmp_path, monkeypatch):
    (tmp_path / 'dataRoot.py').write_text(text)
    monkeypatch.setattr(utils, '__path__', [str(tmp_path)])
    monkeypatch.setattr(utils, 'dataRoot', dataRoot)  # so that both are put back
    monkeypatch.delitem(sys.modules, 'utils.dataRoot')
    with pytest.raises(SystemExit, match='^utils/dataRoot.py cannot be used: .* It must set '
                                         'DATA_ROOT to a folder in quotes'):
        dataFolder.dataDir()


def test_other_data_have_another_name(course_folder):
    one, same, other = (course_folder(number, name=f'{number}{name}/coco')
                        for number, name in ((10, 'a'), (10, 'b'), (6, 'a')))
    assert dataName(one) == dataName(same) != dataName(other)
    names = '\n'.join(f'{number:012d}.pickle' for number in range(15))
    with open(os.path.join(one, 'vocabulary', 'vocabulary.pickle'), 'rb') as f:
        digest = hashlib.sha1(f.read() + names.encode())
    assert dataName(one) == f'coco-{digest.hexdigest()[:6]}'  # as ever: runs are found by it


def test_hidden_files_are_neither_read_nor_part_of_the_name(course_folder):
    root = course_folder()
    name, paths = dataName(root), featureFiles(root, 'val', UNPOOLED)
    folder = os.path.join(root, f'Val2017_{UNPOOLED}')
    write_pickle(os.path.join(folder, '.DS_Store'), '')
    os.makedirs(os.path.join(folder, 'old'))
    assert dataName(root) == name and featureFiles(root, 'val', UNPOOLED) == paths
