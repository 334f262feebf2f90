"""Loaders and vocabulary on the quirks of the real files; errors name the file and what to do."""
import hashlib
import json
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
from utils.data.dataFolder import changesOfFiles, dataName, featureFiles, filesRead, runsOnEarlierData
from utils.data.imageFiles import loadImage
from utils.data.pictures import openPicture
from utils.dataLoader import CHECKED_FILES, DataLoaderWrapper
from utils.files.errors import UserError
from utils.generateVocabulary import generateVocabulary, loadVocabulary
from utils.scripts.start import provideData


def first_file(root, folder='Train2017_detectron2_lim10maxfeatures'):
    return os.path.join(root, folder, sorted(os.listdir(os.path.join(root, folder)))[0])


def changed(path, **changes):
    with open(path, 'rb') as f:
        record = pickle.load(f)
    write_pickle(path, {key: value for key, value in {**record, **changes}.items() if value is not None})
    return path


def checked(config, model_param):
    """A wrapper whose files have been checked."""
    loader = DataLoaderWrapper(config, model_param)
    loader.checkFiles()
    return loader


def test_a_batch_has_the_keys_and_shapes_of_the_course(course_folder, config, model_param):
    course_folder()
    batch = next(iter(DataLoaderWrapper(config, model_param).myDataDicts['val']))
    assert set(batch) == {'cnn_features', 'xTokens', 'yTokens', 'yWeights', 'numbOfTruncatedSequences', 'orig_captions',
                          'captions', 'captionsAsTokens', 'allcaptions', 'allcaptionsAsTokens', 'imgPaths'}
    steps = max(len(captions[0].split()) for captions in batch['orig_captions']) + 1
    assert batch['cnn_features'].shape == (4, D) and batch['cnn_features'].dtype == torch.float32
    for key in ('xTokens', 'yTokens', 'yWeights'):
        assert batch[key].shape == (4, steps, 1)
    assert batch['imgPaths'] == [f'{number:012d}.jpg' for number in range(10, 14)]  # in order of file names
    assert [len(all_of_one) for all_of_one in batch['allcaptions']] == [5, 5, 7, 6]
    assert batch['orig_captions'] == [CAPTIONS[number % 4] for number in range(10, 14)]
    assert batch['captions'][0] == batch['allcaptions'][0][0]


def test_boxes_come_with_the_batches_of_files_that_have_them(course_folder, config, model_param):
    root = course_folder()
    boxes = np.arange(40, dtype=np.float32).reshape(10, 4)
    changed(first_file(root, 'Val2017_detectron2_lim10maxfeatures'), boxes=boxes)
    batches = list(DataLoaderWrapper(config, model_param).myDataDicts['val'])
    assert batches[0]['boxes'][0].tolist() == boxes.tolist() and batches[0]['boxes'][1:] == [None] * 3
    assert 'boxes' not in batches[1]


def test_a_configuration_of_the_hand_out_will_do(course_folder, config, model_param):
    course_folder()
    hand_out = {key: value for key, value in config.items() if key not in ('seed', 'learningRecipe')}
    ours, theirs = (DataLoaderWrapper(keys, model_param).myDataDicts['train'] for keys in (config, hand_out))
    assert draws(ours, 1) == draws(theirs, 1)


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
    return [(path, ' '.join(words)) for batch in loader
            for path, words in zip(batch['imgPaths'], batch['captions'])]


def test_the_caption_drawn_depends_on_the_epoch_alone(course_folder, config, model_param):
    course_folder(n_train=24)
    here = DataLoaderWrapper(config, model_param).myDataDicts['train']
    threads = checked(config, {**model_param, 'numbOfCPUThreadsUsed': 2}).myDataDicts['train']
    first, second = draws(here, 1), draws(here, 2)
    assert draws(threads, 1) == first and draws(threads, 2) == second
    assert sorted(path for path, _ in first) == sorted(path for path, _ in second)
    assert [path for path, _ in first] != [path for path, _ in second]
    assert dict(first) != dict(second)
    seen = {caption for epoch in range(40) for path, caption in draws(here, epoch)
            if path == f'{0:012d}.jpg'}
    assert seen == {' '.join(marked(caption)) for caption in CAPTIONS[0]}


def same(one, other):
    """Whether two batches hold the same."""
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key]) if torch.is_tensor(value) else value == other[key]
        for key, value in one.items() if key != 'boxes')


