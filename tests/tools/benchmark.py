"""How fast training, captioning and METEOR are, against plain versions of each. Run by hand:

    PYTHONPATH=. python tests/tools/benchmark.py [repetitions, 7]

Networks and batches have the sizes of the training scripts, and captions have COCO's lengths. The
plain way is a loop over 25 steps (40 without given words) with one product per gate and the output
layer at each step. Prints ratios of median times. On a GPU METEOR is left out, torch's layers use
TF32, and ours do not, except task 4's convolution. For the CUDA graphs it then prints memory and
seconds, whether they are used, whether they equal steps without them bit for bit, and whether the
same seed learns the same again. tests/test_step_graphs.py has more tests of them for a GPU.
"""
import gc
import importlib
import statistics
import sys
import time
import unittest.mock

import torch
from pycocoevalcap.meteor.meteor import Meteor
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from utils.data.captionWords import END, START
from utils.demo.scenes import Scene
from utils.files.errors import UserError
from utils.metrics import METEOR, tokenize
from utils.model import Model
from utils.networks import stepGraphs

BATCH, PADDED = 128, 25
STEPS_TO_LEARN = 60  # until captions end
# Of 1,000 COCO captions so many have 7, 8, ... 24 words, counted over 2,000 training images.
LENGTHS = [8, 165, 227, 207, 153, 98, 58, 33, 18, 12, 7, 4, 3, 2, 1, 1, 1, 1]


def newModel(task, **config):
    gc.collect()  # earlier models' graphs hold memory
    script = importlib.import_module(f'Exercise_Train_task{task}')
    config = {**script.config, **config}
    return Model(config, {**script.modelParam, 'inference': False}, script.ImageCaptionModel)


def batchOf(model, images, counting=False):
    """A batch with random features and words; `counting` sets the words 3, 4, 5 ... instead."""
    V, D = model.net.vocabulary_size, model.net.number_of_cnn_features
    captions = []
    for index in torch.multinomial(torch.tensor(LENGTHS).float(), images, replacement=True):
        length = 7 + int(index)
        words = torch.arange(3, 3 + length) if counting else torch.randint(3, V, (length,))
        captions.append(torch.cat([torch.tensor([START]), words, torch.tensor([END])]))
    tokens = pad_sequence(captions, batch_first=True, padding_value=END)
    weights = pad_sequence([torch.ones(len(caption) - 1) for caption in captions], batch_first=True)
    shape = (images, 10, D) if hasattr(model.net, 'attention_layer') else (images, D)
    cnn_features = torch.rand(shape, pin_memory=torch.cuda.is_available())  # as in training
    return {'cnn_features': cnn_features, 'xTokens': tokens[:, :-1, None],
            'yTokens': tokens[:, 1:, None], 'yWeights': weights[:, :, None],
            'numbOfTruncatedSequences': 1}


def plainCell(cell, x, state):
    """The assignment's equations, one concatenation and one product per gate."""
    h, *c = state.split(cell.hidden_state_size, dim=1)
    z = torch.cat([x, h], 1)

    def gate(letter):
        weight, bias = getattr(cell, f'weight_{letter}'), getattr(cell, f'bias_{letter}')
        return torch.sigmoid(z @ weight + bias)

    if c:
        c = gate('f') * c[0] + gate('i') * torch.tanh(z @ cell.weight + cell.bias)
        return torch.cat([gate('o') * torch.tanh(c), c], 1)
    if hasattr(cell, 'weight_u'):
        u, r = gate('u'), gate('r')
        candidate = torch.tanh(torch.cat([x, r * h], 1) @ cell.weight + cell.bias)
        return u * h + (1 - u) * candidate
    return torch.tanh(z @ cell.weight + cell.bias)


