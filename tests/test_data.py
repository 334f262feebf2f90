"""Loaders and vocabulary on the quirks of the real files; errors name the file and what to do."""
import glob
import hashlib
import os
import pickle
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import CAPTIONS, D, marked
from test_build_course_layout import make_fifo

from utils import dataRoot
from utils.data import dataFolder, imageFiles, imageLoader
from utils.data.captionDataset import Collate
from utils.data.captionWords import captionOf, wordPositions
from utils.data.dataFolder import (
    POOLED,
    UNPOOLED,
    dataName,
    featureFile,
    featureFiles,
    featureFolder,
    vocabularyFile,
)
from utils.data.imageFiles import loadImage
from utils.dataLoader import DataLoaderWrapper
from utils.files.errors import UserError
from utils.files.ownFiles import writePickle
from utils.files.safePickle import loadPickle
from utils.generateVocabulary import loadVocabulary


@pytest.fixture
def root(course_folder):
    """The path of a data folder."""
    return course_folder()


def feature_file(root, number=0, mode='train', stub=POOLED):
    return featureFile(root, mode, stub, f'{number:012d}')


def change(path, **changes):
    """Changes a file's keys; those that become None are removed."""
    record = {**loadPickle(path), **changes}
    writePickle(path, {key: value for key, value in record.items() if value is not None})


@pytest.fixture
def load(config, model_param):
    """A function that makes a wrapper with other settings, and checks its files if asked to."""
    def make(check=False, threads=0, **changes):
        wrapper = DataLoaderWrapper({**config, **changes},
                                    {**model_param, 'numbOfCPUThreadsUsed': threads})
        if check:
            wrapper.checkFiles()
        return wrapper

    return make


def test_a_batch_has_the_keys_and_shapes_of_the_course(root, load):
    batch = next(iter(load(check=True).myDataDicts['val']))
    assert set(pickle.loads(pickle.dumps(batch))) == set(batch) == {
        'cnn_features', 'xTokens', 'yTokens', 'yWeights', 'numbOfTruncatedSequences',
        'orig_captions', 'captions', 'captionsAsTokens', 'allcaptions', 'allcaptionsAsTokens',
        'imgPaths'}
    assert batch['cnn_features'].shape == (4, D) and batch['cnn_features'].dtype == torch.float32
    for key in ('xTokens', 'yTokens', 'yWeights'):
        assert batch[key].shape == (4, 6, 1)  # a boat on the lake, and the end
    assert batch['imgPaths'] == [f'{number:012d}.jpg' for number in range(10, 14)]
    assert batch['orig_captions'] == [CAPTIONS[number % 4] for number in range(10, 14)]
    assert batch['allcaptions'][3] == [marked(caption) for caption in CAPTIONS[1]]
    assert batch['captions'][3] == batch['allcaptions'][3][0]
    assert 'captions' in batch and 'advantages' not in batch
    batch['yWeights'] = batch['advantages'] = None
    assert batch['yWeights'] is None and 'advantages' in batch
    batch = next(iter(load(featurepathstub=UNPOOLED).myDataDicts['val']))
    assert batch['cnn_features'].shape == (4, 10, D)


def test_every_caption_is_learned_to_its_end(root, load):
    missing, loader = 0, load().myDataDicts['val']
    assert loader.dataset.tokensToLearn([1, 5, 0, 0, 0]) == [1, 5, 0]  # padding is not learned
    for batch in loader:
        for y, weights, tokens in zip(batch['yTokens'], batch['yWeights'],
                                      batch['captionsAsTokens']):
            if tokens[-1] != 0:
                missing += 1
                tokens = [*tokens, 0]
            assert y[weights > 0].tolist() == tokens[1:]
    assert missing > 0


def test_the_caption_drawn_depends_on_the_epoch_alone(course_folder, load):
    course_folder(n_train=24)
    loader = load().myDataDicts['train']

    def drawn(epoch):
        """Dict imgPath → caption, in the order of the epoch."""
        loader.batch_sampler.epoch = epoch
        return {path: ' '.join(words) for batch in loader
                for path, words in zip(batch['imgPaths'], batch['captions'])}

    first, second = drawn(1), drawn(2)
    assert list(drawn(1).items()) == list(first.items())
    assert sorted(first) == sorted(second) and list(first) != list(second) and first != second
    seen = {drawn(epoch)['000000000000.jpg'] for epoch in range(40)}
    assert seen == {' '.join(marked(caption)) for caption in CAPTIONS[0]}
    loader.dataset.names[0] = os.fsdecode(b'caf\xe9.pickle')  # a name that is no text
    assert loader.dataset[0, 1, True]


def same(one, other):
    """Whether two batches hold the same."""
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key]) if torch.is_tensor(value) else value == other[key]
        for key, value in one.items())


