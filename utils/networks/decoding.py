"""From features to captions: greedily, by sampling or by beam search.

All call three methods of a network, described in `utils.networks.otherNetworks`. On a CPU,
captions that have ended are left out of the batch from time to time, which saves most of the work.
On a GPU, finding them would mean waiting for it, so they stay, and only every few steps it is
checked whether all have ended.
"""
import functools
import math

import torch

from utils.data.captionWords import END, UNKNOWN
from utils.networks.otherNetworks import wordwise

CAPTION_STEPS = 40  # words of a caption at most, as the course has it
STEPS_BETWEEN_CHECKS = {'cpu': 1, 'cuda': 8}


def untilAllHaveEnded(steps):
    """Turns a generator into a function that returns the captions once all have ended. The former
    yields, from time to time, how many have not (False after the last step), and the captions."""
    @functools.wraps(steps)
    def captions_of(*arguments, **options):
        for going, captions in steps(*arguments, **options):
            if not going:
                break
        return captions

    return captions_of


@untilAllHaveEnded
def greedyTokens(net, cnn_features, start_tokens):
    """Greedy captions: the most likely word at each step, up to the end token.

    Args:
        net: an `imageCaptionModel` in evaluation mode.
        cnn_features: [B, D] or [B, K, D].
        start_tokens: [B] integers.

    Returns:
        [B, at most 40] integers, end tokens from each caption's end on.
    """
    net = wordwise(net)
    processed = net.process_features(cnn_features)
    yield from _wordByWord(net, processed, start_tokens, lambda logits: logits.argmax(dim=-1))


@untilAllHaveEnded
def sampledTokens(net, cnn_features, start_tokens, number):
    """Sampled captions: each word is drawn with the network's probability for it, by torch's
    global generator.

    Args:
        net, cnn_features, start_tokens: as in `greedyTokens`.
        number: S, samples of each image.

    Returns:
        [B, S, at most 40] integers, end tokens from each caption's end on.
    """
    net = wordwise(net)
    processed = net.process_features(cnn_features).repeat_interleave(number, dim=0)
    start_tokens = start_tokens.repeat_interleave(number)
    for going, tokens in _wordByWord(net, processed, start_tokens, _sampled):
        yield going, tokens.unflatten(0, (-1, number))


def _sampled(logits):
    """A word [B] for each row of logits [B, V], sampled by their softmax."""
    up_to = logits.float().softmax(dim=-1).cumsum(dim=-1)                # faster than multinomial
    drawn = torch.rand_like(up_to[:, :1]) * up_to[:, -1:]
    # the index may lie outside where a model has diverged
    return torch.searchsorted(up_to, drawn).squeeze(1).clamp(max=logits.shape[1] - 1)


def _wordByWord(net, processed, start_tokens, choose):
    """Yields captions as `greedyTokens` returns them; `choose` picks each word from its logits."""
    prepared, word, state = net.prepare(processed), start_tokens, None
    tokens = start_tokens.new_full((len(start_tokens), CAPTION_STEPS), END)
    rows = torch.arange(len(start_tokens), device=start_tokens.device)   # captions in the batch
    between_checks = STEPS_BETWEEN_CHECKS[start_tokens.device.type]
    for step in range(CAPTION_STEPS):
        ended = word == END
        logits, state = net.logits_of_words(prepared, word, [len(word)], state)
        word = choose(logits).masked_fill(ended, END)
        tokens[rows, step] = word
        going = word != END
        number = going.sum()
        if (step + 1) % between_checks == 0:
            yield (step + 1 < CAPTION_STEPS and number), tokens[:, :step + 1]
        if between_checks == 1 and number <= len(rows) // 2:             # leave out the others
            rows, word, state = rows[going], word[going], state[:, going]
            prepared = net.prepare(processed[rows])


def withoutRepetitions(log_p, captions, may_repeat):
    """Log-probabilities of next words, -inf for those that would repeat something.

    A caption repeats no words but small ones, no three words in a row, and has no `UNK`.

    Args:
        log_p: [n, V].
        captions: [n, t] integers, the words so far, end tokens from each caption's end on.
        may_repeat: [V] booleans, True for the small words.
    """
    said = torch.zeros_like(log_p, dtype=torch.bool).scatter_(1, captions, True) & ~may_repeat
    if captions.shape[1] > 2:
        again = (captions.unfold(1, 2, 1)[:, :-1] == captions[:, -2:].unsqueeze(1)).all(2)
        said.scatter_(1, captions[:, 2:].masked_fill(~again, END), True)
    said[:, UNKNOWN] = True
    said[:, END] = False
    return log_p.masked_fill(said, -math.inf)


