"""A tiny data folder in the course's layout, with the quirks of the real files; trainers on it."""
import contextlib
import gzip
import os
import shutil
import signal
from unittest import mock

# Threads of torch, which is not imported yet, wait without keeping a core busy.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from leftovers import hear_signals  # noqa: E402
from pycocoevalcap.tokenizer.ptbtokenizer import STANFORD_CORENLP_3_4_1_JAR  # noqa: E402

from cocoSource_task2_gru import ImageCaptionModel as GruModel  # noqa: E402
from cocoSource_task4_attention import ImageCaptionModel as AttentionModel  # noqa: E402
from utils import metrics  # noqa: E402
from utils.data.captionWords import END, wordsOfCaption  # noqa: E402
from utils.data.dataFolder import (  # noqa: E402
    POOLED,
    UNPOOLED,
    makeFolders,
    vocabularyFile,
    writeImage,
)
from utils.dataLoader import DataLoaderWrapper  # noqa: E402
from utils.files.ownFiles import writePickle  # noqa: E402
from utils.metrics import METEOR  # noqa: E402
from utils.model import Model  # noqa: E402
from utils.saverRestorer import SaverRestorer  # noqa: E402
from utils.scripts.endings import STOPPING  # noqa: E402
from utils.trainer import Trainer  # noqa: E402

hear_signals()
D = 16  # features per detection
CAPTIONS = [
    ['A red house. ', 'a house that is red', 'The red house stands there .', 'Red house\n',
     'One house, red.', 'a house', 'house'],
    ['Two dogs run.', 'dogs running fast', 'A pair of dogs', 'two dogs', 'Dogs!',
     'some dogs are running'],
    ['a boat on the lake', 'Boat on a lake ', 'blue boat', 'The boat\nfloats.',
     'one boat ' + 'far away and ' * 20 + 'gone'],
    ['A tree.', 'a green tree', 'the tree', 'tall tree', 'big tree'],
]
TOKENS = {}  # by caption, of all that `shared_meteor` has had tokenized


def marked(caption):
    """Words between marks.

    As in the real files, the end mark is missing where the last piece is empty.
    """
    words = ['ssss', *wordsOfCaption(caption)]
    return words + ['eeee'] if wordsOfCaption(caption.split(' ')[-1]) else words


@pytest.fixture
def course_folder(tmp_path):
    """A function that makes a data folder; it returns the path, which ends in a separator."""
    def make(n_train=10, n_val=5, name='data'):
        words = {word for captions in CAPTIONS for caption in captions
                 for word in wordsOfCaption(caption)}
        vocabulary = ['eeee', 'ssss', 'UNK', *sorted(words)]
        tokens = np.arange(len(vocabulary))
        word_to_token = dict(zip(vocabulary, tokens))
        root = os.path.join(tmp_path, name, '')
        makeFolders(root)
        writePickle(vocabularyFile(root), {'wordToToken': word_to_token,
                                           'TokenToWord': dict(zip(tokens, vocabulary))})
        rng = np.random.default_rng(1)
        for number in range(n_train + n_val):
            kind = number % len(CAPTIONS)
            captions = [marked(caption) for caption in CAPTIONS[kind]]
            features = rng.random((10, D)).astype(np.float32)
            features[:, kind] += 5
            writeImage(root, 'train' if number < n_train else 'val', f'{number:012d}', {
                'imgPath': f'{number:012d}.jpg', 'original_captions': CAPTIONS[kind],
                'captions': captions, 'cnn_features': features,
                'captionsAsTokens': [[word_to_token[word] for word in caption]
                                     for caption in captions]})
        return root

    return make


@pytest.fixture(autouse=True)
def _signal_handlers_as_they_were():
    """Restores signal handlers after each test."""
    handlers = [(number, signal.getsignal(number)) for number in STOPPING]
    yield
    for number, handler in handlers:
        signal.signal(number, handler)


@pytest.fixture
def config():
    """The hand-out's keys, and none of ours."""
    return {'optimizer': 'adamW', 'learningRate': {'lr': 0.01}, 'weight_decay': 1e-5,
            'number_of_cnn_features': D, 'embedding_size': 8, 'vocabulary_size': 10000,
            'truncated_backprop_length': 25, 'hidden_state_sizes': 12, 'num_rnn_layers': 2,
            'cellType': 'GRU', 'scheduler_milestones': [2], 'scheduler_factor': 0.2,
            'featurepathstub': POOLED}


