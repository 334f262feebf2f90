"""How good captions are: METEOR, BLEU, CIDEr and ROUGE-L by the COCO protocol (Chen et al. 2015, arXiv:1504.00325)."""
import collections
import contextlib
import io
import os
import re

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor import meteor as meteor_package
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer import ptbtokenizer as tokenizer_package
from pycocotools.coco import COCO

from utils.processes.java import JavaProcess, runJava

METEOR_FOLDER = os.path.dirname(os.path.abspath(meteor_package.__file__))
TOKENIZER_FOLDER = os.path.dirname(os.path.abspath(tokenizer_package.__file__))
NUMBER_OF_STATISTICS = 23   # that METEOR gives for a caption: lengths, matches by kind, chunks
REMEMBERED_CAPTIONS = 50000  # whose statistics METEOR keeps: ten epochs of COCO's validation images in some 30 MB


class BLEU(Bleu):
    """BLEU-1 … BLEU-4: precision of n-grams with a penalty for brevity (Papineni et al. 2002).

    `compute_score(gts, res)` → (list of 4 floats for all images, list of 4 lists of floats per image).
    """

    def compute_score(self, gts, res):
        return super().compute_score(gts, res, verbose=0)


class CIDEr(Cider):
    """CIDEr-D: cosine of n-gram counts weighted by their rarity over the images' references (Vedantam et al. 2015).

    `compute_score(gts, res)` → (float, array per image). The scale goes to 10; an n-gram that every image has counts 0.
    """


class ROUGE(Rouge):
    """ROUGE-L: F-measure of the longest common subsequence (Lin 2004). `compute_score(gts, res)` → (float, array)."""


class METEOR:
    """METEOR 1.5: F-measure of aligned words, stems, synonyms and paraphrases, less a penalty for disorder (Banerjee &
    Lavie 2005; Denkowski & Lavie 2014). The numbers are pycocoevalcap's, from its jar in a Java process that is started
    once.

    Captions are words with spaces between; strings of token numbers do as well ('17 3 88', the course's way), but then
    only equal numbers match. Usable as a context manager; `close()` ends Java, the next call would start it again.

    Raises:
        JavaError: there is no Java.
    """

    def __init__(self):
        self._statistics = {}  # question → answer
        self._java = self._start()

    @staticmethod
    def _start():
        # With a space in the path METEOR does not find its paraphrases by itself.
        return JavaProcess('METEOR', '-jar', os.path.join(METEOR_FOLDER, meteor_package.METEOR_JAR), '-', '-', '-stdio',
                           '-l', 'en', '-norm', '-a', os.path.join(METEOR_FOLDER, 'data', 'paraphrase-en.gz'))

    def compute_score(self, gts, res):
        """Scores one caption per image.

        Args:
            gts: dict image id → list of references, at least one.
            res: dict image id → list of one caption. An empty one scores 0, and its reference's words still count.

        Returns:
            The score (of statistics summed over the images, not the mean), and a list of scores per image as in `gts`.

        Raises:
            ValueError: the images differ, or an image has no reference or not one caption.
            JavaError: Java died or does not answer. The next call starts a new one.
        """
        if gts.keys() != res.keys():
            raise ValueError(f'References and captions differ in the images {_some(gts.keys() ^ res.keys())}.')
        wrong = [image for image in gts if not gts[image] or len(res[image]) != 1]
        if wrong:
            raise ValueError(f'METEOR needs a reference or more and one caption for each image, unlike {_some(wrong)}.')
        if not gts:
            return 0.0, []
        questions = [' ||| '.join(['SCORE', *map(_field, gts[image]), _field(res[image][0])]) for image in gts]
        unknown = [question for question in dict.fromkeys(questions) if question not in self._statistics]
        self._statistics.update(zip(unknown, self._ask(unknown, len(unknown), _checked)))
        evaluation = ' ||| '.join(['EVAL', *(self._statistics[question] for question in questions)])
        *scores, score = self._ask([evaluation], len(questions) + 1, float)
        for question in list(self._statistics)[:-REMEMBERED_CAPTIONS]:
            del self._statistics[question]
        return score, scores

    def _ask(self, questions, number_of_answers, convert):
        if not self._java.isAlive():
            self._java = self._start()
        return self._java.ask(questions, number_of_answers, convert)

    def close(self):
        """Ends the Java process."""
        self._java.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def _some(ids):
    """A few of many image ids, for a message."""
    ids = sorted(ids, key=str)
    return ', '.join(map(str, ids[:5])) + (f' … ({len(ids)} in all)' if len(ids) > 5 else '')


