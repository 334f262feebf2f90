"""How fast training, captioning and scoring are, each beside a plain way, in one process and in turns. Run by hand:

    PYTHONPATH=. python tests/tools/benchmark.py

Captions have the lengths of COCO's. *Plain* is a loop over 25 steps that calls every cell with [x, h], one product per
gate, and the output layer at each step. Prints medians over the repetitions, and ratios; training in every precision that the
device is fast at. On a GPU it also prints the kernels that a step launches and the peak of the GPU's memory.
"""
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from pycocoevalcap.meteor.meteor import Meteor
from torch import nn

import cocoSource_task2_gru
import cocoSource_task3_lstm
import cocoSource_task4_attention
import cocoSource_xcnnfused
from utils.data.captionDataset import Collate
from utils.demo.scenes import Scene
from utils.files.project import PROJECT
from utils.generateVocabulary import generateVocabulary
from utils.metrics import CaptionScorer, tokenize
from utils.model import Model, chooseDevice
from utils.networks.decoding import beamSearch, greedyTokens
from utils.networks.precision import FLOAT32, PRECISIONS, hindrance

V, E, H, D, M, BATCH, PADDED = 10000, 300, 512, 2048, 512, 128, 25
REPETITIONS = 7
# Captions in a thousand that have so many words, counted over the captions of 2,000 COCO training images.
LENGTHS = {7: 8, 8: 165, 9: 227, 10: 207, 11: 153, 12: 98, 13: 58, 14: 33, 15: 18, 16: 12, 17: 7, 18: 4, 19: 3, 20: 2, 21: 1,
           22: 1, 23: 1, 24: 1}
TASKS = {1: (cocoSource_xcnnfused, 'RNN', 1), 2: (cocoSource_task2_gru, 'GRU', 2), 3: (cocoSource_task3_lstm, 'LSTM', 2),
         4: (cocoSource_task4_attention, 'LSTM', 2)}
TORCHS = {'GRU': nn.GRU, 'LSTM': nn.LSTM}
# Captions that an earlier epoch gave the same image: the mean over epochs 2 to 10 of task 3 on 1,000 real photos.
UNCHANGED = 0.23


def save(path, value):
    with open(path, 'wb') as f:
        pickle.dump(value, f, protocol=4)


def plain_cell(cell, x, state):
    """The cell's equations, one concatenation and one product per gate."""
    if isinstance(cell, cocoSource_task3_lstm.LSTMCell):
        h, c = state.chunk(2, 1)
        z = torch.cat([x, h], 1)
        f = torch.sigmoid(z @ cell.weight_f + cell.bias_f)
        i = torch.sigmoid(z @ cell.weight_i + cell.bias_i)
        o = torch.sigmoid(z @ cell.weight_o + cell.bias_o)
        c = f * c + i * torch.tanh(z @ cell.weight + cell.bias)
        return torch.cat([o * torch.tanh(c), c], 1)
    z = torch.cat([x, state], 1)
    if isinstance(cell, cocoSource_task2_gru.GRUCell):
        u = torch.sigmoid(z @ cell.weight_u + cell.bias_u)
        r = torch.sigmoid(z @ cell.weight_r + cell.bias_r)
        return u * state + (1 - u) * torch.tanh(torch.cat([x, r * state], 1) @ cell.weight + cell.bias)
    return torch.tanh(z @ cell.weight + cell.bias)


def plain_steps(net, cnn_features, first_word, words=None):
    """Logits [B, T, V] over the given words [B, T], or over 40 steps of the model's own."""
    features = net.process_features(cnn_features)
    attention = getattr(net, 'attention_layer', None)
    image = features if attention is None else features.max(dim=2).values
    states = list(net.zero_state(len(features)))
    logits, word = [], first_word
    for step in range(40 if words is None else words.shape[1]):
        if words is not None:
            word = words[:, step]
        x = torch.cat([net.embedding_layer(word), image], 1)
        for number, cell in enumerate(net.rnn.cells):
            if number and attention is not None:
                weights = attention(states[number - 1].clone())
                x = torch.cat([x, (features @ weights.unsqueeze(2)).squeeze(2)], 1)
            states[number] = plain_cell(cell, x, states[number])
            x = states[number][:, :H]
        logits.append(net.output_layer(x))
        word = logits[-1].argmax(1)
    return torch.stack(logits, 1)


