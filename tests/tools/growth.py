"""Whether training slows down or grows in memory over 50 epochs. By hand on Linux, 15 minutes:

    PYTHONPATH=.:tests python tests/tools/growth.py

Task 4 trains at its full size on a few drawn scenes, in a copy of the project. Compares the
processor time of an epoch and the memory, Java's included, in the first and the last third of the
epochs; neither may grow by more than a tenth.
"""
import os
import statistics
import tempfile

from benchmark import memory_of_family
from kills import copy_of_project, start

from utils.demo.demoData import makeDemoData

EPOCHS = 50


def processor_seconds(pid):
    """User and system time of a process so far."""
    with open(f'/proc/{pid}/stat') as f:
        fields = f.read().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def has_grown(name, values):
    """Whether the median of the values' last third is more than a tenth above that of the first."""
    third = len(values) // 3
    first, last = statistics.median(values[:third]), statistics.median(values[-third:])
    print(f'{name}, medians of the first and the last third: {first:.2f}, {last:.2f}')
    return last > 1.1 * first


def main():
    times, memory = [], []
    with tempfile.TemporaryDirectory() as folder:
        root = os.path.join(folder, 'scenes')
        makeDemoData(root, 256, 64)
        process = start(copy_of_project(os.path.join(folder, 'project'), root, EPOCHS), 4)
        for line in process.stdout:
            if line.startswith(b'epoch '):
                times.append(processor_seconds(process.pid))
                memory.append(memory_of_family(process.pid) / 1000)
        assert process.wait() == 0, 'the training failed'
    # the first epochs warm up
    seconds = [after - before for before, after in zip(times[3:], times[4:])]
    grown = [has_grown('processor seconds per epoch', seconds),
             has_grown('memory in MB', memory[3:])]
    assert not any(grown)


if __name__ == '__main__':
    main()