def _oneLine(text):
    """The text with a space for each white-space character: for Java some of them end a line, and lines must not move."""
    return re.sub(r'\s', ' ', text)


def _field(text):
    """The text as one field of a question to METEOR."""
    return _oneLine(text).replace('|||', '')


def _checked(answer):
    """METEOR's answer as it is, if it is what it should be."""
    if len([float(number) for number in answer.split()]) != NUMBER_OF_STATISTICS:
        raise ValueError
    return answer


def tokenize(captions):
    """Words by the Penn Treebank's rules (Stanford's PTBTokenizer, as in the COCO protocol), lower case, no punctuation.

    Brackets stay, as -lrb- and so on: the protocol's list of punctuation names them in capitals, after lower-casing.

    Args:
        captions: dict image id → list of str.

    Returns:
        dict image id → list of str, the words of each caption with a space between.

    Raises:
        JavaError: there is no Java, or it failed.
    """
    lines = [_oneLine(caption) for of_image in captions.values() for caption in of_image]
    jar = os.path.join(TOKENIZER_FOLDER, tokenizer_package.STANFORD_CORENLP_3_4_1_JAR)
    tokenized = runJava('The tokenizer', lines, '-cp', jar, 'edu.stanford.nlp.process.PTBTokenizer', '-preserveLines',
                        '-lowerCase')
    words = iter(' '.join(word for word in line.rstrip().split(' ') if word not in tokenizer_package.PUNCTUATIONS)
                 for line in tokenized)
    return {image: [next(words) for _ in of_image] for image, of_image in captions.items()}


class CaptionScorer:
    """Scores captions of the same images again and again, by the COCO protocol.

    Args:
        annotations: dict in the form of a COCO captions file, `images` (list of dicts with `id`) and `annotations`
            (list of dicts with `id`, `image_id`, `caption`).
        meteor: a `METEOR` to score with; None for one of its own.

    Attributes:
        meteor_per_image: dict image id → METEOR of the caption last scored.

    Raises:
        ValueError: an image has no caption.
        JavaError: there is no Java, or it failed.
    """

    def __init__(self, annotations, meteor=None):
        coco = COCO()
        coco.dataset = annotations
        with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress
            coco.createIndex()
        references = {image: [annotation['caption'] for annotation in coco.imgToAnns[image]] for image in coco.imgs}
        without = [image for image, captions in references.items() if not captions]
        if without:
            raise ValueError(f'There is no reference caption for the images {_some(without)}.')
        self.meteor = meteor or METEOR()  # reads its tables while the references are tokenized
        self.references = tokenize(references)
        self.meteor_per_image = {}

    def score(self, results):
        """Scores a caption of every image.

        Args:
            results: list of dicts in COCO results form, `image_id` and `caption`; each image of the annotations once.

        Returns:
            dict of float: `bleu_1`, `bleu_2`, `bleu_3`, `bleu_4`, `meteor`, `cider`, `rouge` (CIDEr to 10, others to 1).

        Raises:
            ValueError: an image is missing, doubled or unknown.
            JavaError: Java failed.
        """
        captions = {result['image_id']: [result['caption']] for result in results}
        times = collections.Counter(result['image_id'] for result in results)
        for fault, images in (('no caption', self.references.keys() - captions.keys()),
                              ('more than one caption', [image for image in times if times[image] > 1]),
                              ('a caption but no reference', captions.keys() - self.references.keys())):
            if images:
                raise ValueError(f'Each image needs one caption. There is {fault} for the images {_some(images)}.')
        captions = tokenize({image: captions[image] for image in self.references})  # in the references' order
        bleu, _ = BLEU().compute_score(self.references, captions)
        meteor, per_image = self.meteor.compute_score(self.references, captions)
        cider, _ = CIDEr().compute_score(self.references, captions)
        rouge, _ = ROUGE().compute_score(self.references, captions)
        self.meteor_per_image = dict(zip(self.references, per_image))
        return {**{f'bleu_{n}': float(score) for n, score in enumerate(bleu, start=1)},
                'meteor': meteor, 'cider': float(cider), 'rouge': float(rouge)}

    def close(self):
        """Ends METEOR's Java process."""
        self.meteor.close()