class TorchModel(nn.Module):
    """What a user would pick instead: the same layers around torch's GRU or LSTM."""

    def __init__(self, cell):
        super().__init__()
        self.inputLayer = nn.Sequential(nn.Dropout(0.25), nn.Linear(D, M), nn.LeakyReLU())
        self.embedding_layer, self.output_layer = nn.Embedding(V, E), nn.Linear(H, V)
        self.rnn = TORCHS[cell](E + M, H, 2, batch_first=True)

    def forward(self, cnn_features, words):
        image = self.inputLayer(cnn_features).unsqueeze(1).expand(-1, words.shape[1], -1)
        return self.output_layer(self.rnn(torch.cat([self.embedding_layer(words), image], 2))[0])


def model_param():
    return {'cuda': {'use_cuda': True, 'device_idx': 0}, 'inference': False}


def config_of(cell, layers):
    return {'vocabulary_size': V, 'embedding_size': E, 'number_of_cnn_features': D, 'hidden_state_sizes': H,
            'num_rnn_layers': layers, 'cellType': cell, 'optimizer': 'adamW', 'learningRate': {'lr': 0.001},
            'weight_decay': 1e-5, 'scheduler_milestones': [], 'scheduler_factor': 1, 'seed': 1}


def batch_of(task):
    lengths = torch.multinomial(torch.tensor(list(LENGTHS.values()), dtype=torch.float), BATCH, replacement=True)
    captions = [[1] + torch.randint(3, V, (list(LENGTHS)[index],)).tolist() + [0] for index in lengths]
    features = torch.rand(BATCH, 10, D) if task == 4 else torch.rand(BATCH, D)
    return {'cnn_features': features, **Collate(PADDED).captionTensors(captions)}


def medians(variants, repetitions=REPETITIONS):
    """Median seconds of each of the functions, run in turns after one run to warm up."""
    seconds = {name: [] for name in variants}
    for repetition in range(repetitions + 1):
        for name, function in variants.items():
            start = time.perf_counter()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if repetition:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def arithmetic(task, batch):
    """Floating-point operations that a training step owes to words, padding left out: 2 per weight and word forward,
    twice that backward, where the image's features need no gradient."""
    _, cell, layers = TASKS[task]
    gates = {'RNN': 1, 'GRU': 3, 'LSTM': 4}[cell]
    words = float(batch['yWeights'].sum())
    per_word = (E + H) * gates * H + H * V + (layers - 1) * 2 * H * gates * H
    if task == 4:
        per_word += M * gates * H + 2 * H * 50 + 50 * 10 + 10 * M
    return 6 * words * per_word + BATCH * (4 * D * M * (10 if task == 4 else 1) + 6 * M * gates * H)


def new_step(task, precision, batch):
    """A function that takes a training step with a new model, and the model."""
    module, cell, layers = TASKS[task]
    model = Model({**config_of(cell, layers), 'precision': precision}, model_param(), module.ImageCaptionModel)
    model.net.train()
    words = float(batch['yWeights'].sum())
    return lambda: model.learn(model.lossOfParts(batch), words), model


def launched(step):
    """The kernels that a step launches on a GPU; on a CPU the operations of torch that it is made of."""
    activities = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activities.CPU] + [activities.CUDA] * torch.cuda.is_available()) as profile:
        step()
    on_gpu = sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events())
    return on_gpu or sum(event.name.startswith('aten::') for event in profile.events())