RAW = [np.ones(D, np.float32) / 3, torch.rand(D)]
OTHERS = [np.arange(D) / 7, (np.ones(D) / 3).astype('>f4'), torch.ones(D, dtype=torch.half) / 3]


@pytest.mark.parametrize('threads, slow', [(0, 1e9), (3, 1e9), (3, 0)])
def test_batches_are_the_same_however_files_are_read(course_folder, config, model_param, threads,
                                                     slow, monkeypatch):
    """Raw or unpickled, by one thread or by several, with files that hold no raw features."""
    monkeypatch.setattr(imageLoader, 'SLOW', slow)
    root = course_folder(n_train=24)
    folder = os.path.join(root, 'Train2017_detectron2_lim10maxfeatures')
    for name, values in zip(sorted(os.listdir(folder)), RAW + OTHERS):
        changed(os.path.join(folder, name), cnn_features=values)
    plain = list(DataLoaderWrapper(config, model_param).myDataDicts['train'])
    loader = checked(config, {**model_param, 'numbOfCPUThreadsUsed': threads}).myDataDicts['train']
    is_raw = [offset >= 0 for _, _, offset, *_ in loader.dataset.checked]
    assert is_raw[:5] == [True] * len(RAW) + [False] * len(OTHERS) and all(is_raw[5:])
    batches = list(loader)
    assert len(plain) == len(batches) == 6 and all(map(same, batches, plain))


def test_training_opens_no_pickle_of_a_checked_file(course_folder, config, model_param,
                                                    monkeypatch):
    course_folder()
    loader = checked(config, model_param)
    read = counted(monkeypatch)
    for batch in loader.myDataDicts['train']:
        assert batch['cnn_features'].any() and batch['xTokens'].any() and batch.references()
    loader.captionRewards()
    assert read == []
    assert batch['orig_captions'] and len(read) == len(batch['imgPaths'])


def test_a_file_that_changes_after_the_check_is_read_anew(course_folder, config, model_param):
    root = course_folder()
    loader = checked(config, model_param).myDataDicts['val']
    path = first_file(root, 'Val2017_detectron2_lim10maxfeatures')
    changed(path, cnn_features=np.full(D, 7, np.float32), imgPath='other.jpg')
    batch = next(iter(loader))
    assert (batch['cnn_features'][0] == 7).all() and batch['imgPaths'][0] == 'other.jpg'
    changed(path, cnn_features=np.full(D, np.nan, np.float32))
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
    assert all(map(same, loader, theirs)) and len(theirs) == len(loader)


def test_a_pass_that_is_left_early_ends_its_threads(course_folder, config, model_param,
                                                    monkeypatch):
    monkeypatch.setattr(imageLoader, 'SLOW', 0)
    course_folder(n_train=40)
    loader = DataLoaderWrapper(config, {**model_param, 'numbOfCPUThreadsUsed': 3})
    batches = iter(loader.myDataDicts['train'])
    next(batches)
    assert threading.active_count() > 1
    del batches
    assert threading.active_count() == 1


def test_long_captions_come_in_truncated_parts():
    captions = [[1, *range(3, 10), 0], [1, *range(3, 60), 0]]                    # 8 and 58 steps
    tensors = Collate(25).captionTensors(captions)
    assert tensors['numbOfTruncatedSequences'] == 3 and tensors['xTokens'].shape == (2, 25, 3)
    for row, caption in enumerate(captions):
        def joined(key):
            return tensors[key][row].t().flatten().tolist()
        assert joined('xTokens')[:len(caption) - 1] == caption[:-1]
        assert joined('yTokens')[:len(caption) - 1] == caption[1:]
        assert all(tensors[key][:, :, part].is_contiguous() for key in ('xTokens', 'yTokens', 'yWeights') for part in range(3))
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


@pytest.mark.parametrize('values', [
    np.ones(D, np.float32), np.ones(D), np.arange(D), np.ones(D, '>f4'), np.full(D, 3e38, np.float32), torch.ones(D),
    torch.ones(D, dtype=torch.half), torch.ones(D, requires_grad=True)], ids=repr)
def test_features_of_other_types_are_read(course_folder, values):
    image = loadImage(changed(first_file(course_folder()), cnn_features=values), [D])
    assert image['cnn_features'].dtype == torch.float32
    assert image['cnn_features'].tolist() == [float(value) for value in values.tolist()]
    assert not image['cnn_features'].requires_grad


