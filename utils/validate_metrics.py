"""Free-running captions of the validation images, their scores, and the teacher-forced validation loss."""
import contextlib
import math
import os

import torch

from utils.files.atomic import writeJson
from utils.files.errors import UserError
from utils.files.project import runFolder
from utils.metrics import CaptionScorer
from utils.processes.progress import progressBar


def imageId(imgPath):
    """COCO's image id, the number in an image's file name; the name itself where it is no number."""
    stem = os.path.splitext(os.path.basename(imgPath))[0]
    return int(stem) if stem.isdigit() else stem


def finite(loss, batch, where):
    """The loss, a tensor, as a float.

    Raises:
        UserError: it is infinite or not a number; the message names the batch's images.
    """
    loss = float(loss)
    if not math.isfinite(loss):
        raise UserError(f"The loss is {loss} in {where}, images {', '.join(batch['imgPaths'])}. Nothing of this epoch is "
                        'kept, the last checkpoint is finite. The files were checked at the start, so the model has diverged: '
                        "train a new one with a smaller config['learningRate'], or go on from the last checkpoint with it by "
                        "modelParam['restoreModelLast'] = 1.")
    return loss


def teacherForcedLoss(model, batches):
    """The loss per word in nats over all words of the batches, each image's first caption given word by word."""
    model.net.eval()
    total, words = 0.0, 0.0
    with torch.no_grad():
        for batch in batches:
            total += finite(sum(model.lossOfParts(batch)), batch, 'the validation')
            words += float(batch['yWeights'].sum())
    return total / words


class CaptionValidator:
    """Captions the validation images and scores the captions; one for a whole run.

    Args:
        modelParam: dict.
        dataLoader: a `DataLoaderWrapper` with the mode 'val'.

    Raises:
        UserError: two files are of the same image.
        JavaError: there is no Java, or it failed.
    """

    def __init__(self, modelParam, dataLoader):
        self.modelParam = modelParam
        self.dataLoader = dataLoader
        self.loader = dataLoader.myDataDicts['val']
        annotations = {'images': [], 'annotations': []}
        self.token_references = {}
        for index in range(len(self.loader.dataset)):
            image = self.loader.dataset.load(index)
            image_id = imageId(image['imgPath'])
            if image_id in self.token_references:
                raise UserError(f'{self.loader.dataset.paths[index]} is of the image {image_id}, as is another file of its '
                                'folder. Move one of them away.')
            annotations['images'].append({'id': image_id, 'file_name': image['imgPath']})
            annotations['annotations'] += [
                {'id': len(annotations['annotations']) + number, 'image_id': image_id, 'caption': caption}
                for number, caption in enumerate(image['original_captions'])]
            # as the course has it: a caption without an end token loses its last word, unknown tokens stay as they are
            self.token_references[image_id] = [' '.join(map(str, caption[1:-1])) for caption in image['captionsAsTokens']]
        self.scorer = CaptionScorer(annotations)

    def close(self):
        """Ends the scorer's processes."""
        self.scorer.close()

    def captioned(self, model, beamSize=1):
        """Yields each batch of validation images with its free-running captions, greedy or of a beam, B lists of tokens."""
        model.net.eval()
        for batch in progressBar(self.loader, 'captions', self.modelParam):
            yield batch, model.greedyTokens(batch) if beamSize == 1 else model.beamTokens(batch, beamSize)

    def results(self, batch, captions):
        """A batch's captions in COCO results form: list of dicts of `image_id` and `caption`."""
        return [{'image_id': imageId(imgPath), 'caption': self.dataLoader.wordsOf(tokens)}
                for imgPath, tokens in zip(batch['imgPaths'], captions)]

    def caption(self, model, beamSize=1):
        """The captions of all validation images, as `results` has them."""
        return [result for batch, captions in self.captioned(model, beamSize) for result in self.results(batch, captions)]

    def score(self, results):
        """The COCO protocol's scores on words: dict of `bleu_1` … `bleu_4`, `meteor`, `cider`, `rouge`, plain floats."""
        return self.scorer.score(results)

    def allScores(self, results):
        """Those of `score`, and `meteor_tokens`."""
        return {**self.score(results), 'meteor_tokens': self.meteorOnTokens(results)}

    def details(self, results, attention):
        """The scored `results` with what there is to show of each image; see `validateCaptions`."""
        details = []
        for index, (result, weights) in enumerate(zip(results, attention)):
            image = self.loader.dataset.load(index)
            details.append({**result, 'imgPath': image['imgPath'], 'references': image['original_captions'],
                            'meteor': self.scorer.meteor_per_image[result['image_id']]})
            if weights is not None:
                details[-1]['attention'] = [[round(weight, 3) for weight in row] for row in weights]
            if 'boxes' in image:
                details[-1]['boxes'] = [[round(value, 1) for value in box] for box in image['boxes'].tolist()]
        return details

    def meteorOnTokens(self, results):
        """The course's METEOR, on strings of token numbers, where stems and synonyms never match."""
        token = self.dataLoader.vocabulary['wordToToken']
        predicted = {result['image_id']: [' '.join(str(token[word]) for word in result['caption'].split())]
                     for result in results}
        score, _ = self.scorer.meteor.compute_score(self.token_references, predicted)
        return score


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
    if beamSize > 1 and not hasattr(model.net, 'beam_tokens'):
        print(f'Greedy captions alone: the model of {type(model.net).__module__} has no method beam_tokens to search with.')
        beamSize = 1
    with contextlib.closing(CaptionValidator(modelParam, dataLoader)) as validator:
        results, attention = [], []
        for batch, captions in validator.captioned(model):
            results += validator.results(batch, captions)
            weights = model.attentionOver(batch, captions)                       # [B, T, detections] or None
            attention += [None if weights is None else weights[row, dataLoader.wordPositions(tokens)].tolist()
                          for row, tokens in enumerate(captions)]
        folder = runFolder(modelParam)
        writeJson(os.path.join(folder, 'captions_validation.json'), results)
        loss = teacherForcedLoss(model, progressBar(validator.loader, 'validation loss', modelParam))
        scores = {'loss': loss, **validator.allScores(results)}
        writeJson(os.path.join(folder, 'details_validation.json'), validator.details(results, attention))
        if beamSize > 1:
            results = validator.caption(model, beamSize)
            writeJson(os.path.join(folder, f'captions_validation_beam{beamSize}.json'), results)
            scores.update((f'beam_{name}', score) for name, score in validator.allScores(results).items())
        writeJson(os.path.join(folder, 'scores_validation.json'), {'epoch': model.start_epoch, **scores})
    return scores


def scoreTable(scores, config):
    """The scores that `validateCaptions` returns as a table in text: a name, the greedy score, the beam's beside it."""
    lines = [f'{name:14s}{score:.4f}' + (f"{scores[f'beam_{name}']:12.4f}" if f'beam_{name}' in scores else '')
             for name, score in scores.items() if not name.startswith('beam_')]
    if 'beam_meteor' in scores:
        lines.insert(0, f"{'':14s}greedy{'beam of ' + str(config['beamSize']):>12s}")
    return '\n'.join(lines)