def plainLogits(net, cnn_features, words=None):
    """Logits [B, T, V] over the given words [B, T], or over 40 words of the network's own."""
    attention = getattr(net, 'attention_layer', None)
    if attention is None:
        image = net.inputLayer(cnn_features)                             # [B, M]
    else:
        features = net.inputLayer(cnn_features.transpose(1, 2).unsqueeze(3))  # [B, M, 10]
        image = features.max(dim=2).values
    H = net.hidden_state_sizes
    size = 2 * H if net.cell_type == 'LSTM' else H
    states = [image.new_zeros(len(image), size) for _ in net.rnn.cells]
    word = torch.full((len(image),), START, device=image.device)
    logits = []
    for step in range(40 if words is None else words.shape[1]):
        if words is not None:
            word = words[:, step]
        x = torch.cat([net.embedding_layer(word), image], 1)
        for layer, cell in enumerate(net.rnn.cells):
            if layer and attention is not None:
                weights = attention(states[layer - 1]).unsqueeze(2)      # [B, 10, 1]
                x = torch.cat([x, (features @ weights).squeeze(2)], 1)
            states[layer] = plainCell(cell, x, states[layer])
            x = states[layer][:, :H]
        logits.append(net.output_layer(x))
        word = logits[-1].argmax(1)
    return torch.stack(logits, 1)


def torchLogits(net, cnn_features, words):
    """The same where `net.rnn` is torch's layer."""
    image = net.inputLayer(cnn_features).unsqueeze(1).expand(-1, words.shape[1], -1)
    states, _ = net.rnn(torch.cat([net.embedding_layer(words), image], 2))
    return net.output_layer(states)


def ownStep(model, batch):
    words = float(batch['yWeights'].sum())
    return lambda: model.learn(batch, words)


def otherStep(model, batch, logits, steps):
    """A training step with other code for the logits, on captions padded to that many steps."""
    def padded(key):
        rows = batch[key][:, :, 0]
        return nn.functional.pad(rows, (0, steps - rows.shape[1])).to(model.device)

    cnn_features, x = batch['cnn_features'].to(model.device), padded('xTokens')
    y, weights = padded('yTokens'), padded('yWeights')

    def step():
        model.optimizer.zero_grad()
        model.loss_fn(logits(model.net, cnn_features, x), y, weights)[1].backward()
        model.optimizer.step()

    return step


def secondsOf(function):
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def medians(functions, repetitions):
    """Median seconds of each of the functions, run in turns after one run to warm up."""
    seconds = {name: [] for name in functions}
    for repetition in range(repetitions + 1):
        for name, function in functions.items():
            seconds[name].append(secondsOf(function))
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def kernelsOf(step):
    """How many kernels a step launches on a GPU."""
    if not torch.cuda.is_available():
        return 0
    step()  # which may be recorded
    with torch.profiler.profile() as profile:
        step()
    cuda = torch.autograd.DeviceType.CUDA
    return sum(event.device_type == cuda for event in profile.events())


def peakOfGpu(step):
    """The GPU's memory in GB at the peak of a step, as nvidia-smi would show it; else 0."""
    gc.collect()
    if not torch.cuda.is_available():
        step()
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    step()
    free, total = torch.cuda.mem_get_info()
    return (total - free - torch.cuda.memory_reserved() + torch.cuda.max_memory_reserved()) / 1e9