FEATURES = [  # the first two are raw values in a file, the others are not
    np.ones(D, np.float32) / 3, np.full(D, 3e38, np.float32), np.arange(D) / 7,
    (np.ones(D) / 3).astype('>f4'), torch.ones(D, dtype=torch.half, requires_grad=True)]


@pytest.mark.parametrize('threads, slow', [(0, 1e9), (3, 1e9), (3, 0)])
def test_batches_are_the_same_however_files_are_read(course_folder, load, threads, slow,
                                                     monkeypatch):
    """Raw or unpickled, by one thread or by several, from files of any numbers."""
    monkeypatch.setattr(imageLoader, 'SLOW', slow)
    root = course_folder(n_train=24)
    for number, values in enumerate(FEATURES):
        change(feature_file(root, number), cnn_features=values)
    plain = list(load().myDataDicts['train'])
    loader = load(check=True, threads=threads).myDataDicts['train']
    is_raw = [offset >= 0 for _, _, offset, *_ in loader.dataset.checked]
    assert is_raw == [True] * 2 + [False] * 3 + [True] * 19
    batches = list(loader)
    assert len(plain) == len(batches) == 6 and all(map(same, batches, plain))
    for number, values in enumerate(FEATURES):
        features = loader.dataset.load(number)['cnn_features']
        assert features.dtype == torch.float32 and not features.requires_grad
        assert features.tolist() == np.float32(values.tolist()).tolist()


def test_raw_features_are_found_though_they_begin_with_zeros(root):
    path, values = feature_file(root), np.repeat(np.float32([0, 1]), 1024)
    change(path, cnn_features=values)
    _, (*_, offset) = loadImage(path, [2048])
    with open(path, 'rb') as f:
        assert f.read()[offset:offset + values.nbytes] == values.tobytes()


def test_a_file_that_changes_after_the_check_is_read_anew(root, load):
    loader = load(check=True).myDataDicts['val']
    path = feature_file(root, 10, 'val')
    change(path, cnn_features=np.full(D, 7, np.float32), imgPath='other.jpg')
    batch = next(iter(loader))
    assert (batch['cnn_features'][0] == 7).all() and batch['imgPaths'][0] == 'other.jpg'
    change(path, cnn_features=np.full(D, np.nan, np.float32))
    with pytest.raises(UserError, match=f'{path} cannot be used: its features hold values'):
        next(iter(loader))
    os.remove(path)
    with pytest.raises(UserError, match=f'{path} cannot be used: .*No such file or directory'):
        next(iter(loader))


def test_a_torch_loader_with_processes_makes_the_same_batches(root, load):
    """As a student may write it."""
    loader = load(check=True).myDataDicts['val']
    theirs = torch.utils.data.DataLoader(loader.dataset, batch_size=4, num_workers=1,
                                         collate_fn=loader.collate_fn)
    assert all(map(same, loader, theirs)) and len(theirs) == len(loader) == 2


def test_several_threads_read_a_slow_disk_alone():
    assert [imageLoader.readers(10, seconds, 128) for seconds in (.01, 1)] == [1, 10]


def test_a_pass_that_is_left_early_ends_its_threads(course_folder, load, monkeypatch):
    monkeypatch.setattr(imageLoader, 'SLOW', 0)
    course_folder(n_train=40)
    loader = load(threads=3)
    before = threading.active_count()
    batches = iter(loader.myDataDicts['train'])
    next(batches)
    assert threading.active_count() > before
    del batches
    assert threading.active_count() == before


@pytest.mark.parametrize('steps, T, N', [([8, 3], 8, 1), ([25], 25, 1), ([8, 58], 25, 3)])
def test_long_captions_come_in_truncated_parts(steps, T, N):
    captions = [[1, *range(3, 2 + number), 0] for number in steps]
    tensors = Collate(25).captionTensors(captions)
    assert tensors['numbOfTruncatedSequences'] == N
    assert tensors['xTokens'].shape == (len(steps), T, N)
    x, y, weights = (tensors[key].transpose(1, 2).flatten(1).tolist()
                     for key in ('xTokens', 'yTokens', 'yWeights'))
    for row, (number, caption) in enumerate(zip(steps, captions)):
        padding = [0] * (N * T - number)
        assert x[row] == (caption + padding)[:-1] and y[row] == (caption + padding)[1:]
        assert weights[row] == [1] * number + padding
    assert all(tensors[key][:, :, -1].is_contiguous() for key in ('xTokens', 'yTokens'))


