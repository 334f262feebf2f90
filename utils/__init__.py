"""What all tasks share. Imported before torch, which reads this from the environment."""
import os

# How often GNU's OpenMP looks for work before a thread sleeps. By default threads look for
# milliseconds, which takes the cores from other processes; to sleep at once costs time, too.
if 'OMP_WAIT_POLICY' not in os.environ:
    os.environ.setdefault('GOMP_SPINCOUNT', '1000')
