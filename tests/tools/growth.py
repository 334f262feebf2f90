"""Whether training slows down or grows in memory over 50 epochs. Run by hand on Linux, a quarter of an hour:

    PYTHONPATH=.:tests python tests/tools/growth.py

Task 4 trains at its full size on a few drawn scenes, in a copy of the project. Prints the processor time of the training
process, its memory and that of Java, which scores, by thirds of the epochs; none may grow by more than a tenth.
"""
import os
import statistics
import sys
import tempfile

from benchmark import family, proportional_set_size
from kills import copy_of_project, start

from utils.demo.demoData import makeDemoData

EPOCHS = 50
FIRST = 3  # the first epochs warm up


def processor_seconds(pid):
    """User and system time of a process so far."""
    with open(f'/proc/{pid}/stat') as f:
        fields = f.read().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def memory_of(pids):
    """The memory of processes in MB, of each its part of what it shares."""
    return sum(map(proportional_set_size, pids)) / 1000


def is_java(pid):
    with open(f'/proc/{pid}/cmdline', 'rb') as f:
        return b'java' in f.read().split(b'\0')[0]


def main():
    with tempfile.TemporaryDirectory() as folder:
        root = os.path.join(folder, 'scenes')
        makeDemoData(root, 256, 64)
        process = start(copy_of_project(os.path.join(folder, 'project'), root, EPOCHS), 4)
        times, memory, memory_of_java = [], [], []
        for line in process.stdout:
            if line.startswith(b'epoch '):
                times.append(processor_seconds(process.pid))
                java = [pid for pid in family(process.pid) if is_java(pid)]
                memory.append(memory_of(set(family(process.pid)) - set(java)))
                memory_of_java.append(memory_of(java))
        if process.wait() or len(times) != EPOCHS:
            sys.exit(f'the training ended with {process.returncode} after {len(times)} epochs')
    seconds = [after - before for before, after in zip(times, times[1:])][FIRST:]
    third = len(seconds) // 3
    grown = False
    for name, values in (('processor seconds per epoch', seconds), ('memory without Java in MB', memory[FIRST + 1:]),
                         ("Java's memory in MB", memory_of_java[FIRST + 1:])):
        first, middle, last = (statistics.median(values[part * third:(part + 1) * third]) for part in range(3))
        grown |= last > 1.1 * first
        print(f'{name}, medians of the thirds of {EPOCHS} epochs: {first:.2f}, {middle:.2f}, {last:.2f}')
    sys.exit('It grows.' if grown else 0)


if __name__ == '__main__':
    main()
