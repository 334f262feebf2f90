"""Free-running captions of the validation images, their scores, and the teacher-forced validation loss."""
import contextlib
import math
import os

import torch

from utils import metrics
from utils.files.atomic import writeJson
from utils.files.errors import UserError
from utils.files.project import runFolder
from utils.processes.progress import progressBar


def imageId(imgPath):
    """COCO's image id, the number in an image's file name; the name itself where it is no number."""
    stem = os.path.splitext(os.path.basename(imgPath))[0]
    return int(stem) if stem.isdigit() else stem


def finite(loss, imgPaths, where):
    """The loss of a batch, a float.

    Raises:
        UserError: it is infinite or not a number; the message names the batch's images.
    """
    if not math.isfinite(loss):
        raise UserError(f"The loss is {loss} in {where}, images {', '.join(imgPaths)}. Nothing of this epoch is "
                        'kept, the last checkpoint is finite. The files were checked at the start, so the model has diverged: '
                        "train a new one with a smaller config['learningRate'], or go on from the last checkpoint with it by "
                        "modelParam['restoreModelLast'] = 1. In self-critical epochs the rate is LEARNING_RATE in "
                        'utils/networks/selfCritical.py.')
    return loss


def teacherForcedLoss(model, batches):
    """The loss per word in nats over all words of the batches, each image's first caption given word by word."""
    model.net.eval()
    total, words = 0.0, 0.0
    for batch in batches:
        loss, number = lossAndWords(model, batch)
        total, words = total + loss, words + number
    return total / words


def lossAndWords(model, batch):
    """A validation batch's teacher-forced loss summed over its words, in nats, and the number of its words."""
    with torch.no_grad():
        return finite(float(sum(model.lossOfParts(batch))), batch['imgPaths'], 'the validation'), float(batch['yWeights'].sum())


class CaptionValidator:
    """Captions the validation images and scores the captions; one for a whole run.

    The first pass over the images, whichever it is, also collects their human captions, which all scores are against.

    Args:
        modelParam: dict.
        dataLoader: a `DataLoaderWrapper` with the mode 'val'.

    Raises:
        JavaError: there is no Java, or it failed.
    """

    def __init__(self, modelParam, dataLoader):
        self.modelParam = modelParam
        self.dataLoader = dataLoader
        self.loader = dataLoader.myDataDicts['val']
        self.meteor = metrics.METEOR()  # reads its tables while the first captions are made
        self.scorer = None
        self.annotations = {'images': [], 'annotations': []}
        self.token_references = {}

    def close(self):
        """Ends the scorer's processes."""
        self.meteor.close()

    def batches(self, description):
        """The batches of all validation images, behind a progress bar.

        Raises:
            UserError: two files are of the same image.
        """
        known = len(self.token_references) == len(self.loader.dataset)
        for batch in progressBar(self.loader, description, self.modelParam):
            if not known:
                self._collectReferences(batch)
            yield batch

    def _collectReferences(self, batch):
        for imgPath, captions, tokens in zip(*(batch[key] for key in ('imgPaths', 'orig_captions', 'allcaptionsAsTokens'))):
            image_id = imageId(imgPath)
            if image_id in self.token_references:
                path = self.loader.dataset.paths[len(self.token_references)]
                raise UserError(f'{path} is of the image {image_id}, as is another file of its folder. Move one of them away.')
            annotations = self.annotations['annotations']
            self.annotations['images'].append({'id': image_id, 'file_name': imgPath})
            annotations += [{'id': len(annotations) + number, 'image_id': image_id, 'caption': caption}
                            for number, caption in enumerate(captions)]
            # as the course has it: a caption without an end token loses its last word, unknown tokens stay as they are
            self.token_references[image_id] = [' '.join(map(str, caption[1:-1])) for caption in tokens]

    def results(self, batch, captions):
        """A batch's captions, B lists of tokens, in COCO results form: list of dicts of `image_id` and `caption`."""
        return [{'image_id': imageId(imgPath), 'caption': self.dataLoader.wordsOf(tokens)}
                for imgPath, tokens in zip(batch['imgPaths'], captions)]

    def caption(self, model):
        """The greedy free-running captions of all validation images, as `results` has them."""
        model.net.eval()
        return [result for batch in self.batches('captions') for result in self.results(batch, model.greedyTokens(batch))]

    def score(self, results):
        """The COCO protocol's scores on words: dict of `bleu_1` … `bleu_4`, `meteor`, `cider`, `rouge`, plain floats."""
        if self.scorer is None:
            self.scorer = metrics.CaptionScorer(self.annotations, self.meteor)
        return self.scorer.score(results)

    def allScores(self, results):
        """Those of `score`, and `meteor_tokens`."""
        return {**self.score(results), 'meteor_tokens': self.meteorOnTokens(results)}

    def meteorOnTokens(self, results):
        """The course's METEOR, on strings of token numbers, where stems and synonyms never match."""
        token = self.dataLoader.vocabulary['wordToToken']
        predicted = {result['image_id']: [' '.join(str(token[word]) for word in result['caption'].split())]
                     for result in results}
        score, _ = self.meteor.compute_score(self.token_references, predicted)
        return score


