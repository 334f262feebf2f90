"""Loaders and vocabulary on the quirks of the real files; errors name the file and what to do."""
import os
import pickle

import numpy as np
import pytest
import torch
from conftest import CAPTIONS, D, write_pickle

from utils import dataLoader
from utils.data import dataFolder
from utils.data.captionDataset import Collate
from utils.data.dataFolder import dataName
from utils.data.imageFiles import loadImage
from utils.dataLoader import DataLoaderWrapper
from utils.files.errors import UserError
from utils.generateVocabulary import generateVocabulary, loadVocabulary


def first_file(root, folder='Train2017_detectron2_lim10maxfeatures'):
    return os.path.join(root, folder, sorted(os.listdir(os.path.join(root, folder)))[0])


def changed(path, **changes):
    with open(path, 'rb') as f:
        record = pickle.load(f)
    write_pickle(path, {key: value for key, value in {**record, **changes}.items() if value is not None})
    return path


def test_a_batch_has_the_keys_and_shapes_of_the_course(course_folder, config, model_param):
    course_folder()
    batch = next(iter(DataLoaderWrapper(config, model_param).myDataDicts['val']))
    assert set(batch) == {'cnn_features', 'xTokens', 'yTokens', 'yWeights', 'numbOfTruncatedSequences', 'orig_captions',
                          'captions', 'captionsAsTokens', 'allcaptions', 'allcaptionsAsTokens', 'imgPaths'}
    steps = max(len(caption.split()) for caption in batch['orig_captions']) + 1
    assert batch['cnn_features'].shape == (4, D) and batch['cnn_features'].dtype == torch.float32
    for key in ('xTokens', 'yTokens', 'yWeights'):
        assert batch[key].shape == (4, steps, 1)
    assert batch['imgPaths'] == [f'{number:012d}.jpg' for number in range(10, 14)]  # in order of file names
    assert [len(all_of_one) for all_of_one in batch['allcaptions']] == [5, 5, 7, 6]
    assert batch['captions'][0] == batch['allcaptions'][0][0]


def test_the_ten_detections_are_kept_apart(course_folder, config, model_param):
    course_folder()
    config['featurepathstub'] = 'detectron2_lim10features'
    assert next(iter(DataLoaderWrapper(config, model_param).myDataDicts['val']))['cnn_features'].shape == (4, 10, D)


def test_every_caption_ends_and_is_shifted_by_one(course_folder, config, model_param):
    course_folder()
    loader = DataLoaderWrapper(config, model_param)
    missing = 0
    for batch in loader.myDataDicts['val']:
        for x, y, weights, raw in zip(batch['xTokens'], batch['yTokens'], batch['yWeights'], batch['captionsAsTokens']):
            length = int(weights.sum())
            missing += raw[-1] != 0
            expected = raw if raw[-1] == 0 else raw + [0]
            assert x[:length].flatten().tolist() == expected[:-1] and y[:length].flatten().tolist() == expected[1:]
            assert not weights[length:].any() and not y[length:].any()
    assert missing > 0


def draws(loader, epoch):
    loader.batch_sampler.sampler.set_epoch(epoch)
    return [(path, caption) for batch in loader for path, caption in zip(batch['imgPaths'], batch['orig_captions'])]


def test_the_caption_drawn_depends_on_the_epoch_and_not_on_workers(course_folder, config, model_param):
    course_folder(n_train=24)
    here = DataLoaderWrapper(config, model_param).myDataDicts['train']
    workers = DataLoaderWrapper(config, {**model_param, 'numbOfCPUThreadsUsed': 2}).myDataDicts['train']
    first, second = draws(here, 1), draws(here, 2)
    assert workers.num_workers > 0 and draws(workers, 1) == first and draws(workers, 2) == second
    assert sorted(path for path, _ in first) == sorted(path for path, _ in second)
    assert [path for path, _ in first] != [path for path, _ in second]
    assert dict(first) != dict(second)
    seen = {caption for epoch in range(40) for path, caption in draws(here, epoch) if path == f'{0:012d}.jpg'}
    assert seen == set(CAPTIONS[0])


def test_long_captions_come_in_truncated_parts():
    captions = [[1, *range(3, 10), 0], [1, *range(3, 60), 0]]                    # 8 and 58 steps
    tensors = Collate(25).captionTensors(captions)
    assert tensors['numbOfTruncatedSequences'] == 3 and tensors['xTokens'].shape == (2, 25, 3)
    for row, caption in enumerate(captions):
        def joined(key):
            return tensors[key][row].t().flatten().tolist()
        assert joined('xTokens')[:len(caption) - 1] == caption[:-1]
        assert joined('yTokens')[:len(caption) - 1] == caption[1:]
        assert joined('yWeights') == [1] * (len(caption) - 1) + [0] * (75 - len(caption) + 1)