def nested():
    """A list of few lists that stands for 2⁶⁰ values."""
    lists = ['a', 1]
    for _ in range(60):
        lists = [lists, lists]
    return lists


@pytest.mark.parametrize('changes, named', [
    ({'cnn_features': None}, 'cnn_features'), ({'captionsAsTokens': None}, 'captionsAsTokens'),
    ({'cnn_features': np.ones((3, 4))}, r'\[3, 4\]'), ({'cnn_features': np.full(D, np.nan)}, 'not finite'),
    ({'original_captions': [], 'captions': [], 'captionsAsTokens': []}, 'empty'), ({'captions': [['a']]}, 'different'),
    ({'cnn_features': 'text'}, 'str'), ({'cnn_features': np.ones(D, complex)}, 'real numbers'), ({'captionsAsTokens': 5}, 'int'),
    ({'cnn_features': np.ones((10, D))}, r'\[10, 16\], not \[16\]. Copy'), ({'captionsAsTokens': [[3, 0]] * 7}, 'start token'),
    ({'cnn_features': np.ones(D + 1)}, r'\[17\], not \[16\]. Copy'),
    ({'captionsAsTokens': [[1, -3, 0]] * 7}, 'below 0'), ({'captionsAsTokens': [[]] * 7}, 'start token'),
    ({'captionsAsTokens': [[1, 3.5, 0]] * 7}, 'float'), ({'imgPath': ['7.jpg']}, 'list stands where a text'),
    ({'boxes': np.full((10, 4), np.inf)}, 'boxes'), ({'boxes': np.ones(7)}, 'boxes'),
    ({'original_captions': ['a' * 20000] * 7}, 'more than 10,000 letters'),
    ({'captionsAsTokens': [[1] + [3] * 10 ** 6 + [0]] * 7}, 'a caption of 1,000,002 words'),
    *[({key: value}, 'list stands|list, not|list.* integer|lists') for value in (nested(), [nested()] * 7) for key in (
        'cnn_features', 'imgPath', 'original_captions', 'captions', 'captionsAsTokens', 'boxes')]])
def test_unusable_files_are_named(course_folder, changes, named):
    path = changed(first_file(course_folder()), **changes)
    with pytest.raises(UserError, match=named) as caught:
        loadImage(path, [D])
    assert path in str(caught.value)


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='needs a pipe')
def test_pipes_and_devices_in_place_of_files_are_refused(course_folder, config, model_param):
    root = course_folder()
    path = first_file(root)
    os.remove(path)
    os.mkfifo(path)
    with pytest.raises(UserError, match=f'{os.path.basename(path)} cannot be read'):
        checked(config, model_param)
    os.makedirs(os.path.join(root, 'val2017'))
    os.mkfifo(os.path.join(root, 'val2017', 'pipe.jpg'))
    os.symlink('/dev/zero', os.path.join(root, 'val2017', 'device.jpg'))
    assert openPicture(root, 'val', 'pipe.jpg') is None and openPicture(root, 'val', 'device.jpg') is None


def test_pictures_of_photo_folders_are_opened_and_no_others(tmp_path):
    os.makedirs(str(tmp_path / 'val2017'))
    for kind in ('JPEG', 'PNG', 'GIF', 'BMP', 'TIFF', 'EPS', 'PPM'):
        Image.new('RGB', (4, 3), (9, 99, 199)).save(str(tmp_path / 'val2017' / f'{kind}.jpg'), kind)
        assert (openPicture(str(tmp_path), 'val', f'{kind}.jpg') is None) == (kind in ('EPS', 'PPM'))
    (tmp_path / 'val2017' / 'broken.jpg').write_bytes((tmp_path / 'val2017' / 'JPEG.jpg').read_bytes()[:200])
    assert openPicture(str(tmp_path), 'val', 'broken.jpg') is None and openPicture(str(tmp_path), 'val', 'none.jpg') is None


@pytest.mark.parametrize('data', [b'', b'no pickle', pickle.dumps([1, 2])[:-3], pickle.dumps([1])])
def test_broken_files_are_named(course_folder, data):
    path = first_file(course_folder())
    with open(path, 'wb') as f:
        f.write(data)
    with pytest.raises(UserError, match=os.path.basename(path)):
        loadImage(path, [D])