def detailsOf(batch, results, attention):
    """What there is to show of each image of a batch; see `validateCaptions`.

    Args:
        batch: a batch of images.
        results: its captions in COCO results form.
        attention: for each image a list of weights over the detections per word, or None.
    """
    details = []
    boxes = batch.get('boxes', [None] * len(results))
    for row, (result, weights) in enumerate(zip(results, attention)):
        image = {**result, 'imgPath': batch['imgPaths'][row], 'references': batch['orig_captions'][row]}
        if weights is not None:
            image['attention'] = [[round(weight, 3) for weight in word] for word in weights]
        if boxes[row] is not None:
            image['boxes'] = [[round(value, 1) for value in box] for box in boxes[row].tolist()]
        details.append(image)
    return details


def validateCaptions(model, modelParam, config, dataLoader):
    """Captions and scores the validation images.

    Writes `captions_validation.json`, the captions in COCO results form, and `details_validation.json`, all that pages about
    them show: a list of dicts of `image_id`, `imgPath`, `caption`, `references` (the human captions as they are), `meteor`
    (on words, of this image), and where the model and the data have them `attention` (a row of weights over the detections
    per word of the caption) and `boxes` ([x1, y1, x2, y2] in pixels per detection). Writes also `scores_validation.json`, what
    is returned and the `epoch` that the model comes from, and with a `config['beamSize']` of K > 1
    `captions_validation_beam{K}.json`.

    Returns:
        dict of floats: `bleu_1` … `bleu_4`, `meteor`, `cider`, `rouge` by the COCO protocol on words, `meteor_tokens`
        as the course scores it, all of greedy free-running captions; `loss`, teacher-forced, in nats per word; and with a
        beam `beam_bleu_1` … `beam_meteor_tokens`, the scores of its captions.
    """
    beamSize = config.get('beamSize', 1)
    folder = runFolder(modelParam)
    results, beam_results, details, loss, words = [], [], [], 0.0, 0.0
    model.net.eval()
    with contextlib.closing(CaptionValidator(modelParam, dataLoader)) as validator:
        for batch in validator.batches('captions'):
            captions = model.greedyTokens(batch)
            weights = model.attentionOver(batch, captions)                       # [B, T, detections] or None
            attention = [None if weights is None else weights[row, dataLoader.wordPositions(tokens)].tolist()
                         for row, tokens in enumerate(captions)]
            of_batch = validator.results(batch, captions)
            results += of_batch
            details += detailsOf(batch, of_batch, attention)
            loss_of_batch, words_of_batch = lossAndWords(model, batch)
            loss, words = loss + loss_of_batch, words + words_of_batch
            if beamSize > 1:
                beam_results += validator.results(batch, model.beamTokens(batch, beamSize))
        writeJson(os.path.join(folder, 'captions_validation.json'), results)
        scores = {'loss': loss / words, **validator.allScores(results)}
        for image in details:
            image['meteor'] = validator.scorer.meteor_per_image[image['image_id']]
        writeJson(os.path.join(folder, 'details_validation.json'), details)
        if beamSize > 1:
            writeJson(os.path.join(folder, f'captions_validation_beam{beamSize}.json'), beam_results)
            scores.update((f'beam_{name}', score) for name, score in validator.allScores(beam_results).items())
        writeJson(os.path.join(folder, 'scores_validation.json'), {'epoch': model.start_epoch, **scores})
    return scores


def scoreTable(scores, config):
    """The scores that `validateCaptions` returns as a table in text: a name, the greedy score, the beam's beside it."""
    lines = [f'{name:14s}{score:.4f}' + (f"{scores[f'beam_{name}']:12.4f}" if f'beam_{name}' in scores else '')
             for name, score in scores.items() if not name.startswith('beam_')]
    if 'beam_meteor' in scores:
        lines.insert(0, f"{'':14s}greedy{'beam of ' + str(config['beamSize']):>12s}")
    return '\n'.join(lines)