@pytest.mark.parametrize('longest, shape', [(25, (1, 25, 1)), (26, (1, 25, 2)), (3, (1, 3, 1))])
def test_batches_are_cut_to_their_longest_caption(longest, shape):
    assert Collate(25).captionTensors([[1] + [5] * (longest - 1) + [0]])['xTokens'].shape == shape


def test_a_small_vocabulary_size_makes_unknown_words(course_folder, config, model_param):
    course_folder()
    loader = DataLoaderWrapper({**config, 'vocabulary_size': 10}, model_param)
    assert loader.config['vocabulary_size'] == 10
    tokens = torch.cat([batch['yTokens'].flatten() for batch in loader.myDataDicts['val']])
    assert tokens.max() < 10 and (tokens == 2).any()
    raw = [token for batch in loader.myDataDicts['val'] for caption in batch['captionsAsTokens'] for token in caption]
    assert max(raw) >= 10


def test_a_small_vocabulary_shrinks_the_model(course_folder, config, model_param):
    root = course_folder()
    loader = DataLoaderWrapper(config, model_param)
    assert loader.config['vocabulary_size'] == len(loadVocabulary(root)['TokenToWord']) < config['vocabulary_size']
    assert config['vocabulary_size'] == 10000


def test_an_empty_word_is_not_learned(course_folder, config, model_param):
    root = course_folder()
    path = os.path.join(root, 'vocabulary', 'vocabulary.pickle')
    with open(path, 'rb') as f:
        vocabulary = pickle.load(f)
    empty = int(vocabulary['wordToToken']['a'])
    vocabulary['TokenToWord'][empty] = ''
    write_pickle(path, vocabulary)
    loader = DataLoaderWrapper(config, model_param)
    assert not any((batch['yTokens'] == empty).any() for batch in loader.myDataDicts['val'])
    assert loader.wordsOf([1, empty, int(vocabulary['wordToToken']['red']), empty, 0, 5]) == 'red'


@pytest.mark.parametrize('values', [np.ones(D, np.float32), np.ones(D), np.arange(D), torch.ones(D)])
def test_features_of_other_types_are_read(course_folder, values):
    image = loadImage(changed(first_file(course_folder()), cnn_features=values), [D])
    assert image['cnn_features'].dtype == torch.float32 and image['cnn_features'].tolist() == list(map(float, values))


@pytest.mark.parametrize('changes, named', [
    ({'cnn_features': None}, 'cnn_features'), ({'captionsAsTokens': None}, 'captionsAsTokens'),
    ({'cnn_features': np.ones((3, 4))}, r'\[3, 4\]'), ({'cnn_features': np.full(D, np.nan)}, 'not finite'),
    ({'original_captions': [], 'captions': [], 'captionsAsTokens': []}, 'empty'), ({'captions': [['a']]}, 'different'),
    ({'cnn_features': 'text'}, 'str'), ({'cnn_features': np.ones(D, complex)}, 'complex'), ({'captionsAsTokens': 5}, 'int'),
    ({'cnn_features': np.ones((10, D))}, r'\[10, 16\]'), ({'captionsAsTokens': [[3, 0]] * 7}, 'start token'),
    ({'captionsAsTokens': [[1, -3, 0]] * 7}, 'below 0'), ({'captionsAsTokens': [[]] * 7}, 'start token'),
    ({'boxes': np.full((10, 4), np.inf)}, 'boxes'), ({'boxes': np.ones(7)}, 'reshape')])
def test_unusable_files_are_named(course_folder, changes, named):
    path = changed(first_file(course_folder()), **changes)
    with pytest.raises(UserError, match=named) as caught:
        loadImage(path, [D])
    assert path in str(caught.value)


@pytest.mark.parametrize('data', [b'', b'no pickle', pickle.dumps([1, 2])[:-3], pickle.dumps([1])])
def test_broken_files_are_named(course_folder, data):
    path = first_file(course_folder())
    with open(path, 'wb') as f:
        f.write(data)
    with pytest.raises(UserError, match=os.path.basename(path)):
        loadImage(path, [D])