def test_tokens_beyond_the_vocabulary_size_are_unknown_words(root, load):
    V = len(loadVocabulary(root)['TokenToWord'])
    assert load().config['vocabulary_size'] == V < 10000
    loader = load(vocabulary_size=10)
    batch = next(iter(loader.myDataDicts['val']))
    assert loader.config['vocabulary_size'] == 10
    assert batch['yTokens'].max() < 10 and (batch['yTokens'] == 2).any()
    assert max(map(max, batch['captionsAsTokens'])) >= 10


def change_words(root, changes):
    """Gives words of the vocabulary file another spelling; returns their tokens."""
    path = vocabularyFile(root)
    vocabulary = loadPickle(path)
    tokens = [int(vocabulary['wordToToken'].pop(word)) for word in changes]
    vocabulary['wordToToken'].update(zip(changes.values(), tokens))
    vocabulary['TokenToWord'].update(zip(tokens, changes.values()))
    writePickle(path, vocabulary)
    return tokens


def test_empty_words_are_not_learned_and_white_space_is_no_part_of_others(root, load):
    empty, red = change_words(root, {'a': '', 'red': 'red\n'})
    loader = load()
    assert not any((batch['yTokens'] == empty).any() for batch in loader.myDataDicts['val'])
    tokens = [1, red, empty, loader.vocabulary['wordToToken']['house'], 0, 7]
    assert captionOf(loader.vocabulary, tokens) == 'red house'
    assert wordPositions(loader.vocabulary, tokens) == [1, 3]
    assert loader.vocabulary['wordToToken']['red'] == red


def test_a_network_may_have_more_words_than_the_vocabulary():
    """As by the hand-out's order, where the network is built before the vocabulary is read."""
    assert captionOf({'TokenToWord': {3: 'house'}}, [1, 3, 99, 0, 99]) == 'house UNK'


@pytest.mark.parametrize('key, value, fault', [
    ('cnn_features', None, "it has no 'cnn_features'"),
    ('cnn_features', np.ones(D, complex), 'complex'),
    ('cnn_features', np.full(D, np.nan), 'not finite'),
    ('cnn_features', np.ones((10, D)), r'\[10, 16\], not \[16\]. Copy'),
    ('imgPath', ['7.jpg'], 'expected a string, found list'),
    ('captions', [['a']], 'different lengths'),
    ('captionsAsTokens', 5, 'expected a list, found int'),
    ('captionsAsTokens', [[1, 3.5, 0]] * 7, 'float'),
    ('captionsAsTokens', [[1, -3, 0]] * 7, 'below 0'),
    ('captionsAsTokens', [[1] + [3] * 10 ** 6 + [0]] * 7, 'more than 1,000 tokens'),
    ('boxes', np.ones(7), 'boxes')])
def test_unusable_files_are_named(root, key, value, fault):
    path = feature_file(root)
    change(path, **{key: value})
    with pytest.raises(UserError, match=fault) as caught:
        loadImage(path, [D])
    assert path in str(caught.value)


def test_files_that_are_cut_off_are_named(root):
    for path, read in ((feature_file(root), lambda: loadImage(feature_file(root), [D])),
                       (vocabularyFile(root), lambda: loadVocabulary(root))):
        for size in (os.path.getsize(path) - 9, 100, 0):
            os.truncate(path, size)
            with pytest.raises(UserError, match=f'{path} cannot be used: .* Copy it again'):
                read()


def test_a_pipe_among_the_features_is_named(root, load):
    path = feature_file(root)
    os.remove(path)
    make_fifo(path)
    with pytest.raises(UserError, match=f'{path} cannot be used: .* not a regular file'):
        load(check=True)


def test_all_unusable_files_are_counted_before_training(course_folder, load, monkeypatch):
    monkeypatch.setattr(imageFiles, 'FILES_AT_ONCE', 5)
    root = course_folder(n_train=12)
    paths = [feature_file(root, number) for number in (0, 3, 6, 9)]
    for path in paths:
        writePickle(path, 'broken')
    with pytest.raises(UserError, match='^4 of the 12 feature files in .*Train2017.*:') as caught:
        load(check=True, threads=2)
    *named, more = str(caught.value).splitlines()[1:]
    assert all(path in line for path, line in zip(paths, named)) and len(named) == 3 and more == '…'


def test_captions_without_words_are_refused_before_training(root, load):
    for path in featureFiles(root, 'val', POOLED):
        change(path, original_captions=['.'], captions=[['ssss', 'eeee']],
               captionsAsTokens=[[1, 0]])
    with pytest.raises(UserError, match='No caption of the feature files in .*Val2017.* has words'):
        load(check=True)