def training(task, repetitions):
    models = []

    def begin():  # two lengths, and before them the greatest, are recorded
        models.append(newModel(task))
        torch.manual_seed(1)  # of the batches and the dropout
        for _ in range(2):
            ownStep(models[-1], batchOf(models[-1], BATCH))()

    gigabytes = peakOfGpu(begin)
    seconds = secondsOf(begin)
    same = all(map(torch.equal, *(each.net.state_dict().values() for each in models)))
    with unittest.mock.patch.object(stepGraphs, 'ROUNDING', 0):
        begin()
    model, _, exact = models
    batch = batchOf(model, BATCH)
    steps = {'float32': ownStep(model, batch)}
    print(f'task {task}: peak memory {gigabytes:.1f} GB; two steps with recording {seconds:.1f} s, '
          f'{kernelsOf(steps["float32"]):,} kernels each; graphs {model.graphs.possible}, '
          f'in every bit {exact.graphs.possible}, the same again {same}', flush=True)
    for precision in ('bfloat16', 'float16'):
        try:
            steps[precision] = ownStep(newModel(task, precision=precision), batch)
        except UserError:  # this device is slow at it
            continue
    steps['plain'] = otherStep(newModel(task), batch, plainLogits, PADDED)
    if task in (2, 3):
        other = newModel(task)
        net, cell = other.net, other.net.cell_type
        net.rnn = getattr(nn, cell)(net.rnn.input_size, net.hidden_state_sizes,
                                    net.num_rnn_layers, batch_first=True).to(other.device)
        other.optimizer = other._newOptimizer()
        steps[f'nn.{cell}'] = otherStep(other, batch, torchLogits, batch['xTokens'].shape[1])
    seconds = medians(steps, repetitions)
    ratios = ', '.join(f'{value / seconds["float32"]:.2f} by {name}'
                       for name, value in seconds.items() if name != 'float32')
    print(f'task {task}: {BATCH / seconds["float32"]:.0f} captions/s in training; '
          f'time of a step relative to ours in float32: {ratios}', flush=True)


def captioning(task, repetitions):
    """Free-running captions of a model that has learned to end them at lengths like COCO's."""
    model = newModel(task, learningRate={'lr': 0.002})
    model.net.eval()
    for _ in range(STEPS_TO_LEARN):
        ownStep(model, batchOf(model, 32, counting=True))()
    batch = batchOf(model, BATCH)
    cnn_features = batch['cnn_features'].to(model.device)
    with torch.no_grad():
        seconds = medians({
            'greedy': lambda: model.greedyTokens(batch),
            'by a plain loop': lambda: plainLogits(model.net, cnn_features).argmax(2).tolist(),
            'with four samples of each': lambda: model.sampledTokens(batch, 4),
            'with a beam of 3': lambda: model.beamTokens(batch, 3)}, repetitions)
    rates = ', '.join(f'{BATCH / value:.0f} {name}' for name, value in seconds.items())
    print(f'task {task}: captions/s: {rates}; graphs: {model.captionGraphs.possible}', flush=True)


def scoring(images):
    """METEOR of a second epoch's captions, by the process of the first epoch and by a new one."""
    captions = [Scene(f'benchmark {number}').captions() for number in range(images)]
    references = {number: captions[number][:4] for number in range(images)}
    first = {number: captions[number][4:5] for number in range(images)}
    second = {number: first[(number - 1) % images] for number in range(images)}
    tokenized = tokenize(references)
    meteor = METEOR()
    meteor.compute_score(tokenized, tokenize(first))
    ours = secondsOf(lambda: meteor.compute_score(tokenized, tokenize(second)))
    meteor.close()

    def anew():
        process = Meteor()
        process.compute_score(tokenize(references), tokenize(second))
        process.meteor_p.kill()

    print(f'METEOR of {images} captions: a new process takes '
          f'{secondsOf(anew) / ours:.2f} times as long')


def peak_of_family(process):
    """The peak of `memory_of_family` until the process ends."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory_of_family(process.pid))
        time.sleep(.2)
    return peak


def memory_of_family(pid):
    """Memory in kB of a process and all that descend from it; what they share counts once."""
    try:
        with open(f'/proc/{pid}/smaps_rollup') as f:
            own = next((int(line.split()[1]) for line in f if line.startswith('Pss:')), 0)
        with open(f'/proc/{pid}/task/{pid}/children') as f:
            children = f.read().split()
    except OSError:  # it has ended
        return 0
    return own + sum(map(memory_of_family, children))


def main(repetitions=7):
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU'
    print(f'torch {torch.__version__}, {torch.get_num_threads()} threads, {device}')
    torch.manual_seed(1)
    for task in (1, 2, 3, 4):
        training(task, int(repetitions))
        captioning(task, int(repetitions))
    if not torch.cuda.is_available():
        scoring(5000)


if __name__ == '__main__':
    main(*sys.argv[1:])
