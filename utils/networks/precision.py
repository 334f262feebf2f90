"""What `config['precision']` may be: the type in which a network's large products are computed.

'bfloat16' and 'float16' are mixed precision; bfloat16 is faster on CPUs with instructions for it.
Only large matrix products have lower precision. All else stays float32: weights,
optimizer, recurrent states, softmax, loss and checkpoints. Gradients can be too small for float16,
so the loss is scaled up before the backward pass, and the gradients back before the step
(Micikevicius et al. 2018, arXiv:1710.03740).
"""
import contextlib

import torch

FLOAT32, FLOAT16 = 'float32', 'float16'
PRECISIONS = {FLOAT32: torch.float32, 'bfloat16': torch.bfloat16, FLOAT16: torch.float16}
CAPABILITY = {'bfloat16': (8, 0), 'float16': (7, 0)}  # the least that is fast
CPU_INSTRUCTIONS = {'avx512_bf16', 'amx_bf16'}        # either makes bfloat16 fast on a CPU


def hindrance(precision, device):
    """Why a device cannot compute in a precision, or not fast, as half a sentence; '' if it can."""
    if precision == FLOAT32:
        return ''
    if device.type == 'cuda':
        found, needed = torch.cuda.get_device_capability(device), CAPABILITY[precision]
        if found >= needed:
            return ''
        return (f'{torch.cuda.get_device_name(device)} has compute capability '
                f'{found[0]}.{found[1]}, and {needed[0]}.{needed[1]} is needed')
    if precision == FLOAT16:
        return 'a CPU is slow at it'
    if _cpuInstructions() & CPU_INSTRUCTIONS:
        return ''
    return f"this CPU has neither {' nor '.join(sorted(CPU_INSTRUCTIONS))} instructions"


def _cpuInstructions():
    """The names of a CPU's instruction sets as Linux lists them; none elsewhere."""
    try:
        with open('/proc/cpuinfo') as f:
            return set(next((line for line in f if line.startswith('flags')), '').split())
    except OSError:
        return set()


def products(precision, device):
    """An autocast context: matrix products are computed in this precision."""
    if precision == FLOAT32:
        return contextlib.nullcontext()
    # no cache of cast weights in CUDA graphs
    return torch.autocast(device.type, dtype=PRECISIONS[precision],
                          cache_enabled=device.type == 'cpu')


def lossScaler(precision):
    """torch's scaler of losses and gradients, which does nothing except for float16."""
    place = torch.amp if hasattr(getattr(torch, 'amp', None), 'GradScaler') else torch.cuda.amp
    return place.GradScaler(enabled=precision == FLOAT16)