def test_unusable_files_are_said_up_front(course_folder, config, model_param, monkeypatch):
    monkeypatch.setattr(checkedFiles, 'FILES_AT_ONCE', 5)
    root = course_folder(n_train=12)
    folder = os.path.join(root, 'Train2017_detectron2_lim10maxfeatures')
    for number in range(4):
        with open(os.path.join(folder, f'{3 * number:012d}.pickle'), 'wb') as f:
            f.write(b'')
    for threads in (0, 2):
        with pytest.raises(UserError) as caught:
            checked(config, {**model_param, 'numbOfCPUThreadsUsed': threads})
        message = str(caught.value)
        assert f'4 of the 12 feature files in {folder}' in message and message.endswith('…')
        assert all(f'{3 * number:012d}.pickle' in message for number in range(3))


def counted(monkeypatch):
    """A list that grows by the name of each file that is unpickled."""
    read = []
    monkeypatch.setattr(imageFiles, '_unpickled', lambda path, load=imageFiles._unpickled:
                        read.append(os.path.basename(path)) or load(path))
    return read


def test_only_new_and_changed_files_are_checked_again(course_folder, config, model_param,
                                                      monkeypatch):
    root = course_folder(n_train=12)
    looked_at = imageFiles.FILES_LOOKED_AT
    read = counted(monkeypatch)
    checked(config, model_param)
    assert len(read) == looked_at + 12 + 5
    del read[:]
    checked(config, model_param)
    assert len(read) == looked_at
    folder = os.path.join(root, 'Train2017_detectron2_lim10maxfeatures')
    write_pickle(os.path.join(folder, f'{3:012d}.pickle'), 'broken')
    os.utime(os.path.join(folder, f'{7:012d}.pickle'), (1, 1))
    os.remove(os.path.join(folder, f'{9:012d}.pickle'))
    for again in (1, 2):  # what is broken is read again, what was found to be right is not
        del read[:]
        with pytest.raises(UserError, match=f'1 of the 11.*\n.*{3:012d}'):
            checked(config, model_param)
        numbers = [int(name.split('.')[0]) for name in read[looked_at:]]
        assert numbers == ([3, 7] if again == 1 else [3])
    os.remove(os.path.join(folder, f'{3:012d}.pickle'))
    loader = checked(config, model_param).myDataDicts['train']
    assert [len(loader.dataset.captions(index)) for index in range(10)] == [
        len(CAPTIONS[number % 4]) for number in (0, 1, 2, 4, 5, 6, 7, 8, 10, 11)]


@pytest.mark.parametrize('stub', ['detectron2_lim10features', 'detectron2_lim10maxfeatures'])
def test_the_sizes_of_the_features_are_the_files(course_folder, config, model_param, stub):
    root = course_folder(n_train=12)
    pooled = stub == 'detectron2_lim10maxfeatures'
    shape = (D + 7,) if pooled else (36, D + 7)
    for split in ('Train', 'Val'):
        folder = os.path.join(root, f'{split}2017_{stub}')
        for name in os.listdir(folder):
            changed(os.path.join(folder, name), cnn_features=np.ones(shape, np.float32))
    with open(os.path.join(root, f'Train2017_{stub}', f'{0:012d}.pickle'), 'wb') as f:
        f.write(b'broken')
    loader = DataLoaderWrapper({**config, 'featurepathstub': stub}, model_param)
    assert loader.config['number_of_cnn_features'] == D + 7
    assert loader.config['numberOfRegions'] == (10 if pooled else 36)
    with pytest.raises(UserError, match='1 of the 12'):
        loader.checkFiles()


@pytest.mark.parametrize('damaged', [b'', b'no pickle', pickle.dumps([]), pickle.dumps({'files': {}}),
                                     pickle.dumps({'validFor': [0], 'files': {}})])
def test_what_is_wrong_with_the_memory_of_a_check_costs_a_new_one(course_folder, config,
                                                                  model_param, damaged):
    course_folder()
    whole = checked(config, model_param).myDataDicts['train'].dataset.checked
    path = os.path.join(model_param['modelsDir'], 'm', CHECKED_FILES.format('train'))
    with open(path, 'wb') as f:
        f.write(damaged)
    assert checked(config, model_param).myDataDicts['train'].dataset.checked == whole