def test_unusable_files_are_said_up_front(course_folder, config, model_param):
    root = course_folder(n_train=12)
    folder = os.path.join(root, 'Train2017_detectron2_lim10maxfeatures')
    for number in range(4):
        with open(os.path.join(folder, f'{3 * number:012d}.pickle'), 'wb') as f:
            f.write(b'')
    for workers in (0, 2):
        with pytest.raises(UserError) as caught:
            DataLoaderWrapper(config, {**model_param, 'numbOfCPUThreadsUsed': workers})
        said = str(caught.value)
        assert f'4 of the 12 feature files in {folder}' in said and said.endswith('…')
        assert all(f'{3 * number:012d}.pickle' in said for number in range(3))


def test_a_file_that_breaks_later_is_named_without_the_loaders_stack_trace(course_folder, config, model_param):
    root = course_folder(n_train=12)
    loader = DataLoaderWrapper(config, {**model_param, 'numbOfCPUThreadsUsed': 1}).myDataDicts['train']
    path = first_file(root)
    os.remove(path)
    with pytest.raises(UserError) as caught:
        list(loader)
    assert loader.num_workers == 1 and str(caught.value) == f'The feature file {path} cannot be read: No such file or directory.'


def test_loader_processes_are_as_many_as_shared_memory_holds(course_folder, config, model_param, monkeypatch):
    course_folder(n_train=40)
    param = {**model_param, 'numbOfCPUThreadsUsed': 10}
    monkeypatch.setattr(dataLoader, 'availableCores', lambda: 2)
    batch = 4 * 4 * D
    for room, workers in ((10 ** 9, 2), (batch * 4, 1), (batch, 0)):
        monkeypatch.setattr(dataLoader, 'sharedMemory', lambda: room)
        loader = DataLoaderWrapper(config, param).myDataDicts['train']
        assert loader.num_workers == workers
    assert len(list(loader)) == 10


def test_a_missing_feature_folder_says_what_is_there_instead(course_folder, config, model_param):
    root = course_folder()
    os.rename(os.path.join(root, 'Val2017_detectron2_lim10maxfeatures'), os.path.join(root, 'elsewhere'))
    with pytest.raises(UserError, match='Val2017_detectron2_lim10maxfeatures') as caught:
        DataLoaderWrapper(config, model_param)
    assert 'elsewhere/' in str(caught.value) and 'utils/dataRoot.py' in str(caught.value)


def test_an_empty_feature_folder_and_a_missing_vocabulary_are_said(course_folder, config, model_param):
    root = course_folder(n_val=0)
    with pytest.raises(UserError, match='is empty'):
        DataLoaderWrapper(config, model_param)
    os.remove(os.path.join(root, 'vocabulary', 'vocabulary.pickle'))
    with pytest.raises(UserError, match='vocabulary.pickle'):
        DataLoaderWrapper(config, model_param)


def test_the_data_root(tmp_path, monkeypatch):
    monkeypatch.setattr(dataFolder, 'DATA_ROOT', '')
    monkeypatch.setattr(dataFolder, 'UNIVERSITY_ROOT', str(tmp_path / 'none'))
    assert dataFolder.isDemo(dataFolder.dataDir())
    monkeypatch.setattr(dataFolder, 'UNIVERSITY_ROOT', str(tmp_path))
    assert dataFolder.dataDir() == os.path.join(str(tmp_path), '')
    monkeypatch.setattr(dataFolder, 'DATA_ROOT', str(tmp_path / 'missing'))
    with pytest.raises(UserError, match='missing'):
        dataFolder.provideData(dataFolder.dataDir())


def test_other_data_have_another_name(course_folder):
    one, same, other = course_folder(name='a/coco'), course_folder(name='b/coco'), course_folder(6, 3, name='c/coco')
    assert dataName(one) == dataName(same) != dataName(other)
    assert dataName(one).startswith('coco-')


def test_a_generated_vocabulary_is_read_back(tmp_path):
    vocabulary = generateVocabulary([['a', 'red', 'house'], ['a', 'house', 'a']])
    os.makedirs(tmp_path / 'vocabulary')
    write_pickle(str(tmp_path / 'vocabulary' / 'vocabulary.pickle'), vocabulary)
    back = loadVocabulary(str(tmp_path))
    assert back['vocabulary'] == ['eeee', 'ssss', 'UNK', 'a', 'house', 'red']
    assert back['wordToToken']['house'] == 4 and back['TokenToWord'][5] == 'red'
    assert back['wordCounter'].tolist() == [0, 0, 0, 3, 2, 1] and back['sentenceLen'].tolist() == [3, 3]