@untilAllHaveEnded
def beamSearch(net, cnn_features, start_tokens, beam_size, may_repeat=None):
    """The K best captions of each image: step after step it keeps the K best so far, ended or not.

    The best have the highest log-probability per word, the end counted as one (Cho et al. 2014,
    arXiv:1409.1259): the sum alone favours short captions, the more so the wider the beam.

    Args:
        net, cnn_features, start_tokens: as in `greedyTokens`.
        beam_size: K, at least 1 and at most V; from 2 on no caption is empty.
        may_repeat: as `withoutRepetitions` takes it, or None: captions may repeat words.

    Returns:
        [B, K, at most 40] integers, each image's best caption first, end tokens from each caption's
        end on; and the captions' log-probabilities [B, K], in nats; -inf where there are fewer than
        K captions.
    """
    net = wordwise(net)
    processed = net.process_features(cnn_features)
    B, K = len(start_tokens), beam_size
    captions = start_tokens.new_full((B, K, CAPTION_STEPS), END)
    # in lower precision, rounding would decide
    dtype = torch.promote_types(processed.dtype, torch.float32)
    scores = processed.new_full((B, K), -math.inf, dtype=dtype)
    scores[:, 0] = 0                                                     # at first all are equal
    rows = torch.arange(B, device=start_tokens.device)                   # the b images in the batch
    prepared = net.prepare(processed.repeat_interleave(K, dim=0))
    word, state = start_tokens.repeat_interleave(K), None                # [b·K]
    after_end = scores.new_full((K,), -math.inf)                         # nothing follows an end …
    after_end[:1] = 0                                                    # … but an end, for free
    between_checks = STEPS_BETWEEN_CHECKS[start_tokens.device.type]
    for step in range(CAPTION_STEPS):
        ended = word.view(-1, K) == END
        logits, state = net.logits_of_words(prepared, word, [len(word)], state)
        log_p_of_words = logits.to(dtype).log_softmax(dim=-1)            # [b·K, V]
        tokens = captions[rows]                                          # [b, K, 40]
        if may_repeat is not None:
            log_p_of_words = withoutRepetitions(
                log_p_of_words, tokens[:, :, :step].flatten(0, 1), may_repeat)
        if step == 0 and K > 1:
            log_p_of_words[:, END] = -math.inf
        gains, words = (best.view(-1, K, K) for best in log_p_of_words.topk(K))
        gains = torch.where(ended.unsqueeze(2), after_end, gains)
        words = words.masked_fill(ended.unsqueeze(2), END)
        log_p = scores[rows].unsqueeze(2) + gains                        # [b, K, K]
        lengths = (tokens != END).sum(dim=2, keepdim=True) + 1           # with the next word
        chosen = (log_p / lengths).flatten(1).topk(K).indices            # [b, K], the best first
        scores[rows] = log_p.flatten(1).gather(1, chosen)
        parents = torch.div(chosen, K, rounding_mode='floor')            # [b, K]
        tokens = tokens.gather(1, parents.unsqueeze(2).expand_as(tokens))
        tokens[:, :, step] = word = words.flatten(1).gather(1, chosen)   # [b, K]
        captions[rows] = tokens
        going = (word != END).any(dim=1)                                 # [b]
        number = going.sum()
        if (step + 1) % between_checks == 0:
            yield (step + 1 < CAPTION_STEPS and number), (captions[:, :, :step + 1], scores)
        first_rows = K * torch.arange(len(rows), device=rows.device)     # of each image's captions
        state_rows = parents + first_rows.unsqueeze(1)                   # [b, K]
        if between_checks == 1 and number <= len(rows) // 2:             # leave out the others
            rows, word, state_rows = rows[going], word[going], state_rows[going]
            prepared = net.prepare(processed[rows].repeat_interleave(K, dim=0))
        word, state = word.flatten(), state[:, state_rows.flatten()]


@untilAllHaveEnded
def bestOfBeam(net, cnn_features, start_tokens, beam_size):
    """The best caption of `beamSearch` for each image, as `greedyTokens` returns them."""
    for going, (captions, _) in beamSearch.__wrapped__(net, cnn_features, start_tokens, beam_size):
        yield going, captions[:, 0]