def peak_of_gpu(step):
    """The GPU memory in MiB as nvidia-smi would show it at the peak of some steps, if nobody else is on the GPU."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        step()
    free, total = torch.cuda.mem_get_info()
    return (total - free - torch.cuda.memory_reserved() + torch.cuda.max_memory_reserved()) / 2 ** 20


def alone(task, precision, batch):
    """Prints what a step takes besides time; nothing else is on the GPU."""
    step, model = new_step(task, precision, batch)
    step()
    on_gpu = model.device.type == 'cuda'
    print(f"task {task}, {precision}: {launched(step):,} {'kernels' if on_gpu else 'operations'} a step"
          + (f', peak memory {peak_of_gpu(step):,.0f} MiB' if on_gpu else ''), flush=True)


def training():
    square = torch.rand(4096, 4096)
    for task, (module, cell, layers) in TASKS.items():
        batch = batch_of(task)
        device = chooseDevice(model_param())
        possible = [name for name in PRECISIONS if not hindrance(name, device)]
        for precision in possible:
            alone(task, precision, batch)
        plain = Model(config_of(cell, layers), model_param(), module.ImageCaptionModel)
        plain.net.train()
        x, y, weights = (torch.nn.functional.pad(batch[key][:, :, 0], (0, PADDED - batch[key].shape[1])).to(device)
                         for key in ('xTokens', 'yTokens', 'yWeights'))
        features = batch['cnn_features'].to(device)

        def step_of_plain():
            plain.optimizer.zero_grad()
            plain.loss_fn(plain_steps(plain.net, features, None, x), y, weights)[1].backward()
            plain.optimizer.step()

        variants = {**{name: new_step(task, name, batch)[0] for name in possible}, 'plain': step_of_plain,
                    'product': lambda: square @ square}
        if task in (2, 3):
            net = TorchModel(cell).to(device)
            optimizer = torch.optim.AdamW(net.parameters(), 0.001, weight_decay=1e-5)
            T = batch['xTokens'].shape[1]

            def step_of_torch():
                optimizer.zero_grad()
                plain.loss_fn(net(features, x[:, :T]), y[:, :T], weights[:, :T])[1].backward()
                optimizer.step()

            variants['torch'] = step_of_torch
        seconds = medians(variants)
        rate, peak = arithmetic(task, batch) / seconds[FLOAT32], 2 * 4096 ** 3 / seconds['product']
        line = f"task {task}: {BATCH / seconds[FLOAT32]:.0f} captions/s, {seconds['plain'] / seconds[FLOAT32]:.2f} × plain"
        if 'torch' in seconds:
            line += f", {seconds['torch'] / seconds[FLOAT32]:.2f} × nn.{cell}"
        line += ''.join(f', {name} {seconds[FLOAT32] / seconds[name]:.2f} × float32' for name in possible if name != FLOAT32)
        if device.type == 'cpu':
            line += f', {rate / peak:.0%} of {peak / 1e9:.0f} GFLOP/s in a 4096² product'
        print(line, flush=True)


def end_like_people(net, features):
    """Trains the net for a moment on lengths alone, so that its captions end as COCO's do."""
    optimizer = torch.optim.AdamW(net.parameters(), 0.002)
    collate = Collate(PADDED)
    for _ in range(60):
        lengths = torch.multinomial(torch.tensor(list(LENGTHS.values()), dtype=torch.float), len(features), replacement=True)
        batch = collate.captionTensors([[1] + list(range(3, 3 + list(LENGTHS)[index])) + [0] for index in lengths])
        x, y, weights = (batch[key][:, :, 0].to(features.device) for key in ('xTokens', 'yTokens', 'yWeights'))
        optimizer.zero_grad()
        cocoSource_xcnnfused.loss_fn(net(features, x, True)[0], y, weights)[1].backward()
        optimizer.step()


def captioning():
    """500 images; the model has learned to count up to lengths like COCO's, and to end there."""
    for task, (module, cell, layers) in TASKS.items():
        model = Model(config_of(cell, layers), model_param(), module.ImageCaptionModel)
        net = model.net.eval()
        batches = [batch_of(task)['cnn_features'][:n].to(model.device) for n in (128, 128, 128, 116)]
        start = torch.ones(BATCH, dtype=torch.long, device=model.device)
        end_like_people(net, batches[0][:32])

        @torch.no_grad()
        def ours():
            return [greedyTokens(net, features, start[:len(features)]) for features in batches]

        @torch.no_grad()
        def plain():
            return [plain_steps(net, features, start[:len(features)]).argmax(2) for features in batches]

        @torch.no_grad()
        def beam():
            return [beamSearch(net, features, start[:len(features)], 3) for features in batches]

        seconds = medians({'ours': ours, 'plain': plain, 'beam': beam}, 3)
        steps = [tokens.shape[1] for tokens in ours()]
        print(f"free-running captions, task {task}: {500 / seconds['ours']:.0f}/s, {seconds['plain'] / seconds['ours']:.2f} × "
              f"plain, {steps} steps; a beam of 3 takes {seconds['beam'] / seconds['ours']:.2f} × the time", flush=True)