def test_only_new_and_changed_files_are_checked_again(course_folder, load, monkeypatch):
    root = course_folder(n_train=5, n_val=1)
    read = []
    monkeypatch.setattr(imageFiles, 'loadImage', lambda path, shape: (
        read.append(os.path.basename(path)[11:12]) or loadImage(path, shape)))
    load(check=True)
    assert sorted(read) == ['0', '1', '2', '3', '4', '5']
    writePickle(feature_file(root, 1), 'broken')
    os.utime(feature_file(root, 2), (1, 1))
    os.remove(feature_file(root, 3))
    for numbers in (['1', '2'], ['1']):  # what is broken is read again, what is right is not
        del read[:]
        with pytest.raises(UserError, match='1 of the 4.*\n.*000000000001'):
            load(check=True)
        assert read == numbers
    os.remove(feature_file(root, 1))
    dataset = load(check=True).myDataDicts['train'].dataset
    assert [len(dataset.captions(index)) for index in range(3)] == [7, 5, 7] and read == ['1']


def test_a_damaged_memory_of_a_check_costs_a_new_one(root, load, model_param):
    whole = load(check=True).myDataDicts['train'].dataset.checked
    path, = (path for path in glob.glob(os.path.join(model_param['modelsDir'], 'checked*'))
              if len(loadPickle(path)) == 10)
    wrong = 5, [], dict.fromkeys(loadPickle(path), 5)
    for memory in (b'no pickle', *map(pickle.dumps, wrong)):
        with open(path, 'wb') as f:
            f.write(memory)
        assert load(check=True).myDataDicts['train'].dataset.checked == whole
    written = os.stat(path).st_mtime_ns
    load(check=True)
    assert os.stat(path).st_mtime_ns == written  # where nothing is new
    for make in (make_fifo, os.makedirs):
        os.remove(path)
        make(path)
        assert load(check=True).myDataDicts['train'].dataset.checked == whole
    assert os.path.isdir(path)


def test_the_sizes_of_the_features_are_the_files(course_folder, load):
    root = course_folder(n_val=1)
    for number in range(10):
        change(feature_file(root, number, stub=UNPOOLED),
               cnn_features=np.ones((36, D + 7), np.float32))
    writePickle(feature_file(root, stub=UNPOOLED), 'broken')
    loader = load(featurepathstub=UNPOOLED)
    assert loader.config['number_of_cnn_features'] == D + 7
    assert loader.config['numberOfRegions'] == 36
    with pytest.raises(UserError, match='1 of the 10'):
        loader.checkFiles()


def test_missing_features_and_a_missing_vocabulary_are_named(course_folder, load):
    root = course_folder(n_val=0)
    with pytest.raises(UserError, match=f'needs the .*Val2017_{POOLED}, but there are none.*'
                                        'utils/dataRoot.py'):
        load()
    os.remove(vocabularyFile(root))
    with pytest.raises(UserError, match='vocabulary.pickle.*utils/buildCourseLayout.py'):
        load()


def test_the_data_root(tmp_path, monkeypatch):
    monkeypatch.setattr(dataRoot, 'DATA_ROOT', '')
    monkeypatch.setattr(dataFolder, 'UNIVERSITY_ROOT', str(tmp_path / 'none'))
    assert dataFolder.isDemo(dataFolder.dataDir())
    monkeypatch.setattr(dataFolder, 'UNIVERSITY_ROOT', str(tmp_path))
    assert dataFolder.dataDir() == os.path.join(tmp_path, '')


@pytest.mark.parametrize('module', [None, SimpleNamespace(DATA_ROOT=5)])
def test_a_wrong_data_root_ends_the_script_by_a_sentence(module, monkeypatch):
    """A file that cannot be imported, or that sets something else."""
    monkeypatch.setitem(sys.modules, 'utils.dataRoot', module)
    with pytest.raises(SystemExit, match='^utils/dataRoot.py cannot be used: .* It must set '
                                         'DATA_ROOT to a folder in quotes'):
        dataFolder.dataDir()


def test_other_data_have_another_name(course_folder):
    one, same, other = (course_folder(number, name=f'{number}{name}/coco')
                        for number, name in ((10, 'a'), (10, 'b'), (6, 'a')))
    assert dataName(one) == dataName(same) != dataName(other)
    names = '\n'.join(f'{number:012d}.pickle' for number in range(15))
    with open(vocabularyFile(one), 'rb') as f:
        digest = hashlib.sha1(f.read() + names.encode())
    assert dataName(one) == f'coco-{digest.hexdigest()[:6]}'  # as ever: runs are found by it


def test_hidden_files_are_neither_read_nor_part_of_the_name(root):
    name, paths = dataName(root), featureFiles(root, 'val', UNPOOLED)
    folder = featureFolder(root, 'val', UNPOOLED)
    writePickle(os.path.join(folder, '.DS_Store'), '')
    os.makedirs(os.path.join(folder, 'old'))
    assert dataName(root) == name and featureFiles(root, 'val', UNPOOLED) == paths