@pytest.fixture
def model_param(tmp_path):
    data_dir, img_dir, models_dir = (os.path.join(tmp_path, name, '')
                                     for name in ('data', 'plots', 'models'))
    return {'batch_size': 4, 'cuda': {'use_cuda': False, 'device_idx': 0},
            'numbOfCPUThreadsUsed': 0, 'numbOfEpochs': 3, 'data_dir': data_dir, 'img_dir': img_dir,
            'modelsDir': models_dir, 'modelName': 'm/', 'restoreModelLast': 0,
            'restoreModelBest': 0, 'modeSetups': [['train', True], ['val', True]],
            'inNotebook': False, 'inference': False}


@pytest.fixture
def validation_param(model_param):
    """The `modelParam` of a validation script."""
    return {**model_param, 'inference': True, 'modeSetups': [['val', False]]}


@pytest.fixture
def new_trainer(course_folder, config, model_param):
    """A function that makes a trainer on the tiny data, as a script does that is started (again).

    Its keyword arguments are settings, of `model_param` or of `config`. Without `curves` it draws
    none, which would take longer than its epochs. A new network that is `wordy` does not end every
    caption at once.
    """
    course_folder()

    def make(network=GruModel, curves=False, wordy=False, **changes):
        if network is AttentionModel:  # the only one of task 4's settings
            changes = {'cellType': 'LSTM', 'featurepathstub': UNPOOLED, **changes}
        param = {key: changes.pop(key, value) for key, value in model_param.items()}
        loader = DataLoaderWrapper({**config, **changes}, param)
        loader.checkFiles()
        model = Model(loader.config, param, network)
        saver = SaverRestorer(loader.config, param)
        saver.restore(model)
        trainer = Trainer(model, param, loader.config, loader, saver)
        if not curves:
            trainer.plotter = mock.Mock()
        if wordy and model.start_epoch == 0:
            model.net.output_layer.bias.data[END] = -5
        return trainer

    return make


@pytest.fixture(scope='session')
def jars(tmp_path_factory):
    """A folder with a space in its name, and METEOR and the tokenizer in it.

    METEOR's table has one paraphrase, so that it starts at once.
    """
    folder = tmp_path_factory.mktemp('site packages')
    shutil.copy(os.path.join(metrics.METEOR_FOLDER, 'meteor-1.5.jar'), folder)
    shutil.copy(os.path.join(metrics.TOKENIZER_FOLDER, STANFORD_CORENLP_3_4_1_JAR), folder)
    (folder / 'data').mkdir()
    with gzip.open(folder / 'data' / 'paraphrase-en.gz', 'wt', encoding='utf-8') as f:
        f.write('0.9\na dray\na wagon\n')
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope='session')
def running_meteor():
    with contextlib.closing(METEOR()) as meteor:
        yield meteor


@pytest.fixture
def shared_meteor(monkeypatch, running_meteor):
    """One METEOR process, which takes seconds to start, for all tests that ask for this.

    The tokenizer, a new process at every call, is asked once for each caption.
    """
    ask = metrics.tokenize

    def tokenize(captions):
        unknown = {caption: [caption] for of_image in captions.values() for caption in of_image
                   if caption not in TOKENS}
        if unknown:
            TOKENS.update((caption, tokens) for caption, [tokens] in ask(unknown).items())
        return {image: [TOKENS[caption] for caption in of_image]
                for image, of_image in captions.items()}

    monkeypatch.setattr(metrics, 'tokenize', tokenize)
    monkeypatch.setattr(running_meteor, 'close', lambda: None)
    monkeypatch.setattr(metrics, 'METEOR', lambda: running_meteor)


class SharedWords:
    """In METEOR's place: the share of a caption's words that one of its references has."""

    def compute_score(self, gts, res):
        scores = []
        for image, (caption,) in res.items():
            words, known = caption.split(), set(' '.join(gts[image]).split())
            scores.append(sum(word in known for word in words) / max(1, len(words)))
        return sum(scores) / len(scores), scores

    def close(self):
        pass


@pytest.fixture
def without_java(monkeypatch):
    """Stands in for Java where a test is about training and not about scores."""
    monkeypatch.setattr(metrics, 'METEOR', SharedWords)
    monkeypatch.setattr(metrics, 'tokenize', lambda captions: {
        image: [' '.join(text.lower().split()) for text in texts]
        for image, texts in captions.items()})