def scoring(images=5000):
    """Captions of drawn scenes; in the second epoch `UNCHANGED` of them are as they were."""
    groups = [Scene(f'benchmark {number}').captions() for number in range(images)]
    annotations = {'images': [{'id': number} for number in range(images)],
                   'annotations': [{'id': 5 * number + k, 'image_id': number, 'caption': caption}
                                   for number, group in enumerate(groups) for k, caption in enumerate(group[:4])]}
    first = [{'image_id': number, 'caption': group[4]} for number, group in enumerate(groups)]
    shift = [group[4] for group in groups[1:] + groups[:1]]
    second = [caption if number < UNCHANGED * images else {'image_id': number, 'caption': shift[number]}
              for number, caption in enumerate(first)]
    scorer = CaptionScorer(annotations)
    scorer.score(first)
    references = {number: group[:4] for number, group in enumerate(groups)}
    captions = {result['image_id']: [result['caption']] for result in second}

    start = time.perf_counter()
    score, _ = scorer.meteor.compute_score(scorer.references, tokenize(captions))
    ours = time.perf_counter() - start
    start = time.perf_counter()
    meteor = Meteor()
    anew, _ = meteor.compute_score(tokenize(references), tokenize(captions))
    meteor.meteor_p.kill()
    plain = time.perf_counter() - start
    scorer.close()
    print(f'METEOR of {images} captions, tokenizing included: {plain / ours:.2f} × one started anew; {score:.4f} and {anew:.4f}',
          flush=True)


def memory(images):
    """Peak of the memory of task 4's training, loaders and scorers included, with so many unpooled files. Linux only."""
    with tempfile.TemporaryDirectory() as folder:
        words = [f'word{number}' for number in range(V)]
        os.makedirs(os.path.join(folder, 'vocabulary'))
        save(os.path.join(folder, 'vocabulary', 'vocabulary.pickle'), generateVocabulary([words]))
        for split, numbers in (('Train', range(images)), ('Val', range(images, images + 500))):
            os.makedirs(os.path.join(folder, f'{split}2017_detectron2_lim10features'))
            for number in numbers:
                tokens = [[1] + [3 + (number * k) % V for k in range(1, 11)] + [0]] * 5
                save(os.path.join(folder, f'{split}2017_detectron2_lim10features', f'{number:012d}.pickle'), {
                    'cnn_features': np.random.rand(10, D).astype(np.float32), 'imgPath': f'{number:012d}.jpg',
                    'original_captions': ['some words'] * 5, 'captions': [['ssss', 'some', 'words', 'eeee']] * 5,
                    'captionsAsTokens': tokens})
        code = ('import Exercise_Train_task4 as task\n'
                f'task.modelParam.update(data_dir={folder + os.sep!r}, modelsDir={folder!r}, img_dir={folder!r}, numbOfEpochs=1)\n'
                'task.main()')
        process = subprocess.Popen([sys.executable, '-c', code], cwd=PROJECT, stdout=subprocess.DEVNULL)
        peak = peak_of_family(process)
        if process.returncode:
            raise RuntimeError('the training failed')
    return peak


def peak_of_family(process):
    """The peak of the memory in kB of a process and all that descend from it, until its end."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(proportional_set_size, family(process.pid))))
        time.sleep(.2)
    return peak


def family(pid):
    """A process and all that descend from it."""
    try:
        with open(f'/proc/{pid}/task/{pid}/children') as f:
            children = f.read().split()
    except OSError:
        return []
    return [pid] + [descendant for child in children for descendant in family(child)]


def proportional_set_size(pid):
    """A process's memory in kB, its part of what it shares."""
    try:
        with open(f'/proc/{pid}/smaps_rollup') as f:
            return next((int(line.split()[1]) for line in f if line.startswith('Pss:')), 0)
    except OSError:
        return 0


if __name__ == '__main__':
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, "
          f"{torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU'}")
    torch.manual_seed(1)
    training()
    captioning()
    scoring()
    few, many = memory(2000), memory(10000)
    print(f'peak memory, task 4: {few / 1e6:.2f} GB with 2,000 files, {many / 1e6:.2f} GB with 10,000')