def test_a_missing_feature_folder_says_what_is_there_instead(course_folder, config, model_param):
    root = course_folder()
    os.rename(os.path.join(root, 'Val2017_detectron2_lim10maxfeatures'), os.path.join(root, 'elsewhere'))
    with pytest.raises(UserError, match='Val2017_detectron2_lim10maxfeatures') as caught:
        DataLoaderWrapper(config, model_param)
    assert 'elsewhere/' in str(caught.value) and 'utils/dataRoot.py' in str(caught.value)


def test_a_folder_of_pooled_features_alone_says_which_are_missing(course_folder, config, model_param):
    root = course_folder()
    for split in ('Train', 'Val'):
        shutil.rmtree(os.path.join(root, f'{split}2017_detectron2_lim10features'))
    with pytest.raises(UserError, match='needs the features of ten detections per image in .*Train2017_detectron2_lim10features,.*'
                                        'holds: Train2017_detectron2_lim10maxfeatures/'):
        DataLoaderWrapper({**config, 'featurepathstub': 'detectron2_lim10features'}, model_param)


def test_an_empty_feature_folder_and_a_missing_vocabulary_are_said(course_folder, config, model_param):
    root = course_folder(n_val=0)
    with pytest.raises(UserError, match='is empty'):
        DataLoaderWrapper(config, model_param)
    os.remove(os.path.join(root, 'vocabulary', 'vocabulary.pickle'))
    with pytest.raises(UserError, match='vocabulary.pickle.*utils/buildCourseLayout.py'):
        DataLoaderWrapper(config, model_param)


def test_the_data_root(tmp_path, monkeypatch):
    monkeypatch.setattr(dataRoot, 'DATA_ROOT', '')
    monkeypatch.setattr(dataFolder, 'UNIVERSITY_ROOT', str(tmp_path / 'none'))
    assert dataFolder.isDemo(dataFolder.dataDir())
    monkeypatch.setattr(dataFolder, 'UNIVERSITY_ROOT', str(tmp_path))
    assert dataFolder.dataDir() == os.path.join(str(tmp_path), '')
    monkeypatch.setattr(dataRoot, 'DATA_ROOT', tmp_path / 'missing')
    with pytest.raises(UserError, match='missing/ does not exist'):
        provideData(dataFolder.dataDir())
    (tmp_path / 'file').write_text('')
    monkeypatch.setattr(dataRoot, 'DATA_ROOT', str(tmp_path / 'file'))
    with pytest.raises(UserError, match='file/ is a file'):
        provideData(dataFolder.dataDir())


@pytest.mark.parametrize('text', ['DATA_ROOT = /data/coco/', 'DATA_ROOT = data', "DATAROOT = '/data/'", 'DATA_ROOT = 5',
                                  "DATA_ROOT = ['/data/']", "DATA_ROOT = '/data/", "DATA_ROOT = b'/data/'"])
def test_a_wrong_data_root_ends_the_script_by_a_sentence(text, tmp_path, monkeypatch):
    (tmp_path / 'dataRoot.py').write_text(text)
    monkeypatch.setattr(utils, '__path__', [str(tmp_path)])
    monkeypatch.setattr(utils, 'dataRoot', dataRoot)  # so that both are put back
    monkeypatch.delitem(sys.modules, 'utils.dataRoot')
    with pytest.raises(SystemExit, match='^utils/dataRoot.py cannot be used: .* It must set DATA_ROOT to a folder in quotes'):
        dataFolder.dataDir()


def test_other_data_have_another_name(course_folder):
    one, same, other = course_folder(name='a/coco'), course_folder(name='b/coco'), course_folder(6, 3, name='c/coco')
    assert dataName(one) == dataName(same) != dataName(other)
    with open(os.path.join(one, 'vocabulary', 'vocabulary.pickle'), 'rb') as f:
        digest = hashlib.sha1(f.read() + '\n'.join(f'{number:012d}.pickle' for number in range(15)).encode())
    assert dataName(one) == f'coco-{digest.hexdigest()[:6]}'  # as ever: runs are found by it


def test_hidden_files_are_neither_read_nor_part_of_the_name(course_folder):
    root = course_folder()
    name, paths = dataName(root), featureFiles(root, 'val', 'detectron2_lim10features')
    read = filesRead(root, 'detectron2_lim10features')
    folder = os.path.join(root, 'Val2017_detectron2_lim10features')
    for hidden in ('.DS_Store', '.nfs0000000001'):
        with open(os.path.join(folder, hidden), 'w'):
            pass
    os.makedirs(os.path.join(folder, 'old'))
    os.makedirs(os.path.join(root, 'Train2017_backup', 'files'))
    with open(os.path.join(root, 'Val2017_list.txt'), 'w'):
        pass
    assert dataName(root) == name and featureFiles(root, 'val', 'detectron2_lim10features') == paths
    assert filesRead(root, 'detectron2_lim10features') == read


