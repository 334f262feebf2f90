"""What all tasks share. Import it before torch, which reads the variable below."""
import os

# How often an idle thread of GNU's OpenMP checks for work before it sleeps. By default it spins
# for milliseconds, which takes cores from other processes; sleeping at once costs time, too.
if 'OMP_WAIT_POLICY' not in os.environ:
    os.environ.setdefault('GOMP_SPINCOUNT', '1000')