def test_changed_data_are_told(course_folder):
    root = course_folder(n_train=12)
    pooled, unpooled = 'detectron2_lim10maxfeatures', 'detectron2_lim10features'
    name, then, others = dataName(root), filesRead(root, pooled), filesRead(root, unpooled)
    assert changesOfFiles(then, filesRead(root, pooled)) == ''
    folder = os.path.join(root, f'Train2017_{pooled}')
    for number in range(4):
        os.remove(os.path.join(folder, f'{number:012d}.pickle'))
    os.rename(os.path.join(root, f'Val2017_{pooled}', f'{12:012d}.pickle'), os.path.join(root, f'Val2017_{pooled}', '99.pickle'))
    assert changesOfFiles(then, filesRead(root, pooled)) == (
        'The data have changed since this model was trained: 12 training images then, 8 now, other validation images.')
    assert changesOfFiles(others, filesRead(root, unpooled)) == ''
    assert changesOfFiles(json.loads(json.dumps(then)), then) == '' and dataName(root) != name


def test_runs_on_earlier_data_of_the_same_folder_are_found(tmp_path):
    for name in ('m_coco-012abc', 'm_coco-ffffff', 'm_coco-more-012abc', 'm_demo', 'n_coco-012abc'):
        os.makedirs(str(tmp_path / name))
    assert runsOnEarlierData(os.path.join(str(tmp_path), 'm_coco-111111', '')) == [
        str(tmp_path / 'm_coco-012abc'), str(tmp_path / 'm_coco-ffffff')]
    assert runsOnEarlierData(str(tmp_path / 'm_demo')) == runsOnEarlierData(str(tmp_path / 'none' / 'm_coco-111111')) == []


@pytest.mark.parametrize('word', ['new york', 'a\nb', '\ud800'])
def test_a_vocabulary_of_unusable_words_is_named(course_folder, word):
    path = os.path.join(course_folder(), 'vocabulary', 'vocabulary.pickle')
    with open(path, 'rb') as f:
        vocabulary = pickle.load(f)
    vocabulary['TokenToWord'][5] = word
    with open(path, 'wb') as f:
        pickle.dump(vocabulary, f)
    with pytest.raises(UserError, match='vocabulary.pickle cannot be used: a word must not hold') as caught:
        loadVocabulary(os.path.dirname(os.path.dirname(path)))
    assert ascii(word) in str(caught.value)


def test_words_with_white_space_around_them_have_tokens(course_folder):
    root = course_folder()
    path = os.path.join(root, 'vocabulary', 'vocabulary.pickle')
    with open(path, 'rb') as f:
        vocabulary = pickle.load(f)
    for word, spaced in (('red', 'red\n'), ('a', ' ')):
        token = vocabulary['wordToToken'].pop(word)
        vocabulary['wordToToken'][spaced], vocabulary['TokenToWord'][token] = token, spaced
    write_pickle(path, vocabulary)
    read = loadVocabulary(root)
    tokens = [1, vocabulary['wordToToken']['red\n'], vocabulary['wordToToken'][' '], vocabulary['wordToToken']['house'], 0, 7]
    assert captionOf(read, tokens) == 'red house' and wordPositions(read, tokens) == [1, 3]
    assert [read['wordToToken'][word] for word in captionOf(read, tokens).split()] == [tokens[1], tokens[3]]


def test_a_generated_vocabulary_is_read_back(tmp_path):
    vocabulary = generateVocabulary([['a', 'red', 'house'], ['a', 'house', 'a']])
    os.makedirs(tmp_path / 'vocabulary')
    write_pickle(str(tmp_path / 'vocabulary' / 'vocabulary.pickle'), vocabulary)
    back = loadVocabulary(str(tmp_path))
    assert back['vocabulary'] == ['eeee', 'ssss', 'UNK', 'a', 'house', 'red']
    assert back['wordToToken']['house'] == 4 and back['TokenToWord'][5] == 'red'
    assert back['wordCounter'].tolist() == [0, 0, 0, 3, 2, 1] and back['sentenceLen'].tolist() == [3, 3]
